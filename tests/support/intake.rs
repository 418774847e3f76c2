//! A Datadog intake on loopback that fails on command.
//!
//! Decodes what it gets with the crate's own types (`tests/wire.rs` has Datadog's own types read the same bytes), keeps the
//! last write for each (context, second) as Datadog does, and notes every payload that breaks a rule of the real intake; a
//! test that ends with one noted fails.
#![allow(dead_code, reason = "each test crate uses its own part of the kit")]

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use oomwatch::datadog::proto::{MetricPayload, MetricSeries, MetricType, Sketch, SketchPayload};
use prost::Message;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

/// How the intake answers instead of 202.
#[derive(Clone, Debug)]
pub enum Fault {
    Status(u16),
    RetryAfter(u16, u64),
    /// The right answer, late.
    Delay(Duration),
    /// The connection is closed without an answer.
    Reset,
    /// A status with a body and its type.
    Reply(u16, &'static str, &'static str),
    /// A status and a body that drips for ever.
    Drip(u16),
    /// No answer at all, for ever.
    Hang,
    /// A status and the beginning of a body, then the end of the connection.
    Cut(u16),
    /// A status and so many bytes.
    Flood(u16, u64),
    /// A status and so many headers.
    Headers(u16, usize),
    /// A redirect to there.
    Redirect(u16, String),
}

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub at: Instant,
    pub path: String,
    pub key: String,
    pub headers: BTreeMap<String, String>,
    /// The body as it came: what the Go decoder reads.
    pub raw: Bytes,
    pub status: u16,
    pub body: Decoded,
}

#[derive(Clone, Debug)]
pub enum Decoded {
    Series(Vec<MetricSeries>),
    Sketches(Vec<Sketch>),
    Json(Value),
    Nothing,
}

/// What the fake knows; tests wait for it to become what they expect.
#[derive(Debug, Default)]
pub struct Seen {
    pub requests: Vec<Recorded>,
    /// Broken rules of the real intake.
    pub violations: Vec<String>,
    /// Questions whether a key is good, by the key; they stand in none of the others.
    pub validated: Vec<String>,
    /// Answers to those, before 200.
    validate: Option<Fault>,
    /// Requests that came, answered or not yet.
    pub arrived: usize,
    /// One answer each, first come first served.
    faults: VecDeque<Fault>,
    /// When there are none of those.
    standing: Option<Fault>,
    /// Other keys get 403.
    key: Option<String>,
    /// 413 for payloads with more items.
    most_items: Option<usize>,
}

impl Seen {
    pub fn accepted(&self) -> impl Iterator<Item = &Recorded> {
        self.requests.iter().filter(|request| request.status == 202)
    }

    /// Every accepted series, in order of arrival.
    pub fn series(&self) -> Vec<&MetricSeries> {
        let bodies = self.accepted().map(|request| &request.body);
        bodies
            .filter_map(|body| if let Decoded::Series(series) = body { Some(series) } else { None })
            .flatten()
            .collect()
    }

    pub fn sketches(&self) -> Vec<&Sketch> {
        let bodies = self.accepted().map(|request| &request.body);
        bodies.filter_map(|body| if let Decoded::Sketches(all) = body { Some(all) } else { None }).flatten().collect()
    }

    fn last_writes(&self, name: &str) -> BTreeMap<(Vec<String>, String, i64), f64> {
        let mut last = BTreeMap::new();
        for series in self.series().into_iter().filter(|series| series.metric == name) {
            let host =
                series.resources.iter().find(|it| it.r#type == "host").map(|it| it.name.clone()).unwrap_or_default();
            let scale = if series.r#type() == MetricType::Rate { series.interval as f64 } else { 1.0 };
            for point in &series.points {
                last.insert((series.tags.clone(), host.clone(), point.timestamp), point.value * scale);
            }
        }
        last
    }

    /// What a counter adds up to over all contexts and seconds, the last write of each counting.
    pub fn counter(&self, name: &str) -> f64 {
        self.last_writes(name).values().sum()
    }

    /// The gauge's value at its latest second.
    pub fn gauge(&self, name: &str) -> Option<f64> {
        self.last_writes(name).iter().max_by_key(|(key, _)| key.2).map(|(_, value)| *value)
    }

    /// Values in all sketches of the name. Sketches add up: the intake does not overwrite them.
    pub fn sketch_count(&self, name: &str) -> i64 {
        let named = self.sketches().into_iter().filter(|sketch| sketch.metric == name);
        named.flat_map(|sketch| &sketch.dogsketches).map(|dog| dog.cnt).sum()
    }

    pub fn events(&self) -> Vec<&Value> {
        self.json("/api/v1/events")
    }

    pub fn checks(&self) -> Vec<&Value> {
        self.json("/api/v1/check_run").into_iter().filter_map(Value::as_array).flatten().collect()
    }

    fn json(&self, path: &str) -> Vec<&Value> {
        let of_path = self.accepted().filter(|request| request.path == path);
        of_path
            .filter_map(|request| if let Decoded::Json(value) = &request.body { Some(value) } else { None })
            .collect()
    }
}

/// Runs until it is dropped.
pub struct FakeIntake {
    pub address: SocketAddr,
    seen: watch::Sender<Seen>,
    scheme: &'static str,
    /// Dropped with the fake: its connections end with it.
    _tasks: JoinSet<()>,
}

impl FakeIntake {
    pub async fn start() -> FakeIntake {
        FakeIntake::start_at(([127, 0, 0, 1], 0).into(), None).await
    }

    pub async fn start_tls(tls: rustls::ServerConfig) -> FakeIntake {
        FakeIntake::start_at(([127, 0, 0, 1], 0).into(), Some(tls)).await
    }

    /// At a given address: an intake that comes back.
    pub async fn start_at(address: SocketAddr, tls: Option<rustls::ServerConfig>) -> FakeIntake {
        let listener = TcpListener::bind(address).await.expect("bind the fake intake");
        let address = listener.local_addr().expect("it is bound");
        let seen = watch::Sender::new(Seen::default());
        let scheme = if tls.is_some() { "https" } else { "http" };
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, tls.map(|tls| TlsAcceptor::from(Arc::new(tls))), seen.clone()));
        FakeIntake { address, seen, scheme, _tasks: tasks }
    }

    /// `localhost`, because certificates are made for names.
    pub fn url(&self) -> String {
        match self.scheme {
            "https" => format!("https://localhost:{}", self.address.port()),
            scheme => format!("{scheme}://{}", self.address),
        }
    }

    /// The next requests fail so, one each.
    pub fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.seen.send_modify(|seen| seen.faults.extend(faults));
    }

    /// All requests fail so until told otherwise.
    pub fn fail_always(&self, fault: Option<Fault>) {
        self.seen.send_modify(|seen| seen.standing = fault);
    }

    /// How the question whether the key is good is answered.
    pub fn answer_validate(&self, fault: Option<Fault>) {
        self.seen.send_modify(|seen| seen.validate = fault);
    }

    pub fn take_only_key(&self, key: &str) {
        self.seen.send_modify(|seen| seen.key = Some(key.to_owned()));
    }

    pub fn take_at_most(&self, items: usize) {
        self.seen.send_modify(|seen| seen.most_items = Some(items));
    }

    pub fn seen(&self) -> watch::Ref<'_, Seen> {
        self.seen.borrow()
    }

    /// Waits until the condition holds; fails the test with `what` when it does not within the time.
    pub async fn wait_for(&self, what: &str, within: Duration, condition: impl FnMut(&Seen) -> bool) {
        let mut seen = self.seen.subscribe();
        let waited = tokio::time::timeout(within, seen.wait_for(condition)).await.map(|held| held.is_ok());
        assert!(waited.unwrap_or(false), "not within {within:?}: {what}; {} requests came", self.seen().requests.len());
    }
}

impl Drop for FakeIntake {
    fn drop(&mut self) {
        let violations = &self.seen.borrow().violations;
        assert!(
            std::thread::panicking() || violations.is_empty(),
            "payloads broke the intake's rules: {violations:#?}"
        );
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, seen: watch::Sender<Seen>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (seen, tls) = (seen.clone(), tls.clone());
        connections.spawn(async move {
            match tls {
                None => serve(stream, seen).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        serve(stream, seen).await;
                    }
                }
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, seen: watch::Sender<Seen>) {
    let service = service_fn(move |request| answer(request, seen.clone()));
    // A fault ends in an error here, and so does a client that goes away.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

type Body = BoxBody<Bytes, std::io::Error>;

async fn answer(request: Request<Incoming>, seen: watch::Sender<Seen>) -> Result<Response<Body>, std::io::Error> {
    let (head, body) = request.into_parts();
    let raw = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let headers: BTreeMap<String, String> =
        head.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap_or("?").to_owned())).collect();
    let path = head.uri.path().to_owned();
    let key = headers.get("dd-api-key").cloned().unwrap_or_default();
    if path == "/api/v1/validate" {
        let mut fault = None;
        seen.send_modify(|seen| {
            let right = seen.key.as_deref().is_none_or(|right| right == key);
            fault = if right { seen.validate.clone() } else { Some(Fault::Status(403)) };
            seen.validated.push(key);
        });
        return reply(fault.as_ref(), fault.as_ref().map_or(200, status));
    }
    let (body, mut violations) = decode(&path, &headers, &raw);
    if key.is_empty() {
        violations.push(format!("{path}: no key"));
    }
    let mut fault = None;
    seen.send_modify(|seen| fault = seen.fault(&key, &body));
    if let Some(Fault::Delay(delay)) = fault {
        tokio::time::sleep(delay).await;
        fault = None;
    }
    if let Some(Fault::Hang) = fault {
        std::future::pending::<()>().await;
    }
    let status = fault.as_ref().map_or(202, status);
    seen.send_modify(|seen| {
        seen.violations.extend(violations);
        seen.requests.push(Recorded { at: Instant::now(), path, key, headers, raw, status, body });
    });
    reply(fault.as_ref(), status)
}

impl Seen {
    fn fault(&mut self, key: &str, body: &Decoded) -> Option<Fault> {
        self.arrived += 1;
        let items = match body {
            Decoded::Series(series) => series.len(),
            Decoded::Sketches(sketches) => sketches.len(),
            _ => 1,
        };
        if self.key.as_deref().is_some_and(|right| right != key) {
            return Some(Fault::Status(403));
        }
        if self.most_items.is_some_and(|most| items > most) {
            return Some(Fault::Status(413));
        }
        self.faults.pop_front().or_else(|| self.standing.clone())
    }
}

fn status(fault: &Fault) -> u16 {
    match fault {
        Fault::Delay(_) => 202,
        Fault::Status(status) | Fault::RetryAfter(status, _) | Fault::Reply(status, ..) => *status,
        Fault::Drip(status) | Fault::Cut(status) | Fault::Flood(status, _) => *status,
        Fault::Headers(status, _) | Fault::Redirect(status, _) => *status,
        Fault::Reset | Fault::Hang => 0,
    }
}

fn reply(fault: Option<&Fault>, status: u16) -> Result<Response<Body>, std::io::Error> {
    let whole =
        |text: &'static str| Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {}).boxed();
    let mut response = Response::builder().status(if status == 0 { 500 } else { status });
    let body = match fault {
        Some(Fault::Reset) => return Err(std::io::ErrorKind::ConnectionReset.into()),
        Some(Fault::RetryAfter(_, seconds)) => {
            response = response.header("retry-after", *seconds);
            whole("{}")
        }
        Some(Fault::Reply(_, kind, body)) => {
            response = response.header("content-type", *kind);
            whole(body)
        }
        Some(Fault::Redirect(_, to)) => {
            response = response.header("location", to);
            whole("{}")
        }
        Some(Fault::Headers(_, count)) => {
            response = (0..*count).fold(response, |response, n| response.header(format!("x-noise-{n}"), "noise"));
            whole("{}")
        }
        // A body that fails in the middle: hyper ends the connection there.
        Some(Fault::Cut(_)) => {
            let broken = [Ok(Frame::data(Bytes::from_static(b"{"))), Err(std::io::ErrorKind::ConnectionReset.into())];
            StreamBody::new(futures_util::stream::iter(broken)).boxed()
        }
        Some(Fault::Flood(_, bytes)) => flood(*bytes),
        Some(Fault::Drip(_)) => StreamBody::new(futures_util::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Some((Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"."))), ()))
        }))
        .boxed(),
        _ => whole("{}"),
    };
    response.body(body).map_err(std::io::Error::other)
}

/// Bytes of floods that found a way out, in this process.
pub static FLOODED: AtomicU64 = AtomicU64::new(0);

fn flood(bytes: u64) -> Body {
    static CHUNK: [u8; 65_536] = [b'x'; 65_536];
    StreamBody::new(futures_util::stream::unfold(bytes, |left| async move {
        let some = left.min(CHUNK.len() as u64);
        FLOODED.fetch_add(some, Ordering::Relaxed);
        (some > 0).then(|| (Ok(Frame::data(Bytes::from_static(&CHUNK[..some as usize]))), left - some))
    }))
    .boxed()
}

fn decode(path: &str, headers: &BTreeMap<String, String>, raw: &[u8]) -> (Decoded, Vec<String>) {
    let mut broken = Vec::new();
    let body = match path {
        "/api/v2/series" => plain(headers, raw, 512_000, 5_242_880, &mut broken)
            .and_then(|plain| MetricPayload::decode(&plain[..]).ok())
            .map(|payload| Decoded::Series(payload.series)),
        "/api/beta/sketches" => plain(headers, raw, 2_621_440, 4_194_304, &mut broken)
            .and_then(|plain| SketchPayload::decode(&plain[..]).ok())
            .map(|payload| Decoded::Sketches(payload.sketches)),
        "/api/v1/events" | "/api/v1/check_run" => serde_json::from_slice(raw).ok().map(Decoded::Json),
        _ => Some(Decoded::Nothing),
    };
    match &body {
        Some(Decoded::Series(all)) => series_rules(all, &mut broken),
        Some(Decoded::Sketches(all)) => sketch_rules(all, &mut broken),
        Some(Decoded::Json(value)) => json_rules(path, value, &mut broken),
        Some(Decoded::Nothing) => {}
        None => broken.push(format!("{path}: the body cannot be decoded")),
    }
    (body.unwrap_or(Decoded::Nothing), broken)
}

fn plain(
    headers: &BTreeMap<String, String>,
    raw: &[u8],
    compressed: usize,
    uncompressed: usize,
    broken: &mut Vec<String>,
) -> Option<Vec<u8>> {
    for (name, expected) in [("content-encoding", "zstd"), ("content-type", "application/x-protobuf")] {
        if headers.get(name).map(String::as_str) != Some(expected) {
            broken.push(format!("{name} is {:?}", headers.get(name)));
        }
    }
    let plain = zstd::decode_all(raw).ok()?;
    if raw.len() > compressed || plain.len() > uncompressed {
        broken.push(format!("{} bytes, {} uncompressed", raw.len(), plain.len()));
    }
    Some(plain)
}

fn series_rules(all: &[MetricSeries], broken: &mut Vec<String>) {
    let points: usize = all.iter().map(|series| series.points.len()).sum();
    if points > 10_000 {
        broken.push(format!("{points} points in a payload"));
    }
    for series in all {
        metric_rules(&series.metric, &series.tags, broken);
        for point in &series.points {
            if !point.value.is_finite() {
                broken.push(format!("{}: {}", series.metric, point.value));
            }
            time_rule(&series.metric, point.timestamp, broken);
        }
    }
}

fn sketch_rules(all: &[Sketch], broken: &mut Vec<String>) {
    for sketch in all {
        metric_rules(&sketch.metric, &sketch.tags, broken);
        for dog in &sketch.dogsketches {
            time_rule(&sketch.metric, dog.ts, broken);
            let held: i64 = dog.n.iter().map(|n| i64::from(*n)).sum();
            if dog.k.len() != dog.n.len() || held != dog.cnt || !dog.k.is_sorted() {
                broken.push(format!(
                    "{}: {} keys, {} counts, {held} of {} values",
                    sketch.metric,
                    dog.k.len(),
                    dog.n.len(),
                    dog.cnt
                ));
            }
        }
    }
}

fn metric_rules(name: &str, tags: &[String], broken: &mut Vec<String>) {
    if name.chars().count() > 200 || !name.bytes().any(|byte| byte.is_ascii_alphabetic()) {
        broken.push(format!("name {name:?}"));
    }
    if tags.len() > 100 || tags.iter().any(|tag| tag.len() > 200 || tag.is_empty()) {
        broken.push(format!("{name}: {} tags, or one too long or empty", tags.len()));
    }
}

fn time_rule(name: &str, timestamp: i64, broken: &mut Vec<String>) {
    let now = oomwatch::pipeline::wall_clock() as i64;
    if timestamp > now + 600 || timestamp < now - 3_600 {
        broken.push(format!("{name}: timestamp {timestamp} is {} s off", timestamp - now));
    }
}

fn json_rules(path: &str, value: &Value, broken: &mut Vec<String>) {
    let text = |value: &Value, key: &str| value[key].as_str().map(|text| text.chars().count());
    if path == "/api/v1/events" {
        let (title, body) = (text(value, "title"), text(value, "text"));
        let fits = title.is_some_and(|n| (1..=100).contains(&n)) && body.is_some_and(|n| n <= 4_000);
        if !fits {
            broken.push(format!("event with a title of {title:?} and a text of {body:?} characters"));
        }
        return;
    }
    for check in value.as_array().map_or(&[][..], Vec::as_slice) {
        if check["check"].as_str().is_none()
            || check["host_name"].as_str().is_none()
            || check["status"].as_u64().is_none_or(|n| n > 3)
        {
            broken.push(format!("check {check}"));
        }
    }
}
