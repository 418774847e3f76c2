//! A profile, or what lies between two, as the tree that a flame graph draws: from the outermost function inwards, pruned.
//!
//! The tree of all functions can be a hundred times larger than the profile, so it is never made. A first pass adds the value
//! of each beginning of each stack to one of many sums, which its hash picks: a beginning whose sum stays small is small. The
//! second pass makes nodes of the others, with exact values; what is left out stands as one node below its caller.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use hashbrown::HashTable;

use super::names;
use super::read::Profile;

mod pruned;
#[cfg(test)]
mod tests;

/// Functions of one stack; with the root and what is folded below them 128 rows. Go's own stacks end after 128 frames.
const MOST_DEEP: usize = 126;

/// Sums of the first pass: 1 MiB.
const SUMS: usize = 1 << 17;

/// Nodes of the second pass, 0.7 MiB. Where there would be more, the least weight is doubled until there are not.
const MOST_NODES: usize = 16 << 10;

/// A node weighs at least one part in so many of all. Finer than what is drawn, for a leak that is still small beside the
/// heap may be all that grew.
const FINEST: i128 = 5_000;

/// A folded remainder, in place of a frame.
const OTHER: u32 = u32::MAX;

/// The tree, ready to be drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flame {
    /// Which value, and its unit.
    pub value: Value,
    /// What else the profile has to choose from.
    pub values: Vec<Value>,
    pub compared: bool,
    /// Each after its parent, the first being the whole. The children of one come by value, folded ones last.
    pub cells: Vec<Cell>,
}

/// A sample type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    pub name: String,
    pub unit: String,
}

/// A function below those that call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// By place in the list; the first has none.
    pub parent: Option<usize>,
    /// As people say it: `statsd.newStatsdBuffer`.
    pub name: String,
    /// With its whole path.
    pub function: String,
    /// What is held here and below, now.
    pub value: i64,
    /// Against the base; zero without one.
    pub grew: i64,
    /// Stands for all that was too small to be drawn here.
    pub is_folded: bool,
}

/// Why there is no tree, with what would do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoValue {
    #[error("value: expected one of {0}")]
    Unknown(String),
    #[error("base: it has no {0}, but {1}")]
    NotInBase(String, String),
}

impl Flame {
    /// The tree of a value by name, or of the one that a viewer shows first.
    ///
    /// # Errors
    /// When the profile, or the base, has no such value.
    pub fn of(base: Option<&Profile>, now: &Profile, value: Option<&str>) -> Result<Flame, NoValue> {
        let column = match value {
            Some(name) => now.type_index(name).ok_or_else(|| NoValue::Unknown(known(now)))?,
            None => now.default_type,
        };
        let kind = now.sample_types.get(column).ok_or_else(|| NoValue::Unknown(known(now)))?;
        let hasher = RandomState::default();
        let mut sides = vec![Side::new(now, column, &hasher)];
        if let Some(base) = base {
            let missing = || NoValue::NotInBase(names::clean(&kind.name), known(base));
            sides.push(Side::new(base, base.type_index(&kind.name).ok_or_else(missing)?, &hasher));
        }
        let cells = pruned::cells(&nodes(&sides, &hasher), &sides);
        Ok(Flame { value: shown(now, column), values: values(now), compared: base.is_some(), cells })
    }
}

/// Types that are offered; Go has four at most.
const MOST_VALUES: usize = 16;

fn shown(profile: &Profile, column: usize) -> Value {
    let kind = &profile.sample_types[column];
    Value { name: names::clean(&kind.name), unit: names::clean(&kind.unit) }
}

fn values(profile: &Profile) -> Vec<Value> {
    (0..profile.sample_types.len().min(MOST_VALUES)).map(|column| shown(profile, column)).collect()
}

fn known(profile: &Profile) -> String {
    values(profile).into_iter().map(|it| it.name).collect::<Vec<_>>().join(", ")
}

/// One of the profiles.
struct Side<'a> {
    profile: &'a Profile,
    column: usize,
    /// The hash of each frame's function, by which functions of both profiles are the same.
    functions: Vec<u64>,
}

/// A stack's outermost functions.
#[derive(Default)]
struct Path {
    /// By frame, innermost first. At most [`MOST_DEEP`].
    frames: VecDeque<u32>,
    /// There are more below.
    is_cut: bool,
}

impl<'a> Side<'a> {
    fn new(profile: &'a Profile, column: usize, hasher: &RandomState) -> Self {
        let functions = profile.frames.iter().map(|frame| hasher.hash_one(&*frame.function)).collect();
        Self { profile, column, functions }
    }

    /// Calls `visit` with the outermost functions and the value of each sample that has one.
    fn each(&self, mut visit: impl FnMut(&Path, i64)) {
        let mut path = Path::default();
        self.profile.each_sample(|stack, values| {
            let value = values.get(self.column).copied().unwrap_or(0);
            if value != 0 {
                path.set(self.profile.stack(stack));
                visit(&path, value);
            }
        });
    }
}

impl Path {
    fn set(&mut self, stack: impl Iterator<Item = u32>) {
        self.frames.clear();
        self.is_cut = false;
        for frame in stack {
            if self.frames.len() == MOST_DEEP {
                self.frames.pop_front();
                self.is_cut = true;
            }
            self.frames.push_back(frame);
        }
    }
}

/// A beginning of stacks. The first of a list is the empty one, and each comes after its parent.
#[derive(Clone, Copy, Debug)]
struct Node {
    parent: u32,
    /// A frame of its function, or [`OTHER`].
    frame: u32,
    /// Which profile the frame is of.
    side: u8,
    hash: u64,
    /// Now, and in the base.
    values: [i64; 2],
}

impl Node {
    fn grew(&self) -> i64 {
        self.values[0].saturating_sub(self.values[1])
    }

    /// What it weighs beside others.
    fn size(&self) -> u64 {
        self.values[0].unsigned_abs().max(self.values[1].unsigned_abs())
    }
}

/// The nodes that are worth a look, with exact values.
fn nodes(sides: &[Side], hasher: &RandomState) -> Vec<Node> {
    let (mut sums, mut whole) = (vec![0_u64; SUMS], 0_i128);
    for side in sides {
        let mut total = 0_i128;
        side.each(|path, value| {
            total += i128::from(value.unsigned_abs());
            let mut hash = 0;
            for frame in path.frames.iter().rev() {
                hash = hasher.hash_one((hash, side.functions[*frame as usize]));
                let sum = &mut sums[hash as usize % SUMS];
                *sum = sum.saturating_add(value.unsigned_abs());
            }
        });
        whole = whole.max(total);
    }
    let mut least = (whole / FINEST).max(1);
    loop {
        // Ends: no sum is as large as 2^64.
        match (Growing { least, sums: &sums, hasher, nodes: vec![ROOT], index: HashTable::new() }).filled(sides) {
            Some(nodes) => return nodes,
            None => least *= 2,
        }
    }
}

const ROOT: Node = Node { parent: 0, frame: OTHER, side: 0, hash: 0, values: [0; 2] };

/// The second pass.
struct Growing<'a> {
    least: i128,
    sums: &'a [u64],
    hasher: &'a RandomState,
    nodes: Vec<Node>,
    /// By hash, which tells beginnings apart: 64 bits, seeded anew for each graph.
    index: HashTable<u32>,
}

impl Growing<'_> {
    /// `None` when there are more than there may be.
    fn filled(mut self, sides: &[Side]) -> Option<Vec<Node>> {
        for (at, side) in (0..).zip(sides) {
            side.each(|path, value| {
                if self.nodes.len() <= MOST_NODES {
                    self.add(at, &side.functions, path, value);
                }
            });
        }
        (self.nodes.len() <= MOST_NODES).then_some(self.nodes)
    }

    fn add(&mut self, side: u8, functions: &[u64], path: &Path, value: i64) {
        let (mut at, mut hash) = (0, 0);
        self.count(at, side, value);
        for frame in path.frames.iter().rev() {
            hash = self.hasher.hash_one((hash, functions[*frame as usize]));
            if i128::from(self.sums[hash as usize % SUMS]) < self.least {
                return self.fold(at, side, value);
            }
            at = self.child(Node { parent: at, frame: *frame, side, hash, values: [0; 2] });
            self.count(at, side, value);
        }
        if path.is_cut {
            self.fold(at, side, value);
        }
    }

    fn count(&mut self, at: u32, side: u8, value: i64) {
        let sum = &mut self.nodes[at as usize].values[usize::from(side)];
        *sum = sum.saturating_add(value);
    }

    fn fold(&mut self, parent: u32, side: u8, value: i64) {
        let hash = self.hasher.hash_one((self.nodes[parent as usize].hash, "folded"));
        let at = self.child(Node { parent, frame: OTHER, side, hash, values: [0; 2] });
        self.count(at, side, value);
    }

    fn child(&mut self, node: Node) -> u32 {
        let nodes = &mut self.nodes;
        if let Some(at) = self.index.find(node.hash, |at| nodes[*at as usize].hash == node.hash) {
            return *at;
        }
        let at = u32::try_from(nodes.len()).expect("there are some thousand at most");
        nodes.push(node);
        self.index.insert_unique(node.hash, at, |at| nodes[*at as usize].hash);
        at
    }
}
