//! The plan under a made-up clock.

use super::*;
use crate::pipeline::Index;

const S: fn(u64) -> Duration = Duration::from_secs;

fn plan() -> Plan {
    let mut plan = Plan::new(Settings { baseline_after: S(60), cooldown: S(60), max_per_hour: 3, debug2: false });
    plan.appeared(S(0));
    plan
}

fn figures() -> Figures {
    Figures { memory_bytes: 100 << 20, limit_bytes: Some(200 << 20), healthy: true, ..Figures::default() }
}

fn known(figures: &Figures, goroutines: Option<u64>) -> Now<'_> {
    Now { figures, index: Index { goroutines, leak_profile: false }, severity: Some(Severity::Warn) }
}

/// Takes every step that is due at `now`, each with success.
fn take(plan: &mut Plan, now: u64, figures: &Figures, goroutines: Option<u64>) -> Vec<(Purpose, ProfileKind)> {
    let mut steps = Vec::new();
    while let Some(step) = plan.next(S(now), known(figures, goroutines)) {
        plan.done(step, S(now), Duration::from_millis(5), 2_000, true);
        steps.push((step.purpose, step.kind));
    }
    steps
}

#[test]
fn first_sight_is_one_plain_heap_and_the_count() {
    let mut plan = plan();
    let steps = take(&mut plan, 0, &figures(), Some(20));
    assert_eq!(steps, [(Purpose::FirstSight, ProfileKind::Heap), (Purpose::Count, ProfileKind::Index)]);
    assert!(take(&mut plan, 14, &figures(), Some(20)).is_empty());
}

#[test]
fn a_port_that_does_not_answer_is_asked_again_and_again_more_slowly() {
    let mut plan = plan();
    let mut asked = Vec::new();
    for now in 0..100 {
        while let Some(step) = plan.next(S(now), known(&figures(), None)) {
            plan.done(step, S(now), S(0), 0, step.purpose != Purpose::FirstSight);
            if step.purpose == Purpose::FirstSight {
                asked.push(now);
            }
        }
    }
    assert_eq!(asked, [0, 2, 6, 14, 30, 60, 90]);
}

#[test]
fn a_baseline_waits_for_health_and_forces_a_collection_once() {
    let mut plan = plan();
    take(&mut plan, 0, &figures(), Some(20));
    let ill = Figures { healthy: false, ..figures() };
    assert!(take(&mut plan, 70, &ill, Some(20)).iter().all(|(purpose, _)| *purpose == Purpose::Count));
    let kinds: Vec<_> = take(&mut plan, 71, &figures(), Some(20)).into_iter().map(|it| it.1).collect();
    assert_eq!(kinds, [ProfileKind::Index, ProfileKind::HeapAfterGc, ProfileKind::Goroutine]);
    let kinds: Vec<_> = take(&mut plan, 400, &figures(), Some(20)).into_iter().map(|it| it.1).collect();
    assert_eq!(kinds, [ProfileKind::Index, ProfileKind::Heap, ProfileKind::Goroutine, ProfileKind::Index]);
}

#[test]
fn rounds_keep_the_cool_down_and_the_budget() {
    let mut plan = plan();
    take(&mut plan, 0, &figures(), Some(20));
    assert_eq!(plan.round(S(100), Cause::Alert), Wish::Begun);
    assert_eq!(plan.round(S(100), Cause::Alert), Wish::Suppressed("busy"));
    let kinds: Vec<_> = take(&mut plan, 100, &figures(), Some(20)).into_iter().take(4).map(|it| it.1).collect();
    assert_eq!(kinds, [ProfileKind::Heap, ProfileKind::Index, ProfileKind::HeapAfterGc, ProfileKind::Goroutine]);
    assert_eq!(plan.round(S(159), Cause::Alert), Wish::Suppressed("cooldown"));
    assert_eq!(plan.round(S(160), Cause::Alert), Wish::Begun);
    take(&mut plan, 160, &figures(), Some(20));
    assert_eq!(plan.round(S(300), Cause::Alert), Wish::Suppressed("budget"), "the last is kept");
    assert_eq!(plan.round(S(170), Cause::Critical), Wish::Begun, "crit passes the cool-down and takes it");
    take(&mut plan, 170, &figures(), Some(20));
    assert_eq!(plan.round(S(300), Cause::Critical), Wish::Suppressed("budget"));
    assert_eq!(plan.round(S(3_760), Cause::Alert), Wish::Begun, "an hour later there is room");
}

#[test]
fn an_incident_without_a_name_is_looked_at_again_more_and_more_rarely() {
    let settings = Settings { baseline_after: S(60), cooldown: S(60), max_per_hour: 60, debug2: false };
    let mut plan = Plan::new(settings);
    plan.appeared(S(0));
    plan.round(S(0), Cause::Alert);
    let mut begun = Vec::new();
    for now in 0..2_000 {
        take(&mut plan, now, &figures(), Some(20));
        if plan.round(S(now), Cause::Again) == Wish::Begun {
            begun.push(now);
        }
    }
    assert_eq!(begun, [60, 180, 420, 900, 1_860]);
}

#[test]
fn a_round_that_finds_no_port_is_not_charged_and_stops_there() {
    let mut plan = plan();
    take(&mut plan, 0, &figures(), Some(20));
    for now in [100, 200, 300, 400] {
        assert_eq!(plan.round(S(now), Cause::Alert), Wish::Begun);
        let step = plan.next(S(now), known(&figures(), Some(20))).expect("a heap");
        plan.done(step, S(now), S(0), 0, false);
        let next = plan.next(S(now), known(&figures(), Some(20)));
        assert!(next.is_none_or(|step| step.purpose != Purpose::Evidence));
    }
}

#[test]
fn a_goroutine_profile_that_could_be_the_kill_is_left_out() {
    let mut plan = plan();
    take(&mut plan, 0, &figures(), Some(20));
    plan.round(S(100), Cause::Alert);
    // 100 MiB are left; 30,000 goroutines would cost 29 MiB.
    let steps = take(&mut plan, 100, &figures(), Some(30_000));
    assert!(steps.iter().all(|(_, kind)| *kind != ProfileKind::Goroutine));
    let served = Index { goroutines: Some(30_000), leak_profile: true };
    let kinds = [Severity::Warn, Severity::Crit].map(|severity| round(true, served, severity, 100));
    let dear = [ProfileKind::Goroutine, ProfileKind::GoroutineLeak];
    assert!(kinds.iter().flatten().all(|kind| !dear.contains(kind)), "goroutineleak costs as much: {kinds:?}");
    let unknown = Index { goroutines: None, leak_profile: true };
    assert!(!round(true, unknown, Severity::Crit, 100).contains(&ProfileKind::GoroutineLeak));
    assert!(!affordable(&figures(), None), "an unknown count is not a small one");
    assert!(affordable(&figures(), Some(25_000)));
}

#[test]
fn a_restart_begins_anew_and_keeps_the_rounds_counted() {
    let mut plan = plan();
    plan.round(S(1), Cause::Alert);
    plan.vanished();
    assert_eq!(plan.next(S(2), known(&figures(), Some(1))), None);
    assert_eq!(plan.round(S(2), Cause::Critical), Wish::Suppressed("no_target"));
    plan.appeared(S(3));
    assert_eq!(plan.round(S(4), Cause::Alert), Wish::Suppressed("cooldown"));
}

#[test]
fn a_heavy_baseline_is_taken_less_often() {
    let mut plan = plan();
    take(&mut plan, 0, &figures(), Some(1));
    let step = Step { kind: ProfileKind::Heap, purpose: Purpose::Baseline };
    plan.done(step, S(60), Duration::from_millis(400), 10, true);
    assert_eq!(plan.baseline_every, S(600));
}

/// The kinds of the round that begins at 100 s.
fn round(debug2: bool, index: Index, severity: Severity, memory: u64) -> Vec<ProfileKind> {
    let mut plan = Plan::new(Settings { baseline_after: S(60), cooldown: S(60), max_per_hour: 3, debug2 });
    plan.appeared(S(0));
    take(&mut plan, 0, &figures(), Some(20));
    assert_eq!(plan.round(S(100), Cause::Alert), Wish::Begun);
    let figures = Figures { memory_bytes: memory << 20, ..figures() };
    let known = Now { figures: &figures, index, severity: Some(severity) };
    let mut kinds = Vec::new();
    while plan.more_evidence(known) {
        kinds.push(plan.next(S(100), known).expect("more was promised").kind);
    }
    kinds
}

#[test]
fn goroutineleak_comes_on_warn_and_crit_where_it_is_served() {
    let index = |leak_profile| Index { goroutines: Some(20), leak_profile };
    let last = |index, severity| round(false, index, severity, 100).last().copied();
    assert_eq!(last(index(true), Severity::Warn), Some(ProfileKind::GoroutineLeak));
    assert_eq!(last(index(true), Severity::Crit), Some(ProfileKind::GoroutineLeak));
    assert_eq!(last(index(true), Severity::Notice), Some(ProfileKind::Goroutine));
    assert_eq!(last(index(false), Severity::Crit), Some(ProfileKind::Goroutine));
}

#[test]
fn a_dump_is_the_last_step_of_a_critical_round_with_few_goroutines_and_room() {
    let index = |count| Index { goroutines: count, leak_profile: true };
    let dumps = |debug2, index, severity, memory| {
        let kinds = round(debug2, index, severity, memory);
        kinds.contains(&ProfileKind::GoroutineDump).then(|| assert_eq!(kinds, ROUND)).is_some()
    };
    assert!(dumps(true, index(Some(1_999)), Severity::Crit, 135));
    assert!(!dumps(false, index(Some(1_999)), Severity::Crit, 135), "the setting is off");
    assert!(!dumps(true, index(Some(2_000)), Severity::Crit, 100), "too many");
    assert!(!dumps(true, index(None), Severity::Crit, 100), "an unknown count is not a small one");
    assert!(!dumps(true, index(Some(20)), Severity::Crit, 136), "64 MiB are no room");
    assert!(!dumps(true, index(Some(20)), Severity::Warn, 100), "not critical");
}

#[test]
fn a_slow_app_is_asked_more_rarely_until_it_is_quick_again() {
    let mut plan = plan();
    take(&mut plan, 0, &figures(), Some(1));
    let mut asked = Vec::new();
    for now in 1..500 {
        while let Some(step) = plan.next(S(now), known(&Figures { healthy: false, ..figures() }, Some(1))) {
            let took = Duration::from_millis(if now < 300 { 400 } else { 5 });
            plan.done(step, S(now), took, 0, false);
            asked.push(now);
        }
    }
    assert_eq!(asked, [15, 45, 105, 225, 465, 480, 495]);
    let step = Step { kind: ProfileKind::Goroutine, purpose: Purpose::Baseline };
    for (millis, ok, every) in [(400, false, 600), (400, true, 1_200), (5, true, 600), (5, true, 300), (5, true, 300)] {
        plan.done(step, S(500), Duration::from_millis(millis), 10, ok);
        assert_eq!(plan.baseline_every, S(every));
    }
}

/// Begins a round at 100 s and takes its first steps.
fn under_way(plan: &mut Plan, steps: usize) {
    take(plan, 0, &figures(), Some(20));
    assert_eq!(plan.round(S(100), Cause::Alert), Wish::Begun);
    for _ in 0..steps {
        let step = plan.next(S(100), known(&figures(), Some(20))).expect("a step");
        plan.done(step, S(100), Duration::from_millis(5), 2_000, true);
    }
}

#[test]
fn turning_critical_cuts_a_round_short_and_begins_with_the_plain_heap() {
    let mut plan = plan();
    under_way(&mut plan, 2);
    let collection = plan.next(S(100), known(&figures(), Some(20))).expect("the collection");
    assert_eq!(plan.round(S(103), Cause::Critical), Wish::Begun, "while the app collects");
    assert_eq!(plan.round(S(103), Cause::Critical), Wish::Begun);
    assert_eq!(plan.round(S(103), Cause::Alert), Wish::Suppressed("busy"));
    assert!(plan.more_evidence(known(&figures(), Some(20))), "the round is not over");
    plan.done(collection, S(104), S(4), 2_000, true);
    let kinds: Vec<_> = take(&mut plan, 110, &figures(), Some(20)).into_iter().map(|it| it.1).collect();
    let critical = [ProfileKind::Heap, ProfileKind::Index, ProfileKind::HeapAfterGc, ProfileKind::Goroutine];
    assert_eq!(kinds[..4], critical, "once, and nothing of the old round");
    assert_eq!((plan.rounds.len(), kinds.len()), (2, 4), "{kinds:?}");
}

#[test]
fn a_critical_round_is_owed_although_the_one_it_cuts_short_finds_no_port() {
    let mut plan = plan();
    take(&mut plan, 0, &figures(), Some(20));
    plan.round(S(100), Cause::Alert);
    assert_eq!(plan.round(S(100), Cause::Critical), Wish::Begun, "nothing is pulled yet: the round serves");
    let heap = plan.next(S(100), known(&figures(), Some(20))).expect("a heap");
    assert_eq!(plan.round(S(101), Cause::Critical), Wish::Begun);
    plan.done(heap, S(105), S(5), 0, false);
    let next = plan.next(S(105), known(&figures(), Some(20))).expect("another");
    assert_eq!((next.kind, next.purpose, plan.rounds.len()), (ProfileKind::Heap, Purpose::Evidence, 1));
    plan.round(S(106), Cause::Critical);
    plan.vanished();
    plan.appeared(S(107));
    assert_eq!(plan.next(S(107), known(&figures(), None)).map(|it| it.purpose), Some(Purpose::FirstSight));
}

#[test]
fn an_app_that_takes_seconds_is_left_alone_as_long_unless_the_end_is_near() {
    let far = Figures { time_to_limit: Some(S(600)), ..figures() };
    let near = Figures { time_to_limit: Some(S(119)), ..figures() };
    let index = Index { goroutines: Some(20), leak_profile: false };
    let cases = [
        (&far, Severity::Warn, 110),
        (&far, Severity::Crit, 110),
        (&near, Severity::Warn, 110),
        (&near, Severity::Crit, 105),
        (&figures(), Severity::Crit, 105),
    ];
    for (figures, severity, next) in cases {
        let mut plan = plan();
        under_way(&mut plan, 0);
        let heap = plan.next(S(100), Now { figures, index, severity: Some(severity) }).expect("a heap");
        plan.done(heap, S(105), S(5), 2_000, true);
        let step = |now: u64, plan: &mut Plan| plan.next(S(now), Now { figures, index, severity: Some(severity) });
        let due = (105..200).find(|now| step(*now, &mut plan).is_some());
        assert_eq!(due, Some(next), "{severity:?} with {:?} left", figures.time_to_limit);
    }
    let mut plan = plan();
    under_way(&mut plan, 0);
    let heap = plan.next(S(100), known(&far, Some(20))).expect("a heap");
    plan.done(heap, S(102), S(2), 2_000, true);
    assert!(plan.next(S(102), known(&far, Some(20))).is_some(), "2 s are no burden");
}

#[test]
fn while_a_notice_stands_the_live_heap_is_looked_at_as_often_as_baselines_were() {
    let mut plan = plan();
    take(&mut plan, 0, &figures(), Some(20));
    take(&mut plan, 60, &figures(), Some(20));
    let ill = Figures { healthy: false, ..figures() };
    let mut looks = |severity| {
        let begun = plan.next_baseline.as_secs();
        let mut at = Vec::new();
        for now in begun - 10..begun + 700 {
            while let Some(step) = plan.next(S(now), Now { severity, ..known(&ill, Some(20)) }) {
                plan.done(step, S(now), Duration::from_millis(5), 2_000, true);
                if step.purpose != Purpose::Count {
                    assert_eq!((step.kind, step.purpose), (ProfileKind::Heap, Purpose::LiveHeap));
                    at.push(now - begun);
                }
            }
        }
        at
    };
    assert_eq!(looks(Some(Severity::Notice)), [0, 300, 600]);
    assert_eq!(looks(Some(Severity::Warn)), [0; 0], "what warns has rounds of its own and needs no excuse");
    assert_eq!(plan.stale_after(), S(900));
}
