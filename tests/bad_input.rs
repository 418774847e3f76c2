//! What a person or an app gets wrong: each a clear message that names what to do, and the rest goes on.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output};
use std::time::Duration;

use support::{OOMWATCH, Sidecar, sender, wait_for};

/// Runs `oomwatch run` on settings that it must refuse.
fn refused(settings: &str, env: &[(&str, &str)]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sidecar.toml");
    std::fs::write(&file, settings).unwrap();
    Command::new(OOMWATCH).args(["run", "--config"]).arg(&file).env_clear().envs(env.iter().copied()).output().unwrap()
}

fn check(settings: &str, env: &[(&str, &str)], words: &[&str]) {
    let output = refused(settings, env);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is missing in: {said}");
    }
}

#[test]
fn all_faults_of_a_file_are_told_at_once() {
    let settings = "[statsd]\nlisten = [\"nowhere\"]\n[aggregate]\nintervall = \"10s\"\nmax_contexts = -1\n[watch]\ninterval = \"soon\"\n";
    check(settings, &[], &["statsd.listen", "intervall", "interval", "max_contexts", "watch.interval", "soon"]);
}

#[test]
fn an_unknown_key_is_answered_with_the_one_that_was_meant() {
    check("[watch]\nlimitt = \"1GiB\"\n", &[], &["sidecar.toml:2", "limitt", "did you mean", "limit"]);
}

#[test]
fn an_agent_that_is_our_own_listener_is_refused() {
    let settings = "[datadog]\noutput = \"agent\"\n[datadog.agent]\ndogstatsd = \"udp://127.0.0.1:8125\"\n";
    check(settings, &[], &["datadog.agent.dogstatsd", "own listener"]);
}

#[test]
fn a_link_to_our_own_socket_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (own, link) = (dir.path().join("own.socket"), dir.path().join("agent.socket"));
    std::os::unix::fs::symlink(&own, &link).unwrap();
    let settings = format!(
        "[statsd]\nlisten = []\nsocket = \"{}\"\n[page]\nlisten = \"127.0.0.1:0\"\n[health]\nlisten = \"127.0.0.1:0\"\n\
         [datadog.agent]\ndogstatsd = \"unix://{}\"\n",
        own.display(),
        link.display()
    );
    check(&settings, &[], &["datadog.agent.dogstatsd", "own listener"]);
}

#[test]
fn the_intake_without_an_identity_is_refused() {
    check("[datadog]\noutput = \"intake\"\n", &[("DD_API_KEY", "k")], &["hostname", "POD_NAME"]);
}

#[test]
fn a_taken_port_is_named_with_what_to_do() {
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let settings = format!(
        "[statsd]\nlisten = [\"127.0.0.1:{port}\"]\n[page]\nlisten = \"127.0.0.1:0\"\n[health]\nlisten = \"127.0.0.1:0\"\n"
    );
    check(&settings, &[], &[&port.to_string(), "statsd.listen", "in use"]);
}

#[test]
fn a_missing_target_is_said_and_metrics_still_flow() {
    let sidecar = Sidecar::start("[watch]\nname = \"no-such-process\"\n", &[]);
    sender(sidecar.statsd[0]).send(b"a:1|c").unwrap();
    wait_for(Duration::from_secs(5), "the sample", || {
        (sidecar.metric("oomwatch_statsd_samples_total ")? > 0.0).then_some(())
    });
    let degraded = wait_for(Duration::from_secs(5), "the page to say what is missing", || {
        let status = sidecar.api("/api/status");
        let list = status["degraded"].as_array()?.clone();
        list.iter().any(|it| it.to_string().contains("no-such-process")).then_some(list)
    });
    assert!(degraded.iter().all(|it| !it["fix"].as_str().unwrap().is_empty()), "{degraded:?}");
}

#[test]
fn bad_lines_are_counted_and_the_rest_of_the_packet_is_kept() {
    let sidecar = Sidecar::start("", &[]);
    sender(sidecar.statsd[0]).send(b"good:1|c\nbad\nx:y|c\nalso.good:2|g|#a:b|unknown:1\n\xff\xfe\nb:1|q\n").unwrap();
    let dropped = wait_for(Duration::from_secs(5), "the bad lines", || {
        let status = sidecar.api("/api/status");
        let dropped = status["statsd"]["dropped"].as_object()?.clone();
        let total: u64 = dropped.values().filter_map(serde_json::Value::as_u64).sum();
        (total == 4 && status["statsd"]["samples"] == 2).then_some(dropped)
    });
    assert!(dropped.keys().all(|reason| reason.starts_with("parse_")), "{dropped:?}");
}

/// A pprof endpoint that answers every request in one way.
fn pprof(answer: &'static [u8], hold: bool) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 4_096]);
            let _ = stream.write_all(answer);
            if hold {
                held.push(stream);
            }
        }
    });
    address
}

fn degraded_by_pprof(answer: &'static [u8], hold: bool, words: &[&str]) {
    let address = pprof(answer, hold);
    let settings =
        format!("[watch]\npid = {}\n[profile]\nurl = \"http://{address}/debug/pprof\"\n", std::process::id());
    let sidecar = Sidecar::start(&settings, &[]);
    let said = wait_for(Duration::from_secs(20), "the page to say why there is no profile", || {
        let status = sidecar.api("/api/status");
        let list = status["degraded"].as_array()?.clone();
        list.iter().find(|it| it["what"] == "profiles").cloned()
    });
    for word in words {
        assert!(said.to_string().contains(word), "{word:?} is missing in {said}");
    }
    sender(sidecar.statsd[0]).send(b"a:1|c").unwrap();
    wait_for(Duration::from_secs(5), "metrics to flow", || {
        (sidecar.metric("oomwatch_statsd_samples_total ")? > 0.0).then_some(())
    });
}

#[test]
fn pprof_that_answers_404_is_said() {
    degraded_by_pprof(
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        false,
        &["404", "net/http/pprof", "profile.url"],
    );
}

#[test]
fn pprof_that_answers_html_is_said() {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 20\r\n\r\n<html>welcome</html>";
    degraded_by_pprof(answer, false, &["text/html", "no profile", "profile.url"]);
}

#[test]
fn pprof_that_sends_half_a_gzip_is_said() {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09";
    degraded_by_pprof(answer, false, &["profile"]);
}

#[test]
fn pprof_that_never_answers_is_given_up() {
    degraded_by_pprof(b"", true, &["5 s"]);
}
