//! The task that follows an alert to a name: asks for profiles by the [`Plan`], has them compared and kept, and sends the
//! events that the [`Ledger`] owes.
//!
//! It owns incidents and baselines. One pull is under way at most; findings are taken while it runs, so a kill is told at
//! once and not after a time-out. When the findings close it ends without waiting for the pull.

mod evidence;
mod wires;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};
use tracing::{info, warn};

use super::baselines::Baselines;
use super::errand::{Done, Errand, Round, Work, Yield, finish, known};
use super::incident::{Incident, KeptProfile};
use super::ledger::Ledger;
use super::plan::{Cause, Plan, Purpose, Settings, Step, Wish};
use super::pulls::Pulls;
use super::upload::Outbox;
use super::words::{self, Identity};
use super::{Finding, Gone, Index, Outgoing, OwnMetric, ProfileKind, PullNow, Runtime, Target, WallClock};
use crate::detect::{Alert, AlertKind, Change, Severity};
use crate::pprof::language::Language;
use crate::pprof::{Confidence, Naming};
use crate::statsd::Event;
use crate::telemetry;
pub use wires::Wires;

/// The task's state; every field belongs to it alone.
pub struct Investigation {
    wires: Wires,
    clock: WallClock,
    began: Instant,
    ledger: Ledger,
    plan: Plan,
    target: Option<Target>,
    baselines: Baselines,
    runtime: Runtime,
    /// What the app's index page told last.
    index: Index,
    /// Of the latest heap.
    language: Language,
    /// Belongs to the round under way; replaced when the next begins.
    round: Round,
    /// What the round under way names so far, while its later steps may make it surer.
    in_hand: Option<Naming>,
    /// Profiles of the round under way that are to be uploaded.
    outbox: Outbox,
    pulls: Pulls,
    /// The step under way; dropped when the app is gone.
    work: Option<Work>,
}

impl std::fmt::Debug for Investigation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Investigation").field("target", &self.target).field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl Investigation {
    pub fn new(settings: Settings, who: Identity, clock: WallClock, mut wires: Wires) -> Investigation {
        let outbox = Outbox::new(wires.uploads.take());
        let ledger = Ledger::new(who, std::mem::take(&mut wires.past));
        Investigation {
            wires,
            outbox,
            language: Language::default(),
            pulls: Pulls::default(),
            clock,
            began: Instant::now(),
            ledger,
            plan: Plan::new(settings),
            target: None,
            baselines: Baselines::default(),
            runtime: Runtime::default(),
            index: Index::default(),
            round: Round::default(),
            in_hand: None,
            work: None,
        }
    }

    /// Runs until the findings close.
    pub async fn run(mut self) {
        let events = self.ledger.begin((self.clock)());
        self.send(events).await;
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                finding = self.wires.findings.recv() => match finding {
                    Some(finding) => self.found(finding).await,
                    None => return self.outbox.close(),
                },
                done = finish(&mut self.work) => self.done(done).await,
                Some(now) = self.wires.asked.recv() => self.asked(now),
                _ = tick.tick() => self.look_again().await,
                Ok(()) = self.wires.settings.changed() => self.reconfigure(),
            }
            self.end_round().await;
            self.begin_next();
            self.publish();
        }
    }

    fn reconfigure(&mut self) {
        let (settings, who) = self.wires.settings.borrow_and_update().clone();
        self.plan.set(settings);
        if let Some(target) = &self.target {
            self.ledger.app = who.app(target);
        }
        self.ledger.who = who;
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    async fn found(&mut self, finding: Finding) {
        let events = match finding {
            Finding::Figures(figures) => return self.ledger.see(figures, (self.clock)()),
            Finding::Renamed(target) => return self.renamed(target),
            Finding::Appeared(target) => self.appeared(target),
            Finding::Vanished(gone) => self.vanished(gone),
            Finding::Before(gone) => self.ledger.before(gone, (self.clock)()),
            Finding::ChildKilled => self.ledger.child_killed((self.clock)()),
            Finding::Alert(change) => self.alert(&change),
        };
        self.send(events).await;
        self.ledger.reword();
    }

    fn appeared(&mut self, target: Target) -> Vec<Event> {
        info!(pid = target.pid, "watching {}", words::target(&target));
        let events = self.ledger.meet(&target, (self.clock)());
        self.renamed(target);
        self.baselines = Baselines::default();
        self.runtime = Runtime::default();
        self.index = Index::default();
        self.round = Round::default();
        self.language = Language::default();
        self.outbox.appeared();
        self.abandon();
        self.plan.appeared(self.now());
        self.ledger.appeared((self.clock)());
        events
    }

    /// An incident that is open keeps the name it began with: its events belong together.
    fn renamed(&mut self, target: Target) {
        self.ledger.app = self.ledger.who.app(&target);
        self.target = Some(target);
    }

    fn vanished(&mut self, gone: Gone) -> Vec<Event> {
        self.abandon();
        self.outbox.close();
        self.plan.vanished();
        self.target = None;
        // The end of the story says the name; where it has no words of its own, the name goes out by itself.
        let named = self.tell_name();
        let events = self.ledger.vanished(gone, (self.clock)());
        if let Some(last) = self.ledger.all().next().filter(|_| !events.is_empty()) {
            warn!(incident = %last.id, state = last.state.label(), "{}", last.verdict);
        }
        if events.is_empty() { named } else { events }
    }

    /// Drops the step under way, with whoever it was to be pulled from.
    fn abandon(&mut self) {
        self.work = None;
        self.pulls.gone();
    }

    fn alert(&mut self, change: &Change) -> Vec<Event> {
        let critical =
            matches!(change, Change::Opened(alert) | Change::Escalated(alert) if alert.severity == Severity::Crit);
        let cause = if critical { Cause::Critical } else { Cause::Alert };
        if let Change::Opened(alert) | Change::Escalated(alert) = change {
            self.evidence(alert, cause);
        }
        let mut events = self.ledger.alert(change, (self.clock)());
        // Whoever is in hand is told now: what is pulled next may come too late.
        events.extend(critical.then(|| self.tell_name()).into_iter().flatten());
        events
    }

    /// Profiles tell nothing of clients that are closed again.
    fn evidence(&mut self, alert: &Alert, cause: Cause) {
        if alert.kind == AlertKind::ClientChurn {
            return info!(rule = alert.rule, "notice: {}", alert.evidence);
        }
        warn!(kind = ?alert.kind, severity = ?alert.severity, rule = alert.rule, "growth alert: {}", alert.evidence);
        if let Wish::Suppressed(reason) = self.plan.round(self.now(), cause) {
            self.pulls.suppressed(reason);
        }
    }

    /// A person wants a round now: as an alert would, under the same cool-down and budget.
    fn asked(&mut self, PullNow { reply }: PullNow) {
        let wish = self.plan.round(self.now(), Cause::Alert);
        if let Wish::Suppressed(reason) = wish {
            self.pulls.suppressed(reason);
        }
        // Who asked may have given up: the round is worth having all the same.
        let _ = reply.send(wish);
    }

    /// Once a second: an open incident that is not surely named is worth another round when the cool-down allows.
    async fn look_again(&mut self) {
        let over = self.work.is_none() && !self.plan.more_evidence(known(&self.ledger, self.index));
        let events = self.ledger.look((self.clock)(), over);
        self.send(events).await;
        let sure = |incident: &Incident| incident.naming.as_ref().is_some_and(|it| it.confidence == Confidence::High);
        if self.work.is_none() && self.ledger.open.as_ref().is_some_and(|it| it.wants_a_name() && !sure(it)) {
            self.plan.round(self.now(), Cause::Again);
        }
    }

    /// When nothing of a round is to come any more, what waited for its end goes out and what it held is let go.
    async fn end_round(&mut self) {
        if self.work.is_some() || self.plan.more_evidence(known(&self.ledger, self.index)) {
            return;
        }
        self.outbox.close();
        self.round = Round::default();
        let events = self.tell_name();
        self.send(events).await;
    }

    fn begin_next(&mut self) {
        if self.work.is_some() {
            return;
        }
        let now = self.now();
        let known = known(&self.ledger, self.index);
        let Some(step) = self.plan.next(now, known) else { return };
        let by_alert = || self.ledger.open.as_ref().map_or("by_hand", |it| it.kind.label());
        let reason = step.purpose.reason().unwrap_or_else(by_alert);
        if step.purpose == Purpose::Evidence && step.kind == ProfileKind::Heap {
            // What a round brought that was cut short goes by itself.
            self.outbox.close();
            self.round = Round::begun(now);
        }
        self.pulls.begun(step.kind);
        let errand = Errand {
            step,
            reason: reason.to_owned(),
            incident: self.ledger.open.as_ref().map(|it| it.id.clone()),
            pulls: self.wires.pulls.clone(),
            store: self.wires.store.clone(),
            clock: self.clock,
            at: now,
            baselines: self.baselines.clone(),
            round: self.round.clone(),
            figures: self.ledger.figures.clone(),
            reading: self.wires.reading.clone(),
        };
        self.work = Some(Box::pin(errand.run()));
    }

    async fn done(&mut self, done: Done) {
        self.work = None;
        let bytes = match &done.outcome {
            Ok(Yield::Profile { bytes, .. }) => bytes.len() as u64,
            _ => 0,
        };
        self.plan.done(done.step, self.now(), done.took, bytes, done.outcome.is_ok());
        self.pulls.heard(done.outcome.as_ref().err().map(|failed| failed.reason));
        self.count(&done).await;
        let failed = done.outcome.is_err();
        match done.outcome {
            Ok(yielded) => self.take(done.step, yielded, done.kept.as_ref()),
            Err(failed) => self.failed(done.step, failed),
        }
        if let Some(kept) = done.kept.filter(|_| done.step.purpose == Purpose::Evidence) {
            self.ledger.keep(kept);
        }
        let events = match done.naming {
            Some(naming) => self.named(naming),
            None if failed && done.step.is_owed() => self.tell_name(),
            None => Vec::new(),
        };
        self.send(events).await;
    }

    fn take(&mut self, step: Step, yielded: Yield, kept: Option<&KeptProfile>) {
        match yielded {
            Yield::Index(index) => {
                self.index = index;
                self.runtime.goroutines = index.goroutines.or(self.runtime.goroutines);
            }
            Yield::Dump(dump) => info!(goroutines = dump.goroutines, "goroutine dump read"),
            Yield::Profile { bytes, live_heap, language } => {
                self.language = language.unwrap_or(self.language);
                self.runtime.hear_live_heap(live_heap, Instant::now() + self.plan.stale_after());
                match step.purpose {
                    Purpose::Evidence => self.keep_of_round(step.kind, bytes),
                    _ => self.keep_to_compare(step, bytes, kept.cloned()),
                }
                self.runtime.degraded = self.baselines.degraded();
            }
        }
        self.tell_runtime();
    }

    fn tell_runtime(&mut self) {
        (self.runtime.pulls_error, self.runtime.answers) = (self.pulls.error(), self.pulls.answers);
        self.wires.runtime.send_replace(self.runtime.clone());
    }

    async fn count(&mut self, done: &Done) {
        match &done.outcome {
            Err(failed) => self.pulls.failed(done.step.kind, failed.reason),
            Ok(Yield::Index(_) | Yield::Dump(_)) => {}
            Ok(Yield::Profile { .. }) if done.kept.is_none() => self.pulls.failed(done.step.kind, "not_kept"),
            Ok(Yield::Profile { .. }) => {
                self.pulls.stored();
                let pulled = OwnMetric { name: telemetry::PROFILES_PULLED.name, value: 1.0, count: true, tag: None };
                // A count must not be skipped as a gauge may be; the queue holds sixteen sets and is emptied at once.
                let _closed = self.wires.own.send(vec![pulled]).await;
            }
        }
    }

    /// Events of an incident wait for room: they are few, and the sink takes them at once.
    async fn send(&mut self, events: Vec<Event>) {
        for event in events {
            let _closed = self.wires.outgoing.send(Outgoing::Urgent(event)).await;
        }
    }

    fn publish(&self) {
        let error = self.pulls.error();
        telemetry::gauge(&telemetry::IDENTITY_ERROR, Some("I6")).set(error as f64);
        self.wires.runtime.send_if_modified(|runtime| {
            let before = (runtime.pulls_error, runtime.answers);
            (runtime.pulls_error, runtime.answers) = (error, self.pulls.answers);
            before != (error, self.pulls.answers)
        });
        let open = f64::from(u8::from(self.ledger.open.is_some()));
        telemetry::gauge(&telemetry::INCIDENTS_OPEN, None).set(open);
        let gauge = OwnMetric { name: telemetry::INCIDENTS_OPEN.name, value: open, count: false, tag: None };
        let _full = self.wires.own.try_send(vec![gauge]);
        let views = self.ledger.views();
        // Only what changed wakes the readers: a page that is told the same story each second flickers.
        self.wires.incidents.send_if_modified(|now| {
            let other = **now != views;
            if other {
                *now = Arc::new(views);
            }
            other
        });
    }
}

#[cfg(test)]
mod tests;
