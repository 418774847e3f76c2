//! The book of incidents: which one is open, what joins it, which event each turn of the story owes. Pure: the investigation
//! tells it what happened and sends what it returns.
//!
//! One incident at most is open. A notice opens one on the page but owes Datadog nothing until it turns worse.

use std::collections::VecDeque;

use super::incident::{Incident, IncidentKind, KeptProfile, State};
use super::past::Past;
use super::saved::INCIDENTS;
use super::words::{self, Identity};
use super::{Figures, Gone, Target, views};
use crate::detect::{Alert, Change, Severity};
use crate::pprof::Naming;
use crate::snapshot::IncidentView;
use crate::statsd::Event;

/// Closed incidents kept for the page; the oldest goes first.
const HISTORY: usize = 50;

/// A process that vanished above this share of its limit, and whose end nobody could read, was most likely killed for memory:
/// the last reading may be a second old, and 100 MiB/s fills a tenth of a 1 GiB limit in that second.
const EDGE: f64 = 0.85;

/// The open incident and the closed ones, newest first.
#[derive(Debug, Default)]
pub struct Ledger {
    pub open: Option<Incident>,
    pub closed: VecDeque<Incident>,
    /// The latest figures; every sentence quotes them.
    pub figures: Figures,
    pub who: Identity,
    pub app: String,
    /// Incidents of the sidecar before this one.
    pub past: Past,
    /// How many were opened by this process: a part of the next id.
    opened: u64,
}

impl Ledger {
    pub fn new(who: Identity, past: Past) -> Ledger {
        Ledger { who, past, ..Ledger::default() }
    }

    /// Takes a change of a detector in.
    pub fn alert(&mut self, change: &Change, now: f64) -> Vec<Event> {
        match change {
            Change::Opened(alert) | Change::Escalated(alert) => self.join(alert, now),
            Change::Cleared { kind, .. } => {
                let over = self.open.as_mut().is_some_and(|incident| incident.leave(*kind));
                if over { self.close(State::Recovered, "growth stopped and memory fell back", now) } else { Vec::new() }
            }
        }
    }

    fn join(&mut self, alert: &Alert, now: f64) -> Vec<Event> {
        let was = self.open.as_ref().map(|incident| incident.severity);
        if self.open.is_none() {
            let id = self.next_id(now);
            self.open =
                Some(Incident::open(id, IncidentKind::Alert(alert.kind), alert.severity, self.app.clone(), now));
        }
        let Some(incident) = self.open.as_mut() else { return Vec::new() };
        incident.join(alert.clone());
        let severity = incident.severity;
        self.reword();
        match (was, severity) {
            (_, Severity::Notice) => Vec::new(),
            (None | Some(Severity::Notice), _) => self.tell(Chapter::Opened, now),
            (Some(Severity::Warn), Severity::Crit) => self.tell(Chapter::Critical, now),
            _ => Vec::new(),
        }
    }

    /// The second of the opening and a running number: unique over restarts of the sidecar too, and fit for an address.
    fn next_id(&mut self, now: f64) -> String {
        self.opened += 1;
        format!("{:x}{:02x}", now as u64, self.opened)
    }

    /// Takes what the profiles said in, and owes an event the first time somebody is named.
    pub fn name(&mut self, naming: Naming, now: f64) -> Vec<Event> {
        let Some(incident) = self.open.as_mut() else { return Vec::new() };
        let first = naming.is_named() && !incident.is_named();
        if naming.is_named() || !incident.is_named() {
            incident.naming = Some(naming);
        }
        if first {
            incident.state = State::Named;
            incident.pull_failure = None;
        }
        self.reword();
        if first { self.tell(Chapter::Named, now) } else { Vec::new() }
    }

    /// Nothing could be pulled: said in the verdict as long as nobody is named.
    pub fn pull_failed(&mut self, words: String) {
        if let Some(incident) = self.open.as_mut() {
            incident.pull_failure = Some(words);
        }
        self.reword();
    }

    /// Adds a profile to the open story: evidence, or once the baseline that it was compared with.
    pub fn keep(&mut self, profile: KeptProfile) {
        if let Some(incident) = self.open.as_mut().filter(|it| it.profiles.iter().all(|kept| kept.id != profile.id)) {
            incident.profiles.push(profile);
        }
    }

    /// The target is gone: the end of the story, if there is one to tell.
    pub fn vanished(&mut self, gone: Gone, now: f64) -> Vec<Event> {
        let certain = gone == Gone::OomKilled;
        let edge =
            self.figures.limit_bytes.is_some_and(|limit| self.figures.memory_bytes as f64 >= EDGE * limit as f64);
        let killed = certain || gone == Gone::Unknown && edge;
        if !killed {
            return self.close(State::Recovered, "the process ended", now);
        }
        self.killed(certain, "", now)
    }

    /// The kernel killed a process of the app's tree, and the one that is watched lives on: the master of a prefork server, say.
    pub fn child_killed(&mut self, now: f64) -> Vec<Event> {
        self.killed(true, "A child process: ", now)
    }

    fn killed(&mut self, certain: bool, who: &str, now: f64) -> Vec<Event> {
        if self.open.is_none() {
            let id = self.next_id(now);
            self.open = Some(Incident::open(id, IncidentKind::OomKill, Severity::Crit, self.app.clone(), now));
        }
        if let Some(incident) = self.open.as_mut() {
            incident.presumed = !certain;
        }
        let end = words::killed(self.open.as_ref(), &self.figures, certain, now);
        self.end(State::Killed, format!("{who}{end}"), now)
    }

    fn close(&mut self, state: State, why: &str, now: f64) -> Vec<Event> {
        let Some(incident) = self.open.as_ref() else { return Vec::new() };
        let end = words::recovered(incident, &self.figures, why);
        self.end(state, end, now)
    }

    fn end(&mut self, state: State, end: String, now: f64) -> Vec<Event> {
        let Some(incident) = self.open.as_mut() else { return Vec::new() };
        // A notice that ends in a kill is worth its only event.
        incident.told |= state == State::Killed;
        incident.close(state, end, now);
        self.reword();
        let events = self.tell(Chapter::Ended, now);
        if let Some(incident) = self.open.take() {
            self.closed.push_front(incident);
        }
        self.closed.truncate(HISTORY);
        events
    }

    /// Brings the sentence of the open incident up to the latest figures.
    pub fn reword(&mut self) {
        if let Some(incident) = self.open.as_mut() {
            incident.verdict = words::verdict(incident, &self.figures);
        }
    }

    fn tell(&mut self, chapter: Chapter, now: f64) -> Vec<Event> {
        let Some(incident) = self.open.as_mut() else { return Vec::new() };
        let owed = match chapter {
            Chapter::Opened => !std::mem::replace(&mut incident.told, true),
            Chapter::Named | Chapter::Critical | Chapter::Ended => incident.told,
        };
        if owed { vec![words::event(incident, &self.figures, &self.who, now)] } else { Vec::new() }
    }

    /// The first target of this run may be the one that an earlier story is about.
    pub fn meet(&mut self, target: &Target, now: f64) {
        let app = self.who.app(target);
        self.open = self.past.meet(target, &app, now).or(self.open.take());
    }

    /// As the API shows them: our own, then those of earlier runs.
    pub fn views(&self) -> Vec<IncidentView> {
        let own = self.all().map(views::incident);
        own.chain(self.past.views().iter().cloned()).take(INCIDENTS).collect()
    }

    /// The open one first, then the closed ones, newest first.
    pub fn all(&self) -> impl Iterator<Item = &Incident> {
        self.open.iter().chain(&self.closed)
    }
}

/// Which turn of the story an event tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chapter {
    Opened,
    Named,
    Critical,
    Ended,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::detect::AlertKind;
    use crate::pprof::{Confidence, Culprit};
    use crate::statsd::AlertType;

    fn alert(kind: AlertKind, severity: Severity) -> Alert {
        Alert {
            kind,
            severity,
            rule: "trend_10s",
            at: Duration::ZERO,
            per_second: 1e6,
            time_to_limit: Some(Duration::from_secs(840)),
            evidence: "rose 41 MiB in 48 s".into(),
        }
    }

    fn opened(severity: Severity) -> Change {
        Change::Opened(alert(AlertKind::MemoryGrowth, severity))
    }

    fn naming() -> Naming {
        Naming {
            class: crate::pprof::Class::HeapLeak,
            confidence: Confidence::High,
            sentence: "statsd.newStatsdBuffer grew 148 MiB, made in main.handleJob".into(),
            culprits: vec![Culprit {
                function: "statsd.newStatsdBuffer".into(),
                made_by: "main.handleJob".into(),
                share: 0.92,
                ..Culprit::default()
            }],
            evidence: Vec::new(),
            remedy: None,
        }
    }

    fn ledger() -> Ledger {
        let mut ledger = Ledger::new(Identity { service: "worker".into(), ..Identity::default() }, Past::default());
        ledger.app = "worker".into();
        ledger.figures = Figures {
            memory_bytes: 200 << 20,
            limit_bytes: Some(256 << 20),
            statsd_clients: Some(312),
            time_to_limit: Some(Duration::from_secs(840)),
            ..Figures::default()
        };
        ledger
    }

    #[test]
    fn the_whole_story_is_told_in_four_events_with_one_key() {
        let mut ledger = ledger();
        let mut events = ledger.alert(&opened(Severity::Warn), 100.0);
        events.extend(ledger.name(naming(), 110.0));
        events.extend(ledger.alert(&Change::Escalated(alert(AlertKind::MemoryGrowth, Severity::Crit)), 120.0));
        events.extend(ledger.vanished(Gone::OomKilled, 130.0));
        assert_eq!(events.len(), 4);
        assert!(events.iter().all(|event| event.aggregation_key == events[0].aggregation_key));
        assert_eq!(events[1].title, "worker leaks in statsd.newStatsdBuffer: limit in 14 min");
        assert!(events[1].text.contains("312 StatsD clients"), "{}", events[1].text);
        assert_eq!(events[1].alert_type, AlertType::Warning);
        assert_eq!(events[3].alert_type, AlertType::Error);
        assert!(events[3].tags.iter().any(|tag| tag == "oomwatch_culprit:main.handleJob"));
        assert!(ledger.open.is_none());
        assert_eq!(ledger.closed[0].state, State::Killed);
    }

    #[test]
    fn a_notice_owes_nothing_until_it_turns_worse_or_kills() {
        let mut ledger = ledger();
        assert!(ledger.alert(&opened(Severity::Notice), 1.0).is_empty());
        assert!(ledger.name(naming(), 2.0).is_empty());
        let events = ledger.alert(&Change::Escalated(alert(AlertKind::MemoryGrowth, Severity::Warn)), 3.0);
        assert_eq!(events.len(), 1, "the first event carries the name already");
        assert!(events[0].title.contains("newStatsdBuffer"));

        let mut ledger = super::tests::ledger();
        ledger.alert(&opened(Severity::Notice), 1.0);
        assert_eq!(ledger.vanished(Gone::OomKilled, 5.0).len(), 1);
    }

    #[test]
    fn a_notice_that_clears_is_never_told() {
        let mut ledger = ledger();
        ledger.alert(&opened(Severity::Notice), 1.0);
        let cleared = Change::Cleared { kind: AlertKind::MemoryGrowth, at: Duration::ZERO };
        assert!(ledger.alert(&cleared, 2.0).is_empty());
        assert_eq!(ledger.closed[0].state, State::Recovered);
    }

    #[test]
    fn a_kill_without_an_alert_is_an_incident_of_its_own() {
        let mut ledger = ledger();
        let events = ledger.vanished(Gone::OomKilled, 5.0);
        assert_eq!(events.len(), 1);
        assert!(events[0].tags.contains(&"oomwatch_kind:oom_kill".to_owned()));
        assert!(ledger.vanished(Gone::Ended, 6.0).is_empty());
    }

    #[test]
    fn an_end_nobody_could_read_is_a_kill_only_at_the_edge_of_the_limit() {
        let mut far = ledger();
        far.alert(&opened(Severity::Warn), 1.0);
        far.vanished(Gone::Unknown, 2.0);
        assert_eq!(far.closed[0].state, State::Recovered);

        let mut near = ledger();
        near.figures.memory_bytes = 250 << 20;
        near.alert(&opened(Severity::Warn), 1.0);
        let events = near.vanished(Gone::Unknown, 2.0);
        assert_eq!(near.closed[0].state, State::Killed);
        assert!(events[0].text.contains("most likely"), "{}", events[0].text);
    }

    #[test]
    fn a_later_round_that_knows_less_does_not_take_the_name_back() {
        let mut ledger = ledger();
        ledger.alert(&opened(Severity::Warn), 1.0);
        ledger.name(naming(), 2.0);
        let unknown = Naming { confidence: Confidence::Unknown, culprits: Vec::new(), ..naming() };
        assert!(ledger.name(unknown, 3.0).is_empty());
        assert!(ledger.open.as_ref().is_some_and(Incident::is_named));
    }

    #[test]
    fn history_is_bounded() {
        let mut ledger = ledger();
        for n in 0..200 {
            ledger.vanished(Gone::OomKilled, f64::from(n));
        }
        assert_eq!(ledger.closed.len(), HISTORY);
    }
}
