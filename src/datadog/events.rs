//! Events and service checks as the v1 API takes them: JSON, one request each, cut to the limits that the API has.
//!
//! A text that is Markdown (`%%% … %%%`) keeps its closing fence when it is cut: without it Datadog shows the raw signs.

use bytes::Bytes;
use serde::Serialize;

use super::payload::{Endpoint, Payload};
use super::rules;
use crate::statsd::{AlertType, Event, Priority, ServiceCheck};

/// Characters of a title: v1 sets no limit, older documents say 100.
pub const MAX_TITLE: usize = 100;
/// Characters of a text; the API cuts there itself, without regard for fences.
pub const MAX_TEXT: usize = 4_000;
/// Characters of an aggregation key.
const MAX_KEY: usize = 100;
/// Bytes of a check's message; the API documents none, the Agent's own telemetry keeps to a few kilobytes.
const MAX_MESSAGE: usize = 8_192;
const FENCE: &str = "%%%";
const CLOSING: &str = "\n %%%";

#[derive(Serialize)]
struct EventJson<'a> {
    title: &'a str,
    text: &'a str,
    date_happened: i64,
    priority: &'static str,
    alert_type: &'static str,
    source_type_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aggregation_key: Option<&'a str>,
    tags: Vec<String>,
}

#[derive(Serialize)]
struct CheckJson<'a> {
    check: &'a str,
    host_name: &'a str,
    status: u8,
    timestamp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    tags: Vec<String>,
}

/// The request of an event. `now` is Unix seconds and stands in where the event has no time of its own.
pub fn event_payload(event: &Event, hostname: Option<&str>, now: i64, urgent: bool) -> Payload {
    let title = if event.title.trim().is_empty() { "(no title)" } else { chars(&event.title, MAX_TITLE) };
    let text = cut_text(&event.text);
    let json = EventJson {
        title,
        text: &text,
        date_happened: event.timestamp.unwrap_or(now),
        priority: match event.priority {
            Priority::Normal => "normal",
            Priority::Low => "low",
        },
        alert_type: match event.alert_type {
            AlertType::Error => "error",
            AlertType::Warning => "warning",
            AlertType::Info => "info",
            AlertType::Success => "success",
        },
        source_type_name: event.source_type.as_deref().unwrap_or("api"),
        host: event.host.as_deref().or(hostname),
        aggregation_key: event.aggregation_key.as_deref().map(|key| chars(key, MAX_KEY)),
        tags: rules::tags(event.tags.iter().map(String::as_str)).0,
    };
    payload(Endpoint::Events, &json, now, urgent)
}

/// The request of a service check: an array of one.
pub fn check_payload(check: &ServiceCheck, hostname: Option<&str>, now: i64) -> Payload {
    let json = [CheckJson {
        check: chars(&check.name, rules::MAX_NAME),
        host_name: check.host.as_deref().or(hostname).unwrap_or_default(),
        status: check.status as u8,
        timestamp: check.timestamp.unwrap_or(now),
        message: check.message.as_deref().map(|message| rules::prefix(message, MAX_MESSAGE)),
        tags: rules::tags(check.tags.iter().map(String::as_str)).0,
    }];
    payload(Endpoint::Checks, &json, now, false)
}

/// The age of both counts from now, not from the time they name: an old event is still worth telling.
fn payload<T: Serialize>(endpoint: Endpoint, json: &T, now: i64, urgent: bool) -> Payload {
    let body = serde_json::to_vec(json).expect("strings, numbers and lists of strings always serialise");
    Payload { endpoint, body: Bytes::from(body), points: 1, created_at: now, urgent }
}

/// The first `limit` characters.
fn chars(text: &str, limit: usize) -> &str {
    text.char_indices().nth(limit).map_or(text, |(end, _)| &text[..end])
}

fn cut_text(text: &str) -> String {
    if text.chars().nth(MAX_TEXT).is_none() {
        return text.to_owned();
    }
    let fenced = text.trim_start().starts_with(FENCE) && text.trim_end().ends_with(FENCE);
    if !fenced {
        return chars(text, MAX_TEXT).to_owned();
    }
    let kept = chars(text, MAX_TEXT - CLOSING.len());
    format!("{kept}{CLOSING}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statsd::Status;

    fn json(payload: &Payload) -> serde_json::Value {
        serde_json::from_slice(&payload.body).unwrap()
    }

    #[test]
    fn an_event_carries_every_field_that_is_set() {
        let event = Event {
            title: "worker leaks".to_owned(),
            text: "line\nline".to_owned(),
            timestamp: Some(7),
            host: Some("h".to_owned()),
            aggregation_key: Some("k".to_owned()),
            priority: Priority::Low,
            source_type: Some("oomwatch".to_owned()),
            alert_type: AlertType::Error,
            tags: vec!["a:b".to_owned()],
            origin: vec!["c:x".to_owned()],
        };
        let payload = event_payload(&event, Some("own"), 9, true);
        assert_eq!(
            (payload.endpoint, payload.points, payload.created_at, payload.urgent),
            (Endpoint::Events, 1, 9, true)
        );
        assert_eq!(
            json(&payload),
            serde_json::json!({"title": "worker leaks", "text": "line\nline", "date_happened": 7, "priority": "low",
                "alert_type": "error", "source_type_name": "oomwatch", "host": "h", "aggregation_key": "k", "tags": ["a:b"]})
        );
    }

    #[test]
    fn a_bare_event_gets_now_our_host_and_the_default_source() {
        let payload = event_payload(&Event::default(), Some("own"), 9, false);
        assert_eq!(
            json(&payload),
            serde_json::json!({"title": "(no title)", "text": "", "date_happened": 9, "priority": "normal",
                "alert_type": "info", "source_type_name": "api", "host": "own", "tags": []})
        );
    }

    #[test]
    fn titles_and_texts_are_cut_between_characters() {
        let event = Event { title: "é".repeat(101), text: "ß".repeat(4_001), ..Event::default() };
        let json = json(&event_payload(&event, None, 0, false));
        assert_eq!(json["title"].as_str().unwrap().chars().count(), 100);
        assert_eq!(json["text"].as_str().unwrap(), "ß".repeat(4_000));
    }

    #[test]
    fn a_cut_markdown_text_keeps_its_closing_fence() {
        let text = format!("%%% \n{}\n %%%", "é".repeat(5_000));
        let cut = cut_text(&text);
        assert_eq!(cut.chars().count(), MAX_TEXT);
        assert!(cut.starts_with("%%% \n") && cut.ends_with("é\n %%%"));
        let fits = format!("%%% \n{}\n %%%", "x".repeat(3_990));
        assert_eq!(cut_text(&fits), fits);
    }

    #[test]
    fn a_check_is_an_array_of_one_with_its_number() {
        let check = ServiceCheck {
            name: "up".to_owned(),
            status: Status::Critical,
            timestamp: None,
            host: None,
            message: Some("gone".to_owned()),
            tags: vec![],
            origin: vec![],
        };
        let payload = check_payload(&check, None, 5);
        assert_eq!(payload.endpoint, Endpoint::Checks);
        assert_eq!(
            json(&payload),
            serde_json::json!([{"check": "up", "host_name": "", "status": 2, "timestamp": 5, "message": "gone", "tags": []}])
        );
    }
}
