//! Which nodes are drawn: those that hold a share of the whole or of what grew, the greatest first, until there are enough of
//! them or of their names.

use std::collections::HashMap;

use super::super::names;
use super::{Cell, Node, OTHER, Side};

/// A function is drawn from this share on of what is held, or of the growth of whatever grew most: six pixels of a wide window.
const SHARE: f64 = 0.005;

/// Functions that are drawn at most, to which comes at most one folded remainder each.
const MOST_FUNCTIONS: usize = 1_000;

/// What all of them may take as JSON, in bytes.
const MOST_TEXT: usize = 280 << 10;

/// Beside its names, as JSON: of a function and of the folded remainder below it.
const CELL_TEXT: usize = 190;

/// The drawn ones, each after its parent.
pub(super) fn cells(nodes: &[Node], sides: &[Side]) -> Vec<Cell> {
    let taken = taken(nodes, sides);
    let mut below = children(nodes, &taken);
    let mut cells = Vec::new();
    // What is still to be written, the next one last; the parent is a place among the cells.
    let mut open = vec![(Below::Drawn(0), None)];
    while let Some((next, parent)) = open.pop() {
        let place = cells.len();
        let ([now, base], [name, function]) = match &next {
            Below::Folded(values) => (*values, ["(other)", "(other)"].map(str::to_owned)),
            Below::Drawn(at) => (nodes[*at as usize].values, taken[at].clone()),
        };
        let grew = if sides.len() > 1 { now.saturating_sub(base) } else { 0 };
        cells.push(Cell { parent, name, function, value: now, grew, is_folded: matches!(next, Below::Folded(_)) });
        if let Below::Drawn(at) = next {
            let inner = below.remove(&at).unwrap_or_default();
            open.extend(inner.into_iter().rev().map(|it| (it, Some(place))));
        }
    }
    cells
}

/// What stands below a function.
enum Below {
    Drawn(u32),
    /// The sum of the others, now and in the base.
    Folded([i64; 2]),
}

/// Nodes to be drawn, with name and function. Whoever is in has its parent in.
fn taken(nodes: &[Node], sides: &[Side]) -> HashMap<u32, [String; 2]> {
    let weights = weights(nodes);
    let mut order: Vec<u32> = (0..).take(nodes.len()).filter(|at| weights[*at as usize] >= SHARE).collect();
    // A parent weighs as much as its child and stands before it.
    order.sort_by(|a, b| weights[*b as usize].total_cmp(&weights[*a as usize]));
    let mut taken = HashMap::from([(0, ["all", "all"].map(str::to_owned))]);
    let mut text = 0;
    for at in order.into_iter().filter(|at| *at != 0).take(MOST_FUNCTIONS) {
        let names = named(&nodes[at as usize], sides);
        // In JSON a quotation mark takes two bytes.
        text += CELL_TEXT + 2 * (names[0].len() + names[1].len());
        if text > MOST_TEXT {
            break;
        }
        taken.insert(at, names);
    }
    taken
}

fn named(node: &Node, sides: &[Side]) -> [String; 2] {
    let function = &sides[usize::from(node.side)].profile.frames[node.frame as usize].function;
    let or_none = |name: String| if name.trim().is_empty() { "(no name)".to_owned() } else { name };
    [names::short(function), names::clean(function)].map(or_none)
}

/// The share of each, in the whole or in the growth, or that of its heaviest child; folded ones weigh nothing.
fn weights(nodes: &[Node]) -> Vec<f64> {
    let whole = nodes[0].size().max(1) as f64;
    let most_grown = nodes.iter().map(|node| node.grew().unsigned_abs()).max().unwrap_or(0).max(1) as f64;
    let mut weights = vec![0.0_f64; nodes.len()];
    for (at, node) in nodes.iter().enumerate().rev() {
        if at != 0 && node.frame == OTHER {
            weights[at] = -1.0;
            continue;
        }
        let share = node.size() as f64 / whole;
        let weight = weights[at].max(share).max(node.grew().unsigned_abs() as f64 / most_grown);
        weights[at] = weight;
        let parent = &mut weights[node.parent as usize];
        *parent = parent.max(weight);
    }
    weights
}

/// What stands below each drawn function, in the order in which it is drawn.
fn children(nodes: &[Node], taken: &HashMap<u32, [String; 2]>) -> HashMap<u32, Vec<Below>> {
    let mut drawn: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut folded: HashMap<u32, [i64; 2]> = HashMap::new();
    for (at, node) in (0..).zip(nodes).skip(1) {
        if taken.contains_key(&at) {
            drawn.entry(node.parent).or_default().push(at);
        } else if taken.contains_key(&node.parent) {
            let sums = folded.entry(node.parent).or_default();
            *sums = [sums[0].saturating_add(node.values[0]), sums[1].saturating_add(node.values[1])];
        }
    }
    let key = |at: &u32| {
        let [now, base] = nodes[*at as usize].values;
        (std::cmp::Reverse((now, base)), &taken[at][1])
    };
    let mut below: HashMap<u32, Vec<Below>> = HashMap::new();
    for (parent, mut list) in drawn {
        list.sort_by(|a, b| key(a).cmp(&key(b)));
        below.insert(parent, list.into_iter().map(Below::Drawn).collect());
    }
    for (parent, sums) in folded.into_iter().filter(|(_, sums)| *sums != [0, 0]) {
        below.entry(parent).or_default().push(Below::Folded(sums));
    }
    below
}
