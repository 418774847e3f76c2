//! The README's first command as a newcomer runs it: a real leaking worker is named within a minute, a mended one is left in
//! peace, the page shows it in a real browser, and the profiles it stored say the same to `go tool pprof`.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use support::pprof::flat_agrees;
use support::{OOMWATCH, have, http_get, lines_of, root, wait_for};
use tokio::time::Instant;

struct Demo {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Demo {
    fn start(arguments: &[&str]) -> Demo {
        let mut child = Command::new(OOMWATCH)
            .arg("demo")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        Demo { child, lines, seen: Vec::new() }
    }

    /// Reads on until a line holds the text.
    fn line(&mut self, text: &str, limit: Duration) -> String {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            let line = line.unwrap_or_else(|_| panic!("no line with {text:?} in {limit:?}:\n{}", self.seen.join("\n")));
            self.seen.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Waits for the end and gives the exit code and all that was printed.
    fn end(mut self, limit: Duration) -> (Option<i32>, String) {
        let status = wait_for(limit, "the demo to end", || self.child.try_wait().unwrap());
        let rest: Vec<String> = self.lines.iter().collect();
        self.seen.extend(rest);
        (status.code(), self.seen.join("\n"))
    }

    /// Ctrl-C.
    fn interrupt(self) -> (Option<i32>, String) {
        let status = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
        self.end(Duration::from_secs(20))
    }
}

/// A test that fails leaves no demo behind, and the demo nothing of its own.
impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `go build` of a cold module cache comes on top of the minute.
const BUILD: Duration = Duration::from_secs(300);

#[test]
fn the_leak_is_named_within_a_minute() {
    if !have("go", "the_leak_is_named_within_a_minute") {
        return;
    }
    let demo = Demo::start(&["--exit-when-named", "--page", "127.0.0.1:0"]);
    let (code, text) = demo.end(BUILD + Duration::from_secs(60));
    assert_eq!(code, Some(0), "{text}");
    let verdict = text.lines().find(|line| line.contains("leak named")).unwrap_or_else(|| panic!("{text}"));
    assert!(verdict.contains("statsd.newStatsdBuffer"), "{verdict}");
    assert!(verdict.contains("handleJob"), "{verdict}");
}

#[test]
fn the_mended_worker_is_left_in_peace() {
    if !have("go", "the_mended_worker_is_left_in_peace") {
        return;
    }
    let demo = Demo::start(&["--fixed", "--exit-when-named", "--page", "127.0.0.1:0"]);
    let (code, text) = demo.end(BUILD + Duration::from_secs(150));
    assert_eq!(code, Some(0), "{text}");
    assert!(!text.contains("growth alert"), "{text}");
}

#[test]
fn the_page_and_the_profiles_tell_the_same_story() {
    let name = "the_page_and_the_profiles_tell_the_same_story";
    if !have("go", name) {
        return;
    }
    let mut demo = Demo::start(&["--page", "127.0.0.1:0"]);
    let page = demo.line("page: http://", BUILD);
    let url = page.split_whitespace().find(|word| word.starts_with("http://")).unwrap().to_owned();
    let address: SocketAddr = url.trim_start_matches("http://").trim_end_matches('/').parse().unwrap();
    demo.line("leak named", BUILD + Duration::from_secs(60));
    let dir = tempfile::tempdir().unwrap();
    let profiles = download(address, dir.path());
    assert!(profiles.len() >= 3, "{profiles:?}");
    agrees_with_go(&profiles);
    let shots = std::env::var("OOMWATCH_SCREENSHOTS").unwrap_or_else(|_| dir.path().display().to_string());
    if have("node", name) {
        browse(&url, Path::new(&shots));
    }
    let (_, text) = demo.interrupt();
    assert!(text.contains("series"), "says what would have gone to Datadog: {text}");
}

/// Saves the profiles of the newest incident; heaps by reason and type.
fn download(page: SocketAddr, dir: &Path) -> BTreeMap<String, String> {
    let (_, body) = http_get(page, "/api/incidents");
    let incidents: serde_json::Value = serde_json::from_str(&body).unwrap();
    let profiles = incidents[0]["profiles"].as_array().unwrap().clone();
    let mut saved = BTreeMap::new();
    for profile in profiles {
        let id = profile["id"].as_str().unwrap();
        let file = dir.join(format!("{id}.pb.gz"));
        let status = Command::new("curl")
            .args(["-sf", "-o"])
            .arg(&file)
            .arg(format!("http://{page}/api/profiles/{id}"))
            .status()
            .unwrap();
        assert!(status.success());
        let kind = format!("{} {}", profile["reason"].as_str().unwrap(), profile["type"].as_str().unwrap());
        saved.insert(kind, file.display().to_string());
    }
    saved
}

/// `profile diff --flat` against pprof's own difference: functions and bytes equal, order equal but for ties.
fn agrees_with_go(profiles: &BTreeMap<String, String>) {
    let base = profiles.iter().find(|(kind, _)| kind.starts_with("baseline") || kind.starts_with("first_sight"));
    let base = base.unwrap_or_else(|| panic!("no baseline among {profiles:?}")).1;
    let now = profiles.iter().find(|(kind, _)| kind.ends_with("heap_gc") && !kind.starts_with("baseline")).unwrap().1;
    flat_agrees(Some(Path::new(base)), Path::new(now));
}

fn browse(url: &str, shots: &Path) {
    let status = Command::new("node")
        .arg(root().join("tests/browser/page.mjs"))
        .args([url, &shots.display().to_string(), "newStatsdBuffer"])
        .status()
        .unwrap();
    assert!(status.success(), "the page in the browser");
}
