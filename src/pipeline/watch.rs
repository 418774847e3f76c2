//! The task that turns readings into alerts, gauges and the chart.
//!
//! It owns the detectors and the history behind the page. It asks nobody anything: readings come in, findings go out, and the
//! sampler is told only how often to look.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::chart::Chart;
use super::saved::{SavedTarget, SavedWatch};
use super::words::Identity;
use super::{Degraded, Figures, Finding, Gone, Kills, Observation, OwnMetric, Pace, Runtime, Target, WallClock};
use crate::detect::{self, Detector, Detectors, Outlook, Reading, State};
use crate::snapshot::{DegradedView, MemoryView, StatsdPart, TargetView, WatchPart};
use crate::telemetry::{self, Metric};

/// How often to look when the limit is near: at 100 MiB/s a second is the difference between evidence and none.
const NEAR: Duration = Duration::from_millis(250);

/// The limit is near when it is this close in time or in share.
const NEAR_TIME: Duration = Duration::from_secs(60);
const NEAR_SHARE: f64 = 0.8;

/// How often the state is published to the owner of its file.
const SAVE: Duration = Duration::from_secs(5);

/// Over how long the load is taken: clients send their buffers every few seconds.
const LOAD_SECONDS: f64 = 10.0;

/// The channels of the watch.
#[derive(Debug)]
pub struct Wires {
    pub observations: mpsc::Receiver<Observation>,
    pub pace: watch::Sender<Pace>,
    pub own: mpsc::Sender<Vec<OwnMetric>>,
    pub findings: mpsc::Sender<Finding>,
    pub runtime: watch::Receiver<Runtime>,
    /// The rollup's part of the snapshot: the app's samples are its load, silence and new clients are signs.
    pub statsd: watch::Receiver<Arc<StatsdPart>>,
    /// Other settings of the rules, after a reload.
    pub settings: watch::Receiver<detect::Settings>,
    pub part: watch::Sender<Arc<WatchPart>>,
    /// What a restart must not cost, for the owner of the state file; `None` where there is no file.
    pub saved: Option<watch::Sender<Arc<SavedWatch>>>,
}

/// The task's state; every field belongs to it alone.
#[derive(Debug)]
pub struct Watch {
    wires: Wires,
    clock: WallClock,
    detectors: Detectors,
    /// The interval of the settings, when nothing is near.
    interval: Duration,
    chart: Chart,
    target: Option<Target>,
    /// A target has vanished since the last one appeared: the next is a restart, and not a better guess.
    lost: bool,
    /// Restarts that were seen; what an event tells.
    restarts: u64,
    /// Kills in the target's cgroup at the last reading, and since when one more is seen while the target seems to live.
    kills: Option<Kills>,
    killing: Option<Duration>,
    /// What the kernel had dropped at the reading before; it only grows while our sockets live.
    kernel_drops: u64,
    load: Load,
    /// When the state was published last.
    saved_at: Duration,
    /// By service and version as set, lives of an app teach one another, and no other app.
    who: Identity,
}

impl Watch {
    pub fn new(detectors: Detectors, interval: Duration, clock: WallClock, wires: Wires) -> Watch {
        Watch {
            wires,
            clock,
            detectors,
            interval,
            chart: Chart::default(),
            target: None,
            lost: false,
            restarts: 0,
            kills: None,
            killing: None,
            kernel_drops: 0,
            load: Load::default(),
            saved_at: Duration::ZERO,
            who: Identity::default(),
        }
    }

    /// Whose lives they are that teach one another.
    #[must_use]
    pub fn of(self, who: Identity) -> Watch {
        Watch { who, ..self }
    }

    /// Runs until the sampler has ended.
    pub async fn run(mut self) {
        while let Some(observation) = self.wires.observations.recv().await {
            if self.wires.settings.has_changed().unwrap_or(false) {
                self.detectors.set(self.wires.settings.borrow_and_update().clone());
            }
            let runtime = self.wires.runtime.borrow_and_update().clone();
            let at = observation.reading.at;
            self.observe(observation, &runtime).await;
            if at.saturating_sub(self.saved_at) >= SAVE {
                self.saved_at = at;
                self.save();
            }
        }
        self.save();
    }

    fn save(&self) {
        let Some(saved) = &self.wires.saved else { return };
        // Before the first target: what another sidecar saved of its own stands.
        if self.target.is_none() && !self.lost {
            return;
        }
        let saved_target = |it: &Target| SavedTarget { pid: it.pid, incarnation: it.incarnation, kills: self.kills };
        let target = self.target.as_ref().map(saved_target);
        saved.send_replace(Arc::new(SavedWatch { target, rules: self.detectors.save() }));
    }

    async fn observe(&mut self, mut seen: Observation, runtime: &Runtime) {
        let mut own = Vec::new();
        if let Some(gone) = seen.gone {
            self.vanished(gone, &mut own).await;
        }
        if let Some(gone) = seen.before {
            self.before(gone).await;
        }
        self.meet(&seen, &mut own).await;
        self.children(&seen, &mut own).await;
        seen.reading.goroutines = runtime.goroutines.filter(|_| self.target.is_some());
        seen.reading.live_heap_bytes = runtime.live_heap(Instant::now()).filter(|_| self.target.is_some());
        seen.reading.load = self.load.step(seen.reading.at, self.wires.statsd.borrow().app_samples);
        if self.target.is_some() {
            self.hear(&mut seen.reading, runtime);
            self.judge(&seen).await;
        }
        let outlook = self.outlook();
        self.set_pace(&seen.reading, outlook);
        gauges(&seen, outlook, &mut own);
        self.kernel_drops(seen.census.kernel_drops, &mut own);
        self.hand_over(own).await;
        self.publish(&seen, runtime, outlook);
    }

    /// What the app says, by StatsD and by pprof.
    fn hear(&self, reading: &mut Reading, runtime: &Runtime) {
        let statsd = self.wires.statsd.borrow();
        (reading.datagrams, reading.new_senders) = (Some(statsd.datagrams), Some(statsd.new_senders));
        reading.pprof_answered = runtime.answers.last.map(|at| at.elapsed());
        reading.pprof_silent =
            runtime.answers.open_since.filter(|_| runtime.answers.last.is_some()).map(|at| at.elapsed());
    }

    /// What is to be expected of the target; of nobody, nothing.
    fn outlook(&self) -> Outlook {
        if self.target.is_some() { self.detectors.outlook() } else { Outlook::default() }
    }

    /// Another pid or start time is another process. The name alone may change: an exec, or a process that titles itself.
    async fn meet(&mut self, seen: &Observation, own: &mut Vec<OwnMetric>) {
        let identity = |target: &Target| (target.pid, target.incarnation);
        match (&seen.target, &self.target) {
            (Some(new), Some(old)) if identity(new) == identity(old) => {
                let renamed = new.name != old.name;
                self.target = Some(new.clone());
                if renamed {
                    self.detectors.renamed(&self.who.lives_as(new));
                    let _closed = self.wires.findings.send(Finding::Renamed(new.clone())).await;
                }
            }
            (Some(new), _) => self.appeared(new.clone(), own).await,
            (None, _) => {}
        }
    }

    /// Tells of a kill in the target's cgroup that the target outlived. A second is given for it to turn out to be the dying one.
    async fn children(&mut self, seen: &Observation, own: &mut Vec<OwnMetric>) {
        let Some(kills) = seen.oom_kills.filter(|_| self.target.is_some() && seen.target.is_some()) else { return };
        let more = |before: Kills| before.counter == kills.counter && kills.count > before.count;
        if self.kills.replace(kills).is_some_and(more) {
            self.killing.get_or_insert(seen.reading.at);
        }
        if self.killing.is_some_and(|since| seen.reading.at.saturating_sub(since) >= Duration::from_secs(1)) {
            self.killing = None;
            self.detectors.killed();
            count(&telemetry::APP_OOM_KILLS, own);
            let _closed = self.wires.findings.send(Finding::ChildKilled).await;
        }
    }

    /// A full queue skips this reading's gauges, since the next brings newer ones. A count comes once, so it waits.
    async fn hand_over(&self, own: Vec<OwnMetric>) {
        if own.iter().any(|metric| metric.count) {
            let _closed = self.wires.own.send(own).await;
        } else {
            let _full = self.wires.own.try_send(own);
        }
    }

    /// What another sidecar watched is gone. It may be told more than once, and then it changes nothing.
    async fn before(&mut self, gone: Gone) {
        if gone == Gone::OomKilled {
            self.detectors.killed_before();
        }
        let _closed = self.wires.findings.send(Finding::Before(gone)).await;
    }

    async fn vanished(&mut self, gone: Gone, own: &mut Vec<OwnMetric>) {
        if self.target.take().is_none() {
            return;
        }
        (self.lost, self.kills, self.killing) = (true, None, None);
        if gone == Gone::OomKilled {
            self.detectors.killed();
            count(&telemetry::APP_OOM_KILLS, own);
        }
        let _closed = self.wires.findings.send(Finding::Vanished(gone)).await;
    }

    async fn appeared(&mut self, target: Target, own: &mut Vec<OwnMetric>) {
        if std::mem::take(&mut self.lost) {
            self.restarts += 1;
            count(&telemetry::APP_RESTARTS, own);
        }
        (self.kills, self.killing) = (None, None);
        if self.target.take().is_some() {
            let _closed = self.wires.findings.send(Finding::Vanished(Gone::Ended)).await;
        }
        self.detectors.watching(&self.who.lives_as(&target));
        self.target = Some(target.clone());
        let _closed = self.wires.findings.send(Finding::Appeared(target)).await;
    }

    /// Figures go first: the sentence of an alert quotes those of its own reading.
    async fn judge(&mut self, seen: &Observation) {
        let changes = self.detectors.observe(&seen.reading);
        let figures = Figures { restarts: self.restarts, ..figures(seen, self.detectors.outlook()) };
        // Without a figure the last one stands: what is quoted is where memory was, not that it could not be read.
        if figures.memory_bytes > 0 {
            let _closed = self.wires.findings.send(Finding::Figures(figures)).await;
        }
        let is_news = !changes.is_empty();
        for change in changes {
            let _closed = self.wires.findings.send(Finding::Alert(change)).await;
        }
        // The incident is written at once: without what stands, the next sidecar would take it for over.
        if is_news {
            self.save();
        }
    }

    fn set_pace(&self, reading: &Reading, outlook: Outlook) {
        let soon = outlook.time_to_limit.is_some_and(|left| left < NEAR_TIME);
        let share =
            reading.memory_bytes.zip(reading.limit_bytes).map_or(0.0, |(memory, limit)| memory as f64 / limit as f64);
        let pace = if soon || outlook.hurries || share > NEAR_SHARE { NEAR.min(self.interval) } else { self.interval };
        self.wires.pace.send_if_modified(|now| std::mem::replace(now, pace) != pace);
    }

    fn kernel_drops(&mut self, total: u64, own: &mut Vec<OwnMetric>) {
        let new = total.saturating_sub(self.kernel_drops);
        self.kernel_drops = total;
        if new > 0 {
            telemetry::count(&telemetry::DROPPED, Some("kernel_rcvbuf")).increment(new);
            let tag = Some("reason:kernel_rcvbuf".to_owned());
            own.push(OwnMetric { name: telemetry::DROPPED.name, value: new as f64, count: true, tag });
        }
    }

    fn publish(&mut self, seen: &Observation, runtime: &Runtime, outlook: Outlook) {
        if self.target.is_some() {
            self.chart.push((self.clock)(), seen);
        }
        let degraded = seen.degraded.iter().chain(&runtime.degraded).map(degraded).collect();
        let part = WatchPart {
            target: self.target.as_ref().map(|target| TargetView {
                pid: target.pid,
                name: target.name.clone(),
                rule: target.rule.clone(),
            }),
            memory: memory(seen, outlook),
            statsd_clients: seen.census.clients,
            kernel_drops: seen.census.kernel_drops,
            degraded,
            identities: BTreeMap::from([("I6", runtime.pulls_error)]),
            readings: self.chart.points(),
        };
        self.wires.part.send_replace(Arc::new(part));
    }
}

/// The app's samples a second, from a running total: over ten seconds, renewed after each ten. `None` while the stream carries
/// none.
#[derive(Debug, Default)]
struct Load {
    since: Option<(Duration, u64)>,
    per_second: Option<f64>,
}

impl Load {
    fn step(&mut self, at: Duration, total: u64) -> Option<f64> {
        let (since, before) = *self.since.get_or_insert((at, total));
        let seconds = at.saturating_sub(since).as_secs_f64();
        if seconds >= LOAD_SECONDS {
            self.per_second = (total > 0).then(|| total.saturating_sub(before) as f64 / seconds);
            self.since = Some((at, total));
        }
        self.per_second
    }
}

fn figures(seen: &Observation, outlook: Outlook) -> Figures {
    let reading = &seen.reading;
    Figures {
        memory_bytes: reading.memory_bytes.or(seen.rss_bytes).unwrap_or(0),
        rss_bytes: seen.rss_bytes.unwrap_or(0),
        limit_bytes: reading.limit_bytes,
        slope_bytes_per_second: outlook.slope_bytes_per_second,
        time_to_limit: outlook.time_to_limit,
        statsd_clients: reading.statsd_clients,
        client_uid: seen.census.uid,
        threads: reading.threads,
        fds: reading.fds,
        goroutines: reading.goroutines,
        strained: outlook.strained,
        healthy: matches!(outlook.state, State::Learning | State::Quiet),
        restarts: 0,
    }
}

fn memory(seen: &Observation, outlook: Outlook) -> MemoryView {
    MemoryView {
        rss_bytes: seen.rss_bytes,
        working_set_bytes: seen.working_set_bytes,
        limit_bytes: seen.reading.limit_bytes,
        slope_bytes_per_second: outlook.slope_bytes_per_second,
        time_to_limit_seconds: outlook.time_to_limit.map(|left| left.as_secs_f64()),
        state: outlook.state.label(),
    }
}

fn degraded(it: &Degraded) -> DegradedView {
    DegradedView { what: it.what.clone(), why: it.why.clone(), fix: it.fix.clone() }
}

/// One reading as gauges, here and on their way to Datadog. What could not be read is left out, never sent as 0.
fn gauges(seen: &Observation, outlook: Outlook, own: &mut Vec<OwnMetric>) {
    let reading = &seen.reading;
    let whole = |n: Option<u64>| n.map(|n| n as f64);
    let rows: [(&'static Metric, Option<f64>); 12] = [
        (&telemetry::APP_RSS, whole(seen.rss_bytes)),
        (&telemetry::APP_WORKING_SET, whole(seen.working_set_bytes)),
        (&telemetry::APP_ANONYMOUS, whole(reading.memory_bytes)),
        (&telemetry::APP_LIMIT, whole(reading.limit_bytes)),
        (&telemetry::APP_SLOPE, outlook.slope_bytes_per_second),
        (&telemetry::APP_TIME_TO_LIMIT, outlook.time_to_limit.map(|left| left.as_secs_f64())),
        (&telemetry::APP_THREADS, whole(reading.threads)),
        (&telemetry::APP_GOROUTINES, whole(reading.goroutines)),
        (&telemetry::APP_HEAP, whole(reading.live_heap_bytes)),
        (&telemetry::APP_FDS, whole(reading.fds)),
        (&telemetry::APP_STATSD_CLIENTS, whole(reading.statsd_clients)),
        (&telemetry::SELF_RSS, whole(seen.self_rss_bytes)),
    ];
    for (metric, value) in rows {
        // Prometheus has no "absent" for a gauge once registered: NaN is its word for no value.
        telemetry::gauge(metric, None).set(value.unwrap_or(f64::NAN));
        own.extend(value.map(|value| OwnMetric { name: metric.name, value, count: false, tag: None }));
    }
    if reading.memory_bytes.is_none() && seen.target.is_some() {
        telemetry::count(&telemetry::READINGS_FAILED, None).increment(1);
    }
}

fn count(metric: &'static Metric, own: &mut Vec<OwnMetric>) {
    telemetry::count(metric, None).increment(1);
    own.push(OwnMetric { name: metric.name, value: 1.0, count: true, tag: None });
}

#[cfg(test)]
mod tests;
