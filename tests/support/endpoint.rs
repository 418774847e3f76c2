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
    /// This body, and an index page that lists every kind.
    Profiles(Arc<Vec<u8>>),
    /// The same answer for who shows this token, 401 for everybody else.
    Guarded(&'static str, Vec<u8>),
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
        let (at_once, sent, open) = (endpoint.at_once.clone(), endpoint.sent.clone(), Arc::new(Open::default()));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                connections.fetch_add(1, Ordering::SeqCst);
                let act = act.borrow().clone();
                let (sent, open) = (sent.clone(), open.clone());
                at_once.fetch_max(open.one_more(), Ordering::SeqCst);
                std::thread::spawn(move || perform(&act, stream, &sent, &open));
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

/// Requests that wait for an answer or its end.
#[derive(Default)]
struct Open {
    brief: AtomicUsize,
    /// Those that end when the other side leaves.
    lasting: AtomicUsize,
}

impl Open {
    /// Counts one in, and says how many there are. That somebody left is heard of a moment later: who comes after that is not
    /// there at once.
    fn one_more(&self) -> usize {
        for _ in 0..100 {
            if self.lasting.load(Ordering::SeqCst) == 0 {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.brief.fetch_add(1, Ordering::SeqCst) + 1 + self.lasting.load(Ordering::SeqCst)
    }
}

fn perform(act: &Act, mut stream: TcpStream, sent: &AtomicUsize, open: &Open) {
    let mut buffer = [0; 4_096];
    let length = stream.read(&mut buffer).unwrap_or(0);
    let index = buffer.starts_with(b"GET /debug/pprof/ ");
    let answer = match act {
        Act::Profiles(_) if index => Some(page(INDEX)),
        _ if index => Some(page(b"<html></html>")),
        Act::Answer(bytes) => Some(bytes.clone()),
        Act::Profiles(body) => Some(answer("200 OK", body)),
        Act::Guarded(token, bytes) => Some(guarded(token, bytes, &buffer[..length])),
        _ => None,
    };
    if let Some(answer) = answer {
        // Long enough for a second one to be seen.
        std::thread::sleep(Duration::from_millis(20));
        // Before the answer: whoever has it may come again before this thread is heard of.
        open.brief.fetch_sub(1, Ordering::SeqCst);
        sent.fetch_add(answer.len(), Ordering::Relaxed);
        return drop(stream.write_all(&answer));
    }
    open.lasting.fetch_add(1, Ordering::SeqCst);
    open.brief.fetch_sub(1, Ordering::SeqCst);
    last(act, &mut stream, sent);
    open.lasting.fetch_sub(1, Ordering::SeqCst);
}

/// The index page of Go, as far as it is read.
const INDEX: &[u8] = b"<td>20</td><td><a href='goroutine?debug=1'>goroutine</a></td>\n\
    <td>2</td><td><a href='goroutineleak?debug=1'>goroutineleak</a></td>";

fn page(html: &[u8]) -> Vec<u8> {
    answer("200 OK\r\nContent-Type: text/html", html)
}

fn guarded(token: &str, bytes: &[u8], request: &[u8]) -> Vec<u8> {
    let header = format!("\r\nauthorization: Bearer {token}\r\n");
    let shown = request.windows(header.len()).any(|it| it.eq_ignore_ascii_case(header.as_bytes()));
    if shown { bytes.to_vec() } else { answer("401 Unauthorized", b"") }
}

fn last(act: &Act, stream: &mut TcpStream, sent: &AtomicUsize) {
    if matches!(act, Act::Silence) {
        return drop(stream.read(&mut [0; 64]));
    }
    let mut send = |bytes: &[u8]| {
        sent.fetch_add(bytes.len(), Ordering::Relaxed);
        stream.write_all(bytes).is_ok()
    };
    send(b"HTTP/1.1 200 OK\r\n\r\n");
    match act {
        Act::Flood(bytes) => {
            // Empty samples, one after another.
            let piece = [0x12, 0x00].repeat(32 << 10);
            let _left = (0..bytes / piece.len() as u64).find(|_| !send(&piece));
        }
        Act::Bomb(bytes) => {
            let member = gzipped(&vec![0; 16 << 20]);
            let _left = (0..bytes / (16 << 20)).find(|_| !send(&member));
        }
        _ => {
            while send(b"\x0a") {
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

fn field(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag << 3 | 2, u8::try_from(body.len()).unwrap()], body].concat()
}

/// A profile with one sample of each stack, field by field; frames are those of `FRAMES`, counted from 1.
pub fn message(kind: [&str; 2], stacks: &[(&[u8], u8)]) -> Vec<u8> {
    const FRAMES: [[&str; 2]; 3] = [
        ["statsd.newBuffer", "/m/a@v1.2.3/b.go"],
        ["main.job", "/app/main.go"],
        ["runtime.goexit", "/go/src/runtime/a.s"],
    ];
    let mut all = field(1, &[0x08, 1, 0x10, 2]);
    for (stack, value) in stacks {
        all.extend(field(2, &[field(1, stack), field(2, &[*value])].concat()));
    }
    for n in 1..=3 {
        all.extend(field(4, &[&[0x08, n][..], &field(4, &[0x08, n, 0x10, 10 * n])].concat()));
        all.extend(field(5, &[0x08, n, 0x10, 1 + 2 * n, 0x20, 2 + 2 * n]));
    }
    let names = ["", kind[0], kind[1]].into_iter().chain(FRAMES.into_iter().flatten());
    names.for_each(|name| all.extend(field(6, name.as_bytes())));
    all
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
