//! A pprof endpoint that does as it is told, and the sidecar's pulls from it by hand.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use oomwatch::source::puller::{Puller, Settings};
use tokio::sync::watch;

use super::{Sidecar, wait_for};

/// What the endpoint does with a connection, once it has read the request.
#[derive(Clone)]
pub enum Act {
    Answer(Vec<u8>),
    Silence,
    Drip,
    /// So many bytes that could be a profile's.
    Flood(u64),
    /// Gzip of so many zeros.
    Bomb(u64),
}

/// A pprof endpoint that does as it is told, and counts.
pub struct Endpoint {
    pub address: SocketAddr,
    pub act: watch::Sender<Act>,
    pub connections: Arc<AtomicUsize>,
    pub at_once: Arc<AtomicUsize>,
    pub sent: Arc<AtomicUsize>,
}

impl Endpoint {
    pub fn start(act: Act) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = Endpoint {
            address: listener.local_addr().unwrap(),
            act: watch::Sender::new(act),
            connections: Arc::default(),
            at_once: Arc::default(),
            sent: Arc::default(),
        };
        let (act, connections) = (endpoint.act.subscribe(), endpoint.connections.clone());
        let (at_once, sent, now) = (endpoint.at_once.clone(), endpoint.sent.clone(), Arc::new(AtomicUsize::new(0)));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                connections.fetch_add(1, Ordering::SeqCst);
                let act = act.borrow().clone();
                let (sent, now) = (sent.clone(), now.clone());
                at_once.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::spawn(move || perform(act, stream, &sent, &now));
            }
        });
        endpoint
    }

    pub fn url(&self) -> String {
        format!("http://{}/debug/pprof", self.address)
    }

    pub fn now(&self, act: Act) {
        self.act.send_replace(act);
    }

    pub fn puller(&self) -> Puller {
        Puller::new(&Settings { url: self.url(), ..Settings::default() }).unwrap()
    }
}

/// `now` counts the requests that wait for an answer or its end.
fn perform(act: Act, mut stream: TcpStream, sent: &AtomicUsize, now: &AtomicUsize) {
    let mut buffer = [0; 4_096];
    let _ = stream.read(&mut buffer);
    let index = buffer.starts_with(b"GET /debug/pprof/ ");
    let mut send = |bytes: &[u8]| {
        sent.fetch_add(bytes.len(), Ordering::Relaxed);
        stream.write_all(bytes).is_ok()
    };
    if index || matches!(act, Act::Answer(_)) {
        // Long enough for a second one to be seen.
        std::thread::sleep(Duration::from_millis(20));
    }
    // Before the answer: whoever has it may come again before this thread is heard of.
    now.fetch_sub(1, Ordering::SeqCst);
    match act {
        _ if index => drop(send(&answer("200 OK\r\nContent-Type: text/html", b"<html></html>"))),
        Act::Answer(bytes) => drop(send(&bytes)),
        Act::Silence => drop(stream.read(&mut buffer)),
        Act::Drip => {
            send(b"HTTP/1.1 200 OK\r\n\r\n");
            while send(b"\x0a") {
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        Act::Flood(bytes) => {
            send(b"HTTP/1.1 200 OK\r\n\r\n");
            // Empty samples, one after another.
            let piece = [0x12, 0x00].repeat(32 << 10);
            let _left = (0..bytes / piece.len() as u64).find(|_| !send(&piece));
        }
        Act::Bomb(bytes) => {
            send(b"HTTP/1.1 200 OK\r\n\r\n");
            let member = gzipped(&vec![0; 16 << 20]);
            let _left = (0..bytes / (16 << 20)).find(|_| !send(&member));
        }
    }
}

pub fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn answer(head: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

/// A page path with a method and further headers.
pub fn ask(address: SocketAddr, method: &str, path: &[u8], more: &str) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let head = format!(" HTTP/1.1\r\nHost: localhost\r\n{more}Content-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(&[method.as_bytes(), b" ", path, head.as_bytes()].concat()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let status =
        String::from_utf8_lossy(&answer[..answer.len().min(64)]).split(' ').nth(1).and_then(|it| it.parse().ok());
    let body = answer.windows(4).position(|it| it == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    (status.unwrap_or(0), answer[body..].to_vec())
}

pub fn watching(endpoint: &Endpoint, dir: &Path) -> String {
    format!(
        "[watch]\npid = {}\n[profile]\nurl = \"{}\"\nbaseline_after = \"1h\"\ncooldown = \"1ms\"\nmax_per_hour = 1000\ndir = \"{}\"\n",
        std::process::id(),
        endpoint.url(),
        dir.display()
    )
}

/// A round by hand, as soon as none is under way.
pub fn pull_now(sidecar: &Sidecar) {
    wait_for(Duration::from_secs(30), "a round to begin", || {
        (ask(sidecar.page, "POST", b"/api/profiles", "X-Oomwatch: 1\r\n").0 == 202).then_some(())
    });
}

pub fn told(sidecar: &Sidecar, words: &str) {
    wait_for(Duration::from_secs(40), words, || {
        let status = sidecar.api("/api/status");
        let said = status["degraded"].as_array()?.iter().find(|it| it["what"] == "profiles")?.clone();
        (said["why"].as_str()?.contains(words) && !said["fix"].as_str()?.is_empty()).then_some(())
    });
}
