//! The page's listener: routes, and what each answers with.
//!
//! Paths are compared as they came on the wire: nothing is decoded, so an encoded path is simply another path that does not
//! exist. Profiles are asked for by an id of sixteen hex digits, never by a name.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::guard::Guard;
use super::http::{Body, answer, refusal, serve, with_body};
use super::profiles::{self, Wires};
use super::{api, assets, stream};
use crate::snapshot::Snapshots;

const JSON: &str = "application/json";

/// What the page needs to know of its settings, checked.
#[derive(Clone)]
pub struct Settings {
    pub listen: SocketAddr,
    /// Host names allowed beside `localhost`, `127.0.0.1` and `[::1]`, without port.
    pub hosts: Vec<String>,
    /// Asked for by every route that holds data, when set.
    pub token: Option<String>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.token.as_ref().map(|_| "***");
        out.debug_struct("Settings")
            .field("listen", &self.listen)
            .field("hosts", &self.hosts)
            .field("token", &token)
            .finish()
    }
}

/// Bound and not yet answering.
pub struct PageServer {
    listener: TcpListener,
    address: SocketAddr,
    guard: Guard,
}

impl fmt::Debug for PageServer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("PageServer").field("address", &self.address).finish_non_exhaustive()
    }
}

impl PageServer {
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(settings: Settings) -> io::Result<Self> {
        let listener = TcpListener::bind(settings.listen).await?;
        let guard = Guard::new(settings.hosts, settings.token);
        Ok(Self { address: listener.local_addr()?, listener, guard })
    }

    /// Where it listens; port 0 has become a number.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop`, from the snapshots; what concerns profiles is asked over the wires. May be run again: the listener
    /// stays bound.
    pub async fn run(&self, parts: Snapshots, wires: Wires, stop: CancellationToken) {
        let page = Arc::new(Page { guard: self.guard.clone(), parts, wires, stop: stop.clone() });
        let handler = move |request: Request<Incoming>| {
            let page = page.clone();
            async move { page.answer(&request).await }
        };
        serve(&self.listener, stop, profiles::takes, handler).await;
    }
}

/// What answering needs. Shared by the connections and never written.
struct Page {
    guard: Guard,
    parts: Snapshots,
    wires: Wires,
    stop: CancellationToken,
}

impl Page {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        if let Some(refusal) = self.guard.refuses(request.uri(), request.headers()) {
            return refusal;
        }
        let path = request.uri().path();
        if let Some(path) = path.strip_prefix("/api/profiles") {
            return profiles::answer(&self.wires, request.method(), request.headers(), request.uri(), path).await;
        }
        if let Some((kind, bytes)) = assets::find(path) {
            return answer(StatusCode::OK, kind, bytes);
        }
        match path.strip_prefix("/api/").unwrap_or_default() {
            "status" => answer(StatusCode::OK, JSON, api::status(&self.parts)),
            "readings" => self.readings(request.uri().query()),
            "contexts" => self.contexts(request.uri().query()),
            "incidents" => answer(StatusCode::OK, JSON, api::incidents(&self.parts.incidents.borrow())),
            "stream" => {
                let events = stream::events(self.parts.clone(), self.stop.clone());
                with_body(StatusCode::OK, "text/event-stream", events)
            }
            path => self.one(path),
        }
    }

    /// The routes that end in an id.
    fn one(&self, path: &str) -> Response<Body> {
        match path.split_once('/') {
            Some(("incidents", id)) => self.incident(id),
            _ => not_found(),
        }
    }

    fn readings(&self, query: Option<&str>) -> Response<Body> {
        let since = match parameter(query, "since") {
            None => 0.0,
            Some(text) => match moment(text) {
                Some(since) => since,
                None => return refusal(StatusCode::BAD_REQUEST, "since: expected Unix seconds or an RFC 3339 time\n"),
            },
        };
        let points = self.parts.watch.borrow().readings.clone();
        match parameter(query, "format") {
            None | Some("json") => answer(StatusCode::OK, JSON, api::readings(&points, since)),
            Some("csv") => answer(StatusCode::OK, "text/csv; charset=utf-8", api::readings_csv(&points, since)),
            Some(_) => refusal(StatusCode::BAD_REQUEST, "format: expected json or csv\n"),
        }
    }

    fn contexts(&self, query: Option<&str>) -> Response<Body> {
        match parameter(query, "top").map(str::parse).transpose() {
            Ok(top) => answer(StatusCode::OK, JSON, api::contexts(&self.parts, top)),
            Err(_) => refusal(StatusCode::BAD_REQUEST, "top: expected a number\n"),
        }
    }

    fn incident(&self, id: &str) -> Response<Body> {
        let incidents = self.parts.incidents.borrow().clone();
        match incidents.iter().find(|incident| incident.id == id) {
            Some(incident) => answer(StatusCode::OK, JSON, api::json(incident)),
            None => not_found(),
        }
    }
}

pub(super) fn not_found() -> Response<Body> {
    refusal(StatusCode::NOT_FOUND, "there is nothing here\n")
}

/// The first value of a query parameter, as written.
pub(super) fn parameter<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    query?.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// Unix seconds, given as such or as RFC 3339; colons may come encoded, as browsers write them.
fn moment(text: &str) -> Option<f64> {
    if let Ok(seconds) = text.parse::<f64>() {
        return seconds.is_finite().then_some(seconds);
    }
    let text = text.replace("%3A", ":").replace("%3a", ":");
    let time = humantime::parse_rfc3339_weak(&text).ok()?;
    time.duration_since(std::time::UNIX_EPOCH).ok().map(|since| since.as_secs_f64())
}

#[cfg(test)]
mod units {
    use super::*;

    #[test]
    fn since_is_unix_seconds_or_rfc_3339() {
        assert_eq!(moment("1.5"), Some(1.5));
        assert_eq!(moment("1970-01-01T00:01:00Z"), Some(60.0));
        assert_eq!(moment("1970-01-01T00%3A01%3A00Z"), Some(60.0));
        for text in ["NaN", "inf", "yesterday", ""] {
            assert_eq!(moment(text), None, "{text}");
        }
    }
}
