//! One HTTP exchange with the intake: a request goes out, and what came back is boiled down to an [`Outcome`].
//!
//! Knows no queue. A reply is read to [`MAX_REPLY`] bytes and no further, redirects are never followed (they would carry the
//! key elsewhere), and a tower stack bounds time and concurrency. Long retries are the dispatch's; here only an exchange that
//! broke after it was connected (a kept connection that the other side had closed) is tried once more at once.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Response, Uri};
use hyper_util::client::legacy::connect::Connect;
use hyper_util::client::legacy::{Client as HyperClient, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower::retry::Policy;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};

use super::connect::{Connector, Proxy, connector};
use crate::datadog::{Answer, Payload};

/// Bytes of a reply that are read: Datadog's own are under 200.
const MAX_REPLY: usize = 4_096;
const AGENT: &str = concat!("oomwatch/", env!("CARGO_PKG_VERSION"));

/// What came of an exchange: what the policy decides on, and words where something is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub answer: Answer,
    pub trouble: Option<Trouble>,
}

/// What is wrong, with the thing to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// One of a fixed list: log lines are limited for each.
    pub reason: &'static str,
    pub why: String,
    pub fix: &'static str,
}

struct Reply {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

/// Cheap to clone; clones share connections and the concurrency limit.
#[derive(Clone)]
pub(super) struct Client {
    base: Uri,
    service: BoxCloneSyncService<Request<Full<Bytes>>, Reply, BoxError>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("base", &self.base).finish_non_exhaustive()
    }
}

impl Client {
    pub fn new(
        base_url: &str,
        ca_file: Option<&Path>,
        proxy: &Proxy,
        timeout: Duration,
        concurrency: usize,
    ) -> Result<Client, String> {
        let base: Uri = base_url.trim_end_matches('/').parse().map_err(|error| format!("{base_url}: {error}"))?;
        let service = match connector(&base, ca_file, proxy)? {
            Connector::Direct(connector) => stack(connector, timeout, concurrency),
            Connector::Tunnel(connector) => stack(connector, timeout, concurrency),
        };
        Ok(Client { base, service })
    }

    /// Sends a payload. Without a key in hand nothing is sent, and it is as if the key had been refused.
    pub async fn send(self, payload: Payload, key: Option<HeaderValue>) -> Outcome {
        let endpoint = payload.endpoint;
        let request = self.request(Method::POST, endpoint.path(), key, payload.body).map(|mut request| {
            let headers = request.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(endpoint.content_type()));
            if let Some(encoding) = endpoint.content_encoding() {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
            }
            request
        });
        self.exchange(request).await
    }

    /// `GET` of a path, for the check of the key.
    pub async fn get(self, path: &str, key: Option<HeaderValue>) -> Outcome {
        let request = self.request(Method::GET, path, key, Bytes::new());
        self.exchange(request).await
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        key: Option<HeaderValue>,
        body: Bytes,
    ) -> Option<Request<Full<Bytes>>> {
        let uri = format!("{}{path}", self.base.to_string().trim_end_matches('/'));
        let request = Request::builder().method(method).uri(uri).header(USER_AGENT, AGENT).header("dd-api-key", key?);
        request.body(Full::new(body)).ok()
    }

    async fn exchange(mut self, request: Option<Request<Full<Bytes>>>) -> Outcome {
        let Some(request) = request else {
            return Outcome { answer: Answer::status(403), trouble: Some(no_key()) };
        };
        let reply = match self.service.ready().await {
            Ok(service) => service.call(request).await,
            Err(error) => Err(error),
        };
        match reply {
            Ok(reply) => judge(&reply),
            Err(error) => judge_fault(&error),
        }
    }
}

/// Outermost first: the time limit holds for both tries together, and waiting for a permit does not count against it.
fn stack<C>(
    connector: C,
    timeout: Duration,
    concurrency: usize,
) -> BoxCloneSyncService<Request<Full<Bytes>>, Reply, BoxError>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let client: HyperClient<C, Full<Bytes>> = HyperClient::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(60))
        .pool_max_idle_per_host(concurrency)
        .build(connector);
    let service = ServiceBuilder::new()
        .timeout(timeout)
        .concurrency_limit(concurrency)
        .retry(OnceMore { left: 1 })
        .service_fn(move |request| exchange(client.clone(), request));
    BoxCloneSyncService::new(service)
}

async fn exchange<C>(client: HyperClient<C, Full<Bytes>>, request: Request<Full<Bytes>>) -> Result<Reply, BoxError>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let response = client.request(request).await?;
    read(response).await
}

/// A body that ends too early is no fault: the status has told what there is to know.
async fn read(response: Response<Incoming>) -> Result<Reply, BoxError> {
    let (head, mut incoming) = response.into_parts();
    let mut body = Vec::new();
    while let Some(Ok(frame)) = incoming.frame().await {
        let Some(data) = frame.data_ref() else { continue };
        let room = MAX_REPLY - body.len();
        body.extend_from_slice(&data[..data.len().min(room)]);
        if body.len() == MAX_REPLY {
            break;
        }
    }
    Ok(Reply { status: head.status.as_u16(), headers: head.headers, body: body.into() })
}

/// Tries an exchange once more that broke after it was connected. A connection that is refused waits for the dispatch.
#[derive(Clone, Debug)]
struct OnceMore {
    left: u8,
}

impl Policy<Request<Full<Bytes>>, Reply, BoxError> for OnceMore {
    type Future = std::future::Ready<()>;

    fn retry(&mut self, _: &mut Request<Full<Bytes>>, result: &mut Result<Reply, BoxError>) -> Option<Self::Future> {
        let error = result.as_ref().err()?.downcast_ref::<ClientError>()?;
        if error.is_connect() || self.left == 0 {
            return None;
        }
        self.left -= 1;
        Some(std::future::ready(()))
    }

    fn clone_request(&mut self, request: &Request<Full<Bytes>>) -> Option<Request<Full<Bytes>>> {
        Some(request.clone())
    }
}

fn judge(reply: &Reply) -> Outcome {
    let retry_after = seconds(&reply.headers);
    let html = is_html(reply);
    let success = (200..300).contains(&reply.status);
    let answer = if success && html { Answer::Foreign } else { Answer::Status { code: reply.status, retry_after } };
    let trouble = match reply.status {
        _ if html => Some(trouble(
            "html",
            format!("status {} with a page of HTML: that was not Datadog", reply.status),
            "look for a proxy or a login page between here and the intake, and check datadog.url",
        )),
        200..=299 => None,
        401 | 403 => Some(trouble(
            "key_refused",
            format!("status {}: the API key was refused", reply.status),
            "check the key (datadog.api_key_file or DD_API_KEY), and that it belongs to datadog.site",
        )),
        404 => Some(trouble(
            "not_found",
            "status 404: this address is no Datadog intake".to_owned(),
            "check datadog.site (us3, us5, eu, ap1 … have their own) and datadog.url",
        )),
        300..=399 => Some(trouble(
            "redirected",
            format!("status {}: redirects are not followed, they would carry the key elsewhere", reply.status),
            "check datadog.url, and for a proxy in between",
        )),
        413 => Some(trouble(
            "too_large",
            "status 413: a payload was too large".to_owned(),
            "nothing to do: it is cut in two",
        )),
        400 => Some(trouble(
            "bad_request",
            "status 400: the intake does not understand a payload, which was dropped".to_owned(),
            "update oomwatch; if it is the newest, report it",
        )),
        status => Some(trouble(
            "unwell",
            format!("status {status}: the intake is unwell or busy"),
            "nothing to do but wait; see status.datadoghq.com",
        )),
    };
    Outcome { answer, trouble }
}

fn judge_fault(error: &BoxError) -> Outcome {
    if error.is::<tower::timeout::error::Elapsed>() {
        let trouble =
            trouble("timeout", "no answer in time".to_owned(), "check egress rules, DNS and the proxy (HTTPS_PROXY)");
        return Outcome { answer: Answer::Timeout, trouble: Some(trouble) };
    }
    let trouble = match tls_fault(error.as_ref()) {
        Some(why) => trouble(
            "tls",
            format!("TLS failed: {why}"),
            "for an inspecting proxy or a private CA set datadog.ca_file; check the container's clock",
        ),
        None => trouble("unreachable", chain(error.as_ref()), "check egress rules, DNS and the proxy (HTTPS_PROXY)"),
    };
    Outcome { answer: Answer::Transport, trouble: Some(trouble) }
}

fn no_key() -> Trouble {
    trouble("no_key", "there is no API key yet".to_owned(), "set datadog.api_key_file or DD_API_KEY")
}

fn trouble(reason: &'static str, why: String, fix: &'static str) -> Trouble {
    Trouble { reason, why, fix }
}

/// Seconds only: Datadog sends no dates, and a date would need its clock.
fn seconds(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

fn is_html(reply: &Reply) -> bool {
    let typed = reply
        .headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|it| it.contains("text/html"));
    typed || reply.body.trim_ascii_start().starts_with(b"<")
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// The TLS error inside, which an `io::Error` hides from its own `source`.
fn tls_fault(error: &(dyn Error + 'static)) -> Option<String> {
    causes(error).find_map(|cause| {
        let inner = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let hidden = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        hidden.or_else(|| cause.downcast_ref::<rustls::Error>()).map(ToString::to_string)
    })
}

fn chain(error: &(dyn Error + 'static)) -> String {
    let mut words: Vec<String> = causes(error).map(ToString::to_string).collect();
    words.dedup();
    words.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, header: Option<(&'static str, &'static str)>, body: &'static str) -> Reply {
        let mut headers = HeaderMap::new();
        if let Some((name, value)) = header {
            headers.insert(name, HeaderValue::from_static(value));
        }
        Reply { status, headers, body: Bytes::from_static(body.as_bytes()) }
    }

    fn check(reply: &Reply, answer: Answer, reason: Option<&str>) {
        let outcome = judge(reply);
        assert_eq!((outcome.answer, outcome.trouble.map(|it| it.reason)), (answer, reason));
    }

    #[test]
    fn answers_are_named_by_what_is_wrong() {
        check(&reply(202, None, "{}"), Answer::status(202), None);
        check(&reply(403, None, "{}"), Answer::status(403), Some("key_refused"));
        check(&reply(404, None, ""), Answer::status(404), Some("not_found"));
        check(&reply(302, Some(("location", "http://x")), ""), Answer::status(302), Some("redirected"));
        check(&reply(503, None, ""), Answer::status(503), Some("unwell"));
    }

    #[test]
    fn a_page_of_html_is_not_datadog_even_with_success() {
        check(&reply(200, None, "\n<html>"), Answer::Foreign, Some("html"));
        check(&reply(200, Some(("content-type", "text/html; charset=utf-8")), ""), Answer::Foreign, Some("html"));
        check(&reply(403, None, "<!doctype html>"), Answer::status(403), Some("html"));
    }

    #[test]
    fn retry_after_is_read_in_seconds() {
        let with = |value| judge(&reply(429, Some(("retry-after", value)), "")).answer;
        assert_eq!(with("7"), Answer::Status { code: 429, retry_after: Some(Duration::from_secs(7)) });
        assert_eq!(with("Wed, 21 Oct 2026 07:28:00 GMT"), Answer::status(429));
    }
}
