//! The lives of the app, one after the other: how long each lasted, how high its memory rose, and whether they make a crash
//! loop. Pure.
//!
//! Only ends that memory had a part in are counted: a kill, or an end while something stood that was worth an alarm. A deploy or a
//! job that is done ends a life and counts for nothing.

use std::collections::VecDeque;
use std::time::Duration;

use super::Figures;
use super::words::{bytes, duration};

/// So many bad ends within this time are a crash loop.
const ENDS: usize = 3;
const WINDOW: f64 = 600.0;
/// It is over when the app has lived for this long, or for twice its longest recent life.
const WELL: f64 = 600.0;
/// Ends that are remembered, and lives that are told of.
const KEPT: usize = 10;
const TOLD: usize = 3;

/// One life, in Unix seconds and bytes of unreclaimable memory.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Life {
    /// When it was first seen; the sidecar may have come later.
    pub began: f64,
    pub ended: f64,
    pub first_bytes: u64,
    pub peak_bytes: u64,
    pub limit_bytes: Option<u64>,
}

impl Life {
    fn lasted(&self) -> f64 {
        (self.ended - self.began).max(0.0)
    }

    /// `it had lived 126 s, and memory had risen from 14 MiB to 251 MiB`.
    pub fn trajectory(&self) -> String {
        let lived = format!("it had lived {}", duration(Duration::from_secs_f64(self.lasted())));
        match self.peak_bytes {
            0 => lived,
            peak => format!("{lived}, and memory had risen from {} to {}", bytes(self.first_bytes), bytes(peak)),
        }
    }
}

/// The life that runs and the bad ends before it.
#[derive(Debug, Default)]
pub struct Lives {
    running: Option<Life>,
    bad: VecDeque<Life>,
    /// Bad ends since the series began that is being told of, or the first one.
    count: u64,
    since: f64,
}

impl Lives {
    pub fn appeared(&mut self, now: f64) {
        self.running = Some(Life { began: now, ..Life::default() });
    }

    pub fn see(&mut self, figures: &Figures) {
        if let Some(life) = self.running.as_mut().filter(|_| figures.memory_bytes > 0) {
            if life.peak_bytes == 0 {
                life.first_bytes = figures.memory_bytes;
            }
            life.peak_bytes = life.peak_bytes.max(figures.memory_bytes);
            life.limit_bytes = figures.limit_bytes;
        }
    }

    /// The process is gone; what is known of its life.
    pub fn ended(&mut self, now: f64) -> Option<Life> {
        self.running.take().map(|life| Life { ended: now, ..life })
    }

    /// What is known so far of the life that runs.
    pub fn so_far(&self, now: f64) -> Option<Life> {
        self.running.map(|life| Life { ended: now, ..life })
    }

    /// Counts a bad end, and says whether it is a crash loop now.
    pub fn count(&mut self, life: Life, in_loop: bool) -> bool {
        while !in_loop && self.bad.front().is_some_and(|first| life.ended - first.ended > WINDOW) {
            self.bad.pop_front();
        }
        if self.bad.len() == KEPT {
            self.bad.pop_front();
        }
        self.count = if in_loop { self.count + 1 } else { self.bad.len() as u64 + 1 };
        self.bad.push_back(life);
        // A loop that goes on from another sidecar begins to be counted here.
        if !in_loop || self.bad.len() == 1 {
            self.since = self.bad.front().map_or(life.ended, |first| first.ended);
        }
        in_loop || self.bad.len() >= ENDS
    }

    /// How long the app has been well, if that is long enough to end a crash loop.
    pub fn well_for(&self, now: f64) -> Option<Duration> {
        let running = self.running?;
        let since = self.bad.back().map_or(running.began, |last| running.began.max(last.ended));
        // A life of days among them must not make the loop last for days: its next leak would be told by nobody.
        let longest = self.bad.iter().map(Life::lasted).fold(0.0, f64::max).min(WELL);
        let well = now - since;
        (well >= WELL.max(2.0 * longest)).then(|| Duration::from_secs_f64(well))
    }

    /// The series is over: what comes now is another.
    pub fn forget(&mut self) {
        self.bad.clear();
    }

    /// `killed or ended badly 5 times in 9 min; the last lives: 126 s up to 251 MiB, 118 s up to 250 MiB of 256 MiB`.
    pub fn told(&self, now: f64) -> String {
        let span = duration(Duration::from_secs_f64((now - self.since).max(0.0)));
        let told = self.bad.iter().rev().take(TOLD).rev();
        let lives: Vec<String> = told
            .map(|life| {
                let lasted = duration(Duration::from_secs_f64(life.lasted()));
                format!("{lasted} up to {}", bytes(life.peak_bytes))
            })
            .collect();
        let limit = self
            .bad
            .back()
            .and_then(|life| life.limit_bytes)
            .map_or(String::new(), |limit| format!(" of {}", bytes(limit)));
        format!("{} kills or ends near the limit in {span}; the last lives: {}{limit}", self.count, lives.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the last of these bad ends makes a crash loop; each life is a minute long.
    fn check(ends: &[f64]) -> bool {
        let mut lives = Lives::default();
        let life = |ended: &f64| Life { began: ended - 60.0, ended: *ended, ..Life::default() };
        ends.iter().fold(false, |_, ended| lives.count(life(ended), false))
    }

    #[test]
    fn three_bad_ends_in_ten_minutes_are_a_loop() {
        assert!(!check(&[]));
        assert!(!check(&[100.0, 200.0]));
        assert!(check(&[100.0, 200.0, 700.0]));
        assert!(!check(&[100.0, 200.0, 701.0]));
        assert!(!check(&[0.0, 7_200.0, 14_400.0, 21_600.0]));
    }

    #[test]
    fn it_takes_ten_minutes_or_twice_the_longest_life_to_be_well() {
        let mut lives = Lives::default();
        for ended in [1_000.0, 1_500.0, 1_900.0] {
            lives.count(Life { began: ended - 390.0, ended, ..Life::default() }, false);
        }
        assert_eq!(lives.well_for(9_000.0), None, "nobody is there");
        lives.appeared(2_000.0);
        assert_eq!(lives.well_for(2_779.0), None);
        assert_eq!(lives.well_for(2_780.0), Some(Duration::from_secs(780)));
        // A child that is killed meanwhile begins the wait anew.
        lives.count(Life { began: 2_000.0, ended: 2_700.0, ..Life::default() }, true);
        assert_eq!(lives.well_for(2_780.0), None);
    }

    #[test]
    fn a_life_of_days_does_not_make_the_loop_last_for_days() {
        let mut lives = Lives::default();
        for (began, ended) in [(0.0, 300_000.0), (300_010.0, 300_100.0), (300_110.0, 300_200.0)] {
            lives.count(Life { began, ended, ..Life::default() }, false);
        }
        lives.appeared(300_210.0);
        assert!(lives.well_for(300_210.0 + 1_200.0).is_some());
    }

    #[test]
    fn the_series_is_told_in_figures() {
        let mut lives = Lives::default();
        for n in 1..=40_u32 {
            let began = f64::from(n) * 100.0;
            lives.appeared(began);
            for memory_bytes in [14 << 20, 200 << 20, (200 + u64::from(n)) << 20] {
                lives.see(&Figures { memory_bytes, limit_bytes: Some(256 << 20), ..Figures::default() });
            }
            let life = lives.ended(began + 90.0).unwrap();
            lives.count(life, n > 3);
        }
        assert_eq!(
            lives.told(4_090.0),
            "40 kills or ends near the limit in 65 min; the last lives: 90 s up to 238 MiB, 90 s up to 239 MiB, 90 s up to 240 MiB of 256 MiB"
        );
        assert_eq!(lives.bad.len(), KEPT);
        assert_eq!(lives.bad[0].trajectory(), "it had lived 90 s, and memory had risen from 14 MiB to 231 MiB");
    }
}
