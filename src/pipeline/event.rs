//! The event that tells where an incident stands: title, tags and key, within Datadog's limits. Pure.
//!
//! Title and tags accuse only where the profiles do: three functions that share the growth stand in the [`text`] alone.

mod text;

use super::Figures;
use super::footing::Footing;
use super::incident::{Incident, IncidentKind, State};
use super::said::Turn;
use super::words::{Identity, clean, duration};
use crate::datadog::stable_hash;
use crate::detect::{AlertKind, Severity};
use crate::pprof::Class;
use crate::statsd::{AlertType, Event};

/// All that an event is made of beside its incident.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    pub figures: &'a Figures,
    pub footing: &'a Footing,
    pub who: &'a Identity,
    /// Unix seconds.
    pub now: f64,
}

pub fn event(incident: &Incident, turn: &Turn, scene: &Scene) -> Event {
    Event {
        title: cut(&title(incident, scene.figures), 100),
        text: text::text(incident, turn, scene),
        timestamp: Some(scene.now as i64),
        aggregation_key: Some(aggregation_key(incident.opened_as, scene.who)),
        source_type: Some("oomwatch".to_owned()),
        alert_type: alert_type(incident),
        tags: tags(incident, scene.who),
        ..Event::default()
    }
}

fn title(incident: &Incident, figures: &Figures) -> String {
    let app = clean(&incident.app, 40);
    let culprit = incident.culprit().map(|(function, _)| clean(function, 60));
    let rests = class(incident) == Class::CacheFills;
    let what = if rests { "grew" } else { "leaked" };
    let leaked = culprit.as_ref().map_or(String::new(), |function| format!("; it {what} in {function}"));
    let when = figures.time_to_limit.map_or(String::new(), |left| format!(": limit in {}", duration(left)));
    let turn = match incident.kind {
        IncidentKind::CrashLoop => Some("is in a crash loop"),
        IncidentKind::Alert(AlertKind::Freeze) => Some("is frozen at its memory limit"),
        _ => None,
    };
    match (incident.state, culprit) {
        (State::Open | State::Named, _) if let Some(turn) = turn => format!("{app} {turn}{leaked}"),
        (State::Killed, _) if incident.presumed => format!("{app} is gone, most likely OOM-killed{leaked}"),
        (State::Killed, _) => format!("{app} was OOM-killed{leaked}"),
        (State::Recovered, _) if let Some(parting) = incident.parting => format!("{app} {parting}{leaked}"),
        (State::Recovered, Some(_)) => format!("{app} is over it{leaked}"),
        (State::Recovered, None) => format!("{app} is over it: {}", kind_words(incident)),
        (_, Some(function)) if rests => format!("{app}: {function} filled up and rests"),
        (_, Some(function)) => format!("{app} leaks in {function}{when}"),
        (_, None) => format!("{app}: {}{when}", kind_words(incident)),
    }
}

fn class(incident: &Incident) -> Class {
    incident.naming.as_ref().map_or(Class::Unknown, |naming| naming.class)
}

fn kind_words(incident: &Incident) -> &'static str {
    let is_outside = class(incident) == Class::OutsideGoHeap;
    match incident.kind {
        IncidentKind::OomKill => "OOM kill",
        IncidentKind::CrashLoop => "crash loop",
        IncidentKind::Alert(AlertKind::MemoryGrowth) if is_outside => "memory grows outside the profiled heap",
        IncidentKind::Alert(AlertKind::MemoryGrowth) => "memory grows towards its limit",
        IncidentKind::Alert(AlertKind::ClientLeak) => "StatsD clients pile up",
        IncidentKind::Alert(AlertKind::ClientChurn) => "StatsD clients are made and thrown away",
        IncidentKind::Alert(AlertKind::GoroutineLeak) => "goroutines pile up",
        IncidentKind::Alert(AlertKind::ThreadLeak) => "threads pile up",
        IncidentKind::Alert(AlertKind::FdLeak) => "file descriptors pile up",
        IncidentKind::Alert(AlertKind::Freeze) => "frozen at its memory limit",
    }
}

fn alert_type(incident: &Incident) -> AlertType {
    match (incident.state, incident.severity) {
        (State::Recovered, _) => AlertType::Success,
        (State::Killed, _) | (_, Severity::Crit) => AlertType::Error,
        _ => AlertType::Warning,
    }
}

fn tags(incident: &Incident, who: &Identity) -> Vec<String> {
    let mut tags = who.tags.clone();
    tags.push(format!("oomwatch_incident:{}", incident.id));
    tags.push(format!("oomwatch_kind:{}", incident.kind.label()));
    // A stack without a frame of the app has no owner.
    let names = incident.culprit().map(|(function, made_by)| [made_by, function]);
    let owner = names.and_then(|names| names.into_iter().find(|name| !name.is_empty()));
    tags.extend(owner.map(|name| format!("oomwatch_culprit:{}", clean(name, 150).replace(',', "_"))));
    tags
}

/// One key for all events of an incident and for the same incident in the replicas of a deploy: of service, version and the kind
/// it opened with.
fn aggregation_key(kind: IncidentKind, who: &Identity) -> String {
    let text = format!("{}\0{}\0{}", who.service, who.version, kind.label());
    format!("oomwatch-{:016x}", stable_hash(text.bytes()))
}

fn cut(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit { text.to_owned() } else { text.chars().take(limit - 1).chain(['…']).collect() }
}

#[cfg(test)]
mod tests;
