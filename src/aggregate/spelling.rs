//! Which context a line belongs to, told by its raw bytes: the short way past parsing, and a cache with a bound.
//!
//! A *spelling* is a line without its values: what stands before the colon and what stands after the first bar, type, rate,
//! tags and all. It is remembered by two independent hashes of it, 128 bits that are seeded anew in every process, and not
//! by its text: the text would cost more than everything else that is held of a context, and one more cache miss a line.
//! Two spellings out of a million share both with a probability below 2^-80. It is never the truth: a line whose spelling is
//! not here is found the long way, by its identity.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use memchr::memchr;

/// What a spelling costs: itself, and its share of a table that is never full.
pub(super) const SPELLING_BYTES: usize = size_of::<Known>() + 8;

/// A line without its values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spelling<'a> {
    pub(super) name: &'a [u8],
    pub(super) rest: &'a [u8],
}

impl<'a> Spelling<'a> {
    /// The spelling of a raw line, and its values; `None` where it has no values.
    pub(super) fn cut(line: &'a [u8]) -> Option<(Spelling<'a>, &'a [u8])> {
        let colon = memchr(b':', line)?;
        let (name, after) = (&line[..colon], &line[colon + 1..]);
        let bar = memchr(b'|', after)?;
        // A bar in the name makes it no metric, and nothing that is remembered has one.
        Some((Spelling { name, rest: &after[bar + 1..] }, &after[..bar]))
    }
}

/// What stands for a spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    place: u64,
    check: u64,
}

/// A spelling that was seen before.
#[derive(Debug)]
struct Known {
    mark: Mark,
    rate: f64,
    slot: u32,
    /// Whole Unix seconds, rounded up.
    last_seen: u32,
}

#[derive(Debug, Default)]
pub(super) struct Spellings {
    places: RandomState,
    checks: RandomState,
    table: HashTable<Known>,
}

impl Spellings {
    pub(super) fn mark(&self, spelling: Spelling<'_>) -> Mark {
        Mark { place: hash(&self.places, spelling), check: hash(&self.checks, spelling) }
    }

    /// Slot and sample rate of a spelling.
    pub(super) fn find(&mut self, mark: Mark, now: f64) -> Option<(u32, f64)> {
        let known = self.table.find_mut(mark.place, |known| known.mark == mark)?;
        known.last_seen = seconds(now);
        Some((known.slot, known.rate))
    }

    pub(super) fn remember(&mut self, mark: Mark, slot: u32, rate: f64, now: f64) {
        let known = Known { mark, rate, slot, last_seen: seconds(now) };
        self.table.insert_unique(mark.place, known, |known| known.mark.place);
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Forgets spellings last seen before `before` and those whose slot is not `held`; returns how many.
    pub(super) fn retain(&mut self, before: f64, held: impl Fn(u32) -> bool) -> usize {
        let had = self.table.len();
        self.table.retain(|known| f64::from(known.last_seen) >= before && held(known.slot));
        if self.table.capacity() > 4 * self.table.len().max(64) {
            self.table.shrink_to(self.table.len(), |known| known.mark.place);
        }
        had - self.table.len()
    }

    /// The contexts have moved.
    pub(super) fn renumber(&mut self, moved: impl Fn(u32) -> u32) {
        self.table.iter_mut().for_each(|known| known.slot = moved(known.slot));
    }
}

fn hash(state: &RandomState, spelling: Spelling<'_>) -> u64 {
    let mut hasher = state.build_hasher();
    hasher.write(spelling.name);
    hasher.write(spelling.rest);
    hasher.finish()
}

fn seconds(now: f64) -> u32 {
    (now as u32).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelling(line: &str) -> Option<(Spelling<'_>, &[u8])> {
        Spelling::cut(line.as_bytes())
    }

    #[test]
    fn a_line_is_cut_around_its_values() {
        let (cut, values) = spelling("a.b:1:2|ms|@0.5|#x:y").unwrap();
        assert_eq!((cut.name, cut.rest, values), (&b"a.b"[..], &b"ms|@0.5|#x:y"[..], &b"1:2"[..]));
        assert!(spelling("a|c").is_none() && spelling("a:1").is_none() && spelling("").is_none());
    }

    #[test]
    fn the_same_bytes_cut_elsewhere_are_another_spelling() {
        let spellings = Spellings::default();
        let mark = |line| spellings.mark(spelling(line).unwrap().0);
        assert_eq!(mark("ab:1|c|#x"), mark("ab:2|c|#x"));
        for other in ["a:1|bc|#x", "ab:1|c|#y", "ab:1|c#|x", "abc:1||#x"] {
            assert_ne!(mark("ab:1|c|#x"), mark(other), "{other}");
        }
    }

    #[test]
    fn a_spelling_is_forgotten_with_its_slot_and_with_time() {
        let mut spellings = Spellings::default();
        let marks = ["a:1|c", "b:1|c", "c:1|c"].map(|line| spellings.mark(spelling(line).unwrap().0));
        for (slot, mark) in marks.into_iter().enumerate() {
            spellings.remember(mark, slot as u32, 0.5, 10.0 * slot as f64);
        }
        assert_eq!(spellings.find(marks[1], 10.0), Some((1, 0.5)));
        assert_eq!(spellings.retain(5.0, |slot| slot != 2), 2);
        assert_eq!(marks.map(|mark| spellings.find(mark, 10.0).is_some()), [false, true, false]);
    }
}
