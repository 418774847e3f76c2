//! What can go wrong with a disk, one thing at a time: each step that fails, files that are not what was written, no room.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::super::spool::record::{self, HEAD, Kind};
use super::super::spool::testing::{CREATE, READ, REMOVE, RENAME, SYNC, SYNC_NAMES, WRITE};
use super::model::World;
use super::*;

const KIB: u64 = 1_024;

impl World {
    /// A window that waits, because its endpoint has just failed.
    fn blocked_window(&mut self, size: usize) -> u64 {
        let n = self.window(Endpoint::Series, false, size);
        self.launch();
        self.answer(Answer::status(503), false);
        self.disk_rests();
        self.check();
        n
    }

    fn lost(&self, reason: &str) -> u64 {
        self.dropped().get(reason).copied().unwrap_or(0)
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> =
            fs::read_dir(self.dir.path()).unwrap().flatten().map(|file| file.path()).collect();
        files.sort();
        files
    }

    fn blocks(&self) -> u64 {
        self.files().iter().map(|file| fs::metadata(file).unwrap().blocks() * 512).sum()
    }
}

#[test]
fn a_step_that_fails_leaves_payloads_in_memory_and_the_disk_is_used_again_a_second_later() {
    for step in [CREATE, WRITE, SYNC, RENAME, SYNC_NAMES] {
        for errno in [Errno::ENOSPC, Errno::EIO, Errno::EDQUOT] {
            let mut world = World::new(4 * KIB, 64 * KIB);
            world.blocked_window(500);
            assert_eq!((world.dispatch.spool.state(world.now.tick), world.files().len()), ("disk", 1));
            world.faults.set(step | REMOVE, errno);
            world.blocked_window(1_500);
            world.faults.set(step, errno);
            world.blocked_window(1_500);
            assert_eq!(world.dispatch.spool.state(world.now.tick), "failing", "{step} {errno}");
            assert!(world.dispatch.publish(world.now).degraded.iter().any(|it| it.what == "disk spool"));
            let third = world.blocked_window(1_500);
            assert_eq!((world.lost("disk_full"), world.dispatch.memory()), (2, 3_000), "the oldest in memory goes");
            world.faults.heal();
            world.pass(1.1);
            world.disk_rests();
            assert_eq!((world.dispatch.spool.state(world.now.tick), world.dispatch.memory()), ("disk", 0));
            assert!(
                world.files().iter().all(|file| record::decode(&fs::read(file).unwrap()).is_some()),
                "none is torn"
            );
            world.heal();
            assert_eq!(world.received, BTreeSet::from([1, 3, third]));
            assert_eq!(world.files(), Vec::<PathBuf>::new());
        }
    }
}

#[test]
fn what_cannot_be_removed_is_removed_later_and_counts_until_then() {
    let mut world = World::new(4 * KIB, 64 * KIB);
    world.blocked_window(500);
    world.faults.set(REMOVE, Errno::EIO);
    world.pass(100.0);
    world.disk_rests();
    world.launch();
    world.answer(Answer::status(202), true);
    world.disk_rests();
    assert_eq!((world.dispatch.spool.bytes(), world.files().len(), world.dispatch.is_empty()), (4 * KIB, 1, true));
    world.faults.heal();
    world.pass(1.1);
    world.disk_rests();
    assert_eq!((world.dispatch.spool.bytes(), world.files().len()), (0, 0));
}

#[test]
fn a_file_that_cannot_be_read_does_not_hold_up_the_others() {
    let mut world = World::new(4 * KIB, 64 * KIB);
    world.blocked_window(500);
    world.faults.set(READ, Errno::EIO);
    for _ in 0..2 {
        world.pass(100.0);
        world.disk_rests();
    }
    assert_eq!(world.lost("corrupt"), 0, "a disk may become well again");
    world.pass(100.0);
    world.disk_rests();
    world.check();
    assert_eq!(world.lost("corrupt"), 1);
    world.faults.heal();
    world.window(Endpoint::Series, false, 10);
    world.heal();
    assert_eq!(world.received, BTreeSet::from([2]));
}

#[test]
fn caps_hold_and_what_goes_overboard_is_counted_to_the_point() {
    let mut world = World::new(1 << 20, 1 << 20);
    world.dispatch.settings.policy.max_age = Duration::MAX;
    let alarm = world.window(Endpoint::Events, true, 300);
    let mut flushed = 0;
    for _ in 0..600 {
        world.pass(10.0);
        flushed += world.blocked_window(8_000);
        assert!(world.dispatch.spool.bytes() <= 1 << 20 && world.blocks() <= 1 << 20, "{}", world.blocks());
    }
    let urgent_waits = world.dispatch.queue.iter().any(|item| item.payload.points == alarm);
    assert!(urgent_waits || world.received.contains(&alarm), "no alarm is dropped while a series waits");
    world.heal();
    let delivered: u64 = world.received.iter().filter(|n| **n != alarm).sum();
    assert_eq!(world.dropped().into_keys().collect::<Vec<_>>(), ["queue_full"]);
    assert_eq!(world.lost("queue_full"), flushed - delivered);
    assert!(world.received.contains(&alarm) && world.received.len() > 80, "{}", world.received.len());
}

#[test]
fn points_that_became_too_old_on_disk_are_dropped_unsent_and_their_files_go() {
    let mut world = World::new(4 * KIB, 64 * KIB);
    for _ in 0..3 {
        world.blocked_window(500);
    }
    world.pass(3_301.0);
    world.dispatch.expire(world.now);
    world.check();
    world.heal();
    assert_eq!((world.lost("too_old"), world.received.len(), world.files().len()), (6, 0, 0));
}

#[test]
fn history_lifts_the_age_of_series_on_disk() {
    let mut world = World::new(4 * KIB, 64 * KIB);
    world.dispatch.settings.historical = true;
    world.blocked_window(500);
    world.pass(90_000.0);
    world.dispatch.expire(world.now);
    world.heal();
    assert_eq!(world.received, BTreeSet::from([1]));
}

#[test]
fn sketches_that_may_have_arrived_before_a_kill_are_told() {
    let mut world = World::new(4 * KIB, 64 * KIB);
    world.window(Endpoint::Sketches, false, 100);
    world.pass(2.0);
    world.launch();
    world.disk_rests();
    assert_eq!(world.files().len(), 1, "an answer that hangs is no reason to lose it");
    world.kill();
    assert!(world.dispatch.queue.iter().all(|item| item.again));
    world.heal();
    assert_eq!((world.received.len(), world.files().len()), (1, 0));
}

#[test]
fn what_is_too_large_stays_on_disk_until_both_halves_are_settled() {
    for killed in [false, true] {
        let mut world = World::new(200, 64 * KIB);
        world.cuttable(Endpoint::Sketches, 400, 4);
        world.launch();
        world.answer(Answer::status(503), false);
        world.disk_rests();
        world.pass(100.0);
        world.disk_rests();
        world.faults.set(CREATE, Errno::ENOSPC);
        world.launch();
        world.answer(Answer::status(413), false);
        world.launch();
        world.answer(Answer::status(202), true);
        world.blocked_window(150);
        assert_eq!((world.files().len(), world.dropped().len()), (1, 0), "the half that is left is there");
        world.faults.heal();
        if killed {
            world.kill();
        }
        world.heal();
        assert_eq!((world.received.len(), world.dropped().len(), world.files().len()), (5 - killed as usize, 0, 0));
    }
}

#[test]
fn a_part_of_a_part_is_what_was_cut_off_when_it_is_read_again() {
    let mut world = World::new(4 * KIB, 64 * KIB);
    world.cuttable(Endpoint::Series, 400, 9);
    world.launch();
    world.answer(Answer::status(503), false);
    world.disk_rests();
    for code in [413, 503, 413, 503, 202, 503, 413] {
        world.pass(100.0);
        world.disk_rests();
        world.launch();
        world.answer(Answer::status(code), false);
        world.disk_rests();
        world.check();
        assert_eq!(world.files().len(), 1, "nothing is written for it");
    }
    world.heal();
    assert_eq!((world.received.len(), world.dropped().len(), world.files().len()), (9, 0, 0));
}

#[test]
fn an_endpoint_that_is_blocked_holds_up_no_other() {
    let mut world = World::new(64 * KIB, 640 * KIB);
    for _ in 0..4 {
        world.window(Endpoint::Sketches, false, 500);
        world.window(Endpoint::Series, false, 500);
        world.launch();
        world.launch();
        world.answer(Answer::status(503), false);
        world.answer(Answer::status(503), false);
        world.disk_rests();
    }
    world.pass(100.0);
    world.disk_rests();
    let now = world.now.tick;
    world.dispatch.breakers[Endpoint::Sketches as usize].failure(now, Duration::from_secs(300));
    for _ in 0..4 {
        world.disk_rests();
        world.launch();
        world.answer(Answer::status(202), true);
        world.check();
    }
    assert_eq!(world.received, BTreeSet::from([2, 4, 6, 8]), "all series are out");
    world.disk_rests();
    assert_eq!(world.dispatch.memory(), 0, "what cannot go takes no memory");
}

#[test]
fn a_sketch_is_not_sent_while_its_file_says_that_it_never_was() {
    let mut world = World::new(4 * KIB, 64 * KIB);
    world.blocked_window(10);
    world.window(Endpoint::Sketches, false, 100);
    world.pass(2.0);
    world.disk_begins();
    world.dispatch.key_changed();
    world.launch();
    world.answer(Answer::Timeout, true);
    world.kill();
    world.heal();
    assert!(world.received.contains(&2));
}

#[test]
fn a_disk_that_hangs_holds_up_no_sketch_and_is_told() {
    let mut world = World::new(4 * KIB, 64 * KIB);
    world.window(Endpoint::Sketches, false, 100);
    world.pass(2.0);
    world.disk_begins();
    world.launch();
    assert_eq!(world.dispatch.under_way.points, 0);
    world.pass(5.0);
    assert_eq!(world.dispatch.publish(world.now).degraded.len(), 0, "not yet");
    world.dispatch.expire(world.now);
    world.launch();
    world.answer(Answer::status(202), true);
    world.pass(5.0);
    assert_eq!(world.dispatch.spool.state(world.now.tick), "failing");
    let degraded = world.dispatch.publish(world.now).degraded;
    assert!(degraded.iter().any(|it| it.what == "disk spool" && it.why.contains("10 s")), "{degraded:?}");
    world.disk_ends();
    assert_eq!(world.dispatch.spool.state(world.now.tick), "disk");
    world.heal();
    assert_eq!((world.received.len(), world.files().len()), (1, 0));
}

#[test]
fn a_folder_whose_opening_hangs_is_told() {
    let dispatch = Dispatch::new(super::model::settings(4 * KIB, 64 * KIB));
    let at = |seconds| Now { tick: Instant::now() + Duration::from_secs(seconds), wall: 0.0 };
    assert_eq!((dispatch.spool.state(at(5).tick), dispatch.publish(at(5)).degraded.len()), ("disk", 0));
    assert_eq!((dispatch.spool.state(at(11).tick), dispatch.publish(at(11)).degraded.len()), ("failing", 1));
}

#[test]
fn a_silence_is_not_forgotten_for_a_refusal_that_came_later() {
    let mut world = World::new(4 * KIB, 64 * KIB);
    world.window(Endpoint::Sketches, false, 100);
    world.launch();
    world.answer(Answer::Timeout, true);
    world.pass(100.0);
    world.launch();
    world.answer(Answer::status(503), false);
    world.disk_rests();
    world.kill();
    assert!(world.dispatch.queue.iter().all(|item| item.again));
    world.heal();
}

/// xorshift64*
fn random(state: &mut u64, below: u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16) % below
}

/// One change to a file; false when it left it as it was.
fn mutate(file: &Path, outside: &Path, state: &mut u64) -> bool {
    let mut bytes = fs::read(file).unwrap();
    let at = random(state, bytes.len() as u64) as usize;
    match random(state, 6) {
        0 => bytes.truncate(at),
        1 => bytes[at] ^= 1_u8 << random(state, 8),
        2 => bytes.fill(0),
        3 => {
            fs::remove_file(file).unwrap();
            symlink(outside, file).unwrap();
            return true;
        }
        4 => {
            fs::remove_file(file).unwrap();
            fs::create_dir(file).unwrap();
            return true;
        }
        _ => return false,
    }
    fs::write(file, bytes).unwrap();
    true
}

#[test]
fn a_thousand_mutations_cost_what_was_changed_and_no_more() {
    let mut world = World::new(64 * KIB, 64 << 20);
    for _ in 0..1_000 {
        world.blocked_window(200);
    }
    let outside = tempfile::NamedTempFile::new().unwrap();
    fs::write(&outside, "not ours").unwrap();
    let (mut state, mut intact, mut changed) = (0x5EED_u64, BTreeSet::new(), 0);
    for file in world.files() {
        let n = u64::from_le_bytes(fs::read(&file).unwrap()[16..24].try_into().unwrap());
        if mutate(&file, outside.path(), &mut state) {
            changed += 1;
        } else {
            intact.insert(n);
        }
    }
    for n in 0..10_000_u64 {
        fs::write(world.dir.path().join(format!("junk-{n}.payload")), b"junk").unwrap();
    }
    fs::write(world.dir.path().join(record::name(77_777, Kind::Waiting)), [0; HEAD]).unwrap();
    fs::write(world.dir.path().join(record::name(77_778, Kind::Unfinished)), b"torn").unwrap();
    world.pass(1.0);
    world.is_meddled = true;
    let began = Instant::now();
    world.kill();
    let took = began.elapsed();
    // A payload whose body alone was changed is found out when its turn comes.
    world.heal();
    assert_eq!((world.received.clone(), world.dispatch.ledger.corrupt_files()), (intact, changed + 1));
    assert_eq!(fs::read(&outside).unwrap(), b"not ours");
    assert!(took < Duration::from_secs(5), "a start among ten thousand files took {took:?}");
}
