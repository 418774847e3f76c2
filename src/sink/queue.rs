//! Payloads that wait to be sent, bounded in bytes. Urgent ones go first, then the newest; the oldest go overboard.
//!
//! Points go before events and checks, and those may fill only a part of the room: an app that sends an event for each request
//! must not silence its own metrics. Newest first, because after an outage a live point is worth more than an old one, and every point is worth nothing after
//! an hour.

use std::collections::VecDeque;

use crate::datadog::{Endpoint, Payload};

/// A payload with its place in the line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item {
    pub payload: Payload,
    /// Grows with each payload that comes in; halves keep the number of the whole.
    pub sequence: u64,
    /// It has been sent at least once.
    pub tried: bool,
}

impl Item {
    /// Urgent and never tried: goes out even where the endpoint is blocked.
    pub fn is_pressing(&self) -> bool {
        self.payload.urgent && !self.tried
    }
}

/// Events and checks of the app hold at most this part of the room.
const OTHERS: u64 = 4;

/// Holds at most `max_bytes` of bodies, with those under way, which the caller tells.
#[derive(Debug)]
pub(super) struct Queue {
    /// In order of `sequence`.
    urgent: VecDeque<Item>,
    /// In order of `sequence`.
    backlog: VecDeque<Item>,
    bytes: u64,
    /// Of `bytes`, what events and checks of the backlog take.
    others: u64,
    points: u64,
    max_bytes: u64,
}

impl Queue {
    pub fn new(max_bytes: u64) -> Queue {
        Queue { urgent: VecDeque::new(), backlog: VecDeque::new(), bytes: 0, others: 0, points: 0, max_bytes }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Points of series and sketches; events and checks are not counted here.
    pub fn points(&self) -> u64 {
        self.points
    }

    pub fn is_empty(&self) -> bool {
        self.urgent.is_empty() && self.backlog.is_empty()
    }

    /// Takes an item in at its place and returns what had to go for it. `under_way` are bytes on their way out.
    pub fn push(&mut self, item: Item, under_way: u64) -> Vec<Item> {
        self.bytes += item.payload.body.len() as u64;
        self.others += others(&item);
        self.points += points(&item);
        let line = if item.payload.urgent { &mut self.urgent } else { &mut self.backlog };
        let place = line.partition_point(|other| other.sequence <= item.sequence);
        line.insert(place, item);
        let mut gone = Vec::new();
        while self.others > self.max_bytes / OTHERS {
            let oldest = self.backlog.iter().position(|item| others(item) > 0).and_then(|at| self.backlog.remove(at));
            match oldest {
                Some(item) => gone.push(self.out(item)),
                None => break,
            }
        }
        while self.bytes + under_way > self.max_bytes {
            match self.backlog.pop_front().or_else(|| self.urgent.pop_front()) {
                Some(item) => gone.push(self.out(item)),
                None => break,
            }
        }
        gone
    }

    /// The next item that may go: an urgent one, else the newest points, else the newest of the rest, of endpoints that are open.
    pub fn take(&mut self, pressing_only: bool, may_send: impl Fn(Endpoint) -> bool) -> Option<Item> {
        let open = |item: &Item| may_send(item.payload.endpoint);
        let urgent = self.urgent.iter().position(|item| item.is_pressing() || (!pressing_only && open(item)));
        if let Some(item) = urgent.and_then(|place| self.urgent.remove(place)) {
            return Some(self.out(item));
        }
        if pressing_only {
            return None;
        }
        let points = |item: &Item| item.payload.endpoint.carries_points() && open(item);
        let newest = self.backlog.iter().rposition(points).or_else(|| self.backlog.iter().rposition(open))?;
        let item = self.backlog.remove(newest)?;
        Some(self.out(item))
    }

    /// Removes and returns everything for which `gone` is true.
    pub fn remove(&mut self, gone: impl Fn(&Payload) -> bool) -> Vec<Item> {
        let mut removed = Vec::new();
        for line in [&mut self.urgent, &mut self.backlog] {
            let (out, kept): (VecDeque<Item>, VecDeque<Item>) = line.drain(..).partition(|item| gone(&item.payload));
            *line = kept;
            removed.extend(out);
        }
        removed.into_iter().map(|item| self.out(item)).collect()
    }

    fn out(&mut self, item: Item) -> Item {
        self.bytes -= item.payload.body.len() as u64;
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
    if other { item.payload.body.len() as u64 } else { 0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn item(sequence: u64, bytes: usize, urgent: bool, endpoint: Endpoint) -> Item {
        let payload = Payload { endpoint, body: vec![0; bytes].into(), points: 2, created_at: 0, urgent };
        Item { payload, sequence, tried: false }
    }

    fn series(sequence: u64) -> Item {
        item(sequence, 10, false, Endpoint::Series)
    }

    fn sequences(items: &[Item]) -> Vec<u64> {
        items.iter().map(|item| item.sequence).collect()
    }

    #[test]
    fn urgent_goes_first_then_the_newest() {
        let mut queue = Queue::new(1_000);
        for sequence in 0..3 {
            queue.push(series(sequence), 0);
        }
        queue.push(item(3, 10, true, Endpoint::Events), 0);
        queue.push(series(4), 0);
        let order: Vec<u64> = std::iter::from_fn(|| queue.take(false, |_| true)).map(|item| item.sequence).collect();
        assert_eq!(order, [3, 4, 2, 1, 0]);
        assert_eq!((queue.bytes(), queue.points()), (0, 0));
    }

    #[test]
    fn an_app_that_floods_events_keeps_its_metrics() {
        let mut queue = Queue::new(100);
        queue.push(series(0), 0);
        let mut gone = Vec::new();
        for sequence in 1..20 {
            gone.extend(queue.push(item(sequence, 10, false, Endpoint::Events), 0));
        }
        assert_eq!(sequences(&gone), (1..18).collect::<Vec<_>>(), "a quarter of the room holds two of them");
        let order: Vec<u64> = std::iter::from_fn(|| queue.take(false, |_| true)).map(|item| item.sequence).collect();
        assert_eq!(order, [0, 19, 18], "points first, though they are older");
    }

    #[test]
    fn over_budget_the_oldest_that_is_not_urgent_goes() {
        let mut queue = Queue::new(30);
        queue.push(item(0, 10, true, Endpoint::Events), 0);
        queue.push(series(1), 0);
        queue.push(series(2), 0);
        assert_eq!(sequences(&queue.push(series(3), 0)), [1]);
        assert_eq!(sequences(&queue.push(series(4), 10)), [2, 3], "what is under way counts");
        assert_eq!(queue.points(), 2);
    }

    #[test]
    fn what_comes_back_takes_its_old_place() {
        let mut queue = Queue::new(20);
        queue.push(series(5), 0);
        queue.push(series(6), 0);
        assert_eq!(sequences(&queue.push(series(1), 0)), [1], "the oldest is what came back");
    }

    #[test]
    fn a_blocked_endpoint_is_passed_over_unless_urgent_for_the_first_time() {
        let mut queue = Queue::new(1_000);
        queue.push(item(0, 1, false, Endpoint::Checks), 0);
        queue.push(series(1), 0);
        let mut pressing = item(2, 1, true, Endpoint::Events);
        queue.push(pressing.clone(), 0);
        let open = |endpoint| endpoint == Endpoint::Checks;
        assert_eq!(queue.take(true, open).map(|item| item.sequence), Some(2));
        pressing.tried = true;
        queue.push(pressing, 0);
        assert_eq!(queue.take(true, open), None);
        assert_eq!(queue.take(false, open).map(|item| item.sequence), Some(0));
        assert_eq!(queue.take(false, open), None);
    }

    proptest! {
        #[test]
        fn bytes_and_points_are_what_is_in_it(steps in prop::collection::vec((0_u8..3, 0_u64..50, 0_usize..40, any::<bool>()), 0..80)) {
            let mut queue = Queue::new(200);
            for (step, sequence, bytes, urgent) in steps {
                match step {
                    0 | 1 => { queue.push(item(sequence, bytes, urgent, Endpoint::Series), 0); }
                    _ => { queue.take(false, |_| true); }
                }
                let all = || queue.urgent.iter().chain(&queue.backlog);
                prop_assert_eq!(queue.bytes, all().map(|item| item.payload.body.len() as u64).sum::<u64>());
                prop_assert_eq!(queue.points, all().map(points).sum::<u64>());
                prop_assert!(queue.bytes <= 200);
                prop_assert!(queue.backlog.iter().is_sorted_by_key(|item| item.sequence));
            }
        }
    }
}
