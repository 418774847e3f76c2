//! The contexts that are held now, and how a line finds its own.
//!
//! A line is looked up by its spelling first. Only a miss splits tags and looks for the same series under another spelling
//! (tags in another order); the new spelling is then remembered, see [`super::spelling`].

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::identity::Identity;
use super::spelling::{Mark, SPELLING_BYTES, Spelling, Spellings};
use super::value::Value;
use super::{Context, Mode, Settings};
use crate::statsd::Line;

/// Overflow contexts that may have a name of their own; beyond that there is one a type (see `docs/operations.md`).
const OVERFLOW_NAMES: usize = 256;
/// What a context costs beside its texts: entry, shared context, two table slots.
const CONTEXT_BYTES: usize = size_of::<Entry>() + size_of::<Context>() + 32;
/// The slot of spellings whose name the settings leave out: remembered like any other, so that they cost one look.
const LEFT_OUT: u32 = u32::MAX;

/// Whose a context is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    App,
    Overflow,
    Own,
}

/// A context with what it holds of the open window.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) context: Arc<Context>,
    pub(super) class: Class,
    pub(super) value: Value,
    /// When a sample last came, timestamped ones included; see [`whole_second`].
    pub(super) last_seen: u32,
    /// When a sample last went into a window, likewise: what zeros are counted from. 0 before the first.
    pub(super) last_sampled: u32,
    /// Samples since the context was created.
    pub(super) samples: u64,
    /// Half of its hash: see [`place`].
    hash: u32,
}

/// Unix seconds, rounded up: later than a whole second exactly where the time itself is. Not by `ceil`, which is a call on the
/// oldest processors that we build for, for every sample.
pub(super) fn whole_second(now: f64) -> u32 {
    let whole = now as u32;
    whole.saturating_add(u32::from(f64::from(whole) < now))
}

/// Where a context stands in the table, told by the half of its hash that is kept. The table looks at the lowest bits and at
/// the seven highest.
fn place(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

fn place_of(entries: &[Option<Entry>], slot: u32) -> u64 {
    entries[slot as usize].as_ref().map_or(0, |entry| place(entry.hash))
}

impl Entry {
    /// What it costs beside its value.
    fn charge(&self) -> usize {
        CONTEXT_BYTES + self.context.text_bytes()
    }
}

/// Owned by the aggregator alone. Bounded by `max_contexts`, `max_bytes` and [`OVERFLOW_NAMES`]; our own contexts come from
/// the catalogue and are few.
#[derive(Debug, Default)]
pub(super) struct Contexts {
    hasher: RandomState,
    spellings: Spellings,
    by_identity: HashTable<u32>,
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    /// Contexts of class [`Class::App`]; what `max_contexts` bounds.
    app: usize,
    overflow: usize,
    /// Bytes charged: contexts, spellings, and the values of the open window.
    pub(super) bytes: usize,
    /// A spelling of our own making; kept for its capacity.
    made: Vec<u8>,
}

impl Contexts {
    /// Slot and sample rate of a spelling that is known.
    pub(super) fn recall(&mut self, spelling: Spelling<'_>, now: f64) -> Option<(u32, f64)> {
        let mark = self.spellings.mark(spelling);
        self.spellings.find(mark, now).filter(|(slot, _)| *slot != LEFT_OUT)
    }

    /// The context of a line, created or folded when it is not known; `None` where the settings leave its name out.
    /// `spelling` is how it came, and `None` where that is no good to remember: with a second of its own.
    pub(super) fn find(
        &mut self,
        line: &Line<'_>,
        spelling: Option<Spelling<'_>>,
        now: f64,
        settings: &Settings,
    ) -> Option<u32> {
        let (mark, rate) = match spelling {
            Some(spelling) => (self.spellings.mark(spelling), line.rate.unwrap_or(1.0)),
            None => {
                spell(&mut self.made, line, settings.mode);
                (self.spellings.mark(Spelling { name: line.name, rest: &self.made }), 1.0)
            }
        };
        let slot = match self.spellings.find(mark, now) {
            Some((slot, _)) => slot,
            None => self.find_identity(line, (mark, rate), now, settings),
        };
        Some(slot).filter(|slot| *slot != LEFT_OUT)
    }

    fn find_identity(&mut self, line: &Line<'_>, (mark, rate): (Mark, f64), now: f64, settings: &Settings) -> u32 {
        let name = String::from_utf8_lossy(line.name);
        let tags = String::from_utf8_lossy(line.tags);
        let mapped = settings.mapper.map(&name);
        let (name, more) = mapped.as_ref().map_or((&*name, ""), |mapped| (&*mapped.name, &*mapped.tags));
        let tags = tags.split(',').chain(more.split(','));
        let slot = Identity::of_line(line, name, tags, settings)
            .map_or(LEFT_OUT, |identity| self.find_or_fold(&identity, now, settings));
        if slot == LEFT_OUT || self.entry(slot).class != Class::Overflow {
            self.remember(mark, slot, rate, now, settings);
        }
        slot
    }

    /// The context of one of our own metrics; there is always room for it.
    pub(super) fn find_own(&mut self, identity: &Identity<'_>, now: f64, settings: &Settings) -> u32 {
        let hash = identity.hash(&self.hasher);
        self.known(hash, identity).unwrap_or_else(|| self.create(identity, hash, Class::Own, now, settings))
    }

    fn find_or_fold(&mut self, identity: &Identity<'_>, now: f64, settings: &Settings) -> u32 {
        let hash = identity.hash(&self.hasher);
        if let Some(slot) = self.known(hash, identity) {
            return slot;
        }
        let room = self.bytes + CONTEXT_BYTES + identity.text_bytes() <= settings.max_bytes;
        if room && self.app < settings.max_contexts {
            return self.create(identity, hash, Class::App, now, settings);
        }
        self.fold(identity, now, settings)
    }

    fn fold(&mut self, identity: &Identity<'_>, now: f64, settings: &Settings) -> u32 {
        let named = identity.overflow(settings);
        let hash = named.hash(&self.hasher);
        if let Some(slot) = self.known(hash, &named) {
            return slot;
        }
        if self.overflow < OVERFLOW_NAMES {
            return self.create(&named, hash, Class::Overflow, now, settings);
        }
        let unnamed = identity.overflow_of_kind(settings);
        let hash = unnamed.hash(&self.hasher);
        self.known(hash, &unnamed).unwrap_or_else(|| self.create(&unnamed, hash, Class::Overflow, now, settings))
    }

    fn known(&self, hash: u32, identity: &Identity<'_>) -> Option<u32> {
        let is_it = |slot: &u32| identity.is(&self.entry(*slot).context);
        self.by_identity.find(place(hash), is_it).copied()
    }

    fn create(&mut self, identity: &Identity<'_>, hash: u32, class: Class, now: f64, settings: &Settings) -> u32 {
        let context = Arc::new(identity.context());
        let value = Value::new(context.kind(), settings.mode);
        let last_seen = whole_second(now);
        let entry = Entry { context, class, value, last_seen, last_sampled: 0, samples: 0, hash };
        self.bytes += entry.charge();
        self.app += usize::from(class == Class::App);
        self.overflow += usize::from(class == Class::Overflow);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            u32::try_from(self.entries.len() - 1).expect("max_bytes allows far fewer contexts than 2^32")
        });
        self.entries[slot as usize] = Some(entry);
        let entries = &self.entries;
        self.by_identity.insert_unique(place(hash), slot, |slot| place_of(entries, *slot));
        slot
    }

    /// Remembers a spelling, unless spellings have become the attack.
    fn remember(&mut self, mark: Mark, slot: u32, rate: f64, now: f64, settings: &Settings) {
        if self.bytes + SPELLING_BYTES > settings.max_bytes || self.spellings.len() >= 2 * settings.max_contexts {
            return;
        }
        self.bytes += SPELLING_BYTES;
        self.spellings.remember(mark, slot, rate, now);
    }

    pub(super) fn entry(&self, slot: u32) -> &Entry {
        self.entries[slot as usize].as_ref().expect("a slot is forgotten by both tables before it is freed")
    }

    pub(super) fn entry_mut(&mut self, slot: u32) -> &mut Entry {
        self.entries[slot as usize].as_mut().expect("a slot is forgotten by both tables before it is freed")
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().flatten()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.iter_mut().flatten()
    }

    pub(super) fn len(&self) -> usize {
        self.by_identity.len()
    }

    /// Forgets the contexts that `keep` does not want, and spellings unused since `spellings_before`; gives memory back.
    pub(super) fn retain(&mut self, spellings_before: f64, keep: impl Fn(&Entry) -> bool) {
        for slot in 0..self.entries.len() {
            if let Some(entry) = self.entries[slot].take_if(|entry| !keep(entry)) {
                self.forget(slot as u32, &entry);
            }
        }
        let Contexts { spellings, entries, .. } = self;
        let forgotten = spellings.retain(spellings_before, |slot| slot == LEFT_OUT || entries[slot as usize].is_some());
        self.bytes -= forgotten * SPELLING_BYTES;
        self.shrink();
    }

    fn forget(&mut self, slot: u32, entry: &Entry) {
        if let Ok(place) = self.by_identity.find_entry(place(entry.hash), |held| *held == slot) {
            place.remove();
        }
        self.bytes -= entry.charge() + entry.value.bytes();
        self.app -= usize::from(entry.class == Class::App);
        self.overflow -= usize::from(entry.class == Class::Overflow);
        self.free.push(slot);
    }

    /// After a flood of short-lived contexts the tables would stay large for ever.
    fn shrink(&mut self) {
        if self.entries.len() > 4 * self.len().max(64) {
            self.renumber();
        }
    }

    /// Gives the contexts the lowest slots: a single one that was created late would keep all slots before its own.
    fn renumber(&mut self) {
        let mut moved = vec![LEFT_OUT; self.entries.len()];
        let mut kept = Vec::with_capacity(self.len());
        let mut by_identity = HashTable::with_capacity(self.len());
        for (old, entry) in std::mem::take(&mut self.entries).into_iter().enumerate() {
            let Some(entry) = entry else { continue };
            let slot = kept.len() as u32;
            moved[old] = slot;
            kept.push(Some(entry));
            by_identity.insert_unique(place_of(&kept, slot), slot, |slot| place_of(&kept, *slot));
        }
        (self.entries, self.by_identity, self.free) = (kept, by_identity, Vec::new());
        self.spellings.renumber(|slot| if slot == LEFT_OUT { slot } else { moved[slot as usize] });
    }
}

/// What follows the values, as a client would write it, without rate and second: type, tags, and the origin where it tells
/// contexts apart.
fn spell(made: &mut Vec<u8>, line: &Line<'_>, mode: Mode) {
    made.clear();
    made.extend_from_slice(line.kind.wire().as_bytes());
    if !line.tags.is_empty() {
        made.extend_from_slice(b"|#");
        made.extend_from_slice(line.tags);
    }
    if mode == Mode::Agent {
        for field in [line.local, line.external, line.cardinality].into_iter().filter(|field| !field.is_empty()) {
            made.push(b'|');
            made.extend_from_slice(field);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::Kind;

    /// Slots by name, found by spelling.
    fn find(contexts: &mut Contexts, name: &str, settings: &Settings) -> u32 {
        let text = format!("{name}:1|c|#a:b");
        let Ok(crate::statsd::Message::Metric(line)) = crate::statsd::parse(text.as_bytes()) else { panic!("{text}") };
        let spelling = Spelling::cut(text.as_bytes()).map(|(spelling, _)| spelling);
        contexts.find(&line, spelling, 10.0, settings).expect("nothing is left out")
    }

    #[test]
    fn seconds_are_rounded_up_and_stay_in_their_range() {
        let times = [-1.5, 0.0, 0.25, 7.0, 1_700_000_000.5, 4_294_967_295.0, 1e12, f64::NEG_INFINITY];
        assert_eq!(times.map(whole_second), [0, 0, 1, 7, 1_700_000_001, u32::MAX, u32::MAX, 0]);
    }

    #[test]
    fn after_a_flood_the_contexts_that_stay_are_found_in_lower_slots() {
        let (mut contexts, settings) = (Contexts::default(), Settings::default());
        let names: Vec<String> = (0..5_000).map(|n| format!("m{n}")).collect();
        for name in &names {
            find(&mut contexts, name, &settings);
        }
        let before = contexts.bytes;
        contexts.retain(0.0, |entry| entry.context.name().ends_with("99"));
        assert_eq!((contexts.len(), contexts.entries.len(), contexts.entries.capacity()), (50, 50, 50));
        assert!(contexts.bytes < before / 50 && contexts.by_identity.capacity() < 200);
        for name in names.iter().filter(|name| name.ends_with("99")) {
            let slot = find(&mut contexts, name, &settings);
            assert_eq!(
                (contexts.entry(slot).context.name(), contexts.entry(slot).context.kind()),
                (&**name, Kind::Counter)
            );
        }
        assert_eq!(contexts.len(), 50, "all of them were known");
        find(&mut contexts, "m1", &settings);
        assert_eq!((contexts.len(), contexts.entries.len()), (51, 51));
        contexts.retain(0.0, |_| false);
        assert_eq!((contexts.bytes, contexts.app), (0, 0));
    }
}
