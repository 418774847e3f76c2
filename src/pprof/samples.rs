//! Samples: which stack, and its values, packed as on the wire. Most values of a profile are small numbers, so a sample of four
//! takes about ten bytes and not forty.

use super::read::{Budget, ReadError};

/// Samples in the order of the profile. Each has the same number of values.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples {
    /// Node of each.
    stacks: Vec<u32>,
    values: Vec<u8>,
    width: usize,
}

impl Samples {
    /// `values` are varints, as many as in every other sample.
    pub fn push(&mut self, stack: u32, values: &[u8], budget: &mut Budget) -> Result<(), ReadError> {
        let width = values.iter().filter(|byte| **byte < 0x80).count();
        if self.stacks.is_empty() {
            self.width = width;
        }
        if width != self.width {
            return Err(ReadError::Malformed("a sample has another number of values than the profile has types"));
        }
        budget.charge(4 + values.len())?;
        self.values.extend_from_slice(values);
        self.stacks.push(stack);
        Ok(())
    }

    /// How many values each has, where there is any.
    pub fn width(&self) -> Option<usize> {
        (!self.stacks.is_empty()).then_some(self.width)
    }

    pub fn each(&self, mut visit: impl FnMut(u32, &[i64])) {
        let (mut values, mut rest) = (vec![0; self.width], self.values.iter());
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
            samples.push(stack, &bytes, &mut budget).expect("room");
        }
        let mut seen = Vec::new();
        samples.each(|stack, values| seen.push((stack, values.to_vec())));
        assert_eq!(seen, (0..).zip(all.map(|it| it.to_vec())).collect::<Vec<_>>());
        assert!(samples.push(0, &[1, 2], &mut budget).is_err());
    }
}
