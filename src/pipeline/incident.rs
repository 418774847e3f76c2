//! An incident: the story from alert to all-clear or kill, kept as values. What is done about it is decided in
//! [`super::investigate`]; what is said of it in [`super::words`].

use std::collections::BTreeMap;

use super::said::Said;
use crate::detect::{Alert, AlertKind, Severity};
use crate::pprof::{Confidence, Naming};
use crate::snapshot::IncidentView;

/// What an incident is about: what it opened with, or what it came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncidentKind {
    Alert(AlertKind),
    /// A kill that no alert came before.
    OomKill,
    /// One bad end after another.
    CrashLoop,
}

impl IncidentKind {
    pub fn label(self) -> &'static str {
        match self {
            IncidentKind::OomKill => "oom_kill",
            IncidentKind::CrashLoop => "crash_loop",
            IncidentKind::Alert(AlertKind::MemoryGrowth) => "memory_growth",
            IncidentKind::Alert(AlertKind::ClientLeak) => "client_leak",
            IncidentKind::Alert(AlertKind::ClientChurn) => "client_churn",
            IncidentKind::Alert(AlertKind::GoroutineLeak) => "goroutine_leak",
            IncidentKind::Alert(AlertKind::ThreadLeak) => "thread_leak",
            IncidentKind::Alert(AlertKind::FdLeak) => "fd_leak",
            IncidentKind::Alert(AlertKind::Freeze) => "freeze",
        }
    }
}

/// Where the story stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Open,
    Named,
    Recovered,
    Killed,
}

impl State {
    pub fn label(self) -> &'static str {
        match self {
            State::Open => "open",
            State::Named => "named",
            State::Recovered => "recovered",
            State::Killed => "killed",
        }
    }
}

/// A profile that belongs to the story.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptProfile {
    pub id: String,
    pub kind: &'static str,
    pub reason: String,
    /// Unix seconds.
    pub taken_at: f64,
    pub bytes: u64,
}

/// One incident. At most one is open; alerts of another kind join it, because one leak shows in memory, clients, goroutines
/// and descriptors at once and is one page to one person.
#[derive(Clone, Debug)]
pub struct Incident {
    pub id: String,
    pub kind: IncidentKind,
    /// The kind of its first event: all its events go under that, whatever it comes to.
    pub opened_as: IncidentKind,
    pub severity: Severity,
    /// Unix seconds.
    pub opened_at: f64,
    pub closed_at: Option<f64>,
    pub state: State,
    pub app: String,
    /// The alerts that stand, by kind; the incident is over when none does.
    pub standing: BTreeMap<AlertKind, Alert>,
    /// Every alert's evidence, latest for each kind, standing or not.
    pub alerts: BTreeMap<AlertKind, Alert>,
    /// The best naming so far, whether it names or says why not.
    pub naming: Option<Naming>,
    /// The bad ends of a crash loop, in words.
    pub series: Option<String>,
    /// Why nothing could be pulled, in words, when nothing could.
    pub pull_failure: Option<String>,
    pub profiles: Vec<KeptProfile>,
    /// What the last words were: the sentence that the page and the events show.
    pub verdict: String,
    /// The end of the story in words, once it has one.
    pub end: Option<String>,
    /// The kill is inferred from where memory stood: nothing that we may read says it.
    pub presumed: bool,
    /// An opening event has gone out: the follow-ups are owed too.
    pub told: bool,
    /// What the events said.
    pub said: Said,
    /// What a sidecar before this one showed of it.
    pub before: Option<Box<IncidentView>>,
    /// Nobody saw its end: what a title says in the end's place.
    pub parting: Option<&'static str>,
}

impl Incident {
    pub fn open(id: String, kind: IncidentKind, severity: Severity, app: String, now: f64) -> Incident {
        Incident {
            id,
            kind,
            opened_as: kind,
            severity,
            opened_at: now,
            closed_at: None,
            state: State::Open,
            app,
            standing: BTreeMap::new(),
            alerts: BTreeMap::new(),
            naming: None,
            series: None,
            pull_failure: None,
            profiles: Vec::new(),
            verdict: String::new(),
            end: None,
            presumed: false,
            told: false,
            said: Said::default(),
            before: None,
            parting: None,
        }
    }

    pub fn is_open(&self) -> bool {
        self.closed_at.is_none()
    }

    /// It comes to be of another kind. Until it was told, nothing goes under the old one.
    pub fn turn(&mut self, kind: IncidentKind) {
        self.kind = kind;
        if !self.told {
            self.opened_as = kind;
        }
    }

    /// Whether the first alarm among notices, or a freeze, makes another incident of it.
    fn turns(&self, alert: &Alert) -> bool {
        let first_alarm = self.severity == Severity::Notice && alert.severity > Severity::Notice;
        self.kind != IncidentKind::CrashLoop && (alert.kind == AlertKind::Freeze || first_alarm)
    }

    /// Takes an alert in and says whether the incident became more severe by it.
    pub fn join(&mut self, alert: Alert) -> bool {
        let worse = alert.severity > self.severity;
        if self.turns(&alert) {
            self.turn(IncidentKind::Alert(alert.kind));
        }
        self.severity = self.severity.max(alert.severity);
        self.alerts.insert(alert.kind, alert.clone());
        self.standing.insert(alert.kind, alert);
        worse
    }

    /// Takes an all-clear in and says whether the story is over: nothing stands any more, or after an alarm only notices do.
    pub fn leave(&mut self, kind: AlertKind) -> bool {
        let Some(left) = self.standing.remove(&kind) else { return false };
        if left.severity > Severity::Notice { self.is_calm() } else { self.standing.is_empty() }
    }

    /// No alarm stands. A notice may: churn lasts as long as the app, and must not keep what it joined open.
    pub fn is_calm(&self) -> bool {
        self.standing.values().all(|alert| alert.severity == Severity::Notice)
    }

    pub fn close(&mut self, state: State, end: String, now: f64) {
        self.state = state;
        self.end = Some(end);
        self.closed_at = Some(now);
        self.standing.clear();
    }

    /// Whether another look at the profiles is worth its cost: not of clients that are closed again, nor while the app hangs.
    pub fn wants_a_name(&self) -> bool {
        let frozen = self.standing.contains_key(&AlertKind::Freeze);
        !frozen && self.kind != IncidentKind::Alert(AlertKind::ClientChurn)
    }

    /// Takes what a round of profiles said in. One that knows less does not take back what is known: a name stands until another is
    /// as sure.
    pub fn learn(&mut self, naming: Naming) {
        let top = |naming: &Naming| naming.culprits.first().map(|it| (it.function.clone(), it.made_by.clone()));
        let other = |old: &Naming| old.confidence == Confidence::High && top(old) != top(&naming);
        let keeps = self.naming.as_ref().is_some_and(|old| match naming.confidence {
            Confidence::High => false,
            Confidence::Medium => other(old),
            Confidence::Low => accuses(old),
            Confidence::Unknown => old.is_named(),
        });
        if !keeps {
            self.naming = Some(naming);
        }
        if self.is_named() {
            (self.state, self.pull_failure) = (State::Named, None);
        }
    }

    /// The naming, where it accuses somebody. Three that share the growth are listed and not accused.
    pub fn named(&self) -> Option<&Naming> {
        self.naming.as_ref().filter(|naming| accuses(naming))
    }

    /// The function that leaked and who made it: by our own profiles, else as the sidecar before this one had it.
    pub fn culprit(&self) -> Option<(&str, &str)> {
        let ours = self.named().and_then(|it| it.culprits.first()).map(|it| (&*it.function, &*it.made_by));
        ours.or_else(|| self.earlier_culprit())
    }

    /// Whom the sidecar before this one named.
    pub fn earlier_culprit(&self) -> Option<(&str, &str)> {
        let named = self.before.as_ref().filter(|it| it.state == State::Named.label())?;
        named.culprits.first().map(|it| (&*it.function, &*it.made_by))
    }

    /// Our own naming, where it is what the story says: what the sidecar before this one named stands until we name somebody.
    pub fn own_naming(&self) -> Option<&Naming> {
        self.naming.as_ref().filter(|_| self.before.is_none() || self.is_named())
    }

    /// Whether profiles named somebody.
    pub fn is_named(&self) -> bool {
        self.named().is_some()
    }
}

/// Whether a naming is good enough to say that somebody leaks.
pub fn accuses(naming: &Naming) -> bool {
    naming.is_named() && naming.confidence != Confidence::Low
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn alert(kind: AlertKind, severity: Severity) -> Alert {
        Alert {
            kind,
            severity,
            rule: "test",
            at: Duration::ZERO,
            per_second: 1.0,
            time_to_limit: None,
            evidence: String::new(),
        }
    }

    #[test]
    fn alerts_of_other_kinds_join_and_the_last_to_leave_ends_it() {
        let kind = IncidentKind::Alert(AlertKind::ClientLeak);
        let mut incident = Incident::open("id".into(), kind, Severity::Warn, "worker".into(), 0.0);
        assert!(!incident.join(alert(AlertKind::ClientLeak, Severity::Warn)));
        assert!(incident.join(alert(AlertKind::MemoryGrowth, Severity::Crit)));
        assert_eq!(incident.severity, Severity::Crit);
        assert!(!incident.leave(AlertKind::ClientLeak));
        assert!(!incident.leave(AlertKind::ThreadLeak), "an alert that never stood does not end it");
        assert!(incident.leave(AlertKind::MemoryGrowth));
        assert_eq!(incident.alerts.len(), 2, "what was seen stays in the story");
    }
}
