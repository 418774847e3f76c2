//! What the rollup has lost itself, and its totals on `/metrics`.

use std::collections::BTreeMap;

use metrics::{Counter, Gauge};

use super::senders::Senders;
use crate::aggregate::{Reason, Stats};
use crate::pipeline::Refused;
use crate::telemetry;

/// Losses before the aggregator and between it and the sink; its own reasons are in its [`Stats`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lost {
    /// Points of windows for which the queue to the sink had no place.
    pub(super) queue_full: u64,
    /// Events and service checks, likewise.
    pub(super) events_queue_full: u64,
    /// Points of the last window, when the sink was gone already.
    pub(super) shutdown: u64,
    /// Frames of a stream longer than `statsd.max_datagram`.
    frames_too_long: u64,
    /// Stream connections closed because there were too many.
    connections: u64,
}

impl Lost {
    pub(super) fn add(&mut self, refused: Refused) {
        self.frames_too_long += u64::from(refused.frames_too_long);
        self.connections += u64::from(refused.connections);
    }

    fn by_label(self) -> [(&'static str, u64); 5] {
        [
            ("queue_full", self.queue_full),
            ("events_queue_full", self.events_queue_full),
            ("shutdown", self.shutdown),
            ("frame_too_long", self.frames_too_long),
            ("connections", self.connections),
        ]
    }
}

/// Every loss that has happened, by label.
pub(super) fn dropped(stats: &Stats, lost: Lost) -> BTreeMap<&'static str, u64> {
    let ours = Reason::ALL.into_iter().map(|reason| (reason.label(), stats.dropped(reason)));
    ours.chain(lost.by_label()).filter(|(_, count)| *count > 0).collect()
}

/// Handles into the recorder, set to the running totals once a second and once a flush.
pub(super) struct Handles {
    datagrams: Counter,
    lines: Counter,
    samples: Counter,
    events: Counter,
    checks: Counter,
    overflowed: Counter,
    points: Counter,
    contexts: Gauge,
    bytes: Gauge,
    senders: Gauge,
    new_senders: Counter,
    reporting: Gauge,
    line_error: Gauge,
    sample_error: Gauge,
}

impl Handles {
    pub(super) fn new() -> Handles {
        Handles {
            datagrams: telemetry::count(&telemetry::STATSD_DATAGRAMS, None),
            lines: telemetry::count(&telemetry::STATSD_LINES, None),
            samples: telemetry::count(&telemetry::STATSD_SAMPLES, None),
            events: telemetry::count(&telemetry::STATSD_EVENTS, None),
            checks: telemetry::count(&telemetry::STATSD_CHECKS, None),
            overflowed: telemetry::count(&telemetry::STATSD_OVERFLOWED, None),
            points: telemetry::count(&telemetry::POINTS_FLUSHED, None),
            contexts: telemetry::gauge(&telemetry::STATSD_CONTEXTS, None),
            bytes: telemetry::gauge(&telemetry::STATSD_CONTEXT_BYTES, None),
            senders: telemetry::gauge(&telemetry::STATSD_SENDERS, None),
            new_senders: telemetry::count(&telemetry::STATSD_NEW_SENDERS, None),
            reporting: telemetry::gauge(&telemetry::STATSD_REPORTING, None),
            line_error: telemetry::gauge(&telemetry::IDENTITY_ERROR, Some("I2")),
            sample_error: telemetry::gauge(&telemetry::IDENTITY_ERROR, Some("I3")),
        }
    }

    pub(super) fn set(&self, stats: &Stats, datagrams: u64, dropped: &BTreeMap<&'static str, u64>) {
        self.datagrams.absolute(datagrams);
        self.lines.absolute(stats.lines);
        self.samples.absolute(stats.samples);
        self.events.absolute(stats.events);
        self.checks.absolute(stats.checks);
        self.overflowed.absolute(stats.overflowed);
        self.points.absolute(stats.points_flushed);
        self.contexts.set(stats.contexts as f64);
        self.bytes.set(stats.bytes as f64);
        self.line_error.set(stats.line_error() as f64);
        self.sample_error.set(stats.sample_error() as f64);
        for (label, count) in dropped {
            telemetry::count(&telemetry::DROPPED, Some(label)).absolute(*count);
        }
    }

    pub(super) fn set_senders(&self, seen: &Senders) {
        self.senders.set(seen.last.senders as f64);
        self.new_senders.absolute(seen.new);
        self.reporting.set(seen.last.reporting as f64);
        for (unit, count) in seen.drops.by_unit() {
            telemetry::count(&telemetry::STATSD_CLIENT_DROPS, Some(unit)).absolute(count);
        }
    }
}
