//! The messages about profiles: asking the app for one, keeping it, handing it out.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::plan::Wish;

/// The one place for who reads profiles: a pair of them takes up to 24 MiB, and an investigation and the page that did so at once
/// would not fit below the sidecar's limit. Whoever reads holds it until what was read is dropped.
#[derive(Clone, Debug)]
pub struct ReadingPlace(Arc<Semaphore>);

impl Default for ReadingPlace {
    fn default() -> ReadingPlace {
        ReadingPlace(Arc::new(Semaphore::new(1)))
    }
}

impl ReadingPlace {
    /// Waits for those who asked before.
    pub async fn take(&self) -> OwnedSemaphorePermit {
        self.0.clone().acquire_owned().await.expect("the place is never closed")
    }
}

/// A profile of the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProfileKind {
    Heap,
    /// After a forced collection: the truth, at the price of one.
    HeapAfterGc,
    Goroutine,
    /// Goroutines that can never go on, by a collection that looks for them; Go serves it by an experiment in 1.26.
    GoroutineLeak,
    /// The text of all goroutines: who started them. Read at once and not kept, because arguments of functions stand in it.
    GoroutineDump,
    /// The index page: goroutine count and what else is served.
    Index,
}

impl ProfileKind {
    /// Every one.
    pub const ALL: [ProfileKind; 6] = [
        ProfileKind::Heap,
        ProfileKind::HeapAfterGc,
        ProfileKind::Goroutine,
        ProfileKind::GoroutineLeak,
        ProfileKind::GoroutineDump,
        ProfileKind::Index,
    ];

    /// The `type` of the API.
    pub fn label(self) -> &'static str {
        match self {
            ProfileKind::Heap => "heap",
            ProfileKind::HeapAfterGc => "heap_gc",
            ProfileKind::Goroutine => "goroutine",
            ProfileKind::GoroutineLeak => "goroutineleak",
            ProfileKind::GoroutineDump => "goroutine_dump",
            ProfileKind::Index => "index",
        }
    }

    /// Whether it is kept and stands in the account of pulls.
    pub fn is_kept(self) -> bool {
        !matches!(self, ProfileKind::Index | ProfileKind::GoroutineDump)
    }

    pub fn is_heap(self) -> bool {
        matches!(self, ProfileKind::Heap | ProfileKind::HeapAfterGc)
    }

    /// Apps that are not Go have no such page, and of Go not all have it.
    pub fn is_bonus(self) -> bool {
        matches!(self, ProfileKind::Index | ProfileKind::GoroutineLeak | ProfileKind::GoroutineDump)
    }
}

/// Somebody asks for a round of pulls now; what becomes of the wish is answered at once, the round takes seconds.
#[derive(Debug)]
pub struct PullNow {
    pub reply: oneshot::Sender<Wish>,
}

/// Asks the puller for one profile. It answers exactly once, within its own time limits.
#[derive(Debug)]
pub struct PullRequest {
    pub kind: ProfileKind,
    pub reply: oneshot::Sender<PullReply>,
}

/// What came back from a pull. The reason is a label; the words are for people.
#[derive(Clone, Debug)]
pub struct PullReply {
    pub kind: ProfileKind,
    pub took: Duration,
    pub outcome: Result<Pulled, PullFailed>,
}

#[derive(Clone, Debug)]
pub enum Pulled {
    Profile(bytes::Bytes),
    Dump(bytes::Bytes),
    Index(Index),
}

/// What the index page of net/http/pprof tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Index {
    pub goroutines: Option<u64>,
    /// `goroutineleak` is served.
    pub leak_profile: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullFailed {
    pub reason: &'static str,
    pub words: String,
}

/// Asks the profile store.
#[derive(Debug)]
pub enum StoreRequest {
    /// Keeps a profile; answers with its id once it is on disk (or in memory where there is none).
    Save {
        profile: NewProfile,
        reply: oneshot::Sender<Result<String, String>>,
    },
    Read {
        id: String,
        reply: oneshot::Sender<Option<bytes::Bytes>>,
    },
    /// What came of reading one that was saved with a pin. Until then it stays and takes the place of no other.
    Settle {
        id: String,
        readable: bool,
        /// The baseline that it was compared with, which stays with the incident.
        base: Option<String>,
    },
    /// Forgets a profile; answers whether there was one.
    Forget {
        id: String,
        reply: oneshot::Sender<bool>,
    },
    /// What is kept, newest first.
    List {
        reply: oneshot::Sender<Vec<StoredProfile>>,
    },
}

/// A profile as the store lists it.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredProfile {
    pub id: String,
    pub kind: String,
    /// Why it was pulled; `""` where an earlier run's index is lost.
    pub reason: String,
    /// Unix seconds.
    pub taken_at: f64,
    pub bytes: u64,
}

/// A profile to be kept, as it was pulled.
#[derive(Clone, Debug)]
pub struct NewProfile {
    pub kind: &'static str,
    pub reason: String,
    pub bytes: bytes::Bytes,
    pub taken_at: f64,
    pub pin: Pin,
}

/// Why a profile stays when the store is full. Pins are few: a newer one of a kind lets the older go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pin {
    /// Goes first.
    None,
    /// The last of its kind stays.
    Baseline,
    /// Evidence of this incident: stays until the next incident has some that can be read, the last of each kind. A plain heap
    /// stays until one after a collection is there.
    Incident(String),
}
