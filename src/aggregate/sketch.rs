//! The Agent's DDSketch: eps 1/128, bias 1338, at most 4096 bins, 16-bit counts.
//!
//! The keys must be the Agent's bit for bit, or percentiles jump when a service moves to us: `ln` and ties-to-even give
//! exactly Go's, but the smallest normal value is Go's constant, because its `Pow` differs from ours in the last digits.
//! While a window is open a key's count is one number; it is cut into 16-bit bins when the window closes.

use super::Reason;

/// `log1p(2/128)`.
const LN_GAMMA: f64 = 0.015504186535965254;
/// Go's `math.Pow(1.015625, -1337)`: what is smaller has key 0.
const SMALLEST: f64 = 9.941854089121368e-10;
const BIAS: f64 = 1338.0;
/// The key of everything too large.
const INFINITE_KEY: i16 = i16::MAX;
/// `pkg/quantile/config.go`, defaultBinLimit.
const MAX_KEYS: usize = 4096;
const FULL: u32 = u16::MAX as u32;

/// One bin on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bin {
    pub key: i16,
    pub n: u16,
}

/// A distribution of one window. The fields are what `Dogsketch` carries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sketch {
    /// Sorted by key; a key whose count passes 65,535 stands in several bins, the remainder first.
    pub bins: Vec<Bin>,
    pub count: u64,
    pub min: f64,
    pub max: f64,
    pub sum: f64,
    pub avg: f64,
}

/// The Agent's key of a finite value.
pub(super) fn key(value: f64) -> i16 {
    if value < 0.0 {
        return -key(-value);
    }
    if value < SMALLEST {
        return 0;
    }
    let key = (value.ln() / LN_GAMMA).round_ties_even() + BIAS;
    if key > f64::from(INFINITE_KEY - 1) { INFINITE_KEY } else { key.max(1.0) as i16 }
}

/// A sketch that is being filled.
#[derive(Clone, Debug, Default)]
pub(super) struct Filling {
    /// As in [`Sketch`].
    bins: Vec<Bin>,
    /// Different keys among them; at most [`MAX_KEYS`].
    keys: usize,
    count: u32,
    min: f64,
    max: f64,
    sum: f64,
    avg: f64,
}

impl Filling {
    /// Adds one finite value seen at `rate`, or refuses it: where sum or average would not stay finite, and where four
    /// billion samples a window are claimed.
    ///
    /// The count grows by a whole number, the sum by the exact one: so does the Agent's.
    pub(super) fn add(&mut self, value: f64, rate: f64) -> Result<(), Reason> {
        let weight = 1.0 / rate;
        let n = (weight as u32).max(1);
        let count = self.count.checked_add(n).ok_or(Reason::Rate)?;
        let sum = self.sum + value * weight;
        let avg = self.avg + (value - self.avg) * f64::from(n) / f64::from(count);
        if !sum.is_finite() || !avg.is_finite() {
            return Err(Reason::Nan);
        }
        let first = self.count == 0;
        self.min = if first { value } else { self.min.min(value) };
        self.max = if first { value } else { self.max.max(value) };
        (self.count, self.sum, self.avg) = (count, sum, avg);
        self.insert(key(value), n);
        Ok(())
    }

    fn insert(&mut self, key: i16, n: u32) {
        let at = self.bins.partition_point(|bin| bin.key < key);
        match self.bins.get_mut(at).filter(|bin| bin.key == key) {
            // What is not full stands first.
            Some(bin) if u32::from(bin.n) + n <= FULL => bin.n += n as u16,
            Some(bin) => {
                let sum = u32::from(bin.n) + n;
                self.bins.splice(at..=at, cut(key, sum));
            }
            None => {
                self.bins.splice(at..at, cut(key, n));
                self.keys += 1;
            }
        }
        if self.keys > MAX_KEYS {
            self.join_lowest();
        }
    }

    /// The count of the lowest key goes to the next one.
    fn join_lowest(&mut self) {
        let lowest = self.bins[0].key;
        let end = self.bins.partition_point(|bin| bin.key == lowest);
        let n = self.bins.drain(..end).map(|bin| u32::from(bin.n)).sum();
        self.keys -= 1;
        self.insert(self.bins[0].key, n);
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.bins)
    }

    /// The most that [`add`](Filling::add) may add to [`bytes`](Filling::bytes).
    pub(super) fn cost(rate: f64) -> usize {
        let full = (1.0 / rate / f64::from(FULL)) as usize;
        (full + 2).saturating_mul(size_of::<Bin>())
    }

    /// `None` when there was no sample.
    pub(super) fn take(&mut self) -> Option<Sketch> {
        let Filling { mut bins, count, min, max, sum, avg, .. } = std::mem::take(self);
        // It grew by doubling, and lives on until it is sent.
        bins.shrink_to_fit();
        (count > 0).then(|| Sketch { bins, count: u64::from(count), min, max, sum, avg })
    }
}

/// A count in bins of 16 bits, the remainder first.
fn cut(key: i16, n: u32) -> impl Iterator<Item = Bin> {
    let (rest, full) = ((n % FULL) as u16, n / FULL);
    let rest = (rest > 0).then_some(Bin { key, n: rest });
    rest.into_iter().chain((0..full).map(move |_| Bin { key, n: u16::MAX }))
}

#[cfg(test)]
#[expect(clippy::approx_constant, reason = "3.14159 is the value of the published vectors, not pi")]
mod tests {
    use super::*;

    fn fill(values: impl IntoIterator<Item = f64>) -> Sketch {
        let mut filling = Filling::default();
        for value in values {
            assert_eq!(filling.add(value, 1.0), Ok(()));
        }
        filling.take().expect("it has samples")
    }

    fn pairs(sketch: &Sketch) -> Vec<(i16, u16)> {
        sketch.bins.iter().map(|bin| (bin.key, bin.n)).collect()
    }

    fn lower_bound(key: i16) -> f64 {
        ((f64::from(key) - BIAS) * LN_GAMMA).exp()
    }

    #[test]
    fn keys_are_the_agents() {
        for (value, expected) in [
            (0.0, 0),
            (1e-10, 0),
            (9.9e-10, 0),
            (1e-9, 1),
            (1e-6, 447),
            (1e-3, 892),
            (0.5, 1293),
            (1.0, 1338),
            (1.015625, 1339),
            (2.0, 1383),
            (3.14159, 1412),
            (10.0, 1487),
            (20.0, 1531),
            (100.0, 1635),
            (1e3, 1784),
            (1e4, 1932),
            (1e5, 2081),
            (1e6, 2229),
            (1e9, 2675),
            (1_048_576.0, 2232),
            (1_073_741_824.0, 2679),
            (1_099_511_627_776.0, 3126),
            (-1.0, -1338),
            (-10.0, -1487),
            (f64::MAX, 32767),
            (f64::MIN, -32767),
            (SMALLEST, 1),
        ] {
            assert_eq!(key(value), expected, "{value}");
        }
    }

    #[test]
    fn the_lower_bound_of_every_key_has_that_key() {
        // The bound of key 1 is the smallest normal value itself, of which Go's Pow and our exp differ in the last digits.
        assert_eq!(key(SMALLEST), 1);
        for k in 2..=32766 {
            let bound = lower_bound(k);
            assert_eq!(key(bound), k);
        }
    }

    #[test]
    fn vector_a_mixed_values() {
        let sketch = fill([-10.0, -1.0, 0.0, 1e-9, 1.0, 1.0, 2.0, 3.14159, 10.0, 10.0, 20.0, 100.0, 1e3, 1e6]);
        let expected = [-1487, -1338, 0, 1, 1338, 1383, 1412, 1487, 1531, 1635, 1784, 2229];
        let counts = [1, 1, 1, 1, 2, 1, 1, 2, 1, 1, 1, 1];
        assert_eq!(pairs(&sketch), expected.into_iter().zip(counts).collect::<Vec<_>>());
        assert_eq!((sketch.count, sketch.min, sketch.max), (14, -10.0, 1e6));
        assert_eq!((sketch.sum, sketch.avg), (1_001_136.141_590_001, 71_509.724_399_285_78));
    }

    #[test]
    fn vector_b_a_count_past_16_bits_is_cut_remainder_first() {
        let sketch = fill(std::iter::repeat_n(5.0, 200_000));
        assert_eq!(pairs(&sketch), [(1442, 3395), (1442, 65535), (1442, 65535), (1442, 65535)]);
    }

    #[test]
    fn vector_c_the_lowest_keys_pile_up_past_4096_bins() {
        let sketch = fill((1..=5000).map(lower_bound));
        assert_eq!(sketch.bins.len(), 4096);
        assert_eq!(sketch.bins[0], Bin { key: 905, n: 905 });
        let rest: Vec<(i16, u16)> = (906..=5000).map(|key| (key, 1)).collect();
        assert_eq!(pairs(&sketch)[1..], rest);
    }

    #[test]
    fn a_rate_weighs_whole_in_bins_and_exactly_in_the_sum() {
        let mut filling = Filling::default();
        assert_eq!(filling.add(10.0, 0.3), Ok(()));
        let sketch = filling.take().unwrap();
        assert_eq!((pairs(&sketch), sketch.count), (vec![(1487, 3)], 3));
        assert_eq!((sketch.sum, sketch.avg), (10.0 * (1.0 / 0.3), 10.0));
    }

    #[test]
    fn what_would_not_stay_finite_is_refused() {
        let mut filling = Filling::default();
        assert_eq!(filling.add(f64::MAX, 1.0), Ok(()));
        assert_eq!(filling.add(f64::MAX, 1.0), Err(Reason::Nan));
        assert_eq!(filling.add(f64::MIN, 1.0), Err(Reason::Nan));
        assert_eq!(filling.take().map(|sketch| sketch.count), Some(1));
        assert_eq!(filling.take(), None);
        while filling.add(1.0, 1e-8).is_ok() {}
        assert_eq!(filling.add(1.0, 1e-8), Err(Reason::Rate));
        let sketch = filling.take().expect("it has samples");
        assert_eq!(sketch.bins.iter().map(|bin| u64::from(bin.n)).sum::<u64>(), sketch.count);
    }
}
