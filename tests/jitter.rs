//! A pull that goes wrong holds up nothing: while an endpoint is silent, drips, floods and bombs, the readings of the app come at
//! their pace, and memory stays what it was.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use support::Sidecar;
use support::endpoint::{Act, Endpoint, pull_now, told, watching};
use tokio::time::Instant;

const MIB: u64 = 1 << 20;
const INTERVAL: Duration = Duration::from_millis(500);

/// How late this machine wakes a thread that asks for the same pace: other people's load is not the sidecar's doing.
fn machine() -> (Receiver<Duration>, SyncSender<()>) {
    let ((tell, told), (stop, stopped)) = (sync_channel(1), sync_channel::<()>(1));
    std::thread::spawn(move || {
        let (mut worst, mut last) = (Duration::ZERO, Instant::now());
        while stopped.recv_timeout(INTERVAL).is_err_and(|error| error == RecvTimeoutError::Timeout) {
            worst = worst.max(last.elapsed().saturating_sub(INTERVAL));
            last = Instant::now();
        }
        let _ = tell.send(worst);
    });
    (told, stop)
}

/// The longest time between two readings since then, in seconds, and how many there were.
fn longest_gap(sidecar: &Sidecar, since: f64) -> (f64, usize) {
    let readings = sidecar.api(&format!("/api/readings?since={since}"));
    let times: Vec<f64> = readings["t"].as_array().unwrap().iter().map(|t| t.as_f64().unwrap()).collect();
    (times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max), times.len())
}

#[test]
fn readings_keep_their_pace_while_pulls_go_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::start(Act::Silence);
    let settings = watching(&endpoint, dir.path());
    let settings = settings.replace("[profile]", &format!("interval = \"{}ms\"\n[profile]", INTERVAL.as_millis()));
    let sidecar = Sidecar::start(&settings, &[]);
    // The pull at first sight is a silent one too.
    told(&sidecar, "within 5 s");
    let since = sidecar.api("/api/readings")["t"].as_array().unwrap().last().unwrap().as_f64().unwrap();
    let (worst, stop) = machine();
    let base = sidecar.rss_bytes();
    let acts = [
        (Act::Drip, "within 15 s"),
        (Act::Flood(1 << 30), "16777216 bytes"),
        (Act::Bomb(10 << 30), "inflates to more than 64 MiB"),
        (Act::Silence, "within 5 s"),
    ];
    for (act, words) in acts {
        endpoint.now(act);
        pull_now(&sidecar);
        told(&sidecar, words);
    }
    let (gap, readings) = longest_gap(&sidecar, since);
    drop(stop);
    let late = worst.recv().unwrap().as_secs_f64();
    let grew = sidecar.rss_bytes().saturating_sub(base);
    println!(
        "{readings} readings, {gap:.3} s apart at most; the machine was {late:.3} s late; {} KiB more",
        grew >> 10
    );
    assert!(readings > 30, "only {readings} readings");
    assert!(gap <= 2.0 * INTERVAL.as_secs_f64() + late, "{gap} s between two readings");
    assert!(grew <= 8 * MIB, "{grew} bytes more than before");
}
