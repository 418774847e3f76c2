//! The watch on made-up observations: what it finds, what it counts, how often it has the sampler look.

use super::*;
use crate::detect::{Change, Settings, Severity};

struct Rig {
    watch: Watch,
    findings: mpsc::Receiver<Finding>,
    own: mpsc::Receiver<Vec<OwnMetric>>,
    pace: watch::Receiver<Pace>,
    part: watch::Receiver<Arc<WatchPart>>,
    second: u64,
}

const MIB: u64 = 1 << 20;

impl Rig {
    fn new() -> Rig {
        let (_, observations) = mpsc::channel(1);
        let (pace, pace_in) = watch::channel(Duration::from_secs(1));
        let (own, own_in) = mpsc::channel(1_000);
        let (findings, findings_in) = mpsc::channel(1_000);
        let (_, runtime) = watch::channel(Runtime::default());
        let (part, part_in) = watch::channel(Arc::default());
        let settings = watch::channel(Settings::default()).1;
        let statsd = watch::channel(Arc::default()).1;
        let wires = Wires { observations, pace, own, findings, runtime, statsd, settings, part, saved: None };
        let watch = Watch::new(Detectors::new(Settings::default()), Duration::from_secs(1), || 1_000.0, wires);
        Rig { watch, findings: findings_in, own: own_in, pace: pace_in, part: part_in, second: 0 }
    }

    /// One observation a second later than the last.
    async fn see(&mut self, incarnation: u64, memory: u64, clients: u64) {
        self.second += 1;
        let reading = Reading {
            at: Duration::from_secs(self.second),
            incarnation,
            age: Some(Duration::from_secs(600 + self.second)),
            memory_bytes: Some(memory),
            limit_bytes: Some(512 * MIB),
            statsd_clients: Some(clients),
            ..Reading::default()
        };
        let target = Target { pid: 7, name: "worker".into(), rule: "test".into(), incarnation };
        let census = super::super::Census { clients: Some(clients), ..Default::default() };
        let seen =
            Observation { reading, target: Some(target), rss_bytes: Some(memory), census, ..Observation::default() };
        self.watch.observe(seen, &Runtime::default()).await;
    }

    async fn lose(&mut self, gone: Gone) {
        let seen = Observation { gone: Some(gone), ..Observation::default() };
        self.watch.observe(seen, &Runtime::default()).await;
    }

    fn found(&mut self) -> Vec<Finding> {
        std::iter::from_fn(|| self.findings.try_recv().ok()).collect()
    }

    fn counts(&mut self) -> Vec<(&'static str, f64)> {
        let all = std::iter::from_fn(|| self.own.try_recv().ok()).flatten();
        all.filter(|metric| metric.count).map(|metric| (metric.name, metric.value)).collect()
    }
}

#[tokio::test]
async fn figures_of_a_reading_come_before_its_alert() {
    let mut rig = Rig::new();
    for _ in 0..60 {
        rig.see(1, 50 * MIB, 1).await;
    }
    rig.found();
    let mut clients = 1;
    let alert = loop {
        clients += 3;
        rig.see(1, 50 * MIB, clients).await;
        let found = rig.found();
        if let [Finding::Figures(figures), Finding::Alert(Change::Opened(alert))] = &found[..] {
            assert_eq!(figures.statsd_clients, Some(clients), "the sentence quotes the reading that raised the alert");
            assert!(!figures.healthy);
            break alert.clone();
        }
        assert!(clients < 200, "no alert: {found:?}");
    };
    assert_eq!(alert.severity, Severity::Warn);
    assert_eq!(rig.part.borrow().memory.state, "warn");
}

#[tokio::test]
async fn a_kill_is_counted_told_once_and_followed_by_a_restart() {
    let mut rig = Rig::new();
    rig.see(1, 50 * MIB, 1).await;
    rig.lose(Gone::OomKilled).await;
    rig.lose(Gone::OomKilled).await;
    rig.see(2, 40 * MIB, 1).await;
    let found = rig.found();
    assert_eq!(found.iter().filter(|it| matches!(it, Finding::Vanished(Gone::OomKilled))).count(), 1);
    assert!(matches!(found.last(), Some(Finding::Figures(figures)) if figures.restarts == 1), "{found:?}");
    assert_eq!(rig.counts(), [("oomwatch.app.oom_kills", 1.0), ("oomwatch.app.restarts", 1.0)]);
}

#[tokio::test]
async fn a_target_that_changes_without_a_word_ends_the_story_of_the_first() {
    let mut rig = Rig::new();
    rig.see(1, 50 * MIB, 1).await;
    rig.found();
    rig.see(2, 50 * MIB, 1).await;
    let found = rig.found();
    assert!(matches!(found[..2], [Finding::Vanished(Gone::Ended), Finding::Appeared(_)]), "{found:?}");
    assert!(rig.counts().is_empty(), "a better guess is no restart");
}

#[tokio::test]
async fn a_process_that_renames_itself_stays_the_same() {
    let mut rig = Rig::new();
    rig.see(1, 50 * MIB, 1).await;
    rig.found();
    let target = Target { pid: 7, name: "renamed".into(), rule: "test".into(), incarnation: 1 };
    rig.watch.observe(Observation { target: Some(target), ..Observation::default() }, &Runtime::default()).await;
    let found = rig.found();
    assert!(!found.iter().any(|it| matches!(it, Finding::Vanished(_) | Finding::Appeared(_))), "{found:?}");
    let told = found.iter().filter(|it| matches!(it, Finding::Renamed(target) if target.name == "renamed")).count();
    assert_eq!(told, 1, "{found:?}");
    assert_eq!(rig.part.borrow().target.as_ref().map(|it| it.name.as_str()), Some("renamed"));
}

#[tokio::test]
async fn of_an_app_that_is_gone_nothing_is_expected() {
    let mut rig = Rig::new();
    for second in 0..120 {
        rig.see(1, (50 + 4 * second) * MIB, 1).await;
    }
    assert_ne!(rig.part.borrow().memory.time_to_limit_seconds, None);
    rig.lose(Gone::OomKilled).await;
    let part = rig.part.borrow().clone();
    assert_eq!((part.memory.time_to_limit_seconds, part.memory.state), (None, "learning"));
    assert_eq!(*rig.pace.borrow(), Duration::from_secs(1), "nobody is near a limit");
}

#[tokio::test]
async fn a_kill_that_the_target_outlives_is_told_once() {
    let mut rig = Rig::new();
    let target = Target { pid: 7, name: "master".into(), rule: "test".into(), incarnation: 1 };
    for (second, kills) in [(1, 0), (2, 1), (3, 1), (4, 1), (5, 1)] {
        let reading = Reading { at: Duration::from_secs(second), incarnation: 1, ..Reading::default() };
        let oom_kills = Some(Kills { counter: 1, count: kills });
        let seen = Observation { reading, target: Some(target.clone()), oom_kills, ..Observation::default() };
        rig.watch.observe(seen, &Runtime::default()).await;
    }
    let told = rig.found().iter().filter(|it| matches!(it, Finding::ChildKilled)).count();
    assert_eq!((told, rig.counts()), (1, vec![("oomwatch.app.oom_kills", 1.0)]));
}

/// A witness that moves with its target to another cgroup begins with what was killed there before.
#[tokio::test]
async fn another_counter_is_no_kill() {
    let mut rig = Rig::new();
    let target = Target { pid: 7, name: "master".into(), rule: "test".into(), incarnation: 1 };
    for second in 1..=5 {
        let reading = Reading { at: Duration::from_secs(second), incarnation: 1, ..Reading::default() };
        let oom_kills = Some(Kills { counter: 1 + second / 3, count: 3 * (second / 3) });
        let seen = Observation { reading, target: Some(target.clone()), oom_kills, ..Observation::default() };
        rig.watch.observe(seen, &Runtime::default()).await;
    }
    assert!(rig.counts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_live_heap_that_is_pulled_no_more_is_not_known_any_longer() {
    let mut rig = Rig::new();
    let target = Target { pid: 7, name: "worker".into(), rule: "test".into(), incarnation: 1 };
    let every = Duration::from_secs(300);
    let runtime =
        Runtime { live_heap_bytes: Some(MIB), live_heap_until: Some(Instant::now() + 3 * every), ..Runtime::default() };
    for (minutes, told) in [(0, true), (14, true), (2, false), (60, false)] {
        tokio::time::advance(Duration::from_secs(60 * minutes)).await;
        rig.watch.observe(Observation { target: Some(target.clone()), ..Observation::default() }, &runtime).await;
        let metrics = std::iter::from_fn(|| rig.own.try_recv().ok()).flatten();
        assert_eq!(
            metrics.filter(|metric| metric.name == "oomwatch.app.heap").count() == 1,
            told,
            "{minutes} min later"
        );
    }
}

#[tokio::test]
async fn near_the_limit_the_sampler_looks_four_times_a_second() {
    let mut rig = Rig::new();
    rig.see(1, 400 * MIB, 1).await;
    assert_eq!(*rig.pace.borrow(), Duration::from_secs(1));
    rig.see(1, 420 * MIB, 1).await;
    assert_eq!(*rig.pace.borrow(), NEAR);
    rig.see(1, 300 * MIB, 1).await;
    assert_eq!(*rig.pace.borrow(), Duration::from_secs(1));
}

#[tokio::test]
async fn a_leap_is_looked_at_more_closely_far_from_the_limit() {
    let mut rig = Rig::new();
    for mib in [60, 60, 60] {
        rig.see(1, mib * MIB, 1).await;
        assert_eq!(*rig.pace.borrow(), Duration::from_secs(1));
    }
    rig.see(1, 160 * MIB, 1).await;
    assert_eq!(*rig.pace.borrow(), NEAR, "at this pace the limit is four seconds away");
    for _ in 0..3 {
        rig.see(1, 160 * MIB, 1).await;
    }
    assert_eq!(*rig.pace.borrow(), Duration::from_secs(1), "it was a step");
}

#[tokio::test]
async fn what_cannot_be_read_is_left_out_and_never_sent_as_zero() {
    let mut rig = Rig::new();
    rig.see(1, 50 * MIB, 1).await;
    let names: Vec<_> = std::iter::from_fn(|| rig.own.try_recv().ok()).flatten().map(|metric| metric.name).collect();
    assert!(names.contains(&"oomwatch.app.memory.rss"));
    assert!(!names.contains(&"oomwatch.app.threads"), "{names:?}");
    assert!(!names.contains(&"oomwatch.app.memory.time_to_limit"), "absent while memory does not grow");
}

#[tokio::test]
async fn kernel_drops_are_told_by_difference() {
    let mut rig = Rig::new();
    for drops in [5, 5, 12] {
        let census = super::super::Census { kernel_drops: drops, ..Default::default() };
        let seen = Observation { census, ..Observation::default() };
        rig.watch.observe(seen, &Runtime::default()).await;
    }
    assert_eq!(rig.counts(), [("oomwatch.dropped", 5.0), ("oomwatch.dropped", 7.0)]);
}

#[test]
fn the_load_is_what_came_in_ten_seconds_and_unknown_before() {
    let mut load = Load::default();
    let at = Duration::from_secs;
    assert_eq!(load.step(at(0), 0), None);
    assert_eq!(load.step(at(12), 0), None, "the stream carries nothing");
    assert_eq!(load.step(at(13), 50), None, "ten seconds are not over");
    assert_eq!(load.step(at(22), 300), Some(30.0));
    assert_eq!(load.step(at(31), 9_000), Some(30.0));
    assert_eq!(load.step(at(32), 300), Some(0.0), "the stream has fallen silent");
}
