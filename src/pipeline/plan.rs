//! Which profile is pulled next and which is not: baselines, rounds, cool-down, what a goroutine profile would cost. Pure.
//!
//! A pull costs the app something, so they are few: one plain heap at first sight, a baseline of heap and goroutines once the
//! app is known to be well, one more plain heap every five minutes, and rounds of evidence on alerts, spaced by the cool-down.
//! A profile of goroutines adds 0.78 KB of resident memory for each goroutine of the app, which near the limit could itself be
//! the kill; the index page tells the count for nothing, and whether `goroutineleak` is served, which costs as much and a
//! collection. The text of all goroutines stops a large app for seconds: it is asked for last, where the setting allows it and
//! there is room. An app that takes seconds over a step is left alone for as long before the next.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Figures, ProfileKind};
use crate::detect::Severity;

mod step;

pub use step::{Cause, Now, Purpose, Step, Wish};

/// How often the index page is asked for the goroutine count: 1–4 ms at any count.
const INDEX_EVERY: Duration = Duration::from_secs(15);

/// The same while the app looks frozen.
const INDEX_SUSPECT: Duration = Duration::from_secs(3);
/// Up to here the index is asked for more and more rarely while it comes slowly or not at all.
const INDEX_RARELY: Duration = Duration::from_secs(240);

/// The text of all goroutines is asked for below this count and with more memory left than this: 31 ms and 0.7 MB at 1,000
/// goroutines, 14 s with a stall of 4 s at 100,000.
const DUMP: (u64, u64) = (2_000, 64 << 20);

/// How often a healthy app gives another plain heap to compare with later.
const BASELINE_EVERY: Duration = Duration::from_secs(300);

/// A live heap speaks for the app until so many pulls that should have followed are missing: one may fail and one come late.
const STALE: u32 = 3;

/// First sight is tried again until the app's port answers: quickly at first, for the app has just begun.
const FIRST_SIGHT_RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));

/// A pull that took longer or brought more than this is a burden: the interval of baselines doubles, up to an hour, and halves
/// again when they come lightly.
const BURDEN: (Duration, u64) = (Duration::from_millis(250), 2 << 20);

/// A step of a round that takes longer than this burdens the app, and as long as it took passes before the next. Of a healthy
/// app none does: a forced collection of 100,000 goroutines takes 0.8 s, and `goroutineleak` 1.4 s.
const SLOW: Duration = Duration::from_secs(2);

/// A critical round waits for nothing when less than this is left, or when nobody knows how much: all its waits together come
/// to a minute at most, for no step may take longer than 15 s.
const HURRY: Duration = Duration::from_secs(120);

/// Bytes of resident memory that a profile of goroutines may cost for each goroutine (0.78 KB measured), rounded up.
const GOROUTINE_COST: u64 = 1_024;

/// Without a known limit a goroutine profile is pulled up to this count: 8 MB of cost.
const GOROUTINES_UNLIMITED: u64 = 10_000;

/// The `[profile]` settings that the plan follows.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub baseline_after: Duration,
    /// Between the beginnings of two rounds.
    pub cooldown: Duration,
    /// Rounds in any hour; baselines are exempt, and so is a round whose first pull fails. The last of them is kept for an alert
    /// that turns critical.
    pub max_per_hour: u32,
    /// The text of all goroutines is asked for at the end of a critical round.
    pub debug2: bool,
}

/// Each step of a round in its order; the last three only as [`Plan::allows`].
const ROUND: [ProfileKind; 6] = [
    ProfileKind::Heap,
    ProfileKind::Index,
    ProfileKind::HeapAfterGc,
    ProfileKind::Goroutine,
    ProfileKind::GoroutineLeak,
    ProfileKind::GoroutineDump,
];

/// Where the pulls of one target stand.
#[derive(Debug)]
pub struct Plan {
    settings: Settings,
    /// Steps of the round or baseline under way, in order.
    queue: VecDeque<Step>,
    /// Beginnings of rounds within the last hour; at most `max_per_hour`.
    rounds: VecDeque<Duration>,
    /// Beginning of the last round, counted or not.
    last_round: Option<Duration>,
    /// Rounds of [`Cause::Again`] since the last alert.
    again: u32,
    /// When the target was first seen; `None` while there is none, and then nothing is pulled.
    seen: Option<Duration>,
    first_sight: Retry,
    next_baseline: Duration,
    baseline_every: Duration,
    had_healthy: bool,
    last_index: Option<Duration>,
    index_every: Duration,
    /// A critical round takes the place of the one that was under way; it begins with the next question.
    critical: bool,
    /// Until then the round under way lets the app alone.
    rests_until: Duration,
}

#[derive(Clone, Copy, Debug)]
enum Retry {
    Done,
    At { due: Duration, wait: Duration },
}

impl Plan {
    pub fn new(settings: Settings) -> Plan {
        Plan {
            settings,
            queue: VecDeque::new(),
            rounds: VecDeque::new(),
            last_round: None,
            again: 0,
            seen: None,
            first_sight: Retry::Done,
            next_baseline: Duration::MAX,
            baseline_every: BASELINE_EVERY,
            had_healthy: false,
            last_index: None,
            index_every: INDEX_EVERY,
            critical: false,
            rests_until: Duration::ZERO,
        }
    }

    /// Other settings from the next question on.
    pub fn set(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// A new target: its first pull is due at once. The rounds of the last hour stay counted, or a crash loop would be pulled
    /// from without end.
    pub fn appeared(&mut self, now: Duration) {
        let (rounds, last_round) = (std::mem::take(&mut self.rounds), self.last_round);
        *self = Plan { rounds, last_round, ..Plan::new(self.settings) };
        self.seen = Some(now);
        self.first_sight = Retry::At { due: now, wait: FIRST_SIGHT_RETRY.0 };
        self.next_baseline = now + self.settings.baseline_after;
    }

    pub fn vanished(&mut self) {
        self.seen = None;
        self.critical = false;
        self.queue.clear();
    }

    /// Asks for a round of evidence.
    pub fn round(&mut self, now: Duration, cause: Cause) -> Wish {
        if self.seen.is_none() {
            return Wish::Suppressed("no_target");
        }
        let under_way = self.critical || self.queue.iter().any(|step| step.purpose == Purpose::Evidence);
        if under_way && cause != Cause::Critical {
            return Wish::Suppressed("busy");
        }
        // One that has not begun to pull is judged by what is critical when its steps come.
        if self.critical || under_way && self.queue.iter().any(|step| step.kind == ProfileKind::Heap) {
            return Wish::Begun;
        }
        while self.rounds.front().is_some_and(|begun| now.saturating_sub(*begun) >= Duration::from_secs(3_600)) {
            self.rounds.pop_front();
        }
        let (wait, budget) = self.allowance(cause);
        if self.last_round.is_some_and(|last| now.saturating_sub(last) < wait) {
            return Wish::Suppressed("cooldown");
        }
        if self.rounds.len() >= budget {
            return Wish::Suppressed("budget");
        }
        // What is under way gives way: what grows now matters more.
        self.queue.clear();
        if under_way {
            self.critical = true;
        } else {
            self.begin(now, cause);
        }
        Wish::Begun
    }

    fn begin(&mut self, now: Duration, cause: Cause) {
        self.again = if cause == Cause::Again { self.again + 1 } else { 0 };
        self.last_round = Some(now);
        self.rounds.push_back(now);
        // The plain heap comes first, as insurance.
        self.queue.extend(ROUND.map(|kind| Step { kind, purpose: Purpose::Evidence }));
    }

    /// How long after the last round, and up to how many in an hour.
    fn allowance(&self, cause: Cause) -> (Duration, usize) {
        let all = self.settings.max_per_hour as usize;
        let cooldown = self.settings.cooldown;
        match cause {
            Cause::Critical => (Duration::ZERO, all),
            Cause::Alert => (cooldown, all.saturating_sub(1).max(1)),
            Cause::Again => (cooldown * 2_u32.pow(self.again.min(6)), all.saturating_sub(1).max(1)),
        }
    }

    /// The next pull, if one is due.
    pub fn next(&mut self, now: Duration, known: Now) -> Option<Step> {
        self.seen?;
        if std::mem::take(&mut self.critical) {
            self.begin(now, Cause::Critical);
        }
        if self.queue.is_empty() {
            self.fill(now, known);
        }
        if self.rests(now, known) {
            return None;
        }
        while let Some(step) = self.queue.pop_front() {
            if self.allows(step, known) {
                return Some(step);
            }
        }
        None
    }

    /// Whether the round under way gives the app time after a slow step. The plain heap never waits: it is the insurance.
    fn rests(&self, now: Duration, Now { figures, severity, .. }: Now) -> bool {
        let hurried = severity == Some(Severity::Crit) && figures.time_to_limit.is_none_or(|left| left < HURRY);
        let waits = |step: &Step| step.purpose == Purpose::Evidence && step.kind != ProfileKind::Heap;
        now < self.rests_until && !hurried && self.queue.front().is_some_and(waits)
    }

    /// Whether a step may be taken by what is known now.
    fn allows(&self, step: Step, known: Now) -> bool {
        let Now { figures, index, severity } = known;
        match step.kind {
            ProfileKind::Goroutine => affordable(figures, index.goroutines),
            // A notice is no reason to have the app look through all of its memory.
            ProfileKind::GoroutineLeak => {
                index.leak_profile && severity != Some(Severity::Notice) && affordable(figures, index.goroutines)
            }
            ProfileKind::GoroutineDump => {
                let room = figures.limit_bytes.map_or(0, |limit| limit.saturating_sub(figures.memory_bytes));
                let few = index.goroutines.is_some_and(|count| count < DUMP.0);
                self.settings.debug2 && severity == Some(Severity::Crit) && few && room > DUMP.1
            }
            _ => true,
        }
    }

    fn fill(&mut self, now: Duration, known: Now) {
        let figures = known.figures;
        if let Retry::At { due, .. } = self.first_sight
            && now >= due
        {
            self.queue.push_back(Step { kind: ProfileKind::Heap, purpose: Purpose::FirstSight });
        } else if self.wants_live_heap(now, known) {
            self.next_baseline = now + self.baseline_every;
            self.queue.push_back(Step { kind: ProfileKind::Heap, purpose: Purpose::LiveHeap });
        } else if now >= self.next_baseline && figures.healthy && matches!(self.first_sight, Retry::Done) {
            self.next_baseline = now + self.baseline_every;
            let heap = if self.had_healthy { ProfileKind::Heap } else { ProfileKind::HeapAfterGc };
            let kinds = [ProfileKind::Index, heap, ProfileKind::Goroutine];
            self.queue.extend(kinds.map(|kind| Step { kind, purpose: Purpose::Baseline }));
        } else if self.wants_index(now, figures.strained) {
            self.last_index = Some(now);
            self.queue.push_back(Step { kind: ProfileKind::Index, purpose: Purpose::Count });
        }
    }

    /// Where baselines would be due if no notice stood.
    fn wants_live_heap(&self, now: Duration, known: Now) -> bool {
        let noticed = !known.figures.healthy && known.severity == Some(Severity::Notice);
        noticed && now >= self.next_baseline && matches!(self.first_sight, Retry::Done)
    }

    /// How long a live heap that was pulled now may speak for the app.
    pub fn stale_after(&self) -> Duration {
        self.baseline_every * STALE
    }

    fn wants_index(&self, now: Duration, strained: bool) -> bool {
        let every = if strained { INDEX_SUSPECT } else { self.index_every };
        self.last_index.is_none_or(|last| now >= last + every)
    }

    /// Whether evidence of this round is still to come after the step at hand.
    pub fn more_evidence(&self, known: Now) -> bool {
        self.critical || self.queue.iter().any(|step| step.purpose == Purpose::Evidence && self.allows(*step, known))
    }

    /// Learns how a pull went.
    pub fn done(&mut self, step: Step, now: Duration, took: Duration, bytes: u64, ok: bool) {
        if step.purpose == Purpose::Evidence && took > SLOW {
            self.rests_until = now + took;
        }
        match (step.purpose, ok) {
            (Purpose::FirstSight, true) => self.first_sight = Retry::Done,
            (Purpose::FirstSight, false) => {
                if let Retry::At { wait, .. } = self.first_sight {
                    self.first_sight = Retry::At { due: now + wait, wait: (wait * 2).min(FIRST_SIGHT_RETRY.1) };
                }
            }
            // Nothing was had from the app, so nothing is charged; what the round would pull next would fail as well.
            (Purpose::Evidence, false) if step.kind == ProfileKind::Heap => {
                self.rounds.pop_back();
                self.queue.clear();
            }
            (Purpose::Baseline | Purpose::LiveHeap, _) if step.kind != ProfileKind::Index => {
                self.had_healthy |= ok && step.purpose == Purpose::Baseline;
                self.pace_baselines(now, took > BURDEN.0 || bytes > BURDEN.1);
            }
            (Purpose::Count, _) => {
                let slow = took > BURDEN.0;
                self.index_every = if slow { (self.index_every * 2).min(INDEX_RARELY) } else { INDEX_EVERY };
                self.last_index = Some(now);
            }
            _ => {}
        }
    }

    /// An app that answers slowly is busy or ill: it is asked more rarely, until it answers quickly again.
    fn pace_baselines(&mut self, now: Duration, burden: bool) {
        if burden {
            self.baseline_every = (self.baseline_every * 2).min(Duration::from_secs(3_600));
            self.next_baseline = self.next_baseline.max(now + self.baseline_every);
        } else {
            self.baseline_every = (self.baseline_every / 2).max(BASELINE_EVERY);
        }
    }
}

/// Whether a profile of goroutines may be pulled: its cost stays below a quarter of what is left.
fn affordable(figures: &Figures, goroutines: Option<u64>) -> bool {
    let Some(count) = goroutines else { return false };
    match figures.limit_bytes {
        Some(limit) => count.saturating_mul(GOROUTINE_COST) < limit.saturating_sub(figures.memory_bytes) / 4,
        None => count <= GOROUTINES_UNLIMITED,
    }
}

#[cfg(test)]
mod tests;
