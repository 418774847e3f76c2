//! The tasks that own state, and every message that passes between tasks (those about profiles in
//! `profiles.rs`), with the size of every queue.
//!
//! ```text
//! source::{udp,unix}─Batch────▶ rollup ──Outgoing──▶ sink::{intake, agent, none}
//!                                 ▲ Vec<OwnMetric>         ▲ Outgoing::Urgent
//! source::sampler ─Observation─▶ watch ──Finding──▶ investigate ──StoreRequest──▶ sink::store
//!                 ◀──── Pace ────┘ ◀────Runtime─────  │  ▲
//!                                         PullRequest ▼  │ PullReply
//!                                              source::puller
//! investigate ──Upload──▶ sink::upload ──▶ Datadog (profiles)
//! watch, investigate ──latest──▶ sink::state ──▶ the state file
//! ```

pub mod baselines;
pub mod chart;
mod compare;
mod errand;
mod event;
mod footing;
pub mod incident;
pub mod investigate;
pub mod ledger;
mod lives;
pub mod past;
pub mod plan;
mod profiles;
mod pulls;
mod rollup;
mod said;
pub mod saved;
mod story;
pub mod upload;
pub mod views;
pub mod watch;
pub mod words;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::Instant;

pub use profiles::{
    Index, NewProfile, Pin, ProfileKind, PullFailed, PullNow, PullReply, PullRequest, Pulled, ReadingPlace,
    StoreRequest, StoredProfile,
};
pub use pulls::Answers;
pub use rollup::Rollup;
pub use upload::Upload;

use crate::aggregate::Window;
use crate::detect::{Change, Reading};
use crate::statsd::{Event, ServiceCheck};

/// Batches between the sockets and the rollup. Full: the socket waits, the kernel buffers, and what the kernel drops is read
/// back from `/proc/net/udp` and counted as `kernel_rcvbuf`. On Unix sockets the sender waits, or gives up and knows it. A
/// batch is 64 KiB, and at most 320 KiB where all datagrams are long.
pub const BATCHES: usize = 32;

/// Windows, events and checks on their way to the sink, which moves them to its own byte-bounded queue and never waits for
/// the network before taking the next. Full: the newest is dropped and its points counted as `queue_full`.
pub const OUTGOING: usize = 256;

/// Sets of our own metrics from the watch to the rollup, one a reading. Full: that reading's gauges are skipped; the next
/// reading brings newer ones.
pub const OWN_METRICS: usize = 16;

/// Readings from the sampler to the watch. Full: the sampler waits, which only makes the next reading later.
pub const OBSERVATIONS: usize = 4;

/// Findings from the watch to the investigation. Full: the watch waits, and readings are taken later; nothing is lost.
pub const FINDINGS: usize = 64;

/// Pulls asked for and not begun. The investigation asks for one at a time, so this is never full.
pub const PULLS: usize = 1;

/// Requests to the profile store. Full: the asker waits; the page gives up by its own time limit.
pub const STORE: usize = 8;

/// Uploads of profiles that wait while one is under way, each of at most [`crate::datadog::MAX_UPLOAD`] bytes. Full: the newest
/// is lost and counted as `queue_full`; rounds are a minute apart and an upload is given up sooner.
pub const UPLOADS: usize = 1;

/// Wishes of people for a round of pulls, from the page. Full: the page says that the sidecar is busy.
pub const ASKED: usize = 2;

/// What a batch keeps of its room when it is given back.
const SPARE_BYTES: usize = 128 * 1024;

/// Raw datagrams as they came, back to back. Parsing happens in the rollup.
#[derive(Debug, Default)]
pub struct Batch {
    pub bytes: Vec<u8>,
    /// Where each datagram ends in `bytes`, and what is known of it.
    pub datagrams: Vec<Datagram>,
    pub refused: Refused,
    /// Where its buffers go once they are read.
    pub home: Option<mpsc::Sender<Batch>>,
}

/// What a source did not take since its last batch. The rollup counts it, under the names of the fields' reasons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Frames of a stream longer than `statsd.max_datagram`: `frame_too_long`.
    pub frames_too_long: u32,
    /// Stream connections beyond the most that are held at once: `connections`.
    pub connections: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    pub end: u32,
    /// Longer than `statsd.max_datagram`: the cut last line is dropped and counted.
    pub truncated: bool,
    /// The sender's source port; 0 on a Unix socket.
    pub port: u16,
}

impl Batch {
    /// An empty one whose buffers can be used again.
    pub fn at_home(home: mpsc::Sender<Batch>) -> Batch {
        Batch { home: Some(home), ..Batch::default() }
    }

    /// Back to its source with what was read of it; freed where the source has enough of them.
    pub fn give_back(mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(SPARE_BYTES);
        self.datagrams.clear();
        self.refused = Refused::default();
        if let Some(home) = self.home.clone() {
            let _freed = home.try_send(self);
        }
    }

    /// Appends one datagram, or one frame of a stream.
    pub fn push(&mut self, bytes: &[u8], truncated: bool, port: u16) {
        self.bytes.extend_from_slice(bytes);
        let end = u32::try_from(self.bytes.len())
            .expect("a batch ends soon after 64 KiB, and a datagram has at most as much");
        self.datagrams.push(Datagram { end, truncated, port });
    }

    /// There is nothing in it for the rollup.
    pub fn is_empty(&self) -> bool {
        self.datagrams.is_empty() && self.refused == Refused::default()
    }

    /// The datagrams with their bytes, in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = (Datagram, &[u8])> {
        let mut start = 0;
        self.datagrams.iter().map(move |datagram| {
            let end = datagram.end as usize;
            let bytes = &self.bytes[start..end];
            start = end;
            (*datagram, bytes)
        })
    }
}

/// What leaves for Datadog.
#[derive(Debug)]
pub enum Outgoing {
    Window(Window),
    Event(Event),
    /// An incident's event: ahead of every backlog, tried at once.
    Urgent(Event),
    Check(ServiceCheck),
}

/// One of our own gauges or counts, on its way through the same windows as the app's metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnMetric {
    pub name: &'static str,
    pub value: f64,
    /// A count is added up over the window; a gauge is replaced.
    pub count: bool,
    /// `key:value`, from enums only.
    pub tag: Option<String>,
}

/// The process that is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub pid: i32,
    pub name: String,
    /// The rule that found it, in words, with the runners-up.
    pub rule: String,
    /// Start time in clock ticks since boot: with the pid it is the identity.
    pub incarnation: u64,
}

/// One look at the target, or at its absence.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    pub reading: Reading,
    pub target: Option<Target>,
    /// Resident memory, and the working set where the cgroup tells it; the reading holds what the rules look at.
    pub rss_bytes: Option<u64>,
    pub working_set_bytes: Option<u64>,
    /// `None` where the app's cgroup cannot be read.
    pub oom_kills: Option<Kills>,
    /// What the limit was read from, in words.
    pub limit_source: &'static str,
    /// The target of the reading before is gone; `Some(true)` when the kernel killed it for memory.
    pub gone: Option<Gone>,
    /// The process that the sidecar before this one watched is gone. Told once, at the first look that finds it so.
    pub before: Option<Gone>,
    pub census: Census,
    pub degraded: Arc<Vec<Degraded>>,
    pub self_rss_bytes: Option<u64>,
}

/// What the kernel has killed for memory in the app's cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kills {
    /// Which counter it is, over restarts of the sidecar: its inode, which no later cgroup of the same path has.
    pub counter: u64,
    /// Since the cgroup was made.
    pub count: u64,
}

/// How the target ended, as far as it can be known from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    OomKilled,
    Ended,
    /// It is gone, and nothing that we may read tells why.
    Unknown,
}

/// Live StatsD clients and what the kernel dropped, from `/proc/net` and our stream socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// On all transports; `None` where one of them cannot be counted.
    pub clients: Option<u64>,
    /// The uid that holds most of them.
    pub uid: Option<u32>,
    /// Datagrams the kernel dropped at our sockets since they were opened.
    pub kernel_drops: u64,
}

/// Something that is missing, why, and the line that mends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Degraded {
    pub what: String,
    pub why: String,
    pub fix: String,
}

/// What the investigation knows of the inside of the app, for the watch's gauges and rules.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Runtime {
    pub goroutines: Option<u64>,
    /// In-use bytes of the last heap profile.
    pub live_heap_bytes: Option<u64>,
    /// When that is too old to speak for the app.
    pub live_heap_until: Option<Instant>,
    /// Why there are no profiles, and the line that mends it.
    pub degraded: Option<Degraded>,
    /// Right side minus left side of identity I6.
    pub pulls_error: i64,
    /// Whether the port answers.
    pub answers: Answers,
}

impl Runtime {
    /// Takes what a profile told of it, if it did.
    fn hear_live_heap(&mut self, bytes: Option<u64>, until: Instant) {
        if bytes.is_some() {
            (self.live_heap_bytes, self.live_heap_until) = (bytes, Some(until));
        }
    }

    /// The live heap, unless it is stale.
    pub fn live_heap(&self, now: Instant) -> Option<u64> {
        self.live_heap_bytes.filter(|_| self.live_heap_until.is_some_and(|until| now <= until))
    }
}

/// How often the sampler looks. The watch sets it; 250 ms when the limit is near.
pub type Pace = Duration;

/// What the watch tells the investigation.
#[derive(Clone, Debug)]
pub enum Finding {
    /// A target is seen for the first time.
    Appeared(Target),
    /// The target has another name: it was found before its exec, or it titles itself.
    Renamed(Target),
    /// An alert opened, got worse or is over.
    Alert(Change),
    /// The latest figures, once a reading: what a sentence needs.
    Figures(Figures),
    Vanished(Gone),
    /// The process that the sidecar before this one watched is gone.
    Before(Gone),
    /// The kernel killed a child of the target for memory; the target lives on.
    ChildKilled,
}

/// What an incident's sentence quotes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    pub memory_bytes: u64,
    pub rss_bytes: u64,
    pub limit_bytes: Option<u64>,
    pub slope_bytes_per_second: Option<f64>,
    pub time_to_limit: Option<Duration>,
    pub statsd_clients: Option<u64>,
    pub client_uid: Option<u32>,
    pub threads: Option<u64>,
    pub fds: Option<u64>,
    pub goroutines: Option<u64>,
    /// It has the looks of a freeze: whether the app still answers is worth knowing soon.
    pub strained: bool,
    /// No alert stands and the start-up grace is over: a profile pulled now may serve as baseline.
    pub healthy: bool,
    /// Of the app, since the sidecar began.
    pub restarts: u64,
}

/// Where we listen, after binding: port 0 has become a number.
#[derive(Clone, Debug, Default)]
pub struct Listening {
    pub statsd: Vec<SocketAddr>,
    pub page: Option<SocketAddr>,
    pub health: Option<SocketAddr>,
}

/// When the stop was told, written once by `app`: every part of the drain counts its time from here, or their sum would be
/// longer than `run.shutdown_timeout`.
pub type StopTime = Arc<OnceLock<Instant>>;

/// Wall time in Unix seconds with fractions. Given to the tasks at start, so that a test can give another.
pub type WallClock = fn() -> f64;

/// The one place where wall time is read.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn wall_clock() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
