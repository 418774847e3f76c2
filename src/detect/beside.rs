//! What is read beside memory, bucket by bucket like a scale's floors, and what it says of their rise: the live heap that stays
//! where it is while memory grows.
//!
//! Both figures come more rarely than memory: the live heap with a profile, the load with the stream's own seconds. A bucket
//! holds the mean of what was known in it; one in which nothing was known makes the whole ring mute.

use super::statistics::{RING, both_ends};

/// Of memory's rise, what the live heap may have risen by and still not be its cause.
const LEFT_BEHIND: f64 = 0.25;
/// Other figures than the one before that the ring must have seen: the same figure twice may be the same profile twice, for one
/// that is taken without a collection in between is the one before.
const FRESH: usize = 3;

/// One more signal over the buckets of a scale.
#[derive(Clone, Debug)]
pub(super) struct Beside {
    means: [f32; RING],
    len: usize,
    sum: f64,
    readings: u32,
}

impl Default for Beside {
    fn default() -> Beside {
        Beside { means: [f32::NAN; RING], len: 0, sum: 0.0, readings: 0 }
    }
}

impl Beside {
    /// The scale has closed a bucket and holds so many now: closes this one too.
    pub(super) fn close(&mut self, buckets: usize) {
        let mean = if self.readings > 0 { (self.sum / f64::from(self.readings)) as f32 } else { f32::NAN };
        let kept = self.len.min(buckets.saturating_sub(1));
        self.means.copy_within(self.len - kept..self.len, 0);
        self.means[kept] = mean;
        self.len = kept + 1;
        (self.sum, self.readings) = (0.0, 0);
    }

    /// A value of the bucket that is open, where there is one.
    pub(super) fn push(&mut self, value: Option<f64>) {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            self.sum += value;
            self.readings = self.readings.saturating_add(1);
        }
    }

    /// The scale has been emptied.
    pub(super) fn clear(&mut self) {
        *self = Beside::default();
    }

    /// The means of the same buckets as these floors; `None` if one of them is not known.
    pub(super) fn means(&self, floors: &[f64]) -> Option<[f64; RING]> {
        let known = self.len == floors.len() && self.means[..self.len].iter().all(|mean| mean.is_finite());
        known.then(|| self.means.map(f64::from))
    }

    /// By how much this rose over the ring, from the middle of its first quarter to that of its last; `None` if it was not known
    /// over all of the ring, or too seldom looked at.
    pub(super) fn rise(&self, floors: &[f64]) -> Option<f64> {
        let means = self.means(floors)?;
        let means = &means[..floors.len()];
        let fresh = means.windows(2).filter(|pair| pair[0].to_bits() != pair[1].to_bits()).count();
        (fresh >= FRESH).then(|| quarters_rise(means))
    }

    /// Memory rose, and this, in bytes, did not rise with it.
    pub(super) fn stays_behind(&self, floors: &[f64], limit: f64) -> bool {
        self.rise(floors).is_some_and(|rise| rise <= LEFT_BEHIND * quarters_rise(floors) * limit)
    }
}

fn quarters_rise(values: &[f64]) -> f64 {
    let (first, last) = both_ends(values);
    last - first
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: f64 = 1_048_576.0;

    fn ring(values: impl IntoIterator<Item = Option<f64>>) -> Beside {
        let mut ring = Beside::default();
        for (i, value) in values.into_iter().enumerate() {
            ring.push(value);
            ring.close((i + 1).min(RING));
        }
        ring
    }

    fn floors(n: usize) -> Vec<f64> {
        (0..n).map(|i| 0.2 + 0.01 * i as f64).collect()
    }

    #[test]
    fn a_heap_that_stands_still_stays_behind_and_one_that_grows_does_not() {
        let (floors, limit) = (floors(RING), 1_024.0 * MIB);
        let heap = |i: usize, slope: f64| Some(80.0 * MIB + (i / 5) as f64 * slope * MIB);
        assert!(ring((0..RING).map(|i| heap(i, 0.1))).stays_behind(&floors, limit));
        assert!(ring((0..RING).map(|i| heap(i, -1.0))).stays_behind(&floors, limit), "it may even shrink");
        assert!(!ring((0..RING).map(|i| heap(i, 40.0))).stays_behind(&floors, limit));
    }

    #[test]
    fn what_was_not_looked_at_says_nothing() {
        let (floors, limit) = (floors(RING), 1_024.0 * MIB);
        let same = ring((0..RING).map(|_| Some(80.0 * MIB)));
        assert!(!same.stays_behind(&floors, limit), "one profile, told over and over");
        let late = ring((0..RING).map(|i| (i > 3).then_some(80.0 * MIB + i as f64)));
        assert!(!late.stays_behind(&floors, limit));
        assert!(!Beside::default().stays_behind(&floors, limit));
    }

    #[test]
    fn it_keeps_step_with_a_scale_that_moves_and_is_emptied() {
        let mut long = ring((0..RING + 7).map(|i| Some(i as f64)));
        let means = long.means(&floors(RING)).expect("known");
        assert_eq!((means[0], means[RING - 1]), (7.0, (RING + 6) as f64));
        assert_eq!(long.means(&floors(RING - 1)), None, "buckets of another ring");
        long.clear();
        long.push(Some(3.0));
        long.close(1);
        assert_eq!(long.means(&[0.5]).map(|means| means[0]), Some(3.0));
    }
}
