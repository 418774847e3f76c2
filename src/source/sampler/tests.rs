//! The sampler over a `/proc` of files, with a clock that the test moves, and over a real process.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::pipeline::Gone;
use crate::source::fixture::Fixture;

const MIB: u64 = 1 << 20;
const INSIDE: &str = "proc/10/root/sys/fs/cgroup";

/// A v2 pod: the app is process 10 with 256 MiB, the sidecar process 20.
fn pod() -> Fixture {
    let fixture = Fixture::new();
    fixture.process(1, 0, "pause");
    fixture.process(20, 0, "oomwatch");
    fixture.write("proc/20/statm", "100 50 0 0 0 0 0\n");
    fixture.own(20);
    app(&fixture, 1000);
    fixture
}

fn app(fixture: &Fixture, start: u64) {
    fixture.process(10, 0, "worker");
    fixture.write("proc/10/stat", &fixture.stat_line(10, 0, "worker", 'S', 0, start));
    fixture.status(10, 10001, 10001, 120, 100, 8);
    fixture.write("proc/10/cgroup", "0::/../app\n");
    fixture.write("proc/10/mountinfo", "1 0 0:1 /../app /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
    fixture.write(&format!("{INSIDE}/memory.max"), "268435456\n");
    fixture.write(&format!("{INSIDE}/memory.current"), &format!("{}\n", 140 * MIB));
    fixture.write(&format!("{INSIDE}/memory.stat"), "active_file 1048576\ninactive_file 2097152\nslab_reclaimable 0\n");
    fixture.write(&format!("{INSIDE}/memory.events"), "oom_kill 0\n");
}

fn settings(fixture: &Fixture) -> Settings {
    Settings { proc: fixture.proc(), cgroup_mount: fixture.path().join("mount"), ..Settings::default() }
}

fn kills(seen: &Observation) -> Option<u64> {
    seen.oom_kills.map(|kills| kills.count)
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn one_look_brings_every_figure() {
    let fixture = pod();
    fixture.write("proc/net/udp", "head\n 1: 0100007F:D001 0100007F:1FBD 01 0:0 00:0 0 10001 0 5 2 0 0\n");
    fixture.process(11, 10, "child");
    fixture.status(11, 10001, 10001, 30, 20, 2);
    let seen = Looker::new(settings(&fixture)).look(at(3));
    let reading = seen.reading;
    assert_eq!((reading.at, reading.incarnation), (at(3), 1000));
    assert_eq!(reading.age, Some(Duration::from_secs_f64(100.0 - 1000.0 / procfs::ticks_per_second() as f64)));
    assert_eq!((reading.memory_bytes, seen.working_set_bytes), (Some(137 * MIB), Some(138 * MIB)));
    assert_eq!((reading.limit_bytes, seen.limit_source), (Some(256 * MIB), "memory.max of the app's cgroup"));
    assert_eq!((seen.rss_bytes, reading.threads, reading.fd_limit), (Some(150 * MIB), Some(10), Some(1024)));
    assert_eq!((reading.statsd_clients, seen.census.uid), (Some(1), Some(10001)));
    assert_eq!((kills(&seen), seen.gone), (Some(0), None));
    assert_eq!(seen.self_rss_bytes, Some(50 * procfs::page_size()));
    assert_eq!(seen.target.unwrap().pid, 10);
    assert_eq!(*seen.degraded, []);
}

#[test]
fn a_long_table_of_clients_is_read_more_rarely() {
    let fixture = pod();
    let row = " 1: 0100007F:D001 0100007F:1FBD 01 0:0 00:0 0 10001 0 5 2 0 0\n";
    fixture.write("proc/net/udp", &row.repeat(7_000));
    let mut looker = Looker::new(settings(&fixture));
    let clients = |looker: &mut Looker, second| looker.look(at(second)).census.clients;
    assert_eq!(clients(&mut looker, 0), Some(7_000));
    fixture.write("proc/net/udp", row);
    assert_eq!((clients(&mut looker, 2), clients(&mut looker, 3)), (Some(7_000), Some(1)));
    fixture.write("proc/net/udp", "");
    assert_eq!(clients(&mut looker, 4), Some(0));
}

#[test]
fn children_are_left_out_when_told_so() {
    let fixture = pod();
    fixture.process(11, 10, "child");
    fixture.status(11, 10001, 10001, 30, 20, 2);
    let seen = Looker::new(Settings { tree: false, ..settings(&fixture) }).look(at(0));
    assert_eq!((seen.rss_bytes, seen.reading.threads), (Some(120 * MIB), Some(8)));
}

#[test]
fn without_the_cgroup_memory_is_anonymous_plus_shared_and_the_limit_that_of_the_downward_api() {
    let fixture = pod();
    fixture.remove("proc/10/root");
    let with =
        |app_memory_limit, limit| Looker::new(Settings { app_memory_limit, limit, ..settings(&fixture) }).look(at(0));
    let cases = [
        (Some(300 * MIB), Limit::Auto, Some(300 * MIB), "APP_MEMORY_LIMIT from the downward API"),
        (Some(300 * MIB), Limit::Fixed(64 * MIB), Some(64 * MIB), "watch.limit"),
        (
            Some(15872 * MIB),
            Limit::Auto,
            Some(15872 * MIB),
            "APP_MEMORY_LIMIT, which is about the node's memory: no limit is set",
        ),
        (Some(16384 * MIB), Limit::Auto, Some(16384 * MIB), missing::NO_LIMIT),
        (None, Limit::Auto, Some(16384 * MIB), missing::NO_LIMIT),
    ];
    for (env, limit, expected, source) in cases {
        let seen = with(env, limit);
        assert_eq!((seen.reading.limit_bytes, seen.limit_source), (expected, source));
        assert_eq!(seen.reading.memory_bytes, Some(100 * MIB + 4096));
        assert_eq!(seen.degraded.iter().any(|it| it.what == "memory limit"), source == missing::NO_LIMIT);
    }
}

#[test]
fn a_fixed_limit_beats_the_cgroup() {
    let fixture = pod();
    let seen = Looker::new(Settings { limit: Limit::Fixed(MIB), ..settings(&fixture) }).look(at(0));
    assert_eq!((seen.reading.limit_bytes, seen.reading.memory_bytes), (Some(MIB), Some(137 * MIB)));
}

#[test]
fn one_failed_read_of_the_cgroup_leaves_a_gap_and_no_jump() {
    let fixture = pod();
    let mut looker = Looker::new(settings(&fixture));
    let memory = |looker: &mut Looker, second| looker.look(at(second)).reading.memory_bytes;
    assert_eq!(memory(&mut looker, 0), Some(137 * MIB));
    fixture.remove("proc/10/root");
    assert_eq!(memory(&mut looker, 1), None);
    app(&fixture, 1000);
    assert_eq!(memory(&mut looker, 2), Some(137 * MIB), "the cgroup is found again");
}

/// An entrypoint that begins as root and drops its rights: at first its cgroup is closed to us, and with it the kill counter.
#[test]
fn a_cgroup_that_opens_later_still_tells_the_kill() {
    let fixture = pod();
    fixture.remove("proc/10/root");
    let mut looker = Looker::new(settings(&fixture));
    assert_eq!(looker.look(at(0)).oom_kills, None);
    app(&fixture, 1000);
    assert_eq!(kills(&looker.look(at(1))), Some(0));
    fixture.write(&format!("{INSIDE}/memory.events"), "oom_kill 1\n");
    fixture.remove("proc/10");
    assert_eq!(looker.look(at(2)).gone, Some(Gone::OomKilled));
}

/// Between its kill and its end a process stands in the root cgroup, without memory.
#[test]
fn a_dying_process_does_not_take_its_kill_counter_with_it() {
    let fixture = pod();
    let mut looker = Looker::new(settings(&fixture));
    looker.look(at(0));
    fixture.write(&format!("{INSIDE}/memory.events"), "oom_kill 1\n");
    fixture.write("proc/10/cgroup", "0::/\n");
    fixture.write("proc/10/mountinfo", "1 0 0:1 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
    fixture.write("proc/10/root/sys/fs/cgroup/memory.stat", "active_file 0\n");
    fixture.status(10, 10001, 10001, 0, 0, 1);
    let dying = looker.look(at(1));
    assert_eq!((dying.rss_bytes, dying.reading.memory_bytes, dying.gone), (None, None, None));
    fixture.remove("proc/10");
    assert_eq!(looker.look(at(2)).gone, Some(Gone::OomKilled));
}

#[test]
fn a_kill_is_told_once_and_the_next_life_follows() {
    let fixture = pod();
    let mut looker = Looker::new(settings(&fixture));
    assert_eq!(looker.look(at(0)).reading.incarnation, 1000);
    fixture.write(&format!("{INSIDE}/memory.events"), "oom_kill 1\n");
    fixture.remove("proc/10");
    app(&fixture, 2000);
    let death = looker.look(at(1));
    assert_eq!(
        (death.gone, death.target.clone(), death.reading.memory_bytes, kills(&death)),
        (Some(Gone::OomKilled), None, None, Some(1))
    );
    let next = looker.look(at(2));
    assert_eq!((next.gone, next.reading.incarnation, kills(&next)), (None, 2000, Some(0)));
}

#[test]
fn a_process_that_moves_into_its_cgroup_after_it_was_found_is_followed() {
    let fixture = pod();
    fixture.write("proc/10/cgroup", "0::/elsewhere\n");
    let mut looker = Looker::new(settings(&fixture));
    assert_eq!(looker.look(at(0)).limit_source, missing::NO_LIMIT);
    fixture.write("proc/10/cgroup", "0::/../app\n");
    fixture.write("proc/10/stat", &fixture.stat_line(10, 0, "renamed", 'S', 0, 1000));
    let seen = looker.look(at(2));
    assert_eq!((seen.reading.limit_bytes, kills(&seen)), (Some(256 * MIB), Some(0)));
    assert_eq!(seen.target.unwrap().name, "renamed");
}

#[test]
fn without_a_target_the_look_says_why_and_what_mends_it() {
    let fixture = pod();
    fixture.remove("proc/10");
    let mut looker = Looker::new(settings(&fixture));
    let seen = looker.look(at(0));
    assert_eq!((seen.target, seen.gone, seen.reading.memory_bytes), (None, None, None));
    let missing = &seen.degraded[0];
    assert_eq!(
        (missing.what.as_str(), missing.why.as_str()),
        ("the app's process", "no process besides the sidecar's own can be seen")
    );
    assert!(missing.fix.contains("shareProcessNamespace: true"));
    app(&fixture, 1000);
    assert_eq!(looker.look(at(1)).target.unwrap().pid, 10);
}

#[test]
fn no_proc_at_all_is_told_too() {
    let fixture = Fixture::new();
    let seen = Looker::new(Settings { proc: fixture.path().join("nowhere"), ..settings(&fixture) }).look(at(0));
    assert!(seen.degraded[0].why.starts_with("there is no process file system at "));
    assert_eq!((seen.census.clients, seen.self_rss_bytes), (None, None));
}

#[test]
fn a_guess_gives_way_to_the_owner_of_the_pprof_port_and_to_nothing_else() {
    let fixture = pod();
    fixture.process(30, 0, "envoy");
    fixture.write(
        "proc/30/stat",
        &fixture.stat_line(30, 0, "envoy", 'S', 0, 500).replace(" 1000000 256 ", " 1000000 9000 "),
    );
    let mut looker = Looker::new(settings(&fixture));
    let pid = |looker: &mut Looker, second| looker.look(at(second)).target.unwrap().pid;
    assert_eq!(pid(&mut looker, 0), 30);
    // The app becomes the larger one: still a guess, so nothing changes.
    fixture.write(
        "proc/10/stat",
        &fixture.stat_line(10, 0, "worker", 'S', 0, 1000).replace(" 1000000 256 ", " 1000000 99000 "),
    );
    assert_eq!(pid(&mut looker, 6), 30);
    fixture.write("proc/net/tcp", "head\n 0: 0100007F:17AC 00000000:0000 0A 0:0 00:0 0 10001 0 99 1\n");
    fixture.socket(10, 3, 99);
    assert_eq!(pid(&mut looker, 7), 30, "not before its time");
    let seen = looker.look(at(12));
    assert_eq!((seen.target.unwrap().pid, seen.gone), (10, None));
}

#[test]
fn an_old_guess_is_tried_each_minute() {
    let fixture = pod();
    let mut looker = Looker::new(settings(&fixture));
    for second in 0..1_000 {
        looker.look(at(second));
    }
    fixture.process(30, 0, "envoy");
    fixture.write("proc/net/tcp", "head\n 0: 0100007F:17AC 00000000:0000 0A 0:0 00:0 0 10001 0 99 1\n");
    fixture.socket(30, 3, 99);
    let found = (1_000..1_100).find(|second| looker.look(at(*second)).target.unwrap().pid == 30).unwrap();
    assert!((1_001..=1_060).contains(&found), "{found}");
}

struct Running {
    observations: mpsc::Receiver<Observation>,
    pace: watch::Sender<Pace>,
    stop: CancellationToken,
    tasks: tokio::task::JoinSet<()>,
}

fn start(settings: Settings) -> Running {
    let (out, observations) = mpsc::channel(4);
    let (pace, pace_seen) = watch::channel(settings.interval);
    let stop = CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(Sampler::new(settings).run(out, pace_seen, stop.clone()));
    Running { observations, pace, stop, tasks }
}

#[tokio::test(start_paused = true)]
async fn looks_follow_the_pace_and_end_with_stop() {
    let fixture = pod();
    let mut running = start(settings(&fixture));
    let begun = Instant::now();
    for second in 0..3 {
        let seen = running.observations.recv().await.unwrap();
        assert_eq!((seen.reading.at, begun.elapsed()), (at(second), at(second)));
    }
    running.pace.send(Duration::from_millis(250)).unwrap();
    let first = running.observations.recv().await.unwrap().reading.at;
    assert_eq!(first, Duration::from_millis(2250), "a faster pace takes effect at once");
    assert_eq!(running.observations.recv().await.unwrap().reading.at, Duration::from_millis(2500));
    running.stop.cancel();
    running.tasks.join_next().await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn ticks_missed_behind_a_full_queue_are_skipped() {
    let fixture = pod();
    let mut running = start(settings(&fixture));
    tokio::time::sleep(Duration::from_millis(60_500)).await;
    let mut times = Vec::new();
    for _ in 0..8 {
        times.push(running.observations.recv().await.unwrap().reading.at.as_secs());
    }
    // Four wait in the queue and one in the hand; the next are taken after the queue moves again.
    assert_eq!(times[..5], [0, 1, 2, 3, 4]);
    assert!(times[5] >= 60 && times[7] > times[5], "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn it_ends_when_nobody_listens() {
    let fixture = pod();
    let mut running = start(settings(&fixture));
    drop(running.observations);
    running.tasks.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn a_real_death_wakes_it_long_before_the_next_tick() {
    let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let mut running = start(Settings { pid: Some(pid), interval: Duration::from_secs(300), ..Settings::default() });
    let alive = running.observations.recv().await.unwrap();
    assert_eq!(alive.target.unwrap().name, "sleep");
    assert!(alive.rss_bytes.unwrap() > 0 && alive.reading.threads == Some(1) && alive.reading.fds.unwrap() >= 3);
    assert!(alive.reading.age.unwrap() < Duration::from_secs(60) && alive.self_rss_bytes.unwrap() > MIB);
    child.kill().unwrap();
    let death = tokio::time::timeout(Duration::from_secs(20), running.observations.recv()).await.unwrap().unwrap();
    child.wait().unwrap();
    assert!(matches!(death.gone, Some(Gone::Ended | Gone::Unknown)), "{:?}", death.gone);
}

#[test]
fn what_became_of_the_process_before_is_told_once_and_only_when_it_is_gone() {
    let fixture = pod();
    let before = |incarnation| Some(SavedTarget { pid: 10, incarnation, kills: None });
    let mut looker = Looker::new(Settings { before: before(1000), ..settings(&fixture) });
    assert_eq!(looker.look(at(0)).before, None, "it is the target");
    fixture.remove("proc/10");
    assert_eq!([looker.look(at(1)).before, looker.look(at(2)).before], [None; 2], "that is told as its death");

    app(&fixture, 2000);
    let mut looker = Looker::new(Settings { before: before(1000), ..settings(&fixture) });
    assert_eq!([looker.look(at(0)).before, looker.look(at(1)).before], [Some(Gone::Unknown), None]);

    // It lives, and something else is watched for now.
    let named = Settings { before: before(2000), name: Some("other".into()), ..settings(&fixture) };
    fixture.process(12, 0, "other");
    let mut looker = Looker::new(named);
    assert_eq!((looker.look(at(0)).target.map(|it| it.pid), looker.look(at(1)).before), (Some(12), None));
    fixture.remove("proc/10");
    assert_eq!(looker.look(at(2)).before, Some(Gone::Unknown));
}
