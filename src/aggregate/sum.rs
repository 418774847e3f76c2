//! A sum that does not drift: Neumaier's compensated addition. A hundred thousand times 0.1 is 10,000, not 10,000.00000002.

/// A running sum within one rounding of the exact one. Whoever adds checks with [`Sum::plus`] that it stays finite.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sum {
    sum: f64,
    carry: f64,
}

impl Sum {
    /// The sum with `value` added, or `None` if no finite number would be left.
    pub(super) fn plus(self, value: f64) -> Option<Sum> {
        let sum = self.sum + value;
        let lost = if self.sum.abs() >= value.abs() { (self.sum - sum) + value } else { (value - sum) + self.sum };
        let next = Sum { sum, carry: self.carry + lost };
        next.value().is_finite().then_some(next)
    }

    pub(super) fn value(self) -> f64 {
        self.sum + self.carry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenths_add_up_and_an_overflow_is_refused() {
        let tenths = (0..100_000).try_fold(Sum::default(), |sum, _| sum.plus(0.1));
        assert_eq!(tenths.map(Sum::value), Some(10_000.0));
        let cancelled = [1e100, 1.0, -1e100].into_iter().try_fold(Sum::default(), Sum::plus);
        assert_eq!(cancelled.map(Sum::value), Some(1.0));
        assert_eq!(Sum::default().plus(f64::MAX).and_then(|sum| sum.plus(f64::MAX)), None);
        assert_eq!(Sum::default().plus(f64::NAN), None);
    }
}
