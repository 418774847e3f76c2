//! The task that owns the aggregate: raw batches in, a window on every tick out.
//!
//! Lines are parsed here, straight from the received bytes into the aggregate, so nothing is allocated per metric. Nothing
//! here waits for the sink but the very last window: a queue without a place costs the newest window, which is counted, and
//! the socket goes on being read.

mod clock;
mod handles;
#[cfg(test)]
mod jumps;
mod senders;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use memchr::memrchr;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use super::{Batch, Outgoing, OwnMetric, WallClock};
use crate::aggregate::{self, Aggregator, Stats, Taken, Window, points_in};
use crate::snapshot::{OutputPart, StatsdPart, TopContexts, TopName};
use crate::{statsd, sys, telemetry};
use clock::Clock;
use handles::{Handles, Lost, dropped};
use senders::Senders;

/// How often the snapshot is renewed at least.
const PUBLISH: Duration = Duration::from_secs(1);
/// How often free memory goes back to the kernel: between two flushes, because a flush frees most.
const GIVE_BACK_SECONDS: f64 = 20.0;
/// Names that the snapshot lists of either order.
const TOP_NAMES: usize = 100;

/// What the task owns and talks to.
#[derive(Debug)]
pub struct Rollup {
    pub aggregator: Aggregator,
    /// The task ends when every socket has let go of this.
    pub batches: mpsc::Receiver<Batch>,
    pub own: mpsc::Receiver<Vec<OwnMetric>>,
    pub out: mpsc::Sender<Outgoing>,
    pub snapshot: watch::Sender<Arc<StatsdPart>>,
    /// The sink's part: what it lost and holds goes to Datadog with our own totals.
    pub output: watch::Receiver<Arc<OutputPart>>,
    /// Other settings of the aggregate, after a reload.
    pub settings: watch::Receiver<aggregate::Settings>,
    pub wall_clock: WallClock,
    /// Windows are flushed at multiples of this; the aggregator's interval, unless a test is in a hurry.
    pub flush_every: Duration,
    /// Whether our own metrics, the watch's among them, go through the windows as well.
    pub own_metrics: bool,
}

impl Rollup {
    /// Runs until the batches end, then flushes what is open and waits for the sink to take it.
    pub async fn run(self) {
        let Rollup { aggregator, mut batches, mut own, mut settings, wall_clock, flush_every, own_metrics, .. } = self;
        let (out, snapshot, output) = (self.out, self.snapshot, self.output);
        let step = flush_every.clamp(Duration::from_millis(10), PUBLISH);
        let mut state =
            State::new(aggregator, (out, snapshot, output), Clock::new(wall_clock), flush_every, own_metrics);
        // From the start: planned at the first tick, the first window would be longer than all others.
        let now = state.clock.now();
        state.plan_flush(now);
        let mut tick = pin!(sleep(state.clock.until_next(step)));
        loop {
            tokio::select! {
                batch = batches.recv() => match batch {
                    Some(batch) => {
                        state.take_batch(&batch);
                        batch.give_back();
                    }
                    None => break,
                },
                Some(metrics) = own.recv() => state.take_own(&metrics),
                Ok(()) = settings.changed() => state.reconfigure(settings.borrow_and_update().clone()),
                () = &mut tick => {
                    state.tick();
                    tick.as_mut().reset(Instant::now() + state.clock.until_next(step));
                }
            }
        }
        while let Ok(metrics) = own.try_recv() {
            state.take_own(&metrics);
        }
        state.finish().await;
    }
}

type Wires = (mpsc::Sender<Outgoing>, watch::Sender<Arc<StatsdPart>>, watch::Receiver<Arc<OutputPart>>);

struct State {
    aggregator: Aggregator,
    out: mpsc::Sender<Outgoing>,
    snapshot: watch::Sender<Arc<StatsdPart>>,
    output: watch::Receiver<Arc<OutputPart>>,
    clock: Clock,
    flush_every: f64,
    /// Unix seconds of the clock.
    next_flush: f64,
    /// When memory was last given back, likewise.
    gave_back: f64,
    own_metrics: bool,
    datagrams: u64,
    lost: Lost,
    senders: Senders,
    /// The running totals that Datadog has been told, by metric and label.
    told: BTreeMap<(&'static str, &'static str), u64>,
    /// As of the last flush: a pass over all contexts is not worth a second's freshness.
    top: Vec<TopName>,
    handles: Handles,
}

impl State {
    fn new(
        aggregator: Aggregator,
        (out, snapshot, output): Wires,
        clock: Clock,
        flush_every: Duration,
        own_metrics: bool,
    ) -> State {
        State {
            aggregator,
            out,
            snapshot,
            output,
            clock,
            flush_every: flush_every.as_secs_f64().max(0.01),
            next_flush: f64::INFINITY,
            gave_back: f64::NEG_INFINITY,
            own_metrics,
            datagrams: 0,
            lost: Lost::default(),
            senders: Senders::new(),
            told: BTreeMap::new(),
            top: Vec::new(),
            handles: Handles::new(),
        }
    }

    fn take_batch(&mut self, batch: &Batch) {
        let now = self.clock.now();
        self.lost.add(batch.refused);
        for (datagram, bytes) in batch.iter() {
            self.datagrams += 1;
            self.senders.datagram(datagram.port);
            let whole = if datagram.truncated { self.cut(bytes) } else { bytes };
            for line in statsd::lines(whole) {
                self.senders.line(line);
                match self.aggregator.record_line(now, line) {
                    Taken::Event(event) => self.send_message(Outgoing::Event(event)),
                    Taken::Check(check) => self.send_message(Outgoing::Check(check)),
                    Taken::Blank | Taken::Metric(_) | Taken::Bad(_) => {}
                }
            }
        }
    }

    /// The whole lines of a cut datagram: a tail that ends mid-word would make a wrong tag or a wrong value.
    fn cut<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        self.aggregator.count_truncated();
        memrchr(b'\n', bytes).map_or(&[], |end| &bytes[..=end])
    }

    fn send_message(&mut self, message: Outgoing) {
        if self.out.try_send(message).is_err() {
            self.lost.events_queue_full += 1;
        }
    }

    fn take_own(&mut self, metrics: &[OwnMetric]) {
        if !self.own_metrics {
            return;
        }
        let now = self.clock.now();
        for metric in metrics {
            self.aggregator.record_own(now, metric.name, metric.value, metric.count, metric.tag.as_deref());
        }
    }

    fn tick(&mut self) {
        let now = self.clock.now();
        self.senders.tick(now);
        self.tell_own(now);
        if !self.next_flush.is_finite() || self.next_flush - now > self.flush_every {
            // The first tick, or the clock was set back.
            self.plan_flush(now);
        } else if now >= self.next_flush {
            self.plan_flush(now);
            self.flush(now);
        } else if (now - self.gave_back).abs() >= GIVE_BACK_SECONDS {
            self.gave_back = now;
            sys::give_memory_back();
        }
        self.publish();
    }

    fn plan_flush(&mut self, now: f64) {
        self.next_flush = ((now / self.flush_every).floor() + 1.0) * self.flush_every;
    }

    fn flush(&mut self, now: f64) {
        let window = self.aggregator.flush(now);
        self.renew_top();
        self.send_window(window);
    }

    /// What is open goes out under the old settings, so nothing is lost and nothing is mixed.
    fn reconfigure(&mut self, settings: aggregate::Settings) {
        let now = self.clock.now();
        let window = self.aggregator.reconfigure(now, settings);
        self.send_window(window);
    }

    fn send_window(&mut self, window: Window) {
        if points_in(&window) == 0 {
            return;
        }
        if let Err(TrySendError::Full(lost) | TrySendError::Closed(lost)) = self.out.try_send(Outgoing::Window(window))
        {
            self.lost.queue_full += points_of(&lost);
        }
    }

    fn renew_top(&mut self) {
        let names = self.aggregator.top(TOP_NAMES).into_iter();
        self.top = names.map(|top| TopName { name: top.name, samples: top.samples, contexts: top.contexts }).collect();
    }

    /// The last window waits for its place: whoever reads it is still there, and nothing more comes.
    async fn finish(&mut self) {
        let now = self.clock.now();
        self.tell_own(now);
        let window = self.aggregator.flush_all(now);
        self.renew_top();
        let points = points_in(&window);
        if points > 0 && self.out.send(Outgoing::Window(window)).await.is_err() {
            self.lost.shutdown += points;
        }
        self.publish();
    }

    /// Puts what was added to our totals since the last time into the open window.
    fn tell_own(&mut self, now: f64) {
        if !self.own_metrics {
            return;
        }
        let stats = self.aggregator.stats();
        self.tell_count(now, telemetry::STATSD_DATAGRAMS.name, None, self.datagrams);
        self.tell_count(now, telemetry::STATSD_SAMPLES.name, None, stats.samples);
        // Here and in the sink: some reasons are counted in both, so they are added up before they are told.
        let output = self.output.borrow().clone();
        let mut lost = dropped(&stats, self.lost);
        for (label, count) in &output.dropped {
            *lost.entry(label).or_default() += count;
        }
        for (label, count) in lost {
            self.tell_count(now, telemetry::DROPPED.name, Some(("reason", label)), count);
        }
        for (unit, count) in self.senders.drops.by_unit().into_iter().filter(|(_, count)| *count > 0) {
            self.tell_count(now, telemetry::STATSD_CLIENT_DROPS.name, Some(("unit", unit)), count);
        }
        self.tell_count(now, telemetry::STATSD_NEW_SENDERS.name, None, self.senders.new);
        let counted = self.senders.last;
        for (metric, value) in
            [(&telemetry::STATSD_SENDERS, counted.senders), (&telemetry::STATSD_REPORTING, counted.reporting)]
        {
            self.aggregator.record_own(now, metric.name, value as f64, false, None);
        }
        self.aggregator.record_own(now, telemetry::SPOOL_BYTES.name, output.queued_bytes as f64, false, None);
        self.aggregator.record_own(now, telemetry::STATSD_CONTEXTS.name, stats.contexts as f64, false, None);
    }

    fn tell_count(&mut self, now: f64, name: &'static str, tag: Option<(&'static str, &'static str)>, total: u64) {
        let told = self.told.entry((name, tag.map_or("", |(_, label)| label))).or_default();
        let added = total.saturating_sub(std::mem::replace(told, total));
        let tag = tag.map(|(key, label)| format!("{key}:{label}"));
        self.aggregator.record_own(now, name, added as f64, true, tag.as_deref());
    }

    fn publish(&self) {
        let stats = self.aggregator.stats();
        let dropped = dropped(&stats, self.lost);
        self.handles.set(&stats, self.datagrams, &dropped);
        self.handles.set_senders(&self.senders);
        self.snapshot.send_replace(Arc::new(self.part(&stats, dropped)));
    }

    fn part(&self, stats: &Stats, mut dropped: BTreeMap<&'static str, u64>) -> StatsdPart {
        let drops = self.senders.drops;
        // Told beside our own losses, and in none of our identities: it happened before us.
        let reported = [("client_reported", drops.packets), ("client_reported_metrics", drops.metrics)];
        dropped.extend(reported.into_iter().filter(|(_, count)| *count > 0));
        StatsdPart {
            datagrams: self.datagrams,
            samples: stats.samples,
            contexts: stats.contexts,
            app_samples: stats.samples.saturating_sub(self.senders.telemetry),
            clients: None,
            senders: self.senders.last.senders,
            new_senders: self.senders.new,
            reporting_clients: self.senders.last.reporting,
            dropped,
            identities: BTreeMap::from([("I2", stats.line_error()), ("I3", stats.sample_error())]),
            top: TopContexts { names: self.top.clone(), folded: stats.overflowed },
        }
    }
}

fn points_of(lost: &Outgoing) -> u64 {
    if let Outgoing::Window(window) = lost { points_in(window) } else { 0 }
}
