//! One step of the plan on its way: pull, keep, read, compare. An errand owns all it needs, so that it can be dropped at any
//! point: when the app is gone, what it was pulling is gone too.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::compare::{self, Baselines, Compared, Material};
use super::incident::KeptProfile;
use super::plan::{Purpose, Step};
use super::{NewProfile, Pin, ProfileKind, PullFailed, PullReply, PullRequest, Pulled, StoreRequest, WallClock};
use crate::pprof::Naming;

/// How a step ended.
pub(super) struct Done {
    pub step: Step,
    pub took: Duration,
    /// What was pulled; of an index page the count.
    pub outcome: Result<Yield, PullFailed>,
    pub kept: Option<KeptProfile>,
    pub naming: Option<Result<Compared, String>>,
}

pub(super) enum Yield {
    Count(Option<u64>),
    Profile { bytes: bytes::Bytes, live_heap: Option<u64> },
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
    pub round_heap: Option<(Duration, bytes::Bytes)>,
    pub previous: Option<Naming>,
    pub rss_bytes: u64,
    pub fds: Option<u64>,
}

impl Errand {
    pub async fn run(self) -> Done {
        let step = self.step;
        let reply = self.pull().await;
        let bytes = match reply.outcome {
            Err(failed) => return Done { step, took: reply.took, outcome: Err(failed), kept: None, naming: None },
            Ok(Pulled::Index { goroutines }) => {
                let outcome = Ok(Yield::Count(goroutines));
                return Done { step, took: reply.took, outcome, kept: None, naming: None };
            }
            Ok(Pulled::Profile(bytes)) => bytes,
        };
        let kept = self.keep(&bytes).await;
        let (live_heap, naming) = self.read(bytes.clone()).await;
        let (outcome, live_heap) = match live_heap {
            Some(Err(words)) => (Err(PullFailed { reason: "not_a_profile", words }), None),
            Some(Ok(total)) => (Ok(()), Some(total)),
            None => (Ok(()), None),
        };
        let outcome = outcome.map(|()| Yield::Profile { bytes, live_heap });
        Done { step, took: reply.took, outcome, kept, naming }
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

    fn pin(&self) -> Pin {
        match (&self.step.purpose, &self.incident) {
            (Purpose::FirstSight | Purpose::Baseline, _) => Pin::Baseline,
            (Purpose::Evidence, Some(id)) if self.step.kind != ProfileKind::Heap => Pin::Incident(id.clone()),
            _ => Pin::None,
        }
    }

    /// Reads and compares on a blocking thread.
    async fn read(self, bytes: bytes::Bytes) -> (Option<Result<u64, String>>, Option<Result<Compared, String>>) {
        let work = move || {
            let is_heap = self.step.kind != ProfileKind::Goroutine;
            let live = is_heap.then(|| compare::live_heap(&bytes));
            let readable = !matches!(live, Some(Err(_)));
            let naming = (self.step.purpose == Purpose::Evidence && readable).then(|| self.material(bytes)).flatten();
            (live, naming.map(|material| compare::compare(&material)))
        };
        tokio::task::spawn_blocking(work).await.unwrap_or((Some(Err("the profile broke its reader".to_owned())), None))
    }

    fn material(self, bytes: bytes::Bytes) -> Option<Material> {
        let (at, heap, goroutines) = match self.step.kind {
            ProfileKind::Goroutine => {
                let (at, heap) = self.round_heap?;
                (at, heap, Some(bytes))
            }
            _ => (self.at, bytes, None),
        };
        let Errand { baselines, previous, rss_bytes, fds, .. } = self;
        Some(Material { baselines, heap, goroutines, previous, at, rss_bytes, fds })
    }
}
