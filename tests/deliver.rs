//! What the app sends arrives, to the unit: 100,000 mixed samples over UDP at 5,000 a second, straight to the intake and
//! through another sidecar that stands for the Agent; and the open window of a sidecar that is told to stop.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use oomwatch::datadog::Endpoint;
use serde_json::Value;
use support::decode::{decode, decoder};
use support::intake::{FakeIntake, Seen};
use support::{Sidecar, have, sender, wait_for};
use tokio::time::Instant;

const SAMPLES: u64 = 100_000;
const PER_SECOND: u64 = 5_000;

/// What was sent, in the terms in which it is checked.
#[derive(Default)]
struct Sent {
    counters: BTreeMap<String, f64>,
    gauges: BTreeMap<String, f64>,
    sets: BTreeMap<String, f64>,
    histograms: BTreeMap<String, f64>,
    sketches: BTreeMap<String, (u64, f64)>,
    samples: u64,
}

impl Sent {
    /// The n-th sample as a line. Set members are never repeated, so sizes of windows add up; values are whole, so sums are
    /// exact in any order.
    fn line(&mut self, n: u64) -> String {
        self.samples += 1;
        let who = format!("{}", n % 199);
        let value = (n * 7_919) % 1_000;
        match n % 10 {
            0..=3 => {
                *self.counters.entry(format!("jobs{who}")).or_default() += value as f64;
                format!("jobs{who}:{value}|c|#queue:default,shard:{who}")
            }
            4 => {
                *self.counters.entry("sampled".into()).or_default() += 4.0 * value as f64;
                format!("sampled:{value}|c|@0.25|#queue:low")
            }
            5 | 6 => {
                self.gauges.insert(format!("depth{who}"), value as f64);
                format!("depth{who}:{value}|g|#queue:default")
            }
            7 => {
                *self.sets.entry("users".into()).or_default() += 1.0;
                format!("users:u{n}|s")
            }
            8 => {
                *self.histograms.entry(format!("size{}", n % 20)).or_default() += 1.0;
                format!("size{}:{value}|h", n % 20)
            }
            _ => {
                let sketch = self.sketches.entry(format!("latency{}", n % 30)).or_default();
                *sketch = (sketch.0 + 1, sketch.1 + value as f64);
                format!("latency{}:{value}|d|#route:/", n % 30)
            }
        }
    }
}

/// Sends at an even pace from a plain thread: ten lines a datagram.
fn send_all(to: SocketAddr) -> Sent {
    let socket = sender(to);
    let mut sent = Sent::default();
    let began = Instant::now();
    let mut datagram = String::new();
    while sent.samples < SAMPLES {
        datagram.clear();
        for _ in 0..10 {
            let line = sent.line(sent.samples);
            writeln!(datagram, "{line}").unwrap();
        }
        socket.send(datagram.as_bytes()).unwrap();
        let due = Duration::from_secs_f64(sent.samples as f64 / PER_SECOND as f64);
        if let Some(early) = due.checked_sub(began.elapsed()) {
            std::thread::sleep(early);
        }
    }
    sent
}

fn check(sent: &Sent, intake: &FakeIntake) {
    let seen = intake.seen();
    assert!(seen.violations.is_empty(), "{:?}", seen.violations);
    for (name, sum) in &sent.counters {
        assert_eq!(seen.counter(name).round(), *sum, "counter {name}");
    }
    for (name, last) in &sent.gauges {
        assert_eq!(seen.gauge(name), Some(*last), "gauge {name}");
    }
    for (name, size) in &sent.sets {
        assert_eq!(seen.counter(name), *size, "set {name}: its sizes over all windows");
    }
    for (name, count) in &sent.histograms {
        assert_eq!(seen.counter(&format!("{name}.count")).round(), *count, "histogram {name}");
    }
    for (name, (count, sum)) in &sent.sketches {
        assert_eq!((seen.sketch_count(name), sketch_sum(&seen, name)), (*count as i64, *sum), "sketch {name}");
    }
}

fn sketch_sum(seen: &Seen, name: &str) -> f64 {
    let named = seen.sketches().into_iter().filter(|sketch| sketch.metric == name);
    named.flat_map(|sketch| &sketch.dogsketches).map(|dog| dog.sum).sum()
}

fn intake_settings(intake: &FakeIntake) -> String {
    format!(
        "[datadog]\nurl = \"{}\"\nhostname = \"pod-1\"\n[aggregate]\ninterval = \"2s\"\n[watch]\npid = {}\n",
        intake.url(),
        std::process::id()
    )
}

const KEY: (&str, &str) = ("DD_API_KEY", "0123456789abcdef0123456789abcdef");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_sample_reaches_the_intake_exactly() {
    let intake = FakeIntake::start().await;
    let mut sidecar = Sidecar::start(&intake_settings(&intake), &[KEY]);
    let to = sidecar.statsd[0];
    let sent = tokio::task::spawn_blocking(move || send_all(to)).await.unwrap();
    tokio::task::spawn_blocking(move || {
        wait_for(Duration::from_secs(10), "all samples to be received", || {
            (sidecar.metric("oomwatch_statsd_samples_total ")? as u64 == SAMPLES).then_some(())
        });
        let status = sidecar.terminate();
        assert!(status.success(), "{status}");
    })
    .await
    .unwrap();
    check(&sent, &intake);
    decode_all(&sent, &intake);
}

/// Every body of the run, read by Datadog's own protobuf module: it reads as many series and the same sums as our fake does.
fn decode_all(sent: &Sent, intake: &FakeIntake) {
    let Ok(decoder) = decoder() else {
        assert!(!have("go", "the bodies of the run in Datadog's protobuf module"), "go is there and gave no decoder");
        return;
    };
    let seen = intake.seen();
    let bodies: Vec<(Endpoint, &[u8])> = seen
        .accepted()
        .filter_map(|request| match request.path.as_str() {
            "/api/v2/series" => Some((Endpoint::Series, &request.raw[..])),
            "/api/beta/sketches" => Some((Endpoint::Sketches, &request.raw[..])),
            _ => None,
        })
        .collect();
    let read = decode(&decoder, &bodies);
    assert_eq!(read.len(), bodies.len());
    let items: Vec<&Value> = read.iter().filter_map(Value::as_array).flatten().collect();
    assert_eq!(items.len(), seen.series().len() + seen.sketches().len(), "items read by Datadog's types");
    let total: f64 = items.iter().filter(|item| item["metric"] == "sampled").map(|item| sum(item)).sum();
    assert_eq!(total.round(), sent.counters["sampled"], "a counter's sum as Datadog's types read it");
    let samples = items.iter().filter(|item| item["metric"].as_str().is_some_and(|name| name.starts_with("latency")));
    let count: u64 =
        samples.flat_map(|item| item["dogsketches"].as_array()).flatten().filter_map(|it| it["cnt"].as_u64()).sum();
    assert_eq!(count, sent.sketches.values().map(|sketch| sketch.0).sum::<u64>(), "the sketches' counts");
}

/// A rate series' points times its interval.
fn sum(series: &Value) -> f64 {
    let points = series["points"].as_array().into_iter().flatten();
    points.filter_map(|point| point["value"].as_f64()).sum::<f64>() * series["interval"].as_f64().unwrap_or(1.0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_sample_reaches_the_intake_through_an_agent_exactly() {
    let intake = FakeIntake::start().await;
    let mut agent = Sidecar::start(&intake_settings(&intake), &[KEY]);
    let settings = format!(
        "[datadog]\noutput = \"agent\"\n[datadog.agent]\ndogstatsd = \"udp://{}\"\n[aggregate]\ninterval = \"1s\"\n[watch]\npid = {}\n",
        agent.statsd[0],
        std::process::id()
    );
    let mut sidecar = Sidecar::start(&settings, &[]);
    let to = sidecar.statsd[0];
    let sent = tokio::task::spawn_blocking(move || send_all(to)).await.unwrap();
    tokio::task::spawn_blocking(move || {
        wait_for(Duration::from_secs(10), "all samples to be received", || {
            (sidecar.metric("oomwatch_statsd_samples_total ")? as u64 == SAMPLES).then_some(())
        });
        assert!(sidecar.terminate().success());
        assert!(agent.terminate().success());
    })
    .await
    .unwrap();
    check(&sent, &intake);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_in_mid_window_delivers_the_open_window() {
    let intake = FakeIntake::start().await;
    let settings = intake_settings(&intake).replace("\"2s\"", "\"10s\"");
    let mut sidecar = Sidecar::start(&settings, &[KEY]);
    let to = [sidecar.statsd[0], sidecar.statsd[1]];
    tokio::task::spawn_blocking(move || {
        for address in to {
            let socket = sender(address);
            for _ in 0..500 {
                socket.send(b"open:3|c\nopen.d:2|d").unwrap();
            }
        }
        // No wait for receipt: what lies in the socket at SIGTERM belongs to the open window too.
        let status = sidecar.terminate();
        assert_eq!(status.code(), Some(0));
    })
    .await
    .unwrap();
    let seen = intake.seen();
    assert_eq!(seen.counter("open").round(), 3_000.0);
    assert_eq!((seen.sketch_count("open.d"), sketch_sum(&seen, "open.d")), (1_000, 2_000.0));
}
