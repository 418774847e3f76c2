//! Counts beside the heap: what piled up one for each leaked unit, and what did not grow at all. Both say what kind of leak it is,
//! and neither is in a profile.

/// Fewer more than this are the come and go of work.
const FEW: i64 = 5;

/// At one moment, or the difference of two; `None` where nobody could read it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub fds: Option<i64>,
    pub threads: Option<i64>,
    pub statsd_clients: Option<i64>,
}

impl Counts {
    /// What there is more than in `earlier`.
    #[must_use]
    pub fn since(self, earlier: Counts) -> Counts {
        let more = |now: Option<i64>, then: Option<i64>| Some(now?.saturating_sub(then?));
        Counts {
            fds: more(self.fds, earlier.fds),
            threads: more(self.threads, earlier.threads),
            statsd_clients: more(self.statsd_clients, earlier.statsd_clients),
        }
    }

    /// Those that are known, by the names that people have for them.
    fn known(self) -> impl Iterator<Item = (i64, &'static str)> {
        let all = [(self.statsd_clients, "StatsD clients"), (self.fds, "file descriptors"), (self.threads, "threads")];
        all.into_iter().filter_map(|(count, name)| Some((count?, name)))
    }

    /// (kind, words): which grew in step with so many units, which beside them, and which did not.
    pub(super) fn words(self, units: Option<i64>) -> Vec<(&'static str, String)> {
        let (mut step, mut grew, mut flat) = (Vec::new(), Vec::new(), Vec::new());
        for (count, name) in self.known() {
            match units {
                Some(units) if in_step(count, units) => step.push(format!("{count} {name} more, one for each")),
                _ if is_flat(count, units) => flat.push(format!("{name} ({count:+})")),
                _ => grew.push(format!("{name} {count:+}")),
            }
        }
        let all = [("in_step", step), ("grew_beside", grew), ("did_not_grow", flat)];
        all.into_iter().filter(|it| !it.1.is_empty()).map(|(kind, words)| (kind, words.join(", "))).collect()
    }

    /// Nothing that holds a descriptor can have piled up with so many units.
    pub(super) fn rules_out_handles(self, units: Option<i64>) -> bool {
        self.fds.is_some_and(|fds| is_flat(fds, units))
    }

    /// As many StatsD clients more as there are units, or, where units are not known, some.
    pub(super) fn clients(self, units: Option<i64>) -> Option<i64> {
        self.statsd_clients.filter(|count| *count >= FEW && units.is_none_or(|units| in_step(*count, units)))
    }
}

/// As many, within a tenth. Two off is still equal: one may be half made when we look.
pub(super) fn in_step(count: i64, units: i64) -> bool {
    units >= FEW && count >= FEW && count.abs_diff(units) <= (units.unsigned_abs() / 10).max(2)
}

fn is_flat(count: i64, units: Option<i64>) -> bool {
    count < FEW.max(units.unwrap_or(0) / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grew_in_step_beside_and_not_at_all_is_told_apart() {
        let counts = Counts { fds: Some(331), threads: Some(1), statsd_clients: Some(312) };
        let words = |units| counts.words(units).into_iter().map(|it| format!("{}: {}", it.0, it.1)).collect::<Vec<_>>();
        assert_eq!(
            words(Some(312)),
            [
                "in_step: 312 StatsD clients more, one for each, 331 file descriptors more, one for each",
                "did_not_grow: threads (+1)"
            ]
        );
        assert_eq!(
            words(None),
            ["grew_beside: StatsD clients +312, file descriptors +331", "did_not_grow: threads (+1)"]
        );
        assert_eq!(words(Some(5_000)), ["did_not_grow: StatsD clients (+312), file descriptors (+331), threads (+1)"]);
        assert!(Counts::default().words(Some(9)).is_empty());
    }

    #[test]
    fn a_tenth_is_in_step_and_more_is_not() {
        assert!(in_step(312, 300) && in_step(90, 100) && in_step(110, 100) && in_step(8, 6));
        assert!(!in_step(89, 100) && !in_step(111, 100) && !in_step(4, 4) && !in_step(-100, 100));
    }

    #[test]
    fn what_one_of_two_moments_lacks_has_no_difference() {
        let then = Counts { fds: Some(10), threads: None, statsd_clients: Some(4) };
        let now = Counts { fds: Some(7), threads: Some(5), statsd_clients: None };
        assert_eq!(now.since(then), Counts { fds: Some(-3), ..Counts::default() });
    }
}
