//! Things that pile up: goroutines, threads, file descriptors.
//!
//! The same test of growth as memory's, measured against the count itself, since most counts have no limit to be projected on.
//! Floors on the number and on the rise keep a pool that warms up silent.

use std::time::Duration;

use super::reading::{Alert, AlertKind, Change, Severity};
use super::saved::SavedPile;
use super::scale::{Scale, Trend};
use super::settings::Settings;
use super::standing::Standing;
use super::words;

/// What makes a count a leak.
#[derive(Clone, Copy, Debug)]
struct Rule {
    kind: AlertKind,
    name: &'static str,
    noun: &'static str,
    /// Seconds. Threads leave out the 10 s scale: a pool that fills takes minutes.
    scales: &'static [u64],
    /// Fewer than this is nobody's trouble.
    least: f64,
    /// The rise over the span, as a share of the count.
    rise: f64,
}

const GOROUTINES: Rule = Rule {
    kind: AlertKind::GoroutineLeak,
    name: "goroutines",
    noun: "goroutines",
    scales: &[10, 60, 300],
    least: 1_000.0,
    rise: 0.5,
};
const THREADS: Rule =
    Rule { kind: AlertKind::ThreadLeak, name: "threads", noun: "threads", scales: &[60, 300], least: 300.0, rise: 0.3 };
const FDS: Rule = Rule {
    kind: AlertKind::FdLeak,
    name: "fds",
    noun: "file descriptors",
    scales: &[10, 60, 300],
    least: 500.0,
    rise: 0.5,
};

/// One count of one process. Under 2 KiB.
#[derive(Clone, Debug)]
pub struct Count {
    rule: Rule,
    scales: Vec<Scale>,
    standing: Standing,
    told: Option<Told>,
}

#[derive(Clone, Copy, Debug)]
struct Told {
    count: f64,
    rise: f64,
    grew_at: Duration,
    patience: Duration,
}

/// One look at the count.
#[derive(Clone, Copy, Debug)]
struct Now {
    at: Duration,
    age: Duration,
    count: f64,
    limit: Option<f64>,
}

impl Count {
    pub fn goroutines() -> Count {
        Count::new(GOROUTINES)
    }

    pub fn threads() -> Count {
        Count::new(THREADS)
    }

    /// Descriptors are projected on the soft limit where it is known.
    pub fn fds() -> Count {
        Count::new(FDS)
    }

    fn new(rule: Rule) -> Count {
        // What falls back is judged by the floor itself; `drop` only feeds the memory of peaks, which counts do not use.
        let scales = rule.scales.iter().map(|seconds| Scale::new(Duration::from_secs(*seconds), f64::MAX)).collect();
        Count { rule, scales, standing: Standing::none(rule.kind), told: None }
    }

    /// Takes the count, and the number at which the kernel refuses more, where there is one.
    pub fn observe(
        &mut self,
        at: Duration,
        age: Duration,
        count: u64,
        limit: Option<u64>,
        settings: &Settings,
    ) -> Option<Change> {
        let now = Now { at, age, count: count as f64, limit: limit.map(|limit| limit as f64) };
        let mut change = None;
        for index in 0..self.scales.len() {
            if self.scales[index].push(at, now.count) {
                change = self.judge(index, &now, settings).or(change);
            }
        }
        change.or_else(|| self.look_for_the_end(&now))
    }

    pub fn severity(&self) -> Option<Severity> {
        self.standing.severity()
    }

    pub fn end(&mut self, at: Duration) -> Option<Change> {
        self.standing.clear(at)
    }

    pub fn save(&self) -> SavedPile {
        SavedPile {
            standing: self.standing.severity(),
            survived: 0.0,
            told: self.told.map(|told| (told.count, told.rise)),
            patience_seconds: self.told.map_or(0.0, |told| told.patience.as_secs_f64()),
        }
    }

    /// Goes on where another sidecar was.
    pub fn restore(&mut self, at: Duration, saved: SavedPile) {
        self.standing.restore(saved.standing);
        let patience = Duration::from_secs_f64(saved.patience_seconds.min(1e9));
        self.told = saved.told.map(|(count, rise)| Told { count, rise, grew_at: at, patience });
    }

    fn judge(&mut self, index: usize, now: &Now, settings: &Settings) -> Option<Change> {
        let trend = self.by_limit(index, now, settings).or_else(|| self.by_itself(index, now))?;
        if let Some(told) = &mut self.told {
            (told.grew_at, told.count) = (now.at, told.count.max(now.count));
        }
        if now.age < settings.startup_grace {
            return None;
        }
        let change = self.standing.raise(self.alert(now, &trend), false)?;
        let patience = Duration::from_secs_f64(trend.span.max(600.0));
        self.told = Some(Told { count: now.count, rise: trend.rise, grew_at: now.at, patience });
        Some(change)
    }

    /// The limit comes within as many spans as memory's horizon allows.
    fn by_limit(&self, index: usize, now: &Now, settings: &Settings) -> Option<Trend> {
        let limit = now.limit.filter(|limit| *limit > 0.0)?;
        let trend = self.scales[index].trend(settings.min_rise * limit)?;
        let left = (limit - trend.ceiling).max(0.0) / trend.per_second;
        (left <= settings.horizon(trend.ceiling / limit) * trend.span).then_some(trend)
    }

    fn by_itself(&self, index: usize, now: &Now) -> Option<Trend> {
        (now.count >= self.rule.least).then(|| self.scales[index].trend(self.rule.rise * now.count)).flatten()
    }

    fn alert(&self, now: &Now, trend: &Trend) -> Alert {
        let limit = now.limit.map_or(String::new(), |limit| format!(" of {limit:.0}"));
        Alert {
            kind: self.rule.kind,
            severity: Severity::Warn,
            rule: self.rule.name,
            at: now.at,
            per_second: trend.per_second,
            time_to_limit: now.limit.and_then(|limit| words::time_left(limit - now.count, trend.per_second)),
            evidence: format!(
                "{:.0}{limit} {}, {:.0} more in {}, {}",
                now.count,
                self.rule.noun,
                trend.rise,
                words::span(trend.span),
                words::pace(trend.per_second)
            ),
        }
    }

    /// Over when half of what was told is gone, or nothing was added for as long as it was seen to grow.
    fn look_for_the_end(&mut self, now: &Now) -> Option<Change> {
        let told = self.told?;
        let fell = now.count < told.count - 0.5 * told.rise;
        let stands_still = now.at.saturating_sub(told.grew_at) > told.patience;
        if !fell && !stands_still {
            return None;
        }
        self.told = None;
        self.standing.clear(now.at)
    }
}
