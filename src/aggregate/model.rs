//! The aggregator against a naive one: maps of strings, every sample kept, no aliases, no reuse of anything.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const T0: i64 = 1_700_000_000;
const WIRE: [&str; 6] = ["c", "g", "s", "h", "ms", "d"];
/// Sequences a run; the optimised build does all of them.
const CASES: u32 = if cfg!(debug_assertions) { 200 } else { 2_000 };

#[derive(Clone, Debug)]
enum Step {
    Sample(Sample),
    /// An event, a check, a blank or a bad line.
    Other(u8),
    /// Seconds, also a few back.
    Wait(i8),
    Flush,
}

/// Whole values and rates of 1, 1/2, 1/4, 1/8: every sum is exact in any order.
#[derive(Clone, Debug)]
struct Sample {
    name: u8,
    kind: usize,
    values: Vec<i16>,
    tags: Vec<u8>,
    halvings: u8,
    /// Seconds from now.
    timestamp: Option<i64>,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let timestamp = proptest::option::weighted(0.2, prop_oneof![9 => -3_600..=600i64, 1 => -4_000..=1_000i64]);
    let values = proptest::collection::vec(any::<i16>(), 1..4);
    let tags = proptest::collection::vec(0..4u8, 0..4);
    let sample = (0..3u8, 0..WIRE.len(), values, tags, 0..4u8, timestamp).prop_map(
        |(name, kind, values, tags, halvings, timestamp)| {
            Step::Sample(Sample { name, kind, values, tags, halvings, timestamp })
        },
    );
    let wait = (-8..30i8).prop_map(Step::Wait);
    proptest::collection::vec(
        prop_oneof![16 => sample, 2 => (0..4u8).prop_map(Step::Other), 3 => wait, 2 => Just(Step::Flush)],
        0..120,
    )
}

impl Sample {
    /// Timestamped ones have names of their own: they may share a second, where the last one wins.
    fn name(&self) -> String {
        format!("{}{}.{}", if self.timestamp.is_some() { "at" } else { "m" }, self.name, WIRE[self.kind])
    }

    fn tags(&self) -> impl Iterator<Item = String> {
        self.tags.iter().map(|tag| format!("t{tag}"))
    }

    fn line(&self, now: i64) -> String {
        let values: Vec<String> = self.values.iter().map(i16::to_string).collect();
        let rate =
            if self.halvings > 0 { format!("|@{}", 0.5f64.powi(i32::from(self.halvings))) } else { String::new() };
        let at = self.timestamp.map(|after| format!("|T{}", now + after)).unwrap_or_default();
        let tags = self.tags().collect::<Vec<_>>().join(",");
        format!("{}:{}|{}{rate}|#{tags}{at}", self.name(), values.join(":"), WIRE[self.kind])
    }
}

/// (name with suffix, set of tags, stamp).
type Key = (String, BTreeSet<String>, i64);
type Totals = BTreeMap<Key, f64>;

/// What a reader with a pencil writes down: every sample of a window, in order, once for each that it stands for.
#[derive(Default)]
struct Pencil {
    /// By series and window: type, values, and for a set its members' texts.
    samples: BTreeMap<Key, (usize, Vec<f64>, BTreeSet<String>)>,
    stamped: Totals,
    /// The latest window that has begun: a small step back of the clock stays in it.
    open: i64,
}

impl Pencil {
    fn pass(&mut self, now: i64) {
        self.open = self.open.max(now - now % 10);
    }

    fn sample(&mut self, now: i64, sample: &Sample) {
        let key = |stamp| (sample.name(), sample.tags().collect(), stamp);
        if let Some(after) = sample.timestamp {
            let value = sample.values.last().map_or(0.0, |value| f64::from(*value));
            if sample.kind < 2 && (-3_600..=600).contains(&after) {
                // Whatever is taken tells the time.
                self.pass(now);
                self.stamped.insert(key(now + after), value);
            }
            return;
        }
        self.pass(now);
        let (kind, values, members) = self.samples.entry(key(self.open)).or_default();
        *kind = sample.kind;
        let stands_for = if sample.kind == 1 { 1 } else { 1 << sample.halvings };
        values.extend(sample.values.iter().flat_map(|value| vec![f64::from(*value); stands_for]));
        members.insert(format!("{:?}", sample.values));
    }

    fn totals(self) -> Totals {
        let mut totals = self.stamped;
        for ((name, tags, stamp), (kind, values, members)) in self.samples {
            for (suffix, value) in summary(kind, values, members.len()) {
                totals.insert((format!("{name}{suffix}"), tags.clone(), stamp), value);
            }
        }
        totals
    }
}

fn summary(kind: usize, mut values: Vec<f64>, members: usize) -> Vec<(&'static str, f64)> {
    let (sum, last) = (values.iter().sum::<f64>(), values[values.len() - 1]);
    values.sort_by(f64::total_cmp);
    let n = values.len();
    let (first, max) = (values[0], values[n - 1]);
    match kind {
        0 => vec![("", sum)],
        1 => vec![("", last)],
        2 => vec![("", members as f64)],
        5 => vec![(" n", n as f64), (" sum", sum), (" min", first), (" max", max)],
        _ => vec![
            (".max", max),
            (".median", values[(n - 1) / 2]),
            (".avg", sum / n as f64),
            (".count", n as f64),
            (".95percentile", values[(95 * n - 1) / 100]),
        ],
    }
}

fn collect(totals: &mut Totals, window: Window) -> Result<(), TestCaseError> {
    let key = |context: &Context, suffix: &str, stamp| {
        (format!("{}{suffix}", context.name()), context.tags().map(str::to_owned).collect::<BTreeSet<_>>(), stamp)
    };
    for point in window.points {
        // An idle counter's zero says nothing that the pencil would have written.
        if point.form == Form::Count && point.value == 0.0 && !point.context.name().starts_with("at") {
            continue;
        }
        let before = totals.insert(key(&point.context, point.suffix.text(), point.timestamp), point.value);
        prop_assert!(before.is_none() || point.context.name().starts_with("at"), "a series has one point a second");
    }
    for SketchPoint { context, timestamp, sketch } in window.sketches {
        prop_assert_eq!(sketch.bins.iter().map(|bin| u64::from(bin.n)).sum::<u64>(), sketch.count);
        let told = [(" n", sketch.count as f64), (" sum", sketch.sum), (" min", sketch.min), (" max", sketch.max)];
        for (suffix, value) in told {
            prop_assert_eq!(totals.insert(key(&context, suffix, timestamp), value), None);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn windows_are_what_a_naive_reader_writes_down(steps in steps()) {
        let mut aggregator = Aggregator::new(Settings { counters: Counters::Count, ..Settings::default() });
        let (mut pencil, mut found) = (Pencil::default(), Totals::new());
        let mut now = T0;
        for step in steps {
            match step {
                Step::Wait(seconds) => now += i64::from(seconds),
                Step::Flush => {
                    pencil.pass(now);
                    collect(&mut found, aggregator.flush(now as f64))?;
                }
                Step::Other(which) => {
                    let line = ["_e{1,1}:a|b", "_sc|a|0", "", "bad:1|q"][usize::from(which)];
                    aggregator.record_line(now as f64, line.as_bytes());
                }
                Step::Sample(sample) => {
                    aggregator.record_line(now as f64, sample.line(now).as_bytes());
                    pencil.sample(now, &sample);
                }
            }
        }
        collect(&mut found, aggregator.flush((now.max(pencil.open) + 20) as f64))?;
        let mut expected = pencil.totals();
        expected.retain(|(name, ..), value| !(name.starts_with('m') && name.ends_with(".c") && *value == 0.0));
        prop_assert_eq!(found, expected);
        let stats = aggregator.stats();
        prop_assert_eq!((stats.line_error(), stats.sample_error()), (0, 0));
    }
}
