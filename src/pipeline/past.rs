//! Incidents of the sidecar before this one: shown below our own, and the one that was open goes on if its process lives.

use std::time::UNIX_EPOCH;

use super::Target;
use super::incident::{Incident, IncidentKind, State};
use super::saved::{INCIDENTS, Saved, SavedIncident, SavedTarget, kind_of, severity_of};
use crate::detect::{Alert, AlertKind, Severity};
use crate::snapshot::{EvidenceView, IncidentView, rfc3339};

/// What is said of a story whose end nobody saw.
const UNSEEN: &str =
    "the sidecar was restarted, and the process that it watched has ended in between: how is not known";

/// Rules by their name, as the evidence of an incident shows them, and what they are about.
const RULES: [(&str, AlertKind); 14] = [
    ("trend_3s", AlertKind::MemoryGrowth),
    ("trend_10s", AlertKind::MemoryGrowth),
    ("trend_60s", AlertKind::MemoryGrowth),
    ("trend_300s", AlertKind::MemoryGrowth),
    ("trend_1200s", AlertKind::MemoryGrowth),
    ("trend_4800s", AlertKind::MemoryGrowth),
    ("burst", AlertKind::MemoryGrowth),
    ("near_limit", AlertKind::MemoryGrowth),
    ("clients", AlertKind::ClientLeak),
    ("goroutines", AlertKind::GoroutineLeak),
    ("threads", AlertKind::ThreadLeak),
    ("fds", AlertKind::FdLeak),
    ("freeze", AlertKind::Freeze),
    ("churn", AlertKind::ClientChurn),
];

/// The stories of earlier runs, newest first; at most [`INCIDENTS`].
#[derive(Clone, Debug, Default)]
pub struct Past {
    views: Vec<IncidentView>,
    target: Option<SavedTarget>,
    /// The kinds of alerts that stood.
    standing: Vec<AlertKind>,
}

impl Past {
    pub fn new(saved: &Saved) -> Past {
        Past {
            views: saved.incidents.iter().take(INCIDENTS).filter_map(SavedIncident::view).collect(),
            target: saved.target,
            standing: saved.rules.standing(),
        }
    }

    pub fn views(&self) -> &[IncidentView] {
        &self.views
    }

    /// The first target of this run is here: gives back the story that was open if it is about this process, else ends it.
    pub fn meet(&mut self, target: &Target, app: &str, now: f64) -> Option<Incident> {
        let is_same = self.target.take().is_some_and(|it| it.is(target)) && !self.standing.is_empty();
        let open = self.views.iter().position(|view| view.closed_at.is_none())?;
        if is_same {
            let view = self.views.remove(open);
            return resumed(&view, &self.standing, app);
        }
        let view = &mut self.views[open];
        (view.state, view.closed_at) = (State::Recovered.label(), Some(rfc3339(now)));
        view.verdict = format!("{}; {UNSEEN}", view.verdict);
        None
    }
}

/// An open incident from what was shown of it.
fn resumed(view: &IncidentView, standing: &[AlertKind], app: &str) -> Option<Incident> {
    let (kind, severity) = (kind_of(view.kind)?, severity_of(view.severity)?);
    let opened = humantime::parse_rfc3339(&view.opened_at).ok()?.duration_since(UNIX_EPOCH).ok()?;
    // In the middle of its millisecond, or it would be shown as the one before.
    let opened = opened.as_secs_f64() + 0.000_5;
    let mut incident = Incident::open(view.id.clone(), kind, severity, app.to_owned(), opened);
    for kind in standing {
        incident.join(alert(*kind, severity, view));
    }
    incident.state = if view.state == State::Named.label() { State::Named } else { State::Open };
    incident.told = severity >= Severity::Warn;
    incident.verdict.clone_from(&view.verdict);
    incident.before = Some(Box::new(view.clone()));
    Some(incident).filter(|incident| incident.kind != IncidentKind::OomKill)
}

/// An alert that stood: its words are those of the evidence that its rule left.
fn alert(kind: AlertKind, severity: Severity, view: &IncidentView) -> Alert {
    let rule_of = |it: &EvidenceView| {
        let name = it.kind.strip_prefix("rule ")?;
        RULES.iter().find(|(rule, of)| *rule == name && *of == kind).map(|(rule, _)| *rule)
    };
    let told = view.evidence.iter().find_map(|it| Some((rule_of(it)?, it.text.clone())));
    let (rule, evidence) = told.unwrap_or_else(|| ("before", "it grew before the sidecar was restarted".to_owned()));
    Alert { kind, severity, rule, at: std::time::Duration::ZERO, per_second: 0.0, time_to_limit: None, evidence }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(incarnation: u64) -> Target {
        Target { pid: 7, name: "worker".into(), rule: "test".into(), incarnation }
    }

    fn past(standing: &[AlertKind]) -> Past {
        let view = |id: &str, closed: Option<&str>, state| IncidentView {
            id: id.into(),
            kind: "client_leak",
            severity: "warn",
            opened_at: "2026-01-01T00:00:00.000Z".into(),
            closed_at: closed.map(str::to_owned),
            state,
            verdict: "worker leaks: f grew".into(),
            evidence: vec![EvidenceView { kind: "rule clients".into(), text: "28 StatsD clients open".into() }],
            ..IncidentView::default()
        };
        let views = vec![view("b", None, "named"), view("a", Some("2026-01-01T00:00:00.000Z"), "killed")];
        Past { views, target: Some(SavedTarget { pid: 7, incarnation: 1 }), standing: standing.to_vec() }
    }

    #[test]
    fn the_story_of_a_process_that_lives_goes_on() {
        let mut past = past(&[AlertKind::ClientLeak]);
        let mut incident = past.meet(&target(1), "worker", 9e9).expect("it goes on");
        assert_eq!((incident.id.as_str(), incident.state, incident.told), ("b", State::Named, true));
        assert_eq!(incident.alerts[&AlertKind::ClientLeak].evidence, "28 StatsD clients open");
        assert!(incident.is_open() && incident.leave(AlertKind::ClientLeak), "its all-clear ends it");
        assert_eq!(past.views().len(), 1);
    }

    #[test]
    fn the_story_of_another_process_ends_unseen() {
        let mut past = past(&[AlertKind::ClientLeak]);
        assert!(past.meet(&target(2), "worker", 9e9).is_none());
        let view = &past.views()[0];
        assert_eq!(view.state, "recovered");
        assert!(view.closed_at.is_some() && view.verdict.ends_with(UNSEEN), "{view:?}");
        assert!(past.meet(&target(1), "worker", 9e9).is_none(), "only the first target is asked");
    }

    #[test]
    fn what_no_rule_stands_for_any_more_is_ended() {
        let mut past = past(&[]);
        assert!(past.meet(&target(1), "worker", 9e9).is_none());
        assert!(past.views()[0].closed_at.is_some());
    }
}
