//! Cuts one line into its parts without copying a byte.
//!
//! Owns the grammar of metrics and what is an error in it. Numbers are read later, by [`Line::numbers`], and tags are never
//! split here: a line of a known context needs neither. Unknown fields are skipped, because clients grow new ones and a
//! server that refuses them loses all its traffic.

use memchr::memchr;

use super::number::{number, seconds};
use super::{Event, ServiceCheck, parse_check, parse_event};

/// The StatsD type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Counter,
    Gauge,
    Set,
    Histogram,
    Timing,
    Distribution,
}

impl Kind {
    /// What stands for it on the wire.
    pub fn wire(self) -> &'static str {
        match self {
            Kind::Counter => "c",
            Kind::Gauge => "g",
            Kind::Set => "s",
            Kind::Histogram => "h",
            Kind::Timing => "ms",
            Kind::Distribution => "d",
        }
    }

    fn parse(text: &[u8]) -> Option<Kind> {
        Some(match text {
            b"c" => Kind::Counter,
            b"g" => Kind::Gauge,
            b"s" => Kind::Set,
            b"h" => Kind::Histogram,
            b"ms" => Kind::Timing,
            b"d" => Kind::Distribution,
            _ => return None,
        })
    }
}

/// Why a line is no message. Each is counted under its [`reason`](ParseError::reason).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    Name,
    Value,
    Type,
    Rate,
    Timestamp,
    Event,
    Check,
}

impl ParseError {
    /// The label under which the loss is counted.
    pub fn reason(self) -> &'static str {
        match self {
            ParseError::Name => "parse_name",
            ParseError::Value => "parse_value",
            ParseError::Type => "parse_type",
            ParseError::Rate => "parse_rate",
            ParseError::Timestamp => "parse_timestamp",
            ParseError::Event => "parse_event",
            ParseError::Check => "parse_check",
        }
    }
}

/// One metric line, every part still pointing into the datagram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line<'a> {
    pub name: &'a [u8],
    pub kind: Kind,
    /// One number or several joined by `:`; the one member of a set, colons included.
    pub values: &'a [u8],
    /// What stood after `@`, in or out of its range; `None` when the app gave none.
    pub rate: Option<f64>,
    /// What stood after `#`, not split.
    pub tags: &'a [u8],
    /// Unix seconds, at least 1.
    pub timestamp: Option<i64>,
    /// `c:…`, `e:…`, `card:…` as they came, prefix included; empty when absent.
    pub local: &'a [u8],
    pub external: &'a [u8],
    pub cardinality: &'a [u8],
}

impl Line<'_> {
    /// Reads the packed values into `out`, which is emptied first. Empty items are skipped; one bad item spoils the line.
    ///
    /// # Errors
    /// [`ParseError::Value`] when an item is no number or none is left.
    pub fn numbers(&self, out: &mut Vec<f64>) -> Result<(), ParseError> {
        out.clear();
        for item in self.items() {
            out.push(number(item).ok_or(ParseError::Value)?);
        }
        if out.is_empty() { Err(ParseError::Value) } else { Ok(()) }
    }

    /// The packed values as text, empty ones left out.
    pub fn items(&self) -> impl Iterator<Item = &[u8]> {
        self.values.split(|byte| *byte == b':').filter(|item| !item.is_empty())
    }
}

/// What a line is.
#[derive(Clone, Debug, PartialEq)]
pub enum Message<'a> {
    Blank,
    Metric(Line<'a>),
    Event(Event),
    Check(ServiceCheck),
}

/// The lines of a datagram. A final line feed ends the last line and begins no other; one CR before it is taken off.
pub fn lines(datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (line, after) = match memchr(b'\n', rest) {
            Some(at) => (&rest[..at], &rest[at + 1..]),
            None => (rest, &rest[rest.len()..]),
        };
        rest = after;
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    })
}

/// Reads one line (without its line feed). The values of a metric are not read yet, see [`Line::numbers`].
///
/// # Errors
/// The first thing that is wrong with it.
pub fn parse(line: &[u8]) -> Result<Message<'_>, ParseError> {
    match line {
        [] => Ok(Message::Blank),
        [b'_', b'e', b'{', ..] => parse_event(line).map(Message::Event),
        [b'_', b's', b'c', ..] => parse_check(line).map(Message::Check),
        _ => parse_metric(line).map(Message::Metric),
    }
}

fn parse_metric(line: &[u8]) -> Result<Line<'_>, ParseError> {
    let (head, rest) = cut(line, b'|').ok_or(ParseError::Type)?;
    let (name, values) = cut(head, b':').ok_or(ParseError::Value)?;
    if name.is_empty() {
        return Err(ParseError::Name);
    }
    if values.is_empty() {
        return Err(ParseError::Value);
    }
    let (kind, fields) = cut(rest, b'|').unwrap_or((rest, &[]));
    let kind = Kind::parse(kind).ok_or(ParseError::Type)?;
    let mut parsed = Line {
        name,
        kind,
        values,
        rate: None,
        tags: &[],
        timestamp: None,
        local: &[],
        external: &[],
        cardinality: &[],
    };
    let mut rest = fields;
    while !rest.is_empty() {
        let (field, after) = cut(rest, b'|').unwrap_or((rest, &[]));
        read_field(&mut parsed, field)?;
        rest = after;
    }
    Ok(parsed)
}

/// The last of a repeated field wins, as in the Agent.
fn read_field<'a>(line: &mut Line<'a>, field: &'a [u8]) -> Result<(), ParseError> {
    match field {
        [b'@', rate @ ..] => line.rate = Some(number(rate).ok_or(ParseError::Rate)?),
        [b'#', tags @ ..] => line.tags = tags,
        [b'T', at @ ..] => line.timestamp = Some(seconds(at).ok_or(ParseError::Timestamp)?),
        [b'c', b':', ..] => line.local = field,
        [b'e', b':', ..] => line.external = field,
        [b'c', b'a', b'r', b'd', b':', ..] => line.cardinality = field,
        _ => {}
    }
    Ok(())
}

pub(super) fn cut(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let index = memchr(at, text)?;
    Some((&text[..index], &text[index + 1..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn metric(text: &str) -> Line<'_> {
        match parse(text.as_bytes()) {
            Ok(Message::Metric(line)) => line,
            other => panic!("{text:?}: {other:?}"),
        }
    }

    fn check_error(text: &str, expected: ParseError) {
        let found = parse(text.as_bytes()).and_then(|message| match message {
            Message::Metric(line) if line.kind != Kind::Set => line.numbers(&mut Vec::new()),
            _ => Ok(()),
        });
        assert_eq!(found, Err(expected), "{text:?}");
    }

    #[test]
    fn every_field_is_found_in_any_order() {
        let line = metric("a.b:1:2|ms|T1700000003|card:low|#x,y:z|e:it-false|@0.5|c:ci-1|new:thing");
        assert_eq!(line.name, b"a.b");
        assert_eq!((line.kind, line.values, line.tags), (Kind::Timing, &b"1:2"[..], &b"x,y:z"[..]));
        assert_eq!((line.rate, line.timestamp), (Some(0.5), Some(1_700_000_003)));
        assert_eq!((line.local, line.external, line.cardinality), (&b"c:ci-1"[..], &b"e:it-false"[..], &b"card:low"[..]));
    }

    #[test]
    fn empty_fields_are_skipped_and_the_last_of_a_repeated_one_wins() {
        let line = metric("a:1|c||#x||#y||");
        assert_eq!(line.tags, b"y");
    }

    #[test]
    fn set_member_keeps_its_colons() {
        assert_eq!(metric("u:abc:def|s").values, b"abc:def");
    }

    #[test]
    fn packed_values_skip_empty_items() {
        let mut numbers = Vec::new();
        metric("q:1::3|d").numbers(&mut numbers).unwrap();
        assert_eq!(numbers, [1.0, 3.0]);
    }

    #[test]
    fn each_fault_has_its_reason() {
        for (text, expected) in [
            ("q:|c", ParseError::Value),
            (":1|c", ParseError::Name),
            ("a:1|x", ParseError::Type),
            ("a:1|C", ParseError::Type),
            ("a:1|", ParseError::Type),
            ("a:1", ParseError::Type),
            ("bad", ParseError::Type),
            ("a|c", ParseError::Value),
            ("a::|c", ParseError::Value),
            ("a:1:x|c", ParseError::Value),
            ("a:1e309|c", ParseError::Value),
            ("a:1|c|@", ParseError::Rate),
            ("a:1|c|@x", ParseError::Rate),
            ("a:1|c|T0", ParseError::Timestamp),
            ("a:1|c|Tx", ParseError::Timestamp),
            ("_e{x", ParseError::Event),
            ("_sc|", ParseError::Check),
        ] {
            check_error(text, expected);
        }
    }

    #[test]
    fn lines_end_at_feeds_and_lose_one_carriage_return() {
        let found: Vec<&[u8]> = lines(b"a:1|c\r\nb:2|c\n\nbad\nc:3|c\n").collect();
        assert_eq!(found, [&b"a:1|c"[..], b"b:2|c", b"", b"bad", b"c:3|c"]);
        assert_eq!(lines(b"").count(), 0);
        assert_eq!(lines(b"\n").collect::<Vec<_>>(), [b""]);
        assert_eq!(lines(b"a\r").collect::<Vec<_>>(), [b"a"]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for line in lines(&bytes) {
                let _ = parse(line);
            }
        }

        #[test]
        fn bytes_that_look_like_statsd_are_read_without_a_panic(text in "(_e\\{|_sc|a)?[a:|0-9.@#T,{}_ch\\-\n\r]{0,60}") {
            for line in lines(text.as_bytes()) {
                if let Ok(Message::Metric(line)) = parse(line) {
                    let _ = line.numbers(&mut Vec::new());
                }
            }
        }
    }
}
