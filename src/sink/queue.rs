//! Payloads that wait to be sent, in memory or on disk. Urgent ones go first, then the newest; the oldest go overboard.
//!
//! Points go before events and checks, and those may fill only a part of the room: an app that sends an event for each request
//! must not silence its own metrics. Newest first, because after an outage a live point is worth more than an old one, and every
//! point is worth nothing after an hour. Bodies in memory are bounded here; who bounds the disk is the dispatch.

use std::collections::VecDeque;

use tokio::time::Instant;

use crate::datadog::{Endpoint, Payload};

/// Where an item is, while it waits or is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Memory,
    /// In memory, and being written to this file.
    Writing(u64),
    /// In this file; its body is in memory only while it is about to be sent.
    Disk(u64),
}

/// A payload with its place in the line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item {
    /// Of this item alone, for as long as the process lives.
    pub id: u64,
    /// Its body is empty while it is on disk only.
    pub payload: Payload,
    /// Bytes of its body, wherever that is.
    pub length: u64,
    /// Grows with each payload that comes in; halves keep the number of the whole.
    pub sequence: u64,
    pub since: Instant,
    /// It has been sent at least once.
    pub tried: bool,
    /// A try of it ended without a word on whether it was taken; once so, for ever so.
    pub doubtful: bool,
    /// The process before us may have delivered it.
    pub again: bool,
    pub place: Place,
    /// Which part of its file it is: 1 is all of it, and cutting `n` in two gives `2n` and `2n + 1`.
    pub part: u64,
    /// Its body is being read.
    pub loading: bool,
    pub misreads: u8,
}

impl Item {
    pub fn new(id: u64, payload: Payload, sequence: u64, since: Instant) -> Item {
        let length = payload.body.len() as u64;
        let place = Place::Memory;
        Item {
            id,
            payload,
            length,
            sequence,
            since,
            tried: false,
            doubtful: false,
            again: false,
            place,
            part: 1,
            loading: false,
            misreads: 0,
        }
    }

    /// Urgent and never tried: goes out even where the endpoint is blocked.
    pub fn is_pressing(&self) -> bool {
        self.payload.urgent && !self.tried
    }

    pub fn is_loaded(&self) -> bool {
        self.payload.body.len() as u64 == self.length
    }

    pub fn file(&self) -> Option<u64> {
        if let Place::Disk(file) = self.place { Some(file) } else { None }
    }

    pub fn relocate(&mut self, to: Place) {
        self.place = to;
        match to {
            Place::Memory => self.part = 1,
            Place::Writing(_) => {}
            Place::Disk(_) => self.payload.body.clear(),
        }
    }

    /// Being written to a file that does not say that it may have been taken, although sent twice it would count twice.
    pub fn is_unmarked(&self) -> bool {
        matches!(self.place, Place::Writing(_)) && self.payload.endpoint == Endpoint::Sketches && !self.doubtful
    }

    fn in_memory(&self) -> u64 {
        self.payload.body.len() as u64
    }
}

/// Events and checks of the app hold at most this part of the room.
const OTHERS: u64 = 4;

/// Holds at most `max_memory` of bodies in memory, with those under way, which the caller tells; more only while the caller
/// says that they are about to be written.
#[derive(Debug)]
pub(super) struct Queue {
    /// In order of `sequence`.
    urgent: VecDeque<Item>,
    /// In order of `sequence`.
    backlog: VecDeque<Item>,
    /// Bodies in memory.
    memory: u64,
    /// All bodies.
    bytes: u64,
    /// Of `bytes`, what events and checks of the backlog take.
    others: u64,
    points: u64,
    max_memory: u64,
    /// Memory and disk together.
    room: u64,
}

impl Queue {
    pub fn new(max_memory: u64) -> Queue {
        Queue {
            urgent: VecDeque::new(),
            backlog: VecDeque::new(),
            memory: 0,
            bytes: 0,
            others: 0,
            points: 0,
            max_memory,
            room: max_memory,
        }
    }

    /// There is a disk of so many bytes as well.
    pub fn extend_room(&mut self, bytes: u64) {
        self.room = self.max_memory.saturating_add(bytes);
    }

    /// Bytes of all bodies.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of the bodies in memory.
    pub fn memory(&self) -> u64 {
        self.memory
    }

    /// Points of series and sketches; events and checks are not counted here.
    pub fn points(&self) -> u64 {
        self.points
    }

    pub fn is_empty(&self) -> bool {
        self.urgent.is_empty() && self.backlog.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Item> {
        self.urgent.iter().chain(&self.backlog)
    }

    /// Takes an item in at its place and returns the events and checks that had to go because they fill their part.
    pub fn push(&mut self, item: Item) -> Vec<Item> {
        self.add(&item);
        let line = if item.payload.urgent { &mut self.urgent } else { &mut self.backlog };
        let place = line.partition_point(|other| (other.sequence, other.id) <= (item.sequence, item.id));
        line.insert(place, item);
        let mut gone = Vec::new();
        while self.others > self.room / OTHERS {
            let oldest = self.backlog.iter().position(|item| others(item) > 0 && !item.loading);
            match oldest.and_then(|at| self.backlog.remove(at)) {
                Some(item) => gone.push(self.out(item)),
                None => break,
            }
        }
        gone
    }

    /// Takes in all that an earlier process left.
    pub fn restore(&mut self, items: Vec<Item>) {
        for item in items {
            self.add(&item);
            let line = if item.payload.urgent { &mut self.urgent } else { &mut self.backlog };
            line.push_back(item);
        }
        for line in [&mut self.urgent, &mut self.backlog] {
            line.make_contiguous().sort_by_key(|item| (item.sequence, item.id));
        }
    }

    /// Brings memory under its bound, unless what is in it is about to be written: first what is on disk as well lets go of
    /// its body, then the oldest go and are returned. `under_way` are bytes on their way out.
    pub fn shrink(&mut self, under_way: u64, to_be_written: bool) -> Vec<Item> {
        let mut gone = Vec::new();
        if to_be_written {
            return gone;
        }
        let mut at = 0;
        while self.memory + under_way > self.max_memory && at < self.backlog.len() {
            let item = &mut self.backlog[at];
            // One alone may be larger than the bound, and must go out all the same.
            if item.file().is_some() && item.in_memory() < self.memory + under_way {
                self.memory -= item.in_memory();
                item.payload.body.clear();
            }
            at += 1;
        }
        while self.memory + under_way > self.max_memory {
            let in_memory = |item: &Item| item.file().is_none();
            let oldest = self.backlog.iter().position(in_memory).and_then(|at| self.backlog.remove(at));
            let oldest = oldest.or_else(|| {
                let at = self.urgent.iter().position(in_memory)?;
                self.urgent.remove(at)
            });
            match oldest {
                Some(item) => gone.push(self.out(item)),
                None => break,
            }
        }
        gone
    }

    /// Removes the oldest on disk that was there before `sequence` and is not urgent; for an urgent one that needs the room,
    /// any that is not, or an older urgent one.
    pub fn evict(&mut self, sequence: u64, for_urgent: bool) -> Option<Item> {
        let on_disk = |item: &Item| item.file().is_some() && !item.loading;
        let plain = self.backlog.iter().position(|item| on_disk(item) && (for_urgent || item.sequence < sequence));
        if let Some(item) = plain.and_then(|at| self.backlog.remove(at)) {
            return Some(self.out(item));
        }
        let urgent = self.urgent.iter().position(|item| for_urgent && on_disk(item) && item.sequence < sequence)?;
        let item = self.urgent.remove(urgent)?;
        Some(self.out(item))
    }

    /// The next item in memory that may go: an urgent one, else the newest points, else the newest of the rest, of endpoints
    /// that are open.
    pub fn take(&mut self, pressing_only: bool, may_send: impl Fn(Endpoint) -> bool) -> Option<Item> {
        let loaded = |item: &Item| item.is_loaded() && !item.is_unmarked();
        let item = match self.place_of_next(pressing_only, &may_send, loaded)? {
            (true, at) => self.urgent.remove(at),
            (false, at) => self.backlog.remove(at),
        }?;
        Some(self.out(item))
    }

    /// The next item that may go, whose body has to be read first and has room; it is marked as being read.
    pub fn load(&mut self, room: u64, may_send: impl Fn(Endpoint) -> bool) -> Option<&Item> {
        let on_disk = |item: &Item| !item.is_loaded() && !item.loading && item.length <= room;
        let item = match self.place_of_next(false, &may_send, on_disk)? {
            (true, at) => &mut self.urgent[at],
            (false, at) => &mut self.backlog[at],
        };
        item.loading = true;
        Some(item)
    }

    /// Whether it is an urgent one, and where in its line.
    fn place_of_next(
        &self,
        pressing_only: bool,
        may_send: &impl Fn(Endpoint) -> bool,
        fit: impl Fn(&Item) -> bool,
    ) -> Option<(bool, usize)> {
        let open = |item: &Item| fit(item) && may_send(item.payload.endpoint);
        let pressing = |item: &Item| fit(item) && item.is_pressing();
        if let Some(at) = self.urgent.iter().position(|item| pressing(item) || (!pressing_only && open(item))) {
            return Some((true, at));
        }
        if pressing_only {
            return None;
        }
        let points = |item: &Item| item.payload.endpoint.carries_points() && open(item);
        let newest = self.backlog.iter().rposition(points).or_else(|| self.backlog.iter().rposition(open))?;
        Some((false, newest))
    }

    /// What is on disk lets go of its body, unless it may be sent.
    pub fn let_go(&mut self, may_send: impl Fn(Endpoint) -> bool) {
        for item in self.urgent.iter_mut().chain(&mut self.backlog) {
            if item.file().is_some() && !item.is_pressing() && !may_send(item.payload.endpoint) {
                self.memory -= item.in_memory();
                item.payload.body.clear();
            }
        }
    }

    /// Moves everything for which `moves` is true; a body on disk need not be in memory. Whether there was any.
    pub fn relocate(&mut self, to: Place, moves: impl Fn(&Item) -> bool) -> bool {
        let mut moved = false;
        for item in self.urgent.iter_mut().chain(&mut self.backlog).filter(|item| moves(item)) {
            self.memory -= item.in_memory();
            item.relocate(to);
            self.memory += item.in_memory();
            moved = true;
        }
        moved
    }

    /// Changes a waiting item; its body and its place may be other ones afterwards.
    pub fn change(&mut self, id: u64, change: impl FnOnce(&mut Item)) -> bool {
        let Some(item) = self.urgent.iter_mut().chain(&mut self.backlog).find(|item| item.id == id) else {
            return false;
        };
        self.memory -= item.in_memory();
        change(item);
        self.memory += item.in_memory();
        true
    }

    /// Removes and returns everything for which `gone` is true.
    pub fn remove(&mut self, gone: impl Fn(&Item) -> bool) -> Vec<Item> {
        let mut removed = Vec::new();
        for line in [&mut self.urgent, &mut self.backlog] {
            if line.iter().any(&gone) {
                let (out, kept): (VecDeque<Item>, VecDeque<Item>) = line.drain(..).partition(&gone);
                *line = kept;
                removed.extend(out);
            }
        }
        removed.into_iter().map(|item| self.out(item)).collect()
    }

    fn add(&mut self, item: &Item) {
        self.memory += item.in_memory();
        self.bytes += item.length;
        self.others += others(item);
        self.points += points(item);
    }

    fn out(&mut self, item: Item) -> Item {
        self.memory -= item.in_memory();
        self.bytes -= item.length;
        self.others -= others(&item);
        self.points -= points(&item);
        item
    }
}

pub(super) fn points(item: &Item) -> u64 {
    if item.payload.endpoint.carries_points() { item.payload.points } else { 0 }
}

fn others(item: &Item) -> u64 {
    let other = !item.payload.urgent && !item.payload.endpoint.carries_points();
    if other { item.length } else { 0 }
}

#[cfg(test)]
mod tests;
