//! The detector's settings. The defaults are those that the trace suite is scored with; a change of one wants the suite run again.

use std::time::Duration;

/// What the operator may turn. Shares are of the memory limit, 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Slow rules wait until the process is this old, because a start-up ramp is growth and no leak. Fast rules (scales of seconds,
    /// the burst, near the limit, StatsD clients) never wait; while the process is younger they want it to have stood still
    /// once, or ask for more of a rise. Default 60 s; `0s` waits for nothing. Raise
    /// it for apps that load for minutes, or whose soft memory limit lets the heap fill to nine tenths in the first minutes: from
    /// outside that is what a leak looks like.
    pub startup_grace: Duration,
    /// A size in bytes up to which growth is known and fine (a cache that fills): memory alerts below it are notices only. Default
    /// none. For apps whose plateau is known.
    pub expected: Option<u64>,
    /// The least rise over a scale's span that counts as growth. Default 0.05: a healthy Go worker creeps by 4 % of a 256 MiB
    /// limit in its first minutes. Lower finds leaks in very large limits sooner and cries wolf more often.
    pub min_rise: f64,
    /// A warning needs the limit to be reached within this many times the span over which the growth was seen, while memory is
    /// below half of the limit. Default 0.35. Lower is calmer and later.
    pub horizon_far: f64,
    /// The same near the limit (above 80 %), where less proof is asked. Default 1.5. In between it changes smoothly.
    pub horizon_near: f64,
    /// However good the evidence, a limit further away than this is a notice and no alarm. Default 4 h: time for a person to act,
    /// and the most that a rise over the first hours of a day's load, or of a cache's life, can be trusted for.
    pub warn_horizon: Duration,
    /// The same as [`horizon_near`](Self::horizon_near) for notices, wherever memory stands. Default 1.25.
    pub horizon_notice: f64,
    /// A burst is a rise of this share within 20 s, and the limit [`burst_horizon`](Self::burst_horizon) away or nearer. Default 0.12.
    pub burst_rise: f64,
    /// How near in time the limit must be for a burst. Default 20 s: what two profiles, their comparison and an event need.
    pub burst_horizon: Duration,
    /// Standing this high for 15 s is told. Default 0.93; each peak that the process survives lifts it.
    pub near_limit: f64,
    /// A warning becomes critical when the limit is this near. Default 60 s: a round of pulls has a deadline of half a minute, and
    /// one may have to be repeated.
    pub crit_horizon: Duration,
    /// More StatsD clients than before by this many, rising steadily, are a leak. Default 8; thrice that during
    /// [`startup_grace`](Self::startup_grace), when worker processes open theirs.
    pub client_rise: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            startup_grace: Duration::from_secs(60),
            expected: None,
            min_rise: 0.05,
            horizon_far: 0.35,
            horizon_near: 1.5,
            warn_horizon: Duration::from_secs(4 * 3_600),
            horizon_notice: 1.25,
            burst_rise: 0.12,
            burst_horizon: Duration::from_secs(20),
            near_limit: 0.93,
            crit_horizon: Duration::from_secs(60),
            client_rise: 8,
        }
    }
}

impl Settings {
    /// How many spans ahead is believed with the peaks at this share of the limit: from `horizon_far` below a half to
    /// `horizon_near` above four fifths, smoothly.
    pub(super) fn horizon(&self, share: f64) -> f64 {
        let along = ((share - 0.5) / 0.3).clamp(0.0, 1.0);
        self.horizon_far + (self.horizon_near - self.horizon_far) * along * along * (3.0 - 2.0 * along)
    }
}
