//! Whether an endpoint may be tried now. Failures in a row close the way for a while, then one probe goes first.
//!
//! Like the Agent's (`blocked_endpoints.go`), but a success opens the way at once: with a queue of a few megabytes there is
//! no herd to hold back, and a backlog should be gone within a minute of the healing.

use std::time::Duration;

use tokio::time::Instant;

/// The state of one endpoint.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    errors: u32,
    blocked_until: Option<Instant>,
    probing: bool,
}

impl Breaker {
    /// Failures in a row, with the one that is being judged.
    pub fn errors_with_this(&self) -> u32 {
        self.errors.saturating_add(1)
    }

    pub fn is_failing(&self) -> bool {
        self.errors > 0
    }

    pub fn may_send(&self, now: Instant) -> bool {
        match self.blocked_until {
            None => true,
            Some(until) => now >= until && !self.probing,
        }
    }

    /// A request goes out: if the way was closed, it is the probe.
    pub fn sending(&mut self) {
        self.probing = self.blocked_until.is_some();
    }

    pub fn success(&mut self) {
        *self = Breaker::default();
    }

    /// A failure counts once: others that were under way when the first came back change nothing.
    pub fn failure(&mut self, now: Instant, wait: Duration) {
        if !self.probing && self.blocked_until.is_some_and(|until| now < until) {
            return;
        }
        self.errors = self.errors.saturating_add(1);
        self.blocked_until = Some(now + wait);
        self.probing = false;
    }

    /// When it should be looked at again; `None` when it is open or waits for its probe.
    pub fn wakes_at(&self) -> Option<Instant> {
        self.blocked_until.filter(|_| !self.probing)
    }

    /// The probe came back without a word on this endpoint: another may go.
    pub fn undecided(&mut self) {
        self.probing = false;
    }

    /// Ends the waiting, not the counting: used at the end, when there is no later.
    pub fn try_now(&mut self, now: Instant) {
        self.blocked_until = self.blocked_until.map(|until| until.min(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(2);

    #[tokio::test(start_paused = true)]
    async fn one_probe_goes_first_after_the_wait() {
        let mut breaker = Breaker::default();
        let start = Instant::now();
        assert!(breaker.may_send(start));
        breaker.failure(start, WAIT);
        assert!(!breaker.may_send(start + WAIT / 2));
        assert!(breaker.may_send(start + WAIT));
        breaker.sending();
        assert!(!breaker.may_send(start + WAIT), "a second one waits for the probe");
        assert_eq!(breaker.wakes_at(), None);
        breaker.success();
        assert!(breaker.may_send(start + WAIT) && breaker.errors_with_this() == 1);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_that_were_under_way_together_count_once() {
        let mut breaker = Breaker::default();
        let start = Instant::now();
        breaker.failure(start, WAIT);
        breaker.failure(start, WAIT);
        assert_eq!(breaker.errors_with_this(), 2);
        assert!(breaker.may_send(start + WAIT));
        breaker.sending();
        breaker.failure(start + WAIT, WAIT);
        assert_eq!(breaker.errors_with_this(), 3);
        assert_eq!(breaker.wakes_at(), Some(start + WAIT * 2));
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_end_there_is_one_more_try_at_once() {
        let mut breaker = Breaker::default();
        let start = Instant::now();
        breaker.failure(start, WAIT);
        breaker.try_now(start);
        assert!(breaker.may_send(start));
    }
}
