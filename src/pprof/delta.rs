//! The difference of two profiles of one process, stack by stack: now minus base, as pprof's `-diff_base` subtracts.
//!
//! Everything said of growth starts here: by (leaf, owner) in [`super::diff`], by goroutine group in [`super::goroutines`].
//! Two profiles number their frames differently, so stacks are matched by what they say: by a seeded hash of 64 bits of their
//! frames, which a parent in the tree hands down. Two of a hundred thousand stacks are taken for one in one of 10⁹ comparisons.

use std::collections::HashMap;
use std::hash::BuildHasher;

use super::names;
use super::read::{Frame, Profile};
use super::stacks::ROOT;

/// How many columns can be compared at a time.
pub const COLUMNS: usize = 2;

/// One stack and how its values changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// A node of `now`, or of the base counted on, to be asked of [`Delta::indices`].
    stack: u32,
    /// One for each column that was asked for.
    pub values: [i64; COLUMNS],
    hash: u64,
}

/// What changed between two profiles; stacks that did not change are left out.
#[derive(Debug)]
pub struct Delta<'a> {
    /// Those of `now`, then those of the base.
    pub frames: Vec<&'a Frame>,
    /// In the order of the profiles, so that the same two give the same words.
    pub changes: Vec<Change>,
    now: &'a Profile,
    base: Option<&'a Profile>,
}

impl<'a> Delta<'a> {
    /// `now` minus `base`, or `now` as it is. Each column is an index into the sample types of (base, now); a column that a
    /// profile lacks counts as zero.
    pub fn between<const N: usize>(base: Option<&'a Profile>, now: &'a Profile, columns: [(usize, usize); N]) -> Self {
        let seed = foldhash::quality::RandomState::default();
        let mut changes = Vec::new();
        add(&mut changes, now, columns.map(|it| it.1), |value| value.max(-i64::MAX), 0, &seed);
        if let Some(base) = base {
            add(&mut changes, base, columns.map(|it| it.0), |value| -value.max(-i64::MAX), nodes(now), &seed);
        }
        changes.sort_unstable_by_key(|change| (change.hash, change.stack));
        sum(&mut changes);
        changes.retain(|change| change.values != [0; COLUMNS]);
        changes.sort_unstable_by_key(|change| change.stack);
        let frames = now.frames.iter().chain(base.iter().flat_map(|base| &base.frames)).collect();
        Self { frames, changes, now, base }
    }

    /// Frames of a change, leaf first.
    pub fn stack<'s>(&'s self, change: &Change) -> impl Iterator<Item = &'a Frame> + use<'s, 'a> {
        self.indices(change).map(|index| self.frames[index as usize])
    }

    /// Indices of a change's frames into [`Delta::frames`], leaf first.
    pub fn indices(&self, change: &Change) -> impl Iterator<Item = u32> + use<'a> {
        let of_base = self.base.zip(change.stack.checked_sub(nodes(self.now))).filter(|_| change.stack != ROOT);
        let (profile, stack, first) = match of_base {
            Some((base, stack)) => (base, stack, self.now.frames.len()),
            None => (self.now, change.stack, 0),
        };
        let first = u32::try_from(first).expect("a profile has fewer than 2^31 frames");
        profile.stack(stack).map(move |frame| first + frame)
    }

    /// For each frame a number that frames of the same function share, as `written` says it. A name without a package stands for
    /// many functions (Rust's without full debug information, JavaScript's): there the file tells them apart.
    pub fn functions<'s, K: std::hash::Hash>(&'s self, written: impl Fn(&'s str) -> K) -> Vec<u32> {
        // Kept as hashes: the names of a profile are much of its memory, and `written` may copy them.
        let (mut numbers, seed) = (HashMap::new(), foldhash::quality::RandomState::default());
        let mut number = |frame: &&'a Frame| {
            let next = u32::try_from(numbers.len()).expect("a profile has fewer than 2^31 frames");
            let file = names::file_of_bare(frame);
            *numbers.entry(seed.hash_one((written(&frame.function), file))).or_insert(next)
        };
        self.frames.iter().map(&mut number).collect()
    }

    /// Sum of one column.
    pub fn total(&self, column: usize) -> i64 {
        self.changes.iter().fold(0, |sum, change| sum.saturating_add(change.values[column]))
    }
}

/// Sums the changes of each stack, which stand side by side. Wide, so that a profile minus itself is nothing whatever it holds.
fn sum(changes: &mut Vec<Change>) {
    let (mut end, mut at) = (0, 0);
    while at < changes.len() {
        let (first, mut sums, mut count) = (changes[at], [0_i128; COLUMNS], 0);
        for change in changes[at..].iter().take_while(|it| it.hash == first.hash) {
            sums.iter_mut().zip(change.values).for_each(|(sum, value)| *sum += i128::from(value));
            count += 1;
        }
        let values = sums.map(|sum| sum.clamp(i64::MIN.into(), i64::MAX.into()) as i64);
        changes[end] = Change { values, ..first };
        (end, at) = (end + 1, at + count);
    }
    changes.truncate(end);
}

fn nodes(profile: &Profile) -> u32 {
    u32::try_from(profile.nodes.len()).expect("the budget ends long before 2^31 nodes")
}

/// Adds the samples of a profile, its nodes counted from `first` on.
fn add<const N: usize>(
    changes: &mut Vec<Change>,
    profile: &Profile,
    columns: [usize; N],
    sign: fn(i64) -> i64,
    first: u32,
    seed: &impl BuildHasher,
) {
    let hashes = hashes(profile, seed);
    profile.each_sample(|stack, of_all| {
        let mut values = [0; COLUMNS];
        values.iter_mut().zip(columns).for_each(|(value, at)| *value = of_all.get(at).copied().map_or(0, sign));
        if values != [0; COLUMNS] {
            let (stack, hash) = if stack == ROOT { (ROOT, 0) } else { (first + stack, hashes[stack as usize]) };
            changes.push(Change { stack, values, hash });
        }
    });
}

/// For each node a hash of its frames. Code at two addresses may be one line, and an inlined frame one that is not.
fn hashes(profile: &Profile, seed: &impl BuildHasher) -> Vec<u64> {
    let frames: Vec<u64> = profile.frames.iter().map(|frame| seed.hash_one(frame)).collect();
    let mut hashes: Vec<u64> = Vec::with_capacity(profile.nodes.len());
    for node in &profile.nodes {
        let parent = if node.parent == ROOT { 0 } else { hashes[node.parent as usize] };
        let own = profile.locations.frames(node.location).iter().rev();
        hashes.push(own.fold(parent, |parent, frame| seed.hash_one((parent, frames[*frame as usize]))));
    }
    hashes
}

#[cfg(test)]
mod tests {
    use super::super::testing::heap;
    use super::*;

    #[test]
    fn stacks_are_matched_by_what_their_frames_say() {
        let base = heap(&[(&["main.a main.go 1", "main.main main.go 9"], 10), (&["main.gone main.go 2"], 5)]);
        let now = heap(&[(&["main.new main.go 3"], 7), (&["main.a main.go 1", "main.main main.go 9"], 30)]);
        let delta = Delta::between(Some(&base), &now, [(3, 3)]);
        let seen: Vec<_> = delta
            .changes
            .iter()
            .map(|it| (&*delta.stack(it).next().expect("a frame").function, it.values[0]))
            .collect();
        assert_eq!(seen, [("main.new", 7), ("main.a", 20), ("main.gone", -5)]);
        assert_eq!(delta.total(0), 22);
    }

    #[test]
    fn a_stack_of_the_base_that_leaves_a_common_path_is_spelled_out() {
        let base =
            heap(&[(&["main.old o.go 1", "main.mid main.go 2", "main.main main.go 9"], 5), (&["main.only o.go 3"], 1)]);
        let now = heap(&[(&["main.new n.go 1", "main.mid main.go 2", "main.main main.go 9"], 7)]);
        let delta = Delta::between(Some(&base), &now, [(3, 3)]);
        let names = |at: usize| delta.stack(&delta.changes[at]).map(|it| &*it.function).collect::<Vec<_>>();
        assert_eq!(names(0), ["main.new", "main.mid", "main.main"]);
        assert_eq!(names(1), ["main.old", "main.mid", "main.main"]);
        assert_eq!(names(2), ["main.only"]);
    }

    #[test]
    fn samples_of_one_stack_are_summed_and_equal_stacks_vanish() {
        let stack: &[&str] = &["main.a main.go 1"];
        let twice = heap(&[(stack, 10), (stack, 10)]);
        let once = heap(&[(stack, 20)]);
        assert!(Delta::between(Some(&once), &twice, [(3, 3)]).changes.is_empty());
        assert_eq!(Delta::between(None, &twice, [(3, 3)]).total(0), 20);
    }

    #[test]
    fn code_at_two_addresses_on_one_line_is_one_stack() {
        // Heaps of these tests have a location of its own for each mention of a frame.
        let (leaf, caller): (&str, &str) = ("main.leaf main.go 1", "main.main main.go 9");
        let twice = heap(&[(&[leaf, caller], 10), (&[leaf, caller], 5), (&["main.b main.go 2", leaf, caller], 1)]);
        let once = heap(&[(&["main.b main.go 2", leaf, caller], 1), (&[leaf, caller], 15)]);
        assert!(Delta::between(Some(&once), &twice, [(3, 3)]).changes.is_empty());
        assert!(Delta::between(Some(&twice), &once, [(3, 3)]).changes.is_empty());
    }

    #[test]
    fn a_profile_minus_itself_is_nothing_whatever_it_holds() {
        let stack: &[&str] = &["main.a main.go 1"];
        for values in [[i64::MIN, 1], [i64::MIN, i64::MIN], [i64::MAX, i64::MAX]] {
            let profile = heap(&values.map(|value| (stack, value)));
            assert!(Delta::between(Some(&profile), &profile, [(3, 3)]).changes.is_empty(), "{values:?}");
        }
    }

    #[test]
    fn extreme_values_saturate() {
        let low = heap(&[(&["main.a main.go 1"], i64::MIN)]);
        let high = heap(&[(&["main.a main.go 1"], i64::MAX)]);
        assert_eq!(Delta::between(Some(&low), &high, [(3, 3)]).total(0), i64::MAX);
    }
}
