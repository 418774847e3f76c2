//! The words of the plan: what is asked, why, what is known when a step's turn comes, and what becomes of a wish.

use crate::detect::Severity;
use crate::pipeline::{Figures, Index, ProfileKind};

/// What decides over a step when its turn comes.
#[derive(Clone, Copy, Debug)]
pub struct Now<'a> {
    pub figures: &'a Figures,
    /// Of the last index page; its count is `None` while unknown.
    pub index: Index,
    /// Of the open incident.
    pub severity: Option<Severity>,
}

/// What a pulled profile is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The first plain heap of a new target.
    FirstSight,
    /// The app is well: something to compare with later.
    Baseline,
    /// The live heap of an app that a notice stands of: with an old figure nothing could be said for it, and rounds grow rare.
    LiveHeap,
    /// A round on an alert.
    Evidence,
    /// The goroutine count of the index page; nothing is kept.
    Count,
}

impl Purpose {
    /// What a profile is kept under; `None` for what is pulled because of an incident.
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Purpose::FirstSight => Some("first_sight"),
            Purpose::Baseline => Some("baseline"),
            Purpose::LiveHeap => Some("live_heap"),
            Purpose::Evidence | Purpose::Count => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub kind: ProfileKind,
    pub purpose: Purpose,
}

impl Step {
    /// Evidence that every app with a profiler gives; the others are a bonus of Go's.
    pub fn is_owed(self) -> bool {
        self.purpose == Purpose::Evidence && !self.kind.is_bonus()
    }
}

/// Why a round is wished for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// An alert opened or got worse.
    Alert,
    /// It turned critical: passes the cool-down, may take the last round of the hour, and cuts a round under way short.
    Critical,
    /// The open incident is not surely named. Waits twice as long each time, for each forces a collection.
    Again,
}

/// What became of the wish for a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// At once, or as soon as the step under way is done.
    Begun,
    /// Not begun, by the reason label of `oomwatch.profiles.suppressed`.
    Suppressed(&'static str),
}
