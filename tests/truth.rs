//! What a stored profile tells is true, and having it taken harms nobody: beside a real Go program that comes near its limit, the
//! heap on disk accounts for the memory that the kernel sees, and a hundred thousand goroutines at nine parts of ten are not
//! what the pulls die of.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use oomwatch::pprof::read::{MAX_INFLATED, read};
use support::cgroup::Cgroup;
use support::endpoint::{ask, pull_now};
use support::{Kept, Sidecar, have, http_get, root, rss_bytes, wait_for};

const MIB: u64 = 1 << 20;

struct App {
    child: Kept,
    pprof: String,
    address: SocketAddr,
}

impl App {
    /// Below the limit of a cgroup, where there is one.
    fn start(cgroup: Option<&Cgroup>) -> App {
        let procs = cgroup.map(Cgroup::procs).unwrap_or_default();
        let enter = r#"[ -z "$0" ] || echo $$ > "$0" || exit 9; exec "$@""#;
        let mut command = Command::new("sh");
        command.args(["-c", enter]).arg(procs).arg(build()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = Kept(command.spawn().unwrap());
        let mut line = String::new();
        BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pprof = line.trim().strip_prefix("pprof=").unwrap_or_else(|| panic!("it said {line:?}")).to_owned();
        let address = pprof.split('/').nth(2).unwrap().parse().unwrap();
        App { child, pprof, address }
    }

    fn pid(&self) -> u32 {
        self.child.0.id()
    }

    fn tell(&self, path: &str) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        write!(stream, "POST {path} HTTP/1.1\r\nhost: app\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
        let mut status = String::new();
        BufReader::new(stream).read_line(&mut status).unwrap();
        assert!(status.contains("200"), "{status}");
    }
}

/// With what Go 1.26 serves by an experiment and later ones serve anyway; they do not know it.
fn build() -> PathBuf {
    let out = root().join("target/truth");
    let mut go = Command::new("go");
    let version =
        Command::new("go").args(["env", "GOVERSION"]).current_dir(root().join("tests/truth")).output().unwrap();
    if String::from_utf8_lossy(&version.stdout).starts_with("go1.26") {
        go.env("GOEXPERIMENT", "goroutineleakprofile");
    }
    let status = go.args(["build", "-o"]).arg(&out).arg(".").current_dir(root().join("tests/truth")).status();
    assert!(status.unwrap().success(), "go build of tests/truth");
    out
}

fn watch(app: &App, profiles: &Path, more: &str) -> Sidecar {
    let settings = format!(
        "[datadog]\noutput = \"none\"\n[watch]\npid = {}\n{more}\n[profile]\nurl = \"{}\"\ndir = \"{}\"\n\
         baseline_after = \"1h\"\ncooldown = \"1ms\"\nmax_per_hour = 100\n",
        app.pid(),
        app.pprof,
        profiles.display()
    );
    Sidecar::start(&settings, &[])
}

/// Bytes in use of the heaps after a collection that are on disk, oldest first.
fn stored(profiles: &Path) -> Vec<u64> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(profiles).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.to_str().unwrap().ends_with(".heap_gc.pb.gz"));
    files.sort_by_key(|path| path.metadata().unwrap().modified().unwrap());
    let in_use = |path: &PathBuf| {
        let profile = read(&std::fs::read(path).unwrap(), MAX_INFLATED).unwrap();
        u64::try_from(profile.total(profile.type_index("inuse_space").unwrap())).unwrap()
    };
    files.iter().map(in_use).collect()
}

#[test]
fn the_stored_heap_accounts_for_the_memory_at_half_seven_and_nine_parts_of_the_limit() {
    if !have("go", "the_stored_heap_accounts_for_the_memory") {
        return;
    }
    let (limit, dir) = (256, tempfile::tempdir().unwrap());
    let app = App::start(None);
    let sidecar = watch(&app, dir.path(), &format!("limit = \"{limit}MiB\""));
    wait_for(Duration::from_secs(30), "the app to be seen", || {
        (sidecar.api("/api/status")["target"]["pid"] == app.pid()).then_some(())
    });
    let start = rss_bytes(app.pid());
    for percent in [50, 70, 90] {
        let wanted = limit * percent / 100 * MIB;
        let mut live = 0;
        while rss_bytes(app.pid()) < wanted {
            live += 1;
            app.tell(&format!("/keep?mib={live}"));
        }
        let before = stored(dir.path()).len();
        wait_for(Duration::from_secs(30), "a round to begin", || {
            (ask(sidecar.page, "POST", b"/api/profiles", "X-Oomwatch: 1\r\n").0 == 202).then_some(())
        });
        let heaps = wait_for(Duration::from_secs(60), "a heap after a collection on disk", || {
            Some(stored(dir.path())).filter(|heaps| heaps.len() > before)
        });
        let (told, taken) = (*heaps.last().unwrap(), rss_bytes(app.pid()) - start);
        let part = told as f64 / taken as f64;
        println!(
            "at {percent} %: {} MiB in the profile, {} MiB taken since the start: {part:.3}",
            told / MIB,
            taken / MIB
        );
        assert!(part >= 0.85, "at {percent} %: {told} of {taken} bytes");
    }
}

const CROWD: &str = "pulls_near_the_limit_do_not_kill_an_app_of_a_hundred_thousand_goroutines";

/// `dev/soak goroutines` does it ten times.
#[test]
fn pulls_near_the_limit_do_not_kill_an_app_of_a_hundred_thousand_goroutines() {
    if !have("go", CROWD) {
        return;
    }
    let limit = 512 * MIB;
    let cgroup = match Cgroup::new("crowd", limit) {
        Ok(cgroup) => cgroup,
        Err(why) => {
            assert!(std::env::var_os("CI").is_none(), "{CROWD}: {why}");
            let _ = writeln!(std::io::stderr(), "SKIPPED {CROWD}: {why}");
            return;
        }
    };
    let dir = tempfile::tempdir().unwrap();
    let mut app = App::start(Some(&cgroup));
    app.tell("/park?count=90000");
    app.tell("/leak?count=10000");
    let (_, index) = http_get(app.address, "/debug/pprof/");
    assert!(index.contains("goroutineleak?debug=1"), "it is served, so that leaving it out is a decision: {index}");
    let sidecar = watch(&app, dir.path(), "[alert]\nstartup_grace = \"1s\"");
    let mut live = 0;
    // At one pace up to nine parts of ten, and there it stands.
    while used(&cgroup) < limit / 10 * 9 {
        live += 1;
        app.tell(&format!("/keep?mib={live}"));
        std::thread::sleep(Duration::from_millis(100));
    }
    let mut of_alert = |what: &str, collections: usize| {
        wait_for(Duration::from_secs(60), what, || {
            assert!(
                app.child.0.try_wait().unwrap().is_none() && !cgroup.has_killed(),
                "the app is dead: {}",
                sidecar.log()
            );
            let profiles = sidecar.api("/api/profiles").as_array().unwrap().clone();
            let of_alert = profiles
                .into_iter()
                .filter(|it| !["by_hand", "first_sight", "baseline"].contains(&it["reason"].as_str().unwrap()));
            let kinds: Vec<String> = of_alert.map(|it| it["type"].as_str().unwrap().to_owned()).collect();
            (kinds.iter().filter(|kind| *kind == "heap_gc").count() >= collections).then_some(kinds)
        })
    };
    of_alert("a round of an alert", 1);
    // One round begins when the other is over: with the second collection on disk, the goroutines of the first had their turn.
    let had = of_alert("its collections", 1).iter().filter(|kind| *kind == "heap_gc").count();
    pull_now(&sidecar);
    let pulled = of_alert("another round", had + 1);
    let severity = sidecar.incidents()[0]["severity"].clone();
    assert_ne!(severity, "notice", "which is no reason for goroutineleak");
    // What a pull did to the app shows at its next collection at the latest.
    std::thread::sleep(Duration::from_secs(3));
    assert!(app.child.0.try_wait().unwrap().is_none() && !cgroup.has_killed(), "the app is dead: {}", sidecar.log());
    println!(
        "crowd: alive with {} of {} MiB, pulled {pulled:?}, {} goroutines, at most {} MiB in the cgroup",
        used(&cgroup) / MIB,
        limit / MIB,
        100_000,
        most(&cgroup) / MIB
    );
    let dear = |kind: &String| ["goroutine", "goroutineleak"].contains(&kind.as_str());
    assert!(!pulled.iter().any(dear), "78 MiB that are not there: {pulled:?}");
}

fn figure(cgroup: &Cgroup, files: [&str; 2]) -> u64 {
    let text = files.iter().find_map(|file| std::fs::read_to_string(cgroup.dir.join(file)).ok());
    text.map_or(0, |text| text.trim().parse().unwrap())
}

fn used(cgroup: &Cgroup) -> u64 {
    figure(cgroup, ["memory.usage_in_bytes", "memory.current"])
}

fn most(cgroup: &Cgroup) -> u64 {
    figure(cgroup, ["memory.max_usage_in_bytes", "memory.peak"])
}
