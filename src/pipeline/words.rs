//! What is said of an incident: verdict, event titles and texts. Pure: values in, words out.
//!
//! Names come from the app's profiles and datagrams, so they may hold anything: every string is cut and stripped of control
//! characters before it stands in a sentence.

use std::fmt::Write;
use std::time::Duration;

use super::incident::{Incident, IncidentKind, State};
use super::{Figures, Target, story};
use crate::detect::{AlertKind, Severity};
use crate::pprof::Confidence;
use crate::statsd::{AlertType, Event};

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
        return format!("{app} leaks: {}{}", naming.sentence, outlook(incident, figures));
    }
    if let Some(before) = &incident.before {
        return before.verdict.clone();
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
        let _ = write!(text, "; limit in about {}", duration(left));
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

/// The event that tells where the story stands, within Datadog's limits (the encoder cuts what is still too long).
pub fn event(incident: &Incident, figures: &Figures, who: &Identity, now: f64) -> Event {
    Event {
        title: cut(&title(incident, figures), 100),
        text: text(incident, figures, who),
        timestamp: Some(now as i64),
        aggregation_key: Some(aggregation_key(incident.opened_as, who)),
        source_type: Some("oomwatch".to_owned()),
        alert_type: alert_type(incident),
        tags: tags(incident, who),
        ..Event::default()
    }
}

fn title(incident: &Incident, figures: &Figures) -> String {
    let app = clean(&incident.app, 40);
    let culprit = incident.culprit().map(|(function, _)| clean(function, 60));
    let leaked = culprit.as_ref().map_or(String::new(), |function| format!("; it leaked in {function}"));
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
        (State::Recovered, None) => format!("{app} is over it: {}", kind_words(incident.kind)),
        (_, Some(function)) => format!("{app} leaks in {function}{when}"),
        (_, None) => format!("{app}: {}{when}", kind_words(incident.kind)),
    }
}

fn kind_words(kind: IncidentKind) -> &'static str {
    match kind {
        IncidentKind::OomKill => "OOM kill",
        IncidentKind::CrashLoop => "crash loop",
        IncidentKind::Alert(AlertKind::MemoryGrowth) => "memory grows towards its limit",
        IncidentKind::Alert(AlertKind::ClientLeak) => "StatsD clients pile up",
        IncidentKind::Alert(AlertKind::ClientChurn) => "StatsD clients are made and thrown away",
        IncidentKind::Alert(AlertKind::GoroutineLeak) => "goroutines pile up",
        IncidentKind::Alert(AlertKind::ThreadLeak) => "threads pile up",
        IncidentKind::Alert(AlertKind::FdLeak) => "file descriptors pile up",
        IncidentKind::Alert(AlertKind::Freeze) => "frozen at its memory limit",
    }
}

fn text(incident: &Incident, figures: &Figures, who: &Identity) -> String {
    let look = how_to_look(incident, who);
    // Room for Datadog's 4,000 less the frame; the way to look at it is never what is cut.
    let told = cut(&story(incident, figures), 3_850_usize.saturating_sub(look.chars().count()));
    format!("%%% \n{told}\n{look}\n %%%")
}

fn story(incident: &Incident, figures: &Figures) -> String {
    let mut text = format!("**{}**\n", escape(&incident.verdict));
    text += &numbers(figures);
    if let Some(naming) = &incident.naming {
        for culprit in naming.culprits.iter().take(3).filter(|_| naming.is_named()) {
            let _ = writeln!(
                text,
                "- `{}` made by `{}` ({}:{}) grew {}, {:.0} % of the growth",
                tick(&culprit.function),
                tick(&culprit.made_by),
                // It stands in no backticks.
                escape(&clean(&culprit.made_by_file, 160)),
                culprit.made_by_line,
                bytes(culprit.grew_bytes.max(0).unsigned_abs()),
                culprit.share * 100.0
            );
        }
        let _ = writeln!(text, "- how sure: {}", sureness(naming.confidence));
        for (kind, words) in &naming.evidence {
            let _ = writeln!(text, "- {}: {}", escape(kind), escape(words));
        }
        if let Some(remedy) = naming.remedy {
            let _ = writeln!(text, "\nThe usual mend: {}", escape(remedy));
        }
    } else if let Some(failure) = &incident.pull_failure {
        let _ = writeln!(text, "- no profile: {}", escape(failure));
    }
    for alert in incident.alerts.values() {
        let _ = writeln!(text, "- rule `{}`: {}", alert.rule, escape(&alert.evidence));
    }
    text
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

fn numbers(figures: &Figures) -> String {
    if figures.memory_bytes == 0 {
        return "\n".to_owned();
    }
    let mut parts = vec![match figures.limit_bytes {
        Some(limit) => format!("memory {} of {}", bytes(figures.memory_bytes), bytes(limit)),
        None => format!("memory {}, no limit known", bytes(figures.memory_bytes)),
    }];
    if let Some(slope) = figures.slope_bytes_per_second.filter(|slope| *slope > 0.0) {
        parts.push(format!("{} a minute", bytes((slope * 60.0) as u64)));
    }
    let counts = [
        (figures.statsd_clients, "StatsD clients"),
        (figures.goroutines, "goroutines"),
        (figures.threads, "threads"),
        (figures.fds, "file descriptors"),
    ];
    parts.extend(counts.iter().filter_map(|(n, what)| n.map(|n| format!("{n} {what}"))));
    format!("\n{}\n\n", parts.join(" · "))
}

fn how_to_look(incident: &Incident, who: &Identity) -> String {
    let mut text = String::from("\n");
    let last = incident.profiles.iter().rev().take(3).rev();
    let kept: Vec<String> = last.map(|profile| format!("`{}` ({})", profile.id, profile.kind)).collect();
    if !kept.is_empty() {
        let _ = writeln!(text, "Kept by the sidecar: {}.", kept.join(", "));
    }
    if !who.public_url {
        let pod = who.pod.as_deref().unwrap_or("POD");
        let namespace = who.namespace.as_deref().map_or(String::new(), |name| format!("-n {name} "));
        let _ =
            writeln!(text, "`kubectl {namespace}port-forward {pod} {}`, then {}", who.page_port, link(incident, who));
        return text;
    }
    let _ = writeln!(text, "{}", link(incident, who));
    text
}

fn link(incident: &Incident, who: &Identity) -> String {
    format!("{}/#/incident/{}", who.page_url.trim_end_matches('/'), incident.id)
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
    if let Some((_, made_by)) = incident.culprit() {
        tags.push(format!("oomwatch_culprit:{}", clean(made_by, 150).replace(',', "_")));
    }
    tags
}

/// One key for all events of an incident and for the same incident in the replicas of a deploy: FNV-1a of service, version
/// and the kind it opened with. Stable over restarts and builds, which std's hasher does not promise.
fn aggregation_key(kind: IncidentKind, who: &Identity) -> String {
    let text = format!("{}\0{}\0{}", who.service, who.version, kind.label());
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("oomwatch-{hash:016x}")
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

fn cut(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit { text.to_owned() } else { text.chars().take(limit - 1).chain(['…']).collect() }
}

/// A `%%%` would end the block: no two percent signs are left side by side.
fn escape_percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '%' && out.ends_with('%') {
            out.push('\u{200b}');
        }
        out.push(c);
    }
    out
}

/// Markdown's own signs lose their meaning. Our sentences quote names in backticks, which go: escaped they would only be noise.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars().filter(|c| (!c.is_control() || *c == '\n') && *c != '`') {
        if matches!(c, '*' | '_' | '[' | ']' | '<' | '>' | '#' | '|' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    escape_percent(&out)
}

fn tick(text: &str) -> String {
    escape_percent(&clean(text, 160).replace('`', "'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out_of_the_block_or_its_markdown() {
        assert_eq!(escape("a_b*c`d`%%%%e"), "a\\_b\\*cd%\u{200b}%\u{200b}%\u{200b}%e");
        assert!(!tick("%%%%%%`").contains("%%"));
        assert_eq!(clean("a\u{7}b\nc", 2), "ab");
    }

    #[test]
    fn the_way_to_look_at_it_survives_any_length() {
        let kind = IncidentKind::Alert(AlertKind::MemoryGrowth);
        let mut incident = Incident::open("1".into(), kind, Severity::Warn, "app".into(), 0.0);
        incident.verdict = "long ".repeat(2_000);
        let who = Identity {
            pod: Some("web-1".into()),
            page_port: 7070,
            page_url: "http://127.0.0.1:7070".into(),
            ..Identity::default()
        };
        let event = event(&incident, &Figures::default(), &who, 1.0);
        assert!(event.text.chars().count() <= 4_000);
        assert!(event.text.contains("port-forward web-1 7070"), "{}", event.text);
        assert!(event.text.ends_with("%%%"));
    }

    #[test]
    fn sizes_and_times_are_said_as_people_say_them() {
        assert_eq!(
            (bytes(1_023), bytes(5 << 20), bytes(148 << 20)),
            ("1023 B".into(), "5.0 MiB".into(), "148 MiB".into())
        );
        let said = [14 * 60, 45, 7_500, 200_000].map(|seconds| duration(Duration::from_secs(seconds)));
        assert_eq!(said, ["14 min", "45 s", "2 h 5 min", "2 days"]);
    }
}
