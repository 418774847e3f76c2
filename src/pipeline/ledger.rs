//! The book of incidents: which one is open, what joins it, which event each turn of the story owes. Pure: the investigation
//! tells it what happened and sends what it returns.
//!
//! A kill ends what is open; the third bad end within ten minutes does not, but makes a crash loop of it, which stays open and is
//! told once, whatever follows, until the app has stayed up.
//!
//! One incident at most is open. A notice opens one on the page but owes Datadog nothing until it turns worse.

use std::collections::{BTreeMap, VecDeque};

use super::event::{self, Scene};
use super::footing::Footing;
use super::incident::{Incident, IncidentKind, KeptProfile, State};
use super::lives::{Life, Lives};
use super::past::{self, Ending, Past};
use super::said::Turn;
use super::saved::INCIDENTS;
use super::words::{self, Identity};
use super::{Figures, Gone, Target, story, views};
use crate::detect::{Alert, AlertKind, Change, Severity};
use crate::pprof::Naming;
use crate::snapshot::IncidentView;
use crate::statsd::Event;

/// Closed incidents kept for the page; the oldest goes first.
const HISTORY: usize = 50;

/// Profiles that an incident lists; a crash loop would gather them without end.
const PROFILES: usize = 24;

/// A process that vanished above this share of its limit, and whose end nobody could read, was most likely killed for memory:
/// the last reading may be a second old, and 100 MiB/s fills a tenth of a 1 GiB limit in that second.
const EDGE: f64 = 0.85;

/// The open incident and the closed ones, newest first.
#[derive(Debug, Default)]
pub struct Ledger {
    pub open: Option<Incident>,
    pub closed: VecDeque<Incident>,
    /// The latest figures; every sentence quotes them.
    pub figures: Figures,
    pub who: Identity,
    pub app: String,
    lives: Lives,
    footing: Footing,
    /// Incidents of the sidecar before this one.
    pub past: Past,
    /// How many were opened by this process: a part of the next id.
    opened: u64,
}

impl Ledger {
    pub fn new(who: Identity, past: Past) -> Ledger {
        Ledger { who, past, ..Ledger::default() }
    }

    /// Takes a change of a detector in.
    pub fn alert(&mut self, change: &Change, now: f64) -> Vec<Event> {
        match change {
            Change::Opened(alert) | Change::Escalated(alert) => self.join(alert, now),
            Change::Cleared { kind, .. } => {
                let Some(incident) = self.open.as_mut() else { return Vec::new() };
                // With the death of each life all its alerts end; the loop goes on.
                let over = incident.leave(*kind) && incident.kind != IncidentKind::CrashLoop;
                if !over {
                    return Vec::new();
                }
                let (why, notices) = (story::all_clear(incident.kind), std::mem::take(&mut incident.standing));
                let events = self.close(State::Recovered, why, now);
                self.rejoin(&notices, now, events)
            }
        }
    }

    /// What still stands when a story has ended begins the next.
    fn rejoin(&mut self, standing: &BTreeMap<AlertKind, Alert>, now: f64, mut events: Vec<Event>) -> Vec<Event> {
        events.extend(standing.values().flat_map(|alert| self.join(alert, now)));
        events
    }

    fn join(&mut self, alert: &Alert, now: f64) -> Vec<Event> {
        let was = self.open.as_ref().map(|incident| incident.severity);
        let incident = self.opened(IncidentKind::Alert(alert.kind), alert.severity, now);
        let froze = alert.kind == AlertKind::Freeze && !incident.standing.contains_key(&AlertKind::Freeze);
        incident.join(alert.clone());
        let (severity, in_loop) = (incident.severity, incident.kind == IncidentKind::CrashLoop);
        self.reword();
        if in_loop {
            return Vec::new();
        }
        match (was, severity) {
            (_, Severity::Notice) => Vec::new(),
            (None | Some(Severity::Notice), _) => self.tell(&Turn::Opened, now),
            (Some(Severity::Warn), Severity::Crit) => self.tell(&Turn::Critical, now),
            _ if froze => self.tell(&Turn::Critical, now),
            _ => Vec::new(),
        }
    }

    /// The open incident; where there is none, a new one.
    fn opened(&mut self, kind: IncidentKind, severity: Severity, now: f64) -> &mut Incident {
        let open = self.open.take();
        let incident = open.unwrap_or_else(|| Incident::open(self.next_id(now), kind, severity, self.app.clone(), now));
        self.open.insert(incident)
    }

    /// The second of the opening and a running number: unique over restarts of the sidecar too, and fit for an address.
    fn next_id(&mut self, now: f64) -> String {
        self.opened += 1;
        format!("{:x}{:02x}", now as u64, self.opened)
    }

    /// Takes what the profiles said in, and owes an event when somebody is named, another is, or the same one surely.
    pub fn name(&mut self, naming: Naming, now: f64) -> Vec<Event> {
        let Some(incident) = self.open.as_mut() else { return Vec::new() };
        incident.learn(naming);
        let turn = incident.said.of_the_name(incident);
        self.reword();
        turn.map_or_else(Vec::new, |turn| self.tell(&turn, now))
    }

    /// Nothing could be pulled: said in the verdict as long as nobody is named.
    pub fn pull_failed(&mut self, words: String) {
        if let Some(incident) = self.open.as_mut() {
            incident.pull_failure = Some(words);
        }
        self.reword();
    }

    /// Adds a profile to the open story: evidence, or once the baseline that it was compared with.
    pub fn keep(&mut self, profile: KeptProfile) {
        if let Some(incident) = self.open.as_mut().filter(|it| it.profiles.iter().all(|kept| kept.id != profile.id)) {
            if incident.profiles.len() == PROFILES {
                incident.profiles.remove(0);
            }
            incident.profiles.push(profile);
        }
    }

    /// The target is gone: the end of the story, if there is one to tell.
    pub fn vanished(&mut self, gone: Gone, now: f64) -> Vec<Event> {
        let certain = gone == Gone::OomKilled;
        let edge =
            self.figures.limit_bytes.is_some_and(|limit| self.figures.memory_bytes as f64 >= EDGE * limit as f64);
        let killed = certain || gone == Gone::Unknown && edge;
        let life = self.lives.ended(now);
        let in_loop = self.in_loop();
        let alarmed = self.open.as_ref().is_some_and(|it| !in_loop && it.severity > Severity::Notice);
        if (killed || alarmed) && self.loops(life, in_loop, now) {
            return self.looped(certain, now);
        }
        if !killed {
            return if in_loop { Vec::new() } else { self.close(State::Recovered, "the process ended", now) };
        }
        self.killed(certain, "", life, now)
    }

    fn in_loop(&self) -> bool {
        self.open.as_ref().is_some_and(|it| it.kind == IncidentKind::CrashLoop)
    }

    fn loops(&mut self, life: Option<Life>, in_loop: bool, now: f64) -> bool {
        self.lives.count(life.unwrap_or(Life { began: now, ended: now, ..Life::default() }), in_loop)
    }

    /// Another bad end of the series: the first time it is told, then it only stands in the sentence.
    fn looped(&mut self, certain: bool, now: f64) -> Vec<Event> {
        let before = self.closed.front().filter(|_| self.open.is_none()).cloned();
        let series = self.lives.told(now);
        let incident = self.opened(IncidentKind::CrashLoop, Severity::Crit, now);
        let first = !incident.told || incident.kind != IncidentKind::CrashLoop;
        if let Some(before) = before {
            // What the life before was found to leak, this one leaks too, until a profile says other.
            (incident.naming, incident.pull_failure) = (before.naming, before.pull_failure);
            incident.profiles = before.profiles;
            incident.state = if incident.is_named() { State::Named } else { State::Open };
        }
        incident.turn(IncidentKind::CrashLoop);
        incident.severity = Severity::Crit;
        incident.presumed = !certain;
        incident.standing.clear();
        incident.series = Some(series);
        let opening = !incident.told;
        self.reword();
        if !first {
            return Vec::new();
        }
        self.tell(if opening { &Turn::Opened } else { &Turn::Critical }, now)
    }

    /// A target is seen for the first time.
    pub fn appeared(&mut self, now: f64) {
        self.lives.appeared(now);
        self.footing.appeared(now);
    }

    /// The latest figures; the sentence of the open incident follows them.
    pub fn see(&mut self, figures: Figures, now: f64) {
        self.lives.see(&figures);
        self.footing.see(&figures, now);
        self.figures = figures;
        self.reword();
    }

    /// Once a second: a crash loop is over when the app has stayed up, with nothing standing; else what has come to be owed.
    pub fn look(&mut self, now: f64, round_over: bool) -> Vec<Event> {
        let calm = self.in_loop() && self.open.as_ref().is_some_and(Incident::is_calm);
        let Some(well) = self.lives.well_for(now).filter(|_| calm) else { return self.follow_up(now, round_over) };
        self.lives.forget();
        self.close(State::Recovered, &format!("it has stayed up for {}", words::duration(well)), now)
    }

    /// Why nobody is named, once a round is over; and that the limit has come nearer.
    fn follow_up(&mut self, now: f64, round_over: bool) -> Vec<Event> {
        let Some(incident) = self.open.as_mut().filter(|it| it.told) else { return Vec::new() };
        let mut said = std::mem::take(&mut incident.said);
        let unnamed = said.of_no_name(incident).filter(|_| round_over);
        let turn = unnamed.or_else(|| said.of_the_limit(incident, &self.figures, now));
        incident.said = said;
        turn.map_or_else(Vec::new, |turn| self.tell(&turn, now))
    }

    /// The kernel killed a process of the app's tree, and the one that is watched lives on: the master of a prefork server, say.
    pub fn child_killed(&mut self, now: f64) -> Vec<Event> {
        let (life, in_loop) = (self.lives.so_far(now), self.in_loop());
        // The detectors have told of these and will not again.
        let standing = self.open.as_ref().map(|it| it.standing.clone()).unwrap_or_default();
        let events = if self.loops(life, in_loop, now) {
            self.looped(true, now)
        } else {
            self.killed(true, "A child process: ", life, now)
        };
        self.rejoin(&standing, now, events)
    }

    fn killed(&mut self, certain: bool, who: &str, life: Option<Life>, now: f64) -> Vec<Event> {
        let incident = self.opened(IncidentKind::OomKill, Severity::Crit, now);
        incident.presumed = !certain;
        if incident.kind == IncidentKind::Alert(AlertKind::ClientChurn) {
            incident.turn(IncidentKind::OomKill);
        }
        let end = story::killed(self.open.as_ref(), &self.figures, certain, life.as_ref(), now);
        self.end(State::Killed, format!("{who}{end}"), now)
    }

    fn close(&mut self, state: State, why: &str, now: f64) -> Vec<Event> {
        let Some(incident) = self.open.as_ref() else { return Vec::new() };
        let end = story::recovered(incident, &self.figures, why);
        self.end(state, end, now)
    }

    fn end(&mut self, state: State, end: String, now: f64) -> Vec<Event> {
        let Some(incident) = self.open.as_mut() else { return Vec::new() };
        // A notice that ends in a kill is worth its only event.
        incident.told |= state == State::Killed;
        incident.close(state, end, now);
        self.reword();
        let events = self.tell(&Turn::Ended, now);
        if let Some(incident) = self.open.take() {
            self.closed.push_front(incident);
        }
        self.closed.truncate(HISTORY);
        events
    }

    /// Brings the sentence of the open incident up to the latest figures.
    pub fn reword(&mut self) {
        if let Some(incident) = self.open.as_mut() {
            incident.verdict = words::verdict(incident, &self.figures);
        }
    }

    /// The event of a turn, where it is owed: what was not told of when it began is not told of further.
    fn tell(&mut self, turn: &Turn, now: f64) -> Vec<Event> {
        let Some(incident) = self.open.as_mut() else { return Vec::new() };
        if incident.told == (*turn == Turn::Opened) {
            return Vec::new();
        }
        incident.told = true;
        let mut said = std::mem::take(&mut incident.said);
        said.note(turn, incident, &self.figures, now);
        incident.said = said;
        let scene = Scene { figures: &self.figures, footing: &self.footing, who: &self.who, now };
        vec![event::event(incident, turn, &scene)]
    }

    /// Nothing was seen yet.
    pub fn begin(&mut self, now: f64) -> Vec<Event> {
        let turn = self.past.begin();
        self.turn(turn, now)
    }

    /// The first target of this run may be the one that an earlier story is about.
    pub fn meet(&mut self, target: &Target, now: f64) -> Vec<Event> {
        let turn = self.past.meet(target, &self.who.app(target));
        self.turn(turn, now)
    }

    /// The process that an earlier story is about is gone.
    pub fn before(&mut self, gone: Gone, now: f64) -> Vec<Event> {
        let turn = self.past.gone(gone);
        self.turn(turn, now)
    }

    fn turn(&mut self, turn: Option<past::Turn>, now: f64) -> Vec<Event> {
        match turn {
            None => Vec::new(),
            Some(past::Turn::GoesOn(incident)) => {
                self.open = Some(*incident);
                Vec::new()
            }
            Some(past::Turn::Ends(incident, ending)) => self.end_unseen(*incident, ending, now),
        }
    }

    /// Ends a story of another time. Our own and our figures have no part in it.
    fn end_unseen(&mut self, mut incident: Incident, ending: Ending, now: f64) -> Vec<Event> {
        incident.parting = ending.parting;
        let end = format!("{}; {}", incident.verdict, ending.words);
        let (figures, footing) = (std::mem::take(&mut self.figures), std::mem::take(&mut self.footing));
        let own = self.open.replace(incident);
        let events = self.end(ending.state, end, now);
        (self.open, self.figures, self.footing) = (own, figures, footing);
        events
    }

    /// As the API shows them: our own, then those of earlier runs.
    pub fn views(&self) -> Vec<IncidentView> {
        let own = self.all().map(views::incident);
        own.chain(self.past.views().iter().cloned()).take(INCIDENTS).collect()
    }

    /// The open one first, then the closed ones, newest first.
    pub fn all(&self) -> impl Iterator<Item = &Incident> {
        self.open.iter().chain(&self.closed)
    }
}

#[cfg(test)]
mod tests;
