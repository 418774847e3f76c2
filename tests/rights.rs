//! What the sidecar does when it may see less than it should, and when a process comes back under the number of another: in a pod
//! in a can, the real sidecar. Missing rights are told with the line that mends them, and never stop it.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::can::{Stage, USER, again_inside, is_inside};
use support::{Kept, Sidecar, sender, wait_for};

const MEMORY: u64 = 256 << 20;
const LIMIT: &str = "[watch]\nlimit = \"256MiB\"\ninterval = \"100ms\"\n";

/// One way to be without rights, and what must be said of it.
struct Case {
    name: &'static str,
    uid: u32,
    /// The app forbids others to look into it, as programs with secrets do.
    undumpable: bool,
    proc: &'static str,
    hidepid: &'static str,
    /// The app is seen at all.
    sees: bool,
    fix: &'static str,
}

const FULL: Case =
    Case { name: "full", uid: USER, undumpable: false, proc: "/proc", hidepid: "0", sees: true, fix: "" };

const CASES: [Case; 5] = [
    FULL,
    Case {
        name: "another user",
        uid: 65_532,
        fix: "on the oomwatch container: securityContext: {runAsUser: 10001, runAsGroup: 10001}",
        ..FULL
    },
    Case {
        name: "undumpable",
        undumpable: true,
        fix: "make the app's binary readable by its own user: COPY --chmod=0555 in its Dockerfile",
        ..FULL
    },
    Case {
        name: "hidepid=2",
        uid: 65_532,
        hidepid: "2",
        sees: false,
        fix: "spec.template.spec: {shareProcessNamespace: true}; or set watch.name or watch.cmdline",
        ..FULL
    },
    Case { name: "no /proc", proc: "/nowhere", sees: false, fix: "set watch.proc to where it is mounted", ..FULL },
];

#[test]
fn missing_rights_are_told_and_never_stop_it() {
    if !is_inside() {
        return again_inside("missing_rights_are_told_and_never_stop_it", MEMORY);
    }
    let stage = Stage::new(&std::env::current_exe().unwrap());
    for case in CASES {
        let hidden = Command::new("mount").args(["-o", &format!("remount,hidepid={}", case.hidepid), "/proc"]).status();
        assert!(hidden.unwrap().success(), "{}", case.name);
        case.check(&stage);
    }
}

/// The app of the test above, which runs this program once more; by itself it does nothing.
#[test]
fn be_the_app() {
    if let Ok(undumpable) = std::env::var("OOMWATCH_TEST_APP") {
        nix::sys::prctl::set_dumpable(undumpable == "false").unwrap();
        std::thread::sleep(Duration::from_secs(600));
    }
}

impl Case {
    fn check(&self, stage: &Stage) {
        let mut command = stage.app();
        command.args(["--exact", "be_the_app"]).env("OOMWATCH_TEST_APP", self.undumpable.to_string());
        let app = Kept(command.spawn().unwrap());
        // The script becomes the app, and the app closes itself: what the kernel lets nobody look into is root's.
        let owner = if self.undumpable { 0 } else { USER };
        let closed = || std::fs::metadata(format!("/proc/{}/environ", app.0.id())).is_ok_and(|it| it.uid() == owner);
        let is_app = || std::fs::read_to_string(format!("/proc/{}/comm", app.0.id())).is_ok_and(|it| it == "app\n");
        wait_for(Duration::from_secs(20), "the app", || (is_app() && closed()).then_some(()));
        let settings = format!("[datadog]\noutput = \"none\"\n{LIMIT}proc = \"{}\"\n", self.proc);
        let names = ["CAN_CGROUP", "CAN_MOUNT"];
        let can = names.map(|name| (name, std::env::var(name).unwrap()));
        let env: Vec<(&str, &str)> = can.iter().map(|(name, value)| (*name, &value[..])).collect();
        let mut sidecar = Sidecar::spawn(&settings, &env, stage.oomwatch_as(self.uid));
        let status = wait_for(Duration::from_secs(20), self.name, || {
            let status = sidecar.api("/api/status");
            let fixed = self.fix.is_empty() || fixes(&status).contains(self.fix);
            let seen = status["memory"]["rss_bytes"].as_u64() > Some(0);
            (fixed && seen == self.sees).then_some(status)
        });
        println!("{}: {:?}", self.name, fixes(&status));
        assert_eq!(self.fix.is_empty(), fixes(&status).is_empty(), "{}: {status}", self.name);
        assert_eq!(status["target"].is_null(), !self.sees, "{}: {status}", self.name);
        sender(sidecar.statsd[0]).send(b"still:1|c").unwrap();
        wait_for(Duration::from_secs(10), "a sample", || {
            (sidecar.metric("oomwatch_statsd_samples_total ") == Some(1.0)).then_some(())
        });
        assert_eq!(sidecar.api("/api/incidents"), Value::Array(Vec::new()), "{}", self.name);
        assert!(sidecar.terminate().success(), "{}: {}", self.name, sidecar.log());
        assert!(!sidecar.log().contains("ERROR"), "{}: {}", self.name, sidecar.log());
    }
}

/// The mending lines for what concerns the app: not those for the output and the profiles, which these tests do without.
fn fixes(status: &Value) -> BTreeSet<&str> {
    let degraded = status["degraded"].as_array().unwrap().iter();
    let of_the_app = degraded.filter(|it| it["what"] != "output" && it["what"] != "profiles");
    of_the_app.filter_map(|it| it["fix"].as_str()).collect()
}

/// How often the app comes back; `dev/soak comebacks` gives a number.
fn comebacks() -> usize {
    std::env::var("OOMWATCH_COMEBACKS").map_or(50, |count| count.parse().expect("a number"))
}

/// Every second life has ninety mebibytes more, a third of the limit: across the lives that is a rise no rule should see.
#[test]
fn an_app_that_comes_back_under_its_old_number_is_another_app() {
    let test = "an_app_that_comes_back_under_its_old_number_is_another_app";
    if !support::have("python3", test) {
        return;
    }
    if !is_inside() {
        return again_inside(test, MEMORY);
    }
    let stage = Stage::new(&std::env::current_exe().unwrap());
    let settings = format!("[datadog]\noutput = \"none\"\n[alert]\nstartup_grace = \"0s\"\n{LIMIT}");
    let sidecar = Sidecar::spawn(&settings, &[], stage.oomwatch());
    let (mut number, mut lives) = (None, BTreeSet::new());
    for life in 0..comebacks() {
        let app = come_back(&mut number, if life % 2 == 0 { 5 } else { 95 });
        let incarnation =
            wait_for(Duration::from_secs(20), "the new life to be read", || newest(&sidecar, app.0.id(), &lives));
        assert!(lives.insert(incarnation));
    }
    let incidents = sidecar.api("/api/incidents");
    println!("{} lives of pid {}, {} incidents", lives.len(), number.unwrap(), incidents.as_array().unwrap().len());
    assert_eq!(incidents, Value::Array(Vec::new()));
    assert_eq!(lives.len(), comebacks());
}

/// Starts an app of that size under the number of the one before it; another process may take the number first, so it tries again.
fn come_back(number: &mut Option<u32>, mebibytes: u32) -> Kept {
    let script = format!("import time; hoard = b'x' * ({mebibytes} << 20); time.sleep(600)");
    wait_for(Duration::from_secs(20), "the old number", || {
        if let Some(number) = number {
            std::fs::write("/proc/sys/kernel/ns_last_pid", (*number - 1).to_string()).unwrap();
        }
        let mut command = Command::new("python3");
        let child = command.args(["-c", &script]).uid(USER).gid(USER).stdout(Stdio::null()).spawn().unwrap();
        let app = Kept(child);
        (*number.get_or_insert(app.0.id()) == app.0.id()).then_some(app)
    })
}

/// The life that is watched now, once it is a new one whose memory has been read.
fn newest(sidecar: &Sidecar, pid: u32, known: &BTreeSet<u64>) -> Option<u64> {
    let (readings, status) = (sidecar.api("/api/readings"), sidecar.api("/api/status"));
    let at = readings["t"].as_array()?.len().checked_sub(1)?;
    let incarnation = readings["incarnation"][at].as_u64().filter(|it| !known.contains(it))?;
    let read = readings["rss_bytes"][at].as_u64().is_some_and(|rss| rss > 4 << 20);
    (read && status["target"]["pid"] == pid).then_some(incarnation)
}
