//! Decides what goes to the intake next and what becomes of it afterwards. Knows no network and no disk: the sink asks for an
//! item and for a job, has them sent and done, and tells the outcome.
//!
//! Every point that comes in, or that an earlier process left on disk, is at each moment in exactly one place: the queue (in
//! memory or on disk), under way, delivered, or lost under a reason.

#[cfg(test)]
mod bodies;
mod cut;
mod disk;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod model;

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::breaker::Breaker;
use super::complaints::Complaints;
use super::inflow::Inflow;
use super::ledger::{Ledger, Now, Waiting};
use super::outcome::{Outcome, Trouble};
use super::queue::{Item, Place, Queue, points};
use super::random;
use super::spool::Spool;
use crate::aggregate::Window;
use crate::datadog::{self, Answer, Encoder, Endpoint, Payload, Policy, Verdict};
use crate::pipeline::Outgoing;
use crate::snapshot::OutputPart;

/// What the dispatch has to know.
#[derive(Debug)]
pub(super) struct DispatchSettings {
    pub encoder: Encoder,
    pub hostname: Option<String>,
    pub historical: bool,
    pub policy: Policy,
    pub max_memory: u64,
    /// There is a folder for what waits; of at most `max_size`.
    pub has_spool: bool,
    pub max_size: u64,
    /// Between two tries with a key that was refused.
    pub hold: Duration,
}

/// Owned by the intake sink alone.
#[derive(Debug)]
pub(super) struct Dispatch {
    settings: DispatchSettings,
    queue: Queue,
    /// One for each of [`Endpoint::ALL`], in that order.
    breakers: [Breaker; 4],
    /// Closed while the key is refused; over all endpoints.
    key: Breaker,
    ledger: Ledger,
    complaints: Complaints,
    spool: Spool,
    sequence: u64,
    last_id: u64,
    under_way: UnderWay,
    /// The end has come: what is left goes to disk at once.
    draining: bool,
    inflow: Inflow,
}

/// As many as the sink has places for.
#[derive(Debug, Default)]
struct UnderWay {
    items: HashMap<u64, Item>,
    bytes: u64,
    points: u64,
}

impl Dispatch {
    pub fn new(settings: DispatchSettings) -> Dispatch {
        Dispatch {
            queue: Queue::new(settings.max_memory),
            spool: Spool::new(settings.has_spool, settings.max_size),
            settings,
            breakers: Default::default(),
            key: Breaker::default(),
            ledger: Ledger::new("intake", "I4"),
            complaints: Complaints::default(),
            sequence: 0,
            last_id: 0,
            under_way: UnderWay::default(),
            draining: false,
            inflow: Inflow::default(),
        }
    }

    /// Encodes and queues what the pipeline hands over.
    pub fn accept(&mut self, outgoing: Outgoing, now: Now) {
        let host = self.settings.hostname.as_deref();
        let wall = now.wall as i64;
        match outgoing {
            Outgoing::Window(window) => self.accept_window(&window, now),
            Outgoing::Event(event) => self.enqueue(datadog::event_payload(&event, host, wall, false), now),
            Outgoing::Urgent(event) => self.enqueue(datadog::event_payload(&event, host, wall, true), now),
            Outgoing::Check(check) => self.enqueue(datadog::check_payload(&check, host, wall), now),
        }
    }

    fn accept_window(&mut self, window: &Window, now: Now) {
        self.ledger.take((window.points.len() + window.sketches.len()) as u64);
        self.spool.stamp = window.partial.filter(|_| self.settings.has_spool).or(self.spool.stamp);
        let encoded = self.settings.encoder.encode(window, now.wall as i64);
        for (refused, n) in encoded.refused {
            self.lose(refused.label(), n, now);
        }
        self.ledger.note("tags_cut", encoded.tags_cut);
        self.inflow.add(encoded.payloads.iter().map(|payload| payload.body.len() as u64).sum(), now.tick);
        for payload in encoded.payloads {
            self.enqueue(payload, now);
        }
    }

    fn enqueue(&mut self, payload: Payload, now: Now) {
        // Above all that an earlier process numbered, unless the clock was set back; then above all that was found.
        self.sequence = (self.sequence + 1).max((now.wall * 1e6) as u64);
        let item = Item::new(self.next_id(), payload, self.sequence, now.tick);
        self.put(item, now);
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn put(&mut self, mut item: Item, now: Now) {
        if item.file().is_some() {
            item.payload.body.clear();
        }
        self.line_up(item, now);
    }

    fn line_up(&mut self, item: Item, now: Now) {
        for gone in self.queue.push(item) {
            self.give_up(&gone, "queue_full", now);
        }
        self.bound_memory(now);
    }

    /// The next payload to send, now under way, by the number of its item. `pressing_only`: all places but the one kept for
    /// urgent events are taken.
    pub fn next(&mut self, pressing_only: bool, now: Now) -> Option<(u64, Payload)> {
        let key_open = self.key.may_send(now.tick);
        let breakers = &self.breakers;
        let mut item =
            self.queue.take(pressing_only, |endpoint| key_open && breakers[endpoint as usize].may_send(now.tick))?;
        if breakers[item.payload.endpoint as usize].may_send(now.tick) {
            self.breakers[item.payload.endpoint as usize].sending();
        }
        if key_open {
            self.key.sending();
        }
        item.tried = true;
        self.under_way.bytes += item.length;
        self.under_way.points += points(&item);
        let next = (item.id, item.payload.clone());
        self.under_way.items.insert(item.id, item);
        Some(next)
    }

    /// What became of an item that was under way. True when the key was refused, so that it is read again.
    pub fn settle(&mut self, id: u64, outcome: &Outcome, now: Now) -> bool {
        let Some(mut item) = self.landed(id) else { return false };
        // A status is a word on whether it was taken; silence is none.
        item.doubtful |= !matches!(outcome.answer, Answer::Status { .. });
        if let Some(trouble) = &outcome.trouble {
            self.complain(trouble, now);
        }
        let endpoint = item.payload.endpoint;
        let errors = self.breakers[endpoint as usize].errors_with_this();
        let jitter = random::unit();
        let policy = self.policy(endpoint);
        match policy.decide(outcome.answer, errors, age(&item.payload, now), jitter) {
            Verdict::Deliver => self.deliver(&item, now),
            Verdict::Wait(wait) => {
                self.key_answered(endpoint, now, wait);
                self.put(item, now);
            }
            Verdict::Split => self.split(&item, now),
            Verdict::Drop("too_old") => {
                self.key_answered(endpoint, now, policy.back_off(errors, jitter));
                self.give_up(&item, "too_old", now);
            }
            Verdict::Drop(reason) => {
                self.answered(endpoint);
                self.give_up(&item, reason, now);
            }
            Verdict::HoldForKey => {
                // The endpoint itself answered: only the key stands in the way.
                self.breakers[endpoint as usize].success();
                self.key.failure(now.tick, self.settings.hold);
                self.put(item, now);
                return true;
            }
        }
        false
    }

    fn deliver(&mut self, item: &Item, now: Now) {
        self.answered(item.payload.endpoint);
        self.ledger.deliver(points(item));
        self.ledger.succeed(now);
        if item.again && item.payload.endpoint == Endpoint::Sketches {
            self.ledger.redeliver(item.payload.points);
        }
        self.forget(item);
    }

    /// Changes an item, wherever it is.
    fn change(&mut self, id: u64, change: impl FnOnce(&mut Item)) -> bool {
        match self.under_way.items.get_mut(&id) {
            Some(item) => {
                change(item);
                true
            }
            None => self.queue.change(id, change),
        }
    }

    /// A failure of the endpoint says nothing of the key; a probe of the key that ended so may be repeated.
    fn key_answered(&mut self, endpoint: Endpoint, now: Now, wait: Duration) {
        self.breakers[endpoint as usize].failure(now.tick, wait);
        if self.key.errors_with_this() > 1 {
            self.key.failure(now.tick, wait.min(self.settings.hold));
        }
    }

    /// The intake understood the request and took the key.
    fn answered(&mut self, endpoint: Endpoint) {
        self.breakers[endpoint as usize].success();
        self.key.success();
    }

    /// Nothing was learned from sending this item, which goes back: its key was replaced meanwhile, or the end came.
    pub fn come_back(&mut self, id: u64, now: Now) {
        let Some(mut item) = self.landed(id) else { return };
        item.doubtful = true;
        self.breakers[item.payload.endpoint as usize].undecided();
        self.key.undecided();
        self.put(item, now);
    }

    /// The task that carried an item broke; the item goes back, and its endpoint rests for a moment.
    pub fn broke(&mut self, id: u64, now: Now) {
        let Some(mut item) = self.landed(id) else { return };
        item.doubtful = true;
        self.key_answered(item.payload.endpoint, now, self.settings.policy.base);
        self.put(item, now);
    }

    fn landed(&mut self, id: u64) -> Option<Item> {
        let item = self.under_way.items.remove(&id)?;
        self.under_way.bytes -= item.length;
        self.under_way.points -= points(&item);
        Some(item)
    }

    /// Once a second: drops what became too old while it waited.
    pub fn expire(&mut self, now: Now) {
        let policies = Endpoint::ALL.map(|endpoint| self.policy(endpoint));
        let gone = self.queue.remove(|item| age(&item.payload, now) > policies[item.payload.endpoint as usize].max_age);
        for item in gone {
            self.give_up(&item, "too_old", now);
        }
        // A disk that has begun to hang takes nothing more, and nobody else would notice.
        if self.spool.hangs(now.tick) {
            self.queue.relocate(Place::Memory, Item::is_unmarked);
        }
        self.bound_memory(now);
    }

    /// Drops all that waits in memory alone: the end has come. What is on disk is there for the next start.
    pub fn abandon(&mut self, now: Now) {
        for item in self.queue.remove(|item| item.file().is_none()) {
            self.give_up(&item, "shutdown", now);
        }
        info!("the intake sink ends: {}, {} left on disk", self.ledger, self.queue.points());
    }

    /// There is another key: what was held may go at once.
    pub fn key_changed(&mut self) {
        info!("the API key was read again and is another one now");
        self.key.success();
    }

    /// Ends all waiting, for the last try before the end, and has what is left written to disk.
    pub fn drain(&mut self, now: Now) {
        self.draining = true;
        for breaker in self.breakers.iter_mut().chain([&mut self.key]) {
            breaker.try_now(now.tick);
        }
    }

    /// When something that waits may go; `None` when nothing waits for a time.
    pub fn wakes_at(&self, now: Now) -> Option<Instant> {
        let closed = self.breakers.iter().chain([&self.key]).filter_map(Breaker::wakes_at);
        closed.filter(|at| *at > now.tick).min().filter(|_| !self.queue.is_empty())
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn publish(&self, now: Now) -> OutputPart {
        let waiting = Waiting {
            points: self.queue.points() + self.under_way.points,
            bytes: self.queue.bytes() + self.under_way.bytes,
            outage_seconds_left: self.outage_seconds_left(),
            disk_bytes: self.spool.bytes(),
            spool: self.spool.state(now.tick),
        };
        let mut part = self.ledger.publish(waiting, now);
        part.degraded.extend(self.spool.degraded(now.tick));
        part
    }

    /// How long memory and disk would hold if nothing were taken from now on; never longer than points are worth keeping.
    fn outage_seconds_left(&self) -> Option<u64> {
        let free = (self.settings.max_memory.saturating_sub(self.memory()) + self.spool.free()) as f64;
        let inflow = self.inflow.per_second()?;
        Some((free / inflow).min(self.settings.policy.max_age.as_secs_f64()) as u64)
    }

    fn policy(&self, endpoint: Endpoint) -> Policy {
        // Historical ingestion exists for series alone.
        let forever = self.settings.historical && endpoint == Endpoint::Series;
        let max_age = if forever { Duration::MAX } else { self.settings.policy.max_age };
        Policy { max_age, ..self.settings.policy }
    }

    fn give_up(&mut self, item: &Item, reason: &'static str, now: Now) {
        match item.payload.endpoint {
            Endpoint::Series | Endpoint::Sketches => self.lose(reason, item.payload.points, now),
            Endpoint::Events => self.lose_one("event_lost", reason, now),
            Endpoint::Checks => self.lose_one("check_lost", reason, now),
        }
        self.forget(item);
    }

    fn lose(&mut self, reason: &'static str, n: u64, now: Now) {
        self.ledger.lose(reason, n);
        if let Some(sum) = self.complaints.add(reason, n, now.tick) {
            warn!(dropped = sum, reason, "dropped {sum} points on their way to Datadog: {reason}");
        }
    }

    fn lose_one(&mut self, label: &'static str, reason: &'static str, now: Now) {
        self.ledger.note(label, 1);
        if let Some(sum) = self.complaints.add(label, 1, now.tick) {
            warn!(dropped = sum, reason, "gave up {sum} events or checks on their way to Datadog: {reason}");
        }
    }

    /// Tells what is wrong: on the page until a success, and in the log.
    pub fn complain(&mut self, trouble: &Trouble, now: Now) {
        self.ledger.degrade(trouble.view());
        if let Some(times) = self.complaints.add(trouble.reason, 1, now.tick) {
            warn!(times, reason = trouble.reason, "Datadog intake: {}; {}", trouble.why, trouble.fix);
        }
    }
}

fn age(payload: &Payload, now: Now) -> Duration {
    Duration::try_from_secs_f64(now.wall - payload.created_at as f64).unwrap_or_default()
}
