//! One step of the plan on its way: pull, keep, read, compare. An errand owns all it needs, so that it can be dropped at any
//! point: when the app is gone, what it was pulling is gone too.

use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::baselines::{self, Baselines};
use super::compare::{self, Compared, Material};
use super::incident::KeptProfile;
use super::ledger::Ledger;
use super::plan::{Now, Purpose, Step};
use super::{
    Figures, Index, NewProfile, Pin, ProfileKind, PullFailed, PullReply, PullRequest, Pulled, ReadingPlace,
    StoreRequest, WallClock,
};
use crate::pprof::language::{self, Language};
use crate::pprof::{Dump, Profile, dump, read};

/// How a step ended.
pub(super) struct Done {
    pub step: Step,
    pub took: Duration,
    /// What was pulled.
    pub outcome: Result<Yield, PullFailed>,
    pub kept: Option<KeptProfile>,
    pub naming: Option<Result<Compared, String>>,
}

pub(super) enum Yield {
    Index(Index),
    Dump(Arc<Dump>),
    /// The language is that of a heap's frames.
    Profile {
        bytes: bytes::Bytes,
        live_heap: Option<u64>,
        language: Option<Language>,
    },
}

/// Bytes of profiles, as they are kept, that a round holds to compare with: a large app's have 2 MiB each. As many go into one
/// upload.
const HELD: usize = crate::datadog::MAX_UPLOAD;

/// What came of reading a profile.
struct Read {
    /// Of a heap: its bytes in use, or why it is none.
    live_heap: Option<Result<u64, String>>,
    language: Option<Language>,
    readable: bool,
    naming: Option<Result<Compared, String>>,
}

fn is_profile(bytes: &bytes::Bytes) -> bool {
    read::read_from(Cursor::new(bytes), read::MAX_INFLATED, read::MAX_MEMORY).is_ok()
}

/// What the round under way has brought so far, for its later steps to be named with.
#[derive(Clone, Debug, Default)]
pub(super) struct Round {
    /// When it began: a look of before confirms, and one of the same round would only agree with itself.
    pub began: Duration,
    /// The latest heap and when it came.
    pub heap: Option<(Duration, bytes::Bytes)>,
    /// A collection came right before it.
    pub collected: bool,
    pub goroutines: Option<bytes::Bytes>,
    pub leaked: Option<bytes::Bytes>,
    /// The baseline that an earlier step named somebody by.
    pub named_by: Option<Duration>,
}

impl Round {
    pub fn begun(began: Duration) -> Round {
        Round { began, ..Round::default() }
    }

    /// Whether it is held; beside the others of the round it may be too large.
    #[must_use]
    pub fn take(&mut self, kind: ProfileKind, at: Duration, bytes: bytes::Bytes) -> bool {
        if self.beside(kind) + bytes.len() > HELD {
            return false;
        }
        match kind {
            ProfileKind::Heap | ProfileKind::HeapAfterGc => {
                (self.heap, self.collected) = (Some((at, bytes)), kind == ProfileKind::HeapAfterGc);
            }
            ProfileKind::Goroutine => self.goroutines = Some(bytes),
            ProfileKind::GoroutineLeak => self.leaked = Some(bytes),
            ProfileKind::GoroutineDump | ProfileKind::Index => (),
        }
        true
    }

    /// Bytes of what is held and would not give way to one of this kind.
    fn beside(&self, kind: ProfileKind) -> usize {
        let heap = self.heap.as_ref().filter(|_| !kind.is_heap()).map(|it| &it.1);
        let goroutines = self.goroutines.as_ref().filter(|_| kind != ProfileKind::Goroutine);
        let leaked = self.leaked.as_ref().filter(|_| kind != ProfileKind::GoroutineLeak);
        [heap, goroutines, leaked].into_iter().flatten().map(bytes::Bytes::len).sum()
    }
}

/// What decides over a step.
pub(super) fn known(ledger: &Ledger, index: Index) -> Now<'_> {
    Now { figures: &ledger.figures, index, severity: ledger.open.as_ref().map(|it| it.severity) }
}

/// A step under way.
pub(super) type Work = std::pin::Pin<Box<dyn Future<Output = Done> + Send>>;

/// Waits for ever where there is none.
pub(super) async fn finish(work: &mut Option<Work>) -> Done {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

/// One step on its way: pull, keep, compare. Owns all it needs, so that it can be dropped at any point.
pub(super) struct Errand {
    pub step: Step,
    pub reason: String,
    /// The open one, which its evidence is pinned for.
    pub incident: Option<String>,
    pub pulls: mpsc::Sender<PullRequest>,
    pub store: mpsc::Sender<StoreRequest>,
    pub clock: WallClock,
    pub at: Duration,
    pub baselines: Baselines,
    pub round: Round,
    pub figures: Figures,
    pub reading: ReadingPlace,
}

impl Errand {
    pub async fn run(self) -> Done {
        let step = self.step;
        let reply = self.pull().await;
        let bytes = match reply.outcome {
            Err(failed) => return Done { step, took: reply.took, outcome: Err(failed), kept: None, naming: None },
            Ok(Pulled::Index(index)) => {
                let outcome = Ok(Yield::Index(index));
                return Done { step, took: reply.took, outcome, kept: None, naming: None };
            }
            Ok(Pulled::Dump(text)) => return self.read_dump(text, reply.took).await,
            Ok(Pulled::Profile(bytes)) => bytes,
        };
        let kept = self.keep(&bytes).await;
        let (store, pinned) = (self.store.clone(), self.pin() != Pin::None);
        let Read { live_heap, language, readable, naming } = self.read(bytes.clone()).await;
        if let Some(kept) = kept.as_ref().filter(|_| pinned) {
            let compared = naming.as_ref().and_then(|it| it.as_ref().ok());
            let base = compared.and_then(|it| it.against.as_ref()).map(|it| it.id.clone());
            let _closed = store.send(StoreRequest::Settle { id: kept.id.clone(), readable, base }).await;
        }
        let live_heap = match live_heap {
            // What is no profile is no evidence either.
            Some(Err(words)) => {
                let outcome = Err(PullFailed { reason: "not_a_profile", words });
                return Done { step, took: reply.took, outcome, kept: None, naming };
            }
            Some(Ok(total)) => Some(total),
            None => None,
        };
        Done { step, took: reply.took, outcome: Ok(Yield::Profile { bytes, live_heap, language }), kept, naming }
    }

    async fn pull(&self) -> PullReply {
        let (reply, answer) = oneshot::channel();
        let _closed = self.pulls.send(PullRequest { kind: self.step.kind, reply }).await;
        let gone = PullFailed { reason: "stopped", words: "the puller has stopped".to_owned() };
        answer.await.unwrap_or(PullReply { kind: self.step.kind, took: Duration::ZERO, outcome: Err(gone) })
    }

    /// Evidence must be on disk before anything else is done with it: the kill may be a second away.
    async fn keep(&self, bytes: &bytes::Bytes) -> Option<KeptProfile> {
        let (reply, answer) = oneshot::channel();
        let kind = self.step.kind.label();
        let taken_at = (self.clock)();
        let profile = NewProfile { kind, reason: self.reason.clone(), bytes: bytes.clone(), taken_at, pin: self.pin() };
        let _closed = self.store.send(StoreRequest::Save { profile, reply }).await;
        match answer.await {
            Ok(Ok(id)) => {
                Some(KeptProfile { id, kind, reason: self.reason.clone(), taken_at, bytes: bytes.len() as u64 })
            }
            Ok(Err(words)) => {
                warn!("profile not kept: {words}");
                None
            }
            Err(_) => None,
        }
    }

    /// Reads a dump and names with it; the text ends here.
    async fn read_dump(self, text: bytes::Bytes, took: Duration) -> Done {
        let step = self.step;
        let place = self.reading.take().await;
        let work = move || {
            let _place = place;
            let dump = Arc::new(dump::read(&text));
            let material = self.material(Some(dump.clone()));
            (dump, material.map(|material| compare::compare(&material)))
        };
        let broken = |_| PullFailed { reason: "not_a_profile", words: "the dump broke its reader".to_owned() };
        match tokio::task::spawn_blocking(work).await.map_err(broken) {
            Ok((dump, naming)) => Done { step, took, outcome: Ok(Yield::Dump(dump)), kept: None, naming },
            Err(failed) => Done { step, took, outcome: Err(failed), kept: None, naming: None },
        }
    }

    fn pin(&self) -> Pin {
        match (&self.step.purpose, &self.incident) {
            (Purpose::FirstSight | Purpose::Baseline, _) => Pin::Baseline,
            (Purpose::Evidence, Some(id)) => Pin::Incident(id.clone()),
            _ => Pin::None,
        }
    }

    /// Reads and compares on a blocking thread.
    async fn read(mut self, bytes: bytes::Bytes) -> Read {
        let place = self.reading.take().await;
        let work = move || {
            let _place = place;
            let heap = self.step.kind.is_heap().then(|| compare::read_heap(&bytes));
            let of_read =
                |heap: &Result<Profile, String>| heap.as_ref().map_err(Clone::clone).and_then(compare::live_heap);
            let live_heap = heap.as_ref().map(of_read);
            let language = heap.as_ref().and_then(|it| it.as_ref().ok()).map(|it| language::language(&it.frames));
            let readable = live_heap.as_ref().map_or_else(|| is_profile(&bytes), Result::is_ok);
            let is_evidence = self.step.purpose == Purpose::Evidence && !matches!(live_heap, Some(Err(_)));
            if !is_evidence || !self.round.take(self.step.kind, self.at, bytes) {
                return Read { live_heap, language, readable, naming: None };
            }
            let naming = self.material(None).map(|material| match heap {
                Some(Ok(heap)) => Ok(compare::compare_read(&material, &heap)),
                _ => compare::compare(&material),
            });
            Read { live_heap, language, readable, naming }
        };
        let broken = Some(Err("the profile broke its reader".to_owned()));
        let read = tokio::task::spawn_blocking(work).await;
        read.unwrap_or(Read { live_heap: broken, language: None, readable: false, naming: None })
    }

    /// What is known once the step at hand is part of the round; `None` without a heap.
    fn material(self, dump: Option<Arc<Dump>>) -> Option<Material> {
        let Errand { baselines, figures, round, .. } = self;
        let Round { began, heap, collected, goroutines, leaked, named_by } = round;
        let ((at, heap), rss_bytes, counts) = (heap?, figures.rss_bytes, baselines::counts(&figures));
        let material =
            Material { baselines, heap, collected, goroutines, leaked, dump, began, named_by, at, rss_bytes, counts };
        Some(material)
    }
}

#[cfg(test)]
mod tests;
