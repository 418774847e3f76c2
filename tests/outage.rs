//! Delivery across an outage and across restarts: what the intake does not take waits on disk, comes out exactly once in effect,
//! and hurts nobody meanwhile. The long form of the outage is `dev/soak outage`.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use oomwatch::pipeline::wall_clock;
use support::intake::{Decoded, FakeIntake, Fault, Seen};
use support::{OOMWATCH, Sidecar, have, sender, wait_for};
use tokio::sync::Mutex;
use tokio::task::block_in_place;
use tokio::time::Instant;

const MIB: u64 = 1 << 20;
const KEY: (&str, &str) = ("DD_API_KEY", "0123456789abcdef0123456789abcdef");
/// Held by whoever loads both cores.
static TURN: Mutex<()> = Mutex::const_new(());

fn settings(intake: &FakeIntake, dir: &Path, interval: &str, more: &str) -> String {
    format!(
        "[datadog]\nurl = \"{}\"\nhostname = \"pod-1\"\n[aggregate]\ninterval = \"{interval}\"\n[watch]\npid = {}\n\
         [spool]\ndir = \"{}\"\n{more}",
        intake.url(),
        std::process::id(),
        dir.display()
    )
}

/// Sends counters and distributions at an even pace until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Load {
    /// Ten lines a datagram, of which one is a distribution.
    fn start(to: SocketAddr, per_second: u64, contexts: u64) -> Load {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (told, count) = (stop.clone(), sent.clone());
        let thread = std::thread::spawn(move || {
            let (socket, began, mut text) = (sender(to), Instant::now(), String::new());
            for n in 0.. {
                if told.load(Ordering::Relaxed) {
                    return;
                }
                text.clear();
                for line in 0..9 {
                    writeln!(text, "jobs:1|c|#who:{}", (n * 9 + line) % contexts).unwrap();
                }
                write!(text, "latency:{}|d|#route:{}", n % 100, n % 20).unwrap();
                socket.send(text.as_bytes()).unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                let due = Duration::from_secs_f64((n + 1) as f64 * 10.0 / per_second as f64);
                std::thread::sleep(due.saturating_sub(began.elapsed()));
            }
        });
        Load { stop, sent, thread }
    }

    /// Datagrams sent in all.
    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.sent.load(Ordering::Relaxed)
    }
}

fn dir_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    files.filter_map(|file| Some(file.metadata().ok()?.blocks() * 512)).sum()
}

/// Payloads that wait on disk.
fn files(dir: &Path) -> usize {
    let names = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|file| file.file_name());
    names.filter(|name| !name.to_string_lossy().starts_with("last_partial")).count()
}

/// The sum of a counter over all its seconds, whole because rates come back by their interval.
fn counted(seen: &Seen, name: &str) -> u64 {
    seen.counter(name).round() as u64
}

/// Datadog would overwrite: no second of a series may come twice with another value.
fn check_repeats(seen: &Seen) {
    let mut values: HashMap<(String, Vec<String>, i64), f64> = HashMap::new();
    for series in seen.series().into_iter().filter(|series| series.metric.starts_with("jobs")) {
        for point in &series.points {
            let key = (series.metric.clone(), series.tags.clone(), point.timestamp);
            let before = values.insert(key, point.value);
            assert!(before.is_none_or(|value| value == point.value), "{series:?} came before with {before:?}");
        }
    }
}

/// How long after the end of its second the latest point of each accepted payload arrived.
fn lateness(seen: &Seen, since: Instant) -> f64 {
    let offset = wall_clock() - Instant::now().duration_since(since).as_secs_f64();
    let late = seen.accepted().filter(|request| request.at >= since).filter_map(|request| {
        let Decoded::Series(series) = &request.body else { return None };
        let newest = series.iter().flat_map(|series| &series.points).map(|point| point.timestamp).max()?;
        let arrived = offset + request.at.duration_since(since).as_secs_f64();
        (newest as f64 >= offset).then_some(arrived - newest as f64 - 1.0)
    });
    late.fold(0.0, f64::max)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_loses_nothing_and_costs_little() {
    let _turn = TURN.lock().await;
    let flushes: u64 = std::env::var("OOMWATCH_OUTAGE_FLUSHES").map_or(15, |text| text.parse().unwrap());
    let (intake, dir) = (FakeIntake::start().await, tempfile::tempdir().unwrap());
    let mut sidecar = Sidecar::start(&settings(&intake, dir.path(), "1s", ""), &[KEY]);
    let load = Load::start(sidecar.statsd[0], 5_000, 1_000);
    intake.wait_for("live points", Duration::from_secs(20), |seen| seen.accepted().count() > 6).await;
    let base = sidecar.rss_bytes();
    let before = intake.seen().arrived;
    intake.fail_always(Some(Fault::Status(503)));
    let (mut disk, mut rss) = (0, 0);
    for _ in 0..flushes {
        tokio::time::sleep(Duration::from_secs(1)).await;
        (disk, rss) = (disk.max(dir_bytes(dir.path())), rss.max(sidecar.rss_bytes()));
    }
    let attempts = intake.seen().arrived - before;
    let waiting = block_in_place(|| sidecar.metric("oomwatch_points_queued ").unwrap());
    intake.fail_always(None);
    let healed = Instant::now();
    block_in_place(|| {
        wait_for(Duration::from_secs(100), "an empty backlog", || {
            rss = rss.max(sidecar.rss_bytes());
            (files(dir.path()) == 0 && sidecar.metric("oomwatch_spool_disk_bytes ")? == 0.0).then_some(())
        });
    });
    let took = healed.elapsed();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let sent = load.end();
    let status = block_in_place(|| sidecar.terminate());
    assert!(status.success(), "{status}");
    let seen = intake.seen();
    eprintln!(
        "{flushes} flushes of outage: {attempts} attempts, {waiting} points waited, {disk} bytes on disk, \
         rss {base} to {rss}, backlog gone after {took:?}, live points late by {:.2} s",
        lateness(&seen, healed)
    );
    assert_eq!((counted(&seen, "jobs"), seen.sketch_count("latency")), (sent * 9, sent as i64));
    check_repeats(&seen);
    assert_eq!(counted(&seen, "oomwatch.dropped"), 0);
    assert!(waiting > 900.0 * flushes as f64, "{waiting}");
    assert!(disk > 0 && disk <= 16 * MIB, "{disk}");
    assert!(rss <= base + 8 * MIB, "{base} to {rss}");
    assert!(attempts <= 25, "{attempts}");
}

/// Rounds of SIGTERM and start, all within few buckets: every second is used once, and nothing is lost.
async fn restarts(interval: &str, short: u64) {
    let rounds = std::env::var("OOMWATCH_RESTARTS").map_or(short, |text| text.parse().unwrap());
    let (intake, dir) = (FakeIntake::start().await, tempfile::tempdir().unwrap());
    let mut sent = 0;
    for _ in 0..rounds {
        let mut sidecar = Sidecar::start(&settings(&intake, dir.path(), interval, ""), &[KEY]);
        let load = Load::start(sidecar.statsd[0], 5_000, 50);
        tokio::time::sleep(Duration::from_millis(60)).await;
        sent += load.end();
        let status = block_in_place(|| sidecar.terminate());
        assert!(status.success(), "{status}");
    }
    let seen = intake.seen();
    check_repeats(&seen);
    assert_eq!((counted(&seen, "jobs"), seen.sketch_count("latency")), (sent * 9, sent as i64));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_within_a_bucket_overwrite_nothing() {
    restarts("10s", 8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_within_a_second_overwrite_nothing_where_a_second_is_a_bucket() {
    restarts("1s", 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_sent_at_the_end_is_sent_by_the_next_start() {
    let (intake, dir) = (FakeIntake::start().await, tempfile::tempdir().unwrap());
    intake.fail_always(Some(Fault::Status(503)));
    let mut sidecar = Sidecar::start(&settings(&intake, dir.path(), "10s", ""), &[KEY]);
    let load = Load::start(sidecar.statsd[0], 5_000, 50);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let sent = load.end();
    let status = block_in_place(|| sidecar.terminate());
    assert!(status.success(), "{status}");
    assert!(files(dir.path()) > 0 && !sidecar.log().contains("reason=\"shutdown\""), "{}", sidecar.log());
    intake.fail_always(None);
    let mut next = Sidecar::start(&settings(&intake, dir.path(), "10s", ""), &[KEY]);
    let all = |seen: &Seen| counted(seen, "jobs") == sent * 9 && seen.sketch_count("latency") == sent as i64;
    intake.wait_for("what the first one left", Duration::from_secs(20), all).await;
    block_in_place(|| {
        assert!(next.metric("oomwatch_points_restored_total ").unwrap() > 0.0);
        assert!(next.terminate().success());
    });
    assert_eq!(files(dir.path()), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_cannot_be_used_is_said_and_hurts_nobody() {
    let (intake, dir) = (FakeIntake::start().await, tempfile::tempdir().unwrap());
    let file = dir.path().join("file");
    std::fs::write(&file, "no folder").unwrap();
    let mut sidecar = Sidecar::start(&settings(&intake, &file.join("spool"), "1s", ""), &[KEY]);
    let load = Load::start(sidecar.statsd[0], 1_000, 50);
    intake.wait_for("points", Duration::from_secs(20), |seen| counted(seen, "jobs") > 500).await;
    let sent = load.end();
    block_in_place(|| {
        assert_eq!(sidecar.metric("oomwatch_spool_state{spool=\"disabled\"} "), Some(1.0));
        let degraded = sidecar.api("/api/status")["degraded"].to_string();
        assert!(degraded.contains("disk spool") && degraded.contains("spool.dir"), "{degraded}");
        assert!(sidecar.terminate().success());
    });
    assert_eq!(counted(&intake.seen(), "jobs"), sent * 9);
}

/// A volume of the sidecar's own, made with these options of tmpfs; `None` where mounting is not allowed.
fn with_tmpfs(options: &str, dir: &Path) -> Option<Command> {
    let mount = format!("mount -t tmpfs -o {options} none '{}'", dir.display());
    let probe = Command::new("unshare").args(["--mount", "sh", "-c", &mount]).output();
    if !probe.is_ok_and(|out| out.status.success()) {
        assert!(std::env::var_os("CI").is_none(), "mounting a tmpfs of one's own should be allowed here");
        eprintln!("SKIPPED full_disk_{options}: mounting a tmpfs in a namespace of one's own is not allowed here");
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &format!("{mount} && exec \"$0\" \"$@\""), OOMWATCH]);
    Some(command)
}

async fn full_disk(options: &str) {
    if !have("unshare", "full_disk") {
        return;
    }
    let (intake, dir) = (FakeIntake::start().await, tempfile::tempdir().unwrap());
    let Some(command) = with_tmpfs(options, dir.path()) else { return };
    intake.fail_always(Some(Fault::Status(503)));
    let more = "max_memory = \"64KiB\"\n";
    let mut sidecar = Sidecar::spawn(&settings(&intake, dir.path(), "1s", more), &[KEY], command);
    let load = Load::start(sidecar.statsd[0], 20_000, 10_000);
    let failing = |sidecar: &Sidecar| sidecar.metric("oomwatch_spool_state{spool=\"failing\"} ") == Some(1.0);
    block_in_place(|| {
        wait_for(Duration::from_secs(40), "a full disk and full memory", || {
            let lost = sidecar.metric("oomwatch_dropped_total{reason=\"disk_full\"} ").unwrap_or(0.0);
            (failing(&sidecar) && lost > 0.0).then_some(())
        });
        let sent = load.end();
        intake.fail_always(None);
        wait_for(Duration::from_secs(100), "a healthy disk", || {
            let empty = sidecar.metric("oomwatch_spool_disk_bytes ") == Some(0.0);
            (empty && !failing(&sidecar) && sidecar.metric("oomwatch_points_queued ") == Some(0.0)).then_some(())
        });
        let value = |name: &str| sidecar.metric(name).unwrap_or(0.0) as u64;
        // The sidecar's own figures are flushed each second: there is a moment at which nothing is on its way.
        let (mut flushed, mut delivered, mut lost) = (0, 0, 0);
        let settled = (0..600).any(|_| {
            (flushed, delivered, lost) = settled_points(&sidecar.metrics());
            let equal = delivered + lost == flushed;
            if !equal {
                std::thread::sleep(Duration::from_millis(50));
            }
            equal
        });
        assert!(settled && lost > 0, "{delivered} + {lost} of {flushed}");
        assert_eq!(value("oomwatch_identity_error{id=\"I4\"} "), 0);
        assert_eq!(value("oomwatch_statsd_samples_total "), sent * 10, "the way in is unaffected");
        assert!(sidecar.terminate().success());
    });
    let seen = intake.seen();
    let dropped = seen.series().into_iter().filter(|it| it.metric == "oomwatch.dropped");
    let reasons: BTreeSet<_> = dropped.map(|it| it.tags.clone()).collect();
    let one = reasons.len() == 1 && reasons.iter().flatten().any(|tag| tag == "reason:disk_full");
    assert!(one, "lost under one name: {reasons:?}");
}

/// Points flushed, delivered and lost for a full disk, by one page of metrics.
fn settled_points(metrics: &str) -> (u64, u64, u64) {
    let value = |name: &str| {
        let row = metrics.lines().find_map(|line| line.strip_prefix(name));
        row.map_or(0.0, |value| value.trim().parse().unwrap()) as u64
    };
    let lost = value("oomwatch_dropped_total{reason=\"disk_full\"} ");
    (value("oomwatch_points_flushed_total "), value("oomwatch_points_delivered_total "), lost)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_boring() {
    let _turn = TURN.lock().await;
    full_disk("size=128k").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_without_inodes_is_boring() {
    let _turn = TURN.lock().await;
    full_disk("nr_inodes=8").await;
}
