//! Dispatch and spool together, against a model that a child could check: in any order of windows, answers, kills, restarts,
//! failures of the disk and steps of the clock every point is somewhere, and in the end with Datadog or in a named loss.
//!
//! What is followed are bodies, by a number each. A body that can be cut is followed by the numbers of what it is made of.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nix::errno::Errno;
use proptest::prelude::*;
use tokio::time::Instant;

use super::super::spool::disk::{Disk, Done};
use super::super::spool::testing::{Faults, READ, faulty};
use super::bodies::{self, Parts, weight};
use super::*;
use crate::datadog::{Encoder, EncoderSettings};

const MAX_MEMORY: u64 = 6_000;
pub(super) const MAX_SIZE: u64 = 12 * 4_096;

pub(super) fn settings(max_memory: u64, max_size: u64) -> DispatchSettings {
    DispatchSettings {
        encoder: Encoder::new(EncoderSettings::default()).unwrap(),
        hostname: None,
        historical: false,
        policy: Policy::default(),
        max_memory,
        has_spool: true,
        max_size,
        hold: Duration::from_secs(30),
    }
}

/// A dispatch with its disk and a clock of its own, and what the other side has.
pub(super) struct World {
    pub dispatch: Dispatch,
    pub disk: Option<Disk>,
    pub faults: Arc<Faults>,
    pub dir: tempfile::TempDir,
    pub now: Now,
    /// Done by the disk and not yet told.
    done: Option<Done>,
    /// Under way: item, endpoint, parts.
    flying: Vec<(u64, Endpoint, Parts)>,
    /// What each item is made of, by its number; of one that cannot be cut it is the number of its points.
    known: HashMap<u64, Parts>,
    /// Windows that came in, by their number, which is also the number of their points where they cannot be cut.
    came: BTreeMap<u64, Payload>,
    /// What the dispatch holds.
    held: BTreeSet<u64>,
    /// What the intake has, be it told to us or not.
    pub received: BTreeSet<u64>,
    /// And had before this process.
    before: BTreeSet<u64>,
    /// Given up, or in the memory of a process that was killed.
    lost: BTreeSet<u64>,
    /// Points that the books of this dispatch call lost.
    told: u64,
    /// Files were changed by another hand: what was held is no measure any more.
    pub is_meddled: bool,
    /// A disk that fails or hangs may have lost a mark on what is perhaps sent twice.
    pub may_double: bool,
}

impl World {
    pub fn new(max_memory: u64, max_size: u64) -> World {
        let (dir, faults) = (tempfile::tempdir().unwrap(), Arc::new(Faults::default()));
        let mut world = World {
            dispatch: Dispatch::new(settings(max_memory, max_size)),
            disk: None,
            faults,
            dir,
            now: Now { tick: Instant::now(), wall: 1_700_000_000.0 },
            done: None,
            flying: Vec::new(),
            known: HashMap::new(),
            came: BTreeMap::new(),
            held: BTreeSet::new(),
            received: BTreeSet::new(),
            before: BTreeSet::new(),
            lost: BTreeSet::new(),
            told: 0,
            is_meddled: false,
            may_double: false,
        };
        world.open();
        world
    }

    pub fn open(&mut self) {
        let opened = Disk::open(faulty(self.dir.path(), &self.faults)).map_err(|fault| fault.to_string());
        let (disk, found) = opened.map_or_else(|why| (None, Err(why)), |(disk, found)| (Some(disk), Ok(found)));
        self.disk = disk;
        self.dispatch.opened(found, self.now);
        let files = bodies::on_disk(self.dir.path());
        self.known =
            self.dispatch.queue.iter().filter_map(|it| Some((it.id, files.get(&it.file()?)?.clone()))).collect();
    }

    fn parts(&self, item: &Item) -> Parts {
        if item.is_loaded() {
            return bodies::parts(&item.payload);
        }
        self.known.get(&item.id).cloned().unwrap_or_else(|| Parts::from([item.payload.points]))
    }

    pub fn pass(&mut self, seconds: f64) {
        self.now.tick += Duration::from_secs_f64(seconds);
        self.now.wall += seconds;
        self.may_double |= self.done.is_some() && self.dispatch.spool.hangs(self.now.tick);
    }

    /// One that can be cut into so many, of a point each.
    pub fn cuttable(&mut self, endpoint: Endpoint, size: usize, items: usize) -> u64 {
        let n = self.came.len() as u64 + 1;
        let payload = bodies::cuttable(endpoint, n, size, items, self.now.wall as i64);
        self.come(n, payload)
    }

    pub fn window(&mut self, endpoint: Endpoint, urgent: bool, size: usize) -> u64 {
        let n = self.came.len() as u64 + 1;
        let body: Bytes = (0..size).map(|at| (at as u64 * 31 + n) as u8).collect();
        let created_at = self.now.wall as i64;
        self.come(n, Payload { endpoint, body, points: n, created_at, urgent })
    }

    fn come(&mut self, n: u64, payload: Payload) -> u64 {
        if payload.endpoint.carries_points() {
            self.dispatch.ledger.take(payload.points);
        }
        self.held.extend(bodies::parts(&payload));
        self.came.insert(n, payload.clone());
        self.dispatch.enqueue(payload, self.now);
        self.learn();
        n
    }

    /// Items that hold their bodies now may have them on disk later.
    fn learn(&mut self) {
        for item in self.dispatch.queue.iter().filter(|item| item.is_loaded()) {
            self.known.entry(item.id).or_insert_with(|| bodies::parts(&item.payload));
        }
    }

    pub fn launch(&mut self) {
        if let Some((id, payload)) = self.dispatch.next(false, self.now) {
            let parts = bodies::parts(&payload);
            let whole = self.came.get(&payload.points).is_some_and(|it| it.body == payload.body);
            assert!(whole || bodies::are_of(&parts, &self.came), "what is sent is what came in");
            self.flying.push((id, payload.endpoint, parts));
        }
    }

    /// The answer to the oldest request; with `taken` the intake has it, whatever it says.
    pub fn answer(&mut self, answer: Answer, taken: bool) {
        if self.flying.is_empty() {
            return;
        }
        let (id, endpoint, parts) = self.flying.remove(0);
        let delivered = matches!(answer, Answer::Status { code: 200..=299, .. });
        if taken || delivered {
            self.received.extend(&parts);
        }
        if delivered {
            self.held.retain(|part| !parts.contains(part));
        }
        let told = self.dispatch.ledger.redelivered();
        self.dispatch.settle(id, &Outcome { answer, trouble: None }, self.now);
        self.learn();
        if delivered && endpoint == Endpoint::Sketches && !self.may_double {
            let twice: u64 = parts.intersection(&self.before).map(weight).sum();
            assert!(self.dispatch.ledger.redelivered() >= told + twice, "{parts:?} count twice, and nobody is told");
        }
    }

    pub fn disk_begins(&mut self) {
        if self.done.is_none()
            && let Some(disk) = &mut self.disk
            && let Some(job) = self.dispatch.job(self.now)
        {
            self.done = Some(disk.perform(job));
        }
    }

    pub fn disk_ends(&mut self) {
        if let Some(done) = self.done.take() {
            self.dispatch.job_done(done, self.now);
        }
    }

    pub fn disk_rests(&mut self) {
        for _ in 0..200 {
            self.disk_begins();
            if self.done.is_none() {
                return;
            }
            self.disk_ends();
        }
        panic!("the disk is never done");
    }

    /// All that is in memory only is gone, and another process finds what is on disk.
    pub fn kill(&mut self) {
        // Heads that cannot be read are left for a start on a better day.
        let files = if self.faults.is_broken(READ) { HashMap::new() } else { bodies::on_disk(self.dir.path()) };
        let on_disk: BTreeSet<u64> = files.into_values().flatten().collect();
        let settings = settings(self.dispatch.settings.max_memory, self.dispatch.settings.max_size);
        self.dispatch = Dispatch::new(settings);
        (self.done, self.told) = (None, 0);
        self.flying.clear();
        let gone: Vec<u64> = self.held.difference(&on_disk).copied().collect();
        self.lost.extend(gone);
        self.held = on_disk;
        self.before = self.received.clone();
        self.open();
    }

    /// SIGTERM with an intake that takes nothing.
    pub fn terminate(&mut self) {
        self.dispatch.drain(self.now);
        self.disk_ends();
        self.pass(1.0);
        for (id, ..) in std::mem::take(&mut self.flying) {
            self.dispatch.come_back(id, self.now);
        }
        self.disk_rests();
        self.dispatch.abandon(self.now);
        self.check();
        self.kill();
    }

    pub fn dropped(&self) -> BTreeMap<&'static str, u64> {
        self.dispatch.publish(self.now).dropped
    }

    /// Every window is in one place, and the books say so.
    pub fn check(&mut self) {
        let items = || self.dispatch.queue.iter().chain(self.dispatch.under_way.items.values());
        let places: Vec<Parts> = items().map(|item| self.parts(item)).collect();
        let held: BTreeSet<u64> = places.iter().flatten().copied().collect();
        assert_eq!(held.len(), places.iter().map(Parts::len).sum::<usize>(), "everything is in one place");
        assert!(self.is_meddled || held.is_subset(&self.held), "nothing comes back that was settled");
        let gone: Vec<u64> = self.held.difference(&held).copied().collect();
        let told = self.dropped().values().sum();
        assert!(
            self.is_meddled || told - self.told == gone.iter().map(weight).sum::<u64>(),
            "every loss has a name: {:?}",
            self.dropped()
        );
        (self.held, self.told) = (held, told);
        self.lost.extend(gone);
        assert_eq!(self.dispatch.publish(self.now).identities["I4"], 0);
        let files: BTreeSet<_> = items().filter_map(|item| item.file().map(|file| (file, item.part))).collect();
        assert_eq!(
            files.len(),
            items().filter(|item| item.file().is_some()).count(),
            "a file, or a part of it, for each"
        );
        let bound = self.dispatch.settings.max_memory + 2_000;
        let memory = self.dispatch.queue.memory();
        assert!(memory <= bound || !self.dispatch.has_room(self.now), "{memory} bytes in memory");
    }

    /// Everything is well again: all that is held goes out.
    pub fn heal(&mut self) {
        self.faults.heal();
        for _ in 0..3_000 {
            self.pass(5.0);
            self.disk_ends();
            self.disk_rests();
            self.launch();
            self.answer(Answer::status(202), true);
            self.check();
            if self.dispatch.is_empty() && self.flying.is_empty() {
                self.disk_rests();
                return;
            }
        }
        panic!("a backlog that never ends: {:?}", self.dispatch);
    }

    /// Datadog has all but what was lost by name; a window is its own value, and the last write of each counts.
    fn compare(&self) {
        let came: BTreeSet<u64> = self.came.values().flat_map(bodies::parts).collect();
        let missing: BTreeSet<u64> = came.difference(&self.received).copied().collect();
        assert!(missing.is_subset(&self.lost), "{missing:?} are nowhere; lost by name: {:?}", self.lost);
        assert!(self.received.is_subset(&came));
    }
}

#[derive(Clone, Debug)]
enum Step {
    Window(Endpoint, bool, usize),
    Cuttable(Endpoint, usize, usize),
    Launch,
    Answer(Answer, bool),
    DiskBegins,
    DiskEnds,
    Pass(f64),
    Clock(f64),
    Fault(u8, Errno),
    Heal,
    Expire,
    Kill,
    Terminate,
}

fn step() -> impl Strategy<Value = Step> {
    let points = || prop_oneof![3 => Just(Endpoint::Series), 2 => Just(Endpoint::Sketches)];
    let silence = prop_oneof![Just(Answer::Timeout), Just(Answer::Transport)];
    let status =
        prop_oneof![4 => Just(202_u16), 4 => Just(503), 1 => Just(403), 1 => Just(429), 1 => Just(400), 2 => Just(413)];
    prop_oneof![
        8 => (points(), prop::bool::weighted(0.1), 1_usize..2_000).prop_map(|(at, urgent, size)| Step::Window(at, urgent, size)),
        4 => (points(), 1_usize..2_000, 1_usize..6).prop_map(|(at, size, items)| Step::Cuttable(at, size, items)),
        6 => Just(Step::Launch),
        4 => status.prop_map(|code| Step::Answer(Answer::status(code), false)),
        2 => (silence, any::<bool>()).prop_map(|(answer, taken)| Step::Answer(answer, taken)),
        6 => Just(Step::DiskBegins),
        6 => Just(Step::DiskEnds),
        4 => (0.0..70.0).prop_map(Step::Pass),
        1 => (-4_000.0..4_000.0).prop_map(Step::Clock),
        2 => (1_u8..128, prop_oneof![Just(Errno::ENOSPC), Just(Errno::EIO)]).prop_map(|(steps, how)| Step::Fault(steps, how)),
        2 => Just(Step::Heal),
        1 => Just(Step::Expire),
        1 => Just(Step::Kill),
        1 => Just(Step::Terminate),
    ]
}

fn take(world: &mut World, step: &Step) {
    match *step {
        // As the sink does, which leaves the next window where it is.
        Step::Window(endpoint, urgent, size) if world.dispatch.has_room(world.now) => {
            world.window(endpoint, urgent, size);
        }
        Step::Cuttable(endpoint, size, items) if world.dispatch.has_room(world.now) => {
            world.cuttable(endpoint, size, items);
        }
        Step::Window(..) | Step::Cuttable(..) => {}
        Step::Launch => world.launch(),
        Step::Answer(answer, taken) => world.answer(answer, taken),
        Step::DiskBegins => world.disk_begins(),
        Step::DiskEnds => world.disk_ends(),
        Step::Pass(seconds) => {
            world.pass(seconds);
            world.dispatch.expire(world.now);
        }
        Step::Clock(seconds) => world.now.wall += seconds,
        Step::Fault(steps, errno) => {
            world.may_double = true;
            world.faults.set(steps, errno);
        }
        Step::Heal => world.faults.heal(),
        Step::Expire => world.dispatch.expire(world.now),
        Step::Kill => world.kill(),
        Step::Terminate => world.terminate(),
    }
    world.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_point_is_somewhere_and_in_the_end_delivered_or_lost_by_name(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::new(MAX_MEMORY, MAX_SIZE);
        for step in &steps {
            take(&mut world, step);
        }
        world.heal();
        world.compare();
    }
}
