//! Profiles that are not Go's: a Node service with Datadog's own profiler (`@datadog/pprof`) leaks, and is named by `profile diff`
//! from two profiles pulled by hand, and by the sidecar.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use support::{Kept, OOMWATCH, Sidecar, have, lines_of, root, wait_for};

/// A leaking service, told to leak by [`leak`]; ends with its standard input.
fn node(parts: u32) -> Option<(Kept, SocketAddr)> {
    let installed = root().join("tests/foreign/node/node_modules/@datadog/pprof/package.json");
    if !have("node", "foreign") || !have(installed.to_str().unwrap(), "foreign") {
        return None;
    }
    let mut command = Command::new("node");
    command.args(["--expose-gc", "app.mjs"]).env("PARTS", parts.to_string());
    command.current_dir(root().join("tests/foreign/node")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let lines = lines_of(child.stdout.take().unwrap());
    let port: u16 = lines.recv_timeout(Duration::from_secs(30)).unwrap().parse().unwrap();
    Some((Kept(child), SocketAddr::from(([127, 0, 0, 1], port))))
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
    let first = &named["rows"][0];
    assert!(
        first["function"] == "remember" && first["file"].as_str().unwrap().ends_with("foreign/node/app.mjs"),
        "{named}"
    );
    assert!(named["naming"]["sentence"].as_str().unwrap().contains("remember"), "{named}");
    assert!(first["stack"].as_array().unwrap().iter().any(|frame| frame == "handleJob"), "{named}");
}

#[test]
fn the_sidecar_names_a_node_service_too() {
    let Some((service, address)) = node(16) else { return };
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
        (incident["culprits"][0]["function"] == "remember").then_some(incident)
    });
    assert!(incident["verdict"].as_str().unwrap().contains("remember"), "{incident}");
    let degraded = sidecar.api("/api/status")["degraded"].to_string();
    assert!(!degraded.contains("profiles"), "a page of goroutines is not missed: {degraded}");
}
