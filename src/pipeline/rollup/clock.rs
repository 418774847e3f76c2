//! The rollup's time: monotonic in its rhythm, near the wall clock in its value.
//!
//! Datadog keeps one point a second of a series, so a stamp that comes back would overwrite; and it takes nothing older
//! than an hour or more than ten minutes ahead. So time follows steps forward at once, walks a little slower while the wall
//! clock is behind, and steps back only when it would otherwise run out of what Datadog takes. A wall clock that stands still is
//! not believed at all.

use std::time::Duration;

use tokio::time::Instant;

use crate::pipeline::WallClock;

/// Ahead of the wall clock by more than this: step back. Datadog takes ten minutes; a window is stamped before it is sent.
const MAX_AHEAD_SECONDS: f64 = 540.0;
/// Smaller differences are jitter between two clocks.
const JITTER_SECONDS: f64 = 0.5;
/// How fast time passes while it waits for a wall clock that was set back: windows stay within a tenth of their length.
const SLOWED: f64 = 0.92;

/// More than the rounding of either clock.
const LATE: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(super) struct Clock {
    wall: WallClock,
    now: f64,
    read_at: Instant,
    /// What the wall clock said then.
    wall_read: f64,
}

impl Clock {
    pub(super) fn new(wall: WallClock) -> Clock {
        let now = wall();
        Clock { wall, now, read_at: Instant::now(), wall_read: now }
    }

    /// Unix seconds. Never falls but for a step back of the wall clock by more than nine minutes.
    pub(super) fn now(&mut self) -> f64 {
        let at = Instant::now();
        let passed = (at - self.read_at).as_secs_f64();
        self.read_at = at;
        let wall = (self.wall)();
        let stands_still = wall.to_bits() == std::mem::replace(&mut self.wall_read, wall).to_bits();
        let ahead = self.now + passed - wall;
        self.now = if ahead < -JITTER_SECONDS || (ahead > MAX_AHEAD_SECONDS && !stands_still) {
            wall
        } else if ahead > JITTER_SECONDS && !stands_still {
            self.now + passed * SLOWED
        } else {
            self.now + passed
        };
        self.now
    }

    /// Until the next multiple of `step`, and a little: late enough that a bucket which ends there has ended.
    pub(super) fn until_next(&mut self, step: Duration) -> Duration {
        let step = step.as_secs_f64();
        let left = step - self.now().rem_euclid(step);
        Duration::from_secs_f64(left.clamp(0.0, step)) + LATE
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static WALL: Cell<f64> = const { Cell::new(0.0) };
    }

    fn set(wall: f64) {
        WALL.with(|cell| cell.set(wall));
    }

    async fn pass(seconds: u64, clock: &mut Clock) -> f64 {
        tokio::time::advance(Duration::from_secs(seconds)).await;
        clock.now().round()
    }

    #[tokio::test(start_paused = true)]
    async fn it_follows_forward_waits_for_a_small_step_back_and_obeys_a_large_one() {
        set(1000.0);
        let mut clock = Clock::new(|| WALL.with(Cell::get));
        set(1010.0);
        assert_eq!(pass(10, &mut clock).await, 1010.0);
        set(2000.0);
        assert_eq!(pass(10, &mut clock).await, 2000.0, "a step forward is followed");
        set(1800.0);
        assert_eq!(pass(10, &mut clock).await, 2009.0, "a step back slows it");
        set(1900.0);
        assert_eq!(pass(100, &mut clock).await, 2101.0);
        set(2100.8);
        assert_eq!(pass(0, &mut clock).await, 2101.0);
        set(100.0);
        assert_eq!(pass(1, &mut clock).await, 100.0, "more than Datadog would take");
        set(f64::from(u32::MAX));
        assert_eq!(pass(1, &mut clock).await, f64::from(u32::MAX));
    }
}
