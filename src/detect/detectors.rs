//! All rules over one target: gives each its part of a reading, and starts anew when the process does.

use std::time::Duration;

use super::churn::Churn;
use super::clients::Clients;
use super::count::Count;
use super::facts::Known;
use super::freeze::Freeze;
use super::growth::Growth;
use super::plateau::Plateaus;
use super::reading::{Change, Detector, Reading, Severity};
use super::saved::{Saved, SavedLife};
use super::settings::Settings;

/// Where the watch stands, in the API's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// No reading yet, or the process is younger than the start-up grace.
    #[default]
    Learning,
    Quiet,
    Notice,
    Warn,
    Crit,
}

impl State {
    pub fn label(self) -> &'static str {
        match self {
            State::Learning => "learning",
            State::Quiet => "quiet",
            State::Notice => "notice",
            State::Warn => "warn",
            State::Crit => "crit",
        }
    }
}

impl From<Severity> for State {
    fn from(severity: Severity) -> State {
        match severity {
            Severity::Notice => State::Notice,
            Severity::Warn => State::Warn,
            Severity::Crit => State::Crit,
        }
    }
}

/// What is to be expected of memory, and the worst that stands of any kind.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outlook {
    /// Above zero; `None` while memory does not grow.
    pub slope_bytes_per_second: Option<f64>,
    /// `None` while memory does not grow.
    pub time_to_limit: Option<Duration>,
    /// Memory has leapt up within two seconds: the next reading should come soon, whatever the interval.
    pub hurries: bool,
    /// It has the looks of a freeze: worth asking the app whether it answers.
    pub strained: bool,
    pub state: State,
}

/// Every rule, for one target. Its memory is fixed: under 16 KiB a signal.
///
/// Another incarnation is another process: all alerts that stand are told as cleared at its first reading, and every rule starts
/// anew. Another limit starts the memory rule anew, likewise. A value that could not be read is passed over.
#[derive(Debug)]
pub struct Detectors {
    settings: Settings,
    life: Option<Life>,
    limit: Option<u64>,
    memory: Growth,
    clients: Clients,
    goroutines: Count,
    threads: Count,
    fds: Count,
    freeze: Freeze,
    churn: Churn,
    age: Duration,
    /// What the app is called, with its version: lives of the same name teach one another.
    app: String,
    plateaus: Plateaus,
    /// What another sidecar knew of the process that it watched last, until it is known whether that is ours.
    before: Option<SavedLife>,
}

/// The process that is watched, and when it was first seen.
#[derive(Clone, Copy, Debug)]
struct Life {
    incarnation: u64,
    seen_at: Duration,
    /// The kernel killed it, or a part of it, for memory: what it held is no level to live at.
    killed: bool,
}

impl Detectors {
    pub fn new(settings: Settings) -> Detectors {
        Detectors {
            life: None,
            limit: None,
            memory: Growth::new(settings.clone()),
            clients: Clients::default(),
            goroutines: Count::goroutines(),
            threads: Count::threads(),
            fds: Count::fds(),
            freeze: Freeze::default(),
            churn: Churn::default(),
            age: Duration::ZERO,
            app: String::new(),
            plateaus: Plateaus::default(),
            before: None,
            settings,
        }
    }

    /// The name and version of the app that the next readings are of.
    pub fn watching(&mut self, app: &str) {
        if self.app != app {
            self.bury();
            app.clone_into(&mut self.app);
            self.memory.stand_on(self.plateaus.ground(app));
        }
    }

    /// The same process has another name: it was found before its exec, or it titles itself.
    pub fn renamed(&mut self, app: &str) {
        app.clone_into(&mut self.app);
        self.memory.stand_on(self.plateaus.ground(app));
    }

    /// The kernel killed the app, or a process of it, for memory.
    pub fn killed(&mut self) {
        if let Some(life) = &mut self.life {
            life.killed = true;
        }
    }

    /// The same of the process that another sidecar watched last: it is gone, and this was its end.
    pub fn killed_before(&mut self) {
        if let Some(before) = &mut self.before {
            before.killed = true;
        }
    }

    /// The life that was watched is over: it teaches what it held, if it did not die of it. One whose end nobody saw, and that
    /// stood right under the limit, may have.
    fn bury(&mut self) {
        let Some(life) = self.life.take() else { return };
        if let Some(held) = self.memory.held().filter(|_| self.ended_well(life.killed, self.memory.share())) {
            self.plateaus.learn(&self.app, held);
        }
    }

    fn ended_well(&self, killed: bool, share: f64) -> bool {
        !killed && share < self.settings.near_limit
    }

    /// Other settings from the next reading on. What was learned of the process stays.
    pub fn set(&mut self, settings: Settings) {
        self.memory.set(settings.clone());
        self.settings = settings;
    }

    /// What a restart of the sidecar must not cost.
    pub fn save(&self) -> Saved {
        let life = self.life.map(|life| SavedLife {
            app: self.app.clone(),
            incarnation: life.incarnation,
            limit: self.limit,
            share: self.memory.share(),
            killed: life.killed,
            memory: self.memory.save(),
            clients: self.clients.save(),
            goroutines: self.goroutines.save(),
            threads: self.threads.save(),
            fds: self.fds.save(),
            freeze: self.freeze.severity(),
            churn: self.churn.severity(),
        });
        Saved { plateaus: self.plateaus.clone(), life: life.or_else(|| self.before.clone()) }
    }

    /// Takes over what another sidecar knew, before the first reading.
    pub fn restore(&mut self, saved: Saved) {
        self.plateaus = saved.plateaus;
        self.before = saved.life;
    }

    /// The process that another sidecar watched last is this one, or it has ended in between and teaches what it held.
    fn go_on(&mut self, at: Duration, before: SavedLife) {
        if self.life.is_some_and(|life| life.incarnation == before.incarnation) {
            self.limit = before.limit;
            self.life = self.life.map(|life| Life { killed: before.killed, ..life });
            self.memory.restore(at, before.memory);
            self.clients.restore(at, before.clients);
            self.goroutines.restore(at, before.goroutines);
            self.threads.restore(at, before.threads);
            self.fds.restore(at, before.fds);
            self.freeze.restore(before.freeze);
            self.churn.restore(before.churn);
        } else if let Some(held) = before.memory.held.best().filter(|_| self.ended_well(before.killed, before.share)) {
            self.plateaus.learn(&before.app, held);
        }
    }

    pub fn outlook(&self) -> Outlook {
        let growth = self.memory.outlook();
        Outlook {
            slope_bytes_per_second: growth.map(|(per_second, _)| per_second),
            time_to_limit: growth.and_then(|(_, left)| left),
            hurries: self.memory.hurries(),
            strained: self.freeze.is_suspect(),
            state: self.state(),
        }
    }

    /// Churn is left out: an app that makes a client a job is well in all else, and its baselines are wanted.
    fn state(&self) -> State {
        let standing = self.piles().into_iter().chain([self.memory.severity(), self.freeze.severity()]);
        match standing.flatten().max() {
            Some(severity) => severity.into(),
            None if self.life.is_none() || self.age < self.settings.startup_grace => State::Learning,
            None => State::Quiet,
        }
    }

    /// What stands of all that is counted and may pile up.
    fn piles(&self) -> [Option<Severity>; 4] {
        [self.clients.severity(), self.goroutines.severity(), self.threads.severity(), self.fds.severity()]
    }

    /// Meets the process of this reading: ends everything that was said of another.
    fn meet(&mut self, reading: &Reading, changes: &mut Vec<Change>) {
        if self.life.is_none_or(|life| life.incarnation != reading.incarnation) {
            let at = reading.at;
            changes.extend(self.memory.end(at));
            changes.extend(self.clients.end(at));
            changes.extend(self.freeze.end(at).into_iter().chain(self.churn.end(at)));
            changes.extend(
                [&mut self.goroutines, &mut self.threads, &mut self.fds].into_iter().filter_map(|it| it.end(at)),
            );
            self.bury();
            let (app, plateaus) = (std::mem::take(&mut self.app), std::mem::take(&mut self.plateaus));
            let before = self.before.take();
            *self = Detectors { app, plateaus, ..Detectors::new(self.settings.clone()) };
            self.life = Some(Life { incarnation: reading.incarnation, seen_at: at, killed: false });
            before.into_iter().for_each(|before| self.go_on(at, before));
            self.memory.stand_on(self.plateaus.ground(&self.app));
        }
        let seen_at = self.life.map_or(reading.at, |life| life.seen_at);
        self.age = reading.age.unwrap_or_else(|| reading.at.saturating_sub(seen_at));
    }

    fn observe_memory(&mut self, reading: &Reading, changes: &mut Vec<Change>) {
        let Some(limit) = reading.limit_bytes.filter(|limit| *limit > 0) else { return };
        if self.limit.replace(limit).is_some_and(|before| before != limit) {
            changes.extend(self.memory.end(reading.at));
            self.memory = Growth::new(self.settings.clone());
            self.memory.stand_on(self.plateaus.ground(&self.app));
        }
        if let Some(memory) = reading.memory_bytes {
            let known = Known {
                live_heap: reading.live_heap_bytes.map(|bytes| bytes as f64),
                load: reading.load,
                piles_up: self.piles().iter().any(Option::is_some),
            };
            changes.extend(self.memory.observe(reading.at, self.age, memory, limit, &known));
        }
    }

    fn observe_counts(&mut self, reading: &Reading, changes: &mut Vec<Change>) {
        let (at, age, settings) = (reading.at, self.age, &self.settings);
        let clients = reading.statsd_clients;
        changes.extend(clients.and_then(|count| self.clients.observe(at, age, count, settings)));
        for (rule, count, limit) in [
            (&mut self.goroutines, reading.goroutines, None),
            (&mut self.threads, reading.threads, None),
            (&mut self.fds, reading.fds, reading.fd_limit),
        ] {
            changes.extend(count.and_then(|count| rule.observe(at, age, count, limit, settings)));
        }
    }
}

impl Detector for Detectors {
    fn observe(&mut self, reading: &Reading) -> Vec<Change> {
        let mut changes = Vec::new();
        self.meet(reading, &mut changes);
        self.observe_memory(reading, &mut changes);
        self.observe_counts(reading, &mut changes);
        changes.extend(self.freeze.observe(reading).into_iter().chain(self.churn.observe(reading)));
        changes
    }
}
