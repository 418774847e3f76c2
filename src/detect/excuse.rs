//! Why a warning of a trend is held at a notice: another reading of the same rise, with its evidence.
//!
//! Each excuse is a figure that speaks against a leak, never the lack of one for it. None of them counts for the burst rules and
//! the nearness of the limit. What is read beside memory counts on the slow scales, and only while being wrong costs nothing:
//! below 85 % of the limit, and with a quarter of an hour to go. Known ground counts on every scale, for it is while an app
//! starts that it is wanted; once the app has settled, the scales of seconds warn on it too.

use super::level::Level;
use super::load;
use super::plateau::Ground;
use super::scale::Trend;
use super::words;

/// Beyond this share of the limit, and with less time to it than this, nothing beside memory excuses its growth.
const MOST_SHARE: f64 = 0.85;
/// Nothing above is known ground: the limit may be lower than where earlier lives stood.
const MOST_GROUND: f64 = 0.9;
const LEAST_SECONDS: f64 = 900.0;

/// How things stand when a trend would warn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    /// Of the limit, which is in bytes.
    pub share: f64,
    pub limit: f64,
    /// Seconds to the limit.
    pub left: f64,
    /// This life has stood still for an hour: it is no longer starting.
    pub settled: bool,
    pub piles_up: bool,
}

/// The excuse of this level's trend, in words.
pub(super) fn of(level: &Level, trend: &Trend, ground: Option<Ground>, case: &Case) -> Option<String> {
    known_ground(level, ground, case).or_else(|| beside(level, trend, case))
}

fn known_ground(level: &Level, ground: Option<Ground>, case: &Case) -> Option<String> {
    let top = ground.map_or(0.0, |ground| ground.top.min(MOST_GROUND));
    let ground = ground.filter(|_| case.share <= top && !(level.is_fast() && case.settled))?;
    Some(format!("known ground: earlier runs of the app held {}", words::size(ground.held * case.limit)))
}

fn beside(level: &Level, trend: &Trend, case: &Case) -> Option<String> {
    if level.is_fast() || case.share > MOST_SHARE || case.left < LEAST_SECONDS {
        return None;
    }
    let floors = level.scale.floors();
    if let Some(load) = load::explain(floors, &level.loads) {
        let rate = words::rate;
        return Some(format!(
            "it goes with the load, {} to {} StatsD samples a second",
            rate(load.from),
            rate(load.to)
        ));
    }
    let behind = !case.piles_up && level.heaps.stays_behind(floors, case.limit);
    behind.then(|| format!("memory grew {}, live heap did not", words::size(trend.rise * case.limit)))
}
