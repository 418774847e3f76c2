//! Both listeners over raw TCP, as a hostile or clumsy client would use them.

mod connections;
mod flame;
mod profiles;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::http::{CONNECTIONS, HEADER_TIME};
use super::{HealthServer, PageServer, Settings, Wires};
use crate::pipeline::plan::Wish;
use crate::pipeline::{PullNow, ReadingPlace, StoreRequest, StoredProfile};
use crate::snapshot::{
    About, DegradedView, IncidentView, MemoryView, OutputPart, ReadingPoint, Snapshots, StatsdPart, TopContexts,
    TopName, WatchPart,
};

const DEADLINE: Duration = Duration::from_secs(10);
const PROFILE: &[u8] = b"\x1f\x8bprofile";

/// A page on port 0 over hand-made snapshots, and a store that knows every profile but one: what reaches it is found.
struct Rig {
    address: SocketAddr,
    stop: CancellationToken,
    watch: watch::Sender<Arc<WatchPart>>,
    incidents: watch::Sender<Arc<Vec<IncidentView>>>,
    _statsd: watch::Sender<Arc<StatsdPart>>,
    reading: ReadingPlace,
    tasks: JoinSet<()>,
}

impl Rig {
    async fn start() -> Self {
        Self::start_with(None).await
    }

    async fn start_with(token: Option<&str>) -> Self {
        let (watch, watch_part) = watch::channel(Arc::new(watch_part(2)));
        let (incidents, incidents_part) = watch::channel(Arc::new(vec![incident("a1", 1), incident("b2", 2)]));
        let (statsd, statsd_part) = watch::channel(Arc::new(statsd_part()));
        // Its owner has ended: the part stays as it is.
        let (_, output) = watch::channel(Arc::new(output_part()));
        let about = About { version: "1.2.3".into(), started_at: "then".into(), degraded: vec![degraded("key")] };
        let parts = Snapshots {
            statsd: statsd_part,
            output,
            watch: watch_part,
            incidents: incidents_part,
            about: watch::channel(Arc::new(about)).1,
            state: watch::channel(Arc::default()).1,
        };
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let settings = Settings { listen, hosts: vec![], token: token.map(str::to_owned) };
        let server = PageServer::bind(settings).await.expect("bind loopback");
        let (address, stop) = (server.local_addr(), CancellationToken::new());
        let (store, requests) = mpsc::channel(1);
        let mut tasks = JoinSet::new();
        let (asked, wishes) = mpsc::channel(1);
        let reading = ReadingPlace::default();
        let (wires, until) = (Wires { store, asked, reading: reading.clone() }, stop.clone());
        tasks.spawn(async move { server.run(parts, wires, until).await });
        tasks.spawn(store_of_all_but_one(requests));
        tasks.spawn(one_round_then_a_cool_down(wishes));
        Self { address, stop, watch, incidents, _statsd: statsd, reading, tasks }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")).await
    }

    async fn json(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{path}");
        serde_json::from_slice(&answer.body).expect("JSON")
    }

    async fn send(&self, request: &str) -> Answer {
        exchange(self.address, request).await
    }

    async fn open(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("connect to loopback")
    }
}

async fn store_of_all_but_one(mut requests: mpsc::Receiver<StoreRequest>) {
    let known = |id: &str| id != "00112233445566ab";
    while let Some(request) = requests.recv().await {
        match request {
            StoreRequest::Read { id, reply } => drop(reply.send(known(&id).then(|| flame::kept(&id)))),
            StoreRequest::Forget { id, reply } => drop(reply.send(known(&id))),
            StoreRequest::List { reply } => drop(reply.send(vec![StoredProfile {
                id: "0123456789abcdef".into(),
                kind: "heap".into(),
                reason: "baseline".into(),
                taken_at: 60.0,
                bytes: 9,
            }])),
            StoreRequest::Save { .. } | StoreRequest::Settle { .. } => panic!("the page saves nothing"),
        }
    }
}

async fn one_round_then_a_cool_down(mut wishes: mpsc::Receiver<PullNow>) {
    let answers = [Wish::Begun, Wish::Suppressed("busy"), Wish::Suppressed("cooldown"), Wish::Suppressed("budget")];
    for answer in answers {
        let Some(PullNow { reply }) = wishes.recv().await else { return };
        reply.send(answer).ok();
    }
}

fn degraded(what: &str) -> DegradedView {
    DegradedView { what: what.into(), why: "so".into(), fix: "do".into() }
}

fn statsd_part() -> StatsdPart {
    let name = |name: &str, samples, contexts| TopName { name: name.into(), samples, contexts };
    StatsdPart {
        datagrams: 5,
        samples: 9,
        app_samples: 0,
        contexts: 3,
        clients: None,
        senders: 2,
        new_senders: 9,
        reporting_clients: 1,
        dropped: BTreeMap::from([("parse", 1), ("queue_full", 2)]),
        identities: BTreeMap::from([("I1", 0)]),
        top: TopContexts { names: vec![name("few", 9, 1), name("many", 1, 9), name("busy", 20, 2)], folded: 4 },
    }
}

fn output_part() -> OutputPart {
    OutputPart {
        mode: "intake",
        dropped: BTreeMap::from([("queue_full", 3)]),
        identities: BTreeMap::from([("I3", 0)]),
        degraded: vec![degraded("key"), degraded("site")],
        ..Default::default()
    }
}

fn watch_part(readings: u64) -> WatchPart {
    let point = |t| ReadingPoint { t: t as f64, rss_bytes: Some(t * 10), ..Default::default() };
    WatchPart {
        memory: MemoryView { rss_bytes: Some(7), ..Default::default() },
        statsd_clients: Some(312),
        kernel_drops: 4,
        degraded: vec![degraded("pprof")],
        readings: Arc::new((1..=readings).map(point).collect()),
        ..Default::default()
    }
}

fn incident(id: &str, second: u32) -> IncidentView {
    IncidentView { id: id.into(), opened_at: format!("2026-01-01T00:00:{second:02}Z"), ..Default::default() }
}

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn read(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or_else(|| {
            panic!("no end of headers in {:?}", String::from_utf8_lossy(bytes));
        });
        let head = String::from_utf8(bytes[..end].to_vec()).expect("headers are text");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        Self { status, head, body: bytes[end + 4..].to_vec() }
    }

    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}

/// Everything until the server closes; the request must ask it to.
async fn exchange(address: SocketAddr, request: &str) -> Answer {
    let mut stream = TcpStream::connect(address).await.expect("connect to loopback");
    stream.write_all(request.as_bytes()).await.expect("write the request");
    let mut bytes = Vec::new();
    // A reset after a refusal is fine: what came before it counts.
    timeout(DEADLINE, stream.read_to_end(&mut bytes)).await.expect("an answer in time").ok();
    Answer::read(&bytes)
}

/// Reads until `needle` came; panics at the deadline or the end.
async fn read_until(stream: &mut TcpStream, needle: &str) -> String {
    let mut all = Vec::new();
    let waiting = async {
        while !String::from_utf8_lossy(&all).contains(needle) {
            assert_ne!(stream.read_buf(&mut all).await.expect("read"), 0, "closed before {needle:?}");
        }
    };
    timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("no {needle:?} in time"));
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test]
async fn status_merges_what_the_parts_tell() {
    let rig = Rig::start().await;
    let status = rig.json("/api/status").await;
    assert_eq!(status["version"], "1.2.3");
    assert_eq!(status["started_at"], "then");
    assert_eq!(status["target"], Value::Null);
    assert_eq!(status["output"]["mode"], "intake");
    assert_eq!(status["statsd"]["clients"], 312);
    assert_eq!(status["statsd"]["dropped"], json!({"kernel_rcvbuf": 4, "parse": 1, "queue_full": 5}));
    assert_eq!(status["identities"], json!({"I1": 0, "I3": 0}));
    assert_eq!(status["memory"]["state"], "learning");
    assert_eq!(status["memory"]["rss_bytes"], 7);
    let what: Vec<_> = status["degraded"].as_array().expect("a list").iter().map(|view| &view["what"]).collect();
    assert_eq!(what, ["key", "pprof", "site"]);
}

#[tokio::test]
async fn readings_contexts_and_incidents_answer_as_asked() {
    let rig = Rig::start().await;
    assert_eq!(rig.json("/api/readings?since=1").await["rss_bytes"], json!([20]));
    let csv = rig.get("/api/readings?format=csv").await;
    assert!(csv.body.starts_with(b"t_s,rss_bytes,working_set_bytes,threads,limit_bytes,incarnation\n1,10,"));
    assert_eq!(rig.get("/api/readings?since=soon").await.status, 400);
    let contexts = rig.json("/api/contexts?top=1").await;
    assert_eq!(contexts["names"], json!([{"name": "busy", "samples": 20, "contexts": 2}]));
    assert_eq!(contexts["most_contexts"][0]["name"], "many");
    assert_eq!(contexts["folded"], 4);
    assert_eq!(rig.get("/api/contexts?top=-1").await.status, 400);
    let incidents = rig.json("/api/incidents").await;
    assert_eq!([&incidents[0]["id"], &incidents[1]["id"]], ["b2", "a1"]);
    assert_eq!(rig.json("/api/incidents/a1").await["id"], "a1");
    assert_eq!(rig.get("/api/incidents/c3").await.status, 404);
}

#[tokio::test]
async fn a_profile_is_an_attachment_as_it_was_pulled() {
    let rig = Rig::start().await;
    let answer = rig.get("/api/profiles/00112233445566aa").await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, PROFILE));
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    assert_eq!(answer.header("content-length"), Some("9"));
    let disposition = "attachment; filename=\"oomwatch-00112233445566aa.pb.gz\"";
    assert_eq!(answer.header("content-disposition"), Some(disposition));
    assert_eq!(rig.get("/api/profiles/00112233445566ab").await.status, 404);
}

#[tokio::test]
async fn paths_that_try_to_leave_the_table_do_not_exist() {
    let rig = Rig::start().await;
    let tails = [
        "..%2f..%2fetc%2fpasswd",
        "../../etc/passwd",
        "%00",
        "00112233445566aa%00",
        "00112233445566AA",
        "/etc/passwd",
        "00112233445566aa/",
        "....//",
        "%2e%2e/",
        "..\\..\\x",
        "00112233445566aa;.png",
        "",
        "flame",
    ];
    for folder in ["/api/profiles/", "/assets/", "/api/incidents/", "/", "//", "/api/"] {
        for tail in tails {
            let path = format!("{folder}{tail}");
            if path != "/" {
                assert_eq!(rig.get(&path).await.status, 404, "{path}");
            }
        }
    }
}

#[tokio::test]
async fn every_answer_carries_the_security_headers() {
    let rig = Rig::start().await;
    let host = "HTTP/1.1\r\nConnection: close\r\nHost: ";
    for (request, status) in [
        (format!("GET / {host}127.0.0.1:{}\r\n\r\n", rig.address.port()), 200),
        (format!("GET /assets/app.css {host}[::1]:7070\r\n\r\n"), 200),
        (format!("GET /api/nothing {host}localhost\r\n\r\n"), 404),
        (format!("GET / {host}evil.example\r\n\r\n"), 421),
        (format!("GET /api/status {host}localhost\r\nSec-Fetch-Site: cross-site\r\n\r\n"), 403),
        (format!("POST /api/profiles {host}localhost\r\nContent-Length: 0\r\n\r\n"), 403),
        (format!("PUT /api/profiles {host}localhost\r\nContent-Length: 0\r\n\r\n"), 405),
        (format!("DELETE /api/profiles/00112233445566aa {host}localhost\r\n\r\n"), 403),
        (format!("GET /api/status {host}localhost\r\nContent-Length: 3\r\n\r\nabc"), 413),
    ] {
        let answer = rig.send(&request).await;
        assert_eq!(answer.status, status, "{request}");
        let policy = answer.header("content-security-policy").unwrap_or_default();
        assert!(policy.starts_with("default-src 'none'; script-src 'self';") && policy.ends_with("form-action 'none'"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("x-frame-options"), Some("DENY"));
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
        assert_eq!(answer.header("cross-origin-resource-policy"), Some("same-origin"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
}

#[tokio::test]
async fn with_a_token_data_is_told_to_its_bearer_only() {
    let rig = Rig::start_with(Some("secret")).await;
    assert_eq!(rig.get("/").await.status, 200);
    for path in ["/api/status", "/api/stream", "/api/profiles/00112233445566aa", flame::NOW, "/api/nothing"] {
        assert_eq!(rig.get(path).await.status, 401, "{path}");
    }
    let bearer =
        "GET /api/status HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer secret\r\nConnection: close\r\n\r\n";
    assert_eq!(rig.send(bearer).await.status, 200);
}

#[tokio::test]
async fn the_stream_tells_changes_and_ends_at_the_stop() {
    let mut rig = Rig::start().await;
    let mut stream = rig.open().await;
    stream.write_all(b"GET /api/stream HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("write");
    let first = read_until(&mut stream, "event: reading").await;
    assert!(first.contains("content-type: text/event-stream"), "{first}");
    assert!(first.contains("event: status\ndata: {"), "{first}");
    rig.watch.send_replace(Arc::new(watch_part(4)));
    let readings = read_until(&mut stream, "\"t\":4.0").await;
    assert!(readings.contains("\"t\":3.0") && !readings.contains("\"t\":1.0"), "{readings}");
    let mut changed = incident("b2", 2);
    changed.verdict = "it leaks\nhere".into();
    rig.incidents.send_replace(Arc::new(vec![incident("a1", 1), changed]));
    let told = read_until(&mut stream, "it leaks\\nhere").await;
    assert!(told.contains("event: incident\ndata: {\"id\":\"b2\"") && !told.contains("\"id\":\"a1\""), "{told}");
    rig.stop.cancel();
    let mut rest = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut rest)).await.expect("ends at the stop").expect("read");
    assert!(rest.ends_with(b"0\r\n\r\n"), "ended in the middle of a chunk");
    timeout(DEADLINE, rig.tasks.join_next()).await.expect("the server has ended");
}

#[tokio::test]
async fn health_answers_probes_and_the_scrape_and_nothing_else() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    metrics::with_local_recorder(&recorder, || metrics::counter!("oomwatch_x_total", "tag" => "a\"b\n").increment(3));
    let server = HealthServer::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("bind loopback");
    let (address, stop) = (server.local_addr(), CancellationToken::new());
    let mut tasks = JoinSet::new();
    let until = stop.clone();
    tasks.spawn(async move { server.run(metrics, until).await });
    let get = |path: &str, more: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: 10.1.2.3:9464\r\nConnection: close\r\n{more}\r\n");
        async move { exchange(address, &request).await }
    };
    assert_eq!(get("/livez", "").await.status, 200);
    assert_eq!(get("/readyz", "").await.status, 200);
    let scrape = get("/metrics", "").await;
    assert_eq!(scrape.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(String::from_utf8_lossy(&scrape.body).contains("oomwatch_x_total{tag=\"a\\\"b\\n\"} 3\n"));
    let open = get("/metrics", "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n").await;
    assert!(open.header("content-type").is_some_and(|kind| kind.starts_with("application/openmetrics-text")));
    assert!(open.body.ends_with(b"# EOF\n"));
    for path in ["/", "/api/status", "/metrics/", "/livez/../metrics"] {
        assert_eq!(get(path, "").await.status, 404, "{path}");
    }
    let post = exchange(address, "POST /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert_eq!((post.status, post.header("allow")), (405, Some("GET, HEAD")));
    stop.cancel();
    timeout(DEADLINE, tasks.join_next()).await.expect("the server has ended");
}
