//! The rollup's time: monotonic in its rhythm, near the wall clock in its value.
//!
//! Datadog keeps one point a second of a series, so a stamp that comes back would overwrite; and it takes nothing older
//! than an hour or more than ten minutes ahead. So time follows steps forward at once, walks a little slower while the wall
//! clock is behind, and steps back only when it would otherwise run out of what Datadog takes.

use std::time::Duration;

use tokio::time::Instant;

use crate::pipeline::WallClock;

/// Ahead of the wall clock by more than this: step back. Datadog takes ten minutes; a window is stamped before it is sent.
const MAX_AHEAD_SECONDS: f64 = 540.0;
/// Smaller differences are jitter between two clocks.
const JITTER_SECONDS: f64 = 0.5;
/// How fast time passes while it waits for a wall clock that was set back.
const SLOWED: f64 = 0.9;

#[derive(Debug)]
pub(super) struct Clock {
    wall: WallClock,
    now: f64,
    read_at: Instant,
}

impl Clock {
    pub(super) fn new(wall: WallClock) -> Clock {
        Clock { wall, now: wall(), read_at: Instant::now() }
    }

    /// Unix seconds. Never falls but for a step back of the wall clock by more than nine minutes.
    pub(super) fn now(&mut self) -> f64 {
        let at = Instant::now();
        let passed = (at - self.read_at).as_secs_f64();
        self.read_at = at;
        let wall = (self.wall)();
        let ahead = self.now + passed - wall;
        self.now = if ahead > MAX_AHEAD_SECONDS || ahead < -JITTER_SECONDS {
            wall
        } else if ahead > JITTER_SECONDS {
            self.now + passed * SLOWED
        } else {
            self.now + passed
        };
        self.now
    }

    /// Until the next whole second of this clock, and a little: late enough that a bucket which ends there has ended.
    pub(super) fn to_next_second(&mut self) -> Duration {
        let now = self.now();
        Duration::from_secs_f64((now.floor() + 1.0 - now).clamp(0.0, 1.0)) + Duration::from_millis(50)
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
        assert_eq!(pass(100, &mut clock).await, 2099.0);
        set(2098.8);
        assert_eq!(pass(0, &mut clock).await, 2099.0);
        set(100.0);
        assert_eq!(pass(1, &mut clock).await, 100.0, "more than Datadog would take");
        set(f64::from(u32::MAX));
        assert_eq!(pass(1, &mut clock).await, f64::from(u32::MAX));
    }
}
