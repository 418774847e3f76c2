//! One time scale of one signal: a ring of buckets, each with its floor and its ceiling, and whether they rise as a leak does.
//!
//! Knows numbers only; what a rise means is decided by the rules. Buckets go by time and not by readings, so 1 s and 250 ms
//! readings give the same rings. A gap, or a bucket of a single reading, empties the ring: a trend across what was not seen is
//! a guess.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::statistics::{RING, median, median_of, theil_sen};

/// A scale speaks once it has this many buckets: four quarters of four.
pub(super) const ENOUGH: usize = 16;
/// From each quarter to the next, at least this share of the whole rise: just under half of an even third.
const EVEN: f64 = 0.15;
/// The rise is this many times what scatters around it.
const CLEAR: f64 = 4.0;
/// The second half rises at least this much as fast as the first: what slows down more ends by itself.
const NOT_SLOWING: f64 = 0.8;

/// From each quarter to the next the step of such growth grows by a factor in here: less is a line with scatter, more is a jump.
const FACTOR: std::ops::RangeInclusive<f64> = 1.3..=3.0;
/// The widest buckets on which a pace that grows is taken to grow on: retries and fan-outs feed themselves within minutes, but over
/// hours every morning of a day's load looks like that.
const FEEDBACK: Duration = Duration::from_secs(60);

/// A sustained, clean rise that does not slow down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Trend {
    /// In the signal's unit per second, never below what the floors or the ceilings do.
    pub per_second: f64,
    /// Over how long it was seen.
    pub span: f64,
    /// The rise of the floor over the span.
    pub rise: f64,
    /// Where the floor stands.
    pub floor: f64,
    /// Where the peaks stand. A collected heap dies at its peak, near twice its live heap: growth is found on the floor and
    /// projected on the ceiling.
    pub ceiling: f64,
    /// By what share the pace itself grows each second; zero unless growth feeds on itself.
    pub gain: f64,
    /// The slope of the later half over that of the earlier one.
    pub pace: f64,
}

impl Trend {
    /// Seconds until the peaks stand at `limit`, the pace growing on as it did.
    pub(super) fn seconds_until(&self, limit: f64) -> f64 {
        let room = (limit - self.ceiling).max(0.0);
        if self.gain <= 0.0 {
            return room / self.per_second;
        }
        (1.0 + self.gain * room / self.per_second).ln() / self.gain
    }
}

/// Ring, open bucket, and the highest floor that ever came back down.
#[derive(Clone, Debug)]
pub(super) struct Scale {
    width: Duration,
    /// What counts as coming back down, in the signal's unit.
    drop: f64,
    /// The first reading. Buckets are counted from here, so that what is said does not hang on when the watching began.
    origin: Option<Duration>,
    open: Option<Open>,
    floors: [f64; RING],
    ceilings: [f64; RING],
    len: usize,
    top: f64,
    recovered: f64,
    /// The deepest fall below `recovered`.
    depth: f64,
}

/// The memory of a scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hills {
    pub top: f64,
    pub recovered: f64,
    pub depth: f64,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    index: u128,
    floor: f64,
    ceiling: f64,
    readings: u32,
}

impl Scale {
    pub(super) fn new(width: Duration, drop: f64) -> Scale {
        Scale {
            width,
            drop,
            origin: None,
            open: None,
            floors: [0.0; RING],
            ceilings: [0.0; RING],
            len: 0,
            top: 0.0,
            recovered: 0.0,
            depth: 0.0,
        }
    }

    /// What came back down, for another scale of this width to know.
    pub(super) fn hills(&self) -> Hills {
        Hills { top: self.top, recovered: self.recovered, depth: self.depth }
    }

    pub(super) fn remember(&mut self, hills: Hills) {
        (self.top, self.recovered, self.depth) = (hills.top, hills.recovered, hills.depth);
    }

    pub(super) fn width(&self) -> Duration {
        self.width
    }

    /// The highest floor that later fell back, or zero. Growth below it is the same hill climbed again: a day's load, a slow
    /// sawtooth.
    pub(super) fn recovered(&self) -> f64 {
        self.recovered
    }

    /// How far memory fell from [`recovered`](Self::recovered) at the deepest: how high the hills are that come and go here.
    pub(super) fn depth(&self) -> f64 {
        self.depth
    }

    /// The floor of the last closed bucket.
    pub(super) fn last_floor(&self) -> Option<f64> {
        self.len.checked_sub(1).map(|last| self.floors[last])
    }

    /// The closed floors, oldest first.
    pub(super) fn floors(&self) -> &[f64] {
        &self.floors[..self.len]
    }

    /// Takes a value and says whether a bucket closed by it.
    pub(super) fn push(&mut self, at: Duration, value: f64) -> bool {
        let origin = *self.origin.get_or_insert(at);
        let index = at.saturating_sub(origin).as_millis() / self.width.as_millis().max(1);
        match &mut self.open {
            Some(open) if open.index == index => {
                open.floor = open.floor.min(value);
                open.ceiling = open.ceiling.max(value);
                open.readings += 1;
                false
            }
            open => {
                let before = open.replace(Open { index, floor: value, ceiling: value, readings: 1 });
                before.is_some_and(|before| self.close(before, index))
            }
        }
    }

    fn close(&mut self, bucket: Open, next: u128) -> bool {
        if next != bucket.index + 1 || bucket.readings < 2 {
            self.len = 0;
            return false;
        }
        if self.len == RING {
            self.floors.copy_within(1.., 0);
            self.ceilings.copy_within(1.., 0);
            self.len -= 1;
        }
        self.floors[self.len] = bucket.floor;
        self.ceilings[self.len] = bucket.ceiling;
        self.len += 1;
        if bucket.floor > self.top {
            self.top = bucket.floor;
        } else if self.top - bucket.floor >= self.drop {
            self.recovered = self.recovered.max(self.top);
            self.top = bucket.floor;
        }
        self.depth = self.depth.max(self.recovered - bucket.floor);
        true
    }

    /// The rise of the ring, if it is one: at least `least` over the span, spread over all quarters (a step, a spike, a sawtooth's
    /// drop is not), four times what scatters around it, and not slowing down (a warm-up and a cache that fills do).
    pub(super) fn trend(&self, least: f64) -> Option<Trend> {
        let (floors, n) = (self.floors(), self.len);
        if n < ENOUGH {
            return None;
        }
        let feeds = n == RING && self.width <= FEEDBACK && feeds_on_itself(floors);
        if !feeds && !every_quarter_rises(floors, least) {
            return None;
        }
        let slope = theil_sen(floors);
        let rise = slope * (n - 1) as f64;
        if rise < least || (!feeds && rise < CLEAR * scatter(floors, |i| slope * i as f64)) {
            return None;
        }
        let (first, second) = (theil_sen(&floors[..n / 2]), theil_sen(&floors[n / 2..]));
        if second < NOT_SLOWING * first {
            return None;
        }
        // A pace that doubled: the recent half is the better forecast.
        let slope = if first > 0.0 && second > 2.0 * first { slope.max(second) } else { slope };
        let gain = if feeds && second > first && first > 0.0 { (second / first).ln() / (n / 2) as f64 } else { 0.0 };
        // The second half's pace is that of its middle, a quarter of the ring ago.
        let slope = if gain > 0.0 { second * (gain * (n / 4) as f64).exp() } else { slope };
        let floor = median_of(&floors[n - 3..]);
        let ceilings = &self.ceilings[..n];
        let per_bucket = slope.max(theil_sen(ceilings));
        let width = self.width.as_secs_f64();
        Some(Trend {
            per_second: per_bucket / width,
            span: n as f64 * width,
            rise,
            floor,
            ceiling: if gain > 0.0 { ceilings[n - 1] } else { floor.max(recent_peaks(ceilings)) },
            gain: gain / width,
            pace: if first > 0.0 { second / first } else { f64::INFINITY },
        })
    }
}

/// Each quarter's median stands above the one before by its share of the whole rise.
fn every_quarter_rises(floors: &[f64], least: f64) -> bool {
    let medians = quarters(floors);
    let rise = medians[3] - medians[0];
    rise >= 0.6 * least && medians.windows(2).all(|pair| pair[1] - pair[0] >= EVEN * rise)
}

fn quarters(floors: &[f64]) -> [f64; 4] {
    let (quarter, n) = (floors.len() / 4, floors.len());
    [0, 1, 2, 3].map(|i| median_of(&floors[i * quarter..if i < 3 { (i + 1) * quarter } else { n }]))
}

/// The quarters' steps grow by a like factor, and even the first stands clear of what scatters around such a curve.
fn feeds_on_itself(floors: &[f64]) -> bool {
    let medians = quarters(floors);
    let steps: [f64; 3] = std::array::from_fn(|i| medians[i + 1] - medians[i]);
    if steps[0] <= 0.0 || !steps.windows(2).all(|pair| FACTOR.contains(&(pair[1] / pair[0]))) {
        return false;
    }
    let (quarter, factor) = ((floors.len() / 4) as f64, (steps[2] / steps[0]).sqrt());
    let curve = |i: usize| steps[0] * factor.powf((i as f64 - 0.5 * (quarter - 1.0)) / quarter) / (factor - 1.0);
    steps[0] >= 2.0 * scatter(floors, curve)
}

/// The standard deviation of the residuals, estimated by their median (1.4826 for a normal distribution).
fn scatter(floors: &[f64], curve: impl Fn(usize) -> f64) -> f64 {
    let mut residuals = [0.0; RING];
    let residuals = &mut residuals[..floors.len()];
    for (i, (residual, floor)) in residuals.iter_mut().zip(floors).enumerate() {
        *residual = floor - curve(i);
    }
    let middle = median_of(residuals);
    for residual in residuals.iter_mut() {
        *residual = (*residual - middle).abs();
    }
    1.4826 * median(residuals)
}

/// The median of the maxima of the last three groups of four: the usual peak, where one spike is not usual.
fn recent_peaks(ceilings: &[f64]) -> f64 {
    let mut peaks = [0.0; 3];
    for (peak, group) in peaks.iter_mut().zip(ceilings.rchunks(4)) {
        *peak = group.iter().copied().fold(f64::MIN, f64::max);
    }
    median(&mut peaks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trend_of(values: impl IntoIterator<Item = f64>) -> Option<Trend> {
        let mut scale = Scale::new(Duration::from_secs(3), 0.03);
        for (second, value) in values.into_iter().enumerate() {
            scale.push(Duration::from_secs(second as u64), value);
        }
        scale.trend(0.05)
    }

    #[test]
    fn a_line_is_a_trend_with_its_slope() {
        let trend = trend_of((0..97).map(|s| 0.1 + 0.002 * f64::from(s))).expect("a line rises");
        assert!((trend.per_second - 0.002).abs() < 1e-9, "{trend:?}");
        assert_eq!(trend.span, 96.0);
        assert!((trend.floor - 0.1 - 0.002 * 90.0).abs() < 1e-9 && trend.ceiling >= trend.floor, "{trend:?}");
    }

    #[test]
    fn a_step_a_sawtooth_and_a_warm_up_are_none() {
        let step = (0..97).map(|s| if s < 50 { 0.2 } else { 0.5 });
        assert_eq!(trend_of(step), None);
        let sawtooth = (0..97).map(|s| 0.2 + 0.4 * f64::from(s % 30) / 30.0);
        assert_eq!(trend_of(sawtooth), None);
        let warm_up = (0..97).map(|s| 0.5 * (1.0 - (-f64::from(s) / 45.0).exp()));
        assert_eq!(trend_of(warm_up), None);
    }

    #[test]
    fn acceleration_is_projected_with_the_recent_half() {
        let doubling = |s: f64| 0.02 * (s / 30.0).exp2();
        let trend = trend_of((0..97).map(|s| doubling(f64::from(s)))).expect("it rises ever faster");
        let over_all = (doubling(96.0) - doubling(0.0)) / 96.0;
        assert!(trend.per_second > 1.3 * over_all, "{trend:?} against {over_all}");
    }

    #[test]
    fn a_gap_and_a_lone_reading_empty_the_ring() {
        let mut scale = Scale::new(Duration::from_secs(3), 0.03);
        for second in 0..30 {
            scale.push(Duration::from_secs(second), 0.2);
        }
        assert_eq!(scale.floors().len(), 9);
        scale.push(Duration::from_secs(40), 0.2);
        assert_eq!(scale.floors().len(), 0);
        scale.push(Duration::from_secs(42), 0.2);
        assert_eq!(scale.floors().len(), 0, "the bucket before held one reading");
    }

    #[test]
    fn faster_readings_close_the_same_buckets() {
        let line = |at: f64| 0.1 + 0.002 * at;
        let (mut slow, mut fast) = (Scale::new(Duration::from_secs(3), 0.03), Scale::new(Duration::from_secs(3), 0.03));
        for quarter in 0..400 {
            let at = f64::from(quarter) / 4.0;
            fast.push(Duration::from_secs_f64(at), line(at));
            if quarter % 4 == 0 {
                slow.push(Duration::from_secs_f64(at), line(at));
            }
        }
        assert_eq!(slow.floors(), fast.floors());
    }

    #[test]
    fn the_ring_never_holds_more_than_its_size() {
        let mut scale = Scale::new(Duration::from_secs(1), 0.03);
        for half in 0..1_000_u32 {
            scale.push(Duration::from_millis(u64::from(half) * 500), f64::from(half));
        }
        assert_eq!(scale.floors().len(), RING);
        assert_eq!(scale.last_floor(), Some(996.0));
    }
}
