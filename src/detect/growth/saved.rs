//! What the memory rule knows of a process that a restart of the sidecar must not cost: what came back down, what was warned of,
//! what was held. The rings are not kept: a trend across what was not seen is a guess.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Growth, Told, Warned};
use crate::detect::burst::Bar;
use crate::detect::plateau::Held;
use crate::detect::reading::Severity;
use crate::detect::scale::Hills;

/// Far enough to be never, and a number for JSON, which has no infinity.
const NEVER_SECONDS: f64 = 1e12;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedMemory {
    hills: [Hills; 6],
    bar: Bar,
    was_quiet: bool,
    survived_burst: f64,
    standing: Option<Severity>,
    warned: Option<SavedWarned>,
    told: Option<SavedTold>,
    pub(in crate::detect) held: Held,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedWarned {
    seconds_left: f64,
    share: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedTold {
    share: f64,
    patience_seconds: f64,
    excused: bool,
}

impl SavedMemory {
    pub(in crate::detect) fn standing(&self) -> Option<Severity> {
        self.standing
    }

    /// Every figure is one that could have been written.
    pub(in crate::detect) fn is_sound(&self) -> bool {
        let hills = self.hills.iter().flat_map(|it| [it.top, it.recovered, it.depth]);
        let bar =
            [self.bar.bar, self.bar.peak, self.survived_burst].into_iter().chain(self.bar.low).chain(self.bar.sat);
        let warned = self.warned.iter().flat_map(|it| [it.seconds_left, it.share]);
        let told = self.told.iter().flat_map(|it| [it.share, it.patience_seconds]);
        let numbers = hills.chain(bar).chain(warned).chain(told);
        numbers.into_iter().all(|number| (0.0..=NEVER_SECONDS).contains(&number)) && self.held.is_sound()
    }
}

impl Growth {
    pub fn save(&self) -> SavedMemory {
        let (was_quiet, survived_burst) = self.burst.past();
        SavedMemory {
            hills: std::array::from_fn(|i| self.levels[i].scale.hills()),
            bar: self.near.bar(),
            was_quiet,
            survived_burst,
            standing: self.standing.severity(),
            warned: self
                .warned
                .map(|it| SavedWarned { seconds_left: it.seconds_left.min(NEVER_SECONDS), share: it.share }),
            told: self.told.map(|it| SavedTold {
                share: it.share,
                patience_seconds: it.patience.as_secs_f64(),
                excused: it.excused,
            }),
            held: self.held.clone(),
        }
    }

    /// Goes on where another sidecar was. What was told counts as told at this first reading.
    pub fn restore(&mut self, at: Duration, saved: SavedMemory) {
        for (level, hills) in self.levels.iter_mut().zip(saved.hills) {
            level.scale.remember(hills);
        }
        self.near.remember(saved.bar);
        self.burst.remember((saved.was_quiet, saved.survived_burst));
        self.standing.restore(saved.standing);
        self.warned = saved.warned.map(|it| Warned { at, seconds_left: it.seconds_left, share: it.share });
        self.told = saved.told.map(|it| Told {
            share: it.share,
            grew_at: at,
            patience: Duration::from_secs_f64(it.patience_seconds),
            excused: it.excused,
        });
        self.held = saved.held;
        self.held.interrupt();
    }
}
