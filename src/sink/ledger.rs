//! The books of a sink: what came in, what was taken by the other side, what was lost and why; on `/metrics` and in
//! [`OutputPart`].
//!
//! Points are kept apart from events and checks: identity I4 speaks of points alone, so an event that is given up counts
//! under a reason of its own.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::spool::STATES;
use crate::snapshot::{DegradedView, OutputPart, rfc3339};
use crate::telemetry;

/// A point in time, on both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub tick: Instant,
    /// Unix seconds.
    pub wall: f64,
}

/// What is neither delivered nor lost.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waiting {
    pub points: u64,
    pub bytes: u64,
    pub outage_seconds_left: Option<u64>,
    pub disk_bytes: u64,
    /// One of [`STATES`].
    pub spool: &'static str,
}

/// Lives as long as the sink, which alone writes it. Bounded by the number of reasons.
#[derive(Debug)]
pub(super) struct Ledger {
    mode: &'static str,
    identity: &'static str,
    taken: u64,
    restored: u64,
    corrupt_files: u64,
    redelivered: u64,
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
    disk: metrics::Gauge,
    /// One for each of [`STATES`].
    spool: [metrics::Gauge; 4],
    last_success: metrics::Gauge,
    outage_left: metrics::Gauge,
    identity: metrics::Gauge,
}

impl std::fmt::Display for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} taken, {} restored ({} corrupt files), {} delivered ({} of them perhaps twice), {} lost",
            self.taken, self.restored, self.corrupt_files, self.delivered, self.redelivered, self.lost
        )
    }
}

impl Ledger {
    /// `identity` is `I4` (points, to the intake) or `I7` (lines, to an Agent).
    pub fn new(mode: &'static str, identity: &'static str) -> Ledger {
        let meters = Meters {
            delivered: telemetry::count(&telemetry::POINTS_DELIVERED, None),
            queued: telemetry::gauge(&telemetry::POINTS_QUEUED, None),
            bytes: telemetry::gauge(&telemetry::SPOOL_BYTES, None),
            disk: telemetry::gauge(&telemetry::SPOOL_DISK, None),
            spool: STATES.map(|state| telemetry::gauge(&telemetry::SPOOL_STATE, Some(state))),
            last_success: telemetry::gauge(&telemetry::OUTPUT_LAST_SUCCESS, None),
            outage_left: telemetry::gauge(&telemetry::OUTPUT_OUTAGE_LEFT, None),
            identity: telemetry::gauge(&telemetry::IDENTITY_ERROR, Some(identity)),
        };
        Ledger {
            mode,
            identity,
            taken: 0,
            restored: 0,
            corrupt_files: 0,
            redelivered: 0,
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

    /// Points that an earlier process left on disk.
    pub fn restore(&mut self, points: u64) {
        self.restored += points;
        if points > 0 {
            telemetry::count(&telemetry::POINTS_RESTORED, None).increment(points);
        }
    }

    /// Points that the process before us may have delivered already, and that add up in Datadog.
    pub fn redeliver(&mut self, points: u64) {
        self.redelivered += points;
        telemetry::count(&telemetry::REDELIVERED, None).increment(points);
    }

    /// Files that are not what was written.
    pub fn corrupt(&mut self, files: u64) {
        self.corrupt_files += files;
        if files > 0 {
            telemetry::count(&telemetry::SPOOL_CORRUPT, None).increment(files);
        }
    }

    #[cfg(test)]
    pub fn redelivered(&self) -> u64 {
        self.redelivered
    }

    #[cfg(test)]
    pub fn corrupt_files(&self) -> u64 {
        self.corrupt_files
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

    /// Sets the gauges and gives the part that the page sees.
    pub fn publish(&self, waiting: Waiting, now: Now) -> OutputPart {
        let right = self.delivered + self.lost + waiting.points;
        let error = i64::try_from(i128::from(right) - i128::from(self.taken + self.restored)).unwrap_or(i64::MAX);
        self.meters.queued.set(waiting.points as f64);
        self.meters.bytes.set(waiting.bytes as f64);
        self.meters.disk.set(waiting.disk_bytes as f64);
        for (state, meter) in STATES.into_iter().zip(&self.meters.spool).filter(|_| !waiting.spool.is_empty()) {
            meter.set(f64::from(u8::from(state == waiting.spool)));
        }
        self.meters.identity.set(error as f64);
        // Before the first success the age grows from the start: an alert on it must fire for an output that never worked.
        let since = self.last_success.map_or(self.began, |last| last.tick);
        self.meters.last_success.set(now.tick.saturating_duration_since(since).as_secs_f64());
        self.meters.outage_left.set(waiting.outage_seconds_left.map_or(f64::NAN, |seconds| seconds as f64));
        OutputPart {
            mode: self.mode,
            last_success: self.last_success.map(|last| rfc3339(last.wall)),
            queued_bytes: waiting.bytes,
            outage_seconds_left: waiting.outage_seconds_left,
            dropped: self.dropped.clone(),
            identities: BTreeMap::from([(self.identity, error)]),
            degraded: self.degraded.clone().into_iter().collect(),
        }
    }
}
