//! One UDP socket: datagrams in, batches of raw bytes out. Parsing happens elsewhere.
//!
//! A wakeup costs more than a datagram (4.8 against 1.0 µs of our time at 50,000 a second, and it costs the sender too).
//! While datagrams are few the kernel tells of each. As soon as they are many the socket is taken off the poller, which would
//! go on waking us for every single one, and is read after naps, in which the kernel's buffer collects the next batch. When
//! the rollup is behind, the socket is not read: the kernel buffers, and what it then drops is read back elsewhere by this
//! socket's inode.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::stat::fstat;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::datagrams::{Read, Slots};
use crate::pipeline::Batch;

/// A batch is sent when it holds this much, so that `pipeline::BATCHES` of them stay at a few MiB.
pub(super) const BATCH_BYTES: usize = 64 * 1024;
pub(super) const BATCH_DATAGRAMS: usize = 512;
/// Buffers of read batches that wait to be filled again; any more are freed.
const SPARE_BATCHES: usize = 4;
/// This many in one read, a nap after the one before, are many.
const MANY: usize = 4;
const NAP: Duration = Duration::from_millis(1);
/// A nap needs a buffer that holds what comes meanwhile: at 256 KiB about a hundred datagrams of 1 KB.
const NAP_BUFFER: usize = 256 * 1024;
/// With this much more of it (as the kernel counts) a nap among many may last another millisecond …
const LONGER_BUFFER: usize = 2 * 1024 * 1024;
/// … up to this.
const LONGEST_NAP: Duration = Duration::from_millis(4);
/// Naps in a row that bring nothing: no longer many.
const EMPTY_NAPS: u32 = 8;
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
    socket: Socket,
    local_addr: SocketAddr,
    receive_buffer_bytes: usize,
    max_datagram: usize,
}

impl UdpSource {
    /// Binds `addr` (port 0 allowed; IPv6 without its mapped IPv4) and asks for a receive buffer. The kernel cuts that to
    /// `net.core.rmem_max` without a word, see [`receive_buffer_bytes`](UdpSource::receive_buffer_bytes).
    ///
    /// # Errors
    /// When the address is in use or not ours.
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
        let local_addr = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
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
        let mut reader = Reader::new(&self.socket, self.max_datagram, out);
        let ended = loop {
            tokio::select! {
                () = stop.cancelled() => break Ok(()),
                read = reader.read_few(naps) => if read.is_err() { break read },
            }
            if let Err(closed) = reader.read_many(nap_among_many(self.receive_buffer_bytes), &stop).await {
                break Err(closed);
            }
        };
        if ended.is_ok() {
            // Nobody is left to be told when the channel closes now.
            let _ = reader.drain().await;
        }
    }
}

fn nap_among_many(receive_buffer_bytes: usize) -> Duration {
    NAP.saturating_mul((receive_buffer_bytes / LONGER_BUFFER) as u32).clamp(NAP, LONGEST_NAP)
}

/// The rollup is gone.
struct Closed;

/// The socket with what it is read through.
struct Reader<'a> {
    socket: &'a Socket,
    slots: Slots,
    out: mpsc::Sender<Batch>,
    /// Where read batches come back, and what they are given to come back by.
    spare: mpsc::Receiver<Batch>,
    home: mpsc::Sender<Batch>,
    warned_at: Option<Instant>,
}

impl<'a> Reader<'a> {
    fn new(socket: &'a Socket, max_datagram: usize, out: mpsc::Sender<Batch>) -> Reader<'a> {
        let (home, spare) = mpsc::channel(SPARE_BATCHES);
        Reader { socket, slots: Slots::new(max_datagram), out, spare, home, warned_at: None }
    }

    /// Reads as the kernel tells, until there are many and `naps` are allowed. Cancel-safe: what is read is sent at once.
    async fn read_few(&mut self, naps: bool) -> Result<(), Closed> {
        // On the poller for as long as this lasts.
        let told = match self.socket.try_clone().and_then(|socket| UdpSocket::from_std(socket.into())) {
            Ok(told) => told,
            Err(error) => return self.stumble(&error).await,
        };
        loop {
            if let Err(error) = told.readable().await {
                return self.stumble(&error).await;
            }
            let read = self.read().await?;
            if read.datagrams == 0 {
                // By its own word only: it forgets that it was readable.
                let _ = told.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
            }
            if naps && read.datagrams >= MANY {
                return Ok(());
            }
            if naps && read.datagrams > 0 {
                sleep(NAP).await;
            }
        }
    }

    /// Reads after naps, until several bring nothing.
    async fn read_many(&mut self, nap: Duration, stop: &CancellationToken) -> Result<(), Closed> {
        let mut empty = 0;
        while empty < EMPTY_NAPS && !stop.is_cancelled() {
            let read = self.read().await?;
            empty = if read.datagrams == 0 { empty + 1 } else { 0 };
            if read.emptied {
                sleep(nap).await;
            }
        }
        Ok(())
    }

    /// Reads on until nothing came for [`QUIET`], at most for [`DRAIN`].
    async fn drain(&mut self) -> Result<(), Closed> {
        let end = Instant::now() + DRAIN;
        let mut quiet_at = Instant::now() + QUIET;
        while Instant::now() < quiet_at.min(end) {
            if self.read().await?.datagrams > 0 {
                quiet_at = Instant::now() + QUIET;
            }
            sleep(NAP).await;
        }
        Ok(())
    }

    /// Sends what waits, up to the size of a batch. An ICMP answer to something sent from this port, a signal: the datagrams
    /// behind an error are as good as ever.
    async fn read(&mut self) -> Result<Read, Closed> {
        let permit = self.out.reserve().await.map_err(|_| Closed)?;
        let mut batch = self.spare.try_recv().unwrap_or_else(|_| Batch::at_home(self.home.clone()));
        let read = self.slots.fill(self.socket, &mut batch);
        if batch.datagrams.is_empty() {
            drop(permit);
            batch.give_back();
        } else {
            permit.send(batch);
        }
        match read {
            Ok(read) => Ok(read),
            Err(error) => {
                self.stumble(&error).await?;
                Ok(Read { datagrams: 1, emptied: false })
            }
        }
    }

    async fn stumble(&mut self, error: &io::Error) -> Result<(), Closed> {
        let now = Instant::now();
        if self.warned_at.is_none_or(|at| now - at >= WARN_EVERY) {
            self.warned_at = Some(now);
            warn!(%error, "receiving from the StatsD socket failed; reading goes on");
        }
        sleep(AFTER_ERROR).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout_at;

    use super::*;
    use crate::pipeline::Datagram;

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
    async fn many_then_silence_then_one_are_all_read() {
        let mut bench = start("127.0.0.1:0", 8192, 64);
        for n in 0..3 {
            for m in 0..1000 {
                bench.sender.send(format!("a:{n}.{m}|c").as_bytes()).unwrap();
            }
            let received = bench.receive(1000).await;
            assert_eq!(received[999].1, format!("a:{n}.999|c").as_bytes());
            // Longer than the empty naps after which it waits for the kernel's word again.
            sleep(2 * EMPTY_NAPS * LONGEST_NAP).await;
            bench.sender.send(b"a:1|c").unwrap();
            assert_eq!(bench.receive(1).await.len(), 1);
        }
    }

    #[tokio::test]
    async fn a_batch_that_is_given_back_is_filled_again() {
        let mut bench = start("127.0.0.1:0", 8192, 64);
        let mut places = std::collections::HashSet::new();
        for _ in 0..20 {
            bench.sender.send(b"a:1|c").unwrap();
            let batch = bench.batches.recv().await.unwrap();
            assert_eq!((batch.bytes.as_slice(), batch.datagrams.len()), (&b"a:1|c"[..], 1));
            places.insert(batch.bytes.as_ptr());
            batch.give_back();
        }
        assert!(places.len() <= SPARE_BATCHES, "{} buffers", places.len());
    }

    #[test]
    fn naps_are_as_long_as_the_buffer_allows() {
        let nap = |mib: usize| nap_among_many(mib << 20).as_millis();
        assert_eq!([0, 1, 4, 8, 64].map(nap), [1, 1, 2, 4, 4]);
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
