//! The life of one alert: opened once, escalated when it gets worse, cleared once.
//!
//! Rules may shout at every reading; this is where repeats are swallowed.

use std::time::Duration;

use super::reading::{Alert, AlertKind, Change, Severity};

/// What stands of one kind, and how bad it is.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    kind: AlertKind,
    severity: Option<Severity>,
}

impl Standing {
    pub(super) fn none(kind: AlertKind) -> Standing {
        Standing { kind, severity: None }
    }

    /// What stood when another sidecar watched: it is not told again.
    pub(super) fn restore(&mut self, severity: Option<Severity>) {
        self.severity = severity;
    }

    pub(super) fn severity(&self) -> Option<Severity> {
        self.severity
    }

    /// Takes what a rule found. `again` tells an alert of the same severity once more, because its time to limit has halved.
    pub(super) fn raise(&mut self, alert: Alert, again: bool) -> Option<Change> {
        match self.severity {
            None => {
                self.severity = Some(alert.severity);
                Some(Change::Opened(alert))
            }
            Some(before) if alert.severity > before || again => {
                let severity = before.max(alert.severity);
                self.severity = Some(severity);
                Some(Change::Escalated(Alert { severity, ..alert }))
            }
            Some(_) => None,
        }
    }

    pub(super) fn clear(&mut self, at: Duration) -> Option<Change> {
        self.severity.take().map(|_| Change::Cleared { kind: self.kind, at })
    }
}

/// Holds once for a condition that held for a while, and may hold again only after it was away for ten minutes.
#[derive(Clone, Debug, Default)]
pub(super) struct Edge {
    since: Option<Duration>,
    away: Option<Duration>,
    fired: bool,
}

const REARM: Duration = Duration::from_secs(600);

impl Edge {
    pub(super) fn step(&mut self, at: Duration, hold: Duration, condition: bool) -> bool {
        if condition {
            self.away = None;
            let since = *self.since.get_or_insert(at);
            let fires = !self.fired && at.saturating_sub(since) >= hold;
            self.fired |= fires;
            return fires;
        }
        self.since = None;
        if self.fired && at.saturating_sub(*self.away.get_or_insert(at)) >= REARM {
            (self.fired, self.away) = (false, None);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(severity: Severity) -> Alert {
        Alert {
            kind: AlertKind::ThreadLeak,
            severity,
            rule: "test",
            at: Duration::ZERO,
            per_second: 1.0,
            time_to_limit: None,
            evidence: String::new(),
        }
    }

    #[test]
    fn repeats_are_swallowed_and_severity_never_falls() {
        let mut standing = Standing::none(AlertKind::ThreadLeak);
        assert_eq!(standing.clear(Duration::ZERO), None);
        assert!(matches!(standing.raise(alert(Severity::Notice), false), Some(Change::Opened(_))));
        assert_eq!(standing.raise(alert(Severity::Notice), false), None);
        assert_eq!(standing.raise(alert(Severity::Crit), false), Some(Change::Escalated(alert(Severity::Crit))));
        assert_eq!(standing.raise(alert(Severity::Warn), true), Some(Change::Escalated(alert(Severity::Crit))));
        assert!(standing.clear(Duration::ZERO).is_some());
        assert_eq!(standing.severity(), None);
    }

    #[test]
    fn an_edge_holds_once_until_it_was_long_away() {
        let mut edge = Edge::default();
        let hold = Duration::from_secs(15);
        let fires: Vec<u64> = (0..2_000)
            .filter(|t| edge.step(Duration::from_secs(*t), hold, *t < 100 || (*t >= 200 && *t < 300) || *t >= 1_000))
            .collect();
        assert_eq!(fires, [15, 1_015]);
    }
}
