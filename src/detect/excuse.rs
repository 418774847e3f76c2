//! Why a warning of a trend is held at a notice: another reading of the same rise, with its evidence.
//!
//! Each excuse is a figure that speaks against a leak, never the lack of one for it. None of them counts for the burst rules and
//! the nearness of the limit. What is read beside memory counts on the slow scales, and only while being wrong costs nothing:
//! below 85 % of the limit, and with a quarter of an hour to go. Known ground counts on every scale, for it is while an app
//! starts that it is wanted; once the app has settled, the scales of seconds warn on it too.

use super::facts::Now;
use super::level::Level;
use super::load;
use super::plateau::Ground;
use super::scale::Trend;
use super::words;

/// Beyond this share of the limit, and with less time to it than this, nothing beside memory excuses its growth.
const MOST_SHARE: f64 = 0.85;
const LEAST_SECONDS: f64 = 900.0;
/// Nothing above is known ground: the limit may be lower than where earlier lives stood.
const MOST_GROUND: f64 = 0.9;

/// The excuse of this level's trend, in words. A life that is `settled` has stood still for an hour: it is no longer starting.
pub(super) fn of(level: &Level, trend: &Trend, now: &Now, ground: Option<Ground>, settled: bool) -> Option<String> {
    let ground = ground.filter(|_| !(level.is_fast() && settled));
    ground.and_then(|ground| known_ground(ground, now)).or_else(|| beside(level, trend, now))
}

fn known_ground(ground: Ground, now: &Now) -> Option<String> {
    let words = || format!("known ground: earlier runs of the app held {}", words::size(ground.held * now.limit));
    (now.share() <= ground.top.min(MOST_GROUND)).then(words)
}

fn beside(level: &Level, trend: &Trend, now: &Now) -> Option<String> {
    if level.is_fast() || now.share() > MOST_SHARE || trend.seconds_until(1.0) < LEAST_SECONDS {
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
    let behind = !now.piles_up && level.heaps.stays_behind(floors, now.limit);
    behind.then(|| format!("memory grew {}, live heap did not", words::size(trend.rise * now.limit)))
}
