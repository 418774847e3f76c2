//! What glibc's allocator must be told; the one file with `unsafe`, calls that take numbers and touch no memory of ours.
//!
//! Without them 100,000 contexts that have expired leave 50 MiB resident for ever: the allocator keeps a heap for each thread
//! and gives back only what is free at a heap's end. Elsewhere than on glibc nothing is done.

/// What is larger than this is mapped by itself: it grows without a copy, takes only the pages that are written, and goes back
/// to the kernel when it is freed. Above a batch's buffers, which come and go a thousand times a second; below the tables and
/// windows of a few thousand contexts.
#[cfg(target_env = "gnu")]
const MAPPED_BYTES: nix::libc::c_int = 512 * 1024;

/// One heap for all threads: with one for each of the two workers, what one frees the other cannot use (10 MiB at 100,000
/// contexts). And a bound for what is mapped that stays where it is: by itself it goes up to the largest block that was ever
/// freed, and the next window lies in the heap. Called once, before there is another thread.
pub fn set_up_heap() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "mallopt has no safe wrapper")]
    // SAFETY: mallopt takes two numbers and may be called at any time; a refusal changes nothing, and is not looked at.
    unsafe {
        nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1);
        nix::libc::mallopt(nix::libc::M_MMAP_THRESHOLD, MAPPED_BYTES);
    }
}

/// Gives whole free pages back to the kernel. A few milliseconds where there is much to give, microseconds where not.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "malloc_trim has no safe wrapper")]
    // SAFETY: malloc_trim takes a number, locks what it looks at, and gives back free memory only.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}
