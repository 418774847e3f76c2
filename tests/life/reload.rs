//! SIGHUP: a bad file changes nothing, a good one changes what can be changed and loses nothing, and a swapped key is found.

use std::os::unix::fs::symlink;
use std::time::Duration;

use super::support::intake::FakeIntake;
use super::support::{BASE, Sidecar, wait_for};
use super::{App, KEY, settings};

const LONG: Duration = Duration::from_secs(30);

fn reloads(sidecar: &Sidecar, result: &str) -> f64 {
    sidecar.metric(&format!("oomwatch_config_reloads_total{{result=\"{result}\"}} ")).unwrap_or(0.0)
}

/// Writes the settings, asks for them to be read, and waits until they were.
fn reload(sidecar: &Sidecar, text: &str, result: &str) {
    let before = reloads(sidecar, result);
    std::fs::write(&sidecar.file, format!("{BASE}{text}")).unwrap();
    sidecar.signal("HUP");
    wait_for(LONG, "the reload to be counted", || (reloads(sidecar, result) > before).then_some(()));
}

fn degraded(sidecar: &Sidecar, what: &str) -> Option<String> {
    let status = sidecar.api("/api/status");
    let list = status["degraded"].as_array().unwrap();
    list.iter().find(|it| it["what"] == what).map(|it| it["why"].as_str().unwrap().to_owned())
}

#[test]
fn a_hundred_bad_files_leave_the_old_settings_in_place() {
    let settings = "[datadog]\noutput = \"none\"\n[filter]\nmetrics = [\"noise\"]\n";
    let mut sidecar = Sidecar::start(settings, &[]);
    for _ in 0..100 {
        reload(&sidecar, "[filter]\nmetrics = 7\n[log]\nlevel = \"loud\"\n", "failed");
    }
    assert_eq!((reloads(&sidecar, "failed"), reloads(&sidecar, "ok")), (100.0, 0.0));
    let app = App::start(sidecar.statsd[0]);
    let filtered = || sidecar.metric("oomwatch_dropped_total{reason=\"filtered\"} ").filter(|count| *count >= 10.0);
    wait_for(LONG, "the old filter to act", filtered);
    app.stop();
    let why = degraded(&sidecar, "settings file").expect("the page says so");
    assert!(why.contains("filter.metrics") && why.contains("log.level"), "both faults: {why}");
    let log = sidecar.log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("settings file is bad")).collect();
    assert!(told.len() == 1 && told[0].contains("filter.metrics") && told[0].contains("log.level"), "{log}");
    reload(&sidecar, settings, "ok");
    assert_eq!(degraded(&sidecar, "settings file"), None, "it is over");
    assert_eq!(sidecar.terminate().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_at_load_change_what_they_can_and_lose_nothing() {
    let intake = FakeIntake::start().await;
    let base = settings(&intake);
    let (said, log) = tokio::task::spawn_blocking(move || {
        let mut sidecar = Sidecar::start(&base, &[KEY]);
        let app = App::start(sidecar.statsd[0]);
        let samples = |least: f64| {
            let enough = || sidecar.metric("oomwatch_statsd_samples_total ").filter(|count| *count >= least);
            wait_for(LONG, "more samples", enough)
        };
        let mut seen = samples(5_000.0);
        let changed = base.replace("[watch]", "counters = \"count\"\n[filter]\nmetrics = [\"noise\"]\n[watch]");
        let tagged = changed.replace("[datadog]", "[datadog]\ntags = [\"team:new\"]\nenv = \"test\"");
        // One that needs a restart among them: it is named, and nothing of it is taken over.
        let restart = tagged.replace("[watch]", "[log]\nlevel = \"debug\"\n[run]\nshutdown_timeout = \"9s\"\n[watch]");
        for text in [&changed, &tagged, &restart] {
            reload(&sidecar, text, "ok");
            seen = samples(seen + 5_000.0);
        }
        let why = degraded(&sidecar, "settings").expect("the page names what waits");
        assert!(why.contains("run.shutdown_timeout") && !why.contains("log.level"), "{why}");
        let filtered = || sidecar.metric("oomwatch_dropped_total{reason=\"filtered\"} ").filter(|it| *it > 500.0);
        wait_for(LONG, "the filter to act", filtered);
        let said = app.stop();
        assert_eq!(sidecar.terminate().code(), Some(0));
        (said, sidecar.log())
    })
    .await
    .unwrap();
    let seen = intake.seen();
    assert_eq!(seen.counter("load").round() as u64, said.load, "every sample, under whatever settings it came");
    let tagged = |tag: &str| {
        let series = seen.series();
        series.iter().filter(|it| it.metric == "load").filter(|it| it.tags.iter().any(|have| have == tag)).count()
    };
    assert!(tagged("team:new") > 0 && tagged("env:test") > 0, "the new tags");
    assert!(log.contains("stay as they were until a restart: run.shutdown_timeout"), "{log}");
}

/// As the kubelet does it: the name leads through a link to a folder that is replaced whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_swapped_behind_its_link_is_found_without_a_restart() {
    let intake = FakeIntake::start().await;
    let dir = tempfile::tempdir().unwrap();
    for (version, key) in [("1", "a".repeat(32)), ("2", "b".repeat(32))] {
        std::fs::create_dir(dir.path().join(version)).unwrap();
        std::fs::write(dir.path().join(version).join("key"), key).unwrap();
    }
    symlink(dir.path().join("1"), dir.path().join("data")).unwrap();
    let file = dir.path().join("data/key");
    let more = format!("[datadog]\napi_key_file = \"{}\"", file.display());
    let mut sidecar = Sidecar::start(&settings(&intake).replace("[datadog]", &more), &[]);
    let app = App::start(sidecar.statsd[0]);
    intake.wait_for("the first key", LONG, |seen| seen.requests.iter().any(|it| it.key.starts_with('a'))).await;
    symlink(dir.path().join("2"), dir.path().join("data.new")).unwrap();
    std::fs::rename(dir.path().join("data.new"), dir.path().join("data")).unwrap();
    intake.wait_for("the second key", LONG, |seen| seen.requests.iter().any(|it| it.key.starts_with('b'))).await;
    app.stop();
    tokio::task::spawn_blocking(move || assert_eq!(sidecar.terminate().code(), Some(0))).await.unwrap();
}
