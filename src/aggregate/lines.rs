//! Points and raw samples as DogStatsD lines, for an Agent behind us.

use super::{Form, Kind, Point, RawSamples};
use crate::statsd::format::{Tail, metric, tail_length};

/// One point as a line without its line feed. A timestamped sample (interval 0) carries its `T`; a window's point does not,
/// so that the Agent puts it into its own bucket.
pub fn write_point(out: &mut String, point: &Point) {
    let timestamp = (point.interval_seconds == 0).then_some(point.timestamp);
    let kind = if point.form == Form::Gauge { Kind::Gauge } else { Kind::Counter };
    let tail =
        Tail { kind, rate: 1.0, tags: &point.context.tags, origin: &point.context.origin, timestamp };
    metric(out, &point.context.name, &point.value.to_string(), &tail);
}

/// Raw samples as lines of at most `max_bytes` each, one call of `emit` a line. Returns how many values fit into no line.
pub fn write_raw(raw: &RawSamples, max_bytes: usize, mut emit: impl FnMut(&str)) -> u64 {
    let context = &raw.context;
    let tail = Tail {
        kind: context.kind,
        rate: raw.sample_rate,
        tags: &context.tags,
        origin: &context.origin,
        timestamp: None,
    };
    let room = max_bytes.saturating_sub(context.name.len() + tail_length(&tail));
    let mut line = String::new();
    let mut too_long = 0;
    let mut write = |values: &str| {
        line.clear();
        metric(&mut line, &context.name, values, &tail);
        emit(&line);
    };
    if context.kind == Kind::Set {
        if raw.values.len() > room {
            return 1;
        }
        write(&raw.values);
        return 0;
    }
    let mut pack = String::new();
    for value in raw.values.split(':') {
        if value.len() > room {
            too_long += 1;
            continue;
        }
        if !pack.is_empty() && pack.len() + 1 + value.len() > room {
            write(&pack);
            pack.clear();
        }
        if !pack.is_empty() {
            pack.push(':');
        }
        pack.push_str(value);
    }
    if !pack.is_empty() {
        write(&pack);
    }
    too_long
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::aggregate::{Context, Host};

    fn context(kind: Kind) -> Arc<Context> {
        let (host, origin) = (Host::Default, "c:ci-1".into());
        Arc::new(Context { kind, name: "a".into(), host, tags: "x,y:z".into(), origin })
    }

    fn lines(kind: Kind, rate: f64, values: &str, max: usize) -> (Vec<String>, u64) {
        let raw = RawSamples { context: context(kind), sample_rate: rate, values: values.into() };
        let mut lines = Vec::new();
        let too_long = write_raw(&raw, max, |line| lines.push(line.to_owned()));
        assert!(lines.iter().all(|line| line.len() <= max));
        (lines, too_long)
    }

    #[test]
    fn packs_are_cut_at_the_limit_and_what_fits_nowhere_is_counted() {
        let tail = "|h|#x,y:z|c:ci-1";
        assert_eq!(lines(Kind::Histogram, 1.0, "1:22:3", 100), (vec![format!("a:1:22:3{tail}")], 0));
        let three = vec![format!("a:1:2{tail}"), format!("a:333{tail}"), format!("a:4{tail}")];
        assert_eq!(lines(Kind::Histogram, 1.0, "1:2:333:55555:4", 2 + 4 + tail.len()), (three, 1));
        assert_eq!(lines(Kind::Histogram, 1.0, "1:2", 3), (vec![], 2));
        assert_eq!(lines(Kind::Timing, 0.5, "1", 100).0, ["a:1|ms|@0.5|#x,y:z|c:ci-1"]);
    }

    #[test]
    fn a_set_member_is_never_cut() {
        assert_eq!(lines(Kind::Set, 1.0, "ab:cd", 100).0, ["a:ab:cd|s|#x,y:z|c:ci-1"]);
        assert_eq!(lines(Kind::Set, 1.0, "ab:cd", 20), (vec![], 1));
    }

    #[test]
    fn only_a_timestamped_point_carries_its_second() {
        let mut point = Point {
            context: context(Kind::Counter),
            suffix: "",
            form: Form::Count,
            value: 0.1 + 0.2,
            timestamp: 1_700_000_000,
            interval_seconds: 10,
        };
        let mut out = String::new();
        write_point(&mut out, &point);
        assert_eq!(out, "a:0.30000000000000004|c|#x,y:z|c:ci-1");
        (point.interval_seconds, point.form, point.context) = (0, Form::Gauge, context(Kind::Gauge));
        out.clear();
        write_point(&mut out, &point);
        assert_eq!(out, "a:0.30000000000000004|g|#x,y:z|c:ci-1|T1700000000");
    }
}
