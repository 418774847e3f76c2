//! Every kind of profile that Go serves is read with the value that `go tool pprof` shows of it, and shows the same; and the one that
//! Go builds by an experiment so far, `goroutineleak`, is pulled by the sidecar from a real leak and confirms it.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use oomwatch::pprof::dump;
use support::pprof::flat_agrees;
use support::{Kept, OOMWATCH, Sidecar, have, lines_of, root, wait_for};

/// A program below `tests/`, built with the experiment; `None` where the toolchain does not know it (before 1.26).
fn build(module: &str, package: &str, out: &Path) -> Option<PathBuf> {
    if !have("go", "kinds") {
        return None;
    }
    let program = out.join("program");
    let mut command = Command::new("go");
    command.args(["build", "-o"]).arg(&program).arg(package).current_dir(root().join("tests").join(module));
    let output = command.env("GOEXPERIMENT", "goroutineleakprofile").output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    if words.contains("unknown GOEXPERIMENT") {
        let _ = writeln!(std::io::stderr(), "SKIPPED kinds: this Go has no experiment goroutineleakprofile");
        return None;
    }
    assert!(output.status.success(), "{words}");
    Some(program)
}

fn json(arguments: &[&str], file: &Path) -> serde_json::Value {
    let output = Command::new(OOMWATCH).args(["profile", "top", "--json"]).args(arguments).arg(file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn each_kind_shows_what_go_tool_pprof_shows() {
    let dir = tempfile::tempdir().unwrap();
    let Some(program) = build("kinds", ".", dir.path()) else { return };
    assert!(Command::new(program).arg(dir.path()).status().unwrap().success());
    let kinds = [
        ("heap", "inuse_space", "bytes", "main.remember"),
        ("allocs", "alloc_space", "bytes", "main.waste"),
        ("block", "delay", "nanoseconds", "main.hold"),
        ("mutex", "delay", "nanoseconds", "main.hold"),
        ("goroutine", "goroutine", "count", "main.abandon.func1"),
        ("goroutineleak", "goroutineleak", "count", "main.abandon.func1"),
    ];
    for (kind, value, unit, first) in kinds {
        let file = dir.path().join(kind);
        flat_agrees(None, &file);
        assert_eq!(json(&["--flat"], &file)["sample_type"], value, "{kind}");
        let table = json(&[], &file);
        assert_eq!((table["unit"].as_str().unwrap(), &table["naming"]), (unit, &serde_json::Value::Null), "{kind}");
        let rows = table["rows"].as_array().unwrap();
        let place =
            |row: &serde_json::Value| [&row["function"], &row["made_by"]].map(|it| it.as_str().unwrap().to_owned());
        assert!(place(&rows[0]).iter().any(|it| it == first), "{kind}: {table:#}");
    }
    let leaked = json(&[], &dir.path().join("goroutineleak"));
    assert_eq!((&leaked["rows"][0]["value"], &leaked["total"]), (&7.into(), &7.into()), "{leaked:#}");
}

/// A program of tests/leaks with its address, told to leak by [`leak`].
fn leaky(dir: &Path) -> Option<(Kept, String)> {
    let program = build("leaks", "./chansend", dir)?;
    let mut child = Command::new(program).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let line = lines_of(child.stdout.take().unwrap()).recv_timeout(Duration::from_secs(30)).unwrap();
    Some((Kept(child), line.strip_prefix("pprof=").unwrap().to_owned()))
}

fn leak(url: &str) {
    let host = url.split('/').nth(2).unwrap();
    talk(host, &format!("POST /leak HTTP/1.0\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n"));
}

fn get(url: &str) -> Vec<u8> {
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let answer = talk(host, &format!("GET /{path} HTTP/1.0\r\nHost: {host}\r\n\r\n"));
    let body = answer.windows(4).position(|it| it == b"\r\n\r\n").unwrap() + 4;
    answer[body..].to_vec()
}

fn talk(host: &str, request: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(host.parse::<SocketAddr>().unwrap()).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut answer).unwrap();
    answer
}

/// The evidence of a kind, once the first incident has it.
fn evidence(sidecar: &Sidecar, kind: &str) -> Option<String> {
    let incident = sidecar.api("/api/incidents")[0].clone();
    let all = incident["evidence"].as_array().cloned().unwrap_or_default();
    all.iter().find(|it| it["kind"] == kind).map(|it| it["text"].as_str().unwrap().to_owned())
}

#[test]
fn a_real_leak_is_confirmed_by_goroutineleak_and_its_creator_stands_in_a_dump() {
    let dir = tempfile::tempdir().unwrap();
    let Some((app, url)) = leaky(dir.path()) else { return };
    let settings = format!(
        "[datadog]\noutput = \"none\"\n[watch]\npid = {}\nlimit = \"200MiB\"\n[alert]\nstartup_grace = \"2s\"\n[profile]\n\
         url = \"{url}\"\nbaseline_after = \"3s\"\ncooldown = \"3s\"\nmax_per_hour = 60\ndebug2 = true\n",
        app.0.id()
    );
    let sidecar = Sidecar::start(&settings, &[]);
    wait_for(Duration::from_secs(60), "a healthy baseline", || {
        sidecar.log().contains("healthy baseline taken").then_some(())
    });
    leak(&url);
    let words = wait_for(Duration::from_secs(90), "goroutineleak", || evidence(&sidecar, "goroutineleak"));
    assert!(words.starts_with("goroutineleak confirms: ") && words.contains("`main.query.func1` (main.go:"), "{words}");
    let kept = sidecar.api("/api/profiles").to_string();
    assert!(kept.contains("\"goroutineleak\""), "{kept}");
    // The text of this Go, with the mark that its look for leaks has left.
    let dump = dump::read(&get(&format!("{url}/goroutine?debug=2")));
    let started = dump.started.iter().find(|it| it.stands_in == "main.query.func1").unwrap();
    assert_eq!(
        (started.creator.as_str(), started.file.ends_with("chansend/main.go")),
        ("main.query", true),
        "{started:?}"
    );
    assert!(started.leaked > 0 && started.count >= started.leaked && started.line > 0, "{started:?}");
}
