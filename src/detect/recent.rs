//! The last seconds of a signal, for the rules that cannot wait for buckets: 20 s of them, or 2 s where four readings a second come.
//!
//! Readings nearer than 0.9 s to the last kept one are looked at but not kept: at four readings a second a leak that steps once
//! a second would otherwise seem to stand still three times out of four, and the ring would need no bound. The 2 s keep what is
//! 0.2 s apart; only a rise of tens of MiB each time counts there.

use std::time::Duration;

/// 20 s at 0.9 s, and the tip.
const POINTS: usize = 24;

/// One kept reading.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Point {
    pub at: Duration,
    pub value: f64,
}

/// A rise from the lowest recent point to now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Climb {
    pub rise: f64,
    pub seconds: f64,
    /// Of the steps in between, how many went up, 0 to 1.
    pub share_up: f64,
    /// How many of them went up.
    pub ups: usize,
    /// The largest single step, as a share of the rise.
    pub largest: f64,
    /// The share of the rise that the second half of the time brought.
    pub late_share: f64,
}

impl Climb {
    pub(super) fn per_second(&self) -> f64 {
        if self.seconds > 0.0 { self.rise / self.seconds } else { 0.0 }
    }
}

/// Oldest first; the last one is the tip, which moves until it is old enough to be kept.
#[derive(Clone, Debug)]
pub(super) struct Recent {
    span: Duration,
    spacing: Duration,
    points: [Point; POINTS],
    len: usize,
}

impl Default for Recent {
    fn default() -> Recent {
        Recent::keeping(Duration::from_secs(20), Duration::from_millis(900))
    }
}

impl Recent {
    /// The last 2 s at four readings a second.
    pub(super) fn two_seconds() -> Recent {
        Recent::keeping(Duration::from_secs(2), Duration::from_millis(200))
    }

    fn keeping(span: Duration, spacing: Duration) -> Recent {
        Recent { span, spacing, points: [Point::default(); POINTS], len: 0 }
    }

    pub(super) fn push(&mut self, at: Duration, value: f64) {
        let tip_is_fresh =
            self.len >= 2 && self.points[self.len - 1].at.saturating_sub(self.points[self.len - 2].at) < self.spacing;
        if tip_is_fresh {
            self.len -= 1;
        }
        let old = self.points[..self.len].iter().take_while(|point| point.at + self.span < at).count();
        let old = old.max((self.len + 1).saturating_sub(POINTS));
        self.points.copy_within(old..self.len, 0);
        self.len -= old;
        self.points[self.len] = Point { at, value };
        self.len += 1;
    }

    pub(super) fn points(&self) -> &[Point] {
        &self.points[..self.len]
    }

    /// The seconds that the points span.
    pub(super) fn seconds(&self) -> f64 {
        match self.points() {
            [first, .., last] => (last.at - first.at).as_secs_f64(),
            _ => 0.0,
        }
    }

    /// Highest minus lowest.
    pub(super) fn band(&self) -> f64 {
        let values = || self.points().iter().map(|point| point.value);
        values().fold(f64::MIN, f64::max) - values().fold(f64::MAX, f64::min)
    }

    /// The climb from the latest of the lowest points, if there are at least two steps. What stands no more than a twentieth of the
    /// rise above the lowest is as low: else a page more or less in the quiet before would be part of the climb, as steps that
    /// do not rise.
    pub(super) fn climb(&self) -> Option<Climb> {
        let points = self.points();
        let lowest = points.iter().map(|point| point.value).fold(f64::MAX, f64::min);
        let low = lowest + 0.05 * (points.last()?.value - lowest);
        let from = points.iter().rposition(|point| point.value <= low)?;
        climb_over(&points[from..])
    }

    /// The climb over the readings before now of which each was higher than the one before.
    pub(super) fn sprint(&self) -> Option<Climb> {
        let points = self.points();
        let steps = points.windows(2).rev().take_while(|pair| pair[1].value > pair[0].value).count();
        climb_over(&points[points.len().checked_sub(steps + 1)?..])
    }
}

fn climb_over(run: &[Point]) -> Option<Climb> {
    let [first, _, .., last] = run else { return None };
    let ups = run.windows(2).filter(|pair| pair[1].value > pair[0].value).count();
    let rise = last.value - first.value;
    let largest = run.windows(2).map(|pair| pair[1].value - pair[0].value).fold(0.0, f64::max);
    Some(Climb {
        rise,
        seconds: (last.at - first.at).as_secs_f64(),
        share_up: ups as f64 / (run.len() - 1) as f64,
        ups,
        largest: if rise > 0.0 { largest / rise } else { 1.0 },
        late_share: if rise > 0.0 { (last.value - middle(run)) / rise } else { 0.0 },
    })
}

/// The value half way in time, between the points around it.
fn middle(run: &[Point]) -> f64 {
    let half = run[0].at + (run[run.len() - 1].at - run[0].at) / 2;
    let after = run.iter().position(|point| point.at >= half).unwrap_or(0).max(1);
    let (before, after) = (run[after - 1], run[after]);
    let width = (after.at - before.at).as_secs_f64();
    let share = if width > 0.0 { (half.saturating_sub(before.at)).as_secs_f64() / width } else { 1.0 };
    before.value + share * (after.value - before.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recent(step: Duration, values: impl IntoIterator<Item = f64>) -> Recent {
        let mut recent = Recent::default();
        for (i, value) in values.into_iter().enumerate() {
            recent.push(step * i as u32, value);
        }
        recent
    }

    #[test]
    fn only_twenty_seconds_are_kept_whatever_the_pace() {
        for step in [1, 50, 250, 900, 1_000, 5_000] {
            let recent = recent(Duration::from_millis(step), (0..2_000).map(f64::from));
            assert!(recent.points().len() <= POINTS);
            assert!(recent.seconds() <= 20.0 && recent.seconds() >= 1.0, "{step}: {}", recent.seconds());
            assert_eq!(recent.points().last().map(|point| point.value), Some(1_999.0), "the tip is the last reading");
        }
    }

    #[test]
    fn a_climb_starts_at_the_latest_of_the_lowest_points() {
        let flat_then_up = (0..10).map(|_| 5.0).chain((1..=10).map(|i| 5.0 + f64::from(i)));
        let climb = recent(Duration::from_secs(1), flat_then_up).climb().expect("it climbs");
        assert_eq!(climb, Climb { rise: 10.0, seconds: 10.0, share_up: 1.0, ups: 10, largest: 0.1, late_share: 0.5 });
    }

    #[test]
    fn a_page_more_in_the_quiet_before_is_no_part_of_a_climb() {
        let quiet = (0..10).map(|i| if i == 2 { 4.9 } else { 5.0 });
        let climb = recent(Duration::from_secs(1), quiet.chain((1..=8).map(|i| 5.0 + f64::from(i))));
        let climb = climb.climb().expect("it climbs");
        assert_eq!((climb.seconds, climb.share_up), (8.0, 1.0));
    }

    #[test]
    fn a_jump_brings_nothing_late() {
        let jump = (0..5).map(|_| 1.0).chain((0..10).map(|_| 21.0));
        let climb = recent(Duration::from_secs(1), jump).climb().expect("it went up");
        assert_eq!((climb.ups, climb.largest, climb.late_share), (1, 1.0, 0.0));
        assert_eq!(recent(Duration::from_secs(1), [3.0]).climb(), None);
    }
}
