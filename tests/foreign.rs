//! Profiles that are not Go's: a Node service with Datadog's own profiler (`@datadog/pprof`) and a Rust service with jemalloc's
//! (`jemalloc_pprof`) leak, and are named by `profile diff` from two profiles pulled by hand, and by the sidecar. A Rust program is
//! tried with lines, with the symbols alone that a release has by default, and without any. The sums are those of `go tool pprof`.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use support::pprof::flat_agrees;
use support::{Kept, OOMWATCH, Sidecar, have, lines_of, root, wait_for};

/// A leaking service, told to leak by [`leak`]; ends with its standard input.
fn served(command: &mut Command) -> (Kept, SocketAddr) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = lines_of(child.stdout.take().unwrap());
    let port: u16 = lines.recv_timeout(Duration::from_secs(30)).unwrap().parse().unwrap();
    (Kept(child), SocketAddr::from(([127, 0, 0, 1], port)))
}

/// Builds the Rust service, which takes minutes the first time (`dev/test` has done it before the tests), and copies it, stripped
/// of what `strip` is told to take.
fn rust(dir: &Path, strip: &[&str]) -> Option<PathBuf> {
    let built = root().join("target/foreign-rust");
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--release", "--locked", "--quiet", "--target-dir"]).arg(&built);
    let status = command.current_dir(root().join("tests/foreign/rust")).status().unwrap();
    assert!(status.success(), "tests/foreign/rust does not build");
    let copy = dir.join("leaky");
    std::fs::copy(built.join("release/leaky"), &copy).unwrap();
    if strip.is_empty() {
        return Some(copy);
    }
    if !have("strip", "foreign") {
        return None;
    }
    assert!(Command::new("strip").args(strip).arg(&copy).status().unwrap().success());
    Some(copy)
}

fn node(parts: u32) -> Option<(Kept, SocketAddr)> {
    let installed = root().join("tests/foreign/node/node_modules/@datadog/pprof/package.json");
    if !have("node", "foreign") || !have(installed.to_str().unwrap(), "foreign") {
        return None;
    }
    let mut command = Command::new("node");
    command.args(["--expose-gc", "app.mjs"]).env("PARTS", parts.to_string());
    Some(served(command.current_dir(root().join("tests/foreign/node"))))
}

fn leak(service: SocketAddr) {
    let mut stream = TcpStream::connect(service).unwrap();
    stream.write_all(b"POST /leak HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
    std::io::Read::read_to_end(&mut stream, &mut Vec::new()).unwrap();
}

fn pull(service: SocketAddr, file: &Path) -> u64 {
    let url = format!("http://{service}/debug/pprof");
    let mut command = Command::new(OOMWATCH);
    let output = command.args(["profile", "pull", "--url", &url, "heap-gc", "-o"]).arg(file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::metadata(file).unwrap().len()
}

fn diff(base: &Path, now: &Path) -> serde_json::Value {
    let output = Command::new(OOMWATCH).args(["profile", "diff", "--json"]).args([base, now]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Each by itself, and their difference.
fn agree_with_go(base: &Path, now: &Path) {
    if have("go", "foreign") {
        flat_agrees(None, base);
        flat_agrees(None, now);
        flat_agrees(Some(base), now);
    }
}

#[test]
fn two_profiles_of_a_node_service_name_its_leak() {
    let Some((_service, address)) = node(8) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (base, now) = (dir.path().join("base"), dir.path().join("now"));
    pull(address, &base);
    leak(address);
    let named = wait_for(Duration::from_secs(60), "enough growth for a name", || {
        pull(address, &now);
        Some(diff(&base, &now)).filter(|it| it["naming"]["named"] == true)
    });
    agree_with_go(&base, &now);
    let first = &named["rows"][0];
    assert!(
        first["function"] == "remember" && first["file"].as_str().unwrap().ends_with("foreign/node/app.mjs"),
        "{named}"
    );
    assert!(named["naming"]["sentence"].as_str().unwrap().contains("remember"), "{named}");
    assert!(first["stack"].as_array().unwrap().iter().any(|frame| frame == "handleJob"), "{named}");
}

/// The incident once its first culprit is the function.
fn named_by_the_sidecar(service: &Kept, address: SocketAddr, function: &str) -> serde_json::Value {
    let settings = format!(
        "[watch]\npid = {}\nlimit = \"384MiB\"\n[alert]\nstartup_grace = \"2s\"\n[profile]\nurl = \"http://{address}/debug/pprof\"\n\
         baseline_after = \"3s\"\ncooldown = \"5s\"\nmax_per_hour = 60\n",
        service.0.id()
    );
    let sidecar = Sidecar::start(&settings, &[]);
    wait_for(Duration::from_secs(60), "a healthy baseline", || {
        sidecar.log().contains("healthy baseline taken").then_some(())
    });
    leak(address);
    let incident = wait_for(Duration::from_secs(90), "the name", || {
        let incident = sidecar.api("/api/incidents")[0].clone();
        (incident["culprits"][0]["function"] == function).then_some(incident)
    });
    assert!(incident["verdict"].as_str().unwrap().contains(function), "{incident}");
    let degraded = sidecar.api("/api/status")["degraded"].to_string();
    assert!(!degraded.contains("profiles"), "a page of goroutines is not missed: {degraded}");
    incident
}

#[test]
fn the_sidecar_names_a_node_service_too() {
    let Some((service, address)) = node(16) else { return };
    named_by_the_sidecar(&service, address, "remember");
}

/// Two profiles of the service, before the leak and once `enough` is true of their difference.
fn rust_diff(program: &Path, dir: &Path, enough: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
    let (_service, address) = served(Command::new(program).env("PARTS", "32"));
    let (base, now) = (dir.join("base"), dir.join("now"));
    // The profiler reads the program's symbols at the first pull and keeps them, 40 MiB that are no leak: the second has them.
    pull(address, &base);
    pull(address, &base);
    leak(address);
    wait_for(Duration::from_secs(60), "enough growth", || {
        pull(address, &now);
        Some(diff(&base, &now)).filter(&enough)
    })
}

#[test]
fn two_profiles_of_a_rust_service_name_its_leak() {
    let dir = tempfile::tempdir().unwrap();
    // Lines without full debug information bring functions without their modules, and a file to tell them by.
    let cases: [(&[&str], &str, &str); 2] =
        [(&[], "remember", "src/main.rs"), (&["--strip-debug"], "leaky::jobs::remember", "")];
    for (strip, function, file) in cases {
        let Some(program) = rust(dir.path(), strip) else { return };
        // The profiler reads the program's symbols when it first meets a stack of it, and keeps them: 40 MiB that grew as well.
        let sure =
            |it: &serde_json::Value| ["high", "medium"].map(|word| it["naming"]["confidence"] == word).contains(&true);
        let named = rust_diff(&program, dir.path(), sure);
        // pprof would give the functions its own names from the program, were it there; we take those of the profile.
        std::fs::remove_file(&program).unwrap();
        agree_with_go(&dir.path().join("base"), &dir.path().join("now"));
        let first = &named["rows"][0];
        assert_eq!(first["function"], function, "{named:#}");
        assert_eq!(first["made_by"], function, "{named:#}");
        assert!(first["file"].as_str().unwrap().ends_with(file), "{named:#}");
        assert!(named["naming"]["sentence"].as_str().unwrap().starts_with(&format!("`{function}` grew")), "{named:#}");
    }
}

#[test]
fn a_rust_service_without_symbols_is_told_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let Some(program) = rust(dir.path(), &["--strip-all"]) else { return };
    let told = |it: &serde_json::Value| it["naming"]["sentence"].as_str().is_some_and(|it| it.contains("no symbols"));
    let answer = rust_diff(&program, dir.path(), told);
    assert_eq!(answer["naming"]["named"], false, "{answer:#}");
}

#[test]
fn the_sidecar_names_a_rust_service_too() {
    let dir = tempfile::tempdir().unwrap();
    let Some(program) = rust(dir.path(), &["--strip-debug"]) else { return };
    let (service, address) = served(Command::new(program).env("PARTS", "16"));
    let incident = named_by_the_sidecar(&service, address, "leaky::jobs::remember");
    assert!(!incident.to_string().contains("Go heap"), "{incident:#}");
}
