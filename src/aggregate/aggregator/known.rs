//! The short way: a line whose spelling is known, with one plain value, into the open bucket.
//!
//! Two scans for separators, two hashes, one table hit, one number. Whatever is out of the ordinary (a pack, a number that
//! is none, a bucket that has ended, a copy to be made) is left untouched to the long way, which alone refuses and counts
//! errors of lines.

use super::{Aggregator, Recorded, Sample};
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
        entry.last_seen = now;
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
