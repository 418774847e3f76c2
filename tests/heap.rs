//! Memory that is free goes back to the kernel. In a process of its own, one after the other, because what is measured is the
//! resident memory of all.
#![allow(clippy::unwrap_used)]
#![cfg(target_env = "gnu")]

use oomwatch::sys::{give_memory_back, set_up_heap};

#[test]
fn free_memory_goes_back() {
    memory_that_is_free_below_memory_in_use_is_given_back();
    a_large_block_goes_back_when_it_is_freed_also_the_second_time();
}

fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn memory_that_is_free_below_memory_in_use_is_given_back() {
    let mut kept: Vec<Option<Box<[u8]>>> = (0..100_000).map(|_| Some(vec![1; 500].into())).collect();
    for (n, kept) in kept.iter_mut().enumerate() {
        if n % 100 > 0 {
            *kept = None;
        }
    }
    let before = resident();
    give_memory_back();
    let after = resident();
    assert!(before > after + (20 << 20), "{before} {after}");
    assert_eq!(kept.iter().flatten().count(), 1_000);
}

fn a_large_block_goes_back_when_it_is_freed_also_the_second_time() {
    set_up_heap();
    drop(std::hint::black_box(vec![1_u8; 24 << 20]));
    let block = std::hint::black_box(vec![1_u8; 24 << 20]);
    let before = resident();
    drop(block);
    let after = resident();
    assert!(before > after + (12 << 20), "{before} {after}");
}
