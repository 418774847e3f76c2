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
