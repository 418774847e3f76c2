//! Medians and the median of pairwise slopes, on stack arrays of at most [`RING`] values.
//!
//! Medians and not means: one garbage collection, one spike or one late reading must neither hide a leak nor make one.

/// Buckets that a ring holds. 32 gives 496 pairs, a slope that half of the points may disagree with, at 512 bytes a ring.
pub(super) const RING: usize = 32;
const PAIRS: usize = pairs_of(RING);

/// The median; the values are reordered. Zero for nothing.
pub(super) fn median(values: &mut [f64]) -> f64 {
    let n = values.len();
    if n == 0 {
        return 0.0;
    }
    let (below, upper, _) = values.select_nth_unstable_by(n / 2, f64::total_cmp);
    let upper = *upper;
    if n % 2 == 1 {
        return upper;
    }
    let lower = below.iter().copied().max_by(f64::total_cmp).unwrap_or(upper);
    f64::midpoint(lower, upper)
}

/// The Theil–Sen slope of equally spaced values, per step. At most the first [`RING`] values count.
pub(super) fn theil_sen(values: &[f64]) -> f64 {
    median_slope(values.len(), |i, j| Some((values[j] - values[i]) / (j - i) as f64)).0
}

/// How many pairs of equally many values there are.
pub(super) const fn pairs_of(values: usize) -> usize {
    values * values.saturating_sub(1) / 2
}

/// The median over all pairs of how much `values` change for each unit that `by` changes, and how many pairs it was taken over:
/// those whose `by` differ by at least `least`. At most the first [`RING`] values count.
pub(super) fn slope_by(values: &[f64], by: &[f64], least: f64) -> (f64, usize) {
    median_slope(values.len().min(by.len()), |i, j| {
        let step = by[j] - by[i];
        (step.abs() >= least && step != 0.0).then(|| (values[j] - values[i]) / step)
    })
}

/// The median over the pairs of so many points, [`RING`] at most, that have a slope, and how many those are.
fn median_slope(points: usize, slope: impl Fn(usize, usize) -> Option<f64>) -> (f64, usize) {
    let n = points.min(RING);
    let mut slopes = [0.0; PAIRS];
    let mut pairs = 0;
    for i in 0..n {
        for slope in (i + 1..n).filter_map(|j| slope(i, j)) {
            slopes[pairs] = slope;
            pairs += 1;
        }
    }
    (median(&mut slopes[..pairs]), pairs)
}

/// The medians of the first and of the last quarter.
pub(super) fn both_ends(values: &[f64]) -> (f64, f64) {
    let quarter = values.len() / 4;
    (median_of(&values[..quarter]), median_of(&values[values.len() - quarter..]))
}

/// The median of a copy: for short slices that must keep their order.
pub(super) fn median_of(values: &[f64]) -> f64 {
    let mut copy = [0.0; RING];
    let n = values.len().min(RING);
    copy[..n].copy_from_slice(&values[..n]);
    median(&mut copy[..n])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn medians_are_the_middle_or_the_mean_of_the_two_middles() {
        for (values, expected) in [
            (vec![], 0.0),
            (vec![3.0], 3.0),
            (vec![9.0, 1.0], 5.0),
            (vec![5.0, 1.0, 100.0], 5.0),
            (vec![4.0, 1.0, 3.0, 2.0], 2.5),
        ] {
            assert_eq!(median(&mut values.clone()), expected, "{values:?}");
            assert_eq!(median_of(&values), expected, "{values:?}");
        }
    }

    #[test]
    fn one_wild_point_does_not_bend_the_slope() {
        let mut line: Vec<f64> = (0..20).map(|i| 3.0 + 2.0 * f64::from(i)).collect();
        assert_eq!(theil_sen(&line), 2.0);
        line[7] = 1e9;
        assert!((theil_sen(&line) - 2.0).abs() < 0.5);
        assert_eq!(theil_sen(&[1.0]), 0.0);
    }

    proptest! {
        #[test]
        fn the_median_is_that_of_the_sorted_values(values in prop::collection::vec(-1e6..1e6_f64, 1..RING)) {
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            let n = sorted.len();
            let expected = f64::midpoint(sorted[(n - 1) / 2], sorted[n / 2]);
            prop_assert_eq!(median(&mut values.clone()), expected);
        }
    }
}
