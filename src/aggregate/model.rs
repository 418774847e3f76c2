//! The aggregator against a naive one: maps of strings, no aliases, no reuse of anything.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Line { name: u8, kind: u8, value: i16, tags: Vec<u8>, halved: bool },
    Wait(u8),
    Flush,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let line = (0..3u8, 0..3u8, any::<i16>(), proptest::collection::vec(0..4u8, 0..4), any::<bool>())
        .prop_map(|(name, kind, value, tags, halved)| Step::Line { name, kind, value, tags, halved });
    proptest::collection::vec(prop_oneof![8 => line, 2 => (0..30u8).prop_map(Step::Wait), 1 => Just(Step::Flush)], 0..120)
}

/// (name, tags, stamp) to value; counters as sums.
type Totals = BTreeMap<(String, Vec<String>, i64), f64>;

/// What a reader with a pencil would have written down: sums of counters, last of gauges, number of distinct members.
#[derive(Default)]
struct Pencil {
    totals: Totals,
    members: BTreeMap<(String, Vec<String>, i64), std::collections::BTreeSet<i16>>,
}

impl Pencil {
    fn line(&mut self, now: i64, name: String, kind: u8, value: i16, tags: Vec<String>, halved: bool) {
        let at = (name, tags, now - now % 10);
        match kind {
            0 => *self.totals.entry(at).or_default() += f64::from(value) * if halved { 2.0 } else { 1.0 },
            1 => drop(self.totals.insert(at, f64::from(value))),
            _ => {
                let members = self.members.entry(at.clone()).or_default();
                members.insert(value);
                self.totals.insert(at, members.len() as f64);
            }
        }
    }
}

fn collect(totals: &mut Totals, window: Window) -> Result<(), TestCaseError> {
    for point in window.points {
        let mut tags: Vec<String> = point.context.tags().map(str::to_owned).collect();
        tags.sort();
        let is_zero = point.form == Form::Count && point.value == 0.0;
        let at = (point.context.name.to_string(), tags, point.timestamp);
        // An idle counter's zero says nothing that the pencil would have written.
        if !is_zero {
            prop_assert_eq!(totals.insert(at, point.value), None, "a series has one point a second");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn windows_are_what_a_naive_reader_writes_down(steps in steps()) {
        let mut aggregator = Aggregator::new(Settings { counters: Counters::Count, ..Settings::default() });
        let (mut pencil, mut found) = (Pencil::default(), Totals::new());
        let mut now = 1_700_000_000_i64;
        for step in steps {
            match step {
                Step::Wait(seconds) => now += i64::from(seconds),
                Step::Flush => collect(&mut found, aggregator.flush(now as f64))?,
                Step::Line { name, kind, value, tags, halved } => {
                    let tags: Vec<String> = tags.iter().map(|tag| format!("t{tag}")).collect();
                    let name = format!("m{name}.{kind}");
                    let wire = ["c", "g", "s"][usize::from(kind)];
                    let rate = if halved { "|@0.5" } else { "" };
                    let line = format!("{name}:{value}|{wire}{rate}|#{}", tags.join(","));
                    aggregator.record_line(now as f64, line.as_bytes());
                    let mut set = tags;
                    set.sort();
                    set.dedup();
                    pencil.line(now, name, kind, value, set, halved);
                }
            }
        }
        collect(&mut found, aggregator.flush((now + 10) as f64))?;
        pencil.totals.retain(|(name, ..), value| !(name.ends_with(".0") && *value == 0.0));
        prop_assert_eq!(found, pencil.totals);
        let stats = aggregator.stats();
        prop_assert_eq!((stats.line_error(), stats.sample_error()), (0, 0));
    }

    #[test]
    fn any_bytes_at_any_time_leave_the_books_balanced(
        lines in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..40), any::<f64>()), 0..40),
        texts in proptest::collection::vec("[ab]:[0-9e.:infa\\-]{1,8}\\|(c|g|s|h|ms|d)(\\|@[0-9.e\\-]{1,5})?(\\|#[a,:]{0,5})?(\\|T[0-9]{1,10})?", 0..40),
        agent in any::<bool>(),
    ) {
        let mode = if agent { Mode::Agent } else { Mode::Intake };
        let mut aggregator = Aggregator::new(Settings { mode, max_contexts: 3, max_bytes: 5000, ..Settings::default() });
        for (line, now) in lines {
            aggregator.record_line(now, &line);
        }
        for text in texts {
            aggregator.record_line(1_700_000_000.0, text.as_bytes());
        }
        let window = aggregator.flush_all(1_700_000_001.0);
        prop_assert!(window.points.iter().all(|point| point.value.is_finite()));
        prop_assert!(window.sketches.iter().all(|point| point.sketch.sum.is_finite() && point.sketch.avg.is_finite()));
        let stats = aggregator.stats();
        prop_assert_eq!((stats.line_error(), stats.sample_error()), (0, 0));
    }
}
