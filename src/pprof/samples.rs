//! Samples: which stack, and its values, packed as on the wire. Most values of a profile are small numbers, so a sample of four
//! takes about ten bytes and not forty. Sums are of all samples that were seen, kept or not.

use super::read::{Budget, ReadError};

/// Samples in the order of the profile. Each has the same number of values.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples {
    /// Node of each.
    stacks: Vec<u32>,
    values: Vec<u8>,
    /// Of each value over all samples; `None` before the first.
    sums: Option<Vec<i64>>,
    /// Values of the sample that was seen last.
    latest: Vec<i64>,
    /// Whether any value of any sample was not zero.
    hold_anything: bool,
}

impl Samples {
    /// Sees a sample and returns its values. `values` are varints, as many as in every other sample.
    pub fn see(&mut self, values: &[u8]) -> Result<&[i64], ReadError> {
        let width = values.iter().filter(|byte| **byte < 0x80).count();
        let sums = self.sums.get_or_insert_with(|| vec![0; width]);
        if width != sums.len() {
            return Err(ReadError::Malformed("a sample has another number of values than the profile has types"));
        }
        let mut rest = values.iter();
        self.latest.clear();
        self.latest.extend(std::iter::repeat_with(|| take(&mut rest)).take(width));
        sums.iter_mut().zip(&self.latest).for_each(|(sum, value)| *sum = sum.saturating_add(*value));
        self.hold_anything |= self.latest.iter().any(|value| *value != 0);
        Ok(&self.latest)
    }

    pub fn hold_anything(&self) -> bool {
        self.hold_anything
    }

    /// Keeps a sample that was seen.
    pub fn keep(&mut self, stack: u32, values: &[u8], budget: &mut Budget) -> Result<(), ReadError> {
        budget.charge(4 + values.len())?;
        self.values.extend_from_slice(values);
        self.stacks.push(stack);
        Ok(())
    }

    /// How many values each has, where there is any.
    pub fn width(&self) -> Option<usize> {
        self.sums.as_ref().map(Vec::len)
    }

    /// One value of all samples together.
    pub fn total(&self, index: usize) -> i64 {
        self.sums.as_ref().and_then(|sums| sums.get(index)).copied().unwrap_or(0)
    }

    /// Visits those that are kept.
    pub fn each(&self, mut visit: impl FnMut(u32, &[i64])) {
        let (mut values, mut rest) = (vec![0; self.width().unwrap_or(0)], self.values.iter());
        for stack in &self.stacks {
            values.fill_with(|| take(&mut rest));
            visit(*stack, &values);
        }
    }
}

fn take<'a>(bytes: &mut impl Iterator<Item = &'a u8>) -> i64 {
    let (mut value, mut shift) = (0_u64, 0);
    for byte in bytes {
        value |= u64::from(byte & 0x7f).wrapping_shl(shift);
        shift += 7;
        if *byte < 0x80 {
            break;
        }
    }
    value.cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_as_they_went_in() {
        let all = [[0, 1, -1], [i64::MAX, i64::MIN, 63], [-64, 64, 524_288], [127, -128, 1 << 62]];
        let (mut samples, mut budget) = (Samples::default(), Budget::new(1_000));
        for (stack, values) in (0..).zip(all) {
            let mut bytes = Vec::new();
            values.iter().for_each(|value| prost::encoding::encode_varint(value.cast_unsigned(), &mut bytes));
            samples.see(&bytes).expect("four values");
            samples.keep(stack, &bytes, &mut budget).expect("room");
        }
        let mut seen = Vec::new();
        samples.each(|stack, values| seen.push((stack, values.to_vec())));
        assert_eq!(seen, (0..).zip(all.map(|it| it.to_vec())).collect::<Vec<_>>());
        assert_eq!((samples.total(1), samples.total(2), samples.total(4)), (i64::MIN, (1 << 62) + 524_350, 0));
        assert!(samples.see(&[1, 2]).is_err());
    }
}
