//! A name in hand is told, whatever becomes of the steps that were to make it surer.

use super::*;

const PLAIN: &str = "; from a heap without a forced collection";

/// An app that has been seen once, with 20 MiB in its heap; one client is two or more pulls.
async fn seen(app: App) -> Rig {
    let mut rig = Rig::start(app);
    rig.appear().await;
    rig.pulls(2).await;
    rig
}

#[tokio::test(start_paused = true)]
async fn a_critical_alert_is_named_by_its_plain_heap_while_the_app_collects() {
    let mut rig = seen(App::CollectsForEver).await;
    rig.alarm(Severity::Crit).await;
    rig.event().await;
    let named = rig.event().await;
    assert!(named.title.contains("leaks in statsd.newStatsdBuffer"), "{}", named.title);
    assert!(named.text.contains("medium") && named.text.contains("without a forced collection"), "{}", named.text);
    assert_eq!(rig.pulled.borrow().last(), Some(&ProfileKind::HeapAfterGc));
}

#[tokio::test(start_paused = true)]
async fn the_heap_after_the_collection_takes_the_plain_ones_place() {
    let mut rig = seen(App::Leaks).await;
    rig.alarm(Severity::Crit).await;
    let plain = rig.story(|all| all.first().is_some_and(|it| it.state == "named")).await;
    assert!(plain[0].verdict.contains("newStatsdBuffer"), "{}", plain[0].verdict);
    let sure = rig.story(|all| all.first().is_some_and(|it| it.state == "named" && !it.verdict.contains(PLAIN))).await;
    assert!(sure[0].verdict.contains("newStatsdBuffer"), "{}", sure[0].verdict);
    let mut titles = Vec::new();
    while let Ok(Outgoing::Urgent(event)) = rig.outgoing.try_recv() {
        titles.push(event.title);
    }
    assert_eq!(titles.len(), 2, "the name is told once: {titles:?}");
}

#[tokio::test(start_paused = true)]
async fn a_collection_that_fails_leaves_the_plain_heaps_name() {
    let mut rig = seen(App::CollectsInVain).await;
    rig.alarm(Severity::Warn).await;
    assert_eq!(rig.event().await.title, "worker: memory grows towards its limit");
    let named = rig.event().await;
    assert!(named.title.contains("leaks in statsd.newStatsdBuffer"), "{}", named.title);
    let verdict = rig.incidents.borrow()[0].verdict.clone();
    assert!(verdict.contains("newStatsdBuffer") && verdict.contains(PLAIN), "{verdict}");
    assert!(!verdict.contains("not nameable"), "{verdict}");
}

#[tokio::test(start_paused = true)]
async fn a_kill_while_the_app_collects_is_told_with_the_plain_heaps_name() {
    let mut rig = seen(App::CollectsForEver).await;
    rig.alarm(Severity::Warn).await;
    rig.event().await;
    rig.pulls(5).await;
    rig.tell(Finding::Vanished(Gone::OomKilled)).await;
    let killed = rig.event().await;
    assert_eq!(killed.title, "worker was OOM-killed; it leaked in statsd.newStatsdBuffer");
    assert!(killed.text.contains("without a forced collection"), "{}", killed.text);
    assert!(!killed.text.contains("no profile came back"), "{}", killed.text);
    assert!(rig.outgoing.try_recv().is_err(), "one event says it all");
}

#[tokio::test(start_paused = true)]
async fn a_plain_heap_that_names_nobody_overrides_nothing() {
    let mut rig = seen(App::Leaks).await;
    rig.alarm(Severity::Warn).await;
    rig.event().await;
    assert!(rig.event().await.title.contains("leaks in statsd.newStatsdBuffer"));
    let verdict = rig.incidents.borrow()[0].verdict.clone();
    rig.app.send_replace(App::CollectsInVain);
    rig.alarm(Severity::Crit).await;
    rig.event().await;
    let pulled = rig.pulled.borrow().len();
    rig.pulls(pulled + 1).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let now = rig.incidents.borrow()[0].verdict.clone();
    assert!(now.contains("newStatsdBuffer") && !now.contains(PLAIN), "{verdict} became {now}");
}

#[tokio::test(start_paused = true)]
async fn a_count_that_does_not_come_lets_the_goroutines_alone() {
    let mut rig = seen(App::Leaks).await;
    rig.app.send_replace(App::HidesCount);
    rig.alarm(Severity::Warn).await;
    rig.event().await;
    rig.event().await;
    let pulled = rig.pulled.borrow().clone();
    assert!(pulled.contains(&ProfileKind::HeapAfterGc), "{pulled:?}");
    assert!(!pulled.contains(&ProfileKind::Goroutine), "the count of before decided: {pulled:?}");
}

#[tokio::test(start_paused = true)]
async fn a_crit_during_a_round_begins_another_when_the_step_under_way_is_done() {
    let mut rig = seen(App::CollectsSlowly).await;
    rig.alarm(Severity::Warn).await;
    rig.event().await;
    let before = rig.pulls(5).await;
    assert_eq!(before.last(), Some(&ProfileKind::HeapAfterGc));
    rig.alarm(Severity::Crit).await;
    let (critical, named) = (rig.event().await, rig.event().await);
    assert!(named.title.contains("leaks in statsd.newStatsdBuffer"), "{} {}", critical.title, named.title);
    assert_eq!(rig.pulled.borrow().len(), 5, "one pull at a time, and what is in hand is told meanwhile");
    let kinds = rig.pulls(9).await;
    let critical = [ProfileKind::Heap, ProfileKind::Index, ProfileKind::HeapAfterGc, ProfileKind::Goroutine];
    assert_eq!(kinds[5..9], critical);
    let settled = rig.runtime.wait_for(|runtime| runtime.pulls_error == 0);
    timeout(Duration::from_secs(60), settled).await.expect("every pull is accounted for").expect("it runs");
}
