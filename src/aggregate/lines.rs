//! Points and raw samples as DogStatsD lines, for an Agent behind us.

use std::borrow::Cow;

use super::{Context, Form, Host, Kind, Point, RawSamples};
use crate::statsd::format::{Tail, metric, tail_length};

/// One point as a line without its line feed. A timestamped sample (interval 0) carries its `T`; a window's point does not,
/// so that the Agent puts it into its own bucket. A rate is turned back into the count it was made from.
pub fn write_point(out: &mut String, point: &Point) {
    let (kind, value) = match point.form {
        Form::Gauge => (Kind::Gauge, point.value),
        Form::Count => (Kind::Counter, point.value),
        Form::Rate => (Kind::Counter, point.value * f64::from(point.interval_seconds.max(1))),
    };
    let timestamp = (point.interval_seconds == 0).then_some(point.timestamp);
    let tags = tags(&point.context);
    let tail = Tail { kind, rate: 1.0, tags: &tags, origin: point.context.origin(), timestamp };
    let name = match point.suffix.text() {
        "" => Cow::Borrowed(point.context.name()),
        suffix => Cow::Owned(format!("{}{suffix}", point.context.name())),
    };
    metric(out, &name, &value.to_string(), &tail);
}

/// Raw samples as lines, one call of `each` a line. None is longer than `max` bytes, but for a single value that alone is.
pub fn write_raw(raw: &RawSamples, max: usize, each: &mut impl FnMut(&str)) {
    let context = &raw.context;
    let tags = tags(context);
    let tail =
        Tail { kind: context.kind(), rate: raw.sample_rate, tags: &tags, origin: context.origin(), timestamp: None };
    let room = max.saturating_sub(context.name().len() + tail_length(&tail));
    let mut line = String::new();
    let mut write = |values: &str| {
        line.clear();
        metric(&mut line, context.name(), values, &tail);
        each(&line);
    };
    // A member of a set may hold a colon and is one value.
    if context.kind() == Kind::Set || raw.values.len() <= room {
        return write(&raw.values);
    }
    let mut pack = String::new();
    for value in raw.values.split(':') {
        if !pack.is_empty() && pack.len() + 1 + value.len() > room {
            write(&pack);
            pack.clear();
        }
        if !pack.is_empty() {
            pack.push(':');
        }
        pack.push_str(value);
    }
    write(&pack);
}

/// The host is a tag on this wire.
fn tags(context: &Context) -> Cow<'_, str> {
    let host = match context.host() {
        Host::Default => return Cow::Borrowed(context.joined_tags()),
        Host::None => "",
        Host::Named(name) => name,
    };
    let tags = context.joined_tags();
    let comma = if tags.is_empty() { "" } else { "," };
    Cow::Owned(format!("{tags}{comma}host:{host}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::aggregate::{Aggregate, Suffix};

    fn context(kind: Kind, host: Host<'_>, tags: &str, origin: &str) -> Arc<Context> {
        Arc::new(Context::new(kind, "jobs", host, tags, origin))
    }

    fn check_point(form: Form, value: f64, suffix: Suffix, interval_seconds: u32, expected: &str) {
        let context = context(Kind::Counter, Host::Default, "a:b,c", "c:ci-1|card:low");
        let point = Point { context, suffix, form, value, timestamp: 77, interval_seconds };
        let mut out = String::new();
        write_point(&mut out, &point);
        assert_eq!(out, expected);
    }

    #[test]
    fn points_are_lines_of_their_form_and_only_a_timestamped_one_carries_its_second() {
        check_point(Form::Count, 0.1 + 0.2, Suffix::None, 10, "jobs:0.30000000000000004|c|#a:b,c|c:ci-1|card:low");
        check_point(
            Form::Gauge,
            -0.25,
            Suffix::Aggregate(Aggregate::Max),
            10,
            "jobs.max:-0.25|g|#a:b,c|c:ci-1|card:low",
        );
        check_point(Form::Rate, 0.5, Suffix::None, 10, "jobs:5|c|#a:b,c|c:ci-1|card:low");
        check_point(Form::Count, 3.0, Suffix::None, 0, "jobs:3|c|#a:b,c|c:ci-1|card:low|T77");
    }

    #[test]
    fn the_host_is_a_tag() {
        for (host, given, expected) in
            [(Host::Default, "", ""), (Host::None, "", "host:"), (Host::Named("x"), "a:b", "a:b,host:x")]
        {
            assert_eq!(tags(&context(Kind::Gauge, host, given, "")), expected);
        }
    }

    fn lines(kind: Kind, rate: f64, values: &str, max: usize) -> Vec<String> {
        let context = context(kind, Host::Default, "t", "");
        let mut lines = Vec::new();
        let raw = RawSamples { context, sample_rate: rate, values: values.into() };
        write_raw(&raw, max, &mut |line| lines.push(line.to_owned()));
        lines
    }

    #[test]
    fn samples_are_packed_with_their_rate_and_split_where_too_long() {
        assert_eq!(lines(Kind::Distribution, 0.5, "1:2.5:3", 100), ["jobs:1:2.5:3|d|@0.5|#t"]);
        assert_eq!(lines(Kind::Timing, 1.0, "9", 100), ["jobs:9|ms|#t"]);
        assert_eq!(lines(Kind::Histogram, 1.0, "10:20:30:40", 16), ["jobs:10:20|h|#t", "jobs:30:40|h|#t"]);
        assert_eq!(
            lines(Kind::Histogram, 1.0, "1:55555555:4", 14),
            ["jobs:1|h|#t", "jobs:55555555|h|#t", "jobs:4|h|#t"]
        );
        assert_eq!(lines(Kind::Histogram, 1.0, "1:2", 3), ["jobs:1|h|#t", "jobs:2|h|#t"]);
        assert_eq!(lines(Kind::Set, 1.0, "a:b:c:d:e:f:g:h", 16), ["jobs:a:b:c:d:e:f:g:h|s|#t"], "never cut");
    }
}
