//! What an exchange came to: what the policy decides on, and words for whoever has to mend it.
//!
//! Reads answers and errors, sends nothing. Each trouble names what was seen and the one thing to look at first; its reason is
//! one of a fixed list, which `docs/operations.md` explains.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use tower::BoxError;

use super::tunnel::NoTunnel;
use crate::datadog::Answer;
use crate::snapshot::DegradedView;

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

impl Trouble {
    /// As the page shows it.
    pub fn view(&self) -> DegradedView {
        DegradedView { what: "Datadog intake".to_owned(), why: self.why.clone(), fix: self.fix.to_owned() }
    }

    /// Whether a proxy in between can bring it about without saying who it is.
    pub fn may_be_the_proxys(&self) -> bool {
        matches!(self.reason, "html" | "tls" | "timeout" | "unreachable")
    }
}

/// An answer as far as it was read.
pub(super) struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

pub(super) fn judge(reply: &Reply) -> Outcome {
    let retry_after = seconds(&reply.headers);
    let html = is_html(reply);
    // What would end a payload, good or bad, counts from Datadog alone.
    let ends = matches!(reply.status, 200..=299 | 400);
    let answer = if ends && html { Answer::Foreign } else { Answer::Status { code: reply.status, retry_after } };
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

pub(super) fn judge_fault(error: &BoxError) -> Outcome {
    if error.is::<tower::timeout::error::Elapsed>() {
        let trouble =
            trouble("timeout", "no answer in time".to_owned(), "check egress rules, DNS and the proxy (HTTPS_PROXY)");
        return Outcome { answer: Answer::Timeout, trouble: Some(trouble) };
    }
    let found = causes(error.as_ref()).find_map(|cause| cause.downcast_ref::<NoTunnel>());
    if let Some(none) = found {
        let trouble = trouble("proxy", none.to_string(), none.fault.fix());
        return Outcome { answer: Answer::Transport, trouble: Some(trouble) };
    }
    let trouble = match tls_fault(error.as_ref()) {
        Some(rustls::Error::InvalidMessage(_)) => trouble(
            "tls",
            "what answers does not speak TLS".to_owned(),
            "check datadog.url, HTTPS_PROXY, and for a login page between here and the intake",
        ),
        Some(why) => trouble(
            "tls",
            format!("TLS failed: {why}"),
            "for an inspecting proxy or a private CA set datadog.ca_file; check the container's clock",
        ),
        None => trouble("unreachable", chain(error.as_ref()), "check egress rules, DNS and the proxy (HTTPS_PROXY)"),
    };
    Outcome { answer: Answer::Transport, trouble: Some(trouble) }
}

pub(super) fn no_key() -> Trouble {
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

/// The TLS error inside. An `io::Error` hides what it wraps from its own `source`, and here one wraps another.
fn tls_fault<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    causes(error).find_map(|cause| {
        let unwrapped = std::iter::successors(Some(cause), |cause| {
            let inner = cause.downcast_ref::<std::io::Error>()?.get_ref()?;
            Some(inner as &(dyn Error + 'static))
        });
        unwrapped.filter_map(|it| it.downcast_ref::<rustls::Error>()).next()
    })
}

pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut words: Vec<String> = causes(error).map(ToString::to_string).collect();
    words.dedup();
    words.join(": ")
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

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
        check(&reply(400, None, "<html>"), Answer::Foreign, Some("html"));
        check(&reply(403, None, "<!doctype html>"), Answer::status(403), Some("html"));
    }

    #[test]
    fn retry_after_is_read_in_seconds() {
        let with = |value| judge(&reply(429, Some(("retry-after", value)), "")).answer;
        assert_eq!(with("7"), Answer::Status { code: 429, retry_after: Some(Duration::from_secs(7)) });
        assert_eq!(with("Wed, 21 Oct 2026 07:28:00 GMT"), Answer::status(429));
    }
}
