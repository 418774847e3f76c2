//! Incidents as the API shows them: from what is computed with to what is sent as JSON.

use super::incident::{Incident, KeptProfile};
use super::words;
use crate::detect::Severity;
use crate::pprof::Culprit;
use crate::snapshot::{CulpritView, EvidenceView, IncidentView, ProfileView, rfc3339};

pub fn incident(incident: &Incident) -> IncidentView {
    let before = incident.before.as_deref();
    let profiles = before.iter().flat_map(|it| it.profiles.clone()).chain(incident.profiles.iter().map(profile));
    IncidentView {
        id: incident.id.clone(),
        kind: incident.kind.label(),
        opened_as: incident.opened_as.label(),
        app: incident.app.clone(),
        severity: severity(incident.severity),
        opened_at: rfc3339(incident.opened_at),
        closed_at: incident.closed_at.map(rfc3339),
        state: incident.state.label(),
        verdict: incident.verdict.clone(),
        culprits: match incident.own_naming() {
            Some(naming) => naming.culprits.iter().map(culprit).collect(),
            None => before.map_or_else(Vec::new, |it| it.culprits.clone()),
        },
        evidence: evidence(incident),
        profiles: profiles.collect(),
    }
}

pub fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Notice => "notice",
        Severity::Warn => "warn",
        Severity::Crit => "crit",
    }
}

fn evidence(incident: &Incident) -> Vec<EvidenceView> {
    let rules = incident
        .alerts
        .values()
        .map(|alert| EvidenceView { kind: format!("rule {}", alert.rule), text: alert.evidence.clone() });
    let naming = incident.naming.iter().flat_map(|naming| {
        let remedy = naming.remedy.map(|text| EvidenceView { kind: "remedy".to_owned(), text: text.to_owned() });
        let sure = EvidenceView { kind: "how sure".to_owned(), text: words::sureness(naming.confidence).to_owned() };
        let seen = naming.evidence.iter().map(|(kind, text)| EvidenceView { kind: kind.clone(), text: text.clone() });
        incident.own_naming().map(|_| sure).into_iter().chain(seen).chain(remedy)
    });
    let mut all: Vec<EvidenceView> = rules.chain(naming).collect();
    for old in incident.before.iter().flat_map(|it| &it.evidence) {
        if all.iter().all(|new| new.kind != old.kind) {
            all.push(old.clone());
        }
    }
    all
}

fn culprit(culprit: &Culprit) -> CulpritView {
    CulpritView {
        function: culprit.function.clone(),
        file: culprit.file.clone(),
        line: culprit.line,
        grew_bytes: culprit.grew_bytes,
        grew_objects: culprit.grew_objects,
        share: culprit.share,
        made_by: culprit.made_by.clone(),
        stack: culprit.stack.clone(),
    }
}

fn profile(profile: &KeptProfile) -> ProfileView {
    ProfileView {
        id: profile.id.clone(),
        kind: profile.kind,
        reason: profile.reason.clone(),
        taken_at: rfc3339(profile.taken_at),
        bytes: profile.bytes,
    }
}
