//! The wall clock is set while the sidecar runs, with libfaketime: an hour forward, a second back, stopped, an hour back. No
//! sample is lost, stamps fall only where the clock fell by more than Datadog would take, and windows keep their rhythm.
//!
//! Each jump alone, held still in time, is in `src/pipeline/rollup/jumps.rs`. Here the times shown lie within what the intake
//! takes of the real time, so that the intake's own rule is asked of every payload.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use support::intake::FakeIntake;
use support::{OOMWATCH, Sidecar, have, sender, wait_for};
use tokio::time::Instant;

/// Seconds off the real time: within an hour back and ten minutes ahead before and after a jump of an hour.
const BEHIND: i64 = -3_120;
const AHEAD: i64 = BEHIND + 3_600;

/// The library that is preloaded, where Debian puts it. A static binary would not load it; the tests' is none.
fn library(test: &str) -> Option<PathBuf> {
    let places =
        ["x86_64-linux-gnu", "aarch64-linux-gnu"].map(|arch| format!("/usr/lib/{arch}/faketime/libfaketime.so.1"));
    let found = places.iter().find(|place| Path::new(place).is_file());
    found.map(PathBuf::from).or_else(|| have(&places[0], test).then(PathBuf::new))
}

/// The clock that the sidecar sees, in a file that the library reads at each look.
struct Clock {
    dir: tempfile::TempDir,
}

impl Clock {
    fn new() -> Clock {
        let clock = Clock { dir: tempfile::tempdir().unwrap() };
        clock.show(BEHIND);
        clock
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("clock")
    }

    /// In one step, or the library would read half a line.
    fn write(&self, text: &str) {
        let new = self.dir.path().join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.file()).unwrap();
    }

    /// So many seconds off the real time.
    fn show(&self, off: i64) {
        self.write(&format!("{off:+}\n"));
    }

    fn stop(&self, off: i64) {
        let at = oomwatch::pipeline::wall_clock() as i64 + off;
        let date = Command::new("date").args(["-u", "-d", &format!("@{at}"), "+%Y-%m-%d %H:%M:%S"]).output().unwrap();
        self.write(std::str::from_utf8(&date.stdout).unwrap());
    }
}

/// A counter's samples, one each 50 ms for a while.
fn send(socket: &UdpSocket, seconds: u64, sent: &mut u64) {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(seconds) {
        if socket.send(b"told:1|c").is_ok() {
            *sent += 1;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The counter's stamps in the order in which they came, each with its sum.
fn stamps(intake: &FakeIntake) -> Vec<(i64, f64)> {
    let seen = intake.seen();
    let ours = seen.series().into_iter().filter(|series| series.metric == "told");
    ours.flat_map(|series| series.points.iter().map(|point| (point.timestamp, point.value))).collect()
}

fn sidecar(intake: &FakeIntake, library: &Path, clock: &Clock) -> Sidecar {
    let settings = format!(
        "[datadog]\nurl = \"{}\"\nhostname = \"node-1\"\n[aggregate]\ninterval = \"2s\"\ncounters = \"count\"\n",
        intake.url()
    );
    let (library, file) = (library.display().to_string(), clock.file().display().to_string());
    let env = [
        ("DD_API_KEY", "0123456789abcdef0123456789abcdef"),
        ("LD_PRELOAD", &library),
        ("FAKETIME_TIMESTAMP_FILE", &file),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("TZ", "UTC"),
    ];
    Sidecar::spawn(&settings, &env, Command::new(OOMWATCH))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_costs_no_sample() {
    let Some(library) = library("a_clock_that_is_set_costs_no_sample") else { return };
    let intake = FakeIntake::start().await;
    tokio::task::spawn_blocking(move || story(&intake, &library)).await.unwrap();
}

fn story(intake: &FakeIntake, library: &Path) {
    let clock = Clock::new();
    let mut sidecar = sidecar(intake, library, &clock);
    let (socket, mut sent, began) = (sender(sidecar.statsd[0]), 0, Instant::now());
    send(&socket, 6, &mut sent);
    clock.show(AHEAD);
    send(&socket, 6, &mut sent);
    clock.show(AHEAD - 1);
    send(&socket, 6, &mut sent);
    clock.stop(AHEAD - 1);
    send(&socket, 6, &mut sent);
    clock.show(BEHIND - 1);
    send(&socket, 6, &mut sent);
    wait_for(Duration::from_secs(20), "all to be taken in", || {
        (sidecar.metric("oomwatch_statsd_samples_total ") == Some(sent as f64)).then_some(())
    });
    let elapsed = began.elapsed().as_secs_f64();
    assert!(sidecar.terminate().success(), "{}", sidecar.log());
    let stamps = stamps(intake);
    let last_writes: BTreeMap<i64, f64> = stamps.iter().copied().collect();
    assert_eq!(last_writes.values().sum::<f64>(), sent as f64, "{stamps:?}");
    let falls: Vec<_> = stamps.windows(2).filter(|pair| pair[1].0 < pair[0].0).collect();
    assert!(falls.len() == 1 && falls[0][0].0 - falls[0][1].0 > 3_000, "{falls:?}");
    let leaps = stamps.windows(2).filter(|pair| pair[1].0 - pair[0].0 > 3_000).count();
    assert_eq!(leaps, 1, "{stamps:?}");
    // Two jumps of an hour, a stop and a partial window at the end: each may add a window or take one.
    let (windows, expected) = (stamps.len() as f64, elapsed / 2.0);
    println!("{sent} samples in {windows} windows of 2 s over {elapsed:.1} s");
    assert!((windows - expected).abs() <= expected * 0.1 + 3.0, "{windows} windows in {elapsed} s");
}
