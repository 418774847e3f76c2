//! Stacks as a tree that begins at the outermost frame, so that what stacks share is kept once.
//!
//! The heap profile of a large Go program is nearly all stacks: 140,000 of them with 31 locations each in 10 MiB, which are
//! 310,000 nodes of 8 bytes here and 17 MB as lists. A node always comes after its parent.

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::BuildHasher;

use super::read::{Budget, ReadError};

const RECENT: usize = 4_096;

/// The empty stack.
pub(super) const ROOT: u32 = u32::MAX;

/// Bytes to be charged for a node: itself, its place in an index that may just have grown, and its number in a comparison.
pub(super) const NODE_COST: usize = 20;

/// The same once the profile is read, when the index is gone.
pub(super) const HELD_NODE_COST: usize = 16;

/// A stack: one location more than its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Node {
    pub parent: u32,
    pub location: u32,
}

fn hash(hasher: &RandomState, node: Node) -> u64 {
    hasher.hash_one(u64::from(node.parent) << 32 | u64::from(node.location))
}

/// The tree while a profile is read.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    /// Where a node stands.
    index: HashTable<u32>,
    /// Seeded, for an app could choose numbers that collide.
    hasher: RandomState,
    /// Nodes found lately, by their hash: a look into the index is two misses of the processor's cache.
    recent: Box<[u32; RECENT]>,
    /// The nodes of the latest stack, outermost first. Neighbours in a profile share five parts of six.
    path: Vec<u32>,
}

impl Default for Tree {
    fn default() -> Self {
        let recent = Box::new([ROOT; RECENT]);
        let (index, hasher) = (HashTable::new(), RandomState::default());
        Self { nodes: Vec::new(), index, hasher, recent, path: Vec::new() }
    }
}

impl Tree {
    /// The node of a stack that shares its outermost `shared` locations with the one before; the others come leaf first.
    pub fn add(&mut self, shared: usize, locations: &[u32], budget: &mut Budget) -> Result<u32, ReadError> {
        self.path.truncate(shared);
        let mut parent = self.path.last().copied().unwrap_or(ROOT);
        // Below a new node everything is new.
        let mut is_new = false;
        for location in locations.iter().rev() {
            let node = Node { parent, location: *location };
            let known = if is_new { None } else { self.find(node) };
            is_new = known.is_none();
            parent = match known {
                Some(at) => at,
                None => self.child(node, budget)?,
            };
            self.path.push(parent);
        }
        Ok(parent)
    }

    fn find(&mut self, node: Node) -> Option<u32> {
        let hash = hash(&self.hasher, node);
        let slot = hash as usize % RECENT;
        let at = self.recent[slot];
        if self.nodes.get(at as usize) == Some(&node) {
            return Some(at);
        }
        let found = self.index.find(hash, |at| self.nodes[*at as usize] == node).copied();
        self.recent[slot] = found.unwrap_or(at);
        found
    }

    fn child(&mut self, node: Node, budget: &mut Budget) -> Result<u32, ReadError> {
        budget.charge(NODE_COST)?;
        let at = u32::try_from(self.nodes.len()).expect("the budget ends long before 2^32 nodes");
        self.nodes.push(node);
        let place = |at: &u32| hash(&self.hasher, self.nodes[*at as usize]);
        self.index.insert_unique(hash(&self.hasher, node), at, place);
        Ok(at)
    }

    pub fn into_nodes(self) -> Vec<Node> {
        self.nodes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(stacks: &[&[u32]]) -> (Vec<Node>, Vec<u32>) {
        let (mut tree, mut budget) = (Tree::default(), Budget::new(1 << 20));
        let turned = |stack: &[u32]| stack.iter().rev().copied().collect::<Vec<_>>();
        let ends = stacks.iter().map(|it| tree.add(0, &turned(it), &mut budget).expect("room")).collect();
        (tree.into_nodes(), ends)
    }

    fn spelled(nodes: &[Node], mut at: u32) -> Vec<u32> {
        let mut stack = Vec::new();
        while at != ROOT {
            stack.push(nodes[at as usize].location);
            at = nodes[at as usize].parent;
        }
        stack.reverse();
        stack
    }

    #[test]
    fn what_stacks_share_is_kept_once() {
        let stacks: [&[u32]; 6] = [&[1, 2, 3], &[1, 2, 4], &[1, 2], &[], &[2, 1, 2], &[1, 2, 3]];
        let (nodes, ends) = tree(&stacks);
        assert_eq!(nodes.len(), 7);
        assert_eq!((ends[3], ends[0] == ends[5]), (ROOT, true));
        let back: Vec<_> = ends.iter().map(|end| spelled(&nodes, *end)).collect();
        assert_eq!(back, stacks);
    }

    #[test]
    fn nodes_are_charged() {
        let (mut tree, mut budget) = (Tree::default(), Budget::new(10 * NODE_COST));
        let stack: Vec<u32> = (0..10).collect();
        assert_eq!(tree.add(0, &stack, &mut budget), tree.add(7, &stack[..3], &mut budget));
        assert_eq!(tree.add(10, &[11], &mut budget), Err(ReadError::TooManyParts(10 * NODE_COST)));
    }
}
