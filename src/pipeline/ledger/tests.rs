//! The book of incidents: which events a story owes.

use std::time::Duration;

use super::*;
use crate::detect::AlertKind;
use crate::pprof::{Confidence, Culprit};
use crate::statsd::AlertType;

mod follow_ups;

fn alert(kind: AlertKind, severity: Severity) -> Alert {
    Alert {
        kind,
        severity,
        rule: "trend_10s",
        at: Duration::ZERO,
        per_second: 1e6,
        time_to_limit: Some(Duration::from_secs(840)),
        evidence: "rose 41 MiB in 48 s".into(),
    }
}

fn opened(severity: Severity) -> Change {
    Change::Opened(alert(AlertKind::MemoryGrowth, severity))
}

fn naming() -> Naming {
    Naming {
        class: crate::pprof::Class::HeapLeak,
        confidence: Confidence::High,
        sentence: "statsd.newStatsdBuffer grew 148 MiB, made in main.handleJob".into(),
        culprits: vec![Culprit {
            function: "statsd.newStatsdBuffer".into(),
            made_by: "main.handleJob".into(),
            share: 0.92,
            ..Culprit::default()
        }],
        evidence: Vec::new(),
        remedy: None,
    }
}

fn ledger() -> Ledger {
    let mut ledger = Ledger::new(Identity { service: "worker".into(), ..Identity::default() }, Past::default());
    ledger.app = "worker".into();
    ledger.figures = Figures {
        memory_bytes: 200 << 20,
        limit_bytes: Some(256 << 20),
        statsd_clients: Some(312),
        time_to_limit: Some(Duration::from_secs(840)),
        ..Figures::default()
    };
    ledger
}

#[test]
fn the_whole_story_is_told_in_four_events_with_one_key() {
    let mut ledger = ledger();
    let mut events = ledger.alert(&opened(Severity::Warn), 100.0);
    events.extend(ledger.name(naming(), 110.0));
    events.extend(ledger.alert(&Change::Escalated(alert(AlertKind::MemoryGrowth, Severity::Crit)), 120.0));
    events.extend(ledger.vanished(Gone::OomKilled, 130.0));
    assert_eq!(events.len(), 4);
    assert!(events.iter().all(|event| event.aggregation_key == events[0].aggregation_key));
    assert_eq!(events[1].title, "worker leaks in statsd.newStatsdBuffer: limit in 14 min");
    assert!(events[1].text.contains("312 StatsD clients"), "{}", events[1].text);
    assert_eq!(events[1].alert_type, AlertType::Warning);
    assert_eq!(events[3].alert_type, AlertType::Error);
    assert!(events[3].tags.iter().any(|tag| tag == "oomwatch_culprit:main.handleJob"));
    assert!(ledger.open.is_none());
    assert_eq!(ledger.closed[0].state, State::Killed);
}

#[test]
fn a_notice_owes_nothing_until_it_turns_worse_or_kills() {
    let mut ledger = ledger();
    assert!(ledger.alert(&opened(Severity::Notice), 1.0).is_empty());
    assert!(ledger.name(naming(), 2.0).is_empty());
    let events = ledger.alert(&Change::Escalated(alert(AlertKind::MemoryGrowth, Severity::Warn)), 3.0);
    assert_eq!(events.len(), 1, "the first event carries the name already");
    assert!(events[0].title.contains("newStatsdBuffer"));

    let mut ledger = crate::pipeline::ledger::tests::ledger();
    ledger.alert(&opened(Severity::Notice), 1.0);
    assert_eq!(ledger.vanished(Gone::OomKilled, 5.0).len(), 1);
}

#[test]
fn a_notice_that_clears_is_never_told() {
    let mut ledger = ledger();
    ledger.alert(&opened(Severity::Notice), 1.0);
    let cleared = Change::Cleared { kind: AlertKind::MemoryGrowth, at: Duration::ZERO };
    assert!(ledger.alert(&cleared, 2.0).is_empty());
    assert_eq!(ledger.closed[0].state, State::Recovered);
}

#[test]
fn a_kill_without_an_alert_is_an_incident_of_its_own() {
    let mut ledger = ledger();
    let events = ledger.vanished(Gone::OomKilled, 5.0);
    assert_eq!(events.len(), 1);
    assert!(events[0].tags.contains(&"oomwatch_kind:oom_kill".to_owned()));
    assert!(ledger.vanished(Gone::Ended, 6.0).is_empty());
}

#[test]
fn an_end_nobody_could_read_is_a_kill_only_at_the_edge_of_the_limit() {
    let mut far = ledger();
    far.alert(&opened(Severity::Warn), 1.0);
    far.vanished(Gone::Unknown, 2.0);
    assert_eq!(far.closed[0].state, State::Recovered);

    let mut near = ledger();
    near.figures.memory_bytes = 250 << 20;
    near.alert(&opened(Severity::Warn), 1.0);
    let events = near.vanished(Gone::Unknown, 2.0);
    assert_eq!(near.closed[0].state, State::Killed);
    assert!(events[0].text.contains("most likely"), "{}", events[0].text);
}

#[test]
fn a_later_round_that_knows_less_does_not_take_the_name_back() {
    let mut ledger = ledger();
    ledger.alert(&opened(Severity::Warn), 1.0);
    ledger.name(naming(), 2.0);
    let unknown = Naming { confidence: Confidence::Unknown, culprits: Vec::new(), ..naming() };
    assert!(ledger.name(unknown, 3.0).is_empty());
    assert!(ledger.open.as_ref().is_some_and(Incident::is_named));
}

#[test]
fn history_is_bounded() {
    let mut ledger = ledger();
    for n in 0..200 {
        ledger.vanished(Gone::OomKilled, 3_600.0 * f64::from(n));
    }
    assert_eq!(ledger.closed.len(), HISTORY);
}

fn figures(ledger: &mut Ledger, mib: u64, now: f64) {
    let figures = Figures { memory_bytes: mib << 20, limit_bytes: Some(256 << 20), ..Figures::default() };
    ledger.see(figures, now);
}

/// One life that leaks, is warned of, and ends at `now` after 90 s.
fn life(ledger: &mut Ledger, now: f64, gone: Gone) -> Vec<Event> {
    ledger.appeared(now - 90.0);
    figures(ledger, 14, now - 90.0);
    let mut events = ledger.alert(&opened(Severity::Warn), now - 30.0);
    figures(ledger, 251, now);
    events.extend(ledger.vanished(gone, now));
    let cleared = Change::Cleared { kind: AlertKind::MemoryGrowth, at: Duration::ZERO };
    events.extend(ledger.alert(&cleared, now + 10.0));
    events
}

#[test]
fn fifty_kills_are_one_incident_told_once() {
    let mut ledger = ledger();
    let mut events: Vec<Vec<Event>> = Vec::new();
    for n in 1..=50_u32 {
        events.push(life(&mut ledger, 1_000.0 + 100.0 * f64::from(n), Gone::OomKilled));
    }
    assert_eq!(events[0].len(), 2, "the first two are stories of their own: opened, killed");
    assert_eq!(events[1].len(), 2);
    assert_eq!(events[2].len(), 2, "opened, and then: it is a crash loop");
    assert_eq!(events[2][1].title, "worker is in a crash loop");
    assert_eq!(events[2][0].aggregation_key, events[2][1].aggregation_key);
    assert!(events[2][1].tags.contains(&"oomwatch_kind:crash_loop".to_owned()));
    assert!(events[3..].iter().all(Vec::is_empty), "{events:?}");
    assert_eq!((ledger.open.iter().count(), ledger.closed.len()), (1, 2));
    let verdict = &ledger.open.as_ref().expect("open").verdict;
    assert!(
        verdict.contains("50 kills or ends near the limit in 81 min; the last lives: 90 s up to 251 MiB"),
        "{verdict}"
    );
    // Nothing that happens within a life ends it or is told: neither an all-clear nor a freeze.
    let cleared = |kind| Change::Cleared { kind, at: Duration::ZERO };
    for kind in [AlertKind::MemoryGrowth, AlertKind::Freeze] {
        assert!(ledger.alert(&Change::Opened(alert(kind, Severity::Crit)), 6_001.0).is_empty());
        assert!(ledger.alert(&cleared(kind), 6_002.0).is_empty());
        assert!(ledger.open.as_ref().is_some_and(|it| it.kind == IncidentKind::CrashLoop));
    }
    // One follow-up, when the leak gets its name; and the end.
    assert_eq!(ledger.name(naming(), 6_010.0).len(), 1);
    assert!(life(&mut ledger, 6_100.0, Gone::OomKilled).is_empty());
    assert!(ledger.name(naming(), 6_110.0).is_empty());
    ledger.appeared(6_200.0);
    assert!(ledger.look(6_799.0, true).is_empty());
    let over = ledger.look(6_800.0, true);
    assert_eq!((over.len(), over[0].alert_type), (1, AlertType::Success));
    assert!(over[0].text.contains("stayed up for 10 min"), "{}", over[0].text);
    assert_eq!(ledger.closed[0].state, State::Recovered);
    assert_eq!(ledger.vanished(Gone::OomKilled, 6_900.0).len(), 1, "a kill after that is a story of its own");
    assert_eq!(ledger.closed[0].state, State::Killed);
}

#[test]
fn kills_that_nothing_came_before_fold_as_well_and_so_do_killed_children() {
    let mut ledger = ledger();
    ledger.appeared(0.0);
    let events: usize = (0..50).map(|n| ledger.child_killed(100.0 + f64::from(n)).len()).sum();
    assert_eq!((events, ledger.closed.len()), (3, 2));
    assert!(ledger.open.as_ref().is_some_and(|it| it.kind == IncidentKind::CrashLoop));
}

#[test]
fn deploys_and_jobs_that_are_done_are_no_crash_loop() {
    let mut ledger = ledger();
    for n in 1..=50_u32 {
        ledger.appeared(f64::from(n) * 60.0);
        figures(&mut ledger, 100, f64::from(n) * 60.0);
        assert!(ledger.vanished(Gone::Ended, f64::from(n) * 60.0 + 50.0).is_empty());
    }
    assert!(ledger.open.is_none() && ledger.closed.is_empty());
}

#[test]
fn kills_hours_apart_are_stories_of_their_own() {
    let mut ledger = ledger();
    for n in 1..=5_u32 {
        assert_eq!(life(&mut ledger, f64::from(n) * 7_200.0, Gone::OomKilled).len(), 2);
    }
    assert_eq!(ledger.closed.len(), 5);
}

#[test]
fn a_loop_takes_over_what_the_life_before_was_found_to_leak() {
    let mut ledger = ledger();
    for n in 1..=3_u32 {
        let now = f64::from(n) * 100.0;
        ledger.appeared(now - 90.0);
        ledger.alert(&opened(Severity::Warn), now - 30.0);
        if n == 2 {
            ledger.name(naming(), now - 20.0);
            ledger.keep(KeptProfile { id: "p2".into(), kind: "heap", reason: String::new(), taken_at: 0.0, bytes: 1 });
        }
        if n == 3 {
            ledger.open = None;
        }
        ledger.vanished(Gone::OomKilled, now);
    }
    let incident = ledger.open.as_ref().expect("a loop");
    assert_eq!((incident.state, incident.profiles.len()), (State::Named, 1));
    assert!(incident.verdict.ends_with("made in main.handleJob"), "{}", incident.verdict);
}

#[test]
fn a_kill_tells_how_memory_came_there() {
    let mut ledger = ledger();
    let events = life(&mut ledger, 1_000.0, Gone::OomKilled);
    let words = "last seen at 251 MiB of 256 MiB (it had lived 90 s, and memory had risen from 14 MiB to 251 MiB)";
    assert!(events[1].text.contains(words), "{}", events[1].text);
}

#[test]
fn a_freeze_is_told_by_an_event_of_its_own_whatever_came_before() {
    let freeze = Change::Opened(alert(AlertKind::Freeze, Severity::Crit));
    let mut alone = ledger();
    let events = alone.alert(&freeze, 1.0);
    assert_eq!((events.len(), events[0].alert_type), (1, AlertType::Error));
    assert_eq!(events[0].title, "worker is frozen at its memory limit");
    assert!(
        events[0].text.contains("restart it") && events[0].text.contains("rather than kill it"),
        "{}",
        events[0].text
    );

    let mut late = ledger();
    late.alert(&opened(Severity::Crit), 1.0);
    let events = late.alert(&freeze, 2.0);
    assert_eq!(events.len(), 1);
    assert!(events[0].tags.contains(&"oomwatch_kind:freeze".to_owned()), "{:?}", events[0].tags);
    assert_eq!(late.open.as_ref().map(|it| it.opened_as), Some(IncidentKind::Alert(AlertKind::MemoryGrowth)));
    assert!(late.alert(&Change::Escalated(alert(AlertKind::Freeze, Severity::Crit)), 3.0).is_empty());
}

#[test]
fn churn_of_clients_is_a_notice_on_the_page_that_gives_way_to_an_alarm_and_to_a_kill() {
    let churn = Change::Opened(alert(AlertKind::ClientChurn, Severity::Notice));
    let mut ledger = ledger();
    assert!(ledger.alert(&churn, 1.0).is_empty());
    let verdict = ledger.open.as_ref().map(|it| it.verdict.clone());
    assert_eq!(verdict.as_deref(), Some("worker rose 41 MiB in 48 s"), "the sentence is the rule's own");
    let events = ledger.alert(&opened(Severity::Warn), 2.0);
    assert!(events[0].tags.contains(&"oomwatch_kind:memory_growth".to_owned()));

    let mut ledger = crate::pipeline::ledger::tests::ledger();
    ledger.alert(&churn, 1.0);
    let events = ledger.vanished(Gone::OomKilled, 2.0);
    assert!(events[0].tags.contains(&"oomwatch_kind:oom_kill".to_owned()));
}

#[test]
fn a_notice_that_stands_for_good_keeps_no_alarm_silent() {
    let mut ledger = ledger();
    let churn = Change::Opened(alert(AlertKind::ClientChurn, Severity::Notice));
    let cleared = Change::Cleared { kind: AlertKind::MemoryGrowth, at: Duration::ZERO };
    assert!(ledger.alert(&churn, 1.0).is_empty());
    for began in [10.0, 30.0] {
        assert_eq!(ledger.alert(&opened(Severity::Warn), began).len(), 1, "each alarm is told");
        assert_eq!(ledger.alert(&cleared, began + 5.0).len(), 1, "and its end");
        assert!(ledger.open.as_ref().is_some_and(|it| it.severity == Severity::Notice), "churn goes on");
    }
}

#[test]
fn an_alarm_outlives_the_kill_of_a_child() {
    let mut ledger = ledger();
    ledger.alert(&opened(Severity::Warn), 1.0);
    let events = ledger.child_killed(2.0);
    assert_eq!(events.len(), 2, "the kill, and the alarm that still stands");
    assert!(ledger.open.as_ref().is_some_and(|it| it.standing.contains_key(&AlertKind::MemoryGrowth)));
}

/// The book of the next sidecar: what this one showed, without a process of which anything stands.
fn reopened(ledger: &Ledger) -> Ledger {
    let incidents = ledger.views().iter().map(crate::pipeline::saved::SavedIncident::from).collect();
    let target = Some(crate::pipeline::saved::SavedTarget { pid: 7, incarnation: 1, kills: None });
    let past = Past::new(&crate::pipeline::saved::Saved { incidents, target, ..Default::default() });
    Ledger::new(ledger.who.clone(), past)
}

#[test]
fn a_story_that_ended_unseen_is_told_under_its_first_key_with_what_is_known() {
    let told = |gone: Gone| {
        let mut first = ledger();
        let mut events = first.alert(&opened(Severity::Warn), 100.0);
        first.name(naming(), 110.0);
        // It turns, and the key stays.
        first.alert(&Change::Opened(alert(AlertKind::Freeze, Severity::Crit)), 120.0);
        let mut next = reopened(&first);
        assert!(next.begin(200.0).is_empty());
        events.extend(next.before(gone, 201.0));
        let [opening, end] = &events[..] else { panic!("{events:?}") };
        assert_eq!(opening.aggregation_key, end.aggregation_key);
        assert!(end.tags.contains(&"oomwatch_culprit:main.handleJob".to_owned()), "{:?}", end.tags);
        assert!(!end.text.contains("0 B") && !end.text.contains("limit known"), "no figures were read: {}", end.text);
        assert!(next.before(gone, 202.0).is_empty() && next.open.is_none(), "once");
        let views = next.views();
        assert_eq!((views.len(), &views[0].id), (1, &first.views()[0].id));
        (views[0].state, end.alert_type, end.title.clone())
    };
    let gone = "worker is gone, and why is not known; it leaked in statsd.newStatsdBuffer";
    for known in [Gone::Unknown, Gone::Ended] {
        assert_eq!(told(known), ("recovered", AlertType::Success, gone.to_owned()));
    }
    let killed = "worker was OOM-killed; it leaked in statsd.newStatsdBuffer";
    assert_eq!(told(Gone::OomKilled), ("killed", AlertType::Error, killed.to_owned()));
}

#[test]
fn a_story_of_another_time_leaves_ours_alone() {
    let mut first = ledger();
    first.alert(&opened(Severity::Warn), 100.0);
    let mut next = reopened(&first);
    next.alert(&opened(Severity::Crit), 200.0);
    figures(&mut next, 250, 200.5);
    assert_eq!(next.before(Gone::Unknown, 201.0).len(), 1);
    assert_eq!((next.open.is_some(), next.figures.memory_bytes, next.closed.len()), (true, 250 << 20, 1));
}

#[test]
fn a_crash_loop_goes_on_with_the_next_sidecar_and_is_not_told_again() {
    let mut first = ledger();
    for n in 1..=3_u32 {
        life(&mut first, 100.0 * f64::from(n), Gone::OomKilled);
    }
    first.name(naming(), 310.0);
    let mut next = reopened(&first);
    assert!(next.before(Gone::Unknown, 400.0).is_empty());
    next.app = "worker".into();
    let mut verdicts = Vec::new();
    for n in 5..=6_u32 {
        assert!(life(&mut next, 100.0 * f64::from(n), Gone::OomKilled).is_empty());
        verdicts.push(next.open.as_ref().expect("it is open").verdict.clone());
    }
    let leak = "The leak, as named before: statsd.newStatsdBuffer, made in main.handleJob";
    assert!(
        verdicts[1].contains("2 kills or ends near the limit in 100 s") && verdicts[1].ends_with(leak),
        "{verdicts:?}"
    );
    next.appeared(700.0);
    assert_eq!(next.look(1_400.0, false).len(), 1, "and its end is told");
}
