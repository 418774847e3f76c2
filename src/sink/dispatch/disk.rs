//! What the dispatch wants of the disk, and what becomes of items when a job is done.
//!
//! On disk is whatever cannot be sent at once: payloads of an endpoint that fails, payloads that were not taken within a
//! second, and everything that is left when the end comes. An item on disk lets go of its body until its turn comes.

use std::time::Duration;

use tracing::{info, warn};

use super::{Dispatch, Now};
use crate::datadog::Endpoint;
use crate::sink::queue::{Item, Place, points};
use crate::sink::spool::disk::{Done, Found, Job, Load, Loaded, Write};
use crate::sink::spool::{Full, Room};

/// Older than this an item is written even though its endpoint has not failed: the answer hangs.
const AGE: Duration = Duration::from_secs(1);
/// The same once the end has come.
const LAST_AGE: Duration = Duration::from_millis(200);
/// Files written by one job, and their bytes.
const WRITES: usize = 64;
const WRITE_BYTES: u64 = 4 << 20;
/// Bodies read ahead of their sending.
const AHEAD: usize = 2;
/// A file that cannot be read so many times is given up: it must not hold up the others for ever.
const MISREADS: u8 = 3;

impl Dispatch {
    /// What an earlier process left, or why the folder cannot be used.
    pub fn opened(&mut self, opened: Result<Found, String>, now: Now) {
        let found = match opened {
            Ok(found) => found,
            Err(why) => {
                warn!("the spool is off and what waits is kept in memory: cannot use spool.dir: {why}");
                self.spool.disable(why);
                return;
            }
        };
        self.spool.opened(found.next_file);
        self.queue.extend_room(self.settings.max_size);
        self.ledger.restore(found.corrupt_points);
        self.corrupt(found.corrupt_files, found.corrupt_points, now);
        let items: Vec<Item> =
            found.records.into_iter().map(|it| self.restored(it.file, it.tried, it.head, now)).collect();
        let restored: u64 = items.iter().map(points).sum();
        if !items.is_empty() {
            info!(payloads = items.len(), points = restored, "the spool holds what an earlier run could not send");
        }
        self.ledger.restore(restored);
        self.queue.restore(items);
        while self.spool.is_over_size() && self.evict(u64::MAX, true, now) {}
    }

    fn restored(&mut self, file: u64, tried: bool, head: crate::sink::spool::record::Head, now: Now) -> Item {
        self.sequence = self.sequence.max(head.sequence);
        self.spool.add(file, u64::from(head.length));
        let item = Item::new(self.next_id(), head.payload(bytes::Bytes::new()), head.sequence, now.tick);
        let (length, place) = (u64::from(head.length), Place::Disk(file));
        Item { length, place, again: tried, doubtful: tried, ..item }
    }

    fn corrupt(&mut self, files: u64, points: u64, now: Now) {
        self.ledger.corrupt(files);
        if points > 0 {
            self.lose("corrupt", points, now);
        }
        if let Some(sum) = self.complaints.add("corrupt_files", files, now.tick).filter(|_| files > 0) {
            warn!(files = sum, "skipped {sum} files of spool.dir that are not what was written");
        }
    }

    /// The next work for the disk, when it is idle and there is some.
    pub fn job(&mut self, now: Now) -> Option<Job> {
        if !self.spool.is_idle() {
            return None;
        }
        let mut job = Job { stamp: self.spool.stamp.filter(|_| self.spool.takes_writes(now.tick)), ..Job::default() };
        if self.spool.takes_writes(now.tick) {
            self.plan_writes(&mut job, now);
        }
        // After the writes, which may have given up something to make room.
        job.remove = self.spool.removals(now.tick);
        if self.spool.takes_reads(now.tick) {
            self.plan_loads(&mut job, now);
        }
        if job.is_empty() {
            return None;
        }
        self.spool.begin(now.tick);
        Some(job)
    }

    fn plan_writes(&mut self, job: &mut Job, now: Now) {
        let mut bytes = 0;
        for (id, length) in self.unwritten(now) {
            if job.write.len() == WRITES || bytes + length > WRITE_BYTES.max(length) {
                return;
            }
            match self.make_room(id, length, now) {
                Made::Room => {
                    let file = self.spool.assign(length);
                    job.write.extend(self.begin_write(id, file));
                    bytes += length;
                }
                Made::Soon => return,
                Made::GaveUp => {}
            }
        }
    }

    /// Oldest first. Nothing is left to do for a healthy disk when there is none: then its last fault is over.
    fn unwritten(&mut self, now: Now) -> Vec<(u64, u64)> {
        let over = self.memory() > self.settings.max_memory;
        let key = self.key.is_failing();
        let age = if self.draining { LAST_AGE } else { AGE };
        let wanted = |item: &&Item| {
            let failing = key || self.breakers[item.payload.endpoint as usize].is_failing();
            let old = now.tick.saturating_duration_since(item.since) >= age;
            item.place == Place::Memory && (failing || old || over)
        };
        let waiting = self.queue.iter().chain(self.under_way.items.values()).filter(wanted);
        let ids: Vec<(u64, u64)> = waiting.map(|item| (item.id, item.length)).collect();
        if ids.is_empty() && !self.spool.has_removals() {
            self.spool.set_fault(None);
        }
        ids
    }

    fn begin_write(&mut self, id: u64, file: u64) -> Option<Write> {
        let mut write = None;
        let under_way = self.under_way.items.contains_key(&id);
        self.change(id, |item| {
            item.place = Place::Writing(file);
            let (sequence, tried, payload) = (item.sequence, item.doubtful || under_way, item.payload.clone());
            write = Some(Write { file, sequence, tried, payload });
        });
        write
    }

    /// Room on disk for an item: what is older and not urgent goes for it, or else it goes itself.
    fn make_room(&mut self, id: u64, length: u64, now: Now) -> Made {
        let Some((sequence, urgent)) = self
            .queue
            .iter()
            .chain(self.under_way.items.values())
            .find(|item| item.id == id)
            .map(|item| (item.sequence, item.payload.urgent))
        else {
            return Made::GaveUp;
        };
        loop {
            match self.spool.room_for(length) {
                Room::Now => return Made::Room,
                Room::Soon => return Made::Soon,
                Room::None if self.evict(sequence, urgent, now) => {}
                Room::None => break,
            }
        }
        for item in self.queue.remove(|item| item.id == id) {
            self.give_up(&item, "queue_full", now);
        }
        Made::GaveUp
    }

    fn evict(&mut self, sequence: u64, for_urgent: bool, now: Now) -> bool {
        let gone = self.queue.evict(sequence, for_urgent);
        if let Some(item) = &gone {
            self.give_up(item, "queue_full", now);
        }
        gone.is_some()
    }

    /// Reads ahead what may be sent next and is not in memory.
    fn plan_loads(&mut self, job: &mut Job, now: Now) {
        let (key, breakers) = (&self.key, &self.breakers);
        let may_send = |endpoint: Endpoint| key.may_send(now.tick) && breakers[endpoint as usize].may_send(now.tick);
        // What was read and cannot go after all must not stand in the way of what can.
        self.queue.let_go(may_send);
        let ready = self.queue.iter().filter(|item| item.file().is_some() && item.is_loaded()).count();
        // One that is larger than all of memory waits until there is nothing else in it.
        let mut room = self.settings.max_memory.saturating_sub(self.memory());
        if self.memory() == 0 {
            room = u64::MAX;
        }
        for _ in ready..AHEAD {
            let Some(item) = self.queue.load(room, may_send) else { return };
            let Some(file) = item.file() else { return };
            room = room.min(self.settings.max_memory).saturating_sub(item.length);
            // A series overwrites itself, so that nobody need know whether it was sent before.
            let (id, part, mark) = (item.id, item.part, item.payload.endpoint == Endpoint::Sketches);
            job.load.push(Load { id, file, part, mark });
        }
    }

    pub(super) fn memory(&self) -> u64 {
        self.queue.memory() + self.under_way.bytes
    }

    /// What came of a job.
    pub fn job_done(&mut self, done: Done, now: Now) {
        self.spool.end();
        done.removed.iter().for_each(|file| self.spool.removed(*file));
        if !done.stuck.is_empty() {
            self.spool.removing_failed(now.tick);
        }
        if done.stamped.is_some() && done.stamped == self.spool.stamp {
            self.spool.stamp = None;
        }
        if self.spool.stamp.is_some() && done.fault.is_some() {
            self.spool.writing_failed(now.tick);
        }
        self.settle_writes(&done, now);
        for (id, loaded) in done.loaded {
            self.settle_load(id, loaded, now);
        }
        if let Some(fault) = &done.fault
            && self.complaints.add("disk", 1, now.tick).is_some()
        {
            warn!("the disk of the spool fails, and what waits is kept in memory meanwhile: {fault}");
        }
        if done.fault.is_some() || !done.written.is_empty() {
            self.spool.set_fault(done.fault);
        }
        self.bound_memory(now);
    }

    fn settle_writes(&mut self, done: &Done, now: Now) {
        for file in &done.written {
            if !self.relocate(*file, Place::Disk(*file)) {
                // Taken or given up meanwhile.
                self.spool.remove(*file);
            }
        }
        for failed in &done.unwritten {
            self.relocate(failed.file, Place::Memory);
            if failed.left {
                self.spool.remove(failed.file);
            } else {
                self.spool.removed(failed.file);
            }
            self.spool.writing_failed(now.tick);
        }
    }

    /// Whoever was being written to this file is now there. False when there is nobody.
    fn relocate(&mut self, file: u64, to: Place) -> bool {
        let written = Place::Writing(file);
        let mut known = self.queue.relocate(to, |item| item.place == written);
        for item in self.under_way.items.values_mut().filter(|item| item.place == written) {
            item.relocate(to);
            known = true;
        }
        known
    }

    fn settle_load(&mut self, id: u64, loaded: Loaded, now: Now) {
        let mut is_lost = false;
        if loaded == Loaded::Failed {
            self.spool.reading_failed(now.tick);
        }
        self.queue.change(id, |item| {
            item.loading = false;
            match loaded {
                Loaded::Body(body) if body.len() as u64 == item.length => item.payload.body = body,
                Loaded::Body(_) | Loaded::Corrupt => is_lost = true,
                Loaded::Failed => {
                    item.misreads += 1;
                    is_lost = item.misreads >= MISREADS;
                }
            }
        });
        if is_lost {
            for item in self.queue.remove(|item| item.id == id) {
                self.ledger.corrupt(1);
                self.give_up(&item, "corrupt", now);
            }
        }
    }

    /// The work on the disk broke off by a defect of ours: what is there stays there for the next start.
    pub fn lost_the_disk(&mut self) {
        self.spool.end();
        self.spool.disable("the work on it broke off by a defect of oomwatch".to_owned());
    }

    /// Drops what has no room in memory and will not be written.
    pub(super) fn bound_memory(&mut self, now: Now) {
        let to_be_written = self.spool.takes_writes(now.tick);
        for gone in self.queue.shrink(self.under_way.bytes, to_be_written) {
            match self.spool.reason_when_full() {
                Full::Queue => self.give_up(&gone, "queue_full", now),
                Full::Disk => self.give_up(&gone, "disk_full", now),
            }
        }
    }

    /// False while so much waits to be written that the next window should wait where it is.
    pub fn has_room(&self, now: Now) -> bool {
        self.queue.memory() <= self.settings.max_memory || !self.spool.takes_writes(now.tick)
    }

    /// All that is left is on disk, and nothing of it may be sent before `until`.
    pub fn may_leave(&self, until: tokio::time::Instant, now: Now) -> bool {
        let kept = self.under_way.items.is_empty() && self.queue.iter().all(|item| item.file().is_some());
        let quiet = now.tick >= until || self.wakes_at(now).is_none_or(|at| at > until);
        let may_send = |item: &Item| {
            self.key.may_send(now.tick) && self.breakers[item.payload.endpoint as usize].may_send(now.tick)
        };
        self.spool.is_idle() && kept && quiet && !self.queue.iter().any(may_send)
    }
}

enum Made {
    Room,
    /// Once the removals are done.
    Soon,
    GaveUp,
}
