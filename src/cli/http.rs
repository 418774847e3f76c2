//! One GET to a listener of a running sidecar, for the commands that ask it something.
//!
//! Blocking sockets with short limits and no HTTP library: a probe is run every few seconds and should cost next to nothing.
//! The answer is read to its end, which `Connection: close` marks; it is never longer than [`LONGEST`].

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// Connecting, writing and reading may each take this long; the kubelet's own limit is 1 s by default.
const LIMIT: Duration = Duration::from_secs(2);
/// Thousands of names with their figures.
const LONGEST: u64 = 4 << 20;

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

/// Asks for `route`; the token is what the page wants where it has one.
pub(super) fn get(listen: SocketAddr, route: &str, token: Option<&str>) -> io::Result<Answer> {
    let address = reachable(listen);
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    // Under a local name the page answers whatever address it listens on.
    let head =
        format!("GET {route} HTTP/1.1\r\nHost: localhost:{}\r\n{token}Connection: close\r\n\r\n", address.port());
    stream.write_all(head.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer)?;
    read(&String::from_utf8_lossy(&answer)).ok_or_else(|| io::Error::other("the answer is no HTTP"))
}

/// Where a listener on all interfaces is reached from inside the pod.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn read(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let mut words = head.strip_prefix("HTTP/1.1 ")?.split([' ', '\r']);
    let status = words.next()?.parse().ok()?;
    Some(Answer { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Answers one request with `answer` and tells what was asked.
    fn once(answer: &'static str) -> (SocketAddr, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let asked = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client comes");
            let mut request = [0; 256];
            let length = stream.read(&mut request).expect("it asks");
            stream.write_all(answer.as_bytes()).expect("it listens");
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        (address, asked)
    }

    #[test]
    fn status_and_body_come_back() {
        let (address, asked) = once("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        let answer = get(address, "/readyz", None).expect("it answers");
        assert_eq!(answer, Answer { status: 200, body: "ok".to_owned() });
        let asked = asked.join().expect("no panic");
        assert!(asked.starts_with("GET /readyz HTTP/1.1\r\n") && !asked.contains("Authorization"), "{asked}");
    }

    #[test]
    fn the_token_is_sent_where_there_is_one() {
        let (address, asked) = once("HTTP/1.1 503 Service Unavailable\r\n\r\n");
        assert_eq!(get(address, "/", Some("secret")).expect("it answers").status, 503);
        assert!(asked.join().expect("no panic").contains("\r\nAuthorization: Bearer secret\r\n"));
    }

    #[test]
    fn what_is_no_http_is_an_error_and_so_is_nobody() {
        let (address, asked) = once("220 mail ready\r\n\r\n");
        assert!(get(address, "/", None).is_err());
        asked.join().expect("no panic");
        assert!(get(address, "/livez", None).is_err(), "nobody listens any more");
    }

    #[test]
    fn a_listener_on_all_interfaces_is_asked_on_loopback() {
        let reach = |text: &str| reachable(text.parse().expect("an address")).to_string();
        assert_eq!(reach("0.0.0.0:9464"), "127.0.0.1:9464");
        assert_eq!(reach("[::]:9464"), "[::1]:9464");
        assert_eq!(reach("10.0.0.1:1"), "10.0.0.1:1");
    }
}
