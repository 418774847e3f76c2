//! The memory rule: growth of the floor on six time scales, projected on the ceiling; bursts; standing right under the limit.
//!
//! Memory is taken as a share of its limit. A trend alone is no alarm (on the trace suite that is eight false ones a day): what
//! makes a leak is that it does not come back, does not slow down, and would reach the limit within about the time it was seen
//! to grow. The nearer the limit, the less proof is asked.
//!
//! A warning of a trend is held at a notice where there is another reading of it: `excuse.rs`. Bursts and the nearness of the
//! limit never are.
//!
//! Missing: without a limit there is nothing to project on, so memory stays silent then; the counts still speak.

mod saved;

use std::time::Duration;

use super::burst::{Burst, Near, NearLimit};
use super::excuse;
use super::facts::{Found, Known, Now, Told, Warned};
use super::level::{Level, Look, NEW_GROUND};
use super::plateau::{Ground, Held};
use super::reading::{Alert, AlertKind, Change, Severity};
use super::recent::{Climb, Recent};
use super::scale::Trend;
use super::settings::Settings;
use super::standing::Standing;
use super::words;
pub use saved::SavedMemory;

/// An alert is over when memory is this far below where it was told.
const CLEAR_BELOW: f64 = 0.1;
/// The same severity is told again at most this often: another scale may read half the time from the same hill.
const RETELL: Duration = Duration::from_secs(3_600);
/// On the fast scales, where a warning comes a minute ahead and not hours, lead is worth more than proof: memory is taken to
/// stand this much nearer to its limit.
const HASTE: f64 = 0.15;
/// The later half of a steady rise is at least this much as fast as the earlier one.
const STEADY: f64 = 0.9;
/// Closes in a row that must agree.
const CLOSES: u32 = 2;
/// Above this share a standstill is no all-clear: a soft memory limit holds a leak flat until it cannot.
const HELD_SHARE: f64 = 0.8;

/// The rule for one process under one limit. About 4 KiB, whatever comes.
#[derive(Clone, Debug)]
pub struct Growth {
    settings: Settings,
    levels: [Level; 6],
    recent: Recent,
    burst: Burst,
    near: NearLimit,
    standing: Standing,
    warned: Option<Warned>,
    told: Option<Told>,
    now: Option<Now>,
    /// What this life has held so far, and what earlier ones did, in bytes.
    held: Held,
    ground_bytes: Option<f64>,
}

impl Growth {
    pub fn new(settings: Settings) -> Growth {
        Growth {
            levels: Level::all(),
            recent: Recent::default(),
            burst: Burst::default(),
            near: NearLimit::new(settings.near_limit),
            standing: Standing::none(AlertKind::MemoryGrowth),
            warned: None,
            told: None,
            now: None,
            held: Held::default(),
            ground_bytes: None,
            settings,
        }
    }

    /// Known ground: what earlier lives of the app held, in bytes.
    pub fn stand_on(&mut self, ground_bytes: Option<f64>) {
        self.ground_bytes = ground_bytes;
    }

    /// What this life teaches, in bytes.
    pub fn held(&self) -> Option<f64> {
        self.held.best()
    }

    /// The share of the limit that was in use at the last reading.
    pub fn share(&self) -> f64 {
        self.now.map_or(0.0, |now| now.share())
    }

    /// Other settings from the next reading on.
    pub fn set(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Takes the bytes in use under a limit above zero, from a process of this age, and what is known beside them.
    pub fn observe(&mut self, at: Duration, age: Duration, memory: u64, limit: u64, beside: &Known) -> Vec<Change> {
        let now = Now { at, age, memory: memory as f64, limit: limit.max(1) as f64, piles_up: beside.piles_up };
        let look = Look { share: now.share(), live_heap: beside.live_heap, load: beside.load };
        self.now = Some(now);
        self.recent.push(at, now.share());
        let mut changes = Vec::new();
        changes.extend(self.look_for_burst(&now));
        changes.extend(self.look_near_limit(&now));
        for index in 0..self.levels.len() {
            if self.levels[index].push(at, &look) {
                self.judge(index, &now, &mut changes);
            }
        }
        changes.extend(self.look_for_the_end(&now));
        changes
    }

    /// Growth in bytes per second and the time to the limit, where memory grows: by the finest scale that shows it, else by the
    /// last 20 s, which a young process has only.
    pub fn outlook(&self) -> Option<(f64, Option<Duration>)> {
        let now = self.now?;
        let by_trend = self.levels.iter().find_map(|level| level.trend).map(|trend| (trend.per_second, trend.ceiling));
        let (per_second, ceiling) = by_trend.or_else(|| self.short_climb().map(|climb| (climb.per_second(), 0.0)))?;
        let room = (1.0 - ceiling.max(now.share())) * now.limit;
        Some((per_second * now.limit, words::time_left(room, per_second * now.limit)))
    }

    /// Memory rises so steeply that it should be looked at more often.
    pub fn hurries(&self) -> bool {
        self.burst.hurries(&self.settings)
    }

    pub fn severity(&self) -> Option<Severity> {
        self.standing.severity()
    }

    /// Ends the alert, if one stands, because its subject is gone.
    pub fn end(&mut self, at: Duration) -> Option<Change> {
        self.standing.clear(at)
    }

    /// A rise of 2 % of the limit over at least 8 s, most steps up and still going: what a trend will be once it is old enough.
    fn short_climb(&self) -> Option<Climb> {
        let climb = self.recent.climb()?;
        let sustained = climb.seconds >= 8.0 && climb.rise >= 0.02 && climb.share_up >= 0.7 && climb.late_share >= 0.3;
        sustained.then_some(climb)
    }

    fn look_for_burst(&mut self, now: &Now) -> Option<Change> {
        let climb = self.burst.step(now.at, now.age, &self.recent, now.share(), &self.settings)?;
        let rise = climb.rise * now.limit;
        let evidence = format!(
            "rose {} in {}, nearly every reading higher, {} of {}",
            words::size(rise),
            words::span(climb.seconds),
            words::size(now.memory),
            words::size(now.limit)
        );
        let (per_second, span) = (climb.per_second(), climb.seconds);
        let found = Found { rule: "burst", severity: Severity::Crit, per_second, ceiling: 0.0, span, evidence };
        self.tell(now, found, false)
    }

    fn look_near_limit(&mut self, now: &Now) -> Option<Change> {
        let near = self.near.step(now.at, now.share(), &self.recent)?;
        let (severity, how) = match near {
            Near::Grown => (Severity::Crit, "having grown there"),
            Near::Sits => (Severity::Notice, "where it has been since it started"),
        };
        let evidence = format!(
            "stands at {:.0} % of the limit, {how}: {} of {}",
            now.share() * 100.0,
            words::size(now.memory),
            words::size(now.limit)
        );
        let per_second = self.levels.iter().find_map(|level| level.trend).map_or(0.0, |trend| trend.per_second);
        self.tell(now, Found { rule: "near_limit", severity, per_second, ceiling: 0.0, span: 15.0, evidence }, false)
    }

    /// A bucket of this scale closed: does it show growth, and how soon is the limit reached?
    fn judge(&mut self, index: usize, now: &Now, changes: &mut Vec<Change>) {
        self.settle(index, now);
        let level = &mut self.levels[index];
        level.trend = level.scale.trend(self.settings.min_rise);
        let Some(trend) = level.trend.filter(|trend| trend.floor > level.new_ground()) else {
            (level.warns, level.notices) = (0, 0);
            return;
        };
        let left = trend.seconds_until(1.0);
        let fast = level.is_fast();
        let haste = if fast { HASTE } else { 0.0 };
        let waits = self.waits(now, &trend, fast);
        let soon = left <= self.settings.warn_horizon.as_secs_f64();
        let warns = soon && left <= self.settings.horizon(trend.ceiling + haste) * trend.span && !waits;
        let notices = left <= self.settings.horizon_notice * trend.span;
        let level = &mut self.levels[index];
        level.warns = if warns { level.warns + 1 } else { 0 };
        level.notices = if notices { level.notices + 1 } else { 0 };
        // Growth that feeds on itself has four quarters as its proof, each steeper than the last, and a minute more costs most there.
        // On the scales of seconds a second look costs nothing.
        let closes = if trend.gain > 0.0 && !fast { 1 } else { CLOSES };
        let (warns, notices, rule) = (level.warns >= closes, level.notices >= CLOSES, level.rule);
        if let Some(told) = &mut self.told {
            told.grew_at = now.at;
        }
        if warns {
            let excuse = self.excuse(&self.levels[index], now, &trend);
            changes.extend(self.warn(now, rule, &trend, left, excuse));
        } else if notices && self.standing.severity().is_none() {
            changes.extend(self.tell_trend(now, rule, Severity::Notice, &trend, None, false));
        }
    }

    /// Whether the process is so young that this growth may be its start.
    fn waits(&self, now: &Now, trend: &Trend, fast: bool) -> bool {
        let (grace, quiet) = (self.settings.startup_grace, self.burst.was_quiet());
        if !fast {
            return now.age < grace;
        }
        // A start without a quiet moment that loses pace: a JVM that touched its heap, 3 MiB/s up to its -Xmx, looked a minute from
        // its end at 66 s and stood still at 90. A leak from the first second keeps its pace.
        !quiet && (now.age < grace || now.age < 2 * grace && trend.pace < STEADY)
    }

    /// The floors of 300 s tell what this life stands at: low, and for an hour.
    fn settle(&mut self, index: usize, now: &Now) {
        let scale = &self.levels[index].scale;
        let Some(floor) = scale.last_floor().filter(|_| scale.width() == Duration::from_secs(300)) else { return };
        self.near.settle(now.age, floor);
        if scale.floors().len() == 1 {
            self.held.interrupt();
        }
        self.held.settle(floor * now.limit, now.limit);
    }

    /// Why this growth is held at a notice, in words.
    fn excuse(&self, level: &Level, now: &Now, trend: &Trend) -> Option<String> {
        let ground = self.ground_bytes.map(|bytes| Ground::under(bytes, now.limit));
        excuse::of(level, trend, now, ground, self.held.best().is_some())
    }

    /// A warning; critical when the limit is near; told again when the time to it has halved.
    fn warn(
        &mut self,
        now: &Now,
        rule: &'static str,
        trend: &Trend,
        left: f64,
        excuse: Option<String>,
    ) -> Option<Change> {
        let near = left <= self.settings.crit_horizon.as_secs_f64();
        let severity = if near { Severity::Crit } else { Severity::Warn };
        if excuse.is_some() || self.is_expected(now) {
            return self.note(now, rule, trend, excuse);
        }
        // Another scale may read half the time from the same hill: worse is only what also stands higher.
        let severer = self.standing.severity().is_some_and(|stands| stands >= Severity::Warn && severity > stands);
        let even = (1.0 - trend.ceiling).max(0.0) / trend.per_second;
        let told = self.warned.is_some_and(|warned| !self.is_news(&warned, now, even));
        if told && !severer {
            return None;
        }
        self.tell_trend(now, rule, severity, trend, None, !told)
    }

    /// A warning that is held at a notice. A notice that stands already is told once more, with the excuse as its evidence.
    fn note(&mut self, now: &Now, rule: &'static str, trend: &Trend, excuse: Option<String>) -> Option<Change> {
        let is_excused = excuse.is_some();
        let noted = self.standing.severity() == Some(Severity::Notice);
        let again = is_excused && noted && self.told.is_some_and(|told| !told.excused);
        let change = self.tell_trend(now, rule, Severity::Notice, trend, excuse, again)?;
        self.told = self.told.map(|told| Told { excused: is_excused, ..told });
        Some(change)
    }

    /// Whether growth that was warned of is worth another word: its time has halved, or it was over and is well above by now.
    fn is_news(&self, warned: &Warned, now: &Now, left: f64) -> bool {
        match self.standing.severity() {
            Some(_) => left < 0.5 * warned.seconds_left && now.at.saturating_sub(warned.at) >= RETELL,
            None => left < 0.5 * warned.seconds_left || now.share() > warned.share + self.settings.min_rise,
        }
    }

    fn tell_trend(
        &mut self,
        now: &Now,
        rule: &'static str,
        severity: Severity,
        trend: &Trend,
        excuse: Option<String>,
        again: bool,
    ) -> Option<Change> {
        let excuse = excuse.map_or(String::new(), |excuse| format!("; {excuse}"));
        let evidence = format!(
            "rose {} in {}, floor and ceiling alike, {} of {}{excuse}",
            words::size(trend.rise * now.limit),
            words::span(trend.span),
            words::size(now.memory),
            words::size(now.limit)
        );
        let Trend { per_second, ceiling, span, .. } = *trend;
        self.tell(now, Found { rule, severity, per_second, ceiling, span, evidence }, again)
    }

    fn is_expected(&self, now: &Now) -> bool {
        self.settings.expected.is_some_and(|expected| now.memory <= expected as f64)
    }

    fn tell(&mut self, now: &Now, found: Found, again: bool) -> Option<Change> {
        let severity = if self.is_expected(now) { Severity::Notice } else { found.severity };
        let per_second = found.per_second * now.limit;
        let room = (1.0 - found.ceiling.max(now.share())) * now.limit;
        let alert = Alert {
            kind: AlertKind::MemoryGrowth,
            severity,
            rule: found.rule,
            at: now.at,
            per_second,
            time_to_limit: words::time_left(room, per_second),
            evidence: found.evidence,
        };
        let left = alert.time_to_limit;
        let change = self.standing.raise(alert, again)?;
        if severity >= Severity::Warn {
            let seconds_left = left.map_or(f64::INFINITY, |left| left.as_secs_f64());
            self.warned = Some(Warned { at: now.at, seconds_left, share: now.share() });
        }
        let patience = Duration::from_secs_f64(found.span.max(600.0));
        self.told = Some(Told { share: now.share(), grew_at: now.at, patience, excused: false });
        Some(change)
    }

    /// It is over when memory fell well below where it was told, or has stood still for as long as it was seen to grow.
    fn look_for_the_end(&mut self, now: &Now) -> Option<Change> {
        if self.warned.is_some_and(|warned| now.share() < warned.share - CLEAR_BELOW) {
            self.warned = None;
        }
        let told = self.told.as_mut()?;
        if now.share() > told.share + NEW_GROUND {
            // Growth that is too slow or too jumpy for a trend keeps the alert alive all the same.
            (told.share, told.grew_at) = (now.share(), now.at);
        }
        let fell = now.share() < told.share - CLEAR_BELOW;
        let stands_still = now.share() < HELD_SHARE && now.at.saturating_sub(told.grew_at) > told.patience;
        if !fell && !stands_still {
            return None;
        }
        self.told = None;
        self.standing.clear(now.at)
    }
}
