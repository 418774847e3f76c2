//! The Unix datagram socket: datagrams in, batches of raw bytes out, as from UDP but for two things.
//!
//! The queue holds `net.unix.max_dgram_qlen` datagrams, often 10, and a sender that finds it full waits or gives up; so there is
//! no nap here, and nothing is lost in the kernel without the client knowing. And a sender has no port: who is connected is
//! told by the kernel's table, see [`census`](super::census).

use std::io;
use std::path::Path;

use nix::sys::stat::fstat;
use socket2::Type;
use tokio::net::UnixDatagram;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::socket_file::{self, SocketFile};
use super::udp::{AFTER_ERROR, BATCH_BYTES, BATCH_DATAGRAMS, DRAIN, QUIET, WARN_EVERY};
use crate::pipeline::Batch;

/// A bound socket. [`run`](UnixgramSource::run) is its task; the file goes when it ends.
#[derive(Debug)]
pub struct UnixgramSource {
    socket: UnixDatagram,
    file: SocketFile,
    max_datagram: usize,
}

impl UnixgramSource {
    /// Binds `path` with mode 0722, in the place of a dead socket if one is there.
    ///
    /// # Errors
    /// Those of the path, as [`SocketFile`] tells them.
    pub fn bind(path: &Path, max_datagram: usize) -> io::Result<UnixgramSource> {
        let (socket, file) = socket_file::bind(path, Type::DGRAM)?;
        let socket = UnixDatagram::from_std(socket.into())?;
        Ok(UnixgramSource { socket, file, max_datagram: max_datagram.max(1) })
    }

    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The socket's inode, which is how `/proc/net/unix` names its row.
    pub fn inode(&self) -> Option<u64> {
        fstat(&self.socket).ok().map(|status| status.st_ino)
    }

    /// Reads until `stop`, then until nothing came for half a second, at most for five. No error of the socket ends it; a
    /// closed channel does.
    pub async fn run(self, out: mpsc::Sender<Batch>, stop: CancellationToken) {
        let mut reader = Reader::new(&self.socket, self.max_datagram);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = reader.readable() => {}
            }
            if reader.hand_over(&out).await.is_none() {
                return;
            }
        }
        drain(reader, &out).await;
    }
}

async fn drain(mut reader: Reader<'_>, out: &mpsc::Sender<Batch>) {
    let end = Instant::now() + DRAIN;
    let mut quiet_at = Instant::now() + QUIET;
    while timeout_at(quiet_at.min(end), reader.readable()).await.is_ok() && Instant::now() < end {
        match reader.hand_over(out).await {
            None => return,
            Some(0) => {}
            Some(_) => quiet_at = Instant::now() + QUIET,
        }
    }
}

/// The socket with the one buffer that every datagram is received into.
struct Reader<'a> {
    socket: &'a UnixDatagram,
    /// One byte longer than a datagram may be: a longer one shows itself by filling it.
    buffer: Vec<u8>,
    /// Reading pauses until then, after an error.
    paused_until: Option<Instant>,
    warned_at: Option<Instant>,
}

impl<'a> Reader<'a> {
    fn new(socket: &'a UnixDatagram, max_datagram: usize) -> Reader<'a> {
        Reader { socket, buffer: vec![0; max_datagram + 1], paused_until: None, warned_at: None }
    }

    /// Cancel-safe: nothing is taken from the socket here.
    async fn readable(&mut self) {
        if let Some(until) = self.paused_until {
            sleep_until(until).await;
            self.paused_until = None;
        }
        if let Err(error) = self.socket.readable().await {
            self.note(&error);
        }
    }

    /// Waits for a place and fills it; how many datagrams that were, `None` when nobody takes them any more.
    async fn hand_over(&mut self, out: &mpsc::Sender<Batch>) -> Option<usize> {
        let permit = out.reserve().await.ok()?;
        let batch = self.read();
        let count = batch.datagrams.len();
        if count > 0 {
            permit.send(batch);
        }
        Some(count)
    }

    /// Everything that waits, up to the size of a batch. A sender that waited for room refills the queue meanwhile.
    fn read(&mut self) -> Batch {
        let mut batch = Batch::default();
        let max = self.buffer.len() - 1;
        while batch.bytes.len() < BATCH_BYTES && batch.datagrams.len() < BATCH_DATAGRAMS {
            match self.socket.try_recv(&mut self.buffer) {
                Ok(length) => batch.push(&self.buffer[..length.min(max)], length > max, 0),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    self.note(&error);
                    break;
                }
            }
        }
        batch
    }

    fn note(&mut self, error: &io::Error) {
        let now = Instant::now();
        self.paused_until = Some(now + AFTER_ERROR);
        if self.warned_at.is_none_or(|at| now - at >= WARN_EVERY) {
            self.warned_at = Some(now);
            warn!(%error, "receiving from the Unix datagram socket failed; reading goes on");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram as Sender;
    use std::time::Duration;

    struct Bench {
        sender: Sender,
        batches: mpsc::Receiver<Batch>,
        stop: CancellationToken,
        tasks: tokio::task::JoinSet<()>,
        dir: tempfile::TempDir,
    }

    fn start(max_datagram: usize, queue: usize) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let source = UnixgramSource::bind(&dir.path().join("s"), max_datagram).unwrap();
        let sender = Sender::unbound().unwrap();
        sender.connect(source.path()).unwrap();
        sender.set_nonblocking(true).unwrap();
        let (out, batches) = mpsc::channel(queue);
        let stop = CancellationToken::new();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(source.run(out, stop.clone()));
        Bench { sender, batches, stop, tasks, dir }
    }

    impl Bench {
        /// Sends as a client does that waits for room.
        async fn send(&self, bytes: &[u8]) {
            let deadline = Instant::now() + Duration::from_secs(10);
            while self.sender.send(bytes).is_err() {
                assert!(Instant::now() < deadline, "the queue stays full");
                tokio::task::yield_now().await;
            }
        }

        async fn receive(&mut self, count: usize) -> Vec<(bool, Vec<u8>)> {
            let mut received = Vec::new();
            let deadline = Instant::now() + Duration::from_secs(10);
            while received.len() < count {
                let batch = timeout_at(deadline, self.batches.recv()).await.expect("in time").expect("open");
                received.extend(batch.iter().map(|(datagram, bytes)| (datagram.truncated, bytes.to_vec())));
            }
            received
        }
    }

    #[tokio::test]
    async fn datagrams_arrive_whole_and_in_order_past_the_depth_of_the_queue() {
        let mut bench = start(8192, 64);
        for n in 0..100 {
            bench.send(format!("a:{n}|c").as_bytes()).await;
        }
        for (n, (truncated, bytes)) in bench.receive(100).await.into_iter().enumerate() {
            assert_eq!((truncated, bytes), (false, format!("a:{n}|c").into_bytes()));
        }
    }

    #[tokio::test]
    async fn only_a_datagram_past_the_limit_is_truncated() {
        let mut bench = start(100, 64);
        for length in [99, 100, 101, 1000, 0, 1] {
            bench.send(&vec![b'x'; length]).await;
        }
        let received: Vec<_> =
            bench.receive(6).await.into_iter().map(|(truncated, bytes)| (bytes.len(), truncated)).collect();
        assert_eq!(received, [(99, false), (100, false), (100, true), (100, true), (0, false), (1, false)]);
    }

    #[tokio::test]
    async fn a_full_channel_leaves_the_senders_waiting_and_loses_nothing() {
        let mut bench = start(8192, 1);
        let (mut sent, mut full) = (0, 0);
        while full < 1000 {
            match bench.sender.send(b"a:1|c") {
                Ok(_) => (sent, full) = (sent + 1, 0),
                Err(_) => full += 1,
            }
            tokio::task::yield_now().await;
        }
        assert!(sent > 0);
        assert_eq!(bench.receive(sent).await.len(), sent);
    }

    #[tokio::test]
    async fn after_the_stop_it_reads_until_it_is_quiet_and_removes_its_file() {
        let mut bench = start(8192, 64);
        bench.stop.cancel();
        let began = Instant::now();
        for n in 0..8 {
            bench.send(format!("late:{n}|g").as_bytes()).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(bench.receive(8).await.len(), 8);
        assert!(bench.dir.path().join("s").exists(), "late clients still find it");
        bench.tasks.join_next().await.unwrap().unwrap();
        assert!(began.elapsed() >= Duration::from_millis(1200), "quiet for half a second after the last");
        assert!(bench.batches.recv().await.is_none());
        assert!(!bench.dir.path().join("s").exists());
    }
}
