//! One time scale of memory with what was read beside it, and what it said last.

use std::time::Duration;

use super::beside::Beside;
use super::scale::{Scale, Trend};

/// Width in seconds and name of each scale. With 32 buckets they span 96 s, 5 min, 32 min, 2.7 h, 10.7 h and 43 h.
pub(super) const SCALES: [(u64, &str); 6] = [
    (3, "trend_3s"),
    (10, "trend_10s"),
    (60, "trend_60s"),
    (300, "trend_300s"),
    (1_200, "trend_1200s"),
    (4_800, "trend_4800s"),
];
/// What counts as coming back down, as a share of the limit.
pub(super) const DROP: f64 = 0.03;
/// What counts as new ground, above what came back down.
pub(super) const NEW_GROUND: f64 = 0.02;
const HILLS_DIFFER: f64 = 0.5;

/// One look at memory, as share of its limit, and at what may explain it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub share: f64,
    pub live_heap: Option<f64>,
    pub load: Option<f64>,
}

#[derive(Clone, Debug)]
pub(super) struct Level {
    pub scale: Scale,
    pub rule: &'static str,
    pub trend: Option<Trend>,
    /// Closes in a row that would warn, or note.
    pub warns: u32,
    pub notices: u32,
    pub heaps: Beside,
    pub loads: Beside,
}

impl Level {
    pub(super) fn all() -> [Level; 6] {
        SCALES.map(|(seconds, rule)| Level {
            scale: Scale::new(Duration::from_secs(seconds), DROP),
            rule,
            trend: None,
            warns: 0,
            notices: 0,
            heaps: Beside::default(),
            loads: Beside::default(),
        })
    }

    /// Scales of seconds. A warning of theirs comes a minute ahead and not hours.
    pub(super) fn is_fast(&self) -> bool {
        self.scale.width() < Duration::from_secs(60)
    }

    /// Above what was survived before, growth is new. Hills differ, so the next may be half as high again as the deepest that came
    /// back, and, as the bar near the limit has it, rise by a quarter of what is left to the limit.
    pub(super) fn new_ground(&self) -> f64 {
        let survived = self.scale.recovered();
        let next = HILLS_DIFFER * self.scale.depth();
        survived + next.min(0.25 * (1.0 - survived)).max(NEW_GROUND)
    }

    /// Takes a look and says whether a bucket closed by it.
    pub(super) fn push(&mut self, at: Duration, look: &Look) -> bool {
        let before = self.scale.floors().len();
        let closed = self.scale.push(at, look.share);
        let buckets = self.scale.floors().len();
        for (ring, value) in [(&mut self.heaps, look.live_heap), (&mut self.loads, look.load)] {
            if closed {
                ring.close(buckets);
            } else if buckets < before {
                ring.clear();
            }
            ring.push(value);
        }
        if buckets == 0 {
            self.trend = None;
        }
        closed
    }
}
