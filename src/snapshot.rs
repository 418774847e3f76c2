//! What the page and the API may see: immutable parts, each published by its owner through a watch channel, latest wins.
//!
//! The types here are the JSON of the API (`snake_case`, sizes in bytes, times in RFC 3339 UTC): a rename is a change of the
//! interface. They are kept apart from the types that are computed with.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// The receiving ends of every part. The page and the health listener hold a clone and never ask a task anything.
#[derive(Clone, Debug)]
pub struct Snapshots {
    pub statsd: watch::Receiver<Arc<StatsdPart>>,
    pub output: watch::Receiver<Arc<OutputPart>>,
    pub watch: watch::Receiver<Arc<WatchPart>>,
    pub incidents: watch::Receiver<Arc<Vec<IncidentView>>>,
    /// What the settings say; written by `app` at the start and at a reload.
    pub about: watch::Receiver<Arc<About>>,
    /// What is wrong with the state file now; written by its owner.
    pub state: watch::Receiver<Arc<Vec<DegradedView>>>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct About {
    pub version: String,
    pub started_at: String,
    /// No key, no disk; a settings file that could not be taken over, keys that wait for a restart.
    #[serde(skip)]
    pub degraded: Vec<DegradedView>,
}

/// Published by the rollup at each flush.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StatsdPart {
    pub datagrams: u64,
    pub samples: u64,
    pub contexts: u64,
    /// Live clients, from the census; `null` where it cannot be counted. Filled by the API from [`WatchPart`].
    pub clients: Option<u64>,
    /// Distinct source ports in the last 10 s.
    pub senders: u64,
    /// Source ports so far that had been silent for the minute before: how many clients were made.
    pub new_senders: u64,
    /// Samples without what clients say of themselves, since the start: the app's work, for the watch.
    #[serde(skip)]
    pub app_samples: u64,
    /// Reports of Datadog clients on themselves in the last 10 s.
    pub reporting_clients: u64,
    pub dropped: BTreeMap<&'static str, u64>,
    #[serde(skip)]
    pub identities: BTreeMap<&'static str, i64>,
    #[serde(skip)]
    pub top: TopContexts,
}

/// Busiest and most numerous metric names, for `/api/contexts` and `top`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TopContexts {
    pub names: Vec<TopName>,
    /// Samples folded into overflow contexts so far.
    pub folded: u64,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct TopName {
    pub name: String,
    pub samples: u64,
    pub contexts: u64,
}

/// Published by the sink whenever a payload is settled, and at least once a second.
#[derive(Clone, Debug, Default, Serialize)]
pub struct OutputPart {
    /// `intake`, `agent` or `none`.
    pub mode: &'static str,
    /// RFC 3339; `null` before the first success.
    pub last_success: Option<String>,
    pub queued_bytes: u64,
    pub outage_seconds_left: Option<u64>,
    /// The sink's own losses by reason; the API adds them to [`StatsdPart::dropped`].
    #[serde(skip)]
    pub dropped: BTreeMap<&'static str, u64>,
    #[serde(skip)]
    pub identities: BTreeMap<&'static str, i64>,
    /// What is wrong with the output now, with the line that mends it (a refused key, a wrong site).
    #[serde(skip)]
    pub degraded: Vec<DegradedView>,
}

/// Published by the watch at each reading.
#[derive(Clone, Debug, Default)]
pub struct WatchPart {
    pub target: Option<TargetView>,
    pub memory: MemoryView,
    pub statsd_clients: Option<u64>,
    /// Datagrams that the kernel dropped at our sockets; the API adds them to [`StatsdPart::dropped`] as `kernel_rcvbuf`.
    pub kernel_drops: u64,
    pub degraded: Vec<DegradedView>,
    pub identities: BTreeMap<&'static str, i64>,
    /// The series behind the chart, oldest first, down-sampled to at most [`MAX_READINGS`] points.
    pub readings: Arc<Vec<ReadingPoint>>,
}

/// How many points the chart may have: 15 min at 1 s, thinned beyond that.
pub const MAX_READINGS: usize = 1_000;

#[derive(Clone, Debug, Default, Serialize)]
pub struct TargetView {
    pub pid: i32,
    pub name: String,
    pub rule: String,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct MemoryView {
    pub rss_bytes: Option<u64>,
    pub working_set_bytes: Option<u64>,
    pub limit_bytes: Option<u64>,
    pub slope_bytes_per_second: Option<f64>,
    pub time_to_limit_seconds: Option<f64>,
    /// `learning`, `quiet`, `notice`, `warn` or `crit`; `""` before the first reading.
    pub state: &'static str,
}

/// One point of `/api/readings`, which sends columns, and the `reading` event of the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct ReadingPoint {
    /// Unix seconds.
    pub t: f64,
    pub rss_bytes: Option<u64>,
    pub working_set_bytes: Option<u64>,
    pub heap_bytes: Option<u64>,
    pub limit_bytes: Option<u64>,
    pub threads: Option<u64>,
    pub goroutines: Option<u64>,
    pub fds: Option<u64>,
    pub statsd_clients: Option<u64>,
    pub incarnation: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DegradedView {
    pub what: String,
    pub why: String,
    pub fix: String,
}

/// One incident, as `/api/incidents` lists it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct IncidentView {
    pub id: String,
    pub kind: &'static str,
    /// The kind that its events go under, and the name of the app: for the state file.
    #[serde(skip)]
    pub opened_as: &'static str,
    #[serde(skip)]
    pub app: String,
    pub severity: &'static str,
    pub opened_at: String,
    pub closed_at: Option<String>,
    pub state: &'static str,
    pub verdict: String,
    pub culprits: Vec<CulpritView>,
    pub evidence: Vec<EvidenceView>,
    pub profiles: Vec<ProfileView>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CulpritView {
    pub function: String,
    pub file: String,
    pub line: i64,
    pub grew_bytes: i64,
    pub grew_objects: i64,
    /// Of the growth that the profiles show, 0 to 1.
    pub share: f64,
    pub made_by: String,
    pub stack: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvidenceView {
    pub kind: String,
    pub text: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ProfileView {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub reason: String,
    pub taken_at: String,
    pub bytes: u64,
}

/// Unix seconds as RFC 3339 in UTC with milliseconds, as the API writes times.
pub fn rfc3339(unix_seconds: f64) -> String {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs_f64(unix_seconds.max(0.0));
    humantime::format_rfc3339_millis(time).to_string()
}
