//! Profiles of a real leak at Datadog's own test agent (`ddapm-test-agent`): what a real sidecar uploads from a real Go worker is
//! taken and kept there, read back with a parser that is not ours, and compared field by field and byte by byte.
//!
//! Retries, the intake and the Unix socket are tried in `sink::upload`'s own tests, where the other side fails on command.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::intake::FakeIntake;
use support::{Kept, Sidecar, have, root, wait_for, worker};

const AGENT: &str = ".cache/agent/bin/ddapm-test-agent";
const PYTHON: &str = ".cache/agent/bin/python";
const KEY: &str = "0123456789abcdef0123456789abcdef";

/// Ports that were free a moment ago; the programs here cannot tell which one they took.
fn free<const N: usize>() -> [SocketAddr; N] {
    let bound = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    bound.map(|listener| listener.local_addr().unwrap())
}

/// Datadog's test agent on ports of its own.
fn agent(dir: &Path) -> (Kept, SocketAddr) {
    let [trace, http, grpc] = free();
    let child = Command::new(root().join(AGENT))
        .args(["--port", &trace.port().to_string(), "--otlp-http-port", &http.port().to_string()])
        .args(["--otlp-grpc-port", &grpc.port().to_string()])
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let agent = Kept(child);
    wait_for(Duration::from_secs(60), "the test agent", || TcpStream::connect(trace).ok());
    (agent, trace)
}

fn uploads(agent: SocketAddr) -> Vec<Value> {
    let mut read = Command::new(root().join(PYTHON));
    let output = read.arg(root().join("tests/upload/read.py")).arg(format!("http://{agent}")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn leaking_worker(statsd: SocketAddr, pprof: SocketAddr) -> Kept {
    let mut command = Command::new(worker());
    command.args(["-statsd", &statsd.to_string(), "-pprof", &pprof.to_string(), "-healthy", "6s", "-rate", "15"]);
    Kept(command.args(["-until-eof"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap())
}

fn settings(intake: &FakeIntake, agent: SocketAddr, pprof: SocketAddr, dir: &Path) -> String {
    format!(
        r#"
[datadog]
url = "{}"
hostname = "node-1"
service = "receipts"
env = "ci"
version = "1.2"
tags = ["team:payments"]
[datadog.agent]
trace = "http://{agent}"
[watch]
cmdline = "-pprof.{}"
limit = "256MiB"
[alert]
startup_grace = "2s"
[profile]
url = "http://{pprof}/debug/pprof"
baseline_after = "3s"
dir = "{}"
upload = "agent"
"#,
        intake.url(),
        pprof.to_string().replace('.', "[.]"),
        dir.display()
    )
}

fn body(part: &Value) -> Vec<u8> {
    let text = part["body"].as_str().unwrap();
    let digit = |sign: u8| {
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".iter().position(|it| *it == sign)
    };
    let signs: Vec<u32> = text.bytes().filter_map(digit).map(|it| it as u32).collect();
    let mut bytes = Vec::new();
    for group in signs.chunks(4) {
        let bits = group.iter().fold(0, |bits, digit| bits << 6 | digit) << (6 * (4 - group.len()));
        bytes.extend(&bits.to_be_bytes()[1..group.len()]);
    }
    bytes
}

/// The stored profiles of one kind.
fn stored(dir: &Path, kind: &str) -> Vec<Vec<u8>> {
    let files = std::fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path());
    let ending = format!(".{kind}.pb.gz");
    files.filter(|path| path.to_string_lossy().ends_with(&ending)).map(|path| std::fs::read(path).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn profiles_of_an_incident_arrive_whole_at_datadogs_test_agent() {
    if !have(AGENT, "upload") || !have("go", "upload") {
        return;
    }
    let intake = FakeIntake::start().await;
    tokio::task::spawn_blocking(move || story(&intake)).await.unwrap();
}

fn story(intake: &FakeIntake) {
    let dir = tempfile::tempdir().unwrap();
    let (_agent, address) = agent(dir.path());
    let [pprof] = free();
    let profiles = dir.path().join("profiles");
    let mut sidecar =
        Sidecar::start(&settings(intake, address, pprof, &profiles), &[("DD_API_KEY", KEY), ("POD_NAME", "p-1")]);
    assert!(
        sidecar.summary.contains(&format!("uploaded through the Agent at http://{address}")),
        "{}",
        sidecar.summary
    );
    let worker = leaking_worker(sidecar.statsd[0], pprof);
    wait_for(Duration::from_secs(120), "an upload of heap and goroutines", || {
        sidecar.metric("oomwatch_profile_uploads_total{result=\"sent\"} ").filter(|sent| *sent > 0.0)
    });
    let incident = sidecar.api("/api/incidents")[0].clone();
    assert!(sidecar.terminate().success());
    let uploads = uploads(address);
    check_upload(&uploads[0], &incident, worker.0.id(), &profiles);
    assert!(!uploads.iter().any(|it| it.to_string().contains(KEY)), "the key went to the Agent");
}

fn check_upload(upload: &Value, incident: &Value, pid: u32, profiles: &Path) {
    let headers = &upload["headers"];
    assert_eq!((upload["method"].as_str(), headers["dd-evp-origin"].as_str()), (Some("POST"), Some("oomwatch")));
    assert_eq!(headers["dd-evp-origin-version"], env!("CARGO_PKG_VERSION"));
    assert!(headers.as_object().unwrap().keys().all(|name| !name.eq_ignore_ascii_case("dd-api-key")), "{headers}");
    let parts = upload["parts"].as_array().unwrap();
    let name =
        |part: &Value| (part["name"].as_str().unwrap().to_owned(), part["filename"].as_str().unwrap().to_owned());
    assert_eq!(name(&parts[0]), ("event".to_owned(), "event.json".to_owned()));
    assert_eq!(parts[0]["type"], "application/json");
    let event: Value = serde_json::from_slice(&body(&parts[0])).unwrap();
    let attached: Vec<&str> = parts[1..].iter().map(|part| part["name"].as_str().unwrap()).collect();
    assert_eq!(event["attachments"], serde_json::json!(attached));
    assert_eq!(attached, ["heap.pprof", "goroutines.pprof"]);
    assert!(parts[1..].iter().all(|part| part["filename"] == part["name"]), "file names are the viewer's");
    assert_eq!((&event["version"], &event["family"]), (&"4".into(), &"go".into()));
    let time = |key: &str| humantime::parse_rfc3339(event[key].as_str().unwrap()).unwrap();
    assert_eq!(time("end").duration_since(time("start")).unwrap(), Duration::from_secs(60));
    check_tags(event["tags_profiler"].as_str().unwrap(), incident, pid);
    assert!(stored(profiles, "heap_gc").contains(&body(&parts[1])), "the heap is a stored profile, byte for byte");
    assert!(stored(profiles, "goroutine").contains(&body(&parts[2])), "the goroutines likewise");
}

fn check_tags(tags: &str, incident: &Value, pid: u32) {
    let tags: Vec<&str> = tags.split(',').collect();
    let id = format!("oomwatch_incident:{}", incident["id"].as_str().unwrap());
    let trigger = format!("oomwatch_trigger:{}", incident["kind"].as_str().unwrap());
    let process = format!("process_id:{pid}");
    let expected = [
        "service:receipts",
        "env:ci",
        "version:1.2",
        "host:node-1",
        "runtime:go",
        "language:go",
        "profile_seq:0",
        "team:payments",
        "pod_name:p-1",
        &id,
        &trigger,
        &process,
    ];
    assert!(expected.iter().all(|tag| tags.contains(tag)), "{tags:?} lacks one of {expected:?}");
    let runtime_id = tags.iter().find_map(|tag| tag.strip_prefix("runtime-id:")).unwrap();
    assert_eq!(runtime_id.len(), 36, "{runtime_id}");
    let mut keys: Vec<&str> = tags.iter().filter_map(|tag| tag.split(':').next()).collect();
    keys.sort_unstable();
    let before = keys.len();
    keys.dedup();
    assert_eq!(keys.len(), before, "a key stands twice: {tags:?}");
}
