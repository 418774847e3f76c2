//! The account of pulls: every profile that was wanted is stored, failed for a reason, or was suppressed for one. Identity I6.
//!
//! The goroutine count of the index page and the text of all goroutines are not kept and stand in no account.

use tokio::time::Instant;

use super::ProfileKind;
use crate::telemetry::{self, Metric};

/// Whether the app's pprof port answers, whatever it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Answers {
    pub last: Option<Instant>,
    /// The oldest question since that is open, or was given up.
    pub open_since: Option<Instant>,
}

/// Running totals; the investigation writes them, `/metrics` and the page show them.
#[derive(Debug, Default)]
pub(super) struct Pulls {
    attempted: u64,
    stored: u64,
    failed: u64,
    suppressed: u64,
    /// A pull has begun and nothing is known of it yet.
    under_way: bool,
    pub answers: Answers,
}

impl Pulls {
    pub fn begun(&mut self, kind: ProfileKind) {
        self.answers.open_since.get_or_insert_with(Instant::now);
        if kind.is_kept() {
            self.under_way = true;
            self.attempted += count(&telemetry::PROFILES_ATTEMPTED, None);
        }
    }

    /// What became of the question: a refusal is an answer too.
    pub fn heard(&mut self, failed: Option<&'static str>) {
        if !matches!(failed, Some("timeout" | "unreachable")) {
            self.answers = Answers { last: Some(Instant::now()), open_since: None };
        }
    }

    /// It came and is kept.
    pub fn stored(&mut self) {
        self.under_way = false;
        self.stored += count(&telemetry::PROFILES_PULLED, None);
    }

    pub fn failed(&mut self, kind: ProfileKind, reason: &'static str) {
        if kind.is_kept() {
            self.under_way = false;
            self.failed += count(&telemetry::PROFILES_FAILED, Some(reason));
        }
    }

    /// Whoever was pulled from is gone.
    pub fn gone(&mut self) {
        self.answers = Answers::default();
        if self.under_way {
            self.failed(ProfileKind::Heap, "gone");
        }
    }

    /// A round that was wanted and not begun.
    pub fn suppressed(&mut self, reason: &'static str) {
        self.attempted += count(&telemetry::PROFILES_ATTEMPTED, None);
        self.suppressed += count(&telemetry::PROFILES_SUPPRESSED, Some(reason));
    }

    /// Right side minus left side of I6: `attempted = stored + failed + suppressed`, and one that is under way.
    pub fn error(&self) -> i64 {
        let right = self.stored + self.failed + self.suppressed + u64::from(self.under_way);
        right.cast_signed() - self.attempted.cast_signed()
    }
}

fn count(metric: &'static Metric, label: Option<&'static str>) -> u64 {
    telemetry::count(metric, label).increment(1);
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pull_ends_in_one_place() {
        let mut pulls = Pulls::default();
        pulls.begun(ProfileKind::Heap);
        assert_eq!(pulls.error(), 0, "while it is under way");
        pulls.stored();
        pulls.begun(ProfileKind::Index);
        pulls.failed(ProfileKind::Index, "timeout");
        pulls.begun(ProfileKind::Goroutine);
        pulls.failed(ProfileKind::Goroutine, "timeout");
        pulls.begun(ProfileKind::Heap);
        pulls.gone();
        pulls.gone();
        pulls.suppressed("cooldown");
        assert_eq!((pulls.attempted, pulls.stored, pulls.failed, pulls.suppressed), (4, 1, 2, 1));
        assert_eq!(pulls.error(), 0);
        pulls.stored();
        assert_eq!(pulls.error(), 1, "a profile from nowhere is a defect");
    }
}
