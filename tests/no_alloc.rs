//! A known line allocates nothing. A test binary of its own, because it counts what the whole process allocates.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use oomwatch::aggregate::{Aggregator, Settings};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

fn count() {
    // A thread that is ending has no cell any more, and is not the one that is looked at.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

#[expect(
    unsafe_code,
    reason = "the trait is unsafe to implement; every call is handed to the system's allocator as it came"
)]
// SAFETY: the system's allocator keeps the contract, and counting touches no memory that it manages.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const NOW: f64 = 1_700_000_001.0;

/// Allocations of a thousand rounds of `lines` after a first one that makes them known.
fn allocations(lines: &[String]) -> usize {
    let mut aggregator = Aggregator::new(Settings::default());
    let mut round = || lines.iter().for_each(|line| drop(aggregator.record_line(NOW, line.as_bytes())));
    round();
    let before = ALLOCATIONS.get();
    (0..1000).for_each(|_| round());
    ALLOCATIONS.get() - before
}

fn lines(kinds: &[&str]) -> Vec<String> {
    let of_kind = |kind: &&str| (0..10).map(|n| format!("a.b{n}:{n}.5|{kind}|@0.5|#x:{n},y:2")).collect::<Vec<_>>();
    kinds.iter().flat_map(of_kind).collect()
}

#[test]
fn a_known_counter_gauge_set_or_distribution_allocates_nothing() {
    assert_eq!(allocations(&lines(&["c", "g", "s", "d"])), 0);
}

#[test]
fn a_known_pack_allocates_nothing() {
    assert_eq!(allocations(&["a:1:2:3|c|#x:y".to_owned(), "b:1:2|g".to_owned()]), 0);
}

#[test]
fn a_histogram_allocates_as_it_grows_only() {
    // Ten series that double from 4 samples on, and merge equal values from 1,024 on.
    assert!(allocations(&lines(&["ms"])) <= 10 * 10);
}

#[test]
fn the_counter_counts() {
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(ALLOCATIONS.get() - before, 1);
}
