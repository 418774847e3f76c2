//! Events (`_e{…}`) and service checks (`_sc|…`) into their owned types.
//!
//! They are rare, so they are copied here and now; bytes that are not UTF-8 are replaced. A bad optional field is left out
//! and the rest kept, as the Agent does: an event with a wrong date is still worth reading.

use super::line::cut;
use super::{AlertType, Event, ParseError, Priority, ServiceCheck, Status};

/// Reads an event. Lengths count bytes; the title must not be empty, the text may be.
///
/// # Errors
/// [`ParseError::Event`] for a header that is not `_e{n,n}:` or for less text than it promises.
pub fn parse_event(line: &[u8]) -> Result<Event, ParseError> {
    event(line).ok_or(ParseError::Event)
}

/// Reads a service check.
///
/// # Errors
/// [`ParseError::Check`] for a missing name or a status other than 0 to 3.
pub fn parse_check(line: &[u8]) -> Result<ServiceCheck, ParseError> {
    check(line).ok_or(ParseError::Check)
}

fn event(line: &[u8]) -> Option<Event> {
    let (lengths, body) = cut(line.strip_prefix(b"_e{")?, b'}')?;
    let body = body.strip_prefix(b":")?;
    let (title_length, text_length) = cut(lengths, b',')?;
    let title_length = integer(title_length).and_then(|n| usize::try_from(n).ok())?;
    let text_length = integer(text_length).and_then(|n| usize::try_from(n).ok())?;
    let text_start = title_length.checked_add(1)?;
    let text_end = text_start.checked_add(text_length)?;
    if title_length == 0 || body.len() < text_end {
        return None;
    }
    let mut event = Event {
        title: unescape(&body[..title_length]),
        text: unescape(&body[text_start..text_end]),
        ..Event::default()
    };
    for field in fields(&body[text_end..]) {
        event_field(&mut event, field);
    }
    Some(event)
}

fn event_field(event: &mut Event, field: &[u8]) {
    match field {
        [b'd', b':', at @ ..] => event.timestamp = integer(at).filter(|at| *at > 0).or(event.timestamp),
        [b'h', b':', host @ ..] => event.host = Some(lossy(host)),
        [b'k', b':', key @ ..] => event.aggregation_key = Some(lossy(key)),
        [b's', b':', source @ ..] => event.source_type = Some(lossy(source)),
        b"p:low" => event.priority = Priority::Low,
        b"p:normal" => event.priority = Priority::Normal,
        b"t:error" => event.alert_type = AlertType::Error,
        b"t:warning" => event.alert_type = AlertType::Warning,
        b"t:info" => event.alert_type = AlertType::Info,
        b"t:success" => event.alert_type = AlertType::Success,
        [b'#', tags @ ..] => event.tags = split_tags(tags),
        _ => event.origin.extend(origin(field)),
    }
}

fn check(line: &[u8]) -> Option<ServiceCheck> {
    let mut parts = line.strip_prefix(b"_sc|")?.split(|byte| *byte == b'|');
    let name = parts.next().filter(|name| !name.is_empty())?;
    let status = match parts.next()? {
        b"0" => Status::Ok,
        b"1" => Status::Warning,
        b"2" => Status::Critical,
        b"3" => Status::Unknown,
        _ => return None,
    };
    let mut check = ServiceCheck {
        name: lossy(name),
        status,
        timestamp: None,
        host: None,
        message: None,
        tags: Vec::new(),
        origin: Vec::new(),
    };
    for field in parts {
        check_field(&mut check, field);
    }
    Some(check)
}

fn check_field(check: &mut ServiceCheck, field: &[u8]) {
    match field {
        [b'd', b':', at @ ..] => check.timestamp = integer(at).filter(|at| *at > 0).or(check.timestamp),
        [b'h', b':', host @ ..] => check.host = Some(lossy(host)),
        [b'm', b':', message @ ..] => check.message = Some(lossy(message)),
        [b'#', tags @ ..] => check.tags = split_tags(tags),
        _ => check.origin.extend(origin(field)),
    }
}

fn fields(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'|').filter(|field| !field.is_empty())
}

fn origin(field: &[u8]) -> Option<String> {
    let known = field.starts_with(b"c:") || field.starts_with(b"e:") || field.starts_with(b"card:");
    known.then(|| lossy(field))
}

fn split_tags(tags: &[u8]) -> Vec<String> {
    tags.split(|byte| *byte == b',').filter(|tag| !tag.is_empty()).map(lossy).collect()
}

fn integer(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

/// Clients write a line feed as backslash and `n`, because a real one would end the message.
fn unescape(text: &[u8]) -> String {
    lossy(text).replace("\\n", "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_event_has_the_wire_defaults() {
        let event = parse_event(b"_e{5,4}:title|text").unwrap();
        let expected = Event { title: "title".into(), text: "text".into(), ..Event::default() };
        assert_eq!(event, expected);
    }

    #[test]
    fn every_event_field_is_read() {
        let event =
            parse_event(b"_e{1,0}:t||d:17|h:h1|k:key|p:low|s:src|t:success|#a:b,,c|c:in-4|e:it-0|card:low|zz:1").unwrap();
        assert_eq!(event.timestamp, Some(17));
        assert_eq!(event.host.as_deref(), Some("h1"));
        assert_eq!(event.aggregation_key.as_deref(), Some("key"));
        assert_eq!((event.priority, event.alert_type), (Priority::Low, AlertType::Success));
        assert_eq!(event.source_type.as_deref(), Some("src"));
        assert_eq!(event.tags, ["a:b", "c"]);
        assert_eq!(event.origin, ["c:in-4", "e:it-0", "card:low"]);
    }

    #[test]
    fn a_bad_optional_field_costs_only_itself() {
        let event = parse_event(b"_e{1,1}:t|x|d:soon|p:high|t:odd|h:h1").unwrap();
        assert_eq!((event.timestamp, event.priority, event.alert_type), (None, Priority::Normal, AlertType::Info));
        assert_eq!(event.host.as_deref(), Some("h1"));
    }

    #[test]
    fn backslash_n_is_a_line_feed_in_events_only() {
        assert_eq!(parse_event(b"_e{5,6}:title|a\\nb\\n").unwrap().text, "a\nb\n");
        assert_eq!(parse_check(b"_sc|x|0|m:it\\nbroke").unwrap().message.as_deref(), Some("it\\nbroke"));
    }

    #[test]
    fn events_with_wrong_lengths_are_errors() {
        for line in [
            "_e{0,4}:|text",
            "_e{5,4}:title|tex",
            "_e{-1,4}:x|text",
            "_e{5,4}title|text",
            "_e{5}:title|text",
            "_e{18446744073709551615,1}:t|x",
            "_e{9223372036854775807,9223372036854775807}:t|x",
        ] {
            assert_eq!(parse_event(line.as_bytes()), Err(ParseError::Event), "{line}");
        }
    }

    #[test]
    fn checks_are_read_and_refused() {
        let check = parse_check(b"_sc|x|2|d:17|h:h1|#a:b|m:it\\nbroke").unwrap();
        assert_eq!((check.name.as_str(), check.status, check.timestamp), ("x", Status::Critical, Some(17)));
        assert_eq!((check.host.as_deref(), check.tags), (Some("h1"), vec!["a:b".to_owned()]));
        assert_eq!(parse_check(b"_sc|agent.up|0").unwrap().status, Status::Ok);
        for line in ["_sc|x", "_sc||0", "_sc|x|4", "_sc|x|", "_scx|x|0"] {
            assert_eq!(parse_check(line.as_bytes()), Err(ParseError::Check), "{line}");
        }
    }
}
