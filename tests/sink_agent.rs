//! The Agent sink against a socket on loopback: nothing is lost at 5,000 samples a second, and what is lost is counted.
#![allow(clippy::unwrap_used, reason = "a test that unwraps says where it broke by its line")]

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::Duration;

use oomwatch::aggregate::{Context, Form, Host, Kind, Point, RawSamples, Suffix, Window};
use oomwatch::pipeline::Outgoing;
use oomwatch::sink::agent::{Agent, Settings};
use oomwatch::snapshot::OutputPart;
use oomwatch::statsd::{Event, Message, parse};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);

fn context(kind: Kind, name: &str) -> Arc<Context> {
    Arc::new(Context::new(kind, name, Host::Default, "service:worker,env:test", ""))
}

/// What 10 s at 5,000 samples a second leave: 500 counters, and 50,000 distribution samples in 1,000 contexts.
fn window() -> Window {
    let point = |n: u32| Point {
        context: context(Kind::Counter, &format!("counter.{n}")),
        suffix: Suffix::None,
        form: Form::Count,
        value: 7.0,
        timestamp: 0,
        interval_seconds: 10,
    };
    let raw = |n: u32| RawSamples {
        context: context(Kind::Distribution, &format!("latency.{n}")),
        sample_rate: 1.0,
        values: (0..50).map(|value| format!("{value}.125")).collect::<Vec<_>>().join(":").into(),
    };
    Window { points: (0..500).map(point).collect(), raw: (0..1_000).map(raw).collect(), ..Window::default() }
}

async fn run(settings: Settings, outgoing: Vec<Outgoing>) -> Arc<OutputPart> {
    let (send, input) = mpsc::channel(16);
    let (status, seen) = watch::channel(Arc::default());
    let mut tasks = JoinSet::new();
    tasks.spawn(Agent::new(settings).unwrap().run(input, status));
    for one in outgoing {
        send.send(one).await.unwrap();
    }
    drop(send);
    timeout(SOON, tasks.join_next()).await.expect("the sink ends").unwrap().unwrap();
    let part = seen.borrow().clone();
    assert_eq!((part.mode, part.identities.get("I7")), ("agent", Some(&0)), "{part:?}");
    part
}

/// Values by metric name, from datagrams until one is empty.
fn values(mut receive: impl FnMut(&mut [u8]) -> usize, longest: usize) -> BTreeMap<String, u64> {
    let mut values = BTreeMap::new();
    let mut bytes = vec![0; 65_536];
    loop {
        let n = receive(&mut bytes);
        if n == 0 {
            return values;
        }
        assert!(n <= longest, "{n} bytes");
        for line in std::str::from_utf8(&bytes[..n]).unwrap().lines() {
            let (name, rest) = line.split_once(':').unwrap();
            *values.entry(name.to_owned()).or_default() += rest.split('|').next().unwrap().split(':').count() as u64;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_thousand_samples_of_a_window_arrive_over_udp() {
    let agent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = agent.local_addr().unwrap();
    let settings =
        Settings { spread: Duration::from_secs(2), drain: SOON, ..Settings::new(&format!("udp://{address}")) };
    let reading = spawn_blocking(move || values(|bytes| agent.recv(bytes).unwrap(), 1_432));
    let part = run(settings, vec![Outgoing::Window(window())]).await;
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"", address).unwrap();
    let values = reading.await.unwrap();
    assert_eq!(values.len(), 1_500);
    assert!(values.iter().all(|(name, n)| *n == if name.starts_with("latency") { 50 } else { 1 }));
    assert_eq!(part.dropped.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unix_socket_gets_larger_datagrams_and_events() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dsd.socket");
    let agent = UnixDatagram::bind(&path).unwrap();
    let settings = Settings { drain: SOON, ..Settings::new(&format!("unix://{}", path.display())) };
    let reading = spawn_blocking(move || values(|bytes| agent.recv(bytes).unwrap(), 8_192));
    let event = Event { title: "title".to_owned(), text: "text".to_owned(), ..Event::default() };
    let part = run(settings, vec![Outgoing::Window(window()), Outgoing::Urgent(event)]).await;
    UnixDatagram::unbound().unwrap().send_to(b"", &path).unwrap();
    let values = reading.await.unwrap();
    assert_eq!((values.len(), values["_e{5,4}"]), (1_501, 1));
    assert_eq!(part.dropped.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_agent_every_line_is_counted() {
    let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = Settings { spread: Duration::ZERO, drain: SOON, ..Settings::new(&format!("udp://{free}")) };
    let part = run(settings, vec![Outgoing::Window(window())]).await;
    assert_eq!(part.dropped, [("agent_unavailable", 1_500)].into());
    assert!(part.degraded[0].fix.contains("datadog.agent.dogstatsd"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_and_a_line_too_long_are_counted() {
    let agent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = format!("udp://{}", agent.local_addr().unwrap());
    let slow = Settings { spread: SOON, drain: Duration::ZERO, max_memory: 0, ..Settings::new(&address) };
    let mut window = window();
    window.points[0].context = context(Kind::Counter, &"x".repeat(9_000));
    let part = run(slow, vec![Outgoing::Window(window)]).await;
    assert_eq!(part.dropped["too_long"], 1);
    assert!(part.dropped["agent_full"] > 0, "{part:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_longer_than_an_agent_reads_is_cut_divided_or_counted() {
    let agent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = agent.local_addr().unwrap();
    let settings = Settings { spread: Duration::ZERO, drain: SOON, ..Settings::new(&format!("udp://{address}")) };
    let raw =
        |kind, values: String| RawSamples { context: context(kind, "x"), sample_rate: 0.5, values: values.into() };
    let packs = (0..5_000).map(|n| n.to_string()).collect::<Vec<_>>().join(":");
    let window = Window {
        raw: vec![raw(Kind::Timing, packs), raw(Kind::Set, "m".repeat(9_000)), raw(Kind::Set, "m".repeat(4_000))],
        ..Window::default()
    };
    let event = |title: &str| Event { title: title.into(), text: "ü\n€".repeat(5_000), ..Event::default() };
    let reading = spawn_blocking(move || {
        let (mut bytes, mut lines) = (vec![0; 65_536], Vec::new());
        loop {
            let n = agent.recv(&mut bytes).unwrap();
            if n == 0 {
                return lines;
            }
            assert!(n <= 8_192, "{n} bytes");
            lines.extend(std::str::from_utf8(&bytes[..n]).unwrap().lines().map(str::to_owned));
        }
    });
    let titled = Outgoing::Event(event("é\nz"));
    let part = run(settings, vec![Outgoing::Window(window), titled, Outgoing::Event(event(&"t".repeat(9_000)))]).await;
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"", address).unwrap();
    let (mut samples, mut events) = (0, 0);
    for line in reading.await.unwrap() {
        match parse(line.as_bytes()).unwrap() {
            Message::Event(event) => {
                assert!(line.starts_with("_e{5,") && event.title == "é\nz" && event.text.starts_with("ü\n€ü"));
                events += 1;
            }
            Message::Metric(_) => samples += line.split('|').next().unwrap().split(':').count() - 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((samples, events), (5_001, 1));
    assert_eq!(part.dropped, [("too_long", 2)].into());
}
