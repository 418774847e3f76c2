//! The short way: a line whose spelling is known, with one plain value, into the open bucket.
//!
//! Two scans for separators, two hashes, one table hit, one number. Whatever is out of the ordinary (a pack, a number that
//! is none, a bucket that has ended, a copy to be made) is left untouched to the long way, which alone refuses and counts
//! errors of lines.

use super::{Aggregator, Recorded, Sample};
use crate::aggregate::contexts::whole_second;
use crate::aggregate::spelling::Spelling;
use crate::aggregate::value::Value;
use crate::statsd;

impl Aggregator {
    /// `None`: not for the short way, and nothing was done.
    pub(super) fn record_known(&mut self, now: f64, line: &[u8]) -> Option<Recorded> {
        if !self.is_open_at(now) {
            return None;
        }
        let (spelling, text) = Spelling::cut(line)?;
        let (slot, rate) = self.contexts.recall(spelling, now)?;
        let number = match &self.contexts.entry(slot).value {
            Value::Set(_) => (!text.is_empty()).then_some(0.0)?,
            Value::Histogram(_) | Value::Raw(_) if self.settings.copy_histograms => return None,
            _ => statsd::number(text).filter(|number| number.is_finite())?,
        };
        self.stats.lines += 1;
        self.stats.metrics += 1;
        self.stats.samples += 1;
        Some(self.add_known(now, slot, Sample { number, text, rate }))
    }

    fn add_known(&mut self, now: f64, slot: u32, sample: Sample<'_>) -> Recorded {
        let added = self.add_sample(now, slot, sample);
        let entry = self.contexts.entry_mut(slot);
        entry.last_seen = whole_second(now);
        match added {
            Ok(()) => {
                entry.samples += 1;
                self.stats.aggregated += 1;
                Recorded::Aggregated
            }
            Err(reason) => {
                self.stats.drop(reason, 1);
                Recorded::Dropped(reason)
            }
        }
    }

    /// Whether `now` lies in the open bucket.
    fn is_open_at(&self, now: f64) -> bool {
        self.open.is_some_and(|open| {
            let start = open as f64;
            now >= start && now < start + f64::from(self.settings.interval_seconds)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::aggregate::{Mode, Reason, Settings, Window};

    const NOW: f64 = 1_700_000_001.0;

    fn check(known: &str, line: &str, expected: Option<Recorded>) {
        let mut aggregator = Aggregator::new(Settings { copy_histograms: true, ..Settings::default() });
        aggregator.record_line(NOW, known.as_bytes());
        assert_eq!(aggregator.record_known(NOW, line.as_bytes()), expected, "{line} after {known}");
    }

    #[test]
    fn only_a_plain_value_of_a_known_spelling_takes_the_short_way() {
        check("a:1|c|#x", "a:2.5|c|#x", Some(Recorded::Aggregated));
        check("a:u:v|s", "a:w:x|s", Some(Recorded::Aggregated));
        for (known, line) in [
            ("a:1|c|#x", "a:2|c|#y"),
            ("a:1|c|#x", "a:1:2|c|#x"),
            ("a:1|c|#x", "a:x|c|#x"),
            ("a:1|c|#x", "a:nan|c|#x"),
            ("a:1|c|#x", "a:|c|#x"),
            ("a:u|s", "a:|s"),
            ("a:1|c|T1700000000", "a:1|c|T1700000000"),
            ("a:1|c|@2", "a:1|c|@2"),
            ("a:1|x", "a:1|x"),
            ("a:1|h", "a:1|h"),
        ] {
            check(known, line, None);
        }
    }

    #[test]
    fn a_bucket_that_has_ended_takes_the_long_way() {
        let mut aggregator = Aggregator::new(Settings::default());
        aggregator.record_line(NOW, b"a:1|c");
        assert_eq!(aggregator.record_known(NOW + 9.0, b"a:1|c"), None);
        assert_eq!(aggregator.record_known(NOW - 2.0, b"a:1|c"), None);
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let mut aggregator = Aggregator::new(Settings { max_bytes: 1000, ..Settings::default() });
        let lost = (0..100).filter(|_| {
            aggregator.record_line(NOW, b"a:1|h");
            aggregator.record_known(NOW, b"a:1|h") == Some(Recorded::Dropped(Reason::Memory))
        });
        assert!(lost.count() > 0);
        assert_eq!(aggregator.stats().sample_error(), 0);
    }

    /// Members of a set come in any order.
    fn sorted(mut window: Window) -> Window {
        window.raw.sort_by_key(|raw| format!("{raw:?}"));
        window
    }

    proptest! {
        #[test]
        fn both_ways_say_the_same(
            texts in proptest::collection::vec(
                "[ab]:[0-9.]{1,3}(:[0-9])?\\|(c|g|s|h|d)(\\|@0\\.[15])?(\\|#(x|y|y,x))?(\\|c:1)?(\\|T170000000[0-9])?", 0..60),
            agent in any::<bool>(), small in any::<bool>(), copy in any::<bool>(),
        ) {
            let mode = if agent { Mode::Agent } else { Mode::Intake };
            let max_contexts = if small { 3 } else { 1000 };
            let settings = Settings { mode, max_contexts, copy_histograms: copy, ..Settings::default() };
            let (mut short, mut long) = (Aggregator::new(settings.clone()), Aggregator::new(settings));
            for (n, text) in texts.iter().enumerate() {
                let now = NOW + n as f64 / 3.0;
                prop_assert_eq!(short.record_line(now, text.as_bytes()), long.record_parsed(now, text.as_bytes()), "{}", text);
            }
            prop_assert_eq!(sorted(short.flush_all(NOW + 30.0)), sorted(long.flush_all(NOW + 30.0)));
            prop_assert_eq!(short.stats(), long.stats());
        }
    }
}
