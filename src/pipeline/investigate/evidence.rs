//! What the steps of a round bring: bytes to compare with, a name in hand, or why there is none.
//!
//! A name that the rest of its round may make surer waits for that, and is never thrown away: it is told when a later step
//! fails, when the round is over, when the app is gone. When the alert is critical nothing waits.

use tracing::{info, warn};

use super::Investigation;
use crate::detect::Severity;
use crate::pipeline::baselines::Baseline;
use crate::pipeline::compare::Compared;
use crate::pipeline::errand::known;
use crate::pipeline::incident::{KeptProfile, accuses};
use crate::pipeline::plan::{Purpose, Step};
use crate::pipeline::{Degraded, ProfileKind, PullFailed, upload, words};
use crate::pprof::{Confidence, Naming};
use crate::statsd::Event;
use crate::telemetry;

/// The kind of evidence that marks a naming of a plain heap.
const PLAIN: &str = "collection";
/// The kind of evidence that tells what a heap after a collection says against it.
const AFTER: &str = "after_collection";

impl Investigation {
    pub(super) fn keep_to_compare(&mut self, step: Step, bytes: bytes::Bytes, kept: Option<KeptProfile>) {
        let at = self.now();
        let baseline = |bytes| Baseline::new(at, bytes, kept, &self.ledger.figures);
        match (step.purpose, step.kind) {
            (Purpose::FirstSight, _) => self.baselines.first_sight(baseline(bytes)),
            // An alert that opened while the pull ran makes it no baseline.
            (Purpose::Baseline, _) if !self.ledger.figures.healthy => {}
            (Purpose::Baseline, ProfileKind::Goroutine) => self.baselines.goroutines(at, bytes),
            (Purpose::Baseline, _) => {
                info!(bytes = bytes.len(), "healthy baseline taken");
                self.baselines.healthy(baseline(bytes));
            }
            _ => {}
        }
    }

    /// Holds a profile of the round, for its later steps and for the upload.
    pub(super) fn keep_of_round(&mut self, kind: ProfileKind, bytes: bytes::Bytes) {
        let size = bytes.len();
        if !self.round.take(kind, self.now(), bytes.clone()) {
            telemetry::count(&telemetry::PROFILES_UNCOMPARED, Some("too_large")).increment(1);
            let words = format!(
                "the {} profile ({}) is kept, and too large to compare beside the others",
                kind.label(),
                words::bytes(size as u64)
            );
            warn!("{words}");
            return self.remark("too_large", &words);
        }
        self.outbox.add(kind, bytes, || upload::about(&self.ledger, self.target.as_ref()?, self.language, self.clock));
    }

    /// Adds to the evidence of the name in hand, else of the one that stands, once.
    fn remark(&mut self, kind: &str, words: &str) {
        let standing = self.ledger.open.as_mut().and_then(|it| it.naming.as_mut());
        let naming = self.in_hand.as_mut().or(standing).filter(|it| it.evidence.iter().all(|it| it.0 != kind));
        if let Some(naming) = naming {
            naming.evidence.push((kind.to_owned(), words.to_owned()));
        }
    }

    pub(super) fn failed(&mut self, step: Step, failed: PullFailed) {
        // What was counted minutes ago must not decide over what the app can bear now.
        if step.kind == ProfileKind::Index {
            self.index.goroutines = None;
        }
        if step.kind.is_bonus() {
            info!(reason = failed.reason, "no {}: {}", step.kind.label(), failed.words);
            return;
        }
        if step.purpose == Purpose::Evidence {
            self.ledger.pull_failed(failed.words.clone());
        }
        let fix = "serve net/http/pprof on 127.0.0.1:6060 in the app, or set profile.url";
        let degraded = Degraded { what: "profiles".to_owned(), why: failed.words, fix: fix.to_owned() };
        if self.runtime.degraded.as_ref() != Some(&degraded) {
            warn!(reason = failed.reason, "no profile: {}", degraded.why);
        }
        self.runtime.degraded = Some(degraded);
        self.tell_runtime();
    }

    /// Takes a naming in hand, and tells it unless the rest of the round will make it surer in a moment. Near the limit there
    /// is no such moment.
    pub(super) fn named(&mut self, compared: Result<Compared, String>) -> Vec<Event> {
        let mut naming = match compared {
            Ok(Compared { naming, against, named_by, look }) => {
                self.round.named_by = named_by;
                look.into_iter().for_each(|look| self.baselines.looked(self.round.began, look));
                against.into_iter().for_each(|kept| self.ledger.keep(kept));
                naming
            }
            Err(words) => {
                self.ledger.pull_failed(words);
                return Vec::new();
            }
        };
        if !self.round.collected {
            as_of_a_plain_heap(&mut naming);
        }
        self.in_hand = Some(naming);
        let critical = self.ledger.open.as_ref().is_some_and(|it| it.severity == Severity::Crit);
        let more = self.plan.more_evidence(known(&self.ledger, self.index));
        if more && !critical { Vec::new() } else { self.tell_name() }
    }

    /// The name in hand, if there is one, as it is.
    pub(super) fn tell_name(&mut self) -> Vec<Event> {
        let Some(naming) = self.in_hand.take() else { return Vec::new() };
        self.contradict(&naming);
        if is_plain(&naming) && !self.is_news(&naming) {
            return Vec::new();
        }
        let events = self.ledger.name(naming, (self.clock)());
        if let Some(incident) = self.ledger.open.as_ref().filter(|_| !events.is_empty()) {
            warn!(incident = %incident.id, "leak named: {}", incident.verdict);
        }
        events
    }

    /// A plain heap takes the place of nothing but a plain heap's name: what is known after a collection is better, and so is
    /// why a pull failed than that nobody can be named without it.
    fn is_news(&self, plain: &Naming) -> bool {
        let Some(incident) = &self.ledger.open else { return false };
        match &incident.naming {
            Some(known) => plain.is_named() && (is_plain(known) || !known.is_named()),
            None => plain.is_named() || incident.pull_failure.is_none(),
        }
    }

    /// Somebody was named from a plain heap, and after a collection nobody can be: the name stands, with that beside it.
    fn contradict(&mut self, naming: &Naming) {
        let named = self.ledger.open.as_ref().and_then(|it| it.named());
        if named.is_some_and(is_plain) && !is_plain(naming) && !accuses(naming) {
            self.remark(AFTER, &naming.sentence);
        }
    }
}

/// The last collection may be two minutes old: a name from then is as good as that, and says so.
fn as_of_a_plain_heap(naming: &mut Naming) {
    if naming.confidence == Confidence::High {
        naming.confidence = Confidence::Medium;
    }
    naming.sentence += "; from a heap without a forced collection";
    naming.evidence.push((PLAIN.to_owned(), "the heap is as the app's own last collection left it".to_owned()));
}

fn is_plain(naming: &Naming) -> bool {
    naming.evidence.iter().any(|it| it.0 == PLAIN)
}
