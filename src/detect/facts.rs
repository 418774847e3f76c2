//! The figures that the memory rule passes around: where memory stands, what a rule found, what was told.

use std::time::Duration;

use super::reading::Severity;

/// How far memory stands, of what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub at: Duration,
    pub age: Duration,
    pub memory: f64,
    pub limit: f64,
    pub piles_up: bool,
}

/// What is known beside memory at a reading.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known {
    pub live_heap: Option<f64>,
    /// The app's StatsD samples a second.
    pub load: Option<f64>,
    /// Something else piles up: goroutines, whose stacks are not on the live heap, threads, clients.
    pub piles_up: bool,
}

impl Now {
    pub(super) fn share(&self) -> f64 {
        self.memory / self.limit
    }
}

/// What a rule found, in shares of the limit.
pub(super) struct Found {
    pub rule: &'static str,
    pub severity: Severity,
    pub per_second: f64,
    /// Where the peaks stand.
    pub ceiling: f64,
    /// Over how many seconds it was seen.
    pub span: f64,
    pub evidence: String,
}

/// What was warned of last, kept when the alert is cleared: the same growth is not told twice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Warned {
    pub at: Duration,
    pub seconds_left: f64,
    pub share: f64,
}

/// What a standing alert is measured against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub share: f64,
    /// When growth was last seen, and how long a standstill must last to end the alert.
    pub grew_at: Duration,
    pub patience: Duration,
    /// With the excuse that holds it at a notice.
    pub excused: bool,
}
