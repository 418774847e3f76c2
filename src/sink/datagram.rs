//! The socket to an Agent: one datagram a call, slowed down so that the other side's buffer keeps up, every line accounted.
//!
//! Runs on cadence's own thread, where blocking is allowed. The one surprising fact: on a connected UDP socket the kernel
//! reports with the *next* send that the one before was refused, and does not send that next one. So the lines of the last
//! datagram are only counted as sent when nothing came back for them, and a refused call is made again.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::panic::RefUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use cadence::MetricSink;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::agent_lines;

/// How long a send to a Unix socket waits for an Agent whose queue is full. Once that was in vain the next ones do not wait,
/// until one goes through: what a stuck Agent would get late is worth less than what comes now.
const WRITE: Duration = Duration::from_secs(1);
/// Between two look-ups of an Agent that refuses.
const LOOK_UP_EVERY: Duration = Duration::from_secs(1);

/// Where the Agent listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// `host:port`, looked up when the socket is made.
    Udp(String),
    /// Looked up at each send, so that an Agent that was started again is found.
    Unix(PathBuf),
}

impl Address {
    /// `udp://host:port` or `unix:///path`.
    pub fn parse(text: &str) -> Result<Address, String> {
        let expected = || format!("{text}: expected udp://host:port or unix:///path");
        if let Some(path) = text.strip_prefix("unix://") {
            return if path.starts_with('/') { Ok(Address::Unix(path.into())) } else { Err(expected()) };
        }
        let rest = text.strip_prefix("udp://").ok_or_else(expected)?;
        let (host, port) = rest.rsplit_once(':').ok_or_else(expected)?;
        if host.is_empty() || !port.parse::<u16>().is_ok_and(|port| port > 0) {
            return Err(expected());
        }
        Ok(Address::Udp(rest.to_owned()))
    }

    /// Bytes into which lines are packed: what passes a network unfragmented, and what an Agent reads at once.
    pub fn pack(&self) -> usize {
        match self {
            Address::Udp(_) => 1_432,
            Address::Unix(_) => 8_192,
        }
    }
}

/// Written by the sending thread, read by the sink. In lines, but for `delay`.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub sent: AtomicU64,
    /// Nobody takes datagrams there.
    pub unavailable: AtomicU64,
    /// Somebody does, and had no room.
    pub full: AtomicU64,
    /// Microseconds of rest after each datagram; written by the sink.
    pub delay: AtomicU64,
}

enum Socket {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

/// Only cadence's thread and, for a moment, a flush take the lock.
#[derive(Default)]
struct State {
    socket: Option<Socket>,
    /// When it was opened, and the Agent's name with it looked up.
    opened: Option<Instant>,
    /// Lines of the last datagram, of which no refusal has come back yet.
    unconfirmed: u64,
    /// The last send found the Agent's queue full: the socket does not wait any more.
    full: bool,
}

pub(super) struct DatagramSink {
    address: Address,
    tally: Arc<Tally>,
    state: Mutex<State>,
}

/// The state is whole after each step: a panic between two cannot leave it half changed.
impl RefUnwindSafe for DatagramSink {}

impl State {
    /// Whether the next send may wait for room.
    fn be_patient(&mut self, patient: bool) {
        if let Some(Socket::Unix(socket)) = &self.socket
            && self.full == patient
        {
            // Failing to change it costs a wait of a second more, or a datagram that might have waited.
            let _ = socket.set_nonblocking(!patient);
        }
        self.full = !patient;
    }
}

impl DatagramSink {
    pub fn new(address: Address, tally: Arc<Tally>) -> DatagramSink {
        DatagramSink { address, tally, state: Mutex::new(State::default()) }
    }

    fn send(&self, state: &mut State, datagram: &[u8]) -> io::Result<()> {
        let socket = match &mut state.socket {
            Some(socket) => socket,
            none => {
                state.opened = Some(Instant::now());
                none.insert(open(&self.address)?)
            }
        };
        match (socket, &self.address) {
            (Socket::Udp(socket), _) => socket.send(datagram).map(drop),
            (Socket::Unix(socket), Address::Unix(path)) => socket.send_to(datagram, path).map(drop),
            (Socket::Unix(_), Address::Udp(_)) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn confirm(&self, state: &mut State) {
        self.tally.sent.fetch_add(std::mem::take(&mut state.unconfirmed), Relaxed);
    }

    /// The datagram before this one was refused.
    fn refused(&self, state: &mut State) {
        self.tally.unavailable.fetch_add(std::mem::take(&mut state.unconfirmed), Relaxed);
        // Behind a name there may be another address by now: the next send looks it up, once a second at most.
        if state.opened.is_none_or(|at| at.elapsed() >= LOOK_UP_EVERY) {
            state.socket = None;
        }
    }
}

impl MetricSink for DatagramSink {
    fn emit(&self, datagram: &str) -> io::Result<usize> {
        let mut state = self.state.blocking_lock();
        let mut result = self.send(&mut state, datagram.as_bytes());
        if matches!(self.address, Address::Udp(_)) && is_refused(&result) {
            self.refused(&mut state);
            result = self.send(&mut state, datagram.as_bytes());
        }
        self.confirm(&mut state);
        let lines = agent_lines::count(datagram);
        match &result {
            Ok(()) => state.unconfirmed = lines,
            Err(error) if is_full(error) => _ = self.tally.full.fetch_add(lines, Relaxed),
            Err(_) => {
                self.tally.unavailable.fetch_add(lines, Relaxed);
                state.socket = None;
            }
        }
        state.be_patient(!result.as_ref().is_err_and(is_full));
        drop(state);
        std::thread::sleep(Duration::from_micros(self.tally.delay.load(Relaxed)));
        result.map(|()| datagram.len())
    }

    /// Settles the last datagram. Leaves it for later when the thread is sending.
    fn flush(&self) -> io::Result<()> {
        let Ok(mut state) = self.state.try_lock() else {
            return Ok(());
        };
        let error = match &state.socket {
            Some(Socket::Udp(socket)) => socket.take_error()?,
            _ => None,
        };
        if error.is_some() {
            self.refused(&mut state);
        } else {
            self.confirm(&mut state);
        }
        Ok(())
    }
}

/// The Agent's queue, or the kernel's to it.
fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(nix::errno::Errno::ENOBUFS as i32)
}

fn is_refused(result: &io::Result<()>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn open(address: &Address) -> io::Result<Socket> {
    match address {
        Address::Udp(address) => {
            let peers: Vec<SocketAddr> = address.to_socket_addrs()?.collect();
            let local = if peers.iter().all(SocketAddr::is_ipv6) { "[::]:0" } else { "0.0.0.0:0" };
            let socket = UdpSocket::bind(local)?;
            socket.connect(&peers[..])?;
            Ok(Socket::Udp(socket))
        }
        Address::Unix(_) => {
            let socket = UnixDatagram::unbound()?;
            socket.set_write_timeout(Some(WRITE))?;
            Ok(Socket::Unix(socket))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_udp_or_unix() {
        assert_eq!(Address::parse("udp://agent:8125"), Ok(Address::Udp("agent:8125".to_owned())));
        assert_eq!(Address::parse("udp://[::1]:8125"), Ok(Address::Udp("[::1]:8125".to_owned())));
        assert_eq!(Address::parse("unix:///run/dsd.socket"), Ok(Address::Unix("/run/dsd.socket".into())));
        for bad in ["", "agent:8125", "udp://agent", "udp://:8125", "udp://agent:0", "unix://relative", "http://x:1"] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_refused_datagram_is_counted_and_not_the_one_after_it() {
        let free = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let tally = Arc::new(Tally::default());
        let sink = DatagramSink::new(Address::Udp(address.to_string()), tally.clone());
        sink.emit("a:1|c\nb:1|c").unwrap();
        let agent = UdpSocket::bind(address).unwrap();
        sink.emit("c:1|c").unwrap();
        sink.flush().unwrap();
        assert_eq!((tally.sent.load(Relaxed), tally.unavailable.load(Relaxed)), (1, 2));
        let mut bytes = [0; 64];
        let n = agent.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..n], b"c:1|c");
    }

    #[test]
    fn the_last_datagrams_refusal_shows_with_the_flush() {
        let free = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let tally = Arc::new(Tally::default());
        let sink = DatagramSink::new(Address::Udp(address.to_string()), tally.clone());
        sink.emit("a:1|c").unwrap();
        sink.flush().unwrap();
        assert_eq!((tally.sent.load(Relaxed), tally.unavailable.load(Relaxed)), (0, 1));
    }

    #[test]
    fn a_full_agent_is_waited_for_once_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dsd.socket");
        let agent = UnixDatagram::bind(&path).unwrap();
        let tally = Arc::new(Tally::default());
        let sink = DatagramSink::new(Address::Unix(path), tally.clone());
        let fits = std::iter::repeat_with(|| sink.emit("a:1|c\nb:1|c")).take_while(io::Result::is_ok).count() as u64;
        let began = tokio::time::Instant::now();
        for _ in 0..1_000 {
            sink.emit("a:1|c").unwrap_err();
        }
        assert!(began.elapsed() < 100 * WRITE, "each of a thousand waited");
        assert_eq!((tally.full.load(Relaxed), tally.unavailable.load(Relaxed)), (1_002, 0));
        agent.recv(&mut [0; 64]).unwrap();
        sink.emit("c:1|c").unwrap();
        sink.flush().unwrap();
        assert_eq!(tally.sent.load(Relaxed), 2 * fits + 1);
    }

    #[test]
    fn a_unix_socket_that_was_made_again_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dsd.socket");
        let tally = Arc::new(Tally::default());
        let sink = DatagramSink::new(Address::Unix(path.clone()), tally.clone());
        assert!(sink.emit("a:1|c").is_err());
        for _ in 0..3 {
            let agent = UnixDatagram::bind(&path).unwrap();
            sink.emit("b:1|c").unwrap();
            let mut bytes = [0; 64];
            assert_eq!(agent.recv(&mut bytes).unwrap(), 5);
            std::fs::remove_file(&path).unwrap();
        }
        sink.flush().unwrap();
        assert_eq!((tally.sent.load(Relaxed), tally.unavailable.load(Relaxed)), (3, 1));
    }
}
