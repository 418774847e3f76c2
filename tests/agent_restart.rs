//! An Agent that goes away and comes back: its socket removed and made again fifty times, or its port closed and opened. What is
//! sent meanwhile is counted exactly, what is sent afterwards arrives from the first line on, and the accounts hold throughout.
#![allow(clippy::unwrap_used, reason = "a test that unwraps says where it broke by its line")]

mod support;

use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use oomwatch::aggregate::{Context, Form, Host, Kind, Point, RawSamples, Suffix, Window};
use oomwatch::pipeline::Outgoing;
use oomwatch::sink::agent::{Agent, Settings};
use oomwatch::snapshot::OutputPart;
use support::{Sidecar, sender, wait_for};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

const SOON: Duration = Duration::from_secs(30);
/// Lines of a [`window`].
const LINES: u64 = 3;
const RESTARTS: u64 = 50;

fn window() -> Window {
    let context = |kind, name: &str| Arc::new(Context::new(kind, name, Host::Default, "a:b", "c:ci-1"));
    let point = |name: &str| Point {
        context: context(Kind::Counter, name),
        suffix: Suffix::None,
        form: Form::Count,
        value: 1.0,
        timestamp: 0,
        interval_seconds: 10,
    };
    let raw = RawSamples { context: context(Kind::Timing, "t"), sample_rate: 1.0, values: "1:2:3".into() };
    Window { points: vec![point("a"), point("b")], raw: vec![raw], ..Window::default() }
}

/// The sink, and what it says of itself.
struct Rig {
    send: mpsc::Sender<Outgoing>,
    seen: watch::Receiver<Arc<OutputPart>>,
    tasks: JoinSet<()>,
}

impl Rig {
    fn start(address: &str) -> Rig {
        let (send, input) = mpsc::channel(16);
        let (status, seen) = watch::channel(Arc::default());
        let settings = Settings { spread: Duration::ZERO, drain: SOON, ..Settings::new(address) };
        let mut tasks = JoinSet::new();
        tasks.spawn(Agent::new(settings).unwrap().run(input, status));
        Rig { send, seen, tasks }
    }

    async fn send(&self, window: Window) {
        self.send.send(Outgoing::Window(window)).await.unwrap();
    }

    fn dropped(&mut self, reason: &str) -> u64 {
        let part = self.seen.borrow_and_update();
        assert!(part.identities.values().all(|error| *error == 0), "{part:?}");
        part.dropped.get(reason).copied().unwrap_or(0)
    }

    /// An empty window makes the sink say what it has settled.
    async fn wait_for_dropped(&mut self, reason: &str, expected: u64) {
        let end = Instant::now() + SOON;
        while self.dropped(reason) < expected {
            assert!(Instant::now() < end, "{} of {expected} {reason}", self.dropped(reason));
            self.send(Window::default()).await;
            sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(self.dropped(reason), expected);
    }

    async fn end(mut self) -> Arc<OutputPart> {
        drop(self.send);
        self.tasks.join_next().await.unwrap().unwrap();
        let part = self.seen.borrow().clone();
        assert_eq!(part.identities["I7"], 0);
        part
    }
}

/// Reads in another thread until it has `lines` lines.
async fn read_lines(receive: impl Fn(&mut [u8]) -> usize + Send + 'static, lines: u64) {
    let reading = tokio::task::spawn_blocking(move || {
        let (mut bytes, mut read) = (vec![0; 8_192], 0);
        while read < lines {
            let n = receive(&mut bytes);
            read += bytes[..n].split(|byte| *byte == b'\n').count() as u64;
        }
        read
    });
    assert_eq!(reading.await.unwrap(), lines, "not one more");
}

fn bind(path: &PathBuf) -> Arc<UnixDatagram> {
    let agent = UnixDatagram::bind(path).unwrap();
    agent.set_read_timeout(Some(SOON)).unwrap();
    Arc::new(agent)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_new_unix_sockets_get_every_line_and_the_old_ones_none() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("datadog");
    let path = dir.join("dsd.socket");
    let mut rig = Rig::start(&format!("unix://{}", path.display()));
    for round in 1..=RESTARTS {
        std::fs::create_dir_all(&dir).unwrap();
        let agent = bind(&path);
        rig.send(window()).await;
        let reader = agent.clone();
        read_lines(move |bytes| reader.recv(bytes).unwrap(), LINES).await;
        std::fs::remove_file(&path).unwrap();
        if round % 2 == 0 {
            std::fs::remove_dir(&dir).unwrap();
        }
        rig.send(window()).await;
        rig.wait_for_dropped("agent_unavailable", round * LINES).await;
        agent.set_nonblocking(true).unwrap();
        agent.recv(&mut [0; 64]).expect_err("nothing goes to a socket that was removed");
    }
    assert_eq!(rig.end().await.dropped, [("agent_unavailable", RESTARTS * LINES)].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_times_a_closed_port_is_counted_and_an_open_one_found() {
    let at = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut rig = Rig::start(&format!("udp://{at}"));
    for round in 1..=RESTARTS {
        rig.send(window()).await;
        rig.wait_for_dropped("agent_unavailable", round * LINES).await;
        let agent = UdpSocket::bind(at).unwrap();
        agent.set_read_timeout(Some(SOON)).unwrap();
        rig.send(window()).await;
        read_lines(move |bytes| agent.recv(bytes).unwrap(), LINES).await;
    }
    assert_eq!(rig.end().await.dropped, [("agent_unavailable", RESTARTS * LINES)].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_reads_nothing_costs_what_it_has_no_room_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dsd.socket");
    let agent = bind(&path);
    let mut rig = Rig::start(&format!("unix://{}", path.display()));
    let sent = 2_000;
    for _ in 0..sent {
        rig.send(window()).await;
    }
    let end = Instant::now() + SOON;
    while rig.dropped("agent_full") == 0 {
        assert!(Instant::now() < end, "the Agent's queue never filled");
        rig.send(Window::default()).await;
        sleep(Duration::from_millis(2)).await;
    }
    let part = rig.end().await;
    agent.set_nonblocking(true).unwrap();
    let (mut bytes, mut read) = (vec![0; 8_192], 0);
    while let Ok(n) = agent.recv(&mut bytes) {
        read += bytes[..n].split(|byte| *byte == b'\n').count() as u64;
    }
    assert_eq!(part.dropped, [("agent_full", sent * LINES - read)].into());
}

/// An Agent whose socket comes and goes, in a thread of its own: it counts the lines that it got.
fn flickering_agent(path: &PathBuf, stop: &AtomicBool, lines: &AtomicU64) {
    let mut bytes = vec![0; 8_192];
    let mut take = |agent: &UnixDatagram| {
        while let Ok(n) = agent.recv(&mut bytes) {
            lines.fetch_add(bytes[..n].split(|byte| *byte == b'\n').count() as u64, SeqCst);
        }
    };
    while !stop.load(SeqCst) {
        let agent = UnixDatagram::bind(path).unwrap();
        agent.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let until = Instant::now() + Duration::from_millis(1_700);
        while Instant::now() < until && !stop.load(SeqCst) {
            take(&agent);
        }
        std::fs::remove_file(path).unwrap();
        // What was sent before it was removed.
        take(&agent);
        std::thread::sleep(Duration::from_millis(1_300));
    }
}

fn send_steadily(to: SocketAddr, datagrams: u64) {
    let socket = sender(to);
    for n in 0..datagrams {
        socket.send(format!("jobs:1|c|#n:{}\nwait:{n}|d\nlevel:{n}|g", n % 50).as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn the_sidecar_takes_everything_in_and_accounts_for_it_while_the_agent_flickers() {
    const DATAGRAMS: u64 = 5_000;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dsd.socket");
    let sidecar = Sidecar::start(
        &format!("[datadog.agent]\ndogstatsd = \"unix://{}\"\n[aggregate]\ninterval = \"1s\"\n", path.display()),
        &[],
    );
    let (stop, lines) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let agent = std::thread::spawn({
        let (stop, lines) = (stop.clone(), lines.clone());
        move || flickering_agent(&path, &stop, &lines)
    });
    let to = sidecar.statsd[0];
    let app = std::thread::spawn(move || send_steadily(to, DATAGRAMS));
    // Ten times a second, over the whole run.
    let identities = || {
        let text = sidecar.metrics();
        let errors: Vec<&str> = text.lines().filter(|line| line.starts_with("oomwatch_identity_error{")).collect();
        assert!(
            errors.iter().any(|line| line.contains("I7")) && errors.iter().all(|line| line.ends_with(" 0")),
            "{text}"
        );
        std::thread::sleep(Duration::from_millis(80));
    };
    wait_for(2 * SOON, "the app to end", || {
        identities();
        app.is_finished().then_some(())
    });
    app.join().unwrap();
    wait_for(SOON, "all samples to be received", || {
        identities();
        (sidecar.metric("oomwatch_statsd_samples_total ")? as u64 == 3 * DATAGRAMS).then_some(())
    });
    wait_for(SOON, "what arrived to be what was counted as sent", || {
        identities();
        let delivered = sidecar.metric("oomwatch_points_delivered_total ")? as u64;
        (delivered > 0 && delivered == lines.load(SeqCst)).then_some(())
    });
    assert!(sidecar.metric("oomwatch_dropped_total{reason=\"agent_unavailable\"} ").is_some_and(|lost| lost > 0.0));
    stop.store(true, SeqCst);
    agent.join().unwrap();
}
