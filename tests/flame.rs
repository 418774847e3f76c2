//! What a flame graph of two large profiles costs, as the page draws it: memory, time and the size of what is sent. Alone in its
//! file, because what is measured is a process.
#![allow(clippy::unwrap_used)]

#[path = "support/wire.rs"]
mod wire;

use std::time::Duration;

use oomwatch::pprof::{Flame, Profile, read};
use tokio::time::Instant;
use wire::{field, gzipped, number, varint};

/// Two profiles and their tree, whatever they hold.
const MOST: u64 = 24 << 20;

struct Shape {
    what: &'static str,
    /// Tried first, and a fifth less until two of it fit beside one another.
    samples: u64,
    /// Locations of the stack of a sample, innermost first.
    stack: fn(u64) -> Vec<u64>,
    /// Locations, and lines of each, for so many samples.
    locations: fn(u64) -> (u64, u64),
    /// Bytes of a name.
    name: usize,
}

const SHAPES: [Shape; 5] = [
    Shape {
        what: "like a type checker's",
        samples: 160_000,
        stack: like_a_type_checkers,
        locations: |_| (2_500, 1),
        name: 60,
    },
    Shape {
        what: "stacks that share nothing",
        samples: 21_000,
        stack: |at| (0..40).map(|it| mixed(at * 40 + it) % 900 + 1).collect(),
        locations: |_| (900, 1),
        name: 60,
    },
    Shape {
        what: "functions",
        samples: 66_000,
        stack: |at| vec![at / 4 + 1, 1],
        locations: |samples| (samples / 4 + 1, 1),
        name: 60,
    },
    Shape {
        what: "long names",
        samples: 160_000,
        stack: |at| vec![at / 400 + 1, 1],
        locations: |samples| (samples / 400 + 1, 1),
        name: 4_000,
    },
    Shape {
        what: "inlined frames",
        samples: 66_000,
        stack: |at| vec![at % 60 + 1, at % 7 + 1],
        locations: |_| (60, 300),
        name: 60,
    },
];

fn mixed(at: u64) -> u64 {
    (at ^ at >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 29
}

/// 34 deep, and a neighbour shares nearly all; a function calls a few others.
fn like_a_type_checkers(at: u64) -> Vec<u64> {
    let mut caller = 1;
    let callee = |level: u64| {
        caller = (caller * 31 + mixed(at / 6_u64.pow(u32::try_from(33 - level).unwrap().min(7)) + level) % 6 * 97)
            % 2_500
            + 1;
        caller
    };
    let mut stack: Vec<u64> = (0..34).map(callee).collect();
    stack.reverse();
    stack
}

/// So many samples; a quarter of the values is another with another `salt`.
fn profile(shape: &Shape, samples: u64, salt: u64) -> Vec<u8> {
    let mut out = field(1, &[number(1, 1), number(2, 2)].concat());
    for at in 0..samples {
        let (mut stack, mut value) = (Vec::new(), Vec::new());
        (shape.stack)(at).into_iter().for_each(|it| varint(&mut stack, it));
        varint(&mut value, 512 + if at % 4 == 0 { mixed(at + salt) % 4_096 } else { at % 1_000 });
        out.extend(field(2, &[field(1, &stack), field(2, &value)].concat()));
    }
    let (locations, lines) = (shape.locations)(samples);
    for id in 1..=locations {
        let lines: Vec<u8> = (0..lines).flat_map(|line| field(4, &[number(1, id), number(2, line)].concat())).collect();
        out.extend(field(4, &[number(1, id), lines].concat()));
        out.extend(field(5, &[number(1, id), number(2, id + 2), number(3, id + 2)].concat()));
    }
    for text in ["", "inuse_space", "bytes"] {
        out.extend(field(6, text.as_bytes()));
    }
    for id in 1..=locations {
        out.extend(field(6, format!("example.org/shop.{:a>1$}", id, shape.name).as_bytes()));
    }
    gzipped(&out)
}

fn pair(base: &[u8], now: &[u8]) -> Option<(Profile, Profile)> {
    let base = read::read_from(std::io::Cursor::new(base), read::MAX_INFLATED, read::MAX_MEMORY).ok()?;
    let now = read::read_from(std::io::Cursor::new(now), read::MAX_INFLATED, base.memory_beside()).ok()?;
    Some((base, now))
}

/// Resident bytes: now, or the most since [`forget`].
fn resident(key: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

fn forget() -> bool {
    oomwatch::sys::give_memory_back();
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

struct Cost {
    memory: u64,
    took: Duration,
    cells: usize,
    text: usize,
}

/// What is drawn, as the page does it.
fn draw(base: &[u8], now: &[u8]) -> Cost {
    assert!(forget(), "the high-water mark of this process can be set back");
    let (before, began) = (resident("VmRSS"), Instant::now());
    let (base, now) = pair(base, now).unwrap();
    let flame = Flame::of(Some(&base), &now, None).unwrap();
    let (took, memory) = (began.elapsed(), resident("VmHWM").saturating_sub(before));
    assert_eq!(flame.cells[0].grew, now.total(0) - base.total(0));
    let text = flame.cells.iter().map(|it| 90 + it.name.len() + it.function.len()).sum();
    Cost { memory, took, cells: flame.cells.len(), text }
}

#[test]
fn a_graph_of_whatever_fits_stays_within_the_readers_memory() {
    oomwatch::sys::set_up_heap();
    for shape in &SHAPES {
        let mut samples = shape.samples;
        let (base, now) = loop {
            let (base, now) = (profile(shape, samples, 0), profile(shape, samples, 1));
            if pair(&base, &now).is_some() {
                break (base, now);
            }
            samples -= samples / 5;
            assert!(samples > 100, "{}: never fits", shape.what);
        };
        let cost = draw(&base, &now);
        let Cost { memory, took, cells, text } = cost;
        println!(
            "{}, {samples} samples: {} KiB, {took:?}, {cells} cells, {} KiB",
            shape.what,
            memory >> 10,
            text >> 10
        );
        assert!(memory <= MOST, "{}: {} KiB", shape.what, memory >> 10);
        assert!(text < 290 << 10 && cells > 1, "{}: {cells} cells, {text} bytes", shape.what);
    }
}
