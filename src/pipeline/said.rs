//! What the events of an incident have said, and which of them it still owes. Pure.
//!
//! A story must not fall silent after "profiles are being pulled", and must not flap either: the reason why nobody is named, a
//! better name and a surer one are told once each, and a limit that comes nearer three times.

use std::time::Duration;

use super::Figures;
use super::incident::{Incident, IncidentKind};
use crate::detect::{AlertKind, Severity};
use crate::pprof::{Confidence, Culprit, Naming};

/// Times that "the limit is nearer" is told.
const NEARER: u32 = 3;
/// It is told below this: half of a day left is no reason to wake somebody twice.
const SOON: Duration = Duration::from_secs(3_600);
/// The time to the limit is a projection and wavers: half of it must stand this long, and not right after another event.
const HELD: f64 = 15.0;
const APART: f64 = 60.0;

/// Which turn of the story an event tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Turn {
    Opened,
    /// Profiles came, or could not, and nobody is named: the verdict has the reason.
    Unnamed,
    Named,
    /// Another function than the one that was told.
    Renamed(String),
    /// The same, and now it is sure.
    Surer,
    /// The limit is less than half as far away as was told, at a time in Unix seconds.
    Nearer {
        left: Duration,
        told_at: f64,
    },
    Critical,
    Ended,
}

/// Belongs to one incident and to this process: of what a sidecar before this one told, only that it told something is known.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// Unix seconds of the last event.
    at: Option<f64>,
    /// The culprit that was told last, and how surely.
    name: Option<(Top, Confidence)>,
    /// Each of these is told once.
    unnamed: bool,
    renamed: bool,
    surer: bool,
    nearer: u32,
    /// The time to the limit that was told last, and since when less than half of it is left.
    left: Option<Duration>,
    halved_at: Option<f64>,
}

/// Function and owner.
type Top = (String, String);

fn top(naming: &Naming) -> Option<Top> {
    naming.culprits.first().map(|Culprit { function, made_by, .. }| (function.clone(), made_by.clone()))
}

impl Said {
    /// What is owed of the name: the first, one more that is another, one more that is sure. In a crash loop the first alone.
    pub fn of_the_name(&self, incident: &Incident) -> Option<Turn> {
        let naming = incident.named()?;
        let Some((told, confidence)) = &self.name else {
            return match incident.earlier_culprit() {
                told @ Some(_) if told == incident.culprit() => None,
                Some((function, _)) => Some(Turn::Renamed(function.to_owned())),
                None => Some(Turn::Named),
            };
        };
        if incident.kind == IncidentKind::CrashLoop {
            return None;
        }
        if top(naming).as_ref() != Some(told) {
            return (!self.renamed).then(|| Turn::Renamed(told.0.clone()));
        }
        let surer = naming.confidence == Confidence::High && *confidence != Confidence::High;
        (surer && !self.surer).then_some(Turn::Surer)
    }

    /// What is owed once a round of profiles is over: why it named nobody.
    pub fn of_no_name(&self, incident: &Incident) -> Option<Turn> {
        let new = !self.unnamed && self.name.is_none() && incident.before.is_none();
        let plain = incident.kind != IncidentKind::CrashLoop && incident.wants_a_name();
        (new && plain && has_a_reason(incident)).then_some(Turn::Unnamed)
    }

    /// What is owed when the limit comes nearer. Asked about once a second.
    pub fn of_the_limit(&mut self, incident: &Incident, figures: &Figures, now: f64) -> Option<Turn> {
        let told_at = *self.at.get_or_insert_with(|| {
            self.left = figures.time_to_limit;
            now
        });
        let (told, left) = (self.left.filter(|told| *told <= SOON)?, figures.time_to_limit);
        if left.is_none_or(|left| left > told / 2) || !is_alarm_of_memory(incident) {
            self.halved_at = None;
            return None;
        }
        let held = now - *self.halved_at.get_or_insert(now) >= HELD;
        (held && now - told_at >= APART && self.nearer < NEARER).then_some(Turn::Nearer { left: told, told_at })
    }

    /// An event goes out that tells `turn` and where the story stands.
    pub fn note(&mut self, turn: &Turn, incident: &Incident, figures: &Figures, now: f64) {
        (self.at, self.left, self.halved_at) = (Some(now), figures.time_to_limit, None);
        match turn {
            Turn::Renamed(_) => self.renamed = true,
            Turn::Surer => self.surer = true,
            Turn::Nearer { .. } => self.nearer += 1,
            Turn::Opened | Turn::Unnamed | Turn::Named | Turn::Critical | Turn::Ended => {}
        }
        match incident.named().and_then(|naming| Some((top(naming)?, naming.confidence))) {
            Some(name) => self.name = Some(name),
            None => self.unnamed |= has_a_reason(incident),
        }
    }
}

/// Something is known of why nobody is named.
fn has_a_reason(incident: &Incident) -> bool {
    !incident.is_named() && (incident.naming.is_some() || incident.pull_failure.is_some())
}

fn is_alarm_of_memory(incident: &Incident) -> bool {
    let stands = incident.standing.get(&AlertKind::MemoryGrowth).is_some_and(|it| it.severity > Severity::Notice);
    let other = incident.kind == IncidentKind::CrashLoop || incident.standing.contains_key(&AlertKind::Freeze);
    stands && !other
}
