//! The uploader against an Agent and an intake that answer as the test says, with pauses of a few milliseconds.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;

use super::*;
use crate::pipeline::Target;
use crate::pprof::language::Language;

const KEY: &str = "0123456789abcdef0123456789abcdef";

/// Reads one request to the end of its body and answers it; gives head and body.
async fn answer_one(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &str) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4_096];
    loop {
        let n = stream.read(&mut buffer).await.unwrap();
        bytes.extend_from_slice(&buffer[..n]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        let whole = text.find("\r\n\r\n").zip(length).is_some_and(|(head, length)| bytes.len() >= head + 4 + length);
        if whole || n == 0 {
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.ok();
            return text;
        }
    }
}

fn status(line: &str) -> String {
    format!("HTTP/1.1 {line}\r\ncontent-length: 0\r\n\r\n")
}

fn intake(base_url: String) -> To {
    let (api_key, proxy) = (Secret::new(KEY), Proxy::default());
    To::Intake { base_url, api_key, api_key_file: None, ca_file: None, proxy }
}

fn uploader(to: To) -> Uploader {
    let drain = Duration::from_millis(500);
    let settings = Settings { to, hostname: None, drain, stopped: StopTime::default() };
    Uploader { pause: Duration::from_millis(10), ..Uploader::new(settings).unwrap() }
}

fn upload() -> Upload {
    let target = Target { pid: 7, name: "worker".into(), rule: String::new(), incarnation: 1 };
    let (app, incident) = ("worker".to_owned(), "i1".to_owned());
    let profiles = vec![("heap.pprof", Bytes::from_static(b"\x1f\x8bheap"))];
    let tags = vec!["env:ci".to_owned()];
    Upload {
        target,
        app,
        tags,
        trigger: "client_leak",
        incident,
        taken_at: 1e9,
        sequence: 0,
        language: Language::Go,
        profiles,
    }
}

/// An HTTP server of the answers, one connection each; gives its address and what was asked.
async fn server(answers: &[&str]) -> (String, JoinSet<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let answers: Vec<String> = answers.iter().map(|line| status(line)).collect();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut asked = Vec::new();
        for answer in answers {
            asked.push(answer_one(listener.accept().await.unwrap().0, &answer).await);
        }
        asked
    });
    (base, tasks)
}

async fn check(answers: &[&str], expected: Result<(), &str>) -> Vec<String> {
    let (base, mut tasks) = server(answers).await;
    let outcome = uploader(To::Agent(base)).deliver(&upload()).await;
    assert_eq!(outcome.map_err(|failed| failed.result), expected, "{answers:?}");
    tasks.join_next().await.unwrap().unwrap()
}

#[tokio::test]
async fn an_agent_gets_the_form_and_never_the_key() {
    let asked = check(&["200 OK"], Ok(())).await;
    assert!(asked[0].starts_with("POST /profiling/v1/input HTTP/1.1\r\n"), "{}", asked[0]);
    assert!(asked[0].contains("content-type: multipart/form-data; boundary=oomwatch-"), "{}", asked[0]);
    assert!(asked[0].contains("dd-evp-origin: oomwatch\r\n") && asked[0].contains("host: 127.0.0.1:"), "{}", asked[0]);
    assert!(!asked[0].contains("dd-api-key") && !asked[0].contains(KEY));
}

#[tokio::test]
async fn the_intake_gets_the_key_at_its_own_path() {
    let (base, mut tasks) = server(&["202 Accepted"]).await;
    assert_eq!(uploader(intake(base)).deliver(&upload()).await, Ok(()));
    let asked = tasks.join_next().await.unwrap().unwrap();
    assert!(asked[0].starts_with("POST /api/v2/profile HTTP/1.1\r\n"), "{}", asked[0]);
    assert!(asked[0].contains(&format!("dd-api-key: {KEY}\r\n")), "{}", asked[0]);
}

#[test]
fn a_key_never_travels_in_the_clear() {
    let refused = |base: &str| {
        let stopped = StopTime::default();
        let to = intake(base.to_owned());
        Uploader::new(Settings { to, hostname: None, drain: Duration::ZERO, stopped }).is_err()
    };
    assert!(refused("http://intake.profile.datadoghq.com") && !refused("https://intake.profile.datadoghq.com"));
}

#[tokio::test]
async fn what_may_pass_is_tried_three_times_and_what_will_not_once() {
    check(&["503 Unwell", "429 Slow", "200 OK"], Ok(())).await;
    check(&["503 Unwell", "500 Unwell", "502 Unwell"], Err("unreachable")).await;
    for once in ["400 Bad", "401 Key", "403 Key", "404 Old", "302 Away", "413 Large"] {
        check(&[once], Err("refused")).await;
    }
}

#[tokio::test]
async fn a_page_of_html_is_no_agent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let page = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 0\r\n\r\n";
    let mut uploader = uploader(To::Agent(base));
    let serve = async { answer_one(listener.accept().await.unwrap().0, page).await };
    let form = ProfileForm { content_type: "x".into(), body: Bytes::from_static(b"x") };
    let (outcome, _) = tokio::join!(uploader.attempt(&form), serve);
    assert_eq!(outcome.map_err(|failed| failed.result), Err("refused"));
}

#[tokio::test]
async fn a_closed_port_is_given_up_after_the_last_try() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let began = Instant::now();
    let outcome = uploader(To::Agent(format!("http://{port}"))).deliver(&upload()).await;
    assert_eq!(outcome.map_err(|failed| failed.result), Err("unreachable"));
    assert!(began.elapsed() >= Duration::from_millis(25), "two pauses, the second four times the first");
}

#[tokio::test]
async fn an_agents_unix_socket_is_as_good() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("apm.socket");
    let listener = UnixListener::bind(&path).unwrap();
    let mut uploader = uploader(To::AgentSocket(path));
    let serve = async { answer_one(listener.accept().await.unwrap().0, &status("200 OK")).await };
    let upload = upload();
    let (outcome, asked) = tokio::join!(uploader.deliver(&upload), serve);
    assert_eq!(outcome, Ok(()));
    assert!(asked.starts_with("POST /profiling/v1/input HTTP/1.1\r\n") && asked.contains("host: localhost"), "{asked}");
}

#[tokio::test]
async fn the_stop_ends_the_tries_and_the_drain_ends_all() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut refused = uploader(To::Agent(format!("http://{port}")));
    refused.settings.stopped = Arc::new(std::sync::OnceLock::from(Instant::now()));
    refused.pause = Duration::from_secs(600);
    let outcome = timeout(Duration::from_secs(60), refused.deliver(&upload())).await;
    assert_eq!(outcome.expect("no second try after the stop"), Err(shutdown()));
    // Somebody who takes the request and keeps silent.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut held = uploader(To::Agent(format!("http://{}", silent.local_addr().unwrap())));
    held.settings.stopped = Arc::new(std::sync::OnceLock::from(Instant::now()));
    let (send, mut uploads) = mpsc::channel(1);
    send.send(upload()).await.unwrap();
    drop(send);
    let began = Instant::now();
    held.run(&mut uploads).await;
    // An attempt alone would last ten seconds.
    let bounds = Duration::from_millis(400)..TIMEOUT;
    assert!(bounds.contains(&began.elapsed()), "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_upload_that_a_fault_broke_off_is_counted_and_the_next_one_goes() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let _local = metrics::set_default_local_recorder(&recorder);
    let (base, mut tasks) = server(&["200 OK"]).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut uploader = uploader(To::Agent(format!("http://{}", silent.local_addr().unwrap())));
    let (send, mut uploads) = mpsc::channel(1);
    send.send(upload()).await.unwrap();
    // One look takes the upload from the queue; then the run is dropped, as a panic would.
    std::future::poll_fn(|context| {
        let run = std::pin::pin!(uploader.run(&mut uploads));
        assert!(run.poll(context).is_pending());
        std::task::Poll::Ready(())
    })
    .await;
    uploader.way = Way::Agent(address(&base, AGENT_PROFILES).unwrap());
    send.send(upload()).await.unwrap();
    drop(send);
    uploader.run(&mut uploads).await;
    let text = recorder.handle().render();
    for row in ["{result=\"broken\"} 1", "{result=\"sent\"} 1"] {
        assert!(text.contains(&format!("oomwatch_profile_uploads_total{row}")), "{row}: {text}");
    }
    assert_eq!(tasks.join_next().await.unwrap().unwrap().len(), 1);
}
