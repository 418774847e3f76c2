//! The story of a demo: what the page's API and the loopback intake said, turned into lines to print and an outcome. Pure.
//!
//! The worker is ours, so the right answer is known: a verdict counts as naming the leak only when the function that makes
//! the clients, `handleJob`, stands in its first culprit. A sidecar that accuses somebody else fails the demo.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Deserialize;

use super::intake::{Arrived, Event};

/// The function of `demo/worker/handler.go` that leaks.
const GUILTY: &str = "handleJob";

/// How many lines of an event's text are shown.
const EVENT_LINES: usize = 6;

/// What the demo needs of an incident of `/api/incidents`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Incident {
    pub id: String,
    pub severity: String,
    pub state: String,
    #[serde(default)]
    pub verdict: String,
    #[serde(default)]
    pub culprits: Vec<Culprit>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Culprit {
    #[serde(default)]
    pub function: String,
    #[serde(default)]
    pub made_by: String,
    #[serde(default)]
    pub stack: Vec<String>,
}

/// What the demo needs of `/api/status`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Status {
    pub memory: Memory,
    pub statsd: Statsd,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Memory {
    pub rss_bytes: Option<u64>,
    pub state: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Statsd {
    pub clients: Option<u64>,
    pub samples: u64,
}

impl Incident {
    /// Warn or above: what an event is sent for.
    fn is_alarm(&self) -> bool {
        matches!(self.severity.as_str(), "warn" | "crit")
    }

    /// Whether its first culprit is the function that leaks.
    fn names_the_leak(&self) -> bool {
        self.culprits.first().is_some_and(|culprit| {
            let told = [&culprit.function, &culprit.made_by];
            told.into_iter().chain(&culprit.stack).any(|name| name.contains(GUILTY))
        })
    }
}

/// Payloads and items of one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Count {
    payloads: u64,
    items: u64,
}

/// What was seen so far. Grows by one entry for each incident, event and endpoint of a run that lasts minutes.
#[derive(Debug, Default)]
pub struct Story {
    incidents: BTreeMap<String, Incident>,
    events: Vec<Event>,
    counts: BTreeMap<&'static str, Count>,
    /// Payloads that could not be read, with the reason of the last.
    unreadable: Option<(u64, String)>,
}

impl Story {
    /// Takes an answer of `/api/incidents` in and returns what is new in it, as lines to print.
    pub fn incidents(&mut self, newest_first: Vec<Incident>) -> Vec<String> {
        newest_first.into_iter().rev().flat_map(|incident| self.incident(&incident)).collect()
    }

    fn incident(&mut self, incident: &Incident) -> Vec<String> {
        let before = self.incidents.insert(incident.id.clone(), incident.clone()).unwrap_or_default();
        let mut lines = Vec::new();
        if incident.severity != before.severity {
            let word = if incident.is_alarm() { "growth alert" } else { "notice" };
            lines.push(format!("{word} ({}): {}", incident.severity, incident.verdict));
        }
        if incident.names_the_leak() && !before.names_the_leak() {
            lines.push(format!("leak named: {}", incident.verdict));
            lines.extend(incident.culprits.first().map(chain));
        } else if incident.culprits.first() != before.culprits.first() && !incident.names_the_leak() {
            lines.push(format!("named somebody else than {GUILTY}: {}", incident.verdict));
        }
        if incident.state != before.state && matches!(incident.state.as_str(), "recovered" | "killed") {
            lines.push(format!("over, {}: {}", incident.state, incident.verdict));
        }
        lines
    }

    /// Takes a payload of the intake in and returns the lines to print: those of an event, none for metrics.
    pub fn arrived(&mut self, arrived: Arrived) -> Vec<String> {
        let count = self.counts.entry(arrived.endpoint).or_default();
        count.payloads += 1;
        count.items += arrived.items;
        if let Some(reason) = arrived.unreadable {
            let seen = self.unreadable.as_ref().map_or(0, |(seen, _)| *seen);
            self.unreadable = Some((seen + 1, reason));
        }
        let Some(event) = arrived.event else { return Vec::new() };
        let mut lines = vec![format!("event at the intake: {}", event.title)];
        lines.extend(
            event.text.lines().filter(|line| is_prose(line)).take(EVENT_LINES).map(|line| format!("  | {line}")),
        );
        self.events.push(event);
        lines
    }

    /// Whether a verdict names the leak and an event that says so has arrived.
    pub fn named(&self) -> bool {
        self.incidents.values().filter(|incident| incident.names_the_leak()).any(|incident| {
            let function = &incident.culprits[0].function;
            let tag = format!("oomwatch_incident:{}", incident.id);
            self.events.iter().any(|event| event.tags.contains(&tag) && event.says(function))
        })
    }

    /// Whether anything was raised, be it a notice that wakes nobody: of a healthy app there is nothing to say.
    pub fn alarmed(&self) -> bool {
        !self.events.is_empty() || self.began()
    }

    /// Whether any incident was seen at all: what a healthy baseline must come before.
    pub fn began(&self) -> bool {
        !self.incidents.is_empty()
    }

    /// What would have gone to Datadog, in a few lines.
    pub fn summary(&self) -> String {
        let mut text = String::from("what Datadog would have received:\n");
        for (endpoint, count) in &self.counts {
            let Count { payloads, items } = count;
            let _ = writeln!(text, "  {endpoint:<24} {payloads:>5} payloads, {items:>7} {}", noun(endpoint));
        }
        if self.counts.is_empty() {
            text.push_str("  nothing\n");
        }
        for event in &self.events {
            let _ = writeln!(text, "  event ({}): {}", event.alert_type, event.title);
        }
        if let Some((seen, reason)) = &self.unreadable {
            let _ = writeln!(text, "  {seen} payloads could not be read: {reason}");
        }
        text
    }
}

/// How a culprit came about, in one line.
fn chain(culprit: &Culprit) -> String {
    format!("  {} was called by {}", culprit.function, culprit.made_by)
}

/// Leaves out blank lines and the fences of Datadog's Markdown.
fn is_prose(line: &str) -> bool {
    !matches!(line.trim(), "" | "%%%")
}

fn noun(endpoint: &str) -> &'static str {
    match endpoint {
        "/api/v1/events" => "events",
        "/api/v1/check_run" => "checks",
        "/api/v1/validate" => "questions whether the key is valid",
        _ => "points",
    }
}

/// Where the worker stands, in one line.
pub fn progress(status: &Status, limit_bytes: u64) -> String {
    let mib = |bytes: u64| bytes / (1024 * 1024);
    let memory = status.memory.rss_bytes.map_or("unknown".to_owned(), |rss| format!("{} MiB", mib(rss)));
    let clients = status.statsd.clients.map_or("an unknown number of".to_owned(), |clients| clients.to_string());
    let samples = status.statsd.samples;
    format!(
        "memory {memory} of {} MiB, {clients} StatsD clients, {samples} samples so far, state: {}",
        mib(limit_bytes),
        status.memory.state
    )
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn noticed_story() -> Story {
        let mut story = Story::default();
        story.incidents(vec![incident("notice", "open", "", "")]);
        story
    }

    pub fn warned_story() -> Story {
        let mut story = Story::default();
        story.incidents(vec![incident("warn", "open", "", "")]);
        story
    }

    pub fn named_story() -> Story {
        let mut story = Story::default();
        story.incidents(serde_json::from_str(NAMED).unwrap());
        story.arrived(event("oomwatch_incident:a1", "statsd.newStatsdBuffer"));
        story
    }

    const NAMED: &str = r#"[{"id":"a1","kind":"client_leak","severity":"warn","opened_at":"2026-01-01T00:00:00.000Z",
        "closed_at":null,"state":"named","verdict":"worker leaks: statsd.newStatsdBuffer grew 148 MiB",
        "culprits":[{"function":"statsd.newStatsdBuffer","file":"buffer.go","line":21,"grew_bytes":1,"grew_objects":1,
        "share":0.96,"made_by":"main.handleJob","stack":["runtime.mallocgc"]}],"evidence":[],"profiles":[]}]"#;

    fn incident(severity: &str, state: &str, function: &str, made_by: &str) -> Incident {
        let culprit = Culprit { function: function.into(), made_by: made_by.into(), stack: Vec::new() };
        let culprits = if function.is_empty() { Vec::new() } else { vec![culprit] };
        Incident { id: "a1".into(), severity: severity.into(), state: state.into(), verdict: "V".into(), culprits }
    }

    fn event(tag: &str, text: &str) -> Arrived {
        let (title, text) = ("worker leaks".to_owned(), text.to_owned());
        let event = Event { title, text, tags: vec![tag.to_owned()], alert_type: "warning".to_owned() };
        Arrived { endpoint: "/api/v1/events", items: 1, event: Some(event), unreadable: None }
    }

    #[test]
    fn the_api_is_read_and_the_name_is_told_once() {
        let seen: Vec<Incident> = serde_json::from_str(NAMED).unwrap();
        let mut story = Story::default();
        let lines = story.incidents(seen.clone());
        assert_eq!(
            lines,
            [
                "growth alert (warn): worker leaks: statsd.newStatsdBuffer grew 148 MiB",
                "leak named: worker leaks: statsd.newStatsdBuffer grew 148 MiB",
                "  statsd.newStatsdBuffer was called by main.handleJob",
            ]
        );
        assert!(story.incidents(seen).is_empty(), "nothing new, nothing to print");
        assert!(!story.named(), "the event has not arrived");
    }

    #[test]
    fn named_wants_the_event_of_that_incident_with_the_function_in_it() {
        for (tag, text, expected) in [
            ("oomwatch_incident:a1", "`statsd.newStatsdBuffer` grew", true),
            ("oomwatch_incident:b2", "`statsd.newStatsdBuffer` grew", false),
            ("oomwatch_incident:a1", "memory grows", false),
        ] {
            let mut story = Story::default();
            story.incidents(serde_json::from_str(NAMED).unwrap());
            story.arrived(event(tag, text));
            assert_eq!(story.named(), expected, "{tag} {text}");
        }
    }

    #[test]
    fn accusing_an_innocent_function_is_told_and_does_not_count() {
        let mut story = Story::default();
        let lines = story.incidents(vec![incident("warn", "named", "lua.newRegistry", "main.enqueue")]);
        assert_eq!(lines, ["growth alert (warn): V", "named somebody else than handleJob: V"]);
        story.arrived(event("oomwatch_incident:a1", "lua.newRegistry"));
        assert!(!story.named());
    }

    #[test]
    fn each_turn_of_the_story_is_one_line() {
        let mut story = Story::default();
        let mut tell = |severity, state| story.incidents(vec![incident(severity, state, "", "")]);
        assert_eq!(tell("notice", "open"), ["notice (notice): V"]);
        assert_eq!(tell("warn", "open"), ["growth alert (warn): V"]);
        assert_eq!(tell("crit", "open"), ["growth alert (crit): V"]);
        assert_eq!(tell("crit", "killed"), ["over, killed: V"]);
    }

    #[test]
    fn a_notice_alarms_as_an_event_does() {
        let mut story = noticed_story();
        assert!(story.began() && story.alarmed());
        story.arrived(event("oomwatch_incident:a1", ""));
        assert!(story.alarmed());
    }

    #[test]
    fn an_event_shows_its_title_and_first_lines_without_fences() {
        let lines = Story::default().arrived(event("", "%%% \nfirst\n\nsecond\n %%%"));
        assert_eq!(lines, ["event at the intake: worker leaks", "  | first", "  | second"]);
    }

    #[test]
    fn the_summary_counts_by_endpoint_and_lists_events() {
        let mut story = Story::default();
        let payload = |items, unreadable| Arrived { endpoint: "/api/v2/series", items, event: None, unreadable };
        story.arrived(payload(7, None));
        story.arrived(payload(5, None));
        story.arrived(payload(0, Some("not zstd".to_owned())));
        story.arrived(event("", ""));
        assert_eq!(
            story.summary(),
            "what Datadog would have received:\n  \
             /api/v1/events               1 payloads,       1 events\n  \
             /api/v2/series               3 payloads,      12 points\n  \
             event (warning): worker leaks\n  \
             1 payloads could not be read: not zstd\n"
        );
    }

    #[test]
    fn progress_says_what_is_unknown() {
        let status: Status = serde_json::from_str(
            r#"{"version":"1","memory":{"rss_bytes":null,"state":"learning"},"statsd":{"clients":null,"samples":3}}"#,
        )
        .unwrap();
        assert_eq!(
            progress(&status, 512 << 20),
            "memory unknown of 512 MiB, an unknown number of StatsD clients, 3 samples so far, state: learning"
        );
    }
}
