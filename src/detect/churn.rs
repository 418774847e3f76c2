//! StatsD clients that are made for each job and closed again: no leak, but a socket and a few goroutines for every job.
//!
//! Source ports that were not seen before tell how many are made; that the live ones do not grow tells it from a leak. A notice and
//! no more: nothing is going to be killed.
//!
//! Missing: clients on Unix sockets, which have no port.

use std::collections::VecDeque;
use std::time::Duration;

use super::reading::{Alert, AlertKind, Change, Reading, Severity};
use super::standing::Standing;
use super::words;

const RULE: &str = "churn";
/// So long it must go on, in both halves of it.
const SPAN: Duration = Duration::from_secs(40);
/// Looked at no more often than this.
const STEP: Duration = Duration::from_secs(2);
/// Clients made a minute that are told; below half of it the notice ends.
const TOLD: f64 = 30.0;
/// The live ones may grow by this share of those that were made.
const FLAT: f64 = 0.1;

#[derive(Clone, Copy, Debug)]
struct Look {
    at: Duration,
    made: u64,
    open: u64,
}

/// The rule for one process. Under 1 KiB.
#[derive(Clone, Debug)]
pub struct Churn {
    /// The last [`SPAN`]: at most 22 looks.
    looks: VecDeque<Look>,
    standing: Standing,
}

impl Default for Churn {
    fn default() -> Churn {
        Churn { looks: VecDeque::new(), standing: Standing::none(AlertKind::ClientChurn) }
    }
}

impl Churn {
    pub fn observe(&mut self, reading: &Reading) -> Option<Change> {
        let look = Look { at: reading.at, made: reading.new_senders?, open: reading.statsd_clients? };
        if self.looks.back().is_some_and(|last| look.at.saturating_sub(last.at) < STEP) {
            return None;
        }
        self.looks.push_back(look);
        while self.looks.get(1).is_some_and(|next| look.at.saturating_sub(next.at) >= SPAN) {
            self.looks.pop_front();
        }
        let (first, middle) = (self.looks.front()?, self.looks.get(self.looks.len() / 2)?);
        if look.at.saturating_sub(first.at) < SPAN {
            return None;
        }
        let slower = a_minute(first, middle).min(a_minute(middle, &look));
        let made = look.made.saturating_sub(first.made) as f64;
        let flat = look.open as f64 - first.open as f64 <= FLAT * made;
        if flat && slower >= TOLD {
            return self.tell(look, a_minute(first, &look));
        }
        if !flat || slower < TOLD / 2.0 { self.standing.clear(look.at) } else { None }
    }

    pub fn end(&mut self, at: Duration) -> Option<Change> {
        self.standing.clear(at)
    }

    pub fn severity(&self) -> Option<Severity> {
        self.standing.severity()
    }

    /// What stood when another sidecar watched goes on until it is seen to have ended.
    pub fn restore(&mut self, severity: Option<Severity>) {
        self.standing.restore(severity);
    }

    fn tell(&mut self, look: Look, a_minute: f64) -> Option<Change> {
        let alert = Alert {
            kind: AlertKind::ClientChurn,
            severity: Severity::Notice,
            rule: RULE,
            at: look.at,
            per_second: a_minute / 60.0,
            time_to_limit: None,
            evidence: format!(
                "makes {a_minute:.0} StatsD clients a minute and closes them, {} {} open; make one at start and use it for all",
                look.open,
                words::is_or_are(look.open)
            ),
        };
        self.standing.raise(alert, false)
    }
}

fn a_minute(first: &Look, last: &Look) -> f64 {
    let seconds = last.at.saturating_sub(first.at).as_secs_f64();
    if seconds > 0.0 { last.made.saturating_sub(first.made) as f64 * 60.0 / seconds } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told in so many seconds of an app that makes clients at this pace, each second, and has `open(t)` of them.
    fn check(seconds: u64, made: impl Fn(u64) -> u64, open: impl Fn(u64) -> u64) -> Vec<Change> {
        let mut churn = Churn::default();
        let reading = |t: u64| Reading {
            at: Duration::from_secs(t),
            new_senders: Some(made(t)),
            statsd_clients: Some(open(t)),
            ..Reading::default()
        };
        (0..seconds).filter_map(|t| churn.observe(&reading(t))).collect()
    }

    #[test]
    fn a_client_for_each_job_that_is_closed_is_one_notice() {
        let told = check(600, |t| t * 3, |t| 1 + t % 3);
        let [Change::Opened(alert)] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!((alert.kind, alert.severity), (AlertKind::ClientChurn, Severity::Notice));
        assert!(alert.at <= Duration::from_secs(42), "{alert:?}");
        assert!(alert.evidence.starts_with("makes 180 StatsD clients a minute"), "{}", alert.evidence);
    }

    #[test]
    fn a_leak_of_clients_is_none() {
        assert_eq!(check(600, |t| t * 158 / 60, |t| t * 149 / 65), []);
    }

    #[test]
    fn one_client_and_workers_that_start_are_none() {
        assert_eq!(check(600, |_| 1, |_| 1), []);
        assert_eq!(check(600, |t| if t > 10 { 200 } else { 0 }, |t| if t > 10 { 200 } else { 0 }), []);
        assert_eq!(check(600, |t| if t > 10 { 200 } else { 0 }, |_| 2), [], "a single burst");
    }

    #[test]
    fn it_ends_when_no_more_are_made() {
        let told = check(600, |t| t.min(300) * 2, |_| 2);
        assert!(matches!(told.as_slice(), [Change::Opened(_), Change::Cleared { .. }]), "{told:?}");
    }

    #[test]
    fn without_a_census_nothing_is_said() {
        let mut churn = Churn::default();
        let reading = |t: u64| Reading { at: Duration::from_secs(t), new_senders: Some(t * 5), ..Reading::default() };
        assert!((0..600).all(|t| churn.observe(&reading(t)).is_none()));
    }
}
