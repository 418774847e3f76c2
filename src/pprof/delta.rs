//! The difference of two profiles of one process, stack by stack: now minus base, as pprof's `-diff_base` subtracts.
//!
//! Everything said of growth starts here: by (leaf, owner) in [`super::diff`], by goroutine group in [`super::goroutines`].
//! Two profiles number their frames differently, so frames, locations and stacks are matched by what they say. Neither tree is
//! copied: a stack of the base that `now` has too goes by its number there, and every other one by its own, counted on.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::BuildHasher;

use super::names;
use super::read::{Frame, Profile};
use super::stacks::{Index, Node, ROOT};

/// How many columns can be compared at a time.
pub const COLUMNS: usize = 2;

/// One stack and how its values changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// To be asked of [`Delta::indices`].
    pub stack: u32,
    /// One for each column that was asked for.
    pub values: [i64; COLUMNS],
}

/// What changed between two profiles; stacks that did not change are left out.
#[derive(Debug)]
pub struct Delta<'a> {
    pub frames: Vec<&'a Frame>,
    /// In the order in which the stacks were first seen, so that the same profiles give the same words.
    pub changes: Vec<Change>,
    now: &'a Profile,
    base: Option<Base<'a>>,
}

/// The earlier profile in the numbers of the difference.
#[derive(Debug)]
struct Base<'a> {
    profile: &'a Profile,
    /// For each of its frames the one in [`Delta::frames`].
    frames: Vec<u32>,
    /// For each node of `now` the first that is the same stack: code at two addresses may be one line.
    first: Vec<u32>,
    /// For each of its nodes that of `now`, or its own place after all those.
    nodes: Vec<u32>,
}

impl<'a> Delta<'a> {
    /// `now` minus `base`, or `now` as it is. Each column is an index into the sample types of (base, now); a column that a
    /// profile lacks counts as zero.
    pub fn between<const N: usize>(base: Option<&'a Profile>, now: &'a Profile, columns: [(usize, usize); N]) -> Self {
        let mut frames: Vec<&Frame> = now.frames.iter().collect();
        let base = base.map(|base| Base::new(base, now, &mut frames));
        let mut sum = Sum::default();
        let of = |values: &[i64], column: usize| values.get(column).copied().unwrap_or(0);
        let first = base.as_ref().map(|base| &base.first);
        let place = |stack: u32| first.and_then(|first| first.get(stack as usize)).copied().unwrap_or(stack);
        now.each_sample(|stack, values| sum.add(place(stack), columns.map(|it| of(values, it.1))));
        if let Some(base) = &base {
            base.profile.each_sample(|stack, values| {
                sum.add(base.stack(stack), columns.map(|it| of(values, it.0).saturating_neg()));
            });
        }
        sum.changes.retain(|change| change.values != [0; COLUMNS]);
        Self { frames, changes: sum.changes, now, base }
    }

    /// Frames of a change, leaf first.
    pub fn stack<'s>(&'s self, change: &Change) -> impl Iterator<Item = &'a Frame> + use<'s, 'a> {
        self.indices(change).map(|index| self.frames[index as usize])
    }

    /// Indices of a change's frames into [`Delta::frames`], leaf first.
    pub fn indices<'s>(&'s self, change: &Change) -> impl Iterator<Item = u32> + use<'s, 'a> {
        let (mut at, mut frames, mut numbers) = (change.stack, [].iter(), None);
        std::iter::from_fn(move || {
            loop {
                if let Some(frame) = frames.next() {
                    return Some(numbers.map_or(*frame, |numbers: &[u32]| numbers[*frame as usize]));
                }
                let (profile, node, parent);
                (profile, node, parent, numbers) = self.node(at)?;
                let _: &Node = node;
                frames = profile.locations.frames(node.location).iter();
                at = parent;
            }
        })
    }

    /// A node with the profile it stands in, its parent here, and the numbers of that profile's frames where they differ.
    fn node(&self, at: u32) -> Option<(&'a Profile, &'a Node, u32, Option<&[u32]>)> {
        if let Some(node) = self.now.nodes.get(at as usize) {
            return Some((self.now, node, node.parent, None));
        }
        let base = self.base.as_ref().filter(|_| at != ROOT)?;
        let node = base.profile.nodes.get(at as usize - self.now.nodes.len())?;
        Some((base.profile, node, base.stack(node.parent), Some(&base.frames)))
    }

    /// For each frame a number that frames of the same function share, as `written` says it. A name without a package stands for
    /// many functions (Rust's without full debug information, JavaScript's): there the file tells them apart.
    pub fn functions<'s, K: std::hash::Hash>(&'s self, written: impl Fn(&'s str) -> K) -> Vec<u32> {
        // Kept as hashes: the names of a profile are much of its memory, and `written` may copy them.
        let (mut numbers, seed) = (HashMap::new(), foldhash::quality::RandomState::default());
        let mut number = |frame: &&'a Frame| {
            let next = u32::try_from(numbers.len()).expect("a profile has fewer than 2^31 frames");
            let is_bare = names::package(&frame.function).is_empty() && !frame.function.contains("::");
            let file = if is_bare { &*frame.file } else { "" };
            *numbers.entry(seed.hash_one((written(&frame.function), file))).or_insert(next)
        };
        self.frames.iter().map(&mut number).collect()
    }

    /// Sum of one column.
    pub fn total(&self, column: usize) -> i64 {
        self.changes.iter().fold(0, |sum, change| sum.saturating_add(change.values[column]))
    }
}

impl<'a> Base<'a> {
    fn new(profile: &'a Profile, now: &'a Profile, frames: &mut Vec<&'a Frame>) -> Self {
        let numbers = frame_numbers(profile, frames);
        let locations = location_numbers(profile, now, &numbers);
        let (index, first) = distinct(&now.nodes);
        let at_first = |at: u32| firstly(&now.nodes, &first, at);
        let own = u32::try_from(now.nodes.len()).expect("the budget ends long before 2^31 nodes");
        let mut nodes: Vec<u32> = Vec::with_capacity(profile.nodes.len());
        for (at, node) in (own..).zip(&profile.nodes) {
            let parent = if node.parent == ROOT { ROOT } else { nodes[node.parent as usize] };
            let same = locations[node.location as usize].filter(|_| parent == ROOT || parent < own);
            let same = same.and_then(|location| index.find(Node { parent, location }, at_first));
            nodes.push(same.unwrap_or(at));
        }
        Self { profile, frames: numbers, first, nodes }
    }

    fn stack(&self, stack: u32) -> u32 {
        if stack == ROOT { ROOT } else { self.nodes[stack as usize] }
    }
}

/// For each node the first that is the same stack, with an index of those.
fn distinct(nodes: &[Node]) -> (Index, Vec<u32>) {
    let (mut index, mut first) = (Index::with_capacity(nodes.len()), Vec::with_capacity(nodes.len()));
    for at in 0..u32::try_from(nodes.len()).expect("the budget ends long before 2^31 nodes") {
        let node = firstly(nodes, &first, at);
        let known = index.find(node, |at| firstly(nodes, &first, at));
        if known.is_none() {
            index.keep(node, at, |at| firstly(nodes, &first, at));
        }
        first.push(known.unwrap_or(at));
    }
    (index, first)
}

/// A node below the first of its parents.
fn firstly(nodes: &[Node], first: &[u32], at: u32) -> Node {
    let node = nodes[at as usize];
    Node { parent: first.get(node.parent as usize).copied().unwrap_or(ROOT), ..node }
}

/// The numbers of a profile's frames among `frames`, to which those are added that it has alone.
fn frame_numbers<'a>(profile: &'a Profile, frames: &mut Vec<&'a Frame>) -> Vec<u32> {
    let mut known: HashMap<&Frame, u32> = frames.iter().copied().zip(0..).collect();
    let mut number = |frame: &'a Frame| {
        let next = u32::try_from(frames.len()).expect("a profile has fewer than 2^31 frames");
        *known.entry(frame).or_insert_with(|| {
            frames.push(frame);
            next
        })
    };
    profile.frames.iter().map(&mut number).collect()
}

/// For each location of a profile the one of `now` that has the same frames.
fn location_numbers(profile: &Profile, now: &Profile, frames: &[u32]) -> Vec<Option<u32>> {
    let (hasher, mut known) = (RandomState::default(), HashTable::<u32>::with_capacity(now.locations.len()));
    let all = |profile: &Profile| 0..u32::try_from(profile.locations.len()).expect("the budget ends long before 2^32");
    for at in all(now) {
        let hash = |at: u32| hasher.hash_one(now.locations.frames(at));
        known.insert_unique(hash(at), at, |at| hash(*at));
    }
    let number = |at: u32| {
        let own: Vec<u32> = profile.locations.frames(at).iter().map(|frame| frames[*frame as usize]).collect();
        known.find(hasher.hash_one(&*own), |at| now.locations.frames(*at) == own).copied()
    };
    all(profile).map(number).collect()
}

#[derive(Default)]
struct Sum {
    changes: Vec<Change>,
    /// For each stack its place in `changes`, counted from 1; that of the empty one comes first.
    places: Vec<u32>,
}

impl Sum {
    fn add<const N: usize>(&mut self, stack: u32, values: [i64; N]) {
        if values == [0; N] {
            return;
        }
        let at = stack.wrapping_add(1) as usize;
        if at >= self.places.len() {
            self.places.resize(at + 1, 0);
        }
        if self.places[at] == 0 {
            self.changes.push(Change { stack, values: [0; COLUMNS] });
            self.places[at] = u32::try_from(self.changes.len()).expect("the budget ends long before 2^32 stacks");
        }
        let sums = &mut self.changes[self.places[at] as usize - 1].values;
        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum = sum.saturating_add(value));
    }
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
    fn extreme_values_saturate() {
        let low = heap(&[(&["main.a main.go 1"], i64::MIN)]);
        let high = heap(&[(&["main.a main.go 1"], i64::MAX)]);
        assert_eq!(Delta::between(Some(&low), &high, [(3, 3)]).total(0), i64::MAX);
    }
}
