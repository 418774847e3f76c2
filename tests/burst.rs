//! Evidence before the kill, when memory runs: a Go program in a real 512 MiB cgroup that stands still at about 60 MiB and then
//! takes 17 or 100 MiB a second, and one that never stood still. The intake must have the alert, and the disk the heap, before
//! the kernel's kill.
//!
//! The quiet before is 20 s here, with grace and baseline shortened to 10 s; `dev/soak burst` waits 90 s with default settings,
//! with several cans side by side.
#![allow(clippy::unwrap_used)]

#[path = "zoo/beast.rs"]
mod beast;
mod support;

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use support::can::{Stage, again_inside, is_inside};
use support::intake::{Decoded, FakeIntake};
use support::{Kept, Sidecar, have, wait_for};
use tokio::time::Instant;

const MEMORY: u64 = 512 << 20;

#[derive(Clone, Copy)]
struct Burst {
    test: &'static str,
    /// MiB a second.
    rate: u32,
    is_quiet_first: bool,
    /// The least seconds from alert and from profile to the kill; `None` where no profile is promised.
    alert: f64,
    profile: Option<f64>,
}

#[test]
fn steep_growth_after_quiet_leaves_its_evidence() {
    let test = "steep_growth_after_quiet_leaves_its_evidence";
    Burst { test, rate: 17, is_quiet_first: true, alert: 5.0, profile: Some(3.0) }.run();
}

#[test]
fn a_rush_to_the_limit_leaves_its_evidence() {
    let test = "a_rush_to_the_limit_leaves_its_evidence";
    Burst { test, rate: 100, is_quiet_first: true, alert: 0.0, profile: Some(0.0) }.run();
}

#[test]
fn steep_growth_from_the_first_second_is_told() {
    let test = "steep_growth_from_the_first_second_is_told";
    Burst { test, rate: 17, is_quiet_first: false, alert: 0.0, profile: None }.run();
}

/// Seconds before the kill at which each came; below zero is after it.
#[derive(Debug)]
struct Leads {
    alert: Option<f64>,
    heap: Option<f64>,
    heap_gc: Option<f64>,
    /// Of the incidents, newest first.
    states: Vec<String>,
}

impl Burst {
    fn run(self) {
        if is_inside() {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            return runtime.block_on(async {
                let intake = FakeIntake::start().await;
                tokio::task::spawn_blocking(move || self.story(&intake)).await.unwrap();
            });
        }
        if have("go", self.test) {
            beast::beast();
            again_inside(self.test, MEMORY);
        }
    }

    /// The quiet time before, and the settings that go with it.
    fn quiet(self) -> (u64, &'static str) {
        match (self.is_quiet_first, std::env::var("OOMWATCH_BURST_QUIET")) {
            (false, _) => (0, ""),
            (true, Ok(seconds)) => (seconds.parse().expect("a number of seconds"), ""),
            (true, Err(_)) => (20, "[alert]\nstartup_grace = \"10s\"\n"),
        }
    }

    fn sidecar(self, stage: &Stage, intake: &FakeIntake) -> Sidecar {
        let (_, alert) = self.quiet();
        let baseline = if alert.is_empty() { "60s" } else { "10s" };
        let settings = format!(
            "[datadog]\nurl = \"{}\"\nhostname = \"node-1\"\n[profile]\ndir = \"{}\"\nbaseline_after = \"{baseline}\"\n{alert}",
            intake.url(),
            stage.path("profiles").display()
        );
        let env = [("DD_API_KEY", "0123456789abcdef0123456789abcdef"), ("POD_NAME", "burst-1")];
        Sidecar::spawn(&settings, &env, stage.oomwatch())
    }

    #[expect(clippy::disallowed_methods, reason = "a file's time is wall time")]
    fn story(self, intake: &FakeIntake) {
        let stage = Stage::new(&beast::beast());
        let sidecar = self.sidecar(&stage, intake);
        let (quiet, _) = self.quiet();
        let live = if self.is_quiet_first { "48" } else { "1" };
        let mut command = stage.app();
        command.args(["-live", live, "-quiet", &format!("{quiet}s"), "-rate", &self.rate.to_string()]);
        let mut app = Kept(command.stdout(Stdio::null()).spawn().unwrap());
        let status = wait_for(Duration::from_secs(quiet + 120), "the kernel's kill", || app.0.try_wait().unwrap());
        let killed = (Instant::now(), SystemTime::now());
        assert_eq!(status.signal(), Some(9), "{status}");
        let leads = leads(&stage, &sidecar, intake, killed);
        println!("burst {} MiB/s after {quiet} s: {leads:.2?}; {:?}", self.rate, alert(intake));
        let alert = leads.alert.unwrap_or_else(|| panic!("no alert: {}", sidecar.api("/api/incidents")));
        assert!(alert > self.alert, "{leads:?}");
        // It grew until it was killed: whoever is told that it is over looks away.
        assert!(!leads.states.iter().any(|state| state.contains("recovered")), "{leads:?}");
        if let Some(least) = self.profile {
            let profile = if least > 0.0 { leads.heap_gc } else { leads.heap };
            assert!(profile.is_some_and(|lead| lead > least), "{leads:?}");
        }
    }
}

fn leads(stage: &Stage, sidecar: &Sidecar, intake: &FakeIntake, killed: (Instant, SystemTime)) -> Leads {
    // What is on its way at the kill arrives in a moment, or never; only what came before counts in the end.
    let incidents = wait_for(Duration::from_secs(10), "the incident to be closed as killed", || {
        let incidents = sidecar.api("/api/incidents").as_array().cloned().unwrap();
        incidents.iter().any(|incident| incident["state"] == "killed").then_some(incidents)
    });
    let stored = |kind: &str| {
        let profiles = incidents.iter().flat_map(|incident| incident["profiles"].as_array().unwrap());
        let ours = profiles.filter(|it| it["type"] == kind && it["reason"] == "memory_growth");
        let file = |id: &str| stage.path("profiles").join(format!("{id}.{kind}.pb.gz"));
        let written = ours.filter_map(|it| file(it["id"].as_str().unwrap()).metadata().ok()?.modified().ok());
        written.map(|at| before(killed.1.duration_since(at).map_err(|late| late.duration()))).reduce(f64::max)
    };
    let alert = alert(intake).map(|(at, _)| {
        before(killed.0.checked_duration_since(at).ok_or_else(|| at.saturating_duration_since(killed.0)))
    });
    let states = incidents.iter().map(|it| format!("{} {} {}", it["severity"], it["kind"], it["state"])).collect();
    Leads { alert, heap: stored("heap"), heap_gc: stored("heap_gc"), states }
}

fn before(lead: Result<Duration, Duration>) -> f64 {
    lead.map_or_else(|late| -late.as_secs_f64(), |lead| lead.as_secs_f64())
}

/// When the first event came that does not tell of the kill itself, and its title.
fn alert(intake: &FakeIntake) -> Option<(Instant, String)> {
    let seen = intake.seen();
    let events = seen.accepted().filter(|request| request.path == "/api/v1/events");
    let titles = events.filter_map(|request| match &request.body {
        Decoded::Json(event) => Some((request.at, event["title"].as_str()?.to_owned())),
        _ => None,
    });
    titles.into_iter().find(|(_, title)| !title.contains("killed"))
}
