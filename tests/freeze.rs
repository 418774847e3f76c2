//! The freeze at the limit, for real: a Go program in a v1 or v2 memory cgroup of 64 MiB whose mapped pages are all that the
//! kernel can take back. It is not killed, it hangs; and the sidecar says so within 15 seconds. Beside it an app at the same
//! limit that only copies files, which is well and is left in peace.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::cgroup::Cgroup;
use support::intake::FakeIntake;
use support::{Kept, Sidecar, go_build, have, root, wait_for};
use tokio::time::Instant;

const LIMIT: u64 = 64 << 20;
/// From the last second in which it worked to the alarm.
const PROMISED: Duration = Duration::from_secs(15);

/// In so long it is told by a sidecar that has never heard the app, and a bit.
const UNHEARD: Duration = Duration::from_secs(12);

fn app() -> PathBuf {
    go_build("tests/frozen", "./...", "frozen").join("frozen")
}

/// The app in its cgroup; killed at the end, which a frozen one takes a while for.
struct Frozen(Kept);

impl Frozen {
    /// Runs a copy made inside of the cgroup: so the program's pages are charged to it, as after the pull of an image.
    fn start(cgroup: &Cgroup, dir: &Path, arguments: &[&str]) -> (Frozen, String) {
        let become_it = r#"echo $$ > "$0" && cp "$1" "$2/app" && sync "$2/app" && exec "$2/app" "$2/file" "${@:3}""#;
        let mut command = Command::new("bash");
        command.arg("-c").arg(become_it).arg(cgroup.procs()).arg(app()).arg(dir).args(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("pprof=").unwrap_or_else(|| panic!("said {line:?}")).to_owned();
        (Frozen(Kept(child)), url)
    }

    /// Begins its work, which it reports there.
    fn begin(&mut self, sidecar: &Sidecar) {
        writeln!(self.0.0.stdin.as_ref().unwrap(), "{}", sidecar.statsd[0]).unwrap();
    }
}

/// A folder on a disk: pages of a tmpfs are no file's pages, and nothing can be read in again.
fn disk() -> tempfile::TempDir {
    tempfile::tempdir_in(root().join("target")).unwrap()
}

/// The cgroup, unless this machine has none to make one in.
fn cgroup(test: &str) -> Option<Cgroup> {
    if !have("go", test) {
        return None;
    }
    match Cgroup::new(test, LIMIT) {
        Ok(cgroup) => Some(cgroup),
        Err(why) => {
            assert!(std::env::var_os("CI").is_none(), "{test}: {why}");
            let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
            None
        }
    }
}

fn sidecar(intake: &FakeIntake, app: &Frozen, pprof: &str, state: &Path) -> Sidecar {
    let settings = format!(
        "[datadog]\nurl = \"{}\"\nhostname = \"node-1\"\n[watch]\npid = {}\n[profile]\nurl = \"{pprof}\"\n[state]\ndir = \"{}\"\n",
        intake.url(),
        app.0.0.id(),
        state.display()
    );
    Sidecar::start(&settings, &[("DD_API_KEY", "key")])
}

fn datagrams(sidecar: &Sidecar) -> u64 {
    sidecar.api("/api/status")["statsd"]["datagrams"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_hangs_at_its_limit_is_told_within_fifteen_seconds() {
    let Some(cgroup) = cgroup("freeze") else { return };
    let intake = FakeIntake::start().await;
    tokio::task::spawn_blocking(move || freeze(&cgroup, &intake)).await.unwrap();
}

fn freeze(cgroup: &Cgroup, intake: &FakeIntake) {
    let dir = disk();
    let (mut app, pprof) = Frozen::start(cgroup, dir.path(), &["freeze", "32", "56"]);
    let state = tempfile::tempdir().unwrap();
    let mut sidecar = sidecar(intake, &app, &pprof, state.path());
    app.begin(&sidecar);
    // It says more than a hundred times a second that it works, and a few times at most when it is frozen.
    let (mut heard, mut looked, mut spoke) = (0, Instant::now(), Instant::now());
    let told = wait_for(Duration::from_secs(120), "the freeze is told", || {
        if looked.elapsed() >= Duration::from_secs(1) {
            let now = datagrams(&sidecar);
            spoke = if now >= heard + 30 { Instant::now() } else { spoke };
            (heard, looked) = (now, Instant::now());
        }
        assert!(!cgroup.has_killed(), "the kernel killed the app instead; {}", sidecar.log());
        sidecar.incidents().into_iter().find(|it| it["kind"] == "freeze")
    });
    let took = spoke.elapsed();
    let _ = writeln!(
        std::io::stderr(),
        "freeze told {:.1} s after it last worked: {}",
        took.as_secs_f64(),
        told["verdict"]
    );
    assert!(took <= PROMISED, "{took:?}; {told}");
    assert_eq!(told["severity"], "crit", "{told}");
    let verdict = told["verdict"].as_str().unwrap();
    for words in ["frozen at its memory limit", "pages a second read in from disk", "StatsD ", "restart it"] {
        assert!(verdict.contains(words), "{words:?} in {verdict}");
    }
    let event = wait_for(Duration::from_secs(20), "the freeze's own event", || {
        let seen = intake.seen();
        let title =
            |event: &Value| event["title"].as_str().is_some_and(|it| it.contains("is frozen at its memory limit"));
        seen.events().into_iter().find(|event| title(event)).cloned()
    });
    assert!(event["tags"].as_array().unwrap().contains(&"oomwatch_kind:freeze".into()), "{event}");
    assert!(!cgroup.has_killed());
    assert!(sidecar.terminate().success());
    let next = self::sidecar(intake, &app, &pprof, state.path());
    goes_on(&next, &told, cgroup);
    let told = intake.seen().events().iter().filter(|it| it["title"] == event["title"]).count();
    assert_eq!(told, 1, "{:?}", intake.seen().events());
    drop(app);
}

/// One freeze is one incident, whoever watches. The kernel may kill in the end after all, and then that is its end.
fn goes_on(next: &Sidecar, told: &Value, cgroup: &Cgroup) {
    wait_for(Duration::from_secs(60), "the story", || (!next.incidents().is_empty()).then_some(()));
    let until = Instant::now() + UNHEARD;
    while Instant::now() < until {
        std::thread::sleep(Duration::from_millis(500));
        let incidents = next.incidents();
        let open: Vec<&Value> = incidents.iter().filter(|it| it["kind"] == "freeze").collect();
        let [one] = open[..] else { panic!("{incidents:?}") };
        let stands = one["closed_at"].is_null() || cgroup.has_killed();
        assert!(one["id"] == told["id"] && stands, "{incidents:?}");
    }
    assert!(!next.log().contains("kind=Freeze"), "{}", next.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_copies_files_at_its_limit_is_left_in_peace() {
    look_alike("copies", "copy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_reads_through_a_mapped_file_at_its_limit_is_left_in_peace() {
    look_alike("scans", "scan").await;
}

/// Its job is done and it is silent; it serves no pprof; and all over a mapped file is read at its limit.
#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_has_fallen_silent_beside_a_scan_is_left_in_peace() {
    look_alike("idles", "idle").await;
}

async fn look_alike(test: &'static str, mode: &'static str) {
    let Some(cgroup) = cgroup(test) else { return };
    let intake = FakeIntake::start().await;
    tokio::task::spawn_blocking(move || is_left_in_peace(&cgroup, &intake, mode)).await.unwrap();
}

fn is_left_in_peace(cgroup: &Cgroup, intake: &FakeIntake, mode: &str) {
    let dir = disk();
    let (mut app, pprof) = Frozen::start(cgroup, dir.path(), &[mode, "256", "0"]);
    let pprof = if mode == "idle" { "http://127.0.0.1:1/debug/pprof".to_owned() } else { pprof };
    let sidecar = sidecar(intake, &app, &pprof, &dir.path().join("state"));
    app.begin(&sidecar);
    if mode == "idle" {
        wait_for(Duration::from_secs(60), "the app has spoken", || (datagrams(&sidecar) > 100).then_some(()));
    }
    let reclaims = cgroup.reclaims();
    wait_for(Duration::from_secs(60), "the app at its limit", || (cgroup.reclaims() > reclaims + 500).then_some(()));
    let looked_at = Duration::from_secs(if mode == "idle" { 15 } else { 25 });
    let (reclaims, until) = (cgroup.reclaims(), Instant::now() + looked_at);
    while Instant::now() < until {
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(sidecar.incidents(), Vec::<Value>::new(), "{}", sidecar.log());
    }
    assert!(cgroup.reclaims() > reclaims + 1_000, "it stood at its limit all the time");
    assert!(intake.seen().events().is_empty());
}
