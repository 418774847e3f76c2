//! Readings that are missing, come late, or go back: no alarm from the disturbance alone, and a leak is told in spite of it.
//! What a reading's time is counted from never jumps, because it is monotonic; the wall clock is no business of the rules.

use super::*;

/// Sixty MiB, and from 300 s on one more each two seconds: full at 692 s.
fn leak(t: f64) -> Reading {
    memory(60.0 + noise(t) + (t - 300.0).max(0.0) / 2.0)
}

/// The first alarm of a life whose readings are those that `passes` lets through.
fn told(life: impl Fn(f64) -> Reading, passes: impl Fn(f64) -> bool) -> Option<f64> {
    let mut detectors = Detectors::new(Settings::default());
    let times = (0..690).map(f64::from).filter(|t| passes(*t));
    let mut changes = times
        .flat_map(|t| detectors.observe(&Reading { at: Duration::from_secs_f64(t), ..life(t) }))
        .collect::<Vec<_>>();
    changes.retain(|change| !matches!(change, Change::Cleared { .. }));
    said(&changes).into_iter().find(|(_, _, severity)| *severity >= Some(Severity::Warn)).map(|(at, ..)| at)
}

#[test]
fn a_leak_is_told_in_spite_of_gaps() {
    let whole = told(leak, |_| true).expect("told without a gap");
    for (name, passes) in [
        ("each tenth reading", (|t| t % 10.0 == 0.0) as fn(f64) -> bool),
        ("half a minute of every two", |t| t % 120.0 > 30.0),
        ("two seconds of every seven", |t| t % 7.0 > 1.5),
        ("the first minute of the leak", |t| !(300.0..360.0).contains(&t)),
    ] {
        let at = told(leak, passes).unwrap_or_else(|| panic!("{name}: not told"));
        println!("{name}: {at} s, without a gap {whole} s");
        assert!((300.0..690.0).contains(&at), "{name}: {at}");
    }
}

#[test]
fn a_leak_is_told_in_spite_of_a_limit_that_comes_and_goes() {
    let unread = |t: f64| Reading { limit_bytes: Some(LIMIT).filter(|_| t % 60.0 > 5.0), ..leak(t) };
    assert!(told(unread, |_| true).is_some_and(|at| (300.0..650.0).contains(&at)));
    // The cgroup cannot be read for some seconds, and what is left is the machine's memory.
    let machine = |t: f64| if (420.0..424.0).contains(&t) { 16 << 30 } else { LIMIT };
    let fallen_back = |t: f64| Reading { limit_bytes: Some(machine(t)), ..leak(t) };
    assert!(told(fallen_back, |_| true).is_some_and(|at| (300.0..650.0).contains(&at)));
}

#[test]
fn a_limit_that_comes_and_goes_over_steady_memory_is_silent() {
    check_silent("unread", 900.0, |t| Reading {
        limit_bytes: Some(LIMIT).filter(|_| t % 60.0 > 5.0),
        ..memory(170.0 + noise(t))
    });
    let machine = |t: f64| if t % 60.0 > 5.0 { LIMIT } else { 16 << 30 };
    check_silent("the machine's", 900.0, |t| Reading { limit_bytes: Some(machine(t)), ..memory(170.0 + noise(t)) });
    let lowered = |t: f64| if t > 400.0 { LIMIT * 5 / 8 } else { LIMIT };
    check_silent("lowered", 900.0, |t| Reading { limit_bytes: Some(lowered(t)), ..memory(130.0 + noise(t) / 10.0) });
}

#[test]
fn memory_that_is_read_now_and_then_is_no_growth() {
    check_silent("gaps", 900.0, |t| Reading {
        memory_bytes: memory(120.0 + noise(t)).memory_bytes.filter(|_| t % 9.0 > 4.0),
        ..memory(0.0)
    });
}

#[test]
fn counts_that_go_back_or_come_back_are_no_leak() {
    // A count that fails now and then for one transport, or one of the tables.
    let part = |whole: u64| move |t: f64| if t % 30.0 < 3.0 { whole / 10 } else { whole };
    let (clients_of, fds_of, threads_of) = (part(40), part(400), part(300));
    check_silent("clients", 900.0, |t| clients(clients_of(t) as f64));
    check_silent("descriptors", 900.0, |t| Reading { fds: Some(fds_of(t)), fd_limit: Some(1_024), ..memory(20.0) });
    check_silent("threads", 900.0, |t| Reading { threads: Some(threads_of(t)), ..memory(20.0) });
    check_silent("a wrap to nothing and back", 900.0, |t| Reading {
        goroutines: Some(if t % 200.0 < 1.0 { 0 } else { 5_000 }),
        ..memory(20.0)
    });
}
