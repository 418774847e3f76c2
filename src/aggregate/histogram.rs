//! Every sample of one window with its weight, and the Agent's order statistics over them.
//!
//! Weights are exact (1/r), unlike the Agent's, which cuts them to whole numbers and so lets an average pass the maximum.
//! The ranks are the Agent's integer ones, so where 1/r is whole the numbers are the Agent's.

use super::sum::Sum;

/// The most that one sample costs.
pub(super) const SAMPLE_BYTES: usize = size_of::<(f64, f64)>();

/// Below this many samples equal values are not looked for.
const COMPACT_FROM: usize = 1024;

#[derive(Clone, Debug, Default)]
pub(super) struct Histogram {
    /// Values of weight 1, in no order: nearly all of them, at half the price.
    plain: Vec<f64>,
    /// Value and weight, in no order; equal values are merged into it from time to time, which changes no result.
    weighted: Vec<(f64, f64)>,
    /// When there are this many, equal values are merged.
    compact_at: usize,
    sum: Sum,
    count: Sum,
}

/// The numbers of a closed window.
#[derive(Debug)]
pub(super) struct Summary {
    samples: Vec<(f64, f64)>,
    pub(super) sum: f64,
    /// Samples before sampling, a fraction where 1/r is none.
    pub(super) count: f64,
}

impl Histogram {
    /// Adds one finite value, or refuses it (`false`) where the sum would not stay finite.
    pub(super) fn add(&mut self, value: f64, weight: f64) -> bool {
        let (Some(sum), Some(count)) = (self.sum.plus(value * weight), self.count.plus(weight)) else {
            return false;
        };
        self.sum = sum;
        self.count = count;
        if self.plain.len() + self.weighted.len() >= self.compact_at.max(COMPACT_FROM) {
            self.weighted.extend(self.plain.drain(..).map(|value| (value, 1.0)));
            merge_equal(&mut self.weighted);
            self.compact_at = 2 * self.weighted.len();
        }
        if weight == 1.0 {
            self.plain.push(value);
        } else {
            self.weighted.push((value, weight));
        }
        true
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.plain) + size_of_val(&*self.weighted)
    }

    /// `None` when there was no sample.
    pub(super) fn take(&mut self) -> Option<Summary> {
        let Histogram { plain, weighted: mut samples, sum, count, .. } = std::mem::take(self);
        samples.extend(plain.into_iter().map(|value| (value, 1.0)));
        samples.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        (!samples.is_empty()).then(|| Summary { samples, sum: sum.value(), count: count.value() })
    }
}

fn merge_equal(samples: &mut Vec<(f64, f64)>) {
    samples.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    samples.dedup_by(|next, kept| {
        let equal = next.0 == kept.0;
        if equal {
            kept.1 += next.1;
        }
        equal
    });
}

impl Summary {
    pub(super) fn min(&self) -> f64 {
        self.samples[0].0
    }

    pub(super) fn max(&self) -> f64 {
        self.samples[self.samples.len() - 1].0
    }

    /// Never outside of minimum and maximum, whatever the rounding.
    pub(super) fn avg(&self) -> f64 {
        (self.sum / self.count).clamp(self.min(), self.max())
    }

    /// The lower median: the first value whose cumulated weight passes (n-1)/2, in whole numbers.
    pub(super) fn median(&self) -> f64 {
        self.first_above((self.whole_count() - 1) / 2)
    }

    /// The first value whose cumulated weight passes (p·n-1)/100, in whole numbers.
    pub(super) fn percentile(&self, percent: u64) -> f64 {
        let rank = (u128::from(percent) * u128::from(self.whole_count()) - 1) / 100;
        self.first_above(rank as u64)
    }

    /// At least 1: a weight is never below that.
    fn whole_count(&self) -> u64 {
        (self.count as u64).max(1)
    }

    fn first_above(&self, rank: u64) -> f64 {
        let mut cumulated = 0.0;
        for (value, weight) in &self.samples {
            cumulated += weight;
            if cumulated > rank as f64 {
                return *value;
            }
        }
        self.max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(samples: &[(f64, f64)], expected: [f64; 6]) {
        let mut histogram = Histogram::default();
        for (value, rate) in samples {
            assert!(histogram.add(*value, 1.0 / rate));
        }
        let found = histogram.take().expect("it has samples");
        assert_eq!(
            [found.max(), found.median(), found.avg(), found.count, found.percentile(95), found.min()],
            expected
        );
        assert!(histogram.take().is_none(), "a window is taken once");
    }

    #[test]
    fn ranks_are_the_agents_integer_ones() {
        check(&[(1.0, 1.0), (2.0, 1.0), (3.0, 1.0)], [3.0, 2.0, 2.0, 3.0, 3.0, 1.0]);
        check(&[(1.0, 1.0), (2.0, 1.0)], [2.0, 1.0, 1.5, 2.0, 2.0, 1.0]);
        check(&[(7.0, 1.0)], [7.0, 7.0, 7.0, 1.0, 7.0, 7.0]);
        check(&[(1.0, 0.1), (100.0, 1.0)], [100.0, 1.0, 10.0, 11.0, 100.0, 1.0]);
        let hundred: Vec<(f64, f64)> = (1..=100).rev().map(|n| (f64::from(n), 1.0)).collect();
        check(&hundred, [100.0, 50.0, 50.5, 100.0, 95.0, 1.0]);
    }

    #[test]
    fn average_of_a_sampled_value_stays_the_value() {
        check(&[(10.0, 0.3)], [10.0, 10.0, 10.0, 1.0 / 0.3, 10.0, 10.0]);
    }

    #[test]
    fn merging_equal_values_changes_no_number_and_saves_memory() {
        let mut histogram = Histogram::default();
        for n in 0..100_000u32 {
            assert!(histogram.add(f64::from(n % 10), 1.0));
        }
        assert!(histogram.bytes() < 3 * COMPACT_FROM * SAMPLE_BYTES);
        let summary = histogram.take().unwrap();
        assert_eq!((summary.count, summary.sum, summary.median()), (100_000.0, 450_000.0, 4.0));
    }

    #[test]
    fn a_sum_past_the_range_is_refused() {
        let mut histogram = Histogram::default();
        assert!(histogram.add(f64::MAX, 1.0));
        assert!(!histogram.add(f64::MAX, 1.0));
        assert!(!histogram.add(1.0, f64::INFINITY));
        assert_eq!(histogram.take().map(|summary| summary.count), Some(1.0));
    }
}
