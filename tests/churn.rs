//! A client for each job, closed again: a real datadog-go program gets a notice that says how many it makes, and no alarm. The same
//! program with one client gets nothing, and the one that never closes them is a leak.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::intake::FakeIntake;
use support::{Kept, Sidecar, go_build, have, wait_for};
use tokio::time::Instant;

struct App(Kept);

impl App {
    fn start(mode: &str) -> App {
        let mut command = Command::new(go_build("tests/leaks", "./churn", "leaks").join("churn"));
        App(Kept(command.arg(mode).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()))
    }

    /// Begins its jobs.
    fn begin(&mut self, sidecar: &Sidecar) {
        writeln!(self.0.0.stdin.as_ref().unwrap(), "{}", sidecar.statsd[0]).unwrap();
        let mut line = String::new();
        BufReader::new(self.0.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "begun");
    }
}

fn sidecar(intake: &FakeIntake, app: &App) -> Sidecar {
    let settings = format!(
        "[datadog]\nurl = \"{}\"\nhostname = \"node-1\"\n[watch]\npid = {}\nlimit = \"256MiB\"\n[alert]\nstartup_grace = \"5s\"\n",
        intake.url(),
        app.0.0.id()
    );
    Sidecar::start(&settings, &[("DD_API_KEY", "key")])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_for_each_job_that_is_closed_is_a_notice_and_no_alarm() {
    story("churn", |intake, app| {
        let sidecar = sidecar(intake, app);
        app.begin(&sidecar);
        let notice = wait_for(Duration::from_secs(120), "the notice", || sidecar.incidents().into_iter().next());
        let _ = writeln!(std::io::stderr(), "churn: {}", notice["verdict"]);
        assert_eq!((&notice["kind"], &notice["severity"]), (&"client_churn".into(), &"notice".into()), "{notice}");
        let verdict = notice["verdict"].as_str().unwrap();
        assert!(verdict.contains("StatsD clients a minute") && verdict.contains("make one at start"), "{verdict}");
        let made = sidecar.metric("oomwatch_statsd_new_senders_total").unwrap();
        assert!(made >= 60.0, "{made}");
        assert_eq!(sidecar.incidents().len(), 1);
        assert!(intake.seen().events().is_empty(), "a notice makes no event");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_for_all_jobs_is_fine() {
    story("shared", |intake, app| {
        let sidecar = sidecar(intake, app);
        app.begin(&sidecar);
        let until = Instant::now() + Duration::from_secs(45);
        while Instant::now() < until {
            assert_eq!(sidecar.incidents(), Vec::<Value>::new());
            std::thread::sleep(Duration::from_millis(500));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_for_each_job_that_is_never_closed_is_a_leak_and_no_churn() {
    story("leak", |intake, app| {
        let sidecar = sidecar(intake, app);
        app.begin(&sidecar);
        let leak = wait_for(Duration::from_secs(120), "the leak", || sidecar.incidents().into_iter().next());
        assert_eq!((&leak["kind"], &leak["severity"]), (&"client_leak".into(), &"warn".into()), "{leak}");
    })
    .await;
}

async fn story(mode: &'static str, told: impl FnOnce(&FakeIntake, &mut App) + Send + 'static) {
    if have("go", mode) {
        let intake = FakeIntake::start().await;
        tokio::task::spawn_blocking(move || told(&intake, &mut App::start(mode))).await.unwrap();
    }
}
