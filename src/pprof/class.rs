//! What kind of leak it is, as far as two profiles and the counts beside them tell: it says where to look first.

use super::language::Language;

/// What piles up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Class {
    /// Connections, files, rows or clients that nobody closes; what they hold comes with them.
    UnclosedHandle,
    /// Goroutines that never end, with what they hold.
    GoroutineLeak,
    /// Objects that stay reachable: a map, a slice, a list. A cache that still fills looks the same from here.
    HeapLeak,
    /// What grew has come to rest, and memory with it: a cache that is full. A leak that pauses looks the same from here.
    CacheFills,
    /// Far more was allocated than memory grew by, and it does not live: garbage, fragmentation, or something outside the heap.
    Garbage,
    /// No Go profile shows it, and too little was allocated for garbage: C code or mappings.
    OutsideGoHeap,
    #[default]
    Unknown,
}

impl Class {
    pub fn label(self) -> &'static str {
        match self {
            Class::UnclosedHandle => "unclosed_handle",
            Class::GoroutineLeak => "goroutine_leak",
            Class::HeapLeak => "heap_leak",
            Class::CacheFills => "cache_fills",
            Class::Garbage => "garbage",
            Class::OutsideGoHeap => "outside_go_heap",
            Class::Unknown => "unknown",
        }
    }

    /// What it means, with the other reading where there is one; `None` where nothing is known.
    pub fn words(self, language: Language) -> Option<&'static str> {
        match self {
            Class::UnclosedHandle => {
                Some("unclosed handle: connections, rows, files or clients are made and not closed")
            }
            Class::GoroutineLeak => Some("goroutine leak: goroutines that do not end, with what they hold"),
            Class::HeapLeak => Some(
                "heap leak: objects stay reachable from a map, a slice or a list; a cache that is still filling looks the same",
            ),
            Class::CacheFills => Some(
                "cache that fills: what grew has come to rest, and memory with it; a leak that pauses looks the same, so look whether it goes on",
            ),
            Class::Garbage => Some(
                "garbage or fragmentation: what was allocated does not live, and memory stays all the same; garbage that the collector may keep (GOGC, GOMEMLIMIT), pages that fragments hold, or C code and mappings outside the Go heap",
            ),
            Class::OutsideGoHeap if language != Language::Go => Some(
                "outside the profiled heap: buffers, C code, mappings, or memory that was not given back; no heap profile shows whose",
            ),
            Class::OutsideGoHeap => Some("outside the Go heap: C code or mappings; no Go profile shows whose"),
            Class::Unknown => None,
        }
    }
}
