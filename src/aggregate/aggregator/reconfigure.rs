//! Other settings while samples come in: what is open is closed under the old ones, and everything is met anew.

use super::Aggregator;
use crate::aggregate::{Settings, Window};

impl Aggregator {
    /// Other settings from now on, of the same interval and mode. Hands out what is open, stamped as a last flush is, so that
    /// no point of the old settings carries a name or a tag of the new ones. Every spelling is forgotten, because filters and
    /// mappers act when one is met; an idle counter's zeros end with that. The totals go on.
    pub fn reconfigure(&mut self, now: f64, settings: Settings) -> Window {
        let window = self.flush_all(now);
        let old = std::mem::replace(self, Aggregator::new(settings));
        self.stats = old.stats;
        self.last_partial = old.last_partial;
        // Of a bucket of one second the partial flush has used the only stamp: what is left of it goes into the next one.
        self.open = (self.settings.interval_seconds == 1).then(|| self.last_partial.saturating_add(1));
        window
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::{Filter, points_in};

    #[test]
    fn no_second_is_stamped_twice_when_a_bucket_is_a_second() {
        let settings = Settings { interval_seconds: 1, ..Settings::default() };
        let mut aggregator = Aggregator::new(settings.clone());
        let mut stamps = Vec::new();
        for step in 0..40 {
            let now = 1_000.0 + f64::from(step) * 0.25;
            aggregator.record_line(now, b"jobs:1|c");
            let window = match step % 8 {
                3 | 4 => aggregator.reconfigure(now, settings.clone()),
                _ => aggregator.flush(now),
            };
            stamps.extend(window.points.iter().filter(|point| point.value > 0.0).map(|point| point.timestamp));
        }
        let all = stamps.len();
        stamps.dedup();
        assert_eq!((stamps.len(), stamps.is_sorted()), (all, true), "{stamps:?}");
    }

    #[test]
    fn a_change_in_mid_window_loses_no_sample_and_takes_effect_at_once() {
        let mut aggregator = Aggregator::new(Settings::default());
        for _ in 0..3 {
            aggregator.record_line(1_002.0, b"jobs:1|c");
            aggregator.record_line(1_002.0, b"noise:1|c");
        }
        let filter = Filter::new(&["noise".to_owned()], false, std::iter::empty(), &[], &[]);
        let tags = vec!["team:new".to_owned()];
        let before = aggregator.reconfigure(1_003.0, Settings { filter, tags, ..Settings::default() });
        assert_eq!((points_in(&before), before.points[0].timestamp), (2, 1_003));
        aggregator.record_line(1_004.0, b"jobs:4|c");
        aggregator.record_line(1_004.0, b"noise:1|c");
        let again = aggregator.reconfigure(1_004.0, Settings::default());
        assert_eq!(
            (points_in(&again), again.points[0].timestamp),
            (1, 1_004),
            "another second: nothing is overwritten"
        );
        assert_eq!(again.points[0].context.joined_tags(), "team:new");
        let stats = aggregator.stats();
        assert_eq!((stats.samples, stats.aggregated, stats.sample_error(), stats.points_flushed), (8, 7, 0, 3));
    }
}
