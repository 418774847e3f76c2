//! The disk spool as the dispatch sees it: which files there are, what they take, what may be asked of the disk now.
//!
//! One file for each payload ([`record`]), worked on a job at a time on a thread for blocking work ([`disk`]), through a narrow
//! [`super::storage`]. A file is deleted only after its payload was taken or given up. When the disk fails, payloads stay in memory
//! and the disk is tried again a second later; when the folder cannot be used at all, the spool is off for as long as we run.

pub(super) mod disk;
pub(super) mod record;
#[cfg(test)]
pub(super) mod testing;

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use crate::snapshot::DegradedView;
use record::HEAD;

/// Between a failure of the disk and the next try: less than a flush.
const REST: Duration = Duration::from_secs(1);
/// A job that takes longer than this hangs: nothing more is expected of the disk until it returns.
const HANGS: Duration = Duration::from_secs(5);
/// After so long it is told.
const TOLD: Duration = Duration::from_secs(10);
/// What a file takes at least of a disk, and what a kubelet counts.
const BLOCK: u64 = 4_096;
/// Files removed by one job.
const REMOVALS: usize = 256;

/// Whether there is a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// No folder is set.
    Off,
    /// It is being opened.
    Opening,
    Open,
    /// The folder cannot be used, and why.
    Disabled(String),
}

/// Owned by the dispatch alone.
#[derive(Debug)]
pub(super) struct Spool {
    state: State,
    max_size: u64,
    /// What each file takes that is on disk, is being written, or waits to be removed. Bounded by `max_size`.
    charges: HashMap<u64, u64>,
    bytes: u64,
    /// Files that are to be removed; all of them are in `charges`.
    removals: VecDeque<u64>,
    removals_bytes: u64,
    next_file: u64,
    /// Since when a job is being done; opening the folder is one.
    busy_since: Option<Instant>,
    writes_rest: Option<Instant>,
    reads_rest: Option<Instant>,
    removals_rest: Option<Instant>,
    fault: Option<String>,
    /// The second of the last partial flush, until it is on disk.
    pub stamp: Option<i64>,
}

impl Spool {
    pub fn new(is_wanted: bool, max_size: u64) -> Spool {
        Spool {
            state: if is_wanted { State::Opening } else { State::Off },
            max_size,
            charges: HashMap::new(),
            bytes: 0,
            removals: VecDeque::new(),
            removals_bytes: 0,
            next_file: 0,
            busy_since: is_wanted.then(Instant::now),
            writes_rest: None,
            reads_rest: None,
            removals_rest: None,
            fault: None,
            stamp: None,
        }
    }

    pub fn opened(&mut self, next_file: u64) {
        self.state = State::Open;
        self.busy_since = None;
        self.next_file = next_file;
    }

    pub fn disable(&mut self, why: String) {
        self.state = State::Disabled(why);
        self.busy_since = None;
    }

    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// A job can be given to the disk.
    pub fn is_idle(&self) -> bool {
        self.is_open() && self.busy_since.is_none()
    }

    pub fn begin(&mut self, now: Instant) {
        self.busy_since = Some(now);
    }

    pub fn end(&mut self) {
        self.busy_since = None;
    }

    pub fn hangs(&self, now: Instant) -> bool {
        self.is_busy_for(HANGS, now)
    }

    fn is_busy_for(&self, long: Duration, now: Instant) -> bool {
        self.busy_since.is_some_and(|since| now.saturating_duration_since(since) >= long)
    }

    /// What is in memory will be written soon, so that it need not be bounded by dropping.
    pub fn takes_writes(&self, now: Instant) -> bool {
        self.is_open() && !self.hangs(now) && is_over(self.writes_rest, now)
    }

    pub fn takes_reads(&self, now: Instant) -> bool {
        is_over(self.reads_rest, now)
    }

    /// Why something that found no room is lost: a disk that is there did not take it.
    pub fn reason_when_full(&self) -> Full {
        if self.is_open() { Full::Disk } else { Full::Queue }
    }

    /// What of the disk is taken, by the blocks that files fill.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn free(&self) -> u64 {
        if self.is_open() { self.max_size.saturating_sub(self.bytes) } else { 0 }
    }

    /// Room for one more body: now, after what waits to be removed is gone, or only if something is given up.
    pub fn room_for(&self, length: u64) -> Room {
        let needed = charge(length);
        if self.bytes + needed <= self.max_size {
            Room::Now
        } else if self.bytes - self.removals_bytes + needed <= self.max_size {
            Room::Soon
        } else {
            Room::None
        }
    }

    /// A new file with a body of so many bytes.
    pub fn assign(&mut self, length: u64) -> u64 {
        let file = self.next_file;
        self.next_file += 1;
        self.add(file, length);
        file
    }

    /// A file that is there.
    pub fn add(&mut self, file: u64, length: u64) {
        self.charges.insert(file, charge(length));
        self.bytes += charge(length);
    }

    pub fn is_over_size(&self) -> bool {
        self.bytes - self.removals_bytes > self.max_size
    }

    /// The file is of no use any more.
    pub fn remove(&mut self, file: u64) {
        self.removals.push_back(file);
        self.removals_bytes += self.charges.get(&file).copied().unwrap_or(0);
    }

    pub fn removals(&mut self, now: Instant) -> Vec<u64> {
        if !is_over(self.removals_rest, now) {
            return Vec::new();
        }
        self.removals.iter().copied().take(REMOVALS).collect()
    }

    /// The file is gone.
    pub fn removed(&mut self, file: u64) {
        let charge = self.charges.remove(&file).unwrap_or(0);
        self.bytes -= charge;
        if let Some(at) = self.removals.iter().position(|other| *other == file) {
            self.removals.remove(at);
            self.removals_bytes -= charge;
        }
    }

    pub fn has_removals(&self) -> bool {
        !self.removals.is_empty()
    }

    pub fn writing_failed(&mut self, now: Instant) {
        self.writes_rest = Some(now + REST);
    }

    pub fn reading_failed(&mut self, now: Instant) {
        self.reads_rest = Some(now + REST);
    }

    pub fn removing_failed(&mut self, now: Instant) {
        self.removals_rest = Some(now + REST);
        self.writing_failed(now);
    }

    /// `None`: the disk is well.
    pub fn set_fault(&mut self, fault: Option<String>) {
        self.fault = fault;
    }

    /// One of [`STATES`].
    pub fn state(&self, now: Instant) -> &'static str {
        match &self.state {
            State::Off => "memory",
            State::Opening | State::Open if self.fault.is_some() || self.is_busy_for(TOLD, now) => "failing",
            State::Opening | State::Open => "disk",
            State::Disabled(_) => "disabled",
        }
    }

    pub fn degraded(&self, now: Instant) -> Option<DegradedView> {
        let (why, fix) = match (&self.state, &self.fault) {
            _ if self.is_busy_for(TOLD, now) => (
                format!(
                    "the disk has not answered for {} s, so what waits is kept in memory meanwhile",
                    TOLD.as_secs()
                ),
                "look at the volume of spool.dir: a mount that hangs, or a disk that is overloaded",
            ),
            (State::Disabled(why), _) => (
                format!("spool.dir cannot be used, so what waits is kept in memory only: {why}"),
                "mount a writable folder (an emptyDir) there, owned by this user or group (fsGroup)",
            ),
            (State::Open, Some(why)) => (
                format!("the disk fails, so what waits is kept in memory meanwhile: {why}"),
                "free space or inodes on the volume of spool.dir",
            ),
            _ => return None,
        };
        Some(DegradedView { what: "disk spool".to_owned(), why, fix: fix.to_owned() })
    }
}

/// The words of the state on `/metrics`.
pub(super) const STATES: [&str; 4] = ["memory", "disk", "failing", "disabled"];

/// What was full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    Queue,
    Disk,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Now,
    Soon,
    None,
}

fn charge(length: u64) -> u64 {
    (HEAD as u64 + length).next_multiple_of(BLOCK)
}

fn is_over(rest: Option<Instant>, now: Instant) -> bool {
    rest.is_none_or(|until| now >= until)
}

/// The second of the last partial flush that the folder knows of: whoever flushes within that second takes another one.
pub fn last_partial(dir: &Path) -> Option<i64> {
    let mut folder = super::storage::Folder::look(dir).ok()?;
    disk::read_stamp(&mut folder)
}
