//! `/metrics` as Prometheus reads it: its own parser takes both formats after a mixed run, finds the same series in each, every
//! one of the catalogue, and few of them.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use oomwatch::telemetry::CATALOGUE;
use support::{Sidecar, have, root, sender, wait_for};

/// Promised to whoever pays for the storage.
const MOST_SERIES: usize = 300;

fn parser() -> PathBuf {
    let binary = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("scrape");
    let mut go = Command::new("go");
    let built = go
        .args(["build", "-trimpath", "-o"])
        .arg(&binary)
        .arg("./scrape")
        .current_dir(root().join("tests/peers"))
        .output();
    let built = built.unwrap();
    assert!(built.status.success(), "go build: {}", String::from_utf8_lossy(&built.stderr));
    binary
}

fn scrape(address: SocketAddr, accept: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // HTTP/1.0 leaves out the chunks.
    write!(stream, "GET /metrics HTTP/1.0\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// The series that Prometheus reads, each with its labels, and their values.
fn read(parser: &Path, format: &str, text: &str) -> BTreeMap<BTreeMap<String, String>, f64> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("metrics");
    std::fs::write(&file, text).unwrap();
    let output = Command::new(parser).arg(format).arg(&file).output().unwrap();
    assert!(output.status.success(), "{format}: {}\n{text}", String::from_utf8_lossy(&output.stderr));
    let rows = String::from_utf8(output.stdout).unwrap();
    let mut series = BTreeMap::new();
    for row in rows.lines().map(|row| serde_json::from_str::<serde_json::Value>(row).unwrap()) {
        let labels = serde_json::from_value(row["labels"].clone()).unwrap();
        let value = row["value"].as_str().unwrap().parse().unwrap();
        assert!(series.insert(labels, value).is_none(), "twice: {row}");
    }
    series
}

/// Something of everything, good and bad, with characters that a label must escape.
fn mixed_run(to: SocketAddr) -> u64 {
    let lines: [&[u8]; 11] = [
        b"jobs:1|c|#a:\"quoted\\\"",
        b"depth:2|g",
        b"wait:1:2:3|ms",
        b"size:5|h|@0.5",
        b"latency:1|d",
        b"users:u|s",
        b"_e{2,2}:ti|te",
        b"_sc|up|0",
        b"bad",
        b"nan:nan|g",
        b"a:1|x",
    ];
    let socket = sender(to);
    for line in lines {
        socket.send(line).unwrap();
    }
    lines.len() as u64
}

/// Metrics of what this run does not do: growth, profiles, a Go app's figures, a limit, kills, faults, a reload, a start after a crash.
fn waits_for_its_day(name: &str) -> bool {
    const WATCHED: [&str; 9] =
        ["slope", "time_to_limit", "heap", "goroutines", "profile", "limit", "working_set", "anonymous", "oom_kills"];
    const SENT: [&str; 6] =
        ["output_failures", "points_restored", "spool_corrupt", "redelivered", "config_reloads", "state_failed"];
    WATCHED.iter().chain(&SENT).any(|word| name.contains(word))
        || name.ends_with("restarts_total")
        || name.contains("readings_failed")
}

#[test]
fn prometheus_reads_every_metric_in_both_formats() {
    if !have("go", "Prometheus's parser on /metrics") {
        return;
    }
    let parser = parser();
    let watched = std::process::id();
    let sidecar = Sidecar::start(&format!("[aggregate]\ninterval = \"1s\"\n[watch]\npid = {watched}\n"), &[]);
    let sent = mixed_run(sidecar.statsd[0]);
    wait_for(Duration::from_secs(30), "all lines to be received", || {
        (sidecar.metric("oomwatch_statsd_lines_total ")? as u64 >= sent).then_some(())
    });
    let always = CATALOGUE.iter().map(|metric| metric.prometheus()).filter(|name| !waits_for_its_day(name));
    let always: Vec<String> = always.collect();
    wait_for(Duration::from_secs(30), "every metric", || {
        let text = sidecar.metrics();
        let missing: Vec<_> = always.iter().filter(|name| !text.contains(&format!("# TYPE {name} "))).collect();
        eprintln!("missing: {missing:?}");
        missing.is_empty().then_some(())
    });
    let text = read(&parser, "text", &scrape(sidecar.health, "text/plain"));
    let open = read(&parser, "openmetrics", &scrape(sidecar.health, "application/openmetrics-text;version=1.0.0"));
    let ids = |series: &BTreeMap<BTreeMap<String, String>, f64>| series.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(ids(&text), ids(&open), "the two formats name the same series");
    assert!(text.len() <= MOST_SERIES, "{} series", text.len());
    let names: BTreeSet<String> = text.keys().map(|labels| labels["__name__"].clone()).collect();
    let catalogue: BTreeSet<String> = CATALOGUE.iter().map(|metric| metric.prometheus()).collect();
    let strangers: Vec<_> = names.difference(&catalogue).collect();
    assert!(strangers.is_empty(), "not in the catalogue: {strangers:?}");
}
