//! How much comes in: what an outage fills memory and disk with.

use tokio::time::Instant;

/// Bytes of payloads a second, smoothed over the last windows: how long the memory will do in an outage.
#[derive(Debug, Default)]
pub(super) struct Inflow {
    last: Option<Instant>,
    per_second: Option<f64>,
}

impl Inflow {
    pub fn add(&mut self, bytes: u64, now: Instant) {
        if let Some(last) = self.last.replace(now) {
            let seconds = now.saturating_duration_since(last).as_secs_f64().max(0.1);
            let rate = bytes as f64 / seconds;
            self.per_second = Some(self.per_second.map_or(rate, |old| old + 0.3 * (rate - old)));
        }
    }

    /// `None` before there is any.
    pub fn per_second(&self) -> Option<f64> {
        self.per_second.filter(|rate| *rate > 0.0)
    }
}
