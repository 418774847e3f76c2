//! How the app uses to speak by StatsD, and whether it has fallen silent.
//!
//! Silence is held against the app's own habit: a client that flushes each ten seconds is quiet for nine of them. One that
//! speaks more rarely than that is no witness.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Sample, words};

/// An app that is quiet for longer than this, when all is well, tells nothing by its silence in time.
const LONGEST_GAP: Duration = Duration::from_secs(10);
/// The least that is listened for, and what is granted beyond the longest gap: counts reach us once a second.
const LISTENED: Duration = Duration::from_secs(5);
const GRANTED: Duration = Duration::from_secs(2);
/// So many gaps are remembered, and so many make a habit.
const GAPS: usize = 16;
const HABIT: usize = 3;
/// Below this share of the usual rate it is silence: another container of the pod may send a little, and so may one thread that gets
/// through.
const HUSHED: f64 = 0.1;
/// The usual rate forgets by half when it is this old.
const REMEMBERED: Duration = Duration::from_secs(300);

#[derive(Clone, Debug, Default)]
pub(super) struct Voice {
    last: Option<(Duration, u64)>,
    /// When the count last rose.
    spoke_at: Option<Duration>,
    gaps: VecDeque<Duration>,
    /// Datagrams, and the time in which they came.
    usual: (f64, f64),
}

impl Voice {
    /// Takes the running count of datagrams. What is heard while all is `calm` makes the habit.
    pub(super) fn listen(&mut self, at: Duration, datagrams: Option<u64>, calm: bool) {
        let Some(count) = datagrams else { return };
        if let Some((then, before)) = self.last.filter(|_| calm) {
            self.usual.0 += count.saturating_sub(before) as f64;
            self.usual.1 += at.saturating_sub(then).as_secs_f64();
            if self.usual.1 > REMEMBERED.as_secs_f64() {
                self.usual = (self.usual.0 / 2.0, self.usual.1 / 2.0);
            }
        }
        if self.last.is_some_and(|(_, before)| count > before) {
            if let Some(spoke_at) = self.spoke_at.filter(|_| calm) {
                self.remember(at.saturating_sub(spoke_at));
            }
            self.spoke_at = Some(at);
        }
        self.last = Some((at, count));
    }

    fn remember(&mut self, gap: Duration) {
        if self.gaps.len() == GAPS {
            self.gaps.pop_front();
        }
        self.gaps.push_back(gap);
    }

    /// `None` where its silence would tell nothing.
    pub(super) fn is_silent(&self, at: Duration, samples: &VecDeque<Sample>) -> Option<bool> {
        self.rates(at, samples).map(|(now, usual)| now <= HUSHED * usual)
    }

    /// Datagrams a second, now and as a rule.
    fn rates(&self, at: Duration, samples: &VecDeque<Sample>) -> Option<(f64, f64)> {
        let longest = self.gaps.iter().max().filter(|_| self.gaps.len() >= HABIT)?;
        if *longest > LONGEST_GAP || self.usual.1 <= 0.0 {
            return None;
        }
        let listened = LISTENED.max(*longest + GRANTED);
        let then = samples.iter().rev().find(|sample| at.saturating_sub(sample.at) >= listened)?;
        let heard = samples.back()?.datagrams?.saturating_sub(then.datagrams?) as f64;
        Some((heard / listened.as_secs_f64(), self.usual.0 / self.usual.1))
    }

    /// `StatsD silent for 6 s`, or how little of it is left.
    pub(super) fn told(&self, at: Duration, samples: &VecDeque<Sample>) -> Option<String> {
        let (now, usual) = self.rates(at, samples)?;
        let silence = at.saturating_sub(self.spoke_at?);
        if silence >= LISTENED {
            return Some(format!("StatsD silent for {}", words::span(silence.as_secs_f64())));
        }
        Some(format!("{now:.1} StatsD datagrams a second where {usual:.1} are usual"))
    }
}
