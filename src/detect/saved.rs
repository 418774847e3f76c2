//! What outlives a restart of the sidecar, as values: the plateaus, and of the process that was watched what was told and what
//! came back down. Who writes it and where is decided elsewhere.

use serde::{Deserialize, Serialize};

use super::growth::SavedMemory;
use super::plateau::Plateaus;
use super::reading::{AlertKind, Severity};

/// All of it. At most some 8 KiB as JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    pub plateaus: Plateaus,
    pub life: Option<SavedLife>,
}

/// The process that was watched, and what its rules knew.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedLife {
    pub(super) app: String,
    pub(super) incarnation: u64,
    pub(super) limit: Option<u64>,
    pub(super) share: f64,
    pub(super) killed: bool,
    pub(super) memory: SavedMemory,
    pub(super) clients: SavedPile,
    pub(super) goroutines: SavedPile,
    pub(super) threads: SavedPile,
    pub(super) fds: SavedPile,
    /// What stood, and no more: a freeze and churn are seen anew within seconds. A file of before they were kept has neither.
    pub(super) freeze: Option<Severity>,
    pub(super) churn: Option<Severity>,
}

/// A count that piled up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedPile {
    pub standing: Option<Severity>,
    /// The highest count that went away again.
    pub survived: f64,
    /// What was told: up to which count, and how much of it was growth.
    pub told: Option<(f64, f64)>,
    pub patience_seconds: f64,
}

impl SavedPile {
    fn is_sound(&self) -> bool {
        let told = self.told.iter().flat_map(|(top, rise)| [*top, *rise]);
        told.chain([self.survived, self.patience_seconds]).all(|number| (0.0..=1e20).contains(&number))
    }
}

impl Saved {
    /// Whether every figure is one that could have been written: a file that was damaged may still be JSON.
    pub fn is_sound(&self) -> bool {
        self.plateaus.is_sound() && self.life.as_ref().is_none_or(SavedLife::is_sound)
    }

    /// The alerts that stood.
    pub fn standing(&self) -> Vec<(AlertKind, Severity)> {
        let Some(life) = &self.life else { return Vec::new() };
        let kinds = [
            (AlertKind::MemoryGrowth, life.memory.standing()),
            (AlertKind::ClientLeak, life.clients.standing),
            (AlertKind::GoroutineLeak, life.goroutines.standing),
            (AlertKind::ThreadLeak, life.threads.standing),
            (AlertKind::FdLeak, life.fds.standing),
            (AlertKind::Freeze, life.freeze),
            (AlertKind::ClientChurn, life.churn),
        ];
        kinds.into_iter().filter_map(|(kind, severity)| Some((kind, severity?))).collect()
    }

    /// Start time of the process that was watched.
    pub fn incarnation(&self) -> Option<u64> {
        self.life.as_ref().map(|life| life.incarnation)
    }
}

impl SavedLife {
    fn is_sound(&self) -> bool {
        let piles = [self.clients, self.goroutines, self.threads, self.fds];
        self.share.is_finite() && self.memory.is_sound() && piles.iter().all(SavedPile::is_sound)
    }
}
