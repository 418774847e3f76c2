//! Memory that reaches its limit within seconds, and memory that stands right under it: the rules that never wait.
//!
//! Both look at single readings of the share of the limit in use. What tells a burst from a start-up that loads its data is a
//! quiet time before it: a process that has stood still once and then runs away is not starting up.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::recent::{Climb, Recent};
use super::settings::Settings;
use super::standing::Edge;

/// Standing still: 8 s within 2 % of the limit.
const QUIET_SECONDS: f64 = 8.0;
const QUIET_BAND: f64 = 0.02;
/// A young process that stood still must have filled half, one that never did nine tenths, before a burst is told; or four fifths
/// if the end is so near that waiting for more would leave no time to pull a profile and send it.
const YOUNG_SHARE: f64 = 0.5;
const NEVER_QUIET_SHARE: f64 = 0.9;
const LAST_CALL_SHARE: f64 = 0.8;
const LAST_CALL_SECONDS: f64 = 6.0;
/// A program that loads its data up to a soft memory limit does so in its first seconds: Go filled 0.85 of its limit in four.
const LAST_CALL_AGE: Duration = Duration::from_secs(10);
/// A sprint: at four readings a second, each higher than the one before for more than a second, and this many seconds left. Three
/// seconds of proof, as a burst has, would be most of what is left; within a second a program fills a large buffer.
const SPRINT_STEPS: usize = 4;
const SPRINT_SECONDS: f64 = 1.1;
const SPRINT_LEFT: f64 = 5.0;
/// Less of a rise within two seconds is no reason to look more often.
const HURRY_RISE: f64 = 0.02;
/// One step that brings more than half of the rise is a big allocation, not a burst.
const LARGEST_STEP: f64 = 0.5;
/// A fall by this share is the end of a peak that the process survived.
const SURVIVED: f64 = 0.06;
/// New ground is this much above what was survived.
const NEW_GROUND: f64 = 0.02;

/// Rises so steep that the limit is seconds away.
#[derive(Clone, Debug)]
pub(super) struct Burst {
    /// The last two seconds.
    dash: Recent,
    edge: Edge,
    quiet: bool,
    peak: f64,
    top: f64,
}

impl Default for Burst {
    fn default() -> Burst {
        Burst { dash: Recent::two_seconds(), edge: Edge::default(), quiet: false, peak: 0.0, top: 0.0 }
    }
}

impl Burst {
    /// The climb, once for each burst. `recent` holds `share` as its tip already.
    pub(super) fn step(
        &mut self,
        at: Duration,
        age: Duration,
        recent: &Recent,
        share: f64,
        it: &Settings,
    ) -> Option<Climb> {
        self.dash.push(at, share);
        self.quiet |= recent.seconds() >= QUIET_SECONDS && recent.band() <= QUIET_BAND;
        self.top = self.top.max(share);
        if self.top - share >= SURVIVED {
            self.peak = self.peak.max(self.top);
            self.top = share;
        }
        // A run in which every reading is higher is a burst by itself: what a collector did in the seconds before is no part of it.
        let runs = [recent.climb(), recent.sprint()].into_iter().flatten();
        let burst = runs.into_iter().find(|climb| is_burst(recent, share, climb, it));
        let climb = burst.or_else(|| self.dash.sprint().filter(|climb| is_sprint(share, climb, it)));
        let climb = climb.filter(|climb| {
            share > self.peak + NEW_GROUND && share >= self.least_share(age, seconds_left(share, climb), it)
        });
        let fires = self.edge.step(at, Duration::ZERO, climb.is_some());
        climb.filter(|_| fires)
    }

    /// Whether it has stood still once, and how high the peaks were that it survived.
    pub(super) fn past(&self) -> (bool, f64) {
        (self.quiet, self.peak)
    }

    pub(super) fn remember(&mut self, (quiet, peak): (bool, f64)) {
        (self.quiet, self.peak) = (quiet, peak);
    }

    /// The process has stood still once.
    pub(super) fn was_quiet(&self) -> bool {
        self.quiet
    }

    /// So steep a rise within the last two seconds that the next reading should not be a second away.
    pub(super) fn hurries(&self, it: &Settings) -> bool {
        let [first, .., last] = self.dash.points() else { return false };
        let rise = last.value - first.value;
        let seconds = (last.at - first.at).as_secs_f64();
        rise >= HURRY_RISE && (1.0 - last.value) * seconds <= it.burst_horizon.as_secs_f64() * rise
    }

    fn least_share(&self, age: Duration, left: f64, it: &Settings) -> f64 {
        match (age < it.startup_grace, self.quiet) {
            (false, _) => 0.0,
            (true, true) => YOUNG_SHARE,
            (true, false) if left <= LAST_CALL_SECONDS && age >= LAST_CALL_AGE => LAST_CALL_SHARE,
            (true, false) => NEVER_QUIET_SHARE,
        }
    }
}

fn is_burst(recent: &Recent, share: f64, climb: &Climb, it: &Settings) -> bool {
    recent.points().len() >= 4
        && climb.rise >= it.burst_rise
        && climb.seconds >= 3.0
        && climb.share_up >= 0.8
        && climb.largest <= LARGEST_STEP
        && seconds_left(share, climb) <= it.burst_horizon.as_secs_f64()
}

fn is_sprint(share: f64, climb: &Climb, it: &Settings) -> bool {
    climb.rise >= it.burst_rise
        && climb.seconds >= SPRINT_SECONDS
        && climb.ups >= SPRINT_STEPS
        && climb.largest <= LARGEST_STEP
        && seconds_left(share, climb) <= SPRINT_LEFT
}

fn seconds_left(share: f64, climb: &Climb) -> f64 {
    (1.0 - share).max(0.0) / climb.per_second()
}

/// What standing under the limit means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Near {
    /// Memory grew its way here.
    Grown,
    /// It has been about here since it started: a heap of fixed size.
    Sits,
}

/// Tells once when memory stands above the bar. A process that comes back alive from a peak raises its own bar a quarter of the
/// way to the limit: what it survived before, it may survive again.
#[derive(Clone, Debug)]
pub(super) struct NearLimit {
    edge: Edge,
    bar: Bar,
}

/// What is remembered of standing high.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bar {
    pub bar: f64,
    pub peak: f64,
    /// Lowest floor of the 300 s scale after the first ten minutes, which are start-up whatever the grace is set to.
    pub low: Option<f64>,
    /// Where memory stood when it was told that it sits there: half of the remaining way further, and it does not.
    pub sat: Option<f64>,
}

impl NearLimit {
    pub(super) fn new(bar: f64) -> NearLimit {
        NearLimit { edge: Edge::default(), bar: Bar { bar, peak: 0.0, low: None, sat: None } }
    }

    pub(super) fn bar(&self) -> Bar {
        self.bar
    }

    pub(super) fn remember(&mut self, bar: Bar) {
        self.bar = bar;
    }

    /// Takes the floor of a closed 300 s bucket.
    pub(super) fn settle(&mut self, age: Duration, floor: f64) {
        if age > Duration::from_secs(600) {
            let low = &mut self.bar.low;
            *low = Some(low.map_or(floor, |low| low.min(floor)));
        }
    }

    pub(super) fn step(&mut self, at: Duration, share: f64, recent: &Recent) -> Option<Near> {
        let it = &mut self.bar;
        if share > it.peak {
            it.peak = share;
        } else if it.peak - share >= 0.02 {
            if it.peak >= it.bar {
                it.bar = it.peak + 0.25 * (1.0 - it.peak);
            }
            it.peak = share;
        }
        if it.sat.is_some_and(|sat| share >= sat + 0.5 * (1.0 - sat)) {
            it.sat = None;
            return Some(Near::Grown);
        }
        if !self.edge.step(at, Duration::from_secs(15), share >= it.bar) {
            return None;
        }
        let grown = match it.low {
            Some(low) => share - low >= 0.1,
            None => recent.climb().is_some_and(|climb| climb.rise >= 0.01),
        };
        it.sat = (!grown).then_some(share);
        Some(if grown { Near::Grown } else { Near::Sits })
    }
}
