//! The state folder, with the real sidecar and a real process: what a restart of the sidecar must not cost.
//!
//! The app grows fast enough for the burst rule, which needs no minutes. Needs python3.
#![allow(clippy::unwrap_used, reason = "a test that unwraps says where it broke by its line")]

mod support;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::cgroup::Cgroup;
use support::intake::FakeIntake;
use support::{Kept, Sidecar, have, wait_for};

const SOON: Duration = Duration::from_secs(60);

/// Takes a MiB every tenth of a second until the number of MiB on its input is reached.
const HOG: &str = "
import sys, time
hoard = []
for line in sys.stdin:
    while len(hoard) < int(line):
        hoard.append(bytearray(b'x' * (1 << 20)))
        time.sleep(0.1)
";

struct App(Kept);

impl App {
    fn start() -> App {
        let mut python = Command::new("python3");
        App(Kept(python.args(["-c", HOG]).stdin(Stdio::piped()).spawn().unwrap()))
    }

    /// In the cgroup, beside a process that outlives it and so keeps the cgroup.
    fn start_in(cgroup: &Cgroup) -> (App, Kept) {
        let enter = "echo $$ > \"$0\" && exec \"$@\"";
        let bash = |arguments: &[&str]| {
            let mut bash = Command::new("bash");
            bash.args(["-c", enter]).arg(cgroup.procs()).args(arguments).stdin(Stdio::piped());
            Kept(bash.spawn().unwrap())
        };
        (App(bash(&["python3", "-c", HOG])), bash(&["sleep", "600"]))
    }

    fn grow(&mut self, mebibytes: u32) {
        writeln!(self.0.0.stdin.as_mut().unwrap(), "{mebibytes}").unwrap();
    }

    fn end(&mut self) {
        self.0.0.kill().unwrap();
        self.0.0.wait().unwrap();
    }
}

fn sidecar(app: &App, dir: &Path) -> Sidecar {
    let settings = format!(
        "[watch]\npid = {}\nlimit = \"256MiB\"\ninterval = \"500ms\"\n[alert]\nstartup_grace = \"0s\"\n\
         [profile]\nurl = \"http://127.0.0.1:1/debug/pprof\"\n[state]\ndir = \"{}\"\n",
        app.0.0.id(),
        dir.display()
    );
    Sidecar::start(&settings, &[])
}

/// Its events go to this intake, and the limit is the cgroup's where there is one.
fn telling(app: &App, dir: &Path, intake: &FakeIntake, limit: &str) -> Sidecar {
    let settings = format!(
        "[datadog]\nurl = \"{}\"\nservice = \"worker\"\nhostname = \"node-1\"\n[watch]\npid = {}\nlimit = \"{limit}\"\n\
         interval = \"500ms\"\n[alert]\nstartup_grace = \"0s\"\n[profile]\nurl = \"http://127.0.0.1:1/debug/pprof\"\n\
         [state]\ndir = \"{}\"\n",
        intake.url(),
        app.0.0.id(),
        dir.display()
    );
    Sidecar::start(&settings, &[("DD_API_KEY", "key")])
}

/// The events so far, and how many they are once there are at least so many.
fn events(intake: &FakeIntake, least: usize) -> Vec<Value> {
    wait_for(SOON, "an event", || {
        let seen: Vec<Value> = intake.seen().events().into_iter().cloned().collect();
        (seen.len() >= least).then_some(seen)
    })
}

/// A story is told until the sidecar is stopped; meanwhile `end` befalls the app; and the next sidecar ends the story. Gives the
/// story and its events.
fn ends_while_nobody_looks(
    mut app: App,
    limit: &str,
    intake: &FakeIntake,
    end: impl Fn(&mut App),
) -> (Value, Vec<Value>) {
    let dir = tempfile::tempdir().unwrap();
    let mut first = telling(&app, dir.path(), intake, limit);
    wait_for(SOON, "the app", || (memory_mib(&first) > 0).then_some(()));
    app.grow(150);
    let told = wait_for(SOON, "the alarm", || first.incidents().into_iter().find(|it| it["severity"] == "crit"));
    let before = events(intake, 1).len();
    assert!(first.terminate().success());
    end(&mut app);

    let mut second = telling(&app, dir.path(), intake, limit);
    let over = wait_for(SOON, "the end", || second.incidents().into_iter().find(|it| !it["closed_at"].is_null()));
    assert_eq!((&over["id"], &over["opened_at"]), (&told["id"], &told["opened_at"]));
    let events = events(intake, before + 1);
    assert!(events.iter().all(|event| event["aggregation_key"] == events[0]["aggregation_key"]), "{events:?}");
    assert!(second.terminate().success());
    let third = telling(&app, dir.path(), intake, limit);
    let history = wait_for(SOON, "the history", || Some(third.incidents()).filter(|it| !it.is_empty()));
    assert_eq!((history.len(), &history[0]), (1, &over), "it has ended once");
    (over, events)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_story_whose_process_went_while_the_sidecar_was_away_is_ended_at_the_first_look() {
    if !have("python3", "state") {
        return;
    }
    let intake = FakeIntake::start().await;
    let ended = move || ends_while_nobody_looks(App::start(), "256MiB", &intake, App::end);
    let (over, events) = tokio::task::spawn_blocking(ended).await.unwrap();
    assert_eq!(over["state"], "recovered", "{over}");
    let verdict = over["verdict"].as_str().unwrap();
    assert!(verdict.contains("gone when the sidecar came back, and why is not known"), "{verdict}");
    let last = events.last().unwrap();
    assert_eq!(last["alert_type"], "success", "{last}");
    assert!(last["title"].as_str().unwrap().contains("why is not known"), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_that_its_cgroup_counted_meanwhile_is_told_as_one() {
    let test = "a_kill_while_the_sidecar_is_away";
    if !have("python3", test) {
        return;
    }
    let cgroup = match Cgroup::new("state", 256 << 20) {
        Ok(cgroup) => cgroup,
        Err(why) => {
            assert!(std::env::var_os("CI").is_none(), "{test}: {why}");
            let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
            return;
        }
    };
    let intake = FakeIntake::start().await;
    let killed = move || {
        let (app, _beside) = App::start_in(&cgroup);
        ends_while_nobody_looks(app, "auto", &intake, |app| {
            app.grow(400);
            app.0.0.wait().unwrap();
            assert!(cgroup.has_killed());
        })
    };
    let (over, events) = tokio::task::spawn_blocking(killed).await.unwrap();
    assert_eq!(over["state"], "killed", "{over}");
    let last = events.last().unwrap();
    assert_eq!(last["alert_type"], "error", "{last}");
    assert!(last["title"].as_str().unwrap().contains("was OOM-killed"), "{last}");
}

fn memory_mib(sidecar: &Sidecar) -> u64 {
    sidecar.api("/api/status")["memory"]["rss_bytes"].as_u64().unwrap_or(0) >> 20
}

#[test]
fn a_leak_that_was_told_is_not_told_again_after_a_restart_and_its_incident_goes_on() {
    if !have("python3", "state") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut app = App::start();
    let mut first = sidecar(&app, dir.path());
    wait_for(SOON, "the app", || (memory_mib(&first) > 0).then_some(()));
    app.grow(150);
    let told = wait_for(SOON, "the alarm", || first.incidents().into_iter().find(|it| it["severity"] == "crit"));
    assert!(first.log().contains("growth alert"));
    assert!(first.terminate().success());
    assert!(std::fs::read(dir.path().join("oomwatch.state")).unwrap().starts_with(b"oomwatch-state 1 "));

    let mut second = sidecar(&app, dir.path());
    wait_for(SOON, "the incident of the first", || (!second.incidents().is_empty()).then_some(()));
    wait_for(SOON, "the app again", || (memory_mib(&second) > 100).then_some(()));
    app.grow(225);
    wait_for(SOON, "more growth", || (memory_mib(&second) >= 220).then_some(()));
    let now = second.incidents();
    assert_eq!(now.len(), 1, "{now:?}");
    assert_eq!((&now[0]["id"], &now[0]["opened_at"]), (&told["id"], &told["opened_at"]));
    assert_eq!((&now[0]["closed_at"], &now[0]["evidence"][0]), (&Value::Null, &told["evidence"][0]));
    assert_eq!(second.api("/api/status")["memory"]["state"], "crit");
    assert!(!second.log().contains("growth alert"), "{}", second.log());

    app.end();
    let over = wait_for(SOON, "the end", || second.incidents().into_iter().find(|it| !it["closed_at"].is_null()));
    assert_eq!(over["id"], told["id"]);
    assert!(second.terminate().success());

    let mut other = App::start();
    let third = sidecar(&other, dir.path());
    let history = wait_for(SOON, "the history", || Some(third.incidents()).filter(|it| !it.is_empty()));
    assert_eq!((history.len(), &history[0]["id"]), (1, &told["id"]), "a new process, and the old story below");
    other.end();
}

#[test]
fn a_folder_that_cannot_be_used_and_a_damaged_file_cost_the_state_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("oomwatch.state"), b"oomwatch-state 1 00000000\n{}").unwrap();
    let state = |path: &Path| format!("[state]\ndir = \"{}\"\n", path.display());
    let mut damaged = Sidecar::start(&state(dir.path()), &[]);
    assert_eq!(damaged.metric("oomwatch_state_failed_total{reason=\"damaged\"} "), Some(1.0));
    assert!(damaged.log().contains("everything is learnt anew"), "{}", damaged.log());
    assert!(damaged.terminate().success());

    let mut nowhere = Sidecar::start(&state(&dir.path().join("oomwatch.state/sub")), &[]);
    assert!(nowhere.summary.contains("degraded state file"), "{}", nowhere.summary);
    let status = nowhere.api("/api/status");
    let view = status["degraded"].as_array().unwrap().iter().find(|it| it["what"] == "state file").unwrap();
    assert!(view["fix"].as_str().unwrap().contains("emptyDir"), "{view}");
    assert!(nowhere.terminate().success());
}
