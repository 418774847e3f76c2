//! The loopback intake of the demo: takes what Datadog would take, and tells what arrived.
//!
//! It reads the payloads with its own words for Datadog's wire, not with those the sidecar writes by, so that a count shown by
//! the demo is a second opinion. Only what a count needs is declared; the rest of a message is skipped.

use std::convert::Infallible;
use std::io::{self, Read};
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::CONTENT_ENCODING;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use prost::Message;
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// A body as sent, and as unpacked: above the largest payload that Datadog takes (5 MiB unpacked).
const MAX_BODY: usize = 8 << 20;

/// Connections at one time; the sidecar keeps a handful.
const MAX_CONNECTIONS: usize = 32;

/// Payloads on their way to the story. Full: the answer to the sidecar waits, nothing is lost.
pub const ARRIVALS: usize = 64;

/// One payload that was taken.
#[derive(Debug, Default, PartialEq)]
pub struct Arrived {
    pub endpoint: &'static str,
    /// Points, or events, or checks.
    pub items: u64,
    pub event: Option<Event>,
    /// Why it could not be read, if it could not.
    pub unreadable: Option<String>,
}

/// What the demo needs of an event.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Event {
    #[serde(default)]
    pub title: String,
    #[serde(default)]
    pub text: String,
    #[serde(default)]
    pub tags: Vec<String>,
    #[serde(default)]
    pub alert_type: String,
}

impl Event {
    /// Whether title, text or a tag hold `words`.
    pub fn says(&self, words: &str) -> bool {
        [&self.title, &self.text].into_iter().chain(&self.tags).any(|part| part.contains(words))
    }
}

/// A listener on a free loopback port.
#[derive(Debug)]
pub struct Intake {
    listener: TcpListener,
}

impl Intake {
    pub async fn bind() -> io::Result<Intake> {
        Ok(Intake { listener: TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await? })
    }

    pub fn addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until it is aborted.
    pub async fn run(self, arrivals: mpsc::Sender<Arrived>) {
        let mut connections = JoinSet::new();
        loop {
            if connections.len() >= MAX_CONNECTIONS {
                connections.join_next().await;
            }
            while connections.try_join_next().is_some() {}
            if let Ok((stream, _)) = self.listener.accept().await {
                connections.spawn(serve(stream, arrivals.clone()));
            }
        }
    }
}

async fn serve(stream: TcpStream, arrivals: mpsc::Sender<Arrived>) {
    let service = service_fn(move |request| answer(request, arrivals.clone()));
    // A connection that breaks is the sidecar's to notice: it sends again.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    request: Request<Incoming>,
    arrivals: mpsc::Sender<Arrived>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let Some(endpoint) = endpoint(request.uri().path()) else {
        return Ok(reply(StatusCode::NOT_FOUND, r#"{"errors":["no such endpoint"]}"#));
    };
    let encoding =
        request.headers().get(CONTENT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
    let Ok(body) = Limited::new(request.into_body(), MAX_BODY).collect().await else {
        return Ok(reply(StatusCode::PAYLOAD_TOO_LARGE, r#"{"errors":["payload too large"]}"#));
    };
    let arrived = read(endpoint, &encoding, &body.to_bytes());
    // A closed channel means that the demo is over: nobody waits for the answer either.
    let _ = arrivals.send(arrived).await;
    Ok(match endpoint {
        "/api/v1/validate" => reply(StatusCode::OK, r#"{"valid":true}"#),
        _ => reply(StatusCode::ACCEPTED, r#"{"errors":[]}"#),
    })
}

fn reply(status: StatusCode, json: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(json.as_bytes())));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    response
}

fn endpoint(path: &str) -> Option<&'static str> {
    ["/api/v2/series", "/api/beta/sketches", "/api/v1/events", "/api/v1/check_run", "/api/v1/validate"]
        .into_iter()
        .find(|known| *known == path)
}

/// Reads a payload; what cannot be read is counted with no items and the reason.
fn read(endpoint: &'static str, encoding: &str, body: &[u8]) -> Arrived {
    match unpack(encoding, body).and_then(|plain| count(endpoint, &plain)) {
        Ok((items, event)) => Arrived { endpoint, items, event, unreadable: None },
        Err(reason) => Arrived { endpoint, items: 0, event: None, unreadable: Some(format!("{endpoint}: {reason}")) },
    }
}

fn unpack(encoding: &str, body: &[u8]) -> Result<Vec<u8>, String> {
    let reader: Box<dyn Read + '_> = match encoding {
        "" | "identity" => Box::new(body),
        "zstd" | "zstd1" => Box::new(zstd::Decoder::new(body).map_err(|error| error.to_string())?),
        "deflate" => Box::new(flate2::read::ZlibDecoder::new(body)),
        "gzip" => Box::new(flate2::read::GzDecoder::new(body)),
        other => return Err(format!("content encoding {other:?}")),
    };
    let mut plain = Vec::new();
    reader.take(MAX_BODY as u64 + 1).read_to_end(&mut plain).map_err(|error| format!("{encoding}: {error}"))?;
    if plain.len() > MAX_BODY { Err("unpacks to more than 8 MiB".to_owned()) } else { Ok(plain) }
}

fn count(endpoint: &str, plain: &[u8]) -> Result<(u64, Option<Event>), String> {
    match endpoint {
        "/api/v2/series" => {
            let payload = Series::decode(plain).map_err(|error| error.to_string())?;
            Ok((payload.series.iter().map(|one| one.points.len() as u64).sum(), None))
        }
        "/api/beta/sketches" => {
            let payload = Sketches::decode(plain).map_err(|error| error.to_string())?;
            Ok((payload.sketches.iter().map(|one| one.points.len() as u64).sum(), None))
        }
        "/api/v1/events" => {
            let event: Event = serde_json::from_slice(plain).map_err(|error| error.to_string())?;
            Ok((1, Some(event)))
        }
        "/api/v1/check_run" => {
            let checks: serde_json::Value = serde_json::from_slice(plain).map_err(|error| error.to_string())?;
            Ok((checks.as_array().map_or(1, Vec::len) as u64, None))
        }
        _ => Ok((1, None)),
    }
}

/// `MetricPayload` of DataDog/agent-payload, as far as points can be counted.
#[derive(Clone, PartialEq, Message)]
struct Series {
    #[prost(message, repeated, tag = "1")]
    series: Vec<OneSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct OneSeries {
    #[prost(message, repeated, tag = "4")]
    points: Vec<Skipped>,
}

/// `SketchPayload` of DataDog/agent-payload, likewise.
#[derive(Clone, PartialEq, Message)]
struct Sketches {
    #[prost(message, repeated, tag = "1")]
    sketches: Vec<OneSketch>,
}

#[derive(Clone, PartialEq, Message)]
struct OneSketch {
    #[prost(message, repeated, tag = "7")]
    points: Vec<Skipped>,
}

/// A message of which only the presence matters.
#[derive(Clone, PartialEq, Message)]
struct Skipped {}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A `MetricPayload` with two series of one and two points, by hand: field 1 → {field 2 name, field 4 points}.
    fn series() -> Vec<u8> {
        let point = [0x22, 2, 0x10, 5];
        let mut payload = vec![0x0a, 7, 0x12, 1, b'a'];
        payload.extend(point);
        payload.extend([0x0a, 8]);
        payload.extend([point, point].concat());
        payload
    }

    #[test]
    fn points_are_counted_in_every_encoding() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&series()).unwrap();
        let mut deflate = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        deflate.write_all(&series()).unwrap();
        for (encoding, body) in [
            ("", series()),
            ("zstd", zstd::encode_all(&series()[..], 1).unwrap()),
            ("gzip", gzip.finish().unwrap()),
            ("deflate", deflate.finish().unwrap()),
        ] {
            let arrived = read("/api/v2/series", encoding, &body);
            assert_eq!((arrived.items, arrived.unreadable), (3, None), "{encoding:?}");
        }
        let sketch = [0x0a, 10, 0x0a, 1, b'a', 0x3a, 0, 0x3a, 3, 0x10, 0x80, 0x01];
        assert_eq!(read("/api/beta/sketches", "", &sketch).items, 2);
    }

    #[test]
    fn what_cannot_be_read_is_told_with_the_reason() {
        for (endpoint, encoding, body) in [
            ("/api/v2/series", "zstd", &b"plain"[..]),
            ("/api/v2/series", "br", b""),
            ("/api/v2/series", "", b"\x0a\xff"),
            ("/api/v1/events", "", b"[]garbage"),
        ] {
            let arrived = read(endpoint, encoding, body);
            assert!(arrived.unreadable.is_some_and(|reason| reason.starts_with(endpoint)), "{endpoint} {encoding}");
        }
        let bomb = zstd::encode_all(io::repeat(0).take(MAX_BODY as u64 + 1), 1).unwrap();
        assert_eq!(
            read("/api/v2/series", "zstd", &bomb).unreadable.as_deref(),
            Some("/api/v2/series: unpacks to more than 8 MiB")
        );
    }

    #[test]
    fn events_and_checks_are_read_as_json() {
        let arrived = read("/api/v1/events", "", br#"{"title":"T","text":"x","tags":["a:b"],"priority":"low"}"#);
        assert!(arrived.event.is_some_and(|event| event.says("a:b") && event.title == "T"));
        assert_eq!(read("/api/v1/check_run", "", br#"[{"check":"a"},{"check":"b"}]"#).items, 2);
    }

    #[tokio::test]
    async fn payloads_are_taken_over_http_and_strangers_refused() {
        let intake = Intake::bind().await.unwrap();
        let addr = intake.addr().unwrap();
        let (sender, mut arrivals) = mpsc::channel(ARRIVALS);
        let mut tasks = JoinSet::new();
        tasks.spawn(intake.run(sender));
        for (path, status) in [("/api/v1/validate", "200"), ("/api/v1/check_run", "202"), ("/api/v3/none", "404")] {
            let mut stream = TcpStream::connect(addr).await.unwrap();
            let request =
                format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nconnection: close\r\n\r\n[]");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            assert!(text.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {text}");
        }
        assert_eq!(arrivals.recv().await.unwrap().endpoint, "/api/v1/validate");
        assert_eq!(arrivals.recv().await.unwrap().items, 0, "an empty list of checks");
    }
}
