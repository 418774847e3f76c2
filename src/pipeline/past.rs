//! Incidents of the sidecar before this one: shown below our own. The one that was open goes on if its process lives, and ends with
//! what can be known of it if that is gone; a crash loop is about the app and not about one process, so it goes on in any case.

use std::time::UNIX_EPOCH;

use super::incident::{Incident, IncidentKind, State};
use super::saved::{INCIDENTS, Saved, SavedIncident, SavedTarget, kind_of, severity_of};
use super::{Gone, Target};
use crate::detect::{Alert, AlertKind, Severity};
use crate::snapshot::{EvidenceView, IncidentView};

/// How a story ended that nobody saw the end of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    pub state: State,
    pub words: &'static str,
    /// For the title, where the state says too much.
    pub parting: Option<&'static str>,
}

const KILLED: Ending = Ending {
    state: State::Killed,
    words: "killed by the kernel for memory: its process was gone when the sidecar came back, and its cgroup counts a kill since",
    parting: None,
};
const SPARED: Ending = Ending {
    state: State::Recovered,
    words: "its process was gone when the sidecar came back, and why is not known; the kernel has killed nothing in its cgroup for \
            memory since",
    parting: Some("is gone, and why is not known"),
};
const UNSEEN: Ending = Ending {
    state: State::Recovered,
    words: "its process was gone when the sidecar came back, and why is not known",
    parting: Some("is gone, and why is not known"),
};
const LEFT: Ending = Ending {
    state: State::Recovered,
    words: "the sidecar was restarted and watches another process now; what became of the one before is not known",
    parting: Some("is watched no longer, another process is"),
};
const OVER: Ending = Ending {
    state: State::Recovered,
    words: "the sidecar was restarted, and nothing of it stands any more",
    parting: None,
};

impl From<Gone> for Ending {
    fn from(gone: Gone) -> Ending {
        match gone {
            Gone::OomKilled => KILLED,
            Gone::Ended => SPARED,
            Gone::Unknown => UNSEEN,
        }
    }
}

/// What becomes of the story that was open.
#[derive(Debug)]
pub enum Turn {
    GoesOn(Box<Incident>),
    Ends(Box<Incident>, Ending),
}

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
    /// The process that was watched; taken when the first of this run is met, or that one is found gone.
    target: Option<SavedTarget>,
    standing: Vec<(AlertKind, Severity)>,
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

    /// Of a story that stood open while no process was watched there is no more to learn.
    pub fn begin(&mut self) -> Option<Turn> {
        if self.target.is_some() { None } else { self.ended(UNSEEN) }
    }

    /// The first target of this run is here. `app` is what it is called, for a file that does not tell.
    pub fn meet(&mut self, target: &Target, app: &str) -> Option<Turn> {
        if !self.target.take()?.is(target) {
            return self.ended(LEFT);
        }
        let incident = self.take(app)?;
        let goes_on = is_loop(&incident) || !incident.standing.is_empty();
        Some(if goes_on { Turn::GoesOn(incident) } else { Turn::Ends(incident, OVER) })
    }

    /// The process that was watched is gone.
    pub fn gone(&mut self, gone: Gone) -> Option<Turn> {
        self.target.take()?;
        self.ended(gone.into())
    }

    fn ended(&mut self, ending: Ending) -> Option<Turn> {
        let mut incident = self.take("the app")?;
        if is_loop(&incident) {
            incident.standing.clear();
            return Some(Turn::GoesOn(incident));
        }
        Some(Turn::Ends(incident, ending))
    }

    /// The story that was open, no longer as one of the past.
    fn take(&mut self, app: &str) -> Option<Box<Incident>> {
        let open = self.views.iter().position(|view| view.closed_at.is_none())?;
        resumed(&self.views.remove(open), &self.standing, app).map(Box::new)
    }
}

fn is_loop(incident: &Incident) -> bool {
    incident.kind == IncidentKind::CrashLoop
}

/// An open incident from what was shown of it; `None` where a part of it is not ours.
fn resumed(view: &IncidentView, standing: &[(AlertKind, Severity)], app: &str) -> Option<Incident> {
    let (kind, severity) = (kind_of(view.kind)?, severity_of(view.severity)?);
    let opened = humantime::parse_rfc3339(&view.opened_at).ok()?.duration_since(UNIX_EPOCH).ok()?;
    // In the middle of its millisecond, or it would be shown as the one before.
    let opened = opened.as_secs_f64() + 0.000_5;
    let app = if view.app.is_empty() { app } else { &view.app };
    let mut incident = Incident::open(view.id.clone(), kind, severity, app.to_owned(), opened);
    incident.told = severity >= Severity::Warn;
    incident.opened_as = kind_of(view.opened_as).unwrap_or(kind);
    for (kind, severity) in standing {
        incident.join(alert(*kind, *severity, view));
    }
    incident.state = if view.state == State::Named.label() { State::Named } else { State::Open };
    incident.verdict.clone_from(&view.verdict);
    incident.before = Some(Box::new(view.clone()));
    Some(incident)
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

    fn past(kind: &'static str, standing: &[AlertKind]) -> Past {
        let view = |id: &str, closed: Option<&str>, state| IncidentView {
            id: id.into(),
            kind,
            opened_as: "memory_growth",
            app: "worker".into(),
            severity: "warn",
            opened_at: "2026-01-01T00:00:00.000Z".into(),
            closed_at: closed.map(str::to_owned),
            state,
            verdict: "worker leaks: f grew".into(),
            evidence: vec![EvidenceView { kind: "rule clients".into(), text: "28 StatsD clients open".into() }],
            ..IncidentView::default()
        };
        let views = vec![view("b", None, "named"), view("a", Some("2026-01-01T00:00:00.000Z"), "killed")];
        let standing = standing.iter().map(|kind| (*kind, Severity::Warn)).collect();
        Past { views, target: Some(SavedTarget { pid: 7, incarnation: 1, kills: None }), standing }
    }

    /// The story as it goes on, or as it ends.
    fn check(turn: Option<Turn>) -> Result<Incident, (String, Ending)> {
        match turn.expect("there is a story") {
            Turn::GoesOn(incident) => Ok(*incident),
            Turn::Ends(incident, ending) => Err((incident.id, ending)),
        }
    }

    #[test]
    fn the_story_of_a_process_that_lives_goes_on_under_the_key_of_its_first_event() {
        let mut past = past("client_leak", &[AlertKind::ClientLeak]);
        assert!(past.begin().is_none(), "its process may live");
        let mut incident = check(past.meet(&target(1), "other")).expect("it goes on");
        assert_eq!((incident.id.as_str(), incident.state, incident.told), ("b", State::Named, true));
        assert_eq!(incident.opened_as, IncidentKind::Alert(AlertKind::MemoryGrowth));
        assert_eq!(
            (incident.app.as_str(), incident.alerts[&AlertKind::ClientLeak].evidence.as_str()),
            ("worker", "28 StatsD clients open")
        );
        assert!(incident.is_open() && incident.leave(AlertKind::ClientLeak), "its all-clear ends it");
        assert_eq!(past.views().len(), 1);
    }

    #[test]
    fn a_story_ends_by_what_is_known_of_its_process() {
        let ended = |turn: &dyn Fn(&mut Past) -> Option<Turn>| {
            let mut past = past("client_leak", &[AlertKind::ClientLeak]);
            let (id, ending) = check(turn(&mut past)).expect_err("it ends");
            assert_eq!((id.as_str(), past.views().len()), ("b", 1));
            assert!(past.meet(&target(1), "worker").is_none() && past.gone(Gone::Unknown).is_none(), "only once");
            ending
        };
        assert_eq!(ended(&|past| past.gone(Gone::OomKilled)), KILLED);
        assert_eq!(ended(&|past| past.gone(Gone::Ended)), SPARED);
        assert_eq!(ended(&|past| past.gone(Gone::Unknown)), UNSEEN);
        assert_eq!(ended(&|past| past.meet(&target(2), "worker")), LEFT);
        let nobody = |past: &mut Past| {
            past.target = None;
            past.begin()
        };
        assert_eq!(ended(&nobody), UNSEEN);
    }

    #[test]
    fn what_no_rule_stands_for_any_more_is_ended() {
        let mut past = past("client_leak", &[]);
        assert_eq!(check(past.meet(&target(1), "worker")).expect_err("it ends").1, OVER);
    }

    #[test]
    fn a_crash_loop_outlives_its_processes() {
        let memory = [AlertKind::MemoryGrowth];
        let loop_of = |turn: &dyn Fn(&mut Past) -> Option<Turn>| {
            let incident = check(turn(&mut past("crash_loop", &memory))).expect("it goes on");
            assert_eq!((incident.kind, incident.told), (IncidentKind::CrashLoop, true));
            incident.standing.len()
        };
        assert_eq!(loop_of(&|past| past.meet(&target(1), "worker")), 1);
        assert_eq!(loop_of(&|past| past.meet(&target(2), "worker")), 0);
        assert_eq!(loop_of(&|past| past.gone(Gone::OomKilled)), 0);
    }
}
