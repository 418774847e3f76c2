//! What is told after the alarm and before the end: why nobody is named, another name, a surer one, a limit that comes nearer.

use super::*;

/// A naming that says of itself what it is.
fn says(function: &str, confidence: Confidence) -> Naming {
    let culprit = Culprit { function: function.into(), made_by: "main.job".into(), share: 0.4, ..Culprit::default() };
    let culprits = if confidence == Confidence::Unknown { Vec::new() } else { vec![culprit] };
    Naming { confidence, culprits, sentence: format!("{confidence:?} of {function}"), ..naming() }
}

fn warned() -> Ledger {
    let mut ledger = ledger();
    assert_eq!(ledger.alert(&opened(Severity::Warn), 100.0).len(), 1);
    ledger
}

#[test]
fn why_nobody_is_named_is_told_once_when_the_round_is_over() {
    let unknown = || says("nobody: outside the Go heap", Confidence::Unknown);
    let mut told = warned();
    assert!(told.look(101.0, true).is_empty(), "nothing is known yet");
    assert!(told.name(unknown(), 102.0).is_empty());
    assert!(told.look(103.0, false).is_empty(), "the round goes on");
    let events = told.look(104.0, true);
    assert_eq!(events.len(), 1);
    assert!(events[0].text.contains("nobody: outside the Go heap"), "{}", events[0].text);
    told.name(says("low", Confidence::Low), 164.0);
    told.pull_failed("connection refused".into());
    assert!((165..400).all(|now| told.look(f64::from(now), true).is_empty()), "once");
    let named = told.name(naming(), 400.0);
    assert_eq!(
        (named.len(), told.open.as_ref().map(|it| it.state)),
        (1, Some(State::Named)),
        "a name is told all the same"
    );

    let mut silent = warned();
    silent.pull_failed("404 at /debug/pprof/heap".into());
    let events = silent.look(101.0, true);
    assert!(events.len() == 1 && events[0].text.contains("404 at"), "{events:?}");

    // The first event may carry the reason already.
    let mut noticed = ledger();
    noticed.alert(&opened(Severity::Notice), 1.0);
    noticed.name(unknown(), 2.0);
    assert!(noticed.look(3.0, true).is_empty(), "a notice owes nothing");
    noticed.alert(&Change::Escalated(alert(AlertKind::MemoryGrowth, Severity::Warn)), 4.0);
    assert!(noticed.look(5.0, true).is_empty());
}

#[test]
fn another_culprit_and_a_surer_name_are_told_once_each() {
    let mut ledger = warned();
    let mut tell = |function, confidence| ledger.name(says(function, confidence), 110.0).len();
    assert_eq!(tell("main.low", Confidence::Low), 0, "three are listed, nobody is accused");
    assert_eq!(tell("main.a", Confidence::Medium), 1);
    assert_eq!(tell("main.a", Confidence::Medium), 0);
    assert_eq!(tell("main.a", Confidence::High), 1, "surer");
    assert_eq!(tell("main.b", Confidence::Medium), 0, "what is sure stands");
    assert_eq!(tell("main.b", Confidence::High), 1, "another");
    assert_eq!(tell("main.a", Confidence::High), 0, "nothing flaps");
    assert_eq!(tell("main.c", Confidence::High), 0);

    let mut ledger = warned();
    assert_eq!(ledger.name(says("main.a", Confidence::Medium), 110.0).len(), 1);
    assert_eq!(ledger.name(says("main.a", Confidence::High), 120.0).len(), 1);
    assert_eq!(ledger.name(says("main.a", Confidence::Medium), 130.0).len(), 0);
    assert_eq!(ledger.alert(&Change::Escalated(alert(AlertKind::MemoryGrowth, Severity::Crit)), 140.0).len(), 1);
    assert_eq!(ledger.name(says("main.a", Confidence::High), 150.0).len(), 0, "surer is told once");
}

#[test]
fn a_limit_that_comes_nearer_is_told_a_few_times() {
    let mut ledger = warned();
    ledger.figures.time_to_limit = Some(Duration::from_secs(3_000));
    ledger.name(naming(), 110.0);
    let mut events = Vec::new();
    for second in 0..3_000_u32 {
        let left = Duration::from_secs(u64::from(3_000 - second));
        ledger.figures.time_to_limit = Some(left);
        events.extend(ledger.look(110.0 + f64::from(second), true));
    }
    assert_eq!(events.len(), 3, "at 25 min, at 12 and at 6");
    assert!(
        events[0].text.contains("- worse: when last told, at 00:01 UTC, the limit was 50 min away"),
        "{}",
        events[0].text
    );
    assert!(events.iter().all(|event| event.aggregation_key == events[0].aggregation_key));

    let mut wavers = warned();
    wavers.name(naming(), 110.0);
    for second in 0..1_000_u32 {
        let left = if second % 10 < 7 { 100 } else { 800 };
        wavers.figures.time_to_limit = Some(Duration::from_secs(left));
        assert!(wavers.look(110.0 + f64::from(second), true).is_empty(), "a projection that wavers is no news");
    }
}

#[test]
fn an_event_holds_the_counts_against_those_of_the_healthy_app() {
    let mut ledger = ledger();
    let seen = |clients, memory_mib: u64, healthy| Figures {
        memory_bytes: memory_mib << 20,
        limit_bytes: Some(256 << 20),
        slope_bytes_per_second: Some(1e6),
        statsd_clients: Some(clients),
        threads: Some(9),
        healthy,
        ..Figures::default()
    };
    ledger.appeared(0.0);
    ledger.see(seen(1, 10, true), 0.0);
    ledger.see(seen(2, 28, true), 60.0);
    ledger.see(seen(312, 200, false), 600.0);
    let events = ledger.alert(&opened(Severity::Warn), 600.0);
    let lines = [
        "- grew since it was well, 9 min ago: StatsD clients 2 → 312; did not grow: threads (9)\n",
        "- a restart now buys about 3 min at this rate, from 28 MiB up to the limit\n",
    ];
    assert!(lines.iter().all(|line| events[0].text.contains(line)), "{}", events[0].text);
}
