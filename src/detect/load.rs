//! Memory beside the load: whether a rise of the floor is what more work explains.
//!
//! The load is the app's own StatsD samples a second, without what its clients say of themselves: a client for each job that is
//! never closed multiplies that telemetry, and a leak must not excuse itself. What asks for a person is more memory at the same
//! load; the same memory for each unit of load, and more load, is a busier day.

use super::beside::Beside;
use super::statistics::{RING, both_ends, pairs_of, slope_by, theil_sen};

/// Loads that differ by less than this share of the highest are the same load.
const SAME: f64 = 0.02;
/// What is left of the rise once the load's part is taken away.
const LEFT_OVER: f64 = 0.25;
/// Memory may grow as fast as the load does and no faster: with twice the load goes at most twice the memory, and a little scatter.
const IN_PROPORTION: f64 = 1.05;

/// The load at both ends of a rise that it explains.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Explained {
    pub from: f64,
    pub to: f64,
}

/// Regresses the floors on the load of the same buckets. `None` unless the load was known all along and explains the rise.
pub(super) fn explain(floors: &[f64], loads: &Beside) -> Option<Explained> {
    let means = loads.means(floors)?;
    let loads = &means[..floors.len()];
    let highest = loads.iter().copied().fold(0.0, f64::max);
    let (per_load, pairs) = slope_by(floors, loads, SAME * highest);
    if per_load <= 0.0 || 2 * pairs < pairs_of(floors.len()) {
        return None;
    }
    let mut rest = [0.0; RING];
    for ((rest, floor), load) in rest.iter_mut().zip(floors).zip(loads) {
        *rest = floor - per_load * load;
    }
    let (from, to) = both_ends(loads);
    let in_proportion = per_load * to <= IN_PROPORTION * both_ends(floors).1;
    let grew_all_the_same = theil_sen(&rest[..floors.len()]) > LEFT_OVER * theil_sen(floors);
    (in_proportion && !grew_all_the_same).then_some(Explained { from, to })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn beside(loads: &[f64]) -> Beside {
        let mut ring = Beside::default();
        for (i, load) in loads.iter().enumerate() {
            ring.push(Some(*load));
            ring.close(i + 1);
        }
        ring
    }

    fn explained(floors: impl Fn(f64) -> f64, load: impl Fn(f64) -> f64) -> Option<Explained> {
        let times = || (0..RING).map(|i| i as f64);
        explain(&times().map(&floors).collect::<Vec<_>>(), &beside(&times().map(&load).collect::<Vec<_>>()))
    }

    fn wave(t: f64) -> f64 {
        (t * 12.9898).sin()
    }

    #[test]
    fn memory_that_goes_with_the_load_is_explained() {
        let load = |t: f64| 100.0 + 6.0 * t;
        let found = explained(|t| 0.1 + 0.001 * load(t), load).expect("explained");
        assert!((found.from - 121.0).abs() < 4.0 && (found.to - 265.0).abs() < 4.0, "{found:?}");
        let unsteady = |t: f64| 100.0 + 6.0 * t + 20.0 * wave(t);
        assert!(explained(|t| 0.1 + 0.001 * unsteady(t), unsteady).is_some());
    }

    #[test]
    fn the_same_load_and_more_memory_is_not() {
        let leak = |t: f64| 0.2 + 0.01 * t;
        assert_eq!(explained(leak, |_| 100.0), None);
        assert_eq!(explained(leak, |t| 100.0 + 0.5 * wave(t)), None, "a load that does not change");
        assert_eq!(explained(leak, |t| 100.0 + 30.0 * wave(t)), None, "a load that comes and goes");
        assert_eq!(explained(leak, |t| 300.0 - 5.0 * t), None, "a load that falls");
        assert_eq!(
            explained(|t| 0.2 + 0.01 * t, |t| 1_000.0 + 2.0 * t),
            None,
            "much more memory for a little more load"
        );
    }

    #[test]
    fn a_load_that_was_not_known_all_along_explains_nothing() {
        let floors: Vec<f64> = (0..RING).map(|i| 0.1 + 0.01 * i as f64).collect();
        let mut loads: Vec<f64> = floors.iter().map(|floor| 1_000.0 * floor).collect();
        assert!(explain(&floors, &beside(&loads)).is_some());
        loads[5] = f64::NAN;
        assert_eq!(explain(&floors, &beside(&loads)), None);
        assert_eq!(explain(&floors, &Beside::default()), None);
    }

    proptest! {
        #[test]
        fn no_leak_hides_behind_a_load_that_only_scatters(
            pace in 0.002..0.03_f64, scatter in 0.0..0.6_f64, load in 1.0..1e6_f64, seed in 0.0..100.0_f64
        ) {
            let load = |t: f64| load * (1.0 + scatter * wave(t + seed));
            prop_assert_eq!(explained(|t| 0.05 + pace * t, load), None);
        }

        #[test]
        fn a_load_that_explains_all_of_it_does_so_at_any_scale(
            base in 0.02..0.3_f64, rise in 0.1..0.5_f64, unit in 1e-3..1e6_f64, scatter in 0.0..0.1_f64
        ) {
            let load = |t: f64| unit * (1.0 + 2.0 * t / RING as f64 + scatter * wave(t));
            prop_assert!(explained(|t| base + rise * load(t) / unit / 3.0, load).is_some());
        }
    }
}
