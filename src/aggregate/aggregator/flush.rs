//! How buckets close, what an idle context still says, and when it is forgotten.

use super::{Aggregator, NEWEST_SECONDS, points_in};
use crate::aggregate::contexts::{Class, Entry, whole_second};
use crate::aggregate::value::{Closing, Value};
use crate::aggregate::{Mode, Reason, Settings, Window};

/// Zeros for skipped buckets, at most: beyond it (the machine slept) only the last bucket gets them.
const MAX_ZEROS: usize = 100_000;

/// What is older on its way out may be too old at Datadog: the age at which the spool gives up a payload.
const OLDEST_STAMP_SECONDS: f64 = 3_300.0;

/// A partial flush that lies further ahead is a clock that was set back, and holds nobody up.
const MOST_SHIFTED: i64 = 60;

impl Aggregator {
    /// Closes the buckets that have ended by `now` and hands out everything that is closed.
    pub fn flush(&mut self, now: f64) -> Window {
        self.roll(now);
        self.hand_out()
    }

    /// The last flush: the open bucket too, stamped with its own second. A bucket's start is no partial flush's stamp, since
    /// whoever runs next may close the same bucket, and Datadog keeps only the last point of a second.
    pub fn flush_all(&mut self, now: f64) -> Window {
        self.roll(now);
        let stamp = self.partial_stamp(now);
        self.last_partial = stamp;
        self.close(stamp, false);
        Window { partial: Some(stamp), ..self.hand_out() }
    }

    /// The stamp of the last partial flush of an earlier process.
    pub fn set_last_partial(&mut self, stamp: i64) {
        self.last_partial = stamp;
    }

    fn partial_stamp(&self, now: f64) -> i64 {
        let interval = i64::from(self.settings.interval_seconds);
        let stamp = (now.floor() as i64).max(self.last_partial.saturating_add(1));
        if interval > 1 && stamp % interval == 0 { stamp.saturating_add(1) } else { stamp }
    }

    fn hand_out(&mut self) -> Window {
        self.timestamped = 0;
        let window = std::mem::take(&mut self.pending);
        self.stats.points_flushed += points_in(&window);
        window
    }

    /// Brings the open bucket up to `now`.
    pub(super) fn roll(&mut self, now: f64) {
        let interval = i64::from(self.settings.interval_seconds);
        let second = now.floor() as i64;
        let mut bucket = second.saturating_sub(second.rem_euclid(interval));
        if interval == 1 && (bucket..bucket.saturating_add(MOST_SHIFTED)).contains(&self.last_partial) {
            // Where each second is a bucket, a partial flush takes the whole of it.
            bucket = self.last_partial + 1;
        }
        let Some(open) = self.open else {
            self.open = Some(bucket);
            return;
        };
        let leap = now - open as f64;
        if !(-NEWEST_SECONDS..=OLDEST_STAMP_SECONDS).contains(&leap) {
            // The clock was set: under the old stamp nobody would take what is open, so it goes into the bucket of now.
            self.begin_anew(now);
            self.open = Some(bucket);
        } else if bucket > open {
            self.close(self.last_stamp(open, leap), true);
            self.fill_skipped(open.saturating_add(interval), bucket);
            self.expire(bucket as f64);
            self.open = Some(bucket);
        }
    }

    /// The stamp of an open bucket that is left for a later one. After a leap the bucket may not have ended: the clock may be
    /// set right again and the bucket be opened once more, so its start is kept for that.
    fn last_stamp(&self, open: i64, leap: f64) -> i64 {
        open.saturating_add(i64::from(leap > NEWEST_SECONDS && self.settings.interval_seconds > 1))
    }

    fn close(&mut self, stamp: i64, zeros: bool) {
        let Aggregator { settings, contexts, pending, .. } = self;
        let mut freed = 0;
        for entry in contexts.iter_mut() {
            let zero = zeros && says_zero(entry, stamp, settings);
            freed += entry.value.bytes();
            let closing = Closing { stamp, zero, own: entry.class == Class::Own, settings };
            entry.value.close(&entry.context, closing, pending);
        }
        contexts.bytes -= freed;
        self.leave_out();
    }

    /// Takes out the series of histograms that the settings leave out by their suffixed name.
    fn leave_out(&mut self) {
        let (filter, points) = (&self.settings.filter, &mut self.pending.points);
        if filter.looks_at_series() {
            let before = points.len();
            points.retain(|point| !filter.drops_series(point.context.name(), point.suffix.text()));
            self.stats.drop(Reason::FilteredPoints, (before - points.len()) as u64);
        }
    }

    /// No call came in these buckets; idle counters were 0 in them.
    fn fill_skipped(&mut self, from: i64, to: i64) {
        let interval = i64::from(self.settings.interval_seconds);
        let expiry = i64::from(self.settings.counter_expiry_seconds);
        let to_fill = (to.saturating_sub(from) / interval).min(expiry / interval + 1);
        let too_many = to_fill.saturating_mul(self.contexts.len() as i64) > MAX_ZEROS as i64;
        let last = to.saturating_sub(interval);
        let mut stamp = if too_many { last } else { from };
        for _ in 0..to_fill {
            if stamp > last {
                break;
            }
            self.close(stamp, true);
            stamp = stamp.saturating_add(interval);
        }
    }

    /// Forgets what the Agent would: twice the interval after the last sample, counters after their zeros.
    fn expire(&mut self, bucket: f64) {
        let short = 2.0 * f64::from(self.settings.interval_seconds);
        let settings = &self.settings;
        let expired_before = bucket - short;
        self.contexts.retain(expired_before - f64::from(settings.counter_expiry_seconds), |entry| {
            f64::from(entry.last_seen) > expired_before || says_zero(entry, bucket as i64, settings)
        });
    }

    /// The clock was set back: what was seen "later" than now would otherwise be kept for as long as the step was.
    fn begin_anew(&mut self, now: f64) {
        let now = whole_second(now);
        for entry in self.contexts.iter_mut() {
            entry.last_seen = entry.last_seen.min(now);
            entry.last_sampled = entry.last_sampled.min(now);
        }
    }
}

/// Whether an idle context is a counter that still reports 0 for the bucket at `stamp`.
fn says_zero(entry: &Entry, stamp: i64, settings: &Settings) -> bool {
    let expiry = i64::from(settings.counter_expiry_seconds);
    let counter = matches!(entry.value, Value::Counter { .. }) && settings.mode == Mode::Intake;
    counter && i64::from(entry.last_sampled) + expiry > stamp
}
