//! What real, unmodified DogStatsD clients send arrives exactly: Datadog's own for Go and Python, hot-shots for Node and cadence
//! for Rust, with their buffering and aggregation on and off.
//!
//! Each program of `tests/clients` makes the same 2,000 metric calls, an event and a service check, and prints what the intake
//! must have in the end. The sidecar's window is an hour, so that all of it lies in one window and gauges, set sizes and
//! histograms can be compared to the digit. Nothing is waited for in between: what lies in the socket at SIGTERM must arrive.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cadence::prelude::*;
use cadence::{BufferedUdpMetricSink, BufferedUnixMetricSink, MetricSink, StatsdClient, UdpMetricSink, UnixMetricSink};
use oomwatch::datadog::proto::MetricType;
use serde::Deserialize;
use serde_json::Value;
use support::intake::{FakeIntake, Seen};
use support::{Sidecar, have, root};

const CALLS: u64 = 2_000;
/// What every series of the programs is called.
const OURS: &str = "clients.";
/// Read by the clients themselves; the last two are an admission controller's, and no tag may be left of them.
const UNIFIED: [(&str, &str); 5] = [
    ("DD_ENV", "staging"),
    ("DD_SERVICE", "shop"),
    ("DD_VERSION", "7"),
    ("DD_ENTITY_ID", "6a1f3a3c-pod-uid"),
    ("DD_EXTERNAL_ENV", "it-false,cn-worker,pu-6a1f3a3c"),
];

/// What a program printed. Series are named `name|tag,tag`, tags sorted.
#[derive(Debug, Default, Deserialize)]
struct Sent {
    calls: u64,
    counters: BTreeMap<String, f64>,
    gauges: BTreeMap<String, f64>,
    sets: BTreeMap<String, BTreeMap<String, bool>>,
    histograms: BTreeMap<String, Vec<f64>>,
    distributions: BTreeMap<String, Vec<f64>>,
    /// As the intake must have them; not every client has events and checks.
    event: Option<Value>,
    check: Option<Value>,
    /// What the client says that it dropped itself.
    dropped: BTreeMap<String, u64>,
}

impl Sent {
    /// Every point that the intake must have, and no other.
    fn points(&self) -> BTreeMap<String, f64> {
        let mut points = self.counters.clone();
        points.extend(self.gauges.clone());
        points.extend(self.sets.iter().map(|(series, members)| (series.clone(), members.len() as f64)));
        for (series, values) in &self.histograms {
            points.extend(histogram(series, values));
        }
        points
    }

    /// Count, sum, smallest and largest of each distribution.
    fn sketches(&self) -> BTreeMap<String, [f64; 4]> {
        let told = |values: &Vec<f64>| {
            let (least, most) = values.iter().fold((f64::MAX, f64::MIN), |(a, b), v| (a.min(*v), b.max(*v)));
            [values.len() as f64, values.iter().sum(), least, most]
        };
        self.distributions.iter().map(|(series, values)| (series.clone(), told(values))).collect()
    }
}

/// The Agent's aggregates with its own integer ranks.
fn histogram(series: &str, values: &[f64]) -> [(String, f64); 5] {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    let (name, tags) = series.split_once('|').unwrap();
    let aggregates = [
        ("max", sorted[n - 1]),
        ("median", sorted[(n - 1) / 2]),
        ("avg", sorted.iter().sum::<f64>() / n as f64),
        ("count", n as f64),
        ("95percentile", sorted[(95 * n - 1) / 100]),
    ];
    aggregates.map(|(suffix, value)| (format!("{name}.{suffix}|{tags}"), value))
}

/// What the intake has of ours: one point a series, or the series is marked as broken.
fn arrived(seen: &Seen) -> BTreeMap<String, f64> {
    let mut points = BTreeMap::new();
    for series in seen.series().into_iter().filter(|series| series.metric.starts_with(OURS)) {
        let scale = if series.r#type() == MetricType::Rate { series.interval as f64 } else { 1.0 };
        for point in &series.points {
            let twice = points.insert(key(&series.metric, &series.tags), point.value * scale);
            assert_eq!(twice, None, "{} came twice", series.metric);
        }
    }
    points
}

fn arrived_sketches(seen: &Seen) -> BTreeMap<String, [f64; 4]> {
    let ours = seen.sketches().into_iter().filter(|sketch| sketch.metric.starts_with(OURS));
    ours.flat_map(|sketch| {
        let series = key(&sketch.metric, &sketch.tags);
        sketch.dogsketches.iter().map(move |dog| (series.clone(), [dog.cnt as f64, dog.sum, dog.min, dog.max]))
    })
    .collect()
}

fn key(name: &str, tags: &[String]) -> String {
    let tags: BTreeSet<&str> = tags.iter().map(String::as_str).collect();
    format!("{name}|{}", tags.into_iter().collect::<Vec<_>>().join(","))
}

/// Rates are a sum divided by the window: the last digit may differ.
fn assert_equal(found: &BTreeMap<String, f64>, expected: &BTreeMap<String, f64>, client: &str) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{client}: series");
    for (series, value) in expected {
        let error = (found[series] - value).abs();
        assert!(error <= value.abs() * 1e-12, "{client}: {series} is {}, sent was {value}", found[series]);
    }
}

fn assert_told(found: &[&Value], expected: Option<&Value>, client: &str) {
    let sorted = |value: &Value| {
        let mut value = value.clone();
        value["tags"].as_array_mut().unwrap().sort_by_key(|tag| tag.to_string());
        value
    };
    let found: Vec<Value> = found.iter().map(|value| sorted(value)).collect();
    assert_eq!(found, expected.map(sorted).into_iter().collect::<Vec<_>>(), "{client}");
}

/// Where a sidecar takes StatsD.
#[derive(Clone)]
struct Places {
    udp: SocketAddr,
    datagram: PathBuf,
    stream: PathBuf,
}

impl Places {
    /// As clients want it: `host:port`, or a path behind the scheme of its kind.
    fn address(&self, transport: &str) -> String {
        match transport {
            "udp" => self.udp.to_string(),
            "unix" | "unixgram" => format!("{transport}://{}", self.datagram.display()),
            "unixstream" => format!("unixstream://{}", self.stream.display()),
            // The client learns by trying that this one is a stream.
            "unix to a stream" => format!("unix://{}", self.stream.display()),
            other => panic!("no transport {other}"),
        }
    }
}

/// A sidecar whose window does not end before the test does.
fn sidecar(intake: &FakeIntake, dir: &Path) -> (Sidecar, Places) {
    out_of_the_hours_end();
    let settings = format!(
        "[datadog]\nurl = \"{}\"\nhostname = \"pod-1\"\n[aggregate]\ninterval = \"1h\"\n[watch]\npid = {}\n",
        intake.url(),
        std::process::id()
    );
    let (datagram, stream) = (dir.join("dsd.socket"), dir.join("dsd-stream.socket"));
    let env = [
        ("DD_API_KEY", "0123456789abcdef0123456789abcdef"),
        ("OOMWATCH_STATSD__SOCKET", datagram.to_str().unwrap()),
        ("OOMWATCH_STATSD__STREAM_SOCKET", stream.to_str().unwrap()),
    ];
    let sidecar = Sidecar::start(&settings, &env);
    let udp = sidecar.statsd[0];
    (sidecar, Places { udp, datagram, stream })
}

/// Windows end on the hour; a test that would see the end begins after it.
fn out_of_the_hours_end() {
    const MARGIN: f64 = 60.0;
    let left = || 3_600.0 - oomwatch::pipeline::wall_clock() % 3_600.0;
    support::wait_for(Duration::from_secs(90), "the hour to end", || (left() > MARGIN).then_some(()));
}

/// Has `send` send to a sidecar and compares what it says with what the intake has.
async fn deliver(client: &str, send: impl FnOnce(&Places) -> Sent + Send + 'static) {
    let intake = FakeIntake::start().await;
    let dir = tempfile::tempdir().unwrap();
    let (mut sidecar, places) = sidecar(&intake, dir.path());
    let sent = tokio::task::spawn_blocking(move || {
        let sent = send(&places);
        assert!(sidecar.terminate().success());
        sent
    });
    let sent = sent.await.unwrap();
    let seen = intake.seen();
    assert_eq!(sent.calls, CALLS, "{client}");
    assert_eq!(seen.counter("oomwatch.dropped"), 0.0, "{client}: dropped by the sidecar or the kernel");
    assert!(sent.dropped.values().all(|dropped| *dropped == 0), "{client} dropped: {:?}", sent.dropped);
    assert_equal(&arrived(&seen), &sent.points(), client);
    assert_eq!(arrived_sketches(&seen), sent.sketches(), "{client}: count, sum, min and max of distributions");
    assert_told(&seen.events(), sent.event.as_ref(), client);
    assert_told(&seen.checks(), sent.check.as_ref(), client);
}

/// Runs a program to its end and reads what it printed.
fn run(mut program: Command) -> Sent {
    let output = program.envs(UNIFIED).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program:?}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{program:?}: {error}; {errors}"))
}

/// Datadog's own client for Go, with the aggregation that it does itself: `none`, `basic` or `extended`.
fn go(address: &str, aggregation: &str) -> Sent {
    let binary = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients-go");
    let mut build = Command::new("go");
    build.args(["build", "-o"]).arg(&binary).arg(".").current_dir(root().join("tests/clients/go"));
    assert!(build.status().unwrap().success(), "{build:?}");
    let mut program = Command::new(binary);
    program.args(["-address", address, "-aggregation", aggregation]);
    run(program)
}

/// Datadog's own client for Python; the environment is `dev/test`'s.
fn python(address: &str, mode: &str) -> Sent {
    let mut program = Command::new(root().join(PYTHON));
    program.arg(root().join("tests/clients/python/send.py")).args([address, mode]);
    run(program)
}

const PYTHON: &str = ".cache/clients/bin/python";

/// hot-shots; its modules are `dev/test`'s.
fn node(address: &str, mode: &str) -> Sent {
    let mut program = Command::new("node");
    program.arg("send.mjs").args([address, mode]).current_dir(root().join("tests/clients/node"));
    run(program)
}

/// How a client is run: over which transport, and in which of its modes.
type Runs = &'static [(&'static str, &'static str)];

async fn deliver_all(client: &'static str, runs: Runs, send: fn(&str, &str) -> Sent) {
    for (transport, mode) in runs {
        deliver(&format!("{client}, {transport}, {mode}"), move |places| send(&places.address(transport), mode)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn datadogs_client_for_go_arrives_exactly() {
    const RUNS: Runs = &[
        ("udp", "none"),
        ("udp", "basic"),
        ("udp", "extended"),
        ("unix", "basic"),
        ("unixgram", "none"),
        ("unixstream", "none"),
        ("unixstream", "extended"),
        ("unix to a stream", "basic"),
    ];
    if have("go", "datadogs_client_for_go_arrives_exactly") {
        deliver_all("go", RUNS, go).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn datadogs_client_for_python_arrives_exactly() {
    const RUNS: Runs = &[
        ("udp", "plain"),
        ("udp", "buffered"),
        ("udp", "aggregated"),
        ("unix", "plain"),
        ("unixgram", "buffered"),
        ("unixstream", "plain"),
        ("unixstream", "aggregated"),
    ];
    if have(root().join(PYTHON).to_str().unwrap(), "datadogs_client_for_python_arrives_exactly") {
        deliver_all("python", RUNS, python).await;
    }
}

/// hot-shots speaks to Unix sockets with a native module only, which a machine without node-gyp cannot build.
#[tokio::test(flavor = "multi_thread")]
async fn hot_shots_for_node_arrives_exactly() {
    const RUNS: Runs = &[("udp", "plain"), ("udp", "buffered"), ("udp", "aggregated")];
    let test = "hot_shots_for_node_arrives_exactly";
    let module = root().join("tests/clients/node/node_modules/hot-shots/package.json");
    if have("node", test) && have(module.to_str().unwrap(), test) {
        deliver_all("node", RUNS, node).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cadence_arrives_exactly() {
    let udp = || UdpSocket::bind("127.0.0.1:0").unwrap();
    let unix = || UnixDatagram::unbound().unwrap();
    deliver("cadence, udp, plain", move |at| cadence(UdpMetricSink::from(at.udp, udp()).unwrap())).await;
    deliver("cadence, udp, buffered", move |at| cadence(BufferedUdpMetricSink::from(at.udp, udp()).unwrap())).await;
    deliver("cadence, unixgram, plain", move |at| cadence(UnixMetricSink::from(&at.datagram, unix()))).await;
    deliver("cadence, unixgram, buffered", move |at| cadence(BufferedUnixMetricSink::from(&at.datagram, unix()))).await;
}

/// The calls of `tests/clients/go/main.go` in Rust. cadence has no events and no checks, and its set members are numbers.
fn cadence(sink: impl MetricSink + Sync + Send + std::panic::RefUnwindSafe + 'static) -> Sent {
    let builder = StatsdClient::builder("clients", sink).with_tag("stadt", "köln").with_tag("env", "staging");
    let client = builder.with_tag("service", "shop").with_tag("version", "7").build();
    let mut sent = Sent::default();
    for n in 0..CALLS {
        cadence_call(&client, n, &mut sent);
        if n % 10 == 9 {
            // A pace that the smallest receive buffer bears.
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    client.flush().unwrap();
    sent
}

fn cadence_call(client: &StatsdClient, n: u64, sent: &mut Sent) {
    let shard = (n / 8 % 3).to_string();
    let series = |name: &str| format!("clients.{name}|env:staging,service:shop,shard:{shard},stadt:köln,version:7");
    sent.calls += 1;
    match n % 8 {
        0 => {
            *sent.counters.entry(series("jobs")).or_default() += (n % 50) as f64;
            client.count_with_tags("jobs", (n % 50) as i64).with_tag("shard", &shard).send();
        }
        1 => {
            *sent.counters.entry(series("done")).or_default() += 1.0;
            client.incr_with_tags("done").with_tag("shard", &shard).send();
        }
        2 => {
            sent.gauges.insert(series("depth"), n as f64 / 4.0);
            client.gauge_with_tags("depth", n as f64 / 4.0).with_tag("shard", &shard).send();
        }
        3 => {
            let member = (n * 31 % 97) as i64;
            sent.sets.entry(series("users")).or_default().insert(member.to_string(), true);
            client.set_with_tags("users", member).with_tag("shard", &shard).send();
        }
        4 => {
            sent.histograms.entry(series("size")).or_default().push((n * 7_919 % 1_000) as f64);
            client.histogram_with_tags("size", n * 7_919 % 1_000).with_tag("shard", &shard).send();
        }
        5 => {
            sent.histograms.entry(series("wait")).or_default().push((n * 7_919 % 500) as f64);
            client.time_with_tags("wait", n * 7_919 % 500).with_tag("shard", &shard).send();
        }
        6 => {
            sent.distributions.entry(series("latency")).or_default().push((n * 7_919 % 1_000) as f64);
            client.distribution_with_tags("latency", n * 7_919 % 1_000).with_tag("shard", &shard).send();
        }
        _ => {
            *sent.counters.entry(series("undone")).or_default() -= 1.0;
            client.decr_with_tags("undone").with_tag("shard", &shard).send();
        }
    }
}
