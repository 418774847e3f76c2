//! The difference of two profiles of one process, stack by stack: now minus base, as pprof's `-diff_base` subtracts.
//!
//! Everything said of growth starts here: by (leaf, owner) in [`super::diff`], by function in [`mod@super::flat`], by goroutine
//! group in [`super::goroutines`]. Two profiles number their frames differently, so frames are matched by what they say.

use std::collections::HashMap;
use std::sync::Arc;

use super::names;
use super::read::{Frame, Profile};

/// One stack and how its values changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Indices into [`Delta::frames`], leaf first.
    pub stack: Arc<[u32]>,
    /// One for each column that was asked for.
    pub values: Box<[i64]>,
}

/// What changed between two profiles; stacks that did not change are left out.
#[derive(Clone, Debug, Default)]
pub struct Delta<'a> {
    pub frames: Vec<&'a Frame>,
    /// In the order in which the stacks were first seen, so that the same profiles give the same words.
    pub changes: Vec<Change>,
}

impl<'a> Delta<'a> {
    /// `now` minus `base`, or `now` as it is. Each column is an index into the sample types of (base, now); a column that a
    /// profile lacks counts as zero.
    pub fn between(base: Option<&'a Profile>, now: &'a Profile, columns: &[(usize, usize)]) -> Self {
        let mut sum = Sum::default();
        sum.add(now, |values, column| values.get(columns[column].1).copied().unwrap_or(0), columns.len());
        if let Some(base) = base {
            let minus =
                |values: &[i64], column: usize| values.get(columns[column].0).copied().unwrap_or(0).saturating_neg();
            sum.add(base, minus, columns.len());
        }
        let changed = sum.changes.into_iter().filter(|change| change.values.iter().any(|value| *value != 0));
        Self { frames: sum.frames, changes: changed.collect() }
    }

    /// Frames of a change, leaf first.
    pub fn stack<'s>(&'s self, change: &'s Change) -> impl DoubleEndedIterator<Item = &'a Frame> + 's {
        change.stack.iter().map(|index| self.frames[*index as usize])
    }

    /// For each frame a number that frames of the same function share, as `written` says it. A name without a package stands for
    /// many functions (Rust's without full debug information, JavaScript's): there the file tells them apart.
    pub fn functions<'s, K: std::hash::Hash + Eq>(&'s self, written: impl Fn(&'s str) -> K) -> Vec<u32> {
        let mut numbers = HashMap::new();
        let mut number = |frame: &&'a Frame| {
            let next = u32::try_from(numbers.len()).expect("a profile has fewer than 2^31 frames");
            let is_bare = names::package(&frame.function).is_empty() && !frame.function.contains("::");
            let file = if is_bare { &*frame.file } else { "" };
            *numbers.entry((written(&frame.function), file)).or_insert(next)
        };
        self.frames.iter().map(&mut number).collect()
    }

    /// Sum of one column.
    pub fn total(&self, column: usize) -> i64 {
        self.changes.iter().fold(0, |sum, change| sum.saturating_add(change.values[column]))
    }
}

#[derive(Default)]
struct Sum<'a> {
    frames: Vec<&'a Frame>,
    by_frame: HashMap<&'a Frame, u32>,
    changes: Vec<Change>,
    by_stack: HashMap<Arc<[u32]>, usize>,
}

impl<'a> Sum<'a> {
    fn add(&mut self, profile: &'a Profile, value: impl Fn(&[i64], usize) -> i64, columns: usize) {
        let own: Vec<u32> = profile.frames.iter().map(|frame| self.frame(frame)).collect();
        // The first profile keeps its numbers, and so may lend its stacks.
        let same = own.iter().enumerate().all(|(at, index)| at == *index as usize);
        for sample in &profile.samples {
            let stack = match same {
                true => Arc::clone(&sample.stack),
                false => sample.stack.iter().map(|index| own[*index as usize]).collect(),
            };
            let at = self.change(stack, columns);
            for (column, sum) in self.changes[at].values.iter_mut().enumerate() {
                *sum = sum.saturating_add(value(&sample.values, column));
            }
        }
    }

    fn frame(&mut self, frame: &'a Frame) -> u32 {
        let next = u32::try_from(self.frames.len()).expect("a profile has fewer than 2^31 frames");
        *self.by_frame.entry(frame).or_insert_with(|| {
            self.frames.push(frame);
            next
        })
    }

    fn change(&mut self, stack: Arc<[u32]>, columns: usize) -> usize {
        if let Some(at) = self.by_stack.get(&stack) {
            return *at;
        }
        let at = self.changes.len();
        self.changes.push(Change { stack: Arc::clone(&stack), values: vec![0; columns].into() });
        self.by_stack.insert(stack, at);
        at
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
        let delta = Delta::between(Some(&base), &now, &[(3, 3)]);
        let seen: Vec<_> = delta
            .changes
            .iter()
            .map(|it| (&*delta.stack(it).next().expect("a frame").function, it.values[0]))
            .collect();
        assert_eq!(seen, [("main.new", 7), ("main.a", 20), ("main.gone", -5)]);
        assert_eq!(delta.total(0), 22);
    }

    #[test]
    fn samples_of_one_stack_are_summed_and_equal_stacks_vanish() {
        let stack: &[&str] = &["main.a main.go 1"];
        let twice = heap(&[(stack, 10), (stack, 10)]);
        let once = heap(&[(stack, 20)]);
        assert!(Delta::between(Some(&once), &twice, &[(3, 3)]).changes.is_empty());
        assert_eq!(Delta::between(None, &twice, &[(3, 3)]).total(0), 20);
    }

    #[test]
    fn extreme_values_saturate() {
        let low = heap(&[(&["main.a main.go 1"], i64::MIN)]);
        let high = heap(&[(&["main.a main.go 1"], i64::MAX)]);
        assert_eq!(Delta::between(Some(&low), &high, &[(3, 3)]).total(0), i64::MAX);
    }
}
