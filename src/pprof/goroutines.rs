//! Which goroutines piled up, and which of them belong to one leak.
//!
//! A leaked object with goroutines of its own leaks all of them each time, so their groups grow in lockstep: a DogStatsD client
//! left open is four groups of equal size. A goroutine's stack ends at its entry function and does not tell who started it
//! (golang/go#16894): the maker stands in the heap profile.

use std::hash::{BuildHasher, Hasher};

use super::delta::{Change, Delta};
use super::diff::{MAX_STACK, roles};
use super::names::{self, Kind};
use super::naming::{Culprit, Unit};
use super::read::{Frame, Profile};

/// Groups that grew by fewer are the come and go of requests.
const MIN_GREW: i64 = 5;

/// Groups kept; a server of many kinds of work has some hundreds.
const MAX_GROUPS: usize = 1_000;

/// Frames kept of a stack; Go keeps 128 of its own, inlined ones not counted.
const MAX_FRAMES: usize = 256;

/// A goroutine's smallest stack, in bytes (`runtime.stackMin`).
const SMALLEST_STACK: i64 = 2048;

/// Goroutines with one stack, lines apart.
#[derive(Clone, Debug)]
pub struct Group<'a> {
    /// Leaf first.
    pub stack: Vec<&'a Frame>,
    /// How many more there are than in the base, or how many there are where there is no base.
    pub grew: i64,
}

/// What two goroutine profiles, or one, tell.
#[derive(Debug, Default)]
pub struct Groups<'a> {
    /// All goroutines, now minus base.
    pub net: i64,
    /// Sum over the groups that grew.
    pub grown: i64,
    /// Groups that grew, most first, at most a thousand.
    pub groups: Vec<Group<'a>>,
    /// Groups beyond that.
    pub left_out: usize,
}

impl<'a> Groups<'a> {
    pub fn between(base: Option<&'a Profile>, now: &'a Profile) -> Self {
        let of = |profile: &Profile| profile.type_index("goroutine").unwrap_or(0);
        let delta = Delta::between(base, now, [(base.map_or(0, of), of(now))]);
        let mut grew = grew(&delta);
        grew.sort_unstable_by_key(|(at, grew)| (std::cmp::Reverse(*grew), *at));
        let grown = grew.iter().fold(0_i64, |sum, (_, grew)| sum.saturating_add(*grew));
        let left_out = grew.len().saturating_sub(MAX_GROUPS);
        grew.truncate(MAX_GROUPS);
        let stack = |at: u32| delta.stack(&delta.changes[at as usize]).take(MAX_FRAMES).collect();
        let group = |(at, grew): (u32, i64)| Group { stack: stack(at), grew };
        let mut groups: Vec<Group> = grew.into_iter().map(group).collect();
        groups.sort_by_cached_key(|group| (std::cmp::Reverse(group.grew), group.place()));
        Self { net: delta.total(0), grown, groups, left_out }
    }

    /// The groups of equal size, within 5 %, that hold most of the growth. One group alone is a leak of its own.
    pub fn lockstep(&self) -> &[Group<'a>] {
        let grown = self.groups.partition_point(|group| group.grew >= MIN_GREW);
        let mut sums = vec![0_i128];
        sums.extend(self.groups[..grown].iter().scan(0_i128, |sum, group| {
            *sum += i128::from(group.grew);
            Some(*sum)
        }));
        let sum = |(first, end): (usize, usize)| sums[end] - sums[first];
        let ranges = (0..grown).map(|first| (first, first + self.alike(first, grown)));
        // The last of equals would be the smaller groups; `max_by_key` prefers it, so the order is turned round.
        let (first, end) = ranges.rev().max_by_key(|range| sum(*range)).unwrap_or((0, 0));
        &self.groups[first..end]
    }

    /// How many groups from `first` on are of its size. Two off is still equal: a unit may be half made when we look.
    fn alike(&self, first: usize, end: usize) -> usize {
        let size = self.groups[first].grew;
        let least = size.saturating_sub((size / 20).max(2));
        self.groups[first..end].partition_point(|group| group.grew >= least)
    }

    /// "goroutines +312 in 4 groups of equal size (+78 each): statsd.(*Client).watch, …", or `None` when none piled up.
    pub fn words(&self, compared: bool) -> Option<String> {
        let lockstep = self.lockstep();
        let first = lockstep.first()?;
        let sum = lockstep.iter().fold(0_i64, |sum, group| sum.saturating_add(group.grew));
        let mut places: Vec<String> = Vec::new();
        for place in lockstep.iter().map(Group::place) {
            if !places.contains(&place) && places.len() < 4 {
                places.push(place);
            }
        }
        let sign = if compared { "+" } else { "" };
        let groups = match lockstep.len() {
            1 => "in one group".to_owned(),
            n => format!("in {n} groups of equal size ({sign}{} each)", first.grew),
        };
        Some(format!("goroutines {sign}{sum} {groups}: {}", places.join(", ")))
    }
}

/// The groups that grew: one change of each, and by how much. Stacks of the same functions are told by a seeded hash of 64 bits,
/// because their lists would take far more memory than the profiles.
fn grew(delta: &Delta) -> Vec<(u32, i64)> {
    let functions = delta.functions(|name| name);
    let seed = foldhash::quality::RandomState::default();
    let hash = |change: &Change| {
        let mut hasher = seed.build_hasher();
        delta.indices(change).for_each(|frame| hasher.write_u32(functions[frame as usize]));
        hasher.finish()
    };
    let mut keys: Vec<(u64, u32)> = delta.changes.iter().map(hash).zip(0..).collect();
    keys.sort_unstable();
    let value = |(_, at): &(u64, u32)| delta.changes[*at as usize].values[0];
    let sum = |group: &[(u64, u32)]| group.iter().map(value).fold(0_i64, i64::saturating_add);
    let groups = keys.chunk_by(|a, b| a.0 == b.0).map(|group| (group[0].1, sum(group)));
    groups.filter(|(_, grew)| *grew > 0).collect()
}

impl Group<'_> {
    fn kinds(&self) -> Vec<Kind> {
        self.stack.iter().map(|frame| names::kind(frame)).collect()
    }

    /// The frame that tells one group from another: the first outside runtime and standard library.
    pub fn leaf(&self) -> Option<&Frame> {
        roles(&self.kinds()).map(|roles| self.stack[roles.leaf])
    }

    /// The leaf-most frame of the app.
    pub fn owner(&self) -> Option<&Frame> {
        roles(&self.kinds())?.owner.map(|at| self.stack[at])
    }

    /// The group in bounded words, its share being of `grown` goroutines; bytes are the least that the stacks take.
    pub fn culprit(&self, grown: i64) -> Culprit {
        let name = |frame: Option<&Frame>| frame.map(|it| names::short(&it.function)).unwrap_or_default();
        let file = |frame: Option<&Frame>| frame.map(|it| names::clean(&it.file)).unwrap_or_default();
        let line = |frame: Option<&Frame>| frame.map_or(0, |it| it.line);
        let (leaf, owner) = (self.leaf(), self.owner());
        Culprit {
            function: name(leaf),
            file: file(leaf),
            line: line(leaf),
            grew_bytes: self.grew.saturating_mul(SMALLEST_STACK),
            grew_objects: self.grew,
            share: self.grew as f64 / grown.max(1) as f64,
            made_by: name(owner),
            made_by_file: file(owner),
            made_by_line: line(owner),
            via: String::new(),
            stack: self.stack.iter().take(MAX_STACK).map(|frame| names::clean(&frame.function)).collect(),
            unit: Unit::Goroutines,
        }
    }

    /// Where it waits, as people say it.
    pub fn place(&self) -> String {
        self.leaf().map_or_else(|| "no stack".to_owned(), |frame| names::short(&frame.function))
    }

    /// Whether it waits on a channel or a lock, as the runtime's frames tell.
    pub fn waits_on(&self) -> Option<&'static str> {
        let waits = [
            ("runtime.chansend", "a channel send"),
            ("runtime.chanrecv", "a channel receive"),
            ("runtime.selectgo", "a select"),
            ("sync.runtime_Semacquire", "a lock or a WaitGroup"),
            ("time.Sleep", "a sleep"),
            ("internal/poll.runtime_pollWait", "the network"),
        ];
        let named = |start: &str| self.stack.iter().take(6).any(|frame| frame.function.starts_with(start));
        waits.iter().find(|(start, _)| named(start)).map(|(_, words)| *words)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::goroutines;
    use super::*;

    const PARK: &str = "runtime.gopark /usr/local/go/src/runtime/proc.go 1";
    const SELECT: &str = "runtime.selectgo /usr/local/go/src/runtime/select.go 1";
    const WATCH: &str = "x.io/d/statsd.(*Client).watch /go/pkg/mod/x.io/d@v5.9.1/statsd/statsd.go 1";
    const TICK: &str = "x.io/d/statsd.(*telemetry).run /go/pkg/mod/x.io/d@v5.9.1/statsd/telemetry.go 1";
    const SEND: &str = "x.io/d/statsd.(*sender).loop /go/pkg/mod/x.io/d@v5.9.1/statsd/sender.go 1";
    const SERVE: &str = "net/http.(*conn).serve /usr/local/go/src/net/http/server.go 1";

    #[test]
    fn groups_that_grow_in_lockstep_are_one_leak() {
        let base = goroutines(&[(&[PARK, SELECT, WATCH], 2), (&[PARK, SERVE], 10)]);
        let now = goroutines(&[
            (&[PARK, SELECT, WATCH], 80),
            (&[PARK, SELECT, TICK], 78),
            (&[PARK, SEND], 76),
            (&[PARK, SERVE], 60),
        ]);
        let groups = Groups::between(Some(&base), &now);
        assert_eq!((groups.net, groups.grown, groups.lockstep().len()), (282, 282, 3));
        assert_eq!(
            groups.words(true).expect("growth"),
            "goroutines +232 in 3 groups of equal size (+78 each): statsd.(*Client).watch, statsd.(*telemetry).run, statsd.(*sender).loop"
        );
    }

    #[test]
    fn the_larger_sum_wins_over_the_larger_group() {
        let now = goroutines(&[(&[SERVE], 100), (&[WATCH], 60), (&[TICK], 60), (&[SEND], 58)]);
        let groups = Groups::between(None, &now);
        let sizes: Vec<_> = groups.lockstep().iter().map(|group| group.grew).collect();
        assert_eq!(sizes, [60, 60, 58]);
    }

    #[test]
    fn lines_of_one_stack_are_one_group_and_shrinking_groups_are_left_out() {
        let moved = "x.io/d/statsd.(*Client).watch /go/pkg/mod/x.io/d@v5.9.1/statsd/statsd.go 2";
        let base = goroutines(&[(&[PARK, WATCH], 50), (&[SERVE], 9)]);
        let now = goroutines(&[(&[PARK, moved], 57)]);
        let groups = Groups::between(Some(&base), &now);
        assert_eq!((groups.net, groups.groups.len(), groups.groups[0].grew), (-2, 1, 7));
        assert_eq!(groups.words(true).expect("growth"), "goroutines +7 in one group: statsd.(*Client).watch");
    }

    #[test]
    fn a_handful_more_is_no_leak() {
        let groups = goroutines(&[(&[PARK, SERVE], 4)]);
        assert_eq!(Groups::between(None, &groups).words(true), None);
        assert_eq!(Groups::between(None, &goroutines(&[])).words(true), None);
    }

    #[test]
    fn the_runtime_tells_what_is_waited_for() {
        let now = goroutines(&[(&[PARK, "runtime.chansend1 runtime/chan.go 1", "main.f main.go 1"], 9)]);
        let groups = Groups::between(None, &now);
        assert_eq!(groups.groups[0].waits_on(), Some("a channel send"));
        assert_eq!(groups.groups[0].place(), "main.f");
        let culprit = groups.groups[0].culprit(9);
        assert_eq!((culprit.grew_objects, culprit.unit), (9, Unit::Goroutines), "they are told by their number");
    }
}
