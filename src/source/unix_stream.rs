//! The Unix stream socket: connections with frames, each read by a task of its own.
//!
//! The source owns its connection tasks; `app` sees the one task that accepts. An idle connection costs a descriptor and about
//! a kilobyte, an unfinished frame what has come of it, so all of them together stay below [`MOST`] times
//! `statsd.max_datagram`. A full channel stops the reading, and then the kernel makes the clients wait.

use std::future::Future;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;

use socket2::Type;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::frames::Frames;
use super::socket_file::{self, SocketFile};
use super::udp::{AFTER_ERROR, BATCH_BYTES, DRAIN, QUIET, WARN_EVERY};
use crate::pipeline::{Batch, Refused};

/// Connections held at once. One more is closed at once and counted as `connections`: its client sees that, and tries again.
pub const MOST: usize = 1_024;

/// Read in one system call, into the stack.
const PIECE: usize = 16 * 1024;

/// A bound socket. [`run`](UnixStreamSource::run) is its task; the file goes when it ends.
#[derive(Debug)]
pub struct UnixStreamSource {
    listener: UnixListener,
    file: SocketFile,
    max_frame: usize,
    open: watch::Sender<u64>,
}

impl UnixStreamSource {
    /// Binds `path` with mode 0722, in the place of a dead socket if one is there.
    ///
    /// # Errors
    /// Those of the path, as [`SocketFile`] tells them.
    pub fn bind(path: &Path, max_frame: usize) -> io::Result<UnixStreamSource> {
        let (socket, file) = socket_file::bind(path, Type::STREAM)?;
        let listener = UnixListener::from_std(socket.into())?;
        Ok(UnixStreamSource { listener, file, max_frame: max_frame.max(1), open: watch::Sender::new(0) })
    }

    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// How many connections are open: the live clients, for the census.
    pub fn clients(&self) -> watch::Receiver<u64> {
        self.open.subscribe()
    }

    /// Accepts and reads until `stop`, then until half a second of quiet on all connections, at most for five.
    pub async fn run(self, out: mpsc::Sender<Batch>, stop: CancellationToken) {
        let cut = CancellationToken::new();
        let mut reception = Reception {
            listener: &self.listener,
            max_frame: self.max_frame,
            open: &self.open,
            connections: JoinSet::new(),
            refused: 0,
            paused_until: None,
            warned_at: None,
            out: &out,
            stop: stop.clone(),
            cut: cut.clone(),
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = reception.serve() => {}
        }
        reception.drain().await;
        cut.cancel();
        reception.finish().await;
    }
}

/// Accepts connections and knows those that are open.
struct Reception<'a> {
    listener: &'a UnixListener,
    max_frame: usize,
    open: &'a watch::Sender<u64>,
    /// At most [`MOST`].
    connections: JoinSet<()>,
    /// Connections closed at the door since the rollup was last told.
    refused: u32,
    /// Accepting pauses until then, after an error such as a lack of descriptors.
    paused_until: Option<Instant>,
    warned_at: Option<Instant>,
    out: &'a mpsc::Sender<Batch>,
    stop: CancellationToken,
    /// The end of the drain, for connections that never fall silent.
    cut: CancellationToken,
}

impl Reception<'_> {
    /// Does not end by itself. Cancel-safe: every step is done or not begun.
    async fn serve(&mut self) {
        loop {
            self.step().await;
        }
    }

    /// One connection more, one less, or the rollup told of those refused; true for a new connection.
    async fn step(&mut self) -> bool {
        tokio::select! {
            accepted = accept(self.listener, self.paused_until) => self.accepted(accepted),
            Some(ended) = self.connections.join_next() => self.ended(ended),
            Ok(permit) = self.out.reserve(), if self.refused > 0 => {
                permit.send(refusals(std::mem::take(&mut self.refused)));
                false
            }
        }
    }

    /// Until every connection has fallen silent and none came for [`QUIET`], at most for [`DRAIN`].
    async fn drain(&mut self) {
        let end = Instant::now() + DRAIN;
        let mut quiet_at = Instant::now() + QUIET;
        while Instant::now() < end && (Instant::now() < quiet_at || !self.connections.is_empty()) {
            let until = if self.connections.is_empty() { quiet_at.min(end) } else { end };
            if timeout_at(until, self.step()).await == Ok(true) {
                quiet_at = Instant::now() + QUIET;
            }
        }
    }

    /// What is still open has been cut, and hands over what it has.
    async fn finish(&mut self) {
        while let Some(ended) = self.connections.join_next().await {
            self.ended(ended);
        }
        if self.refused > 0 {
            let _nobody = self.out.send(refusals(self.refused)).await;
        }
    }

    fn accepted(&mut self, accepted: io::Result<UnixStream>) -> bool {
        self.paused_until = None;
        match accepted {
            Ok(stream) => self.admit(stream),
            Err(error) => self.note(&error),
        }
        true
    }

    fn admit(&mut self, stream: UnixStream) {
        // Those that ended meanwhile have left their places.
        while let Some(ended) = self.connections.try_join_next() {
            self.ended(ended);
        }
        if self.connections.len() >= MOST {
            self.refused = self.refused.saturating_add(1);
            return;
        }
        let connection = Connection { stream, frames: Frames::new(self.max_frame), out: self.out.clone() };
        self.connections.spawn(connection.run(self.stop.clone(), self.cut.clone()));
        self.tell_open();
    }

    fn ended(&mut self, ended: Result<(), JoinError>) -> bool {
        if let Err(fault) = ended {
            error!("a StatsD connection's task panicked: {fault}");
        }
        self.tell_open();
        false
    }

    fn tell_open(&self) {
        self.open.send_replace(self.connections.len() as u64);
    }

    fn note(&mut self, error: &io::Error) {
        let now = Instant::now();
        self.paused_until = Some(now + AFTER_ERROR);
        if self.warned_at.is_none_or(|at| now - at >= WARN_EVERY) {
            self.warned_at = Some(now);
            warn!(%error, "accepting on the Unix stream socket failed; it is tried again");
        }
    }
}

async fn accept(listener: &UnixListener, after: Option<Instant>) -> io::Result<UnixStream> {
    if let Some(until) = after {
        sleep_until(until).await;
    }
    listener.accept().await.map(|(stream, _)| stream)
}

fn refusals(connections: u32) -> Batch {
    Batch { refused: Refused { connections, ..Refused::default() }, ..Batch::default() }
}

/// One client.
struct Connection {
    stream: UnixStream,
    frames: Frames,
    out: mpsc::Sender<Batch>,
}

impl Connection {
    async fn run(mut self, stop: CancellationToken, cut: CancellationToken) {
        let open = tokio::select! {
            () = stop.cancelled() => true,
            () = self.serve() => false,
        };
        if open {
            tokio::select! {
                () = cut.cancelled() => {}
                () = self.drain() => {}
            }
        }
        self.finish().await;
    }

    /// Until the client has gone. Cancel-safe: what is read is handed over in the same step.
    async fn serve(&mut self) {
        while self.stream.readable().await.is_ok() && self.turn().await.is_continue() {}
    }

    async fn drain(&mut self) {
        while self.before_quiet(self.stream.readable()).await && self.turn().await.is_continue() {}
    }

    async fn before_quiet(&self, readable: impl Future<Output = io::Result<()>>) -> bool {
        timeout_at(Instant::now() + QUIET, readable).await.is_ok_and(|ready| ready.is_ok())
    }

    /// Reads what is there once the rollup has a place for it.
    async fn turn(&mut self) -> ControlFlow<()> {
        let Ok(permit) = self.out.reserve().await else { return ControlFlow::Break(()) };
        let mut batch = Batch::default();
        let more = read(&self.stream, &mut self.frames, &mut batch);
        if !batch.is_empty() {
            permit.send(batch);
        }
        more
    }

    async fn finish(mut self) {
        let mut batch = Batch::default();
        self.frames.end(&mut batch);
        if !batch.is_empty() {
            let _nobody = self.out.send(batch).await;
        }
    }
}

/// Everything that waits, up to the size of a batch; `Break` at the end of the stream. A reset is an end, too.
fn read(stream: &UnixStream, frames: &mut Frames, batch: &mut Batch) -> ControlFlow<()> {
    let mut piece = [0; PIECE];
    while batch.bytes.len() < BATCH_BYTES {
        match stream.try_read(&mut piece) {
            Ok(0) => return ControlFlow::Break(()),
            Ok(length) => frames.take(&piece[..length], batch),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(_) => return ControlFlow::Break(()),
        }
    }
    ControlFlow::Continue(())
}

#[cfg(test)]
mod tests;
