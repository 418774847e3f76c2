//! A payload that is too large for the intake goes out in halves, each with a place in the line of its own.
//!
//! The halves of a payload on disk are parts of its one file: each is cut out of it anew when it is read, and the file is of no
//! use only when nobody has a part of it any more. So nothing is written for a cut, and a kill finds all of it.

use super::{Dispatch, Now};
use crate::datadog;
use crate::sink::queue::{Item, Place};

impl Dispatch {
    pub(super) fn split(&mut self, item: &Item, now: Now) {
        self.answered(item.payload.endpoint);
        let Some((left, right)) = datadog::split(&item.payload) else {
            return self.give_up(item, "http_413_single", now);
        };
        for (payload, part) in [(left, item.part * 2), (right, item.part * 2 + 1)] {
            let half = Item::new(self.next_id(), payload, item.sequence, item.since);
            let part = if item.place == Place::Memory { 1 } else { part };
            let (again, doubtful) = (item.again, item.doubtful);
            // With its body, which most often goes out at once.
            self.line_up(Item { tried: true, again, doubtful, place: item.place, part, ..half }, now);
        }
    }

    /// The item is settled: its file is of no use any more, unless others are parts of it.
    pub(super) fn forget(&mut self, item: &Item) {
        let others = || self.queue.iter().chain(self.under_way.items.values());
        if let Some(file) = item.file()
            && !(item.part > 1 && others().any(|other| other.file() == Some(file)))
        {
            self.spool.remove(file);
        }
    }
}
