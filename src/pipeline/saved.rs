//! What outlives a restart of the sidecar: the state of the rules and the incidents as the API shows them, as one value that is
//! written to disk as JSON. Pure: [`crate::sink::state`] owns the file.
//!
//! Labels are kept as text, because a file may come from another version: one that is not known here makes its incident be left
//! out, never misread.

use serde::{Deserialize, Serialize};

use super::Target;
use super::incident::{IncidentKind, State as Story};
use super::{Kills, ProfileKind, views};
use crate::detect::{self, AlertKind, Severity};
use crate::snapshot::{CulpritView, EvidenceView, IncidentView, ProfileView};

/// Incidents that are kept; the oldest goes first.
pub const INCIDENTS: usize = 50;

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    /// Unix seconds.
    pub saved_at: f64,
    /// The process that was watched.
    pub target: Option<SavedTarget>,
    pub rules: detect::Saved,
    /// Newest first; at most [`INCIDENTS`].
    pub incidents: Vec<SavedIncident>,
}

impl Saved {
    /// The watch's part of it.
    pub fn watched(&self) -> SavedWatch {
        SavedWatch { target: self.target, rules: self.rules.clone() }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedTarget {
    pub pid: i32,
    pub incarnation: u64,
    /// As they were counted at the last reading: one more when its process is gone is how it ended.
    pub kills: Option<Kills>,
}

impl SavedTarget {
    pub fn is(&self, target: &Target) -> bool {
        (self.pid, self.incarnation) == (target.pid, target.incarnation)
    }
}

/// The rules' part, published by the watch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SavedWatch {
    pub target: Option<SavedTarget>,
    pub rules: detect::Saved,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedIncident {
    id: String,
    kind: String,
    /// What its events go under, and who it is about. A file of before they were kept has neither.
    opened_as: Option<String>,
    app: Option<String>,
    severity: String,
    opened_at: String,
    closed_at: Option<String>,
    state: String,
    verdict: String,
    culprits: Vec<CulpritView>,
    evidence: Vec<EvidenceView>,
    profiles: Vec<SavedProfile>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedProfile {
    id: String,
    kind: String,
    reason: String,
    taken_at: String,
    bytes: u64,
}

impl From<&IncidentView> for SavedIncident {
    fn from(view: &IncidentView) -> SavedIncident {
        SavedIncident {
            id: view.id.clone(),
            kind: view.kind.to_owned(),
            opened_as: Some(view.opened_as.to_owned()),
            app: Some(view.app.clone()),
            severity: view.severity.to_owned(),
            opened_at: view.opened_at.clone(),
            closed_at: view.closed_at.clone(),
            state: view.state.to_owned(),
            verdict: view.verdict.clone(),
            culprits: view.culprits.clone(),
            evidence: view.evidence.clone(),
            profiles: view.profiles.iter().map(SavedProfile::from).collect(),
        }
    }
}

impl From<&ProfileView> for SavedProfile {
    fn from(view: &ProfileView) -> SavedProfile {
        SavedProfile {
            id: view.id.clone(),
            kind: view.kind.to_owned(),
            reason: view.reason.clone(),
            taken_at: view.taken_at.clone(),
            bytes: view.bytes,
        }
    }
}

impl SavedIncident {
    /// As the API shows it; `None` where a label is not one of ours.
    pub fn view(&self) -> Option<IncidentView> {
        let profiles = self.profiles.iter().filter_map(|it| {
            let kind = ProfileKind::ALL.iter().map(|kind| kind.label()).find(|label| *label == it.kind)?;
            let SavedProfile { id, reason, taken_at, bytes, .. } = it.clone();
            Some(ProfileView { id, kind, reason, taken_at, bytes })
        });
        let kind = kind_of(&self.kind)?;
        Some(IncidentView {
            id: self.id.clone(),
            kind: kind.label(),
            opened_as: self.opened_as.as_deref().and_then(kind_of).unwrap_or(kind).label(),
            app: self.app.clone().unwrap_or_default(),
            severity: views::severity(severity_of(&self.severity)?),
            opened_at: self.opened_at.clone(),
            closed_at: self.closed_at.clone(),
            state: STORIES.iter().map(|story| story.label()).find(|label| *label == self.state)?,
            verdict: self.verdict.clone(),
            culprits: self.culprits.clone(),
            evidence: self.evidence.clone(),
            profiles: profiles.collect(),
        })
    }
}

const STORIES: [Story; 4] = [Story::Open, Story::Named, Story::Recovered, Story::Killed];

/// The kind with this label.
pub fn kind_of(label: &str) -> Option<IncidentKind> {
    let alerts = [
        AlertKind::MemoryGrowth,
        AlertKind::ClientLeak,
        AlertKind::ClientChurn,
        AlertKind::GoroutineLeak,
        AlertKind::ThreadLeak,
        AlertKind::FdLeak,
        AlertKind::Freeze,
    ];
    let kinds = alerts.into_iter().map(IncidentKind::Alert).chain([IncidentKind::OomKill, IncidentKind::CrashLoop]);
    kinds.into_iter().find(|kind| kind.label() == label)
}

pub fn severity_of(label: &str) -> Option<Severity> {
    [Severity::Notice, Severity::Warn, Severity::Crit].into_iter().find(|it| views::severity(*it) == label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> IncidentView {
        IncidentView {
            id: "65a01".into(),
            kind: "client_leak",
            opened_as: "memory_growth",
            app: "worker".into(),
            severity: "crit",
            opened_at: "2026-01-01T00:00:00.000Z".into(),
            closed_at: None,
            state: "named",
            verdict: "worker leaks".into(),
            culprits: vec![CulpritView { function: "f".into(), grew_bytes: -3, ..CulpritView::default() }],
            evidence: vec![EvidenceView { kind: "rule clients".into(), text: "28 open".into() }],
            profiles: vec![
                ProfileView { id: "a1".into(), kind: "heap", ..ProfileView::default() },
                ProfileView { id: "a2".into(), kind: "goroutineleak", ..ProfileView::default() },
            ],
        }
    }

    #[test]
    fn an_incident_comes_back_as_it_was_shown() {
        let text = serde_json::to_string(&SavedIncident::from(&view())).expect("JSON");
        let back: SavedIncident = serde_json::from_str(&text).expect("ours");
        assert_eq!(back.view(), Some(view()));
    }

    #[test]
    fn a_file_of_before_names_and_kinds_were_kept_is_read_all_the_same() {
        let text = serde_json::to_string(&SavedIncident::from(&view())).expect("JSON");
        let old = text.replace(r#""opened_as":"memory_growth","app":"worker","#, "");
        assert_ne!(old, text);
        let back: SavedIncident = serde_json::from_str(&old).expect("ours");
        let told = back.view().map(|view| (view.kind, view.opened_as, view.app));
        assert_eq!(told, Some(("client_leak", "client_leak", String::new())));
    }

    #[test]
    fn a_label_that_is_not_ours_leaves_the_incident_out() {
        let mut saved = SavedIncident::from(&view());
        saved.kind = "telepathy".into();
        assert_eq!(saved.view(), None);
        saved.kind = "oom_kill".into();
        assert_eq!(saved.view().map(|view| view.kind), Some("oom_kill"));
    }
}
