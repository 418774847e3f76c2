//! Further rounds: what turning critical adds, and what a person may ask for.

use super::*;

#[tokio::test(start_paused = true)]
async fn turning_critical_pulls_again_within_the_cool_down() {
    let mut rig = Rig::start(App::Leaks);
    rig.appear().await;
    rig.pulls(2).await;
    rig.alarm(Severity::Warn).await;
    rig.event().await;
    rig.event().await;
    let before = rig.pulled.borrow().len();
    rig.alarm(Severity::Crit).await;
    assert!(rig.event().await.title.contains("leaks in statsd.newStatsdBuffer"));
    let kinds = rig.pulls(before + 3).await;
    assert_eq!(kinds[before..before + 2], [ProfileKind::Heap, ProfileKind::Index]);
}

#[tokio::test(start_paused = true)]
async fn a_round_does_not_agree_with_itself() {
    let mut rig = Rig::start(App::Fills);
    rig.appear().await;
    rig.pulls(2).await;
    rig.alarm(Severity::Crit).await;
    let agrees = |all: &Arc<Vec<IncidentView>>| all[0].evidence.iter().any(|it| it.kind == "agreement");
    let named = |all: &Arc<Vec<IncidentView>>| all.first().is_some_and(|it| !it.culprits.is_empty());
    rig.story(named).await;
    rig.pulls(6).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!agrees(&rig.incidents.borrow()), "the goroutine step saw the same heap again");
    rig.story(agrees).await;
}

#[tokio::test(start_paused = true)]
async fn a_critical_round_ends_with_who_is_blocked_for_good_and_who_started_them() {
    let mut rig = Rig::start(App::Blocks);
    rig.appear().await;
    rig.pulls(2).await;
    rig.alarm(Severity::Warn).await;
    let said = |kind: &'static str| {
        move |all: &Arc<Vec<IncidentView>>| {
            let evidence = all.first().map(|it| it.evidence.as_slice()).unwrap_or_default();
            evidence.iter().find(|it| it.kind == kind).map(|it| it.text.clone())
        }
    };
    let leaked = rig.story(|all| said("goroutineleak")(all).is_some()).await;
    let words = said("goroutineleak")(&leaked).expect("it is said");
    assert!(
        words.starts_with("goroutineleak confirms: ") && words.contains("`main.query.func1` (main.go:30)"),
        "{words}"
    );
    assert_eq!(said("created_by")(&leaked), None, "a warning is no reason for a dump");
    rig.alarm(Severity::Crit).await;
    let created = rig.story(|all| said("created_by")(all).is_some()).await;
    let words = said("created_by")(&created).expect("it is said");
    assert_eq!(words, "3 of `main.query.func1` were started by `main.query` (main.go:25)");
    assert_eq!(rig.pulled.borrow().iter().filter(|kind| **kind == ProfileKind::GoroutineDump).count(), 1);
    assert!(!format!("{:?}", *rig.incidents.borrow()).contains("5ec4e7"), "arguments stay where they are");
    assert_eq!(rig.runtime.borrow().pulls_error, 0);
}

#[tokio::test(start_paused = true)]
async fn a_person_may_ask_for_a_round_and_is_told_what_becomes_of_it() {
    let mut rig = Rig::start(App::Leaks);
    let ask = async |rig: &Rig| {
        let (reply, wish) = tokio::sync::oneshot::channel();
        rig.asked.send(PullNow { reply }).await.expect("the investigation runs");
        wish.await.expect("an answer")
    };
    assert_eq!(ask(&rig).await, Wish::Suppressed("no_target"));
    rig.appear().await;
    rig.pulls(2).await;
    assert_eq!(ask(&rig).await, Wish::Begun);
    let kinds = rig.pulls(6).await;
    assert!(kinds.ends_with(&[ProfileKind::HeapAfterGc, ProfileKind::Goroutine]), "{kinds:?}");
    assert!(matches!(ask(&rig).await, Wish::Suppressed("busy" | "cooldown")));
    assert!(rig.incidents.borrow().is_empty(), "nobody is blamed for being looked at");
    assert_eq!(rig.runtime.borrow().pulls_error, 0);
}

#[tokio::test(start_paused = true)]
async fn what_filled_before_the_first_round_is_never_called_sure() {
    let mut rig = Rig::start(App::Leaks);
    rig.appear().await;
    rig.pulls(2).await;
    rig.app.send_replace(App::Full);
    tokio::time::sleep(Duration::from_secs(30)).await;
    rig.alarm(Severity::Warn).await;
    let rests = |all: &Arc<Vec<IncidentView>>| all[0].evidence.iter().any(|it| it.kind == "standstill");
    rig.story(|all| all.first().is_some_and(|it| !it.culprits.is_empty())).await;
    let full = rig.story(rests).await;
    assert!(full[0].verdict.contains("it has not grown for "), "{}", full[0].verdict);
    let kinds: Vec<_> = full[0].evidence.iter().map(|it| (it.kind.as_str(), it.text.as_str())).collect();
    assert!(kinds.iter().any(|it| it.0 == "how sure" && it.1.starts_with("medium")), "{kinds:?}");
    assert!(!kinds.iter().any(|it| it.0 == "agreement"), "{kinds:?}");
}

#[tokio::test(start_paused = true)]
async fn fifty_kills_in_a_row_are_one_crash_loop_with_its_name_and_profiles() {
    let mut rig = Rig::start(App::Leaks);
    for _ in 0..50 {
        rig.appear().await;
        rig.pulls(1).await;
        rig.alarm(Severity::Warn).await;
        tokio::time::sleep(Duration::from_secs(90)).await;
        rig.tell(Finding::Vanished(Gone::OomKilled)).await;
        rig.tell(Finding::Alert(Change::Cleared { kind: AlertKind::MemoryGrowth, at: Duration::ZERO })).await;
    }
    let looped = rig.incidents.wait_for(|all| all.first().is_some_and(|it| it.verdict.contains("50 kills")));
    let incidents = timeout(Duration::from_secs(60), looped).await.expect("in time").expect("it runs").clone();
    assert_eq!((incidents.len(), incidents[0].kind), (3, "crash_loop"));
    assert!(incidents[0].verdict.contains("newStatsdBuffer"), "{}", incidents[0].verdict);
    assert!(!incidents[0].profiles.is_empty());
    let mut titles = Vec::new();
    while let Ok(Outgoing::Urgent(event)) = rig.outgoing.try_recv() {
        titles.push(event.title);
    }
    assert!(titles.len() <= 12, "opening, name, a surer one and the kill or the loop, for each of three: {titles:?}");
    let loops = titles.iter().filter(|title| title.contains("crash loop")).count();
    assert!((1..=2).contains(&loops), "{titles:?}");
}
