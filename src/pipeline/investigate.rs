//! The task that follows an alert to a name: asks for profiles by the [`Plan`], has them compared and kept, and sends the
//! events that the [`Ledger`] owes.
//!
//! It owns incidents and baselines. One pull is under way at most; findings are taken while it runs, so a kill is told at
//! once and not after a time-out. When the findings close it ends without waiting for the pull.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{info, warn};

use super::compare::{Baseline, Baselines, Compared};
use super::errand::{Done, Errand, Yield};
use super::incident::{Incident, KeptProfile};
use super::ledger::Ledger;
use super::plan::{Cause, Plan, Purpose, Settings, Step, Wish};
use super::views;
use super::words::{self, Identity};
use super::{
    Degraded, Finding, Gone, Outgoing, OwnMetric, ProfileKind, PullFailed, PullRequest, Runtime, StoreRequest, Target,
    WallClock,
};
use crate::detect::{Change, Severity};
use crate::pprof::Confidence;
use crate::snapshot::IncidentView;
use crate::statsd::Event;
use crate::telemetry;

/// The channels of the investigation.
#[derive(Debug)]
pub struct Wires {
    pub findings: mpsc::Receiver<Finding>,
    pub pulls: mpsc::Sender<PullRequest>,
    pub store: mpsc::Sender<StoreRequest>,
    pub outgoing: mpsc::Sender<Outgoing>,
    pub own: mpsc::Sender<Vec<OwnMetric>>,
    pub runtime: watch::Sender<Runtime>,
    /// Other settings of the plan, and who we are, after a reload.
    pub settings: watch::Receiver<(Settings, Identity)>,
    pub incidents: watch::Sender<Arc<Vec<IncidentView>>>,
}

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
    /// The heap of the round under way, for the goroutine step to be named with; replaced by each evidence heap.
    round_heap: Option<(Duration, bytes::Bytes)>,
    /// The step under way; dropped when the app is gone.
    work: Option<Work>,
}

impl std::fmt::Debug for Investigation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Investigation").field("target", &self.target).field("plan", &self.plan).finish_non_exhaustive()
    }
}

type Work = Pin<Box<dyn Future<Output = Done> + Send>>;

impl Investigation {
    pub fn new(settings: Settings, who: Identity, clock: WallClock, wires: Wires) -> Investigation {
        Investigation {
            wires,
            clock,
            began: Instant::now(),
            ledger: Ledger::new(who),
            plan: Plan::new(settings),
            target: None,
            baselines: Baselines::default(),
            runtime: Runtime::default(),
            round_heap: None,
            work: None,
        }
    }

    /// Runs until the findings close.
    pub async fn run(mut self) {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                finding = self.wires.findings.recv() => match finding {
                    Some(finding) => self.found(finding).await,
                    None => return,
                },
                done = finish(&mut self.work) => self.done(done).await,
                _ = tick.tick() => self.look_again(),
                Ok(()) = self.wires.settings.changed() => self.reconfigure(),
            }
            self.begin_next();
            self.publish();
        }
    }

    fn reconfigure(&mut self) {
        let (settings, who) = self.wires.settings.borrow_and_update().clone();
        self.plan.set(settings);
        if let Some(target) = &self.target {
            self.ledger.app = app_name(&who, target);
        }
        self.ledger.who = who;
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    async fn found(&mut self, finding: Finding) {
        match finding {
            Finding::Appeared(target) => self.appeared(target),
            Finding::Renamed(target) => self.renamed(target),
            Finding::Figures(figures) => self.ledger.figures = figures,
            Finding::Vanished(gone) => self.vanished(gone).await,
            Finding::ChildKilled => {
                let events = self.ledger.child_killed((self.clock)());
                self.send(events).await;
            }
            Finding::Alert(change) => self.alert(&change).await,
        }
        self.ledger.reword();
    }

    fn appeared(&mut self, target: Target) {
        info!(pid = target.pid, "watching {}", words::target(&target));
        self.ledger.app = app_name(&self.ledger.who, &target);
        self.target = Some(target);
        self.baselines = Baselines::default();
        self.runtime = Runtime::default();
        self.round_heap = None;
        self.work = None;
        self.plan.appeared(self.now());
    }

    /// An incident that is open keeps the name it began with: its events belong together.
    fn renamed(&mut self, target: Target) {
        self.ledger.app = app_name(&self.ledger.who, &target);
        self.target = Some(target);
    }

    async fn vanished(&mut self, gone: Gone) {
        self.work = None;
        self.plan.vanished();
        self.target = None;
        let events = self.ledger.vanished(gone, (self.clock)());
        if let Some(last) = self.ledger.closed.front().filter(|_| !events.is_empty()) {
            warn!(incident = %last.id, state = last.state.label(), "{}", last.verdict);
        }
        self.send(events).await;
    }

    async fn alert(&mut self, change: &Change) {
        let critical = matches!(change, Change::Escalated(alert) if alert.severity == Severity::Crit);
        let cause = if critical { Cause::Critical } else { Cause::Alert };
        if let Change::Opened(alert) | Change::Escalated(alert) = change {
            warn!(kind = ?alert.kind, severity = ?alert.severity, rule = alert.rule, "growth alert: {}", alert.evidence);
            if let Wish::Suppressed(reason) = self.plan.round(self.now(), cause) {
                telemetry::count(&telemetry::PROFILES_SUPPRESSED, Some(reason)).increment(1);
            }
        }
        let events = self.ledger.alert(change, (self.clock)());
        self.send(events).await;
    }

    /// Once a second: an open incident that is not surely named is worth another round when the cool-down allows.
    fn look_again(&mut self) {
        let sure = |incident: &Incident| incident.naming.as_ref().is_some_and(|it| it.confidence == Confidence::High);
        if self.work.is_none() && self.ledger.open.as_ref().is_some_and(|incident| !sure(incident)) {
            self.plan.round(self.now(), Cause::Again);
        }
    }

    fn begin_next(&mut self) {
        if self.work.is_some() {
            return;
        }
        let now = self.now();
        let Some(step) = self.plan.next(now, &self.ledger.figures, self.runtime.goroutines) else { return };
        let reason = match step.purpose {
            Purpose::FirstSight => "first_sight",
            Purpose::Baseline => "baseline",
            Purpose::Evidence | Purpose::Count => self.ledger.open.as_ref().map_or("", |it| it.kind.label()),
        };
        let errand = Errand {
            step,
            reason: reason.to_owned(),
            pulls: self.wires.pulls.clone(),
            store: self.wires.store.clone(),
            clock: self.clock,
            at: now,
            baselines: self.baselines.clone(),
            round_heap: self.round_heap.clone(),
            previous: self.ledger.open.as_ref().and_then(|it| it.naming.clone()),
            rss_bytes: self.ledger.figures.rss_bytes,
            fds: self.ledger.figures.fds,
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
        self.count(&done).await;
        match done.outcome {
            Ok(yielded) => self.take(done.step, yielded, done.kept.as_ref()),
            Err(failed) => self.failed(done.step, failed),
        }
        if let Some(kept) = done.kept.filter(|_| done.step.purpose == Purpose::Evidence) {
            self.ledger.keep(kept);
        }
        if let Some(naming) = done.naming {
            self.named(done.step, naming).await;
        }
    }

    fn take(&mut self, step: Step, yielded: Yield, kept: Option<&KeptProfile>) {
        match yielded {
            Yield::Count(count) => self.runtime.goroutines = count.or(self.runtime.goroutines),
            Yield::Profile { bytes, live_heap } => {
                self.runtime.degraded = None;
                self.runtime.live_heap_bytes = live_heap.or(self.runtime.live_heap_bytes);
                self.keep_to_compare(step, bytes, kept.cloned());
            }
        }
        self.wires.runtime.send_replace(self.runtime.clone());
    }

    fn keep_to_compare(&mut self, step: Step, bytes: bytes::Bytes, kept: Option<KeptProfile>) {
        let at = self.now();
        let baseline = |bytes| Baseline {
            at,
            bytes,
            rss_bytes: self.ledger.figures.rss_bytes,
            fds: self.ledger.figures.fds,
            kept,
        };
        match (step.purpose, step.kind) {
            (Purpose::FirstSight, _) => self.baselines.first_sight(baseline(bytes)),
            (Purpose::Baseline, ProfileKind::Goroutine) => self.baselines.goroutines = Some(bytes),
            // An alert that opened while the pull ran makes it no baseline.
            (Purpose::Baseline, _) if self.ledger.figures.healthy => {
                info!(bytes = bytes.len(), "healthy baseline taken");
                self.baselines.healthy(baseline(bytes));
            }
            (Purpose::Evidence, ProfileKind::Heap | ProfileKind::HeapAfterGc) => self.round_heap = Some((at, bytes)),
            _ => {}
        }
    }

    fn failed(&mut self, step: Step, failed: PullFailed) {
        if step.purpose == Purpose::Evidence {
            self.ledger.pull_failed(failed.words.clone());
        }
        let fix = "serve net/http/pprof on 127.0.0.1:6060 in the app, or set profile.url";
        let degraded = Degraded { what: "profiles".to_owned(), why: failed.words, fix: fix.to_owned() };
        if self.runtime.degraded.as_ref() != Some(&degraded) {
            warn!(reason = failed.reason, "no profile: {}", degraded.why);
        }
        self.runtime.degraded = Some(degraded);
        self.wires.runtime.send_replace(self.runtime.clone());
    }

    /// Tells a naming, unless the goroutine profile of the same round will make it surer in a moment. Near the limit there
    /// is no such moment.
    async fn named(&mut self, step: Step, compared: Result<Compared, String>) {
        let naming = match compared {
            Ok(Compared { naming, against }) => {
                against.into_iter().for_each(|kept| self.ledger.keep(kept));
                naming
            }
            Err(words) => return self.ledger.pull_failed(words),
        };
        let critical = self.ledger.open.as_ref().is_some_and(|it| it.severity == Severity::Crit);
        let more = self.plan.more_evidence(&self.ledger.figures, self.runtime.goroutines);
        if more && (step.kind == ProfileKind::Heap || !critical) {
            return;
        }
        let events = self.ledger.name(naming, (self.clock)());
        if let Some(incident) = self.ledger.open.as_ref().filter(|_| !events.is_empty()) {
            warn!(incident = %incident.id, "leak named: {}", incident.verdict);
        }
        self.send(events).await;
    }

    async fn count(&mut self, done: &Done) {
        match &done.outcome {
            Err(failed) => telemetry::count(&telemetry::PROFILES_FAILED, Some(failed.reason)).increment(1),
            Ok(Yield::Count(_)) => {}
            Ok(Yield::Profile { .. }) => {
                telemetry::count(&telemetry::PROFILES_PULLED, None).increment(1);
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
        let open = self.ledger.open.is_some();
        telemetry::gauge(&telemetry::INCIDENTS_OPEN, None).set(f64::from(u8::from(open)));
        let gauge = OwnMetric {
            name: telemetry::INCIDENTS_OPEN.name,
            value: f64::from(u8::from(open)),
            count: false,
            tag: None,
        };
        let _full = self.wires.own.try_send(vec![gauge]);
        let views: Vec<IncidentView> = self.ledger.all().map(views::incident).collect();
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

fn app_name(who: &Identity, target: &Target) -> String {
    if who.service.is_empty() { target.name.clone() } else { who.service.clone() }
}

async fn finish(work: &mut Option<Work>) -> Done {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
