//! A pull that goes wrong holds up nothing: while an endpoint is silent, drips, floods and bombs, the readings of the app come at
//! their pace, and memory stays what it was. Nor do profiles as large as they may be drive memory to the pod's limit.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use support::endpoint::{Act, Endpoint, ask, message, pull_now, told, watching};
use support::{Sidecar, wait_for};
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
    assert_eq!(endpoint.at_once.load(Ordering::SeqCst), 1, "one pull at a time");
    assert!(readings > 30, "only {readings} readings");
    assert!(gap <= 2.0 * INTERVAL.as_secs_f64() + late, "{gap} s between two readings");
    assert!(grew <= 8 * MIB, "{grew} bytes more than before");
}

/// A heap profile, plain, that a field which nobody knows fills up.
fn padded(bytes: usize, mut pad: impl FnMut() -> u8) -> Arc<Vec<u8>> {
    let mut profile = message(["inuse_space", "bytes"], &[(&[1, 2, 3], 100), (&[2, 3], 7)]);
    let mut left = bytes - profile.len() - 8;
    profile.push(15 << 3 | 2);
    let length = left;
    while left >= 0x80 {
        profile.push(u8::try_from(left & 0x7f).unwrap() | 0x80);
        left >>= 7;
    }
    profile.push(u8::try_from(left).unwrap());
    profile.extend((0..length).map(|_| pad()));
    Arc::new(profile)
}

fn noise() -> impl FnMut() -> u8 {
    let mut state = 1_u64;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    }
}

/// The most that was ever resident.
fn peak_bytes(sidecar: &Sidecar) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", sidecar.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1_024
}

/// A round by hand, and the next as soon as that is over: it begins when nothing is under way.
fn whole_round(sidecar: &Sidecar) {
    pull_now(sidecar);
    wait_for(Duration::from_secs(60), "the round to end", || {
        (ask(sidecar.page, "POST", b"/api/profiles", "X-Oomwatch: 1\r\n").0 == 202).then_some(())
    });
}

#[test]
fn profiles_as_large_as_they_may_be_are_no_reason_to_be_killed() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::start(Act::Silence);
    let settings = watching(&endpoint, dir.path()).replace("baseline_after = \"1h\"", "baseline_after = \"1ms\"");
    let sidecar = Sidecar::start(&settings.replace("[profile]", "[alert]\nstartup_grace = \"1s\"\n[profile]"), &[]);
    let base = peak_bytes(&sidecar);
    // Of seven megabytes that do not shrink one has room in a round, and of sixteen none.
    endpoint.now(Act::Profiles(padded(7 << 20, noise())));
    let uncompared = "oomwatch_profiles_uncompared_total{reason=\"too_large\"}";
    wait_for(Duration::from_secs(60), "the baseline", || {
        let listed = sidecar.api("/api/profiles");
        listed.as_array()?.iter().any(|it| it["reason"] == "baseline" && it["type"] == "goroutine").then_some(())
    });
    whole_round(&sidecar);
    assert!(sidecar.metric(uncompared).is_some_and(|count| count >= 2.0), "{}", sidecar.log());
    let random = peak_bytes(&sidecar);
    endpoint.now(Act::Profiles(padded((16 << 20) - 1, || 0)));
    whole_round(&sidecar);
    endpoint.now(Act::Profiles(padded((16 << 20) - 1, noise())));
    pull_now(&sidecar);
    told(&sidecar, "more than 8 MiB gzipped");
    let (peak, stays) = (peak_bytes(&sidecar), sidecar.rss_bytes());
    println!(
        "{} KiB resident at the start, {} at most with 7 MiB of noise, {} with 16 MiB, {} stay",
        base >> 10,
        random >> 10,
        peak >> 10,
        stays >> 10
    );
    assert!(peak <= 56 * MIB, "{peak} bytes resident, and the pod has 64 MiB");
}
