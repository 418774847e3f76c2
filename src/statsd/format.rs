//! Messages back into lines, for an Agent. Every function appends one line without its line feed.
//!
//! What an app sent may hold bytes that have a meaning on the wire (a line feed in a title, a pipe in a tag of ours): they
//! are replaced, so that one message can never become two.

use std::fmt::Write as _;

use super::{AlertType, Event, Kind, Priority, ServiceCheck};

/// What follows the values of a metric line.
#[derive(Clone, Copy, Debug)]
pub struct Tail<'a> {
    pub kind: Kind,
    /// Left out when 1.
    pub rate: f64,
    /// Joined by commas; left out when empty.
    pub tags: &'a str,
    /// `c:…|e:…|card:…`; left out when empty.
    pub origin: &'a str,
    pub timestamp: Option<i64>,
}

/// `name:values|type|@rate|#tags|origin|Tseconds`. A number printed by `{}` is read back as the same `f64`.
pub fn metric(out: &mut String, name: &str, values: &str, tail: &Tail<'_>) {
    push(out, name);
    out.push(':');
    out.push_str(values);
    push_tail(out, tail);
}

/// The length of what [`metric`] writes beside the name and the values: the colon and the tail.
pub fn tail_length(tail: &Tail<'_>) -> usize {
    let mut text = String::new();
    push_tail(&mut text, tail);
    text.len() + 1
}

/// `_e{…}:title|text|…`, the text cut where the line would pass `max` bytes.
pub fn event(out: &mut String, event: &Event, max: usize) {
    let title = escape(&event.title);
    let mut end = String::new();
    push_event_end(&mut end, event);
    let text = escape(&event.text);
    // Beside them: `_e{,}:` and `|`, and up to five digits for each length.
    let room = max.saturating_sub(title.len() + end.len() + 17);
    let cut = &text[..text.floor_char_boundary(room)];
    // A cut must not leave half of an escaped line feed.
    let text = if cut.len() < text.len() { cut.trim_end_matches('\\') } else { cut };
    let _ = write!(out, "_e{{{},{}}}:{title}|{text}{end}", title.len(), text.len());
}

fn push_event_end(out: &mut String, event: &Event) {
    push_number(out, "d:", event.timestamp);
    push_field(out, "h:", event.host.as_deref());
    push_field(out, "k:", event.aggregation_key.as_deref());
    if event.priority == Priority::Low {
        out.push_str("|p:low");
    }
    push_field(out, "s:", event.source_type.as_deref());
    if event.alert_type != AlertType::Info {
        push_field(out, "t:", Some(alert_type(event.alert_type)));
    }
    push_tags(out, &event.tags);
    push_origin(out, &event.origin);
}

/// `_sc|name|status|…`, the message last, as the protocol asks.
pub fn check(out: &mut String, check: &ServiceCheck) {
    out.push_str("_sc|");
    push(out, &check.name);
    push_field(out, "", Some(&(check.status as u8).to_string()));
    push_number(out, "d:", check.timestamp);
    push_field(out, "h:", check.host.as_deref());
    push_tags(out, &check.tags);
    push_origin(out, &check.origin);
    // Not `m\:`: the Agent does not undo it.
    push_field(out, "m:", check.message.as_deref().map(escape).as_deref());
}

fn alert_type(kind: AlertType) -> &'static str {
    match kind {
        AlertType::Error => "error",
        AlertType::Warning => "warning",
        AlertType::Info => "info",
        AlertType::Success => "success",
    }
}

fn push_tail(out: &mut String, tail: &Tail<'_>) {
    out.push('|');
    out.push_str(tail.kind.wire());
    if tail.rate != 1.0 {
        let _ = write!(out, "|@{}", tail.rate);
    }
    if !tail.tags.is_empty() {
        push_field(out, "#", Some(tail.tags));
    }
    if !tail.origin.is_empty() {
        out.push('|');
        out.push_str(tail.origin);
    }
    push_number(out, "T", tail.timestamp);
}

fn push_field(out: &mut String, prefix: &str, value: Option<&str>) {
    if let Some(value) = value {
        out.push('|');
        out.push_str(prefix);
        push(out, value);
    }
}

fn push_number(out: &mut String, prefix: &str, value: Option<i64>) {
    if let Some(value) = value {
        let _ = write!(out, "|{prefix}{value}");
    }
}

fn push_tags(out: &mut String, tags: &[String]) {
    if !tags.is_empty() {
        let joined = tags.iter().map(|tag| tag.replace(',', "_")).collect::<Vec<_>>().join(",");
        push_field(out, "#", Some(&joined));
    }
}

fn push_origin(out: &mut String, origin: &[String]) {
    for field in origin {
        push_field(out, "", Some(field));
    }
}

/// Appends text that stands inside one field.
fn push(out: &mut String, text: &str) {
    if text.bytes().any(|byte| matches!(byte, b'|' | b'\n')) {
        out.push_str(&text.replace(['|', '\n'], "_"));
    } else {
        out.push_str(text);
    }
}

fn escape(text: &str) -> String {
    text.replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::statsd::{Line, Message, Status, parse};

    fn line(name: &str, values: &str, tail: &Tail<'_>) -> String {
        let mut out = String::new();
        metric(&mut out, name, values, tail);
        assert_eq!(out.len(), name.len() + values.len() + tail_length(tail));
        out
    }

    #[test]
    fn a_metric_names_only_what_it_has() {
        let bare = Tail { kind: Kind::Gauge, rate: 1.0, tags: "", origin: "", timestamp: None };
        assert_eq!(line("a", "1", &bare), "a:1|g");
        let full = Tail { kind: Kind::Timing, rate: 0.5, tags: "x,y:z", origin: "c:1|card:low", timestamp: Some(7) };
        assert_eq!(line("a", "1:2", &full), "a:1:2|ms|@0.5|#x,y:z|c:1|card:low|T7");
    }

    #[test]
    fn one_message_never_becomes_two() {
        let mut out = String::new();
        let check = ServiceCheck {
            name: "a|b\nc".into(),
            status: Status::Warning,
            timestamp: None,
            host: None,
            message: Some("x\ny".into()),
            tags: vec!["k:1,2".into()],
            origin: vec![],
        };
        super::check(&mut out, &check);
        assert_eq!(out, "_sc|a_b_c|1|#k:1_2|m:x\\ny");
    }

    #[test]
    fn an_event_tells_the_bytes_of_its_escaped_words() {
        let event = Event {
            title: "é\nx".into(),
            text: "a\nb".into(),
            timestamp: Some(5),
            host: Some("h".into()),
            aggregation_key: Some("k".into()),
            priority: Priority::Low,
            source_type: Some("oomwatch".into()),
            alert_type: AlertType::Error,
            tags: vec!["a:b".into(), "c|d".into()],
            origin: vec!["c:ci-1".into()],
        };
        let mut out = String::new();
        super::event(&mut out, &event, 8_192);
        assert_eq!(out, "_e{5,4}:é\\nx|a\\nb|d:5|h:h|k:k|p:low|s:oomwatch|t:error|#a:b,c_d|c:ci-1");
        out.clear();
        super::event(&mut out, &Event { title: "t".into(), ..Event::default() }, 8_192);
        assert_eq!(out, "_e{1,0}:t|");
    }

    #[test]
    fn a_long_event_is_cut_to_the_datagram() {
        for (text, end) in [("é".repeat(9_000), "é|#a:b"), ("\n".repeat(9_000), "\\n|#a:b")] {
            let event = Event { title: "t".into(), text, tags: vec!["a:b".into()], ..Event::default() };
            for max in 8_189..=8_192 {
                let mut out = String::new();
                super::event(&mut out, &event, max);
                assert!(out.len() <= max && out.len() > max - 22 && out.ends_with(end), "{}", out.len());
                assert!(matches!(parse(out.as_bytes()), Ok(Message::Event(_))));
            }
        }
    }

    proptest! {
        #[test]
        fn a_formatted_metric_is_read_back_as_it_was(
            name in "[a-z. é]{1,20}", value in any::<f64>().prop_filter("finite", |v| v.is_finite()),
            rate in 0.0001f64..=1.0, tags in "([a-z:0-9é]{1,8}(,[a-z]{1,4}){0,3})?", at in proptest::option::of(1i64..4_000_000_000),
        ) {
            let tail = Tail { kind: Kind::Histogram, rate, tags: &tags, origin: "c:in-1|e:it-0|card:low", timestamp: at };
            let text = line(&name, &value.to_string(), &tail);
            let Ok(Message::Metric(parsed)) = parse(text.as_bytes()) else { panic!("{text}") };
            let mut numbers = Vec::new();
            parsed.numbers(&mut numbers).unwrap();
            prop_assert_eq!(numbers, vec![value]);
            prop_assert_eq!(parsed.rate.unwrap_or(1.0), rate);
            let expected = Line {
                name: name.as_bytes(), kind: Kind::Histogram, values: parsed.values, rate: parsed.rate, tags: tags.as_bytes(),
                timestamp: at, local: b"c:in-1", external: b"e:it-0", cardinality: b"card:low",
            };
            prop_assert_eq!(parsed, expected);
        }

        #[test]
        fn a_formatted_event_is_read_back_as_it_was(
            title in "[a-zé|\n ]{1,12}", text in "[a-zé|\n]{0,20}", host in proptest::option::of("[a-z]{1,5}"),
            key in proptest::option::of("[a-z]{1,5}"), at in proptest::option::of(1i64..4_000_000_000),
            tags in proptest::collection::vec("[a-z:]{1,5}", 0..3), low in any::<bool>(),
            alert in prop_oneof![Just(AlertType::Error), Just(AlertType::Warning), Just(AlertType::Info), Just(AlertType::Success)],
        ) {
            let event = Event {
                title, text, timestamp: at, host, aggregation_key: key, alert_type: alert, tags,
                priority: if low { Priority::Low } else { Priority::Normal }, source_type: Some("app".into()),
                origin: vec!["c:in-1".into()],
            };
            let mut out = String::new();
            super::event(&mut out, &event, usize::MAX);
            prop_assert_eq!(parse(out.as_bytes()), Ok(Message::Event(event)));
        }

        #[test]
        fn a_formatted_check_is_read_back_as_it_was(
            name in "[a-z.]{1,12}", message in proptest::option::of("[a-z: ]{0,12}"), host in proptest::option::of("[a-z]{1,5}"),
            at in proptest::option::of(1i64..4_000_000_000), tags in proptest::collection::vec("[a-z:]{1,5}", 0..3),
            status in prop_oneof![Just(Status::Ok), Just(Status::Warning), Just(Status::Critical), Just(Status::Unknown)],
        ) {
            let check = ServiceCheck { name, status, timestamp: at, host, message, tags, origin: vec!["e:x".into()] };
            let mut out = String::new();
            super::check(&mut out, &check);
            prop_assert_eq!(parse(out.as_bytes()), Ok(Message::Check(check)));
        }
    }
}
