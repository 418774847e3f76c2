//! The promise, under a real limit: in a pod in a can, a real asynq worker on a real Redis leaks StatsD clients until the
//! kernel kills it at 256 MiB. The event that names the culprit is at the intake, and the profile on disk, before that; the
//! end of the story within two seconds after.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::can::{self, again_inside, is_inside};
use support::intake::FakeIntake;
use support::{Kept, Sidecar, have, root, wait_for, worker};
use tokio::time::Instant;

const TEST: &str = "the_leak_is_named_before_the_kill_and_the_kill_told_after_it";

#[test]
fn the_leak_is_named_before_the_kill_and_the_kill_told_after_it() {
    if is_inside() {
        return inside_the_can();
    }
    if !have("go", TEST) || !have("redis-server", TEST) {
        return;
    }
    worker();
    again_inside(TEST, 256 << 20);
}

fn inside_the_can() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let intake = FakeIntake::start().await;
        tokio::task::spawn_blocking(move || story(&intake)).await.unwrap();
    });
}

/// What everybody in the can may read and run, and the worker's Redis.
struct Stage {
    files: can::Stage,
    redis: SocketAddr,
    _redis: Kept,
}

impl Stage {
    fn new() -> Stage {
        let files = can::Stage::new(&root().join("target/demo-worker"));
        let redis = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let server = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &redis.port().to_string(), "--save", "", "--dir"])
            .arg(files.path("."))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        wait_for(Duration::from_secs(10), "Redis", || TcpStream::connect(redis).ok());
        Stage { files, redis, _redis: Kept(server) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path(name)
    }

    fn sidecar(&self, intake: &FakeIntake) -> Sidecar {
        let settings = format!(
            "[datadog]\nurl = \"{}\"\nhostname = \"node-1\"\nservice = \"receipts\"\n[profile]\ndir = \"{}\"\n",
            intake.url(),
            self.path("profiles").display()
        );
        let env = [("DD_API_KEY", "0123456789abcdef0123456789abcdef"), ("POD_NAME", "receipts-7f9")];
        Sidecar::spawn(&settings, &env, self.files.oomwatch())
    }

    /// The app, under the limit; what is waited for is the worker itself, which the script becomes.
    fn app(&self, statsd: SocketAddr) -> Kept {
        let child = self
            .files
            .app()
            .args(["-statsd", &statsd.to_string(), "-redis", &self.redis.to_string()])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Kept(child)
    }
}

fn story(intake: &FakeIntake) {
    let stage = Stage::new();
    let sidecar = stage.sidecar(intake);
    let mut app = stage.app(sidecar.statsd[0]);
    let (mut named, mut stored) = (None, None);
    let status: ExitStatus = wait_for(Duration::from_secs(240), "the kernel's kill", || {
        named = named.or_else(|| event(intake, "newStatsdBuffer").map(|_| Instant::now()));
        stored = stored.or_else(|| is_stored(&sidecar, &stage.path("profiles")).then(Instant::now));
        app.0.try_wait().unwrap()
    });
    let killed = Instant::now();
    assert_eq!(status.signal(), Some(9), "{status}");
    let named =
        named.unwrap_or_else(|| panic!("killed before the culprit was named: {}", sidecar.api("/api/incidents")));
    let stored = stored.expect("a heap profile after a collection is on disk before the kill");
    let event = event(intake, "newStatsdBuffer").unwrap();
    assert!(event["text"].as_str().unwrap().contains("main.handleJob"), "{event}");
    assert!(event["tags"].as_array().unwrap().iter().any(|tag| tag == "oomwatch_culprit:main.handleJob"), "{event}");

    let closed = wait_for(Duration::from_secs(10), "the incident to be closed as killed", || {
        let incidents = sidecar.api("/api/incidents");
        (incidents[0]["state"] == "killed").then(Instant::now)
    });
    let told = wait_for(Duration::from_secs(10), "the event of the kill", || {
        let seen = intake.seen();
        seen.events().iter().any(|event| event["title"].as_str().unwrap_or("").contains("killed")).then(Instant::now)
    });
    println!(
        "kill: named {:.1} s and profile on disk {:.1} s before the kill; closed {:.2} s and told {:.2} s after it",
        (killed - named).as_secs_f64(),
        (killed - stored).as_secs_f64(),
        (closed - killed).as_secs_f64(),
        (told - killed).as_secs_f64()
    );
    assert!(closed - killed <= Duration::from_secs(2) && told - killed <= Duration::from_secs(2));
    let incidents = sidecar.api("/api/incidents");
    assert_eq!(incidents.as_array().unwrap().len(), 1, "one incident from alert to kill: {incidents}");
}

fn event(intake: &FakeIntake, words: &str) -> Option<Value> {
    let seen = intake.seen();
    seen.events().into_iter().find(|event| event["title"].as_str().unwrap_or("").contains(words)).cloned()
}

/// Whether a heap after a forced collection, pulled for the incident and not its baseline, is a file.
fn is_stored(sidecar: &Sidecar, dir: &Path) -> bool {
    let incidents = sidecar.api("/api/incidents");
    let profiles = incidents[0]["profiles"].as_array().cloned().unwrap_or_default();
    profiles.iter().any(|profile| {
        let file = format!("{}.heap_gc.pb.gz", profile["id"].as_str().unwrap());
        profile["type"] == "heap_gc" && profile["reason"] != "baseline" && dir.join(file).is_file()
    })
}
