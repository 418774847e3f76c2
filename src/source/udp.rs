//! One UDP socket: datagrams in, batches of raw bytes out. Parsing happens elsewhere.
//!
//! A wakeup costs more than a datagram (4.8 against 1.0 µs of our time at 50,000 a second, and it costs the sender too), so
//! after a short read the task naps for a millisecond and lets the kernel's buffer collect the next batch. When the rollup
//! is behind, the socket is not read: the kernel buffers, and what it then drops is read back elsewhere by this socket's
//! inode.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::stat::fstat;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::pipeline::{Batch, Datagram};

/// A batch is sent when it holds this much, so that `pipeline::BATCHES` of them stay at a few MiB.
pub(super) const BATCH_BYTES: usize = 64 * 1024;
pub(super) const BATCH_DATAGRAMS: usize = 512;
/// Fewer datagrams than this in one go: there is time for a nap.
const SHORT_READ: usize = 32;
const NAP: Duration = Duration::from_millis(1);
/// A nap needs a buffer that holds what comes meanwhile: at 256 KiB about a hundred datagrams of 1 KB.
const NAP_BUFFER: usize = 256 * 1024;
/// After the stop: an app that ends at the same time still flushes its client. Until this much silence …
pub(super) const QUIET: Duration = Duration::from_millis(500);
/// … and never longer than this.
pub(super) const DRAIN: Duration = Duration::from_secs(5);
/// An error that repeats at once (a broken socket) must not spin.
pub(super) const AFTER_ERROR: Duration = Duration::from_millis(10);
pub(super) const WARN_EVERY: Duration = Duration::from_secs(60);

/// A bound socket. [`run`](UdpSource::run) is its task.
#[derive(Debug)]
pub struct UdpSource {
    socket: UdpSocket,
    local_addr: SocketAddr,
    receive_buffer_bytes: usize,
    max_datagram: usize,
}

impl UdpSource {
    /// Binds `addr` (port 0 allowed; IPv6 without its mapped IPv4) and asks for a receive buffer. The kernel cuts that to
    /// `net.core.rmem_max` without a word, see [`receive_buffer_bytes`](UdpSource::receive_buffer_bytes).
    ///
    /// # Errors
    /// When the address is in use or not ours, or outside a tokio runtime.
    pub fn bind(addr: SocketAddr, receive_buffer_bytes: usize, max_datagram: usize) -> io::Result<UdpSource> {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // A refusal leaves the default, which is read back below: a small buffer is degraded, not fatal.
        let _ = socket.set_recv_buffer_size(receive_buffer_bytes);
        let receive_buffer_bytes = socket.recv_buffer_size()?;
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        let socket = UdpSocket::from_std(socket.into())?;
        let local_addr = socket.local_addr()?;
        Ok(UdpSource { socket, local_addr, receive_buffer_bytes, max_datagram: max_datagram.max(1) })
    }

    /// Where it listens: port 0 has become a number.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// What the kernel granted, as it counts: twice what was asked when it granted all of it.
    pub fn receive_buffer_bytes(&self) -> usize {
        self.receive_buffer_bytes
    }

    /// The socket's inode, which is how `/proc/net/udp` names the row with its drops.
    pub fn inode(&self) -> Option<u64> {
        fstat(&self.socket).ok().map(|status| status.st_ino)
    }

    /// Reads until `stop`, then drains. No error of the socket ends it; a closed channel does.
    pub async fn run(self, out: mpsc::Sender<Batch>, stop: CancellationToken) {
        let naps = self.receive_buffer_bytes >= NAP_BUFFER;
        let mut reader = Reader::new(&self.socket, self.max_datagram);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = reader.readable() => {}
            }
            let Ok(permit) = out.reserve().await else { return };
            let batch = reader.read();
            let nap = naps && batch.datagrams.len() < SHORT_READ;
            if !batch.datagrams.is_empty() {
                permit.send(batch);
            }
            if nap {
                sleep(NAP).await;
            }
        }
        drain(reader, &out).await;
    }
}

/// Reads on until nothing came for [`QUIET`], at most for [`DRAIN`].
async fn drain(mut reader: Reader<'_>, out: &mpsc::Sender<Batch>) {
    let end = Instant::now() + DRAIN;
    let mut quiet_at = Instant::now() + QUIET;
    while timeout_at(quiet_at.min(end), reader.readable()).await.is_ok() && Instant::now() < end {
        let Ok(permit) = out.reserve().await else { return };
        let batch = reader.read();
        if !batch.datagrams.is_empty() {
            permit.send(batch);
            quiet_at = Instant::now() + QUIET;
        }
    }
}

/// The socket with the one buffer that every datagram is received into.
struct Reader<'a> {
    socket: &'a UdpSocket,
    /// One byte longer than a datagram may be: a longer one shows itself by filling it.
    buffer: Vec<u8>,
    /// Reading pauses until then, after an error.
    paused_until: Option<Instant>,
    warned_at: Option<Instant>,
}

impl<'a> Reader<'a> {
    fn new(socket: &'a UdpSocket, max_datagram: usize) -> Reader<'a> {
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

    /// Everything that waits, up to the size of a batch.
    fn read(&mut self) -> Batch {
        let mut batch = Batch::default();
        while batch.bytes.len() < BATCH_BYTES && batch.datagrams.len() < BATCH_DATAGRAMS {
            match self.socket.try_recv_from(&mut self.buffer) {
                Ok((length, from)) => self.append(&mut batch, length, from.port()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // An ICMP answer to something sent from this port, a signal: the datagrams behind it are as good as ever.
                Err(error) => {
                    self.note(&error);
                    break;
                }
            }
        }
        batch
    }

    fn append(&self, batch: &mut Batch, length: usize, port: u16) {
        let max = self.buffer.len() - 1;
        batch.bytes.extend_from_slice(&self.buffer[..length.min(max)]);
        let end =
            u32::try_from(batch.bytes.len()).expect("a batch is sent at 64 KiB, and a datagram has at most as much");
        batch.datagrams.push(Datagram { end, truncated: length > max, port });
    }

    fn note(&mut self, error: &io::Error) {
        let now = Instant::now();
        self.paused_until = Some(now + AFTER_ERROR);
        if self.warned_at.is_none_or(|at| now - at >= WARN_EVERY) {
            self.warned_at = Some(now);
            warn!(%error, "receiving from the StatsD socket failed; reading goes on");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bench {
        sender: std::net::UdpSocket,
        batches: mpsc::Receiver<Batch>,
        stop: CancellationToken,
        tasks: tokio::task::JoinSet<()>,
    }

    fn start(addr: &str, max_datagram: usize, queue: usize) -> Bench {
        let source = UdpSource::bind(addr.parse().unwrap(), 4 << 20, max_datagram).unwrap();
        let sender = std::net::UdpSocket::bind(SocketAddr::new(source.local_addr().ip(), 0)).unwrap();
        sender.connect(source.local_addr()).unwrap();
        let (out, batches) = mpsc::channel(queue);
        let stop = CancellationToken::new();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(source.run(out, stop.clone()));
        Bench { sender, batches, stop, tasks }
    }

    impl Bench {
        /// The next `count` datagrams, or a panic after ten seconds.
        async fn receive(&mut self, count: usize) -> Vec<(Datagram, Vec<u8>)> {
            let mut received = Vec::new();
            let deadline = Instant::now() + Duration::from_secs(10);
            while received.len() < count {
                let batch = timeout_at(deadline, self.batches.recv()).await.expect("in time").expect("open");
                received.extend(batch.iter().map(|(datagram, bytes)| (datagram, bytes.to_vec())));
            }
            received
        }
    }

    #[tokio::test]
    async fn datagrams_arrive_whole_in_order_and_with_their_port() {
        for addr in ["127.0.0.1:0", "[::1]:0"] {
            let mut bench = start(addr, 8192, 64);
            for n in 0..100 {
                bench.sender.send(format!("a:{n}|c").as_bytes()).unwrap();
            }
            let received = bench.receive(100).await;
            let port = bench.sender.local_addr().unwrap().port();
            for (n, (datagram, bytes)) in received.iter().enumerate() {
                assert_eq!((datagram.truncated, datagram.port), (false, port));
                assert_eq!(bytes, format!("a:{n}|c").as_bytes());
            }
        }
    }

    #[tokio::test]
    async fn only_a_datagram_past_the_limit_is_truncated() {
        let mut bench = start("127.0.0.1:0", 100, 64);
        for length in [99, 100, 101, 1000, 0, 1] {
            bench.sender.send(&vec![b'x'; length]).unwrap();
        }
        let received: Vec<(usize, bool)> =
            bench.receive(6).await.iter().map(|(datagram, bytes)| (bytes.len(), datagram.truncated)).collect();
        assert_eq!(received, [(99, false), (100, false), (100, true), (100, true), (0, false), (1, false)]);
    }

    #[tokio::test]
    async fn after_the_stop_it_reads_until_it_is_quiet() {
        let mut bench = start("127.0.0.1:0", 8192, 64);
        bench.stop.cancel();
        let began = Instant::now();
        for n in 0..8 {
            bench.sender.send(format!("late:{n}|g").as_bytes()).unwrap();
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(bench.receive(8).await.len(), 8);
        bench.tasks.join_next().await.unwrap().unwrap();
        assert!(began.elapsed() >= Duration::from_millis(1200), "quiet for half a second after the last");
        assert!(bench.batches.recv().await.is_none());
    }

    #[tokio::test]
    async fn an_app_that_never_falls_silent_holds_it_for_five_seconds_at_most() {
        let mut bench = start("127.0.0.1:0", 8192, 64);
        bench.stop.cancel();
        let began = Instant::now();
        while bench.tasks.try_join_next().is_none() {
            bench.sender.send(b"a:1|c").unwrap();
            while bench.batches.try_recv().is_ok() {}
            sleep(Duration::from_millis(20)).await;
            assert!(began.elapsed() < Duration::from_secs(9));
        }
        assert!(began.elapsed() >= Duration::from_secs(5));
    }

    #[tokio::test]
    async fn a_full_queue_makes_it_wait_and_loses_nothing() {
        let mut bench = start("127.0.0.1:0", 8192, 1);
        for _ in 0..20 {
            for n in 0..5 {
                bench.sender.send(format!("a:{n}|c").as_bytes()).unwrap();
            }
            sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(bench.receive(100).await.len(), 100);
    }

    #[tokio::test]
    async fn the_inode_is_the_row_of_proc_net_udp() {
        let source = UdpSource::bind("127.0.0.1:0".parse().unwrap(), 1 << 16, 8192).unwrap();
        let table = std::fs::read_to_string("/proc/net/udp").unwrap();
        let inode = source.inode().unwrap().to_string();
        assert!(table.lines().any(|row| row.split_whitespace().nth(9) == Some(inode.as_str())));
        assert!(source.receive_buffer_bytes() >= 1 << 16);
    }
}
