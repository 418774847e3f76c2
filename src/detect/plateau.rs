//! Known ground: what earlier lives of the same app needed, held for an hour, and did not die of.
//!
//! From outside a cache that fills, data that is loaded at the start, or a heap that grows to its fixed size look like a leak until
//! they end. The second time they are known. A leak teaches nothing: it does not stand still for an hour, and a life that the
//! kernel ended is not asked. Levels are kept in bytes, so that more memory for the same app does not move its ground.

use serde::{Deserialize, Serialize};

/// Floors of 300 s that make an hour.
const HOUR: usize = 12;
/// As a share of the limit: the floors of an hour that lie within it stood still. It is what counts as coming back down, too.
const STILL: f64 = 0.03;
/// Lives that are remembered of an app, the last ones.
const LIVES: usize = 4;
/// Apps that are remembered: the versions of one, or the pods that used a folder before.
const APPS: usize = 8;
/// No two lives are alike: of the way from the ground to the limit, so much is on known ground too. The same share by which a peak
/// that was survived lifts the bar near the limit.
const ALIKE: f64 = 0.25;

/// What the life that is watched has held so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Held {
    /// The last floors in bytes, oldest first; at most [`HOUR`].
    floors: Vec<f64>,
    best: Option<f64>,
}

impl Held {
    /// Takes the floor of a closed 300 s bucket.
    pub(super) fn settle(&mut self, floor: f64, limit: f64) {
        if self.floors.len() >= HOUR {
            self.floors.remove(0);
        }
        self.floors.push(floor);
        let low = self.floors.iter().copied().fold(f64::MAX, f64::min);
        let high = self.floors.iter().copied().fold(0.0, f64::max);
        if self.floors.len() == HOUR && high - low <= STILL * limit {
            self.best = Some(self.best.map_or(high, |best| best.max(high)));
        }
    }

    /// A gap: what lies before it and after it is no hour.
    pub(super) fn interrupt(&mut self) {
        self.floors.clear();
    }

    /// The highest level at which memory stood still for an hour, in bytes.
    pub(super) fn best(&self) -> Option<f64> {
        self.best
    }

    pub(super) fn is_sound(&self) -> bool {
        self.floors.len() <= HOUR
            && self.floors.iter().chain(&self.best).all(|bytes| bytes.is_finite() && *bytes >= 0.0)
    }
}

/// The ground under the life that is watched, as shares of its limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ground {
    /// What earlier lives held.
    pub held: f64,
    /// Up to where this one is on known ground.
    pub top: f64,
}

impl Ground {
    pub(super) fn under(held_bytes: f64, limit: f64) -> Ground {
        let held = held_bytes / limit;
        Ground { held, top: held + ALIKE * (1.0 - held).max(0.0) }
    }
}

/// The plateaus of apps, by name and version. Bounded in apps and in lives.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plateaus {
    /// The one that was taught last comes last.
    apps: Vec<App>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct App {
    name: String,
    /// What each life held, in bytes, the last life last.
    lives: Vec<f64>,
}

impl Plateaus {
    /// A life of this app ended well, having held so much.
    pub(super) fn learn(&mut self, name: &str, held: f64) {
        let known = self.apps.iter().position(|app| app.name == name).map(|at| self.apps.remove(at));
        let mut app = known.unwrap_or_else(|| App { name: name.to_owned(), lives: Vec::new() });
        app.lives.push(held);
        app.lives.drain(..app.lives.len().saturating_sub(LIVES));
        self.apps.push(app);
        self.apps.drain(..self.apps.len().saturating_sub(APPS));
    }

    /// The ground of this app in bytes: of three lives or more the second highest, so that one that went astray teaches nothing by
    /// itself; of fewer the lowest.
    pub(super) fn ground(&self, name: &str) -> Option<f64> {
        let mut lives = self.apps.iter().find(|app| app.name == name)?.lives.clone();
        lives.sort_by(f64::total_cmp);
        if lives.len() >= 3 { lives.get(lives.len() - 2).copied() } else { lives.first().copied() }
    }

    pub(super) fn is_sound(&self) -> bool {
        self.apps.len() <= APPS
            && self
                .apps
                .iter()
                .all(|app| app.lives.len() <= LIVES && app.lives.iter().all(|bytes| bytes.is_finite() && *bytes >= 0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(floors: impl IntoIterator<Item = f64>) -> Option<f64> {
        let mut held = Held::default();
        floors.into_iter().for_each(|floor| held.settle(floor, 100.0));
        held.best()
    }

    #[test]
    fn only_what_stood_still_for_an_hour_was_held() {
        assert_eq!(held((0..HOUR).map(|_| 40.0)), Some(40.0));
        assert_eq!(held((0..HOUR - 1).map(|_| 40.0)), None, "not an hour yet");
        assert_eq!(held((0..200).map(|i| 0.4 * f64::from(i))), None, "a leak, 5 % of the limit an hour");
        let cache = (0..200).map(|i| f64::from(i).min(70.0));
        assert_eq!(held(cache), Some(70.0));
        let fell = (0..40).map(|i| if i < 20 { 80.0 } else { 30.0 });
        assert_eq!(held(fell), Some(80.0));
    }

    #[test]
    fn a_gap_is_no_standing_still() {
        let mut it = Held::default();
        (0..HOUR - 1).for_each(|_| it.settle(40.0, 100.0));
        it.interrupt();
        it.settle(40.0, 100.0);
        assert_eq!(it.best(), None);
    }

    #[test]
    fn the_ground_is_what_more_than_one_life_held_where_there_were_several() {
        let mut plateaus = Plateaus::default();
        assert_eq!(plateaus.ground("a"), None);
        for (held, ground) in [(50.0, 50.0), (40.0, 40.0), (60.0, 50.0), (90.0, 60.0), (50.0, 60.0), (50.0, 60.0)] {
            plateaus.learn("a", held);
            assert_eq!(plateaus.ground("a"), Some(ground));
        }
        assert_eq!(plateaus.ground("b"), None);
    }

    #[test]
    fn apps_and_lives_are_bounded() {
        let mut plateaus = Plateaus::default();
        for i in 0..100 {
            plateaus.learn(&format!("app {}", i % 20), f64::from(i));
        }
        assert_eq!(plateaus.apps.len(), APPS);
        assert!(plateaus.is_sound());
        assert_eq!(plateaus.ground("app 19"), Some(99.0));
    }

    #[test]
    fn above_the_ground_a_quarter_of_the_way_to_the_limit_is_known() {
        assert_eq!(Ground::under(60.0, 100.0), Ground { held: 0.6, top: 0.7 });
        assert_eq!(Ground::under(120.0, 100.0).top, 1.2);
    }
}
