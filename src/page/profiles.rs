//! `/api/profiles`: list them, hand one out, draw one, pull now, forget one. The only routes that ask a task, each with a time
//! limit, and the only ones that change anything.
//!
//! A change needs the header `X-Oomwatch: 1` beside what [`super::guard`] asks of every request: a form of another site cannot
//! set a header, and a script of another site may not without asking first, which is refused.

use std::time::Duration;

use bytes::Bytes;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Response, StatusCode, Uri};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use super::http::{Body, answer as reply_with, refusal};
use super::server::not_found;
use super::{api, flame};
use crate::pipeline::plan::Wish;
use crate::pipeline::{PullNow, ReadingPlace, StoreRequest, StoredProfile};
use crate::snapshot::rfc3339;

/// How long the store or the investigation may take before the page gives up.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
pub(super) const JSON: &str = "application/json";
pub(super) const SILENT: &str = "whoever knows does not answer: try again\n";

/// Whom the page asks.
#[derive(Clone, Debug)]
pub struct Wires {
    pub store: mpsc::Sender<StoreRequest>,
    pub asked: mpsc::Sender<PullNow>,
    /// Where profiles are read, shared with the investigation.
    pub reading: ReadingPlace,
}

/// The methods beside GET and HEAD.
pub(super) fn takes(method: &Method, path: &str) -> bool {
    match path.strip_prefix("/api/profiles") {
        Some("") => method == Method::POST,
        Some(rest) => method == Method::DELETE && rest.starts_with('/'),
        None => false,
    }
}

/// Answers for the path after `/api/profiles`.
pub(super) async fn answer(
    wires: &Wires,
    method: &Method,
    headers: &HeaderMap,
    uri: &Uri,
    path: &str,
) -> Response<Body> {
    let changes = method == Method::POST || method == Method::DELETE;
    if changes && headers.get("x-oomwatch").is_none_or(|value| value != "1") {
        return refusal(StatusCode::FORBIDDEN, "a change needs the header X-Oomwatch: 1\n");
    }
    match path.strip_prefix('/') {
        None if path.is_empty() && changes => pull(wires).await,
        None if path.is_empty() => list(wires).await,
        Some(id) if is_id(id) && changes => forget(wires, id).await,
        Some(id) if is_id(id) => one(wires, id).await,
        Some(rest) if !changes => match rest.strip_suffix("/flame") {
            Some(id) if is_id(id) => flame::answer(wires, id, uri.query()).await,
            _ => not_found(),
        },
        _ => not_found(),
    }
}

/// `^[0-9a-f]{16}$`
pub(super) fn is_id(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

async fn one(wires: &Wires, id: &str) -> Response<Body> {
    match read(wires, id).await {
        Some(Some(bytes)) => attachment(id, reply_with(StatusCode::OK, "application/octet-stream", bytes)),
        Some(None) => not_found(),
        None => silent(),
    }
}

/// The profile as it was pulled; `Some(None)` when there is none of this id.
pub(super) async fn read(wires: &Wires, id: &str) -> Option<Option<Bytes>> {
    let id = id.to_owned();
    ask(&wires.store, |reply| StoreRequest::Read { id, reply }).await
}

async fn list(wires: &Wires) -> Response<Body> {
    match ask(&wires.store, |reply| StoreRequest::List { reply }).await {
        Some(stored) => {
            reply_with(StatusCode::OK, JSON, api::json(&stored.iter().map(Listed::from).collect::<Vec<_>>()))
        }
        None => silent(),
    }
}

async fn forget(wires: &Wires, id: &str) -> Response<Body> {
    let id = id.to_owned();
    match ask(&wires.store, |reply| StoreRequest::Forget { id, reply }).await {
        Some(true) => reply_with(StatusCode::NO_CONTENT, JSON, ""),
        Some(false) => not_found(),
        None => silent(),
    }
}

async fn pull(wires: &Wires) -> Response<Body> {
    match ask(&wires.asked, |reply| PullNow { reply }).await {
        Some(Wish::Begun) => reply_with(StatusCode::ACCEPTED, JSON, r#"{"state":"begun"}"#),
        Some(Wish::Suppressed("no_target")) => refusal(StatusCode::CONFLICT, "there is no app to pull from\n"),
        Some(Wish::Suppressed("busy")) => refusal(StatusCode::CONFLICT, "a round of pulls is under way\n"),
        Some(Wish::Suppressed("cooldown")) => {
            refusal(StatusCode::TOO_MANY_REQUESTS, "profile.cooldown has not passed since the last round\n")
        }
        Some(Wish::Suppressed(_)) => {
            refusal(StatusCode::TOO_MANY_REQUESTS, "profile.max_per_hour rounds were begun in the last hour\n")
        }
        None => silent(),
    }
}

/// `None` when no answer comes in time.
async fn ask<Q, A>(to: &mpsc::Sender<Q>, question: impl FnOnce(oneshot::Sender<A>) -> Q) -> Option<A> {
    let (reply, answered) = oneshot::channel();
    let asked = async {
        to.send(question(reply)).await.ok()?;
        answered.await.ok()
    };
    tokio::time::timeout(PATIENCE, asked).await.ok().flatten()
}

fn silent() -> Response<Body> {
    refusal(StatusCode::SERVICE_UNAVAILABLE, SILENT)
}

fn attachment(id: &str, mut response: Response<Body>) -> Response<Body> {
    let words = format!("attachment; filename=\"oomwatch-{id}.pb.gz\"");
    let value = HeaderValue::from_str(&words).expect("an id of hex digits fits into a header");
    response.headers_mut().insert(header::CONTENT_DISPOSITION, value);
    response
}

#[derive(Serialize)]
struct Listed<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    reason: &'a str,
    taken_at: String,
    bytes: u64,
}

impl<'a> From<&'a StoredProfile> for Listed<'a> {
    fn from(it: &'a StoredProfile) -> Listed<'a> {
        Listed { id: &it.id, kind: &it.kind, reason: &it.reason, taken_at: rfc3339(it.taken_at), bytes: it.bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sixteen_lower_case_hex_digits_are_an_id() {
        assert!(is_id("0123456789abcdef"));
        for text in
            ["", "0123456789abcde", "0123456789abcdef0", "0123456789ABCDEF", "../../../etc/pas", "0123456789abcde\0"]
        {
            assert!(!is_id(text), "{text:?}");
        }
    }

    #[test]
    fn two_changes_are_known_and_no_more() {
        assert!(takes(&Method::POST, "/api/profiles") && takes(&Method::DELETE, "/api/profiles/0"));
        for (method, path) in [
            (Method::POST, "/api/profiles/0"),
            (Method::DELETE, "/api/profiles"),
            (Method::POST, "/api/status"),
            (Method::PUT, "/api/profiles"),
            (Method::POST, "/api/profilesx"),
        ] {
            assert!(!takes(&method, path), "{method} {path}");
        }
    }
}
