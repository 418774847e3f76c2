//! The turns of a story that need sentences of their own: the kill, the freeze, the crash loop, the all-clear. Pure.

use std::fmt::Write;
use std::time::Duration;

use super::Figures;
use super::incident::{Incident, IncidentKind};
use super::lives::Life;
use super::words::{bytes, clean, duration};
use crate::detect::{Alert, AlertKind};

/// The end of the story: how it died, where memory stood and how it came there, and what is known of the leak.
pub fn killed(incident: Option<&Incident>, figures: &Figures, certain: bool, life: Option<&Life>, now: f64) -> String {
    let how = if certain {
        "killed by the kernel for memory"
    } else {
        "gone at the edge of its limit, most likely an OOM kill"
    };
    let mut last = match figures.limit_bytes {
        Some(limit) if limit > 0 => {
            format!("last seen at {} of {}", bytes(figures.memory_bytes), bytes(limit))
        }
        _ => format!("last seen at {}", bytes(figures.memory_bytes)),
    };
    if let Some(life) = life {
        let _ = write!(last, " ({})", life.trajectory());
    }
    match incident {
        Some(incident) if incident.is_named() => {
            let naming = incident.naming.as_ref().map_or("", |naming| naming.sentence.as_str());
            let lead = Duration::from_secs_f64((now - incident.opened_at).max(0.0));
            format!(
                "{} was {how}, {last}, {} after the alert. The leak: {naming}",
                clean(&incident.app, 60),
                duration(lead)
            )
        }
        Some(incident) => {
            format!("{} was {how}, {last}; the leak was not named: {}", clean(&incident.app, 60), unnamed(incident))
        }
        None => format!("The app was {how}, {last}; no growth alert came before it"),
    }
}

fn unnamed(incident: &Incident) -> String {
    let said = incident.naming.as_ref().map(|naming| naming.sentence.clone());
    // Of a loop it would be the same words again, once more with each restart.
    let before = incident.before.as_ref().filter(|_| incident.kind != IncidentKind::CrashLoop);
    let before = || before.map(|it| format!("by this run; before it {}", it.verdict));
    said.or_else(|| incident.pull_failure.clone())
        .or_else(before)
        .unwrap_or_else(|| "no profile came back in time".to_owned())
}

/// The app hangs: what was seen, and what to do, for nothing will end it soon.
pub fn frozen(incident: &Incident, alert: &Alert) -> String {
    let mut text = format!(
        "{} is frozen at its memory limit: {}. The kernel may hang it for minutes rather than kill it: restart it, and raise \
         its limit or mend what fills it",
        clean(&incident.app, 60),
        alert.evidence
    );
    if let Some(naming) = incident.named() {
        let _ = write!(text, ". The leak: {}", naming.sentence);
    }
    text
}

/// The series as `lives` tell it, and what is known of the leak.
pub fn crash_loop(incident: &Incident, series: &str) -> String {
    let leak = match (incident.named(), incident.culprit()) {
        (Some(naming), _) => format!("The leak: {}", naming.sentence),
        (None, Some((function, made_by))) => format!("The leak, as named before: {function}, made in {made_by}"),
        (None, None) => format!("The leak is not named: {}", unnamed(incident)),
    };
    format!("{} is in a crash loop: {series}. {leak}", clean(&incident.app, 60))
}

pub fn recovered(incident: &Incident, figures: &Figures, why: &str) -> String {
    let mut text = format!("{} is over: {why}; memory is at {}", clean(&incident.app, 60), bytes(figures.memory_bytes));
    if let Some(naming) = incident.named() {
        let _ = write!(text, ". What leaked: {}", naming.sentence);
    }
    text
}

/// Why nothing stands any more.
pub fn all_clear(kind: IncidentKind) -> &'static str {
    match kind {
        IncidentKind::Alert(AlertKind::Freeze) => "the app runs again",
        IncidentKind::Alert(AlertKind::ClientChurn) => "StatsD clients are kept now",
        _ => "growth stopped and memory fell back",
    }
}
