//! Whole lives of processes, told to all detectors: what must be said, by when, and what must not.

mod disturbances;

use std::mem::size_of;
use std::time::Duration;

use proptest::prelude::*;

use super::clients::Clients;
use super::count::Count;
use super::growth::Growth;
use super::scale::Scale;
use super::{Alert, AlertKind, Change, Detector, Detectors, Reading, Settings, Severity, State};

const MIB: f64 = 1_048_576.0;
const LIMIT: u64 = 256 << 20;

/// What was said, as `(seconds, kind, severity)`; an all-clear has no severity.
type Said = Vec<(f64, AlertKind, Option<Severity>)>;

fn said(changes: &[Change]) -> Said {
    let word = |change: &Change| match change {
        Change::Opened(alert) | Change::Escalated(alert) => (alert.at.as_secs_f64(), alert.kind, Some(alert.severity)),
        Change::Cleared { kind, at } => (at.as_secs_f64(), *kind, None),
    };
    changes.iter().map(word).collect()
}

/// Tells a life to new detectors: a reading each `step`, from the seconds of its age.
fn live(seconds: f64, step: f64, life: impl Fn(f64) -> Reading) -> (Detectors, Vec<Change>) {
    let mut detectors = Detectors::new(Settings::default());
    let changes = go_on(&mut detectors, 0.0, seconds, step, life);
    (detectors, changes)
}

fn go_on(detectors: &mut Detectors, from: f64, to: f64, step: f64, life: impl Fn(f64) -> Reading) -> Vec<Change> {
    let looks = ((to - from) / step) as u32;
    let times = (0..looks).map(|i| from + f64::from(i) * step);
    times.flat_map(|t| detectors.observe(&Reading { at: Duration::from_secs_f64(t), ..life(t) })).collect()
}

/// A reading of memory in MiB under a limit of 256 MiB.
fn memory(mib: f64) -> Reading {
    Reading { incarnation: 1, memory_bytes: Some((mib * MIB) as u64), limit_bytes: Some(LIMIT), ..Reading::default() }
}

fn clients(count: f64) -> Reading {
    Reading { statsd_clients: Some(count as u64), ..memory(20.0) }
}

fn check_silent(name: &str, seconds: f64, life: impl Fn(f64) -> Reading) {
    for step in [1.0, 0.25] {
        let (_, changes) = live(seconds, step, &life);
        assert_eq!(said(&changes), [], "{name}, a reading each {step} s");
    }
}

/// The first alarm (a notice is none) comes in this window.
fn check_told(name: &str, kind: AlertKind, window: std::ops::RangeInclusive<f64>, life: impl Fn(f64) -> Reading) {
    for step in [1.0, 0.25] {
        let (_, changes) = live(*window.end() + 30.0, step, &life);
        let first = said(&changes).into_iter().find(|(_, _, severity)| *severity >= Some(Severity::Warn));
        let (at, first_kind, _) = first.unwrap_or_else(|| panic!("{name}, a reading each {step} s: nothing was told"));
        assert_eq!(first_kind, kind, "{name}");
        assert!(window.contains(&at), "{name}, a reading each {step} s: told at {at} s");
    }
}

fn between(points: &[(f64, f64)], t: f64) -> f64 {
    let after = points.iter().position(|(at, _)| *at >= t).unwrap_or(points.len() - 1).max(1);
    let ((t0, v0), (t1, v1)) = (points[after - 1], points[after]);
    v0 + (v1 - v0) * ((t - t0) / (t1 - t0)).min(1.0)
}

/// A small even scatter without a random source.
fn noise(t: f64) -> f64 {
    (t * 12.9898).sin() * 0.3
}

/// Measured on a worker under 256 MiB with one client per attempt, 2.7 attempts a second, and on the same worker mended.
const LEAKY: [(f64, f64); 6] = [(0.0, 6.0), (1.0, 13.8), (30.0, 54.0), (60.0, 110.0), (120.0, 245.0), (126.0, 256.0)];
const LEAKY_CLIENTS: [(f64, f64); 5] = [(0.0, 1.0), (1.0, 1.0), (30.0, 72.0), (60.0, 155.0), (126.0, 327.0)];
const FIXED: [(f64, f64); 6] = [(0.0, 6.0), (1.0, 14.0), (30.0, 19.3), (60.0, 21.9), (120.0, 22.0), (200.0, 23.9)];

#[test]
fn one_client_per_job_is_told_in_ten_seconds() {
    let from_100 = |t: f64| clients(1.0 + ((t - 100.0).max(0.0) * 2.7).floor());
    check_told("after a quiet start", AlertKind::ClientLeak, 105.0..=110.0, from_100);
    let from_15 = |t: f64| clients(1.0 + ((t - 15.0).max(0.0) * 2.7).floor());
    check_told("in a young process", AlertKind::ClientLeak, 20.0..=25.0, from_15);
    check_told("one a second", AlertKind::ClientLeak, 105.0..=113.0, |t| clients(1.0 + (t - 100.0).max(0.0).floor()));
    let slow = |t: f64| clients(1.0 + ((t - 100.0).max(0.0) / 15.0).floor());
    check_told("four a minute", AlertKind::ClientLeak, 200.0..=450.0, slow);
}

#[test]
fn a_census_each_five_seconds_is_enough() {
    let census = |t: f64| {
        let clients = (t % 5.0 == 0.0).then_some(1 + ((t - 100.0).max(0.0) * 2.7) as u64);
        Reading { statsd_clients: clients, ..memory(20.0) }
    };
    check_told("counted now and then", AlertKind::ClientLeak, 105.0..=120.0, census);
}

#[test]
fn the_words_of_a_client_leak_are_numbers() {
    let (_, changes) = live(130.0, 1.0, |t| clients(3.0 + ((t - 100.0).max(0.0) * 2.5).floor()));
    let [Change::Opened(alert)] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!(alert.evidence, "28 StatsD clients open, 25 more in 10 s, one more every 0.4 s");
    assert_eq!((alert.rule, alert.per_second, alert.time_to_limit), ("clients", 2.5, None));
}

#[test]
fn twenty_clients_at_start_are_fine() {
    check_silent("at once", 900.0, |_| clients(20.0));
    check_silent("within two seconds", 900.0, |t| clients((t * 10.0).floor().min(20.0)));
    check_silent("one after the other", 900.0, |t| clients((t * 2.0).floor().min(20.0)));
    check_silent("sixty within three seconds", 900.0, |t| clients((t * 20.0).floor().min(60.0)));
    check_silent("ten more later, at once", 900.0, |t| clients(if t < 300.0 { 10.0 } else { 20.0 }));
}

#[test]
fn churn_of_clients_is_no_leak() {
    check_silent("made and closed", 900.0, |t| clients(1.0 + (t * 7.0).rem_euclid(4.0).floor()));
    check_silent("up and down", 900.0, |t| clients(10.0 + (t.rem_euclid(8.0) * 3.0).floor()));
}

#[test]
fn clients_that_come_and_go_under_rising_load_are_no_leak() {
    let life = |t: f64| clients(10.0 + (t - 100.0).max(0.0) * 2.0 - if t.rem_euclid(4.0) < 2.0 { 3.0 } else { 0.0 });
    let (_, changes) = live(115.0, 1.0, life);
    assert_eq!(said(&changes), []);
}

#[test]
fn clients_closed_by_a_collector_are_told_once() {
    let (_, changes) = live(900.0, 1.0, |t| clients(1.0 + 3.0 * t.rem_euclid(60.0)));
    let opened = said(&changes).into_iter().filter(|(_, _, severity)| severity.is_some()).count();
    assert_eq!(opened, 1, "{changes:?}");
}

#[test]
fn clients_that_go_away_clear_the_alert() {
    let (detectors, changes) =
        live(200.0, 1.0, |t| clients(if t < 150.0 { 1.0 + (t - 100.0).max(0.0) * 3.0 } else { 1.0 }));
    let kinds: Vec<_> = said(&changes).into_iter().map(|(_, _, severity)| severity).collect();
    assert_eq!(kinds, [Some(Severity::Warn), None]);
    assert_eq!(detectors.outlook().state, State::Quiet);
}

#[test]
fn the_leaky_worker_is_told_by_its_clients_and_before_six_tenths_by_its_memory() {
    let life = |t: f64| memory(between(&LEAKY, t) + noise(t));
    check_told("memory alone", AlertKind::MemoryGrowth, 60.0..=80.0, life);
    let both = |t: f64| Reading { statsd_clients: Some(between(&LEAKY_CLIENTS, t) as u64), ..life(t) };
    check_told("with clients", AlertKind::ClientLeak, 8.0..=15.0, both);
}

#[test]
fn the_mended_worker_creeps_and_is_silent() {
    check_silent("70 % in 200 s", 900.0, |t| memory(between(&FIXED, t) + noise(t)));
}

#[test]
fn a_young_process_that_stood_still_and_runs_away_is_a_burst() {
    for (rate, by) in [(8.0, 31.0), (20.0, 24.0), (30.0, 21.0)] {
        let life = |t: f64| memory(14.0 + noise(t) + (t - 15.0).max(0.0) * rate);
        check_told("from 15 s of age", AlertKind::MemoryGrowth, 15.0..=by, life);
    }
}

#[test]
fn start_up_ramps_are_silent() {
    for tau in [5.0, 20.0, 60.0, 135.0, 600.0] {
        check_silent("warm-up", 1_800.0, |t| memory(8.0 + 180.0 * (1.0 - (-t / tau).exp()) + noise(t)));
    }
    for seconds in [2.0, 10.0, 20.0] {
        check_silent("data loaded at start", 900.0, |t| memory(8.0 + 170.0 * (t / seconds).min(1.0) + noise(t)));
    }
}

#[test]
fn data_loaded_for_most_of_a_minute_is_a_notice_at_most() {
    for seconds in [30.0, 40.0, 48.0] {
        let (_, changes) = live(900.0, 1.0, |t| memory(8.0 + 180.0 * (t / seconds).min(1.0) + noise(t)));
        assert!(said(&changes).iter().all(|(_, _, severity)| *severity <= Some(Severity::Notice)), "{changes:?}");
    }
}

#[test]
fn sawtooth_of_a_garbage_collector_is_flat() {
    for period in [5.0, 20.0, 90.0, 300.0] {
        check_silent("sawtooth", 1_800.0, |t| memory(40.0 + 100.0 * t.rem_euclid(period) / period));
    }
}

#[test]
fn step_is_no_leak() {
    check_silent("one step", 900.0, |t| memory(if t < 300.0 { 50.0 } else { 120.0 } + noise(t)));
    let steps = |t: f64| memory(50.0 + 30.0 * (t / 400.0).floor() + noise(t));
    check_silent("three steps", 1_500.0, steps);
}

#[test]
fn a_minute_from_the_limit_a_warning_turns_critical() {
    let (detectors, changes) = live(390.0, 1.0, |t| memory(40.0 + noise(t) + (t - 200.0).max(0.0)));
    let words: Vec<_> = said(&changes).into_iter().filter_map(|(_, _, severity)| severity).collect();
    assert_eq!(words.last(), Some(&Severity::Crit), "{words:?}");
    let outlook = detectors.outlook();
    assert_eq!(outlook.state, State::Crit);
    let slope = outlook.slope_bytes_per_second.expect("it grows");
    assert!((slope / MIB - 1.0).abs() < 0.1, "{slope}");
    let left = outlook.time_to_limit.expect("it grows").as_secs_f64();
    assert!((20.0..32.0).contains(&left), "{left}");
}

#[test]
fn memory_that_falls_or_stands_still_ends_the_alert() {
    let up = |t: f64| 40.0 + noise(t) + (t - 200.0).max(0.0);
    for (name, after, by) in [("fell", 60.0, 331.0), ("stood still", 170.0, 1_060.0)] {
        let (detectors, changes) = live(1_200.0, 1.0, |t| memory(if t < 330.0 { up(t) } else { after + noise(t) }));
        let end = said(&changes).into_iter().find(|(_, _, severity)| severity.is_none());
        assert!(end.is_some_and(|(at, _, _)| at <= by), "{name}: {changes:?}");
        assert_eq!(detectors.outlook(), super::Outlook { state: State::Quiet, ..super::Outlook::default() }, "{name}");
    }
}

#[test]
fn growth_up_to_what_is_expected_is_a_notice() {
    let mut detectors = Detectors::new(Settings { expected: Some(180 << 20), ..Settings::default() });
    let changes = go_on(&mut detectors, 0.0, 400.0, 1.0, |t| memory(40.0 + noise(t) + (t - 200.0).max(0.0)));
    let words = said(&changes);
    assert_eq!(words[0].2, Some(Severity::Notice), "{words:?}");
    let alarm = words.iter().find(|(_, _, severity)| *severity >= Some(Severity::Warn)).expect("it went beyond");
    assert!((340.0..350.0).contains(&alarm.0), "{words:?}");
}

#[test]
fn a_heap_of_fixed_size_under_its_limit_is_a_notice() {
    let (_, changes) = live(3_000.0, 1.0, |t| memory(243.0 * (1.0 - (-t / 60.0).exp()) + noise(t)));
    let words: Vec<_> = said(&changes).into_iter().map(|(_, _, severity)| severity).collect();
    assert_eq!(words, [Some(Severity::Notice)]);
}

#[test]
fn a_gap_starts_the_scales_anew() {
    let line = |t: f64| memory(40.0 + noise(t) + 0.5 * t);
    let mut detectors = Detectors::new(Settings::default());
    go_on(&mut detectors, 0.0, 100.0, 1.0, line);
    assert!(detectors.outlook().slope_bytes_per_second.is_some());
    go_on(&mut detectors, 160.0, 164.0, 1.0, line);
    assert_eq!(detectors.outlook().slope_bytes_per_second, None);
}

#[test]
fn another_limit_clears_and_starts_memory_anew() {
    let life = |t: f64| memory(40.0 + noise(t) + (t - 200.0).max(0.0));
    let (mut detectors, changes) = live(360.0, 1.0, life);
    assert!(said(&changes).iter().any(|(_, _, severity)| *severity >= Some(Severity::Warn)));
    let resized = Reading { at: Duration::from_secs(360), limit_bytes: Some(4 * LIMIT), ..life(360.0) };
    let words = said(&detectors.observe(&resized));
    assert_eq!(words, [(360.0, AlertKind::MemoryGrowth, None)]);
    assert_eq!(detectors.outlook().state, State::Quiet);
    let unread = Reading { at: Duration::from_secs(361), limit_bytes: None, ..resized };
    assert_eq!(detectors.observe(&unread), [], "a limit that could not be read is no other limit");
}

#[test]
fn another_process_clears_everything_and_is_learnt_anew() {
    let life = |t: f64| Reading {
        statsd_clients: Some((t - 100.0).max(0.0) as u64 * 3),
        ..memory(30.0 + (t - 100.0).max(0.0))
    };
    let (mut detectors, _) = live(300.0, 1.0, life);
    assert!(detectors.outlook().state >= State::Warn);
    let reading = Reading { at: Duration::from_secs(300), incarnation: 2, ..memory(10.0) };
    let cleared = detectors.observe(&reading);
    assert_eq!(said(&cleared), [(300.0, AlertKind::MemoryGrowth, None), (300.0, AlertKind::ClientLeak, None)]);
    assert_eq!(detectors.outlook().state, State::Learning);
}

#[test]
fn without_a_limit_memory_is_silent_and_the_counts_speak() {
    let life = |t: f64| Reading { limit_bytes: None, ..memory(20.0 + t) };
    check_silent("no limit", 900.0, life);
    let leak = |t: f64| Reading { statsd_clients: Some((t * 3.0) as u64), ..life(t) };
    check_told("no limit", AlertKind::ClientLeak, 5.0..=15.0, leak);
}

#[test]
fn counts_that_pile_up_are_told() {
    let goroutines = |t: f64| Reading { goroutines: Some(20 + (t * 10.0) as u64), ..memory(20.0) };
    check_told("goroutines", AlertKind::GoroutineLeak, 100.0..=180.0, goroutines);
    let threads = |t: f64| Reading { threads: Some(20 + (t / 2.0) as u64), ..memory(20.0) };
    check_told("threads", AlertKind::ThreadLeak, 560.0..=1_000.0, threads);
    let fds = |t: f64| Reading { fds: Some(20 + (t / 4.0) as u64), fd_limit: Some(1_024), ..memory(20.0) };
    check_told("fds", AlertKind::FdLeak, 900.0..=2_900.0, fds);
    let many = |t: f64| Reading { fds: Some(200 + (t * 5.0) as u64), fd_limit: Some(1 << 20), ..memory(20.0) };
    check_told("fds under a limit out of reach", AlertKind::FdLeak, 150.0..=200.0, many);
}

#[test]
fn pools_and_loads_are_no_leaks_of_counts() {
    let pool = |t: f64| Reading { threads: Some(10 + (t / 5.0).min(240.0) as u64), ..memory(20.0) };
    check_silent("thread pool", 3_000.0, pool);
    let load = |t: f64| Reading { goroutines: Some((3_000.0 + 2_000.0 * (t / 40.0).sin()) as u64), ..memory(20.0) };
    check_silent("goroutines by load", 3_000.0, load);
    let fds =
        |t: f64| Reading { fds: Some(300 + (t / 30.0).min(100.0) as u64), fd_limit: Some(65_536), ..memory(20.0) };
    check_silent("descriptors", 6_000.0, fds);
}

#[test]
fn a_process_known_to_be_old_is_not_waited_for() {
    let old = |t: f64| Reading { age: Some(Duration::from_secs_f64(7_200.0 + t)), ..clients(5.0 + t.floor()) };
    check_told("old", AlertKind::ClientLeak, 10.0..=14.0, old);
    let (detectors, _) = live(5.0, 1.0, old);
    assert_eq!(detectors.outlook().state, State::Quiet);
    let (detectors, _) = live(5.0, 1.0, |_| clients(5.0));
    assert_eq!(detectors.outlook().state, State::Learning);
}

#[test]
fn each_signal_has_a_fixed_size() {
    const KIB: usize = 1_024;
    assert!(size_of::<Growth>() <= 8 * KIB, "{}", size_of::<Growth>());
    assert!(size_of::<Clients>() <= 4 * KIB, "{}", size_of::<Clients>());
    assert!(size_of::<Count>() + 3 * size_of::<Scale>() <= 4 * KIB, "{}", size_of::<Scale>());
    assert!(size_of::<Detectors>() <= 16 * KIB, "{}", size_of::<Detectors>());
}

fn check_figures(alert: &Alert) {
    assert!(alert.per_second.is_finite() && alert.per_second >= 0.0, "{alert:?}");
    assert!(!alert.evidence.contains("NaN") && !alert.evidence.contains("inf"), "{alert:?}");
}

fn any_reading() -> impl Strategy<Value = Reading> {
    let count = || prop::option::of(prop_oneof![0..2_000_u64, any::<u64>()]);
    let size = || prop::option::of(prop_oneof![0..(1_u64 << 30), any::<u64>()]);
    let limit = || prop::option::of(prop_oneof![Just(1 << 30), Just(0), any::<u64>()]);
    (0..4_000_u64, 0..20_u64, size(), limit(), count(), count(), count(), count()).prop_map(
        |(pause, incarnation, memory_bytes, limit_bytes, threads, fds, statsd_clients, goroutines)| Reading {
            at: Duration::from_millis(pause),
            incarnation: u64::from(incarnation == 0),
            memory_bytes,
            limit_bytes,
            threads,
            fds,
            fd_limit: limit_bytes,
            statsd_clients,
            goroutines,
            ..Reading::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_series_makes_it_panic_or_tell_what_is_no_number(mut readings in prop::collection::vec(any_reading(), 1..400)) {
        let mut detectors = Detectors::new(Settings::default());
        let mut at = Duration::ZERO;
        for reading in &mut readings {
            at += reading.at;
            reading.at = at;
            for change in detectors.observe(reading) {
                if let Change::Opened(alert) | Change::Escalated(alert) = change {
                    check_figures(&alert);
                }
            }
            let slope = detectors.outlook().slope_bytes_per_second;
            prop_assert!(slope.is_none_or(|slope| slope.is_finite() && slope > 0.0));
        }
    }

    #[test]
    fn each_alert_is_opened_once_before_it_is_escalated_or_cleared(
        steps in prop::collection::vec((-30.0..40.0_f64, 1..90_u32), 1..40)
    ) {
        let mut detectors = Detectors::new(Settings::default());
        let (mut t, mut level, mut stands) = (0.0, 40.0, false);
        for (slope, seconds) in steps {
            for _ in 0..seconds {
                t += 1.0;
                level = (level + slope / 20.0 + noise(t)).clamp(1.0, 255.0);
                let reading = Reading { at: Duration::from_secs_f64(t), ..memory(level) };
                for change in detectors.observe(&reading) {
                    prop_assert_eq!(stands, !matches!(change, Change::Opened(_)));
                    stands = !matches!(change, Change::Cleared { .. });
                }
            }
        }
    }
}
