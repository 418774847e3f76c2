//! Lives whose growth has another reading than a leak, and leaks beside them that must be told all the same.

use std::time::Duration;

use proptest::prelude::*;

use super::{Alert, AlertKind, Change, Detector, Detectors, Reading, Settings, Severity};

const MIB: f64 = 1_048_576.0;
const LIMIT: f64 = 1_024.0;
const HOUR: f64 = 3_600.0;

/// MiB of 1 GiB at a time, with what is known beside it.
struct Look {
    mib: f64,
    heap: Option<f64>,
    load: Option<f64>,
}

fn noise(t: f64) -> f64 {
    1.5 * (t * 12.9898).sin()
}

/// The alerts of memory in a life, read every five seconds and told to these detectors.
fn live(detectors: &mut Detectors, life: u64, from: f64, seconds: f64, look: impl Fn(f64) -> Look) -> Vec<Alert> {
    let times = (0..(seconds / 5.0) as u32).map(|i| f64::from(i) * 5.0);
    let changes = times.flat_map(|t| {
        let Look { mib, heap, load } = look(t);
        detectors.observe(&Reading {
            at: Duration::from_secs_f64(from + t),
            incarnation: life,
            memory_bytes: Some((mib * MIB) as u64),
            limit_bytes: Some((LIMIT * MIB) as u64),
            live_heap_bytes: heap.map(|mib| (mib * MIB) as u64),
            load,
            ..Reading::default()
        })
    });
    let alerts = changes.filter_map(|change| match change {
        Change::Opened(alert) | Change::Escalated(alert) => Some(alert),
        Change::Cleared { .. } => None,
    });
    alerts.filter(|alert| alert.kind == AlertKind::MemoryGrowth).collect()
}

fn first_alarm(alerts: &[Alert]) -> Option<f64> {
    alerts.iter().find(|alert| alert.severity >= Severity::Warn).map(|alert| alert.at.as_secs_f64())
}

fn told(seconds: f64, look: impl Fn(f64) -> Look) -> Vec<Alert> {
    live(&mut Detectors::new(Settings::default()), 1, 0.0, seconds, look)
}

/// A profile every five minutes, told until the next: what is sampled is never twice the same.
fn pulled(t: f64, heap: impl Fn(f64) -> f64) -> Option<f64> {
    let at = (t / 300.0).floor() * 300.0;
    (t >= 60.0).then(|| heap(at) + 0.2 * (at * 7.1).sin())
}

/// 200 MiB for an hour, then 2.4 MiB a minute.
fn climb(t: f64) -> f64 {
    200.0 + noise(t) + (t - HOUR).max(0.0) * 0.04
}

#[test]
fn memory_that_grows_without_the_live_heap_is_a_notice_until_it_is_near() {
    let still = told(6.6 * HOUR, |t| Look { mib: climb(t), heap: pulled(t, |_| 120.0), load: None });
    let alarm = first_alarm(&still).expect("near the limit it is told whatever the heap says");
    assert!((0.84..0.88).contains(&(climb(alarm) / LIMIT)), "{} MiB, {still:?}", climb(alarm));
    let held = still.iter().filter(|alert| alert.evidence.contains("live heap did not")).count();
    assert_eq!(held, 1, "{still:?}");

    let alone = told(5.0 * HOUR, |t| Look { mib: climb(t), heap: None, load: None });
    let grows =
        told(5.0 * HOUR, |t| Look { mib: climb(t), heap: pulled(t, |at| 120.0 + climb(at) - 200.0), load: None });
    assert_eq!(first_alarm(&grows), first_alarm(&alone), "a live heap that grows, too, changes nothing");
    assert!(first_alarm(&alone).is_some_and(|at| at < alarm - 0.3 * HOUR), "{alone:?}");
}

#[test]
fn a_single_profile_is_no_live_heap_that_stands_still() {
    let once = told(5.0 * HOUR, |t| Look { mib: climb(t), heap: (t >= 60.0).then_some(120.0), load: None });
    let alone = told(5.0 * HOUR, |t| Look { mib: climb(t), heap: None, load: None });
    assert_eq!(first_alarm(&once), first_alarm(&alone));
}

/// The pulls end after two hours: from then on the figure is not known, and nothing is held back for it.
#[test]
fn a_live_heap_that_is_not_looked_at_any_more_excuses_nothing() {
    let look =
        |until: f64| move |t: f64| Look { mib: climb(t), heap: pulled(t, |_| 120.0).filter(|_| t < until), load: None };
    let (kept, ended) = (told(5.0 * HOUR, look(f64::MAX)), told(5.0 * HOUR, look(2.0 * HOUR)));
    assert_eq!(first_alarm(&kept), None, "{kept:?}");
    let alarm = first_alarm(&ended).expect("without the figure it is a leak like any other");
    assert!(climb(alarm) < 0.8 * LIMIT, "{} MiB", climb(alarm));
}

/// Stacks of goroutines are not on the live heap.
#[test]
fn a_live_heap_excuses_nothing_while_goroutines_pile_up() {
    let look = |t: f64| Reading {
        at: Duration::from_secs_f64(t),
        incarnation: 1,
        memory_bytes: Some((climb(t) * MIB) as u64),
        limit_bytes: Some((LIMIT * MIB) as u64),
        live_heap_bytes: pulled(t, |_| 120.0).map(|mib| (mib * MIB) as u64),
        goroutines: Some(1_000 + (t - HOUR).max(0.0) as u64),
        ..Reading::default()
    };
    let mut detectors = Detectors::new(Settings::default());
    let changes = (0..6_600_u32).flat_map(|i| detectors.observe(&look(f64::from(i) * 3.0)));
    let warned = changes.into_iter().find_map(|change| match change {
        Change::Opened(it) | Change::Escalated(it) => {
            (it.kind == AlertKind::MemoryGrowth && it.severity >= Severity::Warn).then_some(it.at.as_secs_f64())
        }
        Change::Cleared { .. } => None,
    });
    assert!(warned.is_some_and(|at| climb(at) < 0.83 * LIMIT), "{warned:?}");
}

/// The load doubles and doubles again over four hours, and memory goes with it.
fn busier(t: f64) -> f64 {
    100.0 * (1.0 + 3.0 * ((t - HOUR) / (4.0 * HOUR)).clamp(0.0, 1.0)) + 4.0 * (t * 3.7).sin()
}

#[test]
fn more_work_and_as_much_more_memory_is_a_notice() {
    let with_load = |t: f64| Look { mib: 20.0 + 1.9 * busier(t), heap: None, load: Some(busier(t)) };
    let alerts = told(8.0 * HOUR, with_load);
    assert_eq!(first_alarm(&alerts), None, "{alerts:?}");
    let without = told(8.0 * HOUR, |t| Look { load: None, ..with_load(t) });
    assert!(first_alarm(&without).is_some(), "without the load it looks like a leak: {without:?}");
}

#[test]
fn the_same_load_and_more_memory_warns_as_if_there_were_no_load() {
    let alone = told(5.0 * HOUR, |t| Look { mib: climb(t), heap: None, load: None });
    let steady = told(5.0 * HOUR, |t| Look { mib: climb(t), heap: None, load: Some(80.0 + 6.0 * (t * 0.9).sin()) });
    assert!(first_alarm(&alone).is_some());
    assert_eq!(first_alarm(&steady), first_alarm(&alone));
}

#[test]
fn a_leak_that_makes_its_own_load_is_held_back_no_further_than_near_the_limit() {
    let look = |t: f64| Look { mib: climb(t), heap: Some(100.0), load: Some(climb(t)) };
    let alarm = first_alarm(&told(7.0 * HOUR, look)).expect("it is told");
    assert!((0.84..0.88).contains(&(climb(alarm) / LIMIT)), "{} MiB", climb(alarm));
}

/// 15 MiB a minute: a quarter of an hour before the end it stands at 78 %.
#[test]
fn with_a_quarter_of_an_hour_to_go_nothing_beside_memory_counts() {
    let mib = |t: f64| 200.0 + noise(t) + (t - HOUR).max(0.0) * 0.25;
    let look = |t: f64| Look { mib: mib(t), heap: None, load: Some(mib(t)) };
    let alarm = first_alarm(&told(1.9 * HOUR, look)).expect("it is told");
    let left = (LIMIT - mib(alarm)) / 0.25;
    assert!((700.0..910.0).contains(&left), "{left} s left");
}

/// A start that loads 600 MiB in eight minutes, and a life of three hours.
fn loads(t: f64) -> f64 {
    60.0 + 700.0 * (t / 480.0).min(1.0) + noise(t)
}

fn plain(mib: f64) -> Look {
    Look { mib, heap: None, load: None }
}

#[test]
fn what_earlier_lives_held_is_known_ground() {
    let mut detectors = Detectors::new(Settings::default());
    let first = live(&mut detectors, 1, 0.0, 3.0 * HOUR, |t| plain(loads(t)));
    assert!(first_alarm(&first).is_some(), "the first time it looks like a leak: {first:?}");
    let second = live(&mut detectors, 2, 3.0 * HOUR, 3.0 * HOUR, |t| plain(loads(t) + 40.0 * (t / 480.0).min(1.0)));
    assert_eq!(first_alarm(&second), None, "{second:?}");
    assert!(second.iter().any(|alert| alert.evidence.contains("known ground: earlier runs of the app held 7")));
    let leak = |t: f64| plain(loads(t) + (t - HOUR).max(0.0) * 0.05);
    let third = live(&mut detectors, 3, 6.0 * HOUR, 2.0 * HOUR, leak);
    let alarm = first_alarm(&third).expect("beyond it a leak is a leak") - 6.0 * HOUR;
    assert!(alarm > HOUR && leak(alarm).mib < 0.93 * LIMIT, "{third:?}");
}

#[test]
fn a_burst_on_known_ground_is_critical() {
    let mut detectors = Detectors::new(Settings::default());
    live(&mut detectors, 1, 0.0, 3.0 * HOUR, |t| plain(loads(t)));
    let look = |t: f64| Reading {
        at: Duration::from_secs_f64(3.0 * HOUR + t),
        incarnation: 2,
        memory_bytes: Some(((60.0 + 40.0 * (t - 120.0).max(0.0)) * MIB) as u64),
        limit_bytes: Some((LIMIT * MIB) as u64),
        ..Reading::default()
    };
    let changes: Vec<_> = (0..140).flat_map(|t| detectors.observe(&look(f64::from(t)))).collect();
    let burst = changes
        .iter()
        .any(|change| matches!(change, Change::Opened(it) | Change::Escalated(it) if it.severity == Severity::Crit));
    assert!(burst, "{changes:?}");
}

#[test]
fn a_life_that_was_killed_teaches_nothing() {
    let mut detectors = Detectors::new(Settings::default());
    let first = live(&mut detectors, 1, 0.0, 3.0 * HOUR, |t| plain(loads(t)));
    detectors.killed();
    let second = live(&mut detectors, 2, 3.0 * HOUR, HOUR, |t| plain(loads(t)));
    let again = |alerts: &[Alert], from: f64| first_alarm(alerts).map(|at| at - from);
    assert_eq!(again(&second, 3.0 * HOUR), again(&first, 0.0));
}

#[test]
fn another_app_is_on_ground_of_its_own() {
    let mut detectors = Detectors::new(Settings::default());
    detectors.watching("worker 1.0");
    live(&mut detectors, 1, 0.0, 3.0 * HOUR, |t| plain(loads(t)));
    detectors.watching("worker 1.1");
    let other = live(&mut detectors, 2, 3.0 * HOUR, HOUR, |t| plain(loads(t)));
    assert!(first_alarm(&other).is_some());
    detectors.watching("worker 1.0");
    let back = live(&mut detectors, 3, 4.0 * HOUR, HOUR, |t| plain(loads(t)));
    assert_eq!(first_alarm(&back), None, "{back:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn whatever_excuses_it_a_leak_is_told_before_the_end(
        pace in 0.02..0.4_f64, heap in 20.0..300.0_f64, per_load in 0.2..5.0_f64
    ) {
        let mib = |t: f64| 200.0 + noise(t) + (t - HOUR).max(0.0) * pace;
        let kill = HOUR + (LIMIT - 200.0) / pace;
        let look = |t: f64| Look { mib: mib(t), heap: pulled(t, |_| heap), load: Some(mib(t) / per_load) };
        let at = first_alarm(&told(kill - 5.0, look));
        prop_assert!(at.is_some_and(|at| at <= kill - 60.0), "told at {at:?}, dead at {kill}");
    }
}
