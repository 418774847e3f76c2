//! What is said of an incident: its verdict, and figures as people say them. Pure: values in, words out. Its events are made in
//! `super::event`.
//!
//! Names come from the app's profiles and datagrams, so they may hold anything: every string is cut and stripped of control
//! characters before it stands in a sentence.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use super::incident::Incident;
use super::{Figures, Target, story};
use crate::detect::AlertKind;
use crate::pprof::{Class, Confidence};
use crate::snapshot::rfc3339;

const LIMIT_IN: &str = "; limit in about ";

/// What every event of this sidecar carries.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    pub service: String,
    pub version: String,
    /// service, env, version, pod: as `key:value`.
    pub tags: Vec<String>,
    pub pod: Option<String>,
    pub namespace: Option<String>,
    /// `page.public_url`, or where a port-forward would show the page.
    pub page_url: String,
    pub page_port: u16,
    pub public_url: bool,
    /// Where profiles are kept; `None` for in memory.
    pub profile_dir: Option<PathBuf>,
}

impl Identity {
    /// What an event calls the app: its service, or else the process's own name.
    pub fn app(&self, target: &Target) -> String {
        if self.service.is_empty() { target.name.clone() } else { self.service.clone() }
    }

    /// The name that its lives share: of one version, for the next may need other memory.
    pub fn lives_as(&self, target: &Target) -> String {
        let app = self.app(target);
        if self.version.is_empty() { app } else { format!("{app} {}", self.version) }
    }
}

/// The sentence of an incident as it stands: who leaks and when it ends, or what is known and why no more.
pub fn verdict(incident: &Incident, figures: &Figures) -> String {
    if let Some(end) = &incident.end {
        return end.clone();
    }
    if let Some(series) = &incident.series {
        return story::crash_loop(incident, series);
    }
    if let Some(alert) = incident.standing.get(&AlertKind::Freeze) {
        return story::frozen(incident, alert);
    }
    let app = clean(&incident.app, 60);
    if incident.alerts.keys().all(|kind| *kind == AlertKind::ClientChurn) && !incident.alerts.is_empty() {
        return format!("{app} {}", growth(incident, &Figures::default()));
    }
    if let Some(naming) = incident.named() {
        let leaks = if naming.class == Class::CacheFills { "" } else { " leaks" };
        return format!("{app}{leaks}: {}{}", naming.sentence, outlook(incident, figures));
    }
    if let Some(before) = &incident.before {
        // How long there was is no longer so.
        let told = before.verdict.split(LIMIT_IN).next().unwrap_or_default();
        return format!("{told}{}", outlook(incident, figures));
    }
    let mut text = format!("{app}: {}", growth(incident, figures));
    if let Some(naming) = &incident.naming {
        let _ = write!(text, "; {}", naming.sentence);
    } else if let Some(failure) = &incident.pull_failure {
        let _ = write!(text, "; not nameable: {failure}");
    } else {
        text.push_str("; not named yet: profiles are being pulled");
    }
    text
}

/// What the profile cannot know: how many clients are open, and when it ends.
fn outlook(incident: &Incident, figures: &Figures) -> String {
    let mut text = String::new();
    if let Some(clients) = figures.statsd_clients.filter(|_| incident.alerts.contains_key(&AlertKind::ClientLeak)) {
        let _ = write!(text, "; {clients} StatsD clients are open");
    }
    if let Some(left) = figures.time_to_limit {
        let _ = write!(text, "{LIMIT_IN}{}", duration(left));
    }
    text
}

/// What grows, in a clause, from the alerts that stand.
fn growth(incident: &Incident, figures: &Figures) -> String {
    let mut parts: Vec<String> = incident.alerts.values().map(|alert| alert.evidence.clone()).collect();
    if parts.is_empty() {
        parts.push("memory grows".to_owned());
    }
    if let Some(left) = figures.time_to_limit {
        parts.push(format!("limit in about {}", duration(left)));
    }
    parts.join("; ")
}

/// How sure a name is, and what makes it so.
pub fn sureness(confidence: Confidence) -> &'static str {
    match confidence {
        Confidence::High => "high: one name holds most of the growth, and a second look agrees",
        Confidence::Medium => "medium: one name stands out, and nothing else confirms it yet",
        Confidence::Low => "low: several names share the growth",
        Confidence::Unknown => "nobody is named",
    }
}

/// `14 min`, `45 s`, `3 h 20 min`: what a person says.
pub fn duration(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds @ 120..=7_199 => format!("{} min", seconds / 60),
        seconds @ 7_200..=172_799 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// `03:14 UTC`, with the seconds where they matter and the day where it is another.
pub fn clock(at: f64, now: f64) -> String {
    let (at_words, now_words) = (rfc3339(at.min(2e11)), rfc3339(now.min(2e11)));
    let day = if at_words[..10] == now_words[..10] { String::new() } else { format!("{} ", &at_words[..10]) };
    let end = if (at - now).abs() < 120.0 { 19 } else { 16 };
    format!("{day}{} UTC", &at_words[11..end])
}

/// `148 MiB`, with a decimal below ten.
pub fn bytes(n: u64) -> String {
    let (value, unit) = match n {
        0..=1_023 => return format!("{n} B"),
        1_024..=1_048_575 => (n as f64 / 1_024.0, "KiB"),
        1_048_576..=1_073_741_823 => (n as f64 / 1_048_576.0, "MiB"),
        _ => (n as f64 / 1_073_741_824.0, "GiB"),
    };
    if value < 10.0 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// The target in a few words for the log and the summary.
pub fn target(target: &Target) -> String {
    format!("{} (pid {}), found as {}", clean(&target.name, 60), target.pid, target.rule)
}

pub(super) fn clean(text: &str, limit: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(limit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_said_as_people_say_them() {
        assert_eq!(
            (bytes(1_023), bytes(5 << 20), bytes(148 << 20)),
            ("1023 B".into(), "5.0 MiB".into(), "148 MiB".into())
        );
        let clocks = [1_767_237_245.0, 1_767_237_300.0, 1_767_323_645.0].map(|at| clock(at, 1_767_237_200.0));
        assert_eq!(clocks, ["03:14:05 UTC", "03:15:00 UTC", "2026-01-02 03:14 UTC"]);
        let said = [14 * 60, 45, 7_500, 200_000].map(|seconds| duration(Duration::from_secs(seconds)));
        assert_eq!(said, ["14 min", "45 s", "2 h 5 min", "2 days"]);
    }
}
