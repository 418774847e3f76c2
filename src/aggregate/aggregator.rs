//! The aggregator: lines in, windows out. It owns the contexts, the open bucket and the running totals.
//!
//! One bucket is open at a time. The first sample or flush of a later bucket closes it into `pending`, so a flush that comes
//! late never mixes two buckets, and nothing but the flush's rhythm depends on the caller's timer. Time is Unix seconds given
//! with each call; a small step back keeps the open bucket, a large one begins anew.

mod flush;
mod known;
mod reconfigure;

use std::collections::HashMap;
use std::sync::Arc;

use super::contexts::{Class, Contexts, whole_second};
use super::identity::{self, Identity};
use super::spelling::Spelling;
use super::value::{Sample, sum_form};
use super::{Form, Kind, Mode, Point, Reason, Settings, Stats, Suffix, Window};
use crate::statsd::{self, Event, Line, Message, ServiceCheck};

/// Below it one sample would stand for more than 260 million and fill a sketch with nothing but full bins (saluki's limit).
const MIN_RATE: f64 = 3.845e-9;
/// What Datadog accepts: an hour back, ten minutes ahead.
const OLDEST_SECONDS: f64 = 3600.0;
const NEWEST_SECONDS: f64 = 600.0;

/// What became of a metric line. Of a pack in which some values were dropped, what became of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    Aggregated,
    /// Into an overflow context: sums stay exact, tags are lost.
    Folded,
    Dropped(Reason),
}

/// What became of a raw line.
#[derive(Clone, Debug, PartialEq)]
pub enum Taken {
    Blank,
    Metric(Recorded),
    /// For the caller to send on; its tags are already those of a metric.
    Event(Event),
    Check(ServiceCheck),
    Bad(Reason),
}

/// A metric name with what it costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopName {
    pub name: String,
    /// Samples of the contexts that are held now.
    pub samples: u64,
    pub contexts: u64,
}

/// See the module. Everything it holds is bounded by [`Settings::max_contexts`] and [`Settings::max_bytes`].
#[derive(Debug)]
pub struct Aggregator {
    settings: Settings,
    contexts: Contexts,
    /// Start of the open bucket; `None` before the first sample.
    open: Option<i64>,
    /// The stamp of the last partial flush: the next one must not use it again.
    last_partial: i64,
    /// Closed windows and timestamped points that no flush has handed out yet.
    pending: Window,
    /// Timestamped points in `pending`; charged to `max_bytes`, because the app decides how many there are.
    timestamped: usize,
    stats: Stats,
    /// The values of the line at hand; kept for its capacity.
    numbers: Vec<f64>,
}

/// Points, sketches and raw packs of a window: the unit of `points_flushed`.
pub fn points_in(window: &Window) -> u64 {
    (window.points.len() + window.sketches.len() + window.raw.len()) as u64
}

impl Aggregator {
    pub fn new(mut settings: Settings) -> Aggregator {
        settings.interval_seconds = settings.interval_seconds.max(1);
        Aggregator {
            settings,
            contexts: Contexts::default(),
            open: None,
            last_partial: i64::MIN,
            pending: Window::default(),
            timestamped: 0,
            stats: Stats::default(),
            numbers: Vec::new(),
        }
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Takes one line without its line feed, whatever it holds.
    pub fn record_line(&mut self, now: f64, line: &[u8]) -> Taken {
        match self.record_known(now, line) {
            Some(recorded) => Taken::Metric(recorded),
            None => self.record_parsed(now, line),
        }
    }

    fn record_parsed(&mut self, now: f64, raw: &[u8]) -> Taken {
        match statsd::parse(raw) {
            Ok(Message::Metric(line)) => {
                // Each second would be a spelling of its own.
                let spelling = Spelling::cut(raw).filter(|_| line.timestamp.is_none()).map(|(spelling, _)| spelling);
                Taken::Metric(self.record(now, &line, spelling))
            }
            other => self.take_other(other),
        }
    }

    fn take_other(&mut self, parsed: Result<Message<'_>, statsd::ParseError>) -> Taken {
        self.stats.lines += 1;
        match parsed {
            Ok(Message::Event(mut event)) => {
                self.stats.events += 1;
                identity::dress(&mut event.tags, &mut event.host, &self.settings);
                Taken::Event(event)
            }
            Ok(Message::Check(mut check)) => {
                self.stats.checks += 1;
                identity::dress(&mut check.tags, &mut check.host, &self.settings);
                Taken::Check(check)
            }
            Ok(Message::Blank | Message::Metric(_)) => {
                self.stats.blank += 1;
                Taken::Blank
            }
            Err(error) => {
                self.stats.drop(error.into(), 1);
                Taken::Bad(error.into())
            }
        }
    }

    fn record(&mut self, now: f64, line: &Line<'_>, spelling: Option<Spelling<'_>>) -> Recorded {
        let mut numbers = std::mem::take(&mut self.numbers);
        let recorded = self.record_values(now, line, spelling, &mut numbers);
        numbers.truncate(1024);
        numbers.shrink_to(1024);
        self.numbers = numbers;
        recorded
    }

    fn record_values(
        &mut self,
        now: f64,
        line: &Line<'_>,
        spelling: Option<Spelling<'_>>,
        numbers: &mut Vec<f64>,
    ) -> Recorded {
        self.stats.lines += 1;
        if line.kind == Kind::Set {
            numbers.clear();
            numbers.push(0.0);
        } else if let Err(error) = line.numbers(numbers) {
            self.stats.drop(error.into(), 1);
            return Recorded::Dropped(error.into());
        }
        self.stats.metrics += 1;
        self.stats.samples += numbers.len() as u64;
        match self.refusal(now, line, numbers) {
            Some(reason) => {
                self.stats.drop(reason, numbers.len() as u64);
                Recorded::Dropped(reason)
            }
            None => self.add_values(now, line, spelling, numbers),
        }
    }

    /// Why the whole line is of no use. Told before a context is created for it.
    fn refusal(&self, now: f64, line: &Line<'_>, numbers: &[f64]) -> Option<Reason> {
        if line.rate.is_some_and(|rate| !(MIN_RATE..=1.0).contains(&rate)) {
            return Some(Reason::Rate);
        }
        if !numbers.iter().any(|number| number.is_finite()) {
            return Some(Reason::Nan);
        }
        line.timestamp.filter(|at| !self.may_carry(now, line.kind, *at)).map(|_| Reason::Timestamp)
    }

    fn may_carry(&self, now: f64, kind: Kind, at: i64) -> bool {
        let age = now - at as f64;
        let carries = matches!(kind, Kind::Counter | Kind::Gauge);
        carries && age >= -NEWEST_SECONDS && (self.settings.historical || age <= OLDEST_SECONDS)
    }

    fn add_values(&mut self, now: f64, line: &Line<'_>, spelling: Option<Spelling<'_>>, numbers: &[f64]) -> Recorded {
        self.roll(now);
        let Some(slot) = self.contexts.find(line, spelling, now, &self.settings) else {
            self.stats.drop(Reason::Filtered, numbers.len() as u64);
            return Recorded::Dropped(Reason::Filtered);
        };
        if self.settings.copy_histograms && matches!(line.kind, Kind::Histogram | Kind::Timing) {
            self.copy(now, line, numbers);
        }
        let folded = self.contexts.entry(slot).class == Class::Overflow;
        let mut added = 0;
        let mut refused = None;
        let rate = line.rate.unwrap_or(1.0);
        // A folded count goes into the bucket: with its own second it would overwrite the others of that second.
        let timestamp = line.timestamp.filter(|_| !folded);
        let mut items = line.items();
        for number in numbers {
            let text = if line.kind == Kind::Set { line.values } else { items.next().unwrap_or_default() };
            let sample = Sample { number: *number, text, rate };
            let result = match timestamp {
                _ if !number.is_finite() => Err(Reason::Nan),
                Some(at) => self.add_timestamped(slot, *number, at),
                None => self.add_sample(now, slot, sample),
            };
            match result {
                Ok(()) => added += 1,
                Err(reason) => {
                    self.stats.drop(reason, 1);
                    refused = Some(reason);
                }
            }
        }
        let entry = self.contexts.entry_mut(slot);
        entry.samples += added;
        entry.last_seen = whole_second(now);
        if folded {
            self.stats.overflowed += added;
        } else {
            self.stats.aggregated += added;
        }
        match refused.filter(|_| added == 0) {
            Some(reason) => Recorded::Dropped(reason),
            None if folded => Recorded::Folded,
            None => Recorded::Aggregated,
        }
    }

    /// The samples of a histogram once more, as a distribution. In no total of what the app sent; what finds no room is told.
    fn copy(&mut self, now: f64, line: &Line<'_>, numbers: &[f64]) {
        let line = Line { kind: Kind::Distribution, ..*line };
        let Some(slot) = self.contexts.find(&line, None, now, &self.settings) else { return };
        let rate = line.rate.unwrap_or(1.0);
        for (number, text) in numbers.iter().zip(line.items()).filter(|(number, _)| number.is_finite()) {
            if self.add_sample(now, slot, Sample { number: *number, text, rate }).is_err() {
                self.stats.drop(Reason::Copy, 1);
            }
        }
        self.contexts.entry_mut(slot).last_seen = whole_second(now);
    }

    fn add_sample(&mut self, now: f64, slot: u32, sample: Sample<'_>) -> Result<(), Reason> {
        let room = self.room();
        let entry = self.contexts.entry_mut(slot);
        let before = entry.value.bytes();
        entry.value.add(sample, room)?;
        entry.last_sampled = whole_second(now);
        let after = entry.value.bytes();
        self.contexts.bytes = self.contexts.bytes + after - before;
        Ok(())
    }

    /// Past every bucket, as the app said: a gauge as it is, a count as if it were a window's. The rate is not applied, as
    /// in the Agent.
    fn add_timestamped(&mut self, slot: u32, number: f64, at: i64) -> Result<(), Reason> {
        if self.room() < size_of::<Point>() {
            return Err(Reason::Memory);
        }
        let context = Arc::clone(&self.contexts.entry(slot).context);
        let interval = self.settings.interval_seconds;
        let counts_here = context.kind() == Kind::Counter && self.settings.mode == Mode::Intake;
        let (form, value) = match context.kind() {
            Kind::Counter => sum_form(number, false, &self.settings),
            _ => (Form::Gauge, number),
        };
        let interval_seconds = if counts_here { interval } else { 0 };
        self.pending.points.push(Point { context, suffix: Suffix::None, form, value, timestamp: at, interval_seconds });
        self.timestamped += 1;
        Ok(())
    }

    /// Bytes that are left of `max_bytes`.
    fn room(&self) -> usize {
        let used = self.contexts.bytes + self.timestamped * size_of::<Point>();
        self.settings.max_bytes.saturating_sub(used)
    }

    /// One of our own gauges or counts: no namespace, unified tags, never refused for want of contexts, and in no total of
    /// what the app sent.
    pub fn record_own(&mut self, now: f64, name: &'static str, value: f64, count: bool, tag: Option<&str>) {
        if !value.is_finite() {
            return;
        }
        self.roll(now);
        let kind = if count { Kind::Counter } else { Kind::Gauge };
        let identity = Identity::own(kind, name, tag, &self.settings);
        let slot = self.contexts.find_own(&identity, now, &self.settings);
        self.contexts.entry_mut(slot).last_seen = whole_second(now);
        // A sum past the range of f64 is the only refusal that is left, and nobody counts that far.
        let _ = self.add_sample(now, slot, Sample { number: value, text: b"", rate: 1.0 });
    }

    /// The cut last line of a datagram was thrown away.
    pub fn count_truncated(&mut self) {
        self.stats.drop(Reason::Truncated, 1);
    }

    /// Busiest and most numerous names: the `n` first of either order, busiest first. A pass over all contexts.
    pub fn top(&self, n: usize) -> Vec<TopName> {
        let mut by_name: HashMap<&str, (u64, u64)> = HashMap::new();
        for entry in self.contexts.iter().filter(|entry| entry.class != Class::Own) {
            let (samples, contexts) = by_name.entry(entry.context.name()).or_default();
            *samples += entry.samples;
            *contexts += 1;
        }
        let mut names: Vec<(&str, u64, u64)> = by_name.into_iter().map(|(name, (s, c))| (name, s, c)).collect();
        names.sort_unstable_by_key(|(name, _, contexts)| (std::cmp::Reverse(*contexts), *name));
        let mut kept: Vec<_> = names.iter().take(n).copied().collect();
        names.sort_unstable_by_key(|(name, samples, _)| (std::cmp::Reverse(*samples), *name));
        kept.extend(names.iter().take(n).copied());
        kept.sort_unstable_by_key(|(name, samples, _)| (std::cmp::Reverse(*samples), *name));
        kept.dedup();
        kept.into_iter().map(|(name, samples, contexts)| TopName { name: name.to_owned(), samples, contexts }).collect()
    }

    /// The running totals, `contexts` and `bytes` as they are now.
    pub fn stats(&self) -> Stats {
        Stats {
            contexts: self.contexts.len() as u64,
            bytes: (self.contexts.bytes + self.timestamped * size_of::<Point>()) as u64,
            ..self.stats.clone()
        }
    }
}
