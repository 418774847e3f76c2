//! A window, an event or a check as lines of DogStatsD, and lines packed into datagrams. Pure.
//!
//! Values go out as they came in: counts as counts, samples of distributions unaggregated, so that the Agent aggregates once.

use std::fmt::Write;

use crate::aggregate::{Context, Form, Host, Kind, Point, RawSamples, Window};
use crate::statsd::{AlertType, Event, Priority, ServiceCheck};

/// Calls `each` for every line of the window. No line is longer than `max` bytes, but for a single value that alone is.
pub(super) fn window(window: &Window, max: usize, each: &mut impl FnMut(&str)) {
    for it in &window.points {
        each(&point(it));
    }
    for it in &window.raw {
        raw(it, max, each);
    }
}

/// A rate is turned back into the count it was made from.
fn point(point: &Point) -> String {
    let (kind, value) = match point.form {
        Form::Gauge => ("g", point.value),
        Form::Count => ("c", point.value),
        Form::Rate => ("c", point.value * f64::from(point.interval_seconds.max(1))),
    };
    let mut line = format!("{}{}:{value}|{kind}", point.context.name, point.suffix);
    line += &tail(&point.context);
    if point.interval_seconds == 0 {
        let _ = write!(line, "|T{}", point.timestamp);
    }
    line
}

/// Packs the values again where they do not fit into one line.
fn raw(samples: &RawSamples, max: usize, each: &mut impl FnMut(&str)) {
    let name = &samples.context.name;
    let end = raw_end(samples);
    let room = max.saturating_sub(name.len() + end.len() + 1);
    // A member of a set may hold a colon and is one value.
    if samples.context.kind == Kind::Set || samples.values.len() <= room {
        return each(&format!("{name}:{}{end}", samples.values));
    }
    let mut pack = String::new();
    for value in samples.values.split(':') {
        if !pack.is_empty() && pack.len() + 1 + value.len() > room {
            each(&format!("{name}:{pack}{end}"));
            pack.clear();
        }
        if !pack.is_empty() {
            pack.push(':');
        }
        pack += value;
    }
    each(&format!("{name}:{pack}{end}"));
}

fn raw_end(samples: &RawSamples) -> String {
    let kind = match samples.context.kind {
        Kind::Counter => "c",
        Kind::Gauge => "g",
        Kind::Set => "s",
        Kind::Histogram => "h",
        Kind::Timing => "ms",
        Kind::Distribution => "d",
    };
    let mut end = format!("|{kind}");
    if samples.sample_rate < 1.0 {
        let _ = write!(end, "|@{}", samples.sample_rate);
    }
    end + &tail(&samples.context)
}

/// `|#tags|origin`; the host is a tag on this wire.
fn tail(context: &Context) -> String {
    let mut tags = context.tags.to_string();
    match &context.host {
        Host::Default => {}
        Host::None => push_tag(&mut tags, "host:"),
        Host::Named(name) => push_tag(&mut tags, &format!("host:{name}")),
    }
    let mut tail = String::new();
    if !tags.is_empty() {
        let _ = write!(tail, "|#{tags}");
    }
    if !context.origin.is_empty() {
        let _ = write!(tail, "|{}", context.origin);
    }
    tail
}

fn push_tag(tags: &mut String, tag: &str) {
    if !tags.is_empty() {
        tags.push(',');
    }
    tags.push_str(tag);
}

/// The line of an event, its text cut where the line would pass `max` bytes.
pub(super) fn event(event: &Event, max: usize) -> String {
    let title = escape(&event.title);
    let end = event_end(event);
    let text = escape(&event.text);
    // `_e{,}:` and `|`, and up to five digits for each length.
    let room = max.saturating_sub(title.len() + end.len() + 17);
    let text = text[..text.floor_char_boundary(room)].trim_end_matches('\\');
    format!("_e{{{},{}}}:{title}|{text}{end}", title.len(), text.len())
}

fn event_end(event: &Event) -> String {
    let mut end = String::new();
    let fields = [
        ("d:", event.timestamp.map(|at| at.to_string())),
        ("h:", event.host.clone()),
        ("k:", event.aggregation_key.clone()),
        ("p:", (event.priority == Priority::Low).then(|| "low".to_owned())),
        ("s:", event.source_type.clone()),
        ("t:", alert_type(event.alert_type).map(str::to_owned)),
    ];
    for (key, value) in fields {
        if let Some(value) = value {
            let _ = write!(end, "|{key}{}", field(&value));
        }
    }
    end + &ending(&event.tags, &event.origin)
}

/// `None` is the wire's default, info.
fn alert_type(kind: AlertType) -> Option<&'static str> {
    match kind {
        AlertType::Error => Some("error"),
        AlertType::Warning => Some("warning"),
        AlertType::Success => Some("success"),
        AlertType::Info => None,
    }
}

/// The line of a service check; the message stands last, as the protocol wants it.
pub(super) fn check(check: &ServiceCheck) -> String {
    let mut line = format!("_sc|{}|{}", field(&check.name), check.status as u8);
    if let Some(at) = check.timestamp {
        let _ = write!(line, "|d:{at}");
    }
    if let Some(host) = &check.host {
        let _ = write!(line, "|h:{}", field(host));
    }
    line += &ending(&check.tags, &check.origin);
    if let Some(message) = &check.message {
        let _ = write!(line, "|m:{}", escape(message).replace("m:", "m\\:"));
    }
    line
}

fn ending(tags: &[String], origin: &[String]) -> String {
    let mut end = String::new();
    if !tags.is_empty() {
        let tags: Vec<String> = tags.iter().map(|tag| field(tag)).collect();
        let _ = write!(end, "|#{}", tags.join(","));
    }
    for part in origin {
        let _ = write!(end, "|{}", field(part));
    }
    end
}

fn escape(text: &str) -> String {
    text.replace('\n', "\\n")
}

/// A value between two bars.
fn field(text: &str) -> String {
    text.replace(['|', '\n'], "_")
}

/// Packs lines into datagrams of at most `pack` bytes; a longer line of at most `max` goes alone.
#[derive(Debug)]
pub(super) struct Packer {
    pack: usize,
    max: usize,
    open: String,
    full: Vec<String>,
    too_long: u64,
}

impl Packer {
    pub fn new(pack: usize, max: usize) -> Packer {
        Packer { pack, max, open: String::new(), full: Vec::new(), too_long: 0 }
    }

    pub fn push(&mut self, line: &str) {
        if line.len() > self.max {
            self.too_long += 1;
            return;
        }
        if !self.open.is_empty() && self.open.len() + 1 + line.len() > self.pack {
            self.full.push(std::mem::take(&mut self.open));
        }
        if !self.open.is_empty() {
            self.open.push('\n');
        }
        self.open += line;
    }

    /// The datagrams, and how many lines were longer than any datagram.
    pub fn finish(mut self) -> (Vec<String>, u64) {
        if !self.open.is_empty() {
            self.full.push(self.open);
        }
        (self.full, self.too_long)
    }
}

/// Lines in a datagram.
pub(super) fn count(datagram: &str) -> u64 {
    datagram.bytes().filter(|byte| *byte == b'\n').count() as u64 + 1
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::statsd::Status;

    fn context(kind: Kind, host: Host, tags: &str, origin: &str) -> Arc<Context> {
        Arc::new(Context { kind, name: "jobs".into(), host, tags: tags.into(), origin: origin.into() })
    }

    fn check_point(form: Form, value: f64, suffix: &'static str, interval_seconds: u32, expected: &str) {
        let context = context(Kind::Counter, Host::Default, "a:b,c", "c:ci-1|card:low");
        let it = Point { context, suffix, form, value, timestamp: 77, interval_seconds };
        assert_eq!(point(&it), expected);
    }

    #[test]
    fn points_are_lines_of_their_form() {
        check_point(Form::Count, 3.0, "", 10, "jobs:3|c|#a:b,c|c:ci-1|card:low");
        check_point(Form::Gauge, -0.25, ".max", 10, "jobs.max:-0.25|g|#a:b,c|c:ci-1|card:low");
        check_point(Form::Rate, 0.5, "", 10, "jobs:5|c|#a:b,c|c:ci-1|card:low");
        check_point(Form::Count, 3.0, "", 0, "jobs:3|c|#a:b,c|c:ci-1|card:low|T77");
    }

    #[test]
    fn the_host_is_a_tag() {
        for (host, tags, expected) in
            [(Host::Default, "", ""), (Host::None, "", "|#host:"), (Host::Named("x".into()), "a:b", "|#a:b,host:x")]
        {
            assert_eq!(tail(&context(Kind::Gauge, host, tags, "")), expected);
        }
    }

    fn raw_lines(kind: Kind, rate: f64, values: &str, max: usize) -> Vec<String> {
        let samples =
            RawSamples { context: context(kind, Host::Default, "t", ""), sample_rate: rate, values: values.into() };
        let mut lines = Vec::new();
        raw(&samples, max, &mut |line| lines.push(line.to_owned()));
        lines
    }

    #[test]
    fn samples_are_packed_with_their_rate_and_split_where_too_long() {
        assert_eq!(raw_lines(Kind::Distribution, 0.5, "1:2.5:3", 100), ["jobs:1:2.5:3|d|@0.5|#t"]);
        assert_eq!(raw_lines(Kind::Timing, 1.0, "9", 100), ["jobs:9|ms|#t"]);
        assert_eq!(raw_lines(Kind::Histogram, 1.0, "10:20:30:40", 16), ["jobs:10:20|h|#t", "jobs:30:40|h|#t"]);
        assert_eq!(raw_lines(Kind::Set, 1.0, "a:b:c:d:e:f:g:h", 16), ["jobs:a:b:c:d:e:f:g:h|s|#t"]);
    }

    #[test]
    fn an_event_tells_the_bytes_of_its_escaped_words() {
        let it = Event {
            title: "é\nx".to_owned(),
            text: "a\nb".to_owned(),
            timestamp: Some(5),
            host: Some("h".to_owned()),
            aggregation_key: Some("k".to_owned()),
            priority: Priority::Low,
            source_type: Some("oomwatch".to_owned()),
            alert_type: AlertType::Error,
            tags: vec!["a:b".to_owned(), "c|d".to_owned()],
            origin: vec!["c:ci-1".to_owned()],
        };
        assert_eq!(event(&it, 8_192), "_e{5,4}:é\\nx|a\\nb|d:5|h:h|k:k|p:low|s:oomwatch|t:error|#a:b,c_d|c:ci-1");
        assert_eq!(event(&Event { title: "t".to_owned(), ..Event::default() }, 8_192), "_e{1,0}:t|");
    }

    #[test]
    fn a_long_event_is_cut_to_the_datagram() {
        let it =
            Event { title: "t".to_owned(), text: "é".repeat(9_000), tags: vec!["a:b".to_owned()], ..Event::default() };
        let line = event(&it, 8_192);
        assert!(line.len() <= 8_192 && line.len() > 8_170 && line.ends_with("é|#a:b"), "{}", line.len());
    }

    #[test]
    fn a_check_ends_with_its_message() {
        let it = ServiceCheck {
            name: "up".to_owned(),
            status: Status::Warning,
            timestamp: Some(5),
            host: Some("h".to_owned()),
            message: Some("m: gone\naway".to_owned()),
            tags: vec!["a:b".to_owned()],
            origin: vec!["e:x".to_owned()],
        };
        assert_eq!(check(&it), "_sc|up|1|d:5|h:h|#a:b|e:x|m:m\\: gone\\naway");
    }

    #[test]
    fn datagrams_are_filled_and_a_line_too_long_for_any_is_counted() {
        let mut packer = Packer::new(10, 12);
        for line in ["aaaa", "bbbbb", "c", "dddddddddddd", "eeeeeeeeeeeee"] {
            packer.push(line);
        }
        let (datagrams, too_long) = packer.finish();
        assert_eq!(datagrams, ["aaaa\nbbbbb", "c", "dddddddddddd"]);
        assert_eq!((count(&datagrams[0]), too_long), (2, 1));
    }
}
