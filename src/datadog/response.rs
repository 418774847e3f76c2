//! What to do with an answer, or with its absence. Pure: numbers in, a verdict out, randomness as an argument.
//!
//! The table is the Agent's, with three differences: 401 and 403 hold everything until there is another key, 413 is split
//! (everyone else drops it), and `Retry-After` is honoured.

use std::time::Duration;

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Status {
        code: u16,
        retry_after: Option<Duration>,
    },
    /// No answer within the time limit.
    Timeout,
    /// No connection, a broken one, or TLS that failed.
    Transport,
    /// A page of HTML with a status of success: a captive portal or a proxy spoke, and Datadog has nothing.
    Foreign,
}

impl Answer {
    pub fn status(code: u16) -> Answer {
        Answer::Status { code, retry_after: None }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Datadog has it.
    Deliver,
    /// Keep it and try this endpoint again after so long.
    Wait(Duration),
    /// Too large: cut in two, or drop what cannot be cut.
    Split,
    /// Never to be tried again; the label of `oomwatch.dropped`.
    Drop(&'static str),
    /// The key was refused: keep everything until there is another.
    HoldForKey,
}

/// How long to wait and when to give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The Agent's is 2 s (`pkg/util/backoff`).
    pub base: Duration,
    /// The longest wait of our own making; the Agent's is 64 s.
    pub longest: Duration,
    /// The longest wait that a `Retry-After` can ask for: a mad header must not outlive the points.
    pub longest_asked: Duration,
    /// What is older is dropped as `too_old`; the intake takes an hour.
    pub max_age: Duration,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            base: Duration::from_secs(2),
            longest: Duration::from_secs(64),
            longest_asked: Duration::from_secs(300),
            max_age: Duration::from_secs(55 * 60),
        }
    }
}

impl Policy {
    /// `errors` counts the failures of this endpoint in a row, with this one; `jitter` is in 0..1.
    pub fn decide(&self, answer: Answer, errors: u32, age: Duration, jitter: f64) -> Verdict {
        let verdict = match answer {
            Answer::Timeout | Answer::Transport | Answer::Foreign => Verdict::Wait(self.back_off(errors, jitter)),
            Answer::Status { code, retry_after } => self.decide_status(code, retry_after, errors, jitter),
        };
        match verdict {
            Verdict::Wait(_) | Verdict::HoldForKey if age > self.max_age => Verdict::Drop("too_old"),
            verdict => verdict,
        }
    }

    fn decide_status(&self, code: u16, retry_after: Option<Duration>, errors: u32, jitter: f64) -> Verdict {
        match code {
            200..=299 => Verdict::Deliver,
            400 => Verdict::Drop("http_400"),
            401 | 403 => Verdict::HoldForKey,
            413 => Verdict::Split,
            // 404 is a wrong region or a proxy more often than a wrong path: the data must outlive the mending.
            _ => Verdict::Wait(self.asked(retry_after, jitter).unwrap_or_else(|| self.back_off(errors, jitter))),
        }
    }

    /// Never sooner than asked, and at most a tenth later, so that replicas do not come back in one breath.
    fn asked(&self, retry_after: Option<Duration>, jitter: f64) -> Option<Duration> {
        // Zero would be a request for each round trip, for as long as it is answered.
        let asked = retry_after.filter(|asked| !asked.is_zero())?.min(self.longest_asked);
        Some(asked.mul_f64(1.0 + 0.1 * jitter.clamp(0.0, 1.0)))
    }

    /// The Agent's: `base·2^n`, of which the upper half is random, and exactly `longest` once that is passed.
    pub fn back_off(&self, errors: u32, jitter: f64) -> Duration {
        let full = self.base.saturating_mul(1_u32.checked_shl(errors.min(16)).unwrap_or(u32::MAX));
        if full > self.longest {
            return self.longest;
        }
        full.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: Duration = Duration::ZERO;

    fn seconds(seconds: f64) -> Verdict {
        Verdict::Wait(Duration::from_secs_f64(seconds))
    }

    #[test]
    fn every_status_has_its_meaning() {
        let policy = Policy::default();
        let table = [
            (200, Verdict::Deliver),
            (202, Verdict::Deliver),
            (299, Verdict::Deliver),
            (301, seconds(2.0)),
            (400, Verdict::Drop("http_400")),
            (401, Verdict::HoldForKey),
            (403, Verdict::HoldForKey),
            (404, seconds(2.0)),
            (408, seconds(2.0)),
            (413, Verdict::Split),
            (422, seconds(2.0)),
            (429, seconds(2.0)),
            (500, seconds(2.0)),
            (503, seconds(2.0)),
        ];
        for (code, verdict) in table {
            assert_eq!(policy.decide(Answer::status(code), 1, FRESH, 0.0), verdict, "{code}");
        }
        assert_eq!(policy.decide(Answer::Timeout, 1, FRESH, 0.0), seconds(2.0));
        assert_eq!(policy.decide(Answer::Transport, 1, FRESH, 0.0), seconds(2.0));
        assert_eq!(policy.decide(Answer::Foreign, 1, FRESH, 0.0), seconds(2.0));
    }

    #[test]
    fn back_off_is_the_agents_table() {
        let policy = Policy::default();
        for (errors, least, most) in [(1, 2.0, 4.0), (2, 4.0, 8.0), (3, 8.0, 16.0), (4, 16.0, 32.0), (5, 32.0, 64.0)] {
            assert_eq!(policy.back_off(errors, 0.0).as_secs_f64(), least, "{errors}");
            assert_eq!(policy.back_off(errors, 1.0).as_secs_f64(), most, "{errors}");
        }
        for errors in [6, 7, 31, 32, u32::MAX] {
            assert_eq!(policy.back_off(errors, 0.5).as_secs_f64(), 64.0, "{errors}");
        }
    }

    #[test]
    fn retry_after_is_never_undercut_and_capped() {
        let policy = Policy::default();
        let asked = |seconds, jitter| {
            policy.decide(
                Answer::Status { code: 429, retry_after: Some(Duration::from_secs(seconds)) },
                1,
                FRESH,
                jitter,
            )
        };
        assert_eq!(asked(10, 0.0), seconds(10.0));
        assert_eq!(asked(10, 1.0), seconds(11.0));
        assert_eq!(asked(86_400, 0.0), seconds(300.0));
        assert_ne!(asked(0, 0.0), seconds(0.0), "zero is no wait at all");
    }

    #[test]
    fn what_is_too_old_is_not_kept_but_may_be_delivered() {
        let policy = Policy::default();
        let old = Duration::from_secs(55 * 60 + 1);
        assert_eq!(policy.decide(Answer::status(503), 1, old, 0.0), Verdict::Drop("too_old"));
        assert_eq!(policy.decide(Answer::status(403), 1, old, 0.0), Verdict::Drop("too_old"));
        assert_eq!(policy.decide(Answer::status(202), 1, old, 0.0), Verdict::Deliver);
    }
}
