//! StatsD clients that pile up: one per job, never closed. Told within seconds, long before memory shows it.
//!
//! It is growth that counts and no number: an app of twenty processes opens twenty clients and is fine. What tells a leak from
//! worker processes that start is that it goes on, at an even pace, and what tells it from churn is that none goes away.
//!
//! Missing: leaks slower than one client in four minutes; memory's slow scales see those.

use std::time::Duration;

use super::reading::{Alert, AlertKind, Change, Severity};
use super::recent::Recent;
use super::saved::SavedPile;
use super::scale::Scale;
use super::settings::Settings;
use super::standing::Standing;
use super::words;

const RULE: &str = "clients";
/// Each half of the climb brings at least this share of it: a jump does not.
const EVEN: f64 = 0.25;
/// A standstill this long ends the alert.
const PATIENCE: Duration = Duration::from_secs(600);

/// The rule for one process. Under 2 KiB.
#[derive(Clone, Debug)]
pub struct Clients {
    recent: Recent,
    /// 10 s and 60 s, for leaks too slow for the last 20 s.
    scales: [Scale; 2],
    standing: Standing,
    /// The most clients that later went away by half: a collector that closes forgotten clients makes such a sawtooth.
    survived: f64,
    top: f64,
    told: Option<Told>,
}

#[derive(Clone, Copy, Debug)]
struct Told {
    top: f64,
    rise: f64,
    grew_at: Duration,
}

/// A rise that is a leak.
#[derive(Clone, Copy, Debug)]
struct Rise {
    clients: f64,
    seconds: f64,
    per_second: f64,
}

impl Default for Clients {
    fn default() -> Clients {
        Clients {
            recent: Recent::default(),
            scales: [10, 60].map(|seconds| Scale::new(Duration::from_secs(seconds), f64::MAX)),
            standing: Standing::none(AlertKind::ClientLeak),
            survived: 0.0,
            top: 0.0,
            told: None,
        }
    }
}

impl Clients {
    /// Takes the number of clients that live now, in a process of this age.
    pub fn observe(&mut self, at: Duration, age: Duration, clients: u64, settings: &Settings) -> Option<Change> {
        let clients = clients as f64;
        self.recent.push(at, clients);
        self.remember_peaks(clients);
        let mut closed = [false; 2];
        for (closed, scale) in closed.iter_mut().zip(&mut self.scales) {
            *closed = scale.push(at, clients);
        }
        self.note_growth(at, clients);
        let new_ground = clients >= self.survived + settings.client_rise as f64;
        let young = age < settings.startup_grace;
        let rise = self.fast(young, settings).or_else(|| self.slow(closed, young, settings)).filter(|_| new_ground);
        match rise {
            Some(rise) => self.tell(at, clients, &rise),
            None => self.look_for_the_end(at, clients),
        }
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
            survived: self.survived,
            told: self.told.map(|told| (told.top, told.rise)),
            patience_seconds: PATIENCE.as_secs_f64(),
        }
    }

    /// Goes on where another sidecar was.
    pub fn restore(&mut self, at: Duration, saved: SavedPile) {
        self.standing.restore(saved.standing);
        self.survived = saved.survived;
        self.told = saved.told.map(|(top, rise)| Told { top, rise, grew_at: at });
    }

    fn remember_peaks(&mut self, clients: f64) {
        self.top = self.top.max(clients);
        if clients <= 0.5 * self.top {
            self.survived = self.survived.max(self.top);
            self.top = clients;
        }
    }

    /// Within the last 20 s: thrice the rise over 5 s, or, when worker processes are not just starting, the rise over 10 s.
    fn fast(&self, young: bool, settings: &Settings) -> Option<Rise> {
        let climb = self.recent.climb()?;
        let least = settings.client_rise as f64;
        let enough = (climb.rise >= 3.0 * least && climb.seconds >= 5.0)
            || (!young && climb.rise >= least && climb.seconds >= 10.0);
        let even = climb.late_share >= EVEN && climb.late_share <= 1.0 - EVEN && climb.ups >= 3;
        let none_goes = self.recent.points().windows(2).all(|pair| pair[1].value >= pair[0].value - 1.0);
        (enough && even && none_goes).then(|| Rise {
            clients: climb.rise,
            seconds: climb.seconds,
            per_second: climb.per_second(),
        })
    }

    fn slow(&self, closed: [bool; 2], young: bool, settings: &Settings) -> Option<Rise> {
        let trends = self.scales.iter().zip(closed).filter(|(_, closed)| *closed && !young);
        let mut trends = trends.filter_map(|(scale, _)| scale.trend(settings.client_rise as f64));
        trends.next().map(|trend| Rise { clients: trend.rise, seconds: trend.span, per_second: trend.per_second })
    }

    fn note_growth(&mut self, at: Duration, clients: f64) {
        if let Some(told) = self.told.as_mut().filter(|told| clients > told.top) {
            (told.top, told.grew_at) = (clients, at);
        }
    }

    fn tell(&mut self, at: Duration, clients: f64, rise: &Rise) -> Option<Change> {
        let alert = Alert {
            kind: AlertKind::ClientLeak,
            severity: Severity::Warn,
            rule: RULE,
            at,
            per_second: rise.per_second,
            time_to_limit: None,
            evidence: format!(
                "{clients:.0} StatsD clients open, {:.0} more in {}, {}",
                rise.clients,
                words::span(rise.seconds),
                words::pace(rise.per_second)
            ),
        };
        let change = self.standing.raise(alert, false)?;
        self.told = Some(Told { top: clients, rise: rise.clients, grew_at: at });
        Some(change)
    }

    /// Over when half of what piled up is gone, or none was added for ten minutes.
    fn look_for_the_end(&mut self, at: Duration, clients: f64) -> Option<Change> {
        let told = self.told?;
        let fell = clients < told.top - 0.5 * told.rise;
        if !fell && at.saturating_sub(told.grew_at) <= PATIENCE {
            return None;
        }
        self.told = None;
        self.standing.clear(at)
    }
}
