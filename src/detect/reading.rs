//! What a detector sees and what it says.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One look at the watched process tree. `None` means "could not be read", never zero.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// Monotonic time since the sidecar (or the recording) began. Never falls.
    pub at: Duration,
    /// Start time of the process in clock ticks since boot: another value is another process, and everything resets.
    pub incarnation: u64,
    /// Age of the process at `at`, where known: a sidecar that starts later than the app need not wait again.
    pub age: Option<Duration>,
    /// Unreclaimable memory: what the kernel's killer counts and cannot take back.
    pub memory_bytes: Option<u64>,
    /// The memory limit of the tightest ancestor.
    pub limit_bytes: Option<u64>,
    pub threads: Option<u64>,
    pub fds: Option<u64>,
    pub fd_limit: Option<u64>,
    /// Live StatsD clients of the app, and how many new ones appeared in the last window.
    pub statsd_clients: Option<u64>,
    pub goroutines: Option<u64>,
    /// Live Go heap, where a profile told it. `None` again once that is older than a few of the pulls that should have followed: what
    /// is not looked at any more must not speak for the app.
    pub live_heap_bytes: Option<u64>,
    /// All that is charged to the cgroup that has the limit, page cache included.
    pub usage_bytes: Option<u64>,
    /// How often that cgroup had to reclaim at its limit so far (v1 `failcnt`, v2 `max` of `memory.events`).
    pub reclaims: Option<u64>,
    /// Pages that had to be read from disk so far, in the cgroup or, where that cannot be read, by the process.
    pub major_faults: Option<u64>,
    /// Processor time of the process so far, in its own code and in the kernel.
    pub user_time: Option<Duration>,
    pub system_time: Option<Duration>,
    /// Percent of the last 10 s in which all of the cgroup waited for memory (version 2, `memory.pressure`).
    pub pressure: Option<f64>,
    /// StatsD datagrams that came so far, from whomever.
    pub datagrams: Option<u64>,
    /// Source ports so far from which none came in the minute before.
    pub new_senders: Option<u64>,
    /// How long ago the app's pprof port last answered; `None` before its first answer.
    pub pprof_answered: Option<Duration>,
    /// How long the oldest question to it is open or failed since that answer; `None` when the last one was answered.
    pub pprof_silent: Option<Duration>,
    /// The app's StatsD samples a second, without what its clients say of themselves.
    pub load: Option<f64>,
}

/// What grows. The names are those of the API's incident kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AlertKind {
    MemoryGrowth,
    ClientLeak,
    ClientChurn,
    GoroutineLeak,
    ThreadLeak,
    FdLeak,
    Freeze,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Notice,
    Warn,
    Crit,
}

/// What a detector found, with the numbers that made it speak.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    pub kind: AlertKind,
    pub severity: Severity,
    /// The rule that fired, one word: `trend_3s`, `trend_60s`, `burst`, `near_limit`, `clients`.
    pub rule: &'static str,
    pub at: Duration,
    /// Growth in the signal's own unit (bytes, clients, threads) per second.
    pub per_second: f64,
    pub time_to_limit: Option<Duration>,
    /// The rule's numbers in words: "rose 41 MiB in 48 s, floor and ceiling alike, 230 of 512 MiB".
    pub evidence: String,
}

/// What happened to an alert with this reading.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A new alert of this kind stands.
    Opened(Alert),
    /// It stands already and is now more severe, or its time to limit has halved.
    Escalated(Alert),
    /// It is over: the signal fell back, or the process is gone.
    Cleared { kind: AlertKind, at: Duration },
}

/// A rule over readings. One task owns it; it never looks at a clock.
pub trait Detector {
    /// Takes one reading, in order of time, and says what changed.
    fn observe(&mut self, reading: &Reading) -> Vec<Change>;
}
