//! Which profile is pulled next and which is not: baselines, rounds, cool-down, what a goroutine profile would cost. Pure.
//!
//! A pull costs the app something, so they are few: one plain heap at first sight, a baseline of heap and goroutines once the
//! app is known to be well, one more plain heap every five minutes, and rounds of evidence on alerts, spaced by the cool-down.
//! The goroutine profile adds 0.78 KB of resident memory for each goroutine of the app, which near the limit could itself be
//! the kill; the index page tells the count for nothing.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Figures, ProfileKind};

/// How often the index page is asked for the goroutine count: 1–4 ms at any count.
const INDEX_EVERY: Duration = Duration::from_secs(15);

/// The same while the app looks frozen.
const INDEX_SUSPECT: Duration = Duration::from_secs(3);

/// How often a healthy app gives another plain heap to compare with later.
const BASELINE_EVERY: Duration = Duration::from_secs(300);

/// First sight is tried again until the app's port answers: quickly at first, for the app has just begun.
const FIRST_SIGHT_RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));

/// A baseline that took longer or was larger than this is a burden: its interval doubles, up to an hour.
const BURDEN: (Duration, u64) = (Duration::from_millis(250), 2 << 20);

/// Bytes of resident memory that a goroutine profile may cost for each goroutine (0.78 KB measured), rounded up.
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
}

/// What a pulled profile is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The first plain heap of a new target.
    FirstSight,
    /// The app is well: something to compare with later.
    Baseline,
    /// A round on an alert.
    Evidence,
    /// The goroutine count of the index page; nothing is kept.
    Count,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub kind: ProfileKind,
    pub purpose: Purpose,
}

/// Why a round is wished for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// An alert opened or got worse.
    Alert,
    /// It turned critical: passes the cool-down and may take the last round of the hour.
    Critical,
    /// The open incident is not surely named. Waits twice as long each time, for each forces a collection.
    Again,
}

/// What became of the wish for a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Begun,
    /// Not begun, by the reason label of `oomwatch.profiles.suppressed`.
    Suppressed(&'static str),
}

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
    next_index: Duration,
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
            next_index: Duration::MAX,
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
        self.next_index = now;
    }

    pub fn vanished(&mut self) {
        self.seen = None;
        self.queue.clear();
    }

    /// Asks for a round of evidence.
    pub fn round(&mut self, now: Duration, cause: Cause) -> Wish {
        if self.seen.is_none() {
            return Wish::Suppressed("no_target");
        }
        if self.queue.iter().any(|step| step.purpose == Purpose::Evidence) {
            return Wish::Suppressed("busy");
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
        self.again = if cause == Cause::Again { self.again + 1 } else { 0 };
        self.last_round = Some(now);
        self.rounds.push_back(now);
        // Baselines under way give way: what grows now matters more. The plain heap comes first, as insurance.
        self.queue.clear();
        let kinds = [ProfileKind::Heap, ProfileKind::Index, ProfileKind::HeapAfterGc, ProfileKind::Goroutine];
        self.queue.extend(kinds.map(|kind| Step { kind, purpose: Purpose::Evidence }));
        Wish::Begun
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

    /// The next pull, if one is due. `goroutines` is the latest count, `None` while unknown.
    pub fn next(&mut self, now: Duration, figures: &Figures, goroutines: Option<u64>) -> Option<Step> {
        self.seen?;
        if self.queue.is_empty() {
            self.fill(now, figures);
        }
        while let Some(step) = self.queue.pop_front() {
            if step.kind != ProfileKind::Goroutine || affordable(figures, goroutines) {
                return Some(step);
            }
        }
        None
    }

    fn fill(&mut self, now: Duration, figures: &Figures) {
        if let Retry::At { due, .. } = self.first_sight
            && now >= due
        {
            self.queue.push_back(Step { kind: ProfileKind::Heap, purpose: Purpose::FirstSight });
        } else if now >= self.next_baseline && figures.healthy && matches!(self.first_sight, Retry::Done) {
            self.next_baseline = now + self.baseline_every;
            let heap = if self.had_healthy { ProfileKind::Heap } else { ProfileKind::HeapAfterGc };
            let kinds = [ProfileKind::Index, heap, ProfileKind::Goroutine];
            self.queue.extend(kinds.map(|kind| Step { kind, purpose: Purpose::Baseline }));
        } else if now >= self.next_index || (figures.strained && now + INDEX_EVERY >= self.next_index + INDEX_SUSPECT) {
            self.next_index = now + INDEX_EVERY;
            self.queue.push_back(Step { kind: ProfileKind::Index, purpose: Purpose::Count });
        }
    }

    /// Whether evidence of this round is still to come after the step at hand.
    pub fn more_evidence(&self, figures: &Figures, goroutines: Option<u64>) -> bool {
        self.queue.iter().any(|step| {
            step.purpose == Purpose::Evidence
                && (step.kind != ProfileKind::Goroutine || affordable(figures, goroutines))
        })
    }

    /// Learns how a pull went.
    pub fn done(&mut self, step: Step, now: Duration, took: Duration, bytes: u64, ok: bool) {
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
            (Purpose::Baseline, true) if step.kind != ProfileKind::Index => {
                self.had_healthy = true;
                if took > BURDEN.0 || bytes > BURDEN.1 {
                    self.baseline_every = (self.baseline_every * 2).min(Duration::from_secs(3_600));
                    self.next_baseline = self.next_baseline.max(now + self.baseline_every);
                }
            }
            _ => {}
        }
    }
}

/// Whether a goroutine profile may be pulled: its cost stays below a quarter of what is left.
fn affordable(figures: &Figures, goroutines: Option<u64>) -> bool {
    let Some(count) = goroutines else { return false };
    match figures.limit_bytes {
        Some(limit) => count.saturating_mul(GOROUTINE_COST) < limit.saturating_sub(figures.memory_bytes) / 4,
        None => count <= GOROUTINES_UNLIMITED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn plan() -> Plan {
        let mut plan = Plan::new(Settings { baseline_after: S(60), cooldown: S(60), max_per_hour: 3 });
        plan.appeared(S(0));
        plan
    }

    fn figures() -> Figures {
        Figures { memory_bytes: 100 << 20, limit_bytes: Some(200 << 20), healthy: true, ..Figures::default() }
    }

    /// Takes every step that is due at `now`, each with success.
    fn take(plan: &mut Plan, now: u64, figures: &Figures, goroutines: Option<u64>) -> Vec<(Purpose, ProfileKind)> {
        let mut steps = Vec::new();
        while let Some(step) = plan.next(S(now), figures, goroutines) {
            plan.done(step, S(now), Duration::from_millis(5), 2_000, true);
            steps.push((step.purpose, step.kind));
        }
        steps
    }

    #[test]
    fn first_sight_is_one_plain_heap_and_the_count() {
        let mut plan = plan();
        let steps = take(&mut plan, 0, &figures(), Some(20));
        assert_eq!(steps, [(Purpose::FirstSight, ProfileKind::Heap), (Purpose::Count, ProfileKind::Index)]);
        assert!(take(&mut plan, 14, &figures(), Some(20)).is_empty());
    }

    #[test]
    fn a_port_that_does_not_answer_is_asked_again_and_again_more_slowly() {
        let mut plan = plan();
        let mut asked = Vec::new();
        for now in 0..100 {
            while let Some(step) = plan.next(S(now), &figures(), None) {
                plan.done(step, S(now), S(0), 0, step.purpose != Purpose::FirstSight);
                if step.purpose == Purpose::FirstSight {
                    asked.push(now);
                }
            }
        }
        assert_eq!(asked, [0, 2, 6, 14, 30, 60, 90]);
    }

    #[test]
    fn a_baseline_waits_for_health_and_forces_a_collection_once() {
        let mut plan = plan();
        take(&mut plan, 0, &figures(), Some(20));
        let ill = Figures { healthy: false, ..figures() };
        assert!(take(&mut plan, 70, &ill, Some(20)).iter().all(|(purpose, _)| *purpose == Purpose::Count));
        let kinds: Vec<_> = take(&mut plan, 71, &figures(), Some(20)).into_iter().map(|it| it.1).collect();
        assert_eq!(kinds, [ProfileKind::Index, ProfileKind::HeapAfterGc, ProfileKind::Goroutine]);
        let kinds: Vec<_> = take(&mut plan, 400, &figures(), Some(20)).into_iter().map(|it| it.1).collect();
        assert_eq!(kinds, [ProfileKind::Index, ProfileKind::Heap, ProfileKind::Goroutine, ProfileKind::Index]);
    }

    #[test]
    fn rounds_keep_the_cool_down_and_the_budget() {
        let mut plan = plan();
        take(&mut plan, 0, &figures(), Some(20));
        assert_eq!(plan.round(S(100), Cause::Alert), Wish::Begun);
        assert_eq!(plan.round(S(100), Cause::Critical), Wish::Suppressed("busy"));
        let kinds: Vec<_> = take(&mut plan, 100, &figures(), Some(20)).into_iter().take(4).map(|it| it.1).collect();
        assert_eq!(kinds, [ProfileKind::Heap, ProfileKind::Index, ProfileKind::HeapAfterGc, ProfileKind::Goroutine]);
        assert_eq!(plan.round(S(159), Cause::Alert), Wish::Suppressed("cooldown"));
        assert_eq!(plan.round(S(160), Cause::Alert), Wish::Begun);
        take(&mut plan, 160, &figures(), Some(20));
        assert_eq!(plan.round(S(300), Cause::Alert), Wish::Suppressed("budget"), "the last is kept");
        assert_eq!(plan.round(S(170), Cause::Critical), Wish::Begun, "crit passes the cool-down and takes it");
        take(&mut plan, 170, &figures(), Some(20));
        assert_eq!(plan.round(S(300), Cause::Critical), Wish::Suppressed("budget"));
        assert_eq!(plan.round(S(3_760), Cause::Alert), Wish::Begun, "an hour later there is room");
    }

    #[test]
    fn an_incident_without_a_name_is_looked_at_again_more_and_more_rarely() {
        let settings = Settings { baseline_after: S(60), cooldown: S(60), max_per_hour: 60 };
        let mut plan = Plan::new(settings);
        plan.appeared(S(0));
        plan.round(S(0), Cause::Alert);
        let mut begun = Vec::new();
        for now in 0..2_000 {
            take(&mut plan, now, &figures(), Some(20));
            if plan.round(S(now), Cause::Again) == Wish::Begun {
                begun.push(now);
            }
        }
        assert_eq!(begun, [60, 180, 420, 900, 1_860]);
    }

    #[test]
    fn a_round_that_finds_no_port_is_not_charged_and_stops_there() {
        let mut plan = plan();
        take(&mut plan, 0, &figures(), Some(20));
        for now in [100, 200, 300, 400] {
            assert_eq!(plan.round(S(now), Cause::Alert), Wish::Begun);
            let step = plan.next(S(now), &figures(), Some(20)).expect("a heap");
            plan.done(step, S(now), S(0), 0, false);
            let next = plan.next(S(now), &figures(), Some(20));
            assert!(next.is_none_or(|step| step.purpose != Purpose::Evidence));
        }
    }

    #[test]
    fn a_goroutine_profile_that_could_be_the_kill_is_left_out() {
        let mut plan = plan();
        take(&mut plan, 0, &figures(), Some(20));
        plan.round(S(100), Cause::Alert);
        // 100 MiB are left; 30,000 goroutines would cost 29 MiB.
        let steps = take(&mut plan, 100, &figures(), Some(30_000));
        assert!(steps.iter().all(|(_, kind)| *kind != ProfileKind::Goroutine));
        assert!(!affordable(&figures(), None), "an unknown count is not a small one");
        assert!(affordable(&figures(), Some(25_000)));
    }

    #[test]
    fn a_restart_begins_anew_and_keeps_the_rounds_counted() {
        let mut plan = plan();
        plan.round(S(1), Cause::Alert);
        plan.vanished();
        assert_eq!(plan.next(S(2), &figures(), Some(1)), None);
        assert_eq!(plan.round(S(2), Cause::Critical), Wish::Suppressed("no_target"));
        plan.appeared(S(3));
        assert_eq!(plan.round(S(4), Cause::Alert), Wish::Suppressed("cooldown"));
    }

    #[test]
    fn a_heavy_baseline_is_taken_less_often() {
        let mut plan = plan();
        take(&mut plan, 0, &figures(), Some(1));
        let step = Step { kind: ProfileKind::Heap, purpose: Purpose::Baseline };
        plan.done(step, S(60), Duration::from_millis(400), 10, true);
        assert_eq!(plan.baseline_every, S(600));
    }
}
