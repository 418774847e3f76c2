//! Whether an Agent is where its address says, for `doctor`. DogStatsD gives no answers, so all that can be seen is a refusal.

use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use super::datagram::Address;

/// A closed port of this machine refuses within microseconds; one across a node within a millisecond.
const PATIENCE: Duration = Duration::from_millis(200);

/// Sends an empty datagram, which every server passes over, and listens for a refusal. Blocks for [`PATIENCE`].
///
/// # Errors
/// What refused it, in words.
pub fn reach(address: &str) -> Result<(), String> {
    let refused = |error: std::io::Error| format!("{address}: {error}");
    match Address::parse(address)? {
        Address::Unix(path) => UnixDatagram::unbound().and_then(|socket| socket.connect(path)).map_err(refused),
        Address::Udp(to) => udp(&to).map_err(refused),
    }
}

fn udp(to: &str) -> std::io::Result<()> {
    let mut last = std::io::ErrorKind::NotFound.into();
    for address in std::net::ToSocketAddrs::to_socket_addrs(to)? {
        let local = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        match UdpSocket::bind(local).and_then(|socket| knock(&socket, address)) {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn knock(socket: &UdpSocket, address: std::net::SocketAddr) -> std::io::Result<()> {
    socket.connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(&[])?;
    match socket.recv(&mut [0; 1]) {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_port_and_a_missing_socket_refuse() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = format!("udp://{}", server.local_addr().unwrap());
        assert_eq!(reach(&address), Ok(()));
        drop(server);
        assert!(reach(&address).unwrap_err().contains("refused"));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dsd.socket");
        let address = format!("unix://{}", path.display());
        assert!(reach(&address).unwrap_err().contains("No such file"));
        let _server = UnixDatagram::bind(&path).unwrap();
        assert_eq!(reach(&address), Ok(()));
    }
}
