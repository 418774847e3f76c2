//! Two other DogStatsD servers behind us, unmodified: Prometheus's statsd_exporter over UDP and the OpenTelemetry collector's
//! StatsD receiver over a Unix socket. What the app sent is what they read, for the types each of them takes.
//!
//! Neither takes sets, events or `card:`, and the receiver takes no packed values either, so it is sent none. Both are built from
//! `tests/peers`, at the versions in its `go.mod`.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use support::{Kept, Sidecar, have, http_get, lines_of, root, sender, wait_for};

const SOON: Duration = Duration::from_secs(60);

/// Builds a package of `tests/peers`.
fn peer(package: &str, name: &str) -> PathBuf {
    let binary = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut go = Command::new("go");
    let built = go
        .args(["build", "-trimpath", "-o"])
        .arg(&binary)
        .arg(package)
        .current_dir(root().join("tests/peers"))
        .output();
    let built = built.unwrap();
    assert!(built.status.success(), "go build of {package}: {}", String::from_utf8_lossy(&built.stderr));
    binary
}

fn sidecar(agent: &str) -> Sidecar {
    // Our own metrics would only be noise here.
    Sidecar::start(
        &format!(
            "[datadog]\nown_metrics = false\n[datadog.agent]\ndogstatsd = \"{agent}\"\n[aggregate]\ninterval = \"1s\"\n"
        ),
        &[],
    )
}

/// Rounds of: counters plain, sampled and packed, a gauge, and samples of the three timing types, one of them sampled.
const ROUNDS: u64 = 100;

/// `apart` gives every sample of a timing type a tag of its own, so that none is packed with another.
fn send(to: SocketAddr, apart: bool) {
    let socket = sender(to);
    for n in 0..ROUNDS {
        let (shard, own) = (n % 4, if apart { format!(",n:{n}") } else { String::new() });
        let lines = [
            format!("jobs:{n}|c|#queue:low,shard:{shard}|c:ci-0123"),
            "sampled:3|c|@0.25|#queue:low".to_owned(),
            "packed:1:2:3|c".to_owned(),
            format!("depth:{n}.5|g|#queue:low"),
            format!("wait:{n}|ms|#route:/a{own}"),
            format!("size:{n}|h|#route:/b{own}"),
            format!("latency:{n}.25|d|@0.5|#route:/c{own}"),
        ];
        socket.send(lines.join("\n").as_bytes()).unwrap();
    }
}

/// By name and tags in order: how many samples (1 for a counter or a gauge), and their sum, or a gauge's last value.
type Values = BTreeMap<String, (u64, f64)>;

fn key(name: &str, mut tags: Vec<String>) -> String {
    tags.sort();
    format!("{name} {}", tags.join(","))
}

/// What the servers must say. `container` is what they call the origin that is named by `c:`.
fn expected(container: &str, apart: bool) -> Values {
    let mut all = Values::new();
    for n in 0..ROUNDS {
        let mut add = |name: &str, tags: &str, samples: u64, value: f64| {
            let own = (apart && samples > 0).then(|| format!("n:{n}"));
            let tags = tags.split(',').filter(|tag| !tag.is_empty()).map(str::to_owned).chain(own).collect();
            let entry = all.entry(key(name, tags)).or_insert((u64::from(samples == 0), 0.0));
            *entry = (entry.0 + samples, entry.1 + value);
        };
        add("jobs", &format!("{container}:ci-0123,queue:low,shard:{}", n % 4), 0, n as f64);
        add("sampled", "queue:low", 0, 12.0);
        add("packed", "", 0, 6.0);
        add("wait", "route:/a", 1, n as f64);
        add("size", "route:/b", 1, n as f64);
        add("latency", "route:/c", 2, 2.0 * (n as f64 + 0.25));
    }
    all.insert("depth queue:low".to_owned(), (1, ROUNDS as f64 - 0.5));
    all
}

#[test]
fn prometheus_statsd_exporter_reads_what_the_app_sent() {
    if !have("go", "statsd_exporter behind us") {
        return;
    }
    let exporter = peer("github.com/prometheus/statsd_exporter", "statsd_exporter");
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let web = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let child = Command::new(exporter)
        .args([format!("--statsd.listen-udp={udp}"), "--statsd.listen-tcp=".to_owned()])
        .args([format!("--web.listen-address={web}"), "--log.level=error".to_owned()])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let _exporter = Kept(child);
    wait_for(SOON, "statsd_exporter to answer", || std::net::TcpStream::connect(web).ok());
    let sidecar = sidecar(&format!("udp://{udp}"));
    send(sidecar.statsd[0], false);
    let expected = expected("container_id", false);
    let mut read = Values::new();
    let reached = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_for(SOON, "the same values", || {
            read = of_exporter(&http_get(web, "/metrics").1);
            (read == expected).then_some(())
        });
    }));
    assert!(reached.is_ok(), "read {read:#?}\nexpected {expected:#?}");
}

/// The exporter's rows in the terms of [`expected`]. It keeps timings in seconds.
fn of_exporter(text: &str) -> Values {
    let mut all = Values::new();
    let ours = ["jobs", "sampled", "packed", "depth", "wait", "size", "latency"];
    for line in text.lines().filter(|line| ours.iter().any(|name| line.starts_with(name))) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        if labels.contains("quantile=") || labels.contains("le=") || name.ends_with("_bucket") {
            continue;
        }
        let labels = labels.trim_end_matches('}').replace("=\"", ":").replace('"', "");
        let tags = labels.split(',').filter(|tag| !tag.is_empty()).map(str::to_owned).collect();
        let value: f64 = value.parse().unwrap();
        let (name, part) = match name.rsplit_once('_') {
            Some((name, part @ ("sum" | "count"))) => (name, part),
            _ => (name, ""),
        };
        let entry = all.entry(key(name, tags)).or_insert((1, 0.0));
        match part {
            "count" => entry.0 = value as u64,
            "sum" if name == "wait" => entry.1 = (value * 1e6).round() / 1e3,
            _ => entry.1 = value,
        }
    }
    all
}

#[test]
fn the_opentelemetry_receiver_reads_what_the_app_sent() {
    if !have("go", "the OpenTelemetry receiver behind us") {
        return;
    }
    let receiver = peer("./receiver", "receiver");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dsd.socket");
    let mut child = Command::new(receiver).arg(&path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = lines_of(child.stdout.take().unwrap());
    let _receiver = Kept(child);
    wait_for(SOON, "the receiver's socket", || path.exists().then_some(()));
    let sidecar = sidecar(&format!("unix://{}", path.display()));
    send(sidecar.statsd[0], true);
    let expected = expected("container.id", true);
    let mut read = Values::new();
    while read != expected {
        let line = lines.recv_timeout(SOON).unwrap_or_else(|_| panic!("read {read:#?}\nexpected {expected:#?}"));
        of_receiver(&line, &mut read);
    }
}

/// One data point of the receiver, which tells of a second: sums add up, a gauge's last value stays.
fn of_receiver(line: &str, all: &mut Values) {
    let point: serde_json::Value = serde_json::from_str(line).unwrap();
    let tags = point["tags"].as_object().unwrap();
    let tags = tags.iter().map(|(key, value)| format!("{key}:{}", value.as_str().unwrap())).collect();
    let name = key(point["name"].as_str().unwrap(), tags);
    let (count, value) = (point["count"].as_u64().unwrap(), point["value"].as_f64().unwrap());
    match point["type"].as_str().unwrap() {
        "Gauge" => _ = all.insert(name, (1, value)),
        "Sum" => all.entry(name).or_insert((1, 0.0)).1 += value,
        _ => {
            let entry = all.entry(name).or_default();
            *entry = (entry.0 + count, entry.1 + value);
        }
    }
}
