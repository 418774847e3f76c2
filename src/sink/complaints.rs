//! At most one log line for each reason in ten seconds, and what it counts says how often the reason came up since.
//!
//! A sidecar that writes a line for each lost point fills the node's disk with its troubles.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// Between two lines of one reason.
const QUIET: Duration = Duration::from_secs(10);

/// Bounded by the reasons there are: they come from a fixed list.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    reasons: BTreeMap<&'static str, (Option<Instant>, u64)>,
}

impl Complaints {
    /// Adds `n` to the reason and gives the sum to be told, if it is time for a line.
    pub fn add(&mut self, reason: &'static str, n: u64, now: Instant) -> Option<u64> {
        let (last, sum) = self.reasons.entry(reason).or_default();
        *sum = sum.saturating_add(n);
        if last.is_some_and(|last| now.saturating_duration_since(last) < QUIET) {
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(sum))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reason_is_told_once_in_ten_seconds_with_what_came_meanwhile() {
        let mut complaints = Complaints::default();
        let start = Instant::now();
        assert_eq!(complaints.add("queue_full", 3, start), Some(3));
        assert_eq!(complaints.add("queue_full", 4, start + QUIET / 2), None);
        assert_eq!(complaints.add("too_old", 1, start + QUIET / 2), Some(1));
        assert_eq!(complaints.add("queue_full", 5, start + QUIET), Some(9));
    }
}
