//! Memory that grew and is not in the live heap: whether it can be garbage at all. What was allocated between two moments bounds the
//! garbage of that time, so a program that allocated little and grew much holds memory that is not Go's.

use super::super::class::Class;
use super::super::words::bytes;
use super::{Case, DEFAULT_PERIOD, Language, NOISE, allocated};

impl Case<'_> {
    /// Growth of the heap is less than one part in so many of RSS growth: stacks, cgo, mappings or fragmentation hold the rest.
    /// At a collector's usual pace RSS grows twice as fast as what lives, so a half says nothing yet.
    pub(super) fn is_outside_heap(&self, part: u64) -> bool {
        let heap = self.net_growth();
        let least = NOISE.unsigned_abs() * DEFAULT_PERIOD.unsigned_abs();
        self.input.base.is_some() && self.input.rss_growth_bytes.is_some_and(|rss| rss > least && heap < rss / part)
    }

    fn net_growth(&self) -> u64 {
        u64::try_from(self.growth.net_bytes).unwrap_or(0)
    }

    /// What was allocated since the baseline and is no more; `None` where the profile does not tell.
    fn dead(&self) -> Option<u64> {
        let allocated = allocated(self.input.now)?.saturating_sub(allocated(self.input.base?)?);
        Some(u64::try_from(allocated).unwrap_or(0).saturating_sub(self.net_growth()))
    }

    /// Whether half of what lies outside the live heap can be garbage.
    fn may_be_garbage(&self) -> bool {
        let beyond = self.input.rss_growth_bytes.unwrap_or(0).saturating_sub(self.net_growth());
        self.language == Language::Go && self.dead().is_some_and(|dead| dead >= beyond / 2)
    }

    pub(super) fn class_outside(&self) -> Class {
        if self.may_be_garbage() { Class::Garbage } else { Class::OutsideGoHeap }
    }

    /// "12 MiB died since the baseline while memory grew by 200 MiB: it cannot be garbage of Go"
    pub(super) fn garbage_words(&self) -> Option<String> {
        let (dead, grew) = (self.dead()?, self.input.rss_growth_bytes?);
        let says = if self.may_be_garbage() {
            "it may be garbage or fragmentation, and may lie outside the Go heap as well"
        } else {
            "it cannot be garbage of Go"
        };
        let size = |n: u64| bytes(i64::try_from(n).unwrap_or(i64::MAX));
        let told =
            format!("{} that was allocated since the baseline is dead, and memory grew {}", size(dead), size(grew));
        (self.language == Language::Go).then(|| format!("{told}: {says}"))
    }

    pub(super) fn outside(&self) -> &'static str {
        match self.language {
            Language::Go if self.may_be_garbage() => {
                "memory grew and what lives did not: garbage, fragmentation, or memory outside the Go heap"
            }
            Language::Go => "most of the growth is outside the Go heap",
            Language::Node => "most of the growth is outside the V8 heap",
            Language::Rust => "most of the growth is outside the profiled heap",
        }
    }
}
