//! The books of a sink: what came in, what was taken by the other side, what was lost and why; on `/metrics` and in
//! [`OutputPart`].
//!
//! Points are kept apart from events and checks: identity I4 speaks of points alone, so an event that is given up counts
//! under a reason of its own.

use std::collections::BTreeMap;

use tokio::time::Instant;

use crate::snapshot::{DegradedView, OutputPart, rfc3339};
use crate::telemetry;

/// A point in time, on both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub tick: Instant,
    /// Unix seconds.
    pub wall: f64,
}

/// Lives as long as the sink, which alone writes it. Bounded by the number of reasons.
#[derive(Debug)]
pub(super) struct Ledger {
    mode: &'static str,
    identity: &'static str,
    taken: u64,
    delivered: u64,
    lost: u64,
    dropped: BTreeMap<&'static str, u64>,
    last_success: Option<Now>,
    began: Instant,
    degraded: Option<DegradedView>,
    meters: Meters,
}

#[derive(Debug)]
struct Meters {
    delivered: metrics::Counter,
    queued: metrics::Gauge,
    bytes: metrics::Gauge,
    last_success: metrics::Gauge,
    outage_left: metrics::Gauge,
    identity: metrics::Gauge,
}

impl std::fmt::Display for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} taken, {} delivered, {} lost", self.taken, self.delivered, self.lost)
    }
}

impl Ledger {
    /// `identity` is `I4` (points, to the intake) or `I7` (lines, to an Agent).
    pub fn new(mode: &'static str, identity: &'static str) -> Ledger {
        let meters = Meters {
            delivered: telemetry::count(&telemetry::POINTS_DELIVERED, None),
            queued: telemetry::gauge(&telemetry::POINTS_QUEUED, None),
            bytes: telemetry::gauge(&telemetry::SPOOL_BYTES, None),
            last_success: telemetry::gauge(&telemetry::OUTPUT_LAST_SUCCESS, None),
            outage_left: telemetry::gauge(&telemetry::OUTPUT_OUTAGE_LEFT, None),
            identity: telemetry::gauge(&telemetry::IDENTITY_ERROR, Some(identity)),
        };
        Ledger {
            mode,
            identity,
            taken: 0,
            delivered: 0,
            lost: 0,
            dropped: BTreeMap::new(),
            last_success: None,
            began: Instant::now(),
            degraded: None,
            meters,
        }
    }

    /// Points (or lines) that came in.
    pub fn take(&mut self, points: u64) {
        self.taken += points;
    }

    pub fn deliver(&mut self, points: u64) {
        self.delivered += points;
        self.meters.delivered.increment(points);
    }

    pub fn succeed(&mut self, now: Now) {
        self.last_success = Some(now);
        self.degraded = None;
    }

    pub fn degrade(&mut self, view: DegradedView) {
        self.degraded = Some(view);
    }

    /// Points (or lines) that are lost.
    pub fn lose(&mut self, reason: &'static str, points: u64) {
        self.lost += points;
        self.note(reason, points);
    }

    /// Something that is no point: an event, a check, tags that were cut.
    pub fn note(&mut self, reason: &'static str, n: u64) {
        if n > 0 {
            *self.dropped.entry(reason).or_default() += n;
            telemetry::count(&telemetry::DROPPED, Some(reason)).increment(n);
        }
    }

    /// Sets the gauges and gives the part that the page sees. `waiting` are points that are neither delivered nor lost.
    pub fn publish(&self, waiting: u64, bytes: u64, outage_seconds_left: Option<u64>, now: Now) -> OutputPart {
        let right = self.delivered + self.lost + waiting;
        let error = i64::try_from(i128::from(right) - i128::from(self.taken)).unwrap_or(i64::MAX);
        self.meters.queued.set(waiting as f64);
        self.meters.bytes.set(bytes as f64);
        self.meters.identity.set(error as f64);
        // Before the first success the age grows from the start: an alert on it must fire for an output that never worked.
        let since = self.last_success.map_or(self.began, |last| last.tick);
        self.meters.last_success.set(now.tick.saturating_duration_since(since).as_secs_f64());
        self.meters.outage_left.set(outage_seconds_left.map_or(f64::NAN, |seconds| seconds as f64));
        OutputPart {
            mode: self.mode,
            last_success: self.last_success.map(|last| rfc3339(last.wall)),
            queued_bytes: bytes,
            outage_seconds_left,
            dropped: self.dropped.clone(),
            identities: BTreeMap::from([(self.identity, error)]),
            degraded: self.degraded.clone().into_iter().collect(),
        }
    }
}
