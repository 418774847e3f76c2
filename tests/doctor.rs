//! `doctor` in front of real things: everything in place, each thing missing, and a sidecar that already runs.
#![allow(clippy::unwrap_used, reason = "a test that unwraps says where it broke by its line")]

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::process::{Command, Output};

use support::intake::{FakeIntake, Fault};
use support::{BASE, OOMWATCH, Sidecar};

/// The doctor with these settings and variables, and no sidecar to be found unless they say where.
fn doctor(settings: &str, env: &[(&str, &str)], json: bool) -> (Output, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sidecar.toml");
    std::fs::write(&file, format!("{BASE}{settings}")).unwrap();
    let mut command = Command::new(OOMWATCH);
    command.args(["doctor", "--config"]).arg(&file).args(json.then_some("--json")).env_clear();
    let output = command.envs(env.iter().copied()).output().unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    (output, text)
}

/// A line of this state with all the words.
fn has(text: &str, state: &str, words: &[&str]) -> bool {
    text.lines().any(|line| line.starts_with(state) && words.iter().all(|word| line.contains(word)))
}

/// Answers every request with the index page of net/http/pprof.
fn pprof() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/debug/pprof", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let page = "<html><td>19</td><td><a href='goroutine?debug=1'>goroutine</a></td></html>";
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 1_024]);
            let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\n\r\n", page.len());
            let _ = stream.write_all(format!("{head}{page}").as_bytes());
        }
    });
    url
}

/// Settings with which all is well; the app is this test.
fn healthy(intake: &str, profiles: &str) -> String {
    format!(
        "[watch]\npid = {}\nlimit = \"64MiB\"\n[profile]\nurl = \"{}\"\ndir = \"{profiles}\"\nmax_size = \"1MiB\"\n\
         [datadog]\nurl = \"{intake}\"\nhostname = \"h\"\n",
        std::process::id(),
        pprof(),
    )
}

const KEY: (&str, &str) = ("DD_API_KEY", "abc");
const BUFFER: (&str, &str) = ("OOMWATCH_STATSD__RECEIVE_BUFFER", "64KiB");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_everything_in_place_every_line_is_ok() {
    let intake = FakeIntake::start().await;
    let dir = tempfile::tempdir().unwrap();
    let settings = healthy(&intake.url(), dir.path().to_str().unwrap());
    let (output, text) = doctor(&settings, &[KEY, BUFFER], false);
    assert!(output.status.success(), "{text}");
    for words in [
        ["the app's process", "watch.pid = "],
        ["rights", "can be read"],
        ["memory limit: 64 MiB", "watch.limit"],
        ["pprof", "19 goroutines"],
        ["API key", "calls it good"],
        ["profile.dir", " free"],
        ["StatsD", "is free"],
        ["receive buffer", "granted"],
    ] {
        assert!(has(&text, "ok", &words), "{words:?} in {text}");
    }
    assert!(text.ends_with("0 fail, 0 warn, 9 ok\n"), "{text}");
    assert_eq!((intake.seen().validated.len(), intake.seen().arrived), (1, 0));
    let (_, json) = doctor(&settings, &[KEY, BUFFER], true);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((json["ok"].as_bool(), json["findings"][0]["state"].as_str()), (Some(true), Some("ok")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_thing_that_is_missing_fails_with_the_line_to_paste() {
    let intake = FakeIntake::start().await;
    intake.answer_validate(Some(Fault::Status(403)));
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let settings = healthy(&intake.url(), "/proc/self/profiles");
    let env = [
        KEY,
        ("OOMWATCH_WATCH__PID", "2147483647"),
        ("OOMWATCH_WATCH__LIMIT", "auto"),
        ("OOMWATCH_PROFILE__URL", "http://127.0.0.1:1/debug/pprof"),
        ("OOMWATCH_STATSD__LISTEN", &listen),
        ("OOMWATCH_STATSD__RECEIVE_BUFFER", "1GiB"),
    ];
    let (output, text) = doctor(&settings, &env, false);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for words in [
        ["the app's process", "2147483647", "shareProcessNamespace: true"],
        ["pprof", "refused", "net/http/pprof"],
        ["API key", "the API key was refused", "datadog.api_key_file"],
        ["profile.dir", "cannot be written", "mountPath"],
        ["StatsD", "in use", "take another port"],
    ] {
        assert!(has(&text, "fail", &words), "{words:?} in {text}");
    }
    assert!(has(&text, "warn", &["receive buffer", "net.core.rmem_max"]), "{text}");
    intake.answer_validate(Some(Fault::Status(404)));
    assert!(has(&doctor(&settings, &[KEY], false).1, "fail", &["API key", "check datadog.site"]));
    assert!(has(&doctor("", &[], false).1, "warn", &["output", "datadog.api_key_file"]));
}

#[test]
fn an_agent_is_there_or_is_not() {
    let agent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let url = format!("udp://{}", agent.local_addr().unwrap());
    let there = doctor("", &[("DD_DOGSTATSD_URL", &url)], false).1;
    assert!(has(&there, "ok", &["Agent", &url]), "{there}");
    drop(agent);
    let gone = doctor("", &[("DD_DOGSTATSD_URL", &url)], false).1;
    assert!(has(&gone, "fail", &["Agent", &url, "start the Agent"]), "{gone}");
}

#[test]
fn bad_settings_are_a_fail_and_not_another_exit_code() {
    let (output, text) = doctor("[watch]\nintervall = \"1s\"\n", &[], false);
    assert_eq!(output.status.code(), Some(1));
    assert!(has(&text, "fail", &["settings", "intervall", "interval"]), "{text}");
}

#[test]
fn beside_a_running_sidecar_its_ports_are_rightly_taken() {
    let sidecar = Sidecar::start("", &[]);
    let (statsd, health) = (sidecar.statsd[0].to_string(), sidecar.health.to_string());
    let env = [("OOMWATCH_STATSD__LISTEN", statsd.as_str()), ("OOMWATCH_HEALTH__LISTEN", health.as_str())];
    let text = doctor("", &env, false).1;
    assert!(has(&text, "ok", &["StatsD", &statsd, "the sidecar that runs here"]), "{text}");
    assert!(!has(&text, "ok", &["the app's process: oomwatch"]), "another oomwatch is no app: {text}");
}
