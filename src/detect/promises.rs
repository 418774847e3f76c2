//! What holds for every series, and how soon the fastest leaks are told.
//!
//! The stories beside this file are single lives; here are whole families of them. "Told" means a warning or worse.

use std::time::Duration;

use proptest::prelude::*;

use super::{Alert, AlertKind, Change, Detector, Detectors, Reading, Settings, Severity};

const LIMIT: u64 = 512 << 20;
const MIB: f64 = 1_048_576.0;

fn alerts(changes: Vec<Change>) -> impl Iterator<Item = Alert> {
    changes.into_iter().filter_map(|change| match change {
        Change::Opened(alert) | Change::Escalated(alert) => Some(alert),
        Change::Cleared { .. } => None,
    })
}

/// Seconds of the first alert that is at least this severe, in a life given as MiB of 512, read every `step` seconds.
fn first(least: Severity, until: f64, step: f64, life: impl Fn(f64) -> f64) -> Option<f64> {
    let mut detectors = Detectors::new(Settings::default());
    let times = (0..(until / step) as u32).map(|i| f64::from(i) * step);
    times.into_iter().find(|t| alerts(see(&mut detectors, *t, life(*t))).any(|alert| alert.severity >= least))
}

fn see(detectors: &mut Detectors, t: f64, mib: f64) -> Vec<Change> {
    detectors.observe(&reading(Duration::from_secs_f64(t), (mib * MIB) as u64, LIMIT))
}

fn reading(at: Duration, memory: u64, limit: u64) -> Reading {
    Reading { at, incarnation: 1, memory_bytes: Some(memory), limit_bytes: Some(limit), ..Reading::default() }
}

/// Quiet at 60 MiB for 90 s, then away at this rate.
fn runs_away(rate: f64) -> impl Fn(f64) -> f64 {
    move |t| 60.0 + 0.4 * (t * 12.9898).sin() + (t - 90.0).max(0.0) * rate
}

#[test]
fn a_burst_after_a_quiet_minute_and_a_half_is_critical_five_seconds_before_the_end() {
    for (rate, step) in [(17.0, 1.0), (17.0, 0.25), (25.0, 1.0), (25.0, 0.25), (10.0, 1.0)] {
        let kill = 90.0 + (512.0 - 60.0) / rate;
        let told = first(Severity::Crit, kill, step, runs_away(rate));
        assert!(
            told.is_some_and(|at| at <= kill - 5.0),
            "{rate} MiB/s, every {step} s: told at {told:?}, dead at {kill}"
        );
    }
}

#[test]
fn a_hundred_mebibytes_a_second_are_told_within_seconds() {
    for (step, by) in [(0.25, 91.5), (1.0, 93.0)] {
        let told = first(Severity::Crit, 94.5, step, runs_away(100.0));
        assert!(told.is_some_and(|at| at <= by), "every {step} s: told at {told:?}");
    }
}

/// As the watch does it: readings come every second until memory leaps, and then four times as often.
#[test]
fn a_leap_brings_the_next_reading_forward_and_the_alarm_with_it() {
    let (mut detectors, mut t, life) = (Detectors::new(Settings::default()), 0.0, runs_away(100.0));
    while !alerts(see(&mut detectors, t, life(t))).any(|alert| alert.severity == Severity::Crit) {
        t += if detectors.outlook().hurries { 0.25 } else { 1.0 };
    }
    assert!(t <= 92.5, "told at {t}, dead at 94.5");
    assert!((0..90).all(|t| life(f64::from(t)) < 61.0));
}

#[test]
fn a_leak_from_the_first_second_is_critical_five_seconds_before_the_end() {
    for step in [1.0, 0.25] {
        let told = first(Severity::Crit, 29.6, step, |t| 8.0 + 17.0 * t);
        assert!(told.is_some_and(|at| at <= 24.6), "every {step} s: told at {told:?}");
    }
}

/// A collector's steps before a burst are no part of it.
#[test]
fn a_burst_out_of_a_heap_that_moves_by_itself_is_told_seconds_earlier() {
    let life = |t: f64| match t {
        t if t < 90.0 => 174.0,
        t if t < 94.0 => 190.0,
        t => 190.0 + (t - 93.0) * 31.0,
    };
    let kill = 93.0 + (512.0 - 190.0) / 31.0;
    let told = first(Severity::Crit, kill, 1.0, life);
    assert!(told.is_some_and(|at| at <= kill - 5.0), "told at {told:?}, dead at {kill}");
}

/// A buffer that takes longer to fill looks like a leak of 100 MiB a second until it is full.
#[test]
fn what_is_filled_within_a_second_is_no_burst() {
    for (seconds, mib) in [(0.25, 400.0), (0.5, 250.0), (1.0, 250.0)] {
        for step in [1.0, 0.25] {
            let life = |t: f64| 60.0 + mib * ((t - 90.0) / seconds).clamp(0.0, 1.0);
            assert_eq!(first(Severity::Warn, 900.0, step, life), None, "{mib} MiB in {seconds} s, every {step} s");
        }
    }
}

/// Pieces of a life: a pace in shares of the limit per second, and how many readings it lasts.
fn pieces() -> impl Strategy<Value = Vec<(f64, u32)>> {
    prop::collection::vec((-0.01..0.012_f64, 1..120_u32), 1..24)
}

/// Bytes under a limit of 512 MiB, a second apart.
fn bytes(pieces: &[(f64, u32)]) -> Vec<u64> {
    let (mut share, mut series) = (0.15_f64, Vec::new());
    for (pace, readings) in pieces {
        for i in 0..*readings {
            share = (share + pace + 0.002 * f64::from(i).sin()).clamp(0.01, 0.99);
            series.push((share * LIMIT as f64) as u64);
        }
    }
    series
}

type Verdict = (Duration, AlertKind, Severity, &'static str);

fn verdicts(series: &[u64], shift: Duration, factor: u64) -> Vec<Verdict> {
    let mut detectors = Detectors::new(Settings::default());
    let seconds = (0_u64..).map(Duration::from_secs).zip(series);
    let all = seconds.flat_map(|(at, bytes)| detectors.observe(&reading(at + shift, bytes * factor, LIMIT * factor)));
    alerts(all.collect()).map(|alert| (alert.at - shift, alert.kind, alert.severity, alert.rule)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn scaling_memory_and_limit_leaves_the_verdicts_alone(pieces in pieces(), factor in 2..1_000_u64) {
        let series = bytes(&pieces);
        prop_assert_eq!(verdicts(&series, Duration::ZERO, 1), verdicts(&series, Duration::ZERO, factor));
    }

    #[test]
    fn shifting_the_start_leaves_the_verdicts_alone(pieces in pieces(), shift in 1..10_000_000_u64) {
        let series = bytes(&pieces);
        prop_assert_eq!(verdicts(&series, Duration::ZERO, 1), verdicts(&series, Duration::from_millis(shift), 1));
    }

    #[test]
    fn what_stands_or_falls_is_never_told(
        start in 0.02..0.99_f64, falls in prop::collection::vec((0.0..0.01_f64, 1..200_u32), 1..20)
    ) {
        let (mut detectors, mut share, mut t) = (Detectors::new(Settings::default()), start, 0.0);
        for (pace, readings) in falls {
            for _ in 0..readings {
                (share, t) = (if readings % 3 == 0 { share } else { (share - pace).max(0.0) }, t + 1.0);
                let told = alerts(see(&mut detectors, t, share * 512.0)).any(|alert| alert.severity > Severity::Notice);
                prop_assert!(!told, "at {} s with {} of the limit", t, share);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_linear_leak_is_always_told_before_the_end(
        base in 0.03..0.6_f64, quiet in 70.0..900.0_f64, order in 0.0..1.0_f64, noise in 0.0..0.004_f64
    ) {
        // From a minute to sixty hours, evenly in orders of magnitude.
        let takes = 60.0 * 3_600.0_f64.powf(order);
        let step = (takes / 4_000.0).clamp(1.0, 30.0).floor();
        let life = |t: f64| 512.0 * (base + noise * (t * 12.9898).sin() + (1.0 - base) * ((t - quiet) / takes).max(0.0));
        let kill = quiet + takes;
        let told = first(Severity::Warn, kill - 5.0, step, life);
        prop_assert!(told.is_some_and(|at| at > quiet), "{takes} s to the limit, told at {told:?} of {kill}");
    }
}
