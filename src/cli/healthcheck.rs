//! `healthcheck`: asks the health listener of a running sidecar, for exec probes in an image without a shell.
//!
//! Blocking sockets with short limits and no HTTP library: a probe is run every few seconds and should cost next to nothing.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Connecting, writing and reading may each take this long; the kubelet's own limit is 1 s by default.
const LIMIT: Duration = Duration::from_secs(2);

pub(super) fn run(path: Option<&Path>, ready: bool) -> ExitCode {
    let loaded = match super::settings(path) {
        Ok(loaded) => loaded,
        // 78 would be a surprise in a probe, which knows 0 and 1.
        Err(_) => return ExitCode::from(1),
    };
    let route = if ready { "/readyz" } else { "/livez" };
    match ask(reachable(loaded.config.health.listen), route) {
        Ok(status) if status.contains(" 200 ") => ExitCode::SUCCESS,
        Ok(status) => fail(&format!("{route} answered {status:?}")),
        Err(error) => fail(&format!("{route}: {error}")),
    }
}

fn fail(words: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "oomwatch: {words}");
    ExitCode::from(1)
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

/// The status line of the answer, cut at 64 bytes.
fn ask(address: SocketAddr, route: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.write_all(format!("GET {route} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut head = Vec::with_capacity(64);
    stream.take(64).read_to_end(&mut head)?;
    Ok(String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned())
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
    fn the_status_line_comes_back() {
        let (address, asked) = once("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        assert_eq!(ask(address, "/readyz").expect("it answers"), "HTTP/1.1 200 OK");
        assert!(asked.join().expect("no panic").starts_with("GET /readyz HTTP/1.1\r\n"));
    }

    #[test]
    fn nobody_listening_is_an_error() {
        let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
        assert!(ask(address, "/livez").is_err());
    }

    #[test]
    fn a_listener_on_all_interfaces_is_asked_on_loopback() {
        let reach = |text: &str| reachable(text.parse().expect("an address")).to_string();
        assert_eq!(reach("0.0.0.0:9464"), "127.0.0.1:9464");
        assert_eq!(reach("[::]:9464"), "[::1]:9464");
        assert_eq!(reach("10.0.0.1:1"), "10.0.0.1:1");
    }
}
