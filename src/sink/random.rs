//! Randomness for jitter and file names, without a crate for it.
//!
//! The standard library seeds its hasher from the operating system; hashing a running number with those keys gives numbers
//! that an outsider cannot foresee. That is enough to spread retries and to make names unguessable; it is no key material.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
static NEXT: AtomicU64 = AtomicU64::new(0);

pub(super) fn number() -> u64 {
    KEYS.hash_one(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Uniform in 0..1.
pub(super) fn unit() -> f64 {
    (number() >> 11) as f64 / (1_u64 << 53) as f64
}

/// Sixteen lower-case hex digits.
pub(super) fn hex() -> String {
    format!("{:016x}", number())
}
