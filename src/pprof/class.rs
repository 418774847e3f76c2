//! What kind of leak it is, as far as two profiles and the counts beside them tell: it says where to look first.

use super::goroutines::Group;
use super::read::Frame;

/// What piles up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Class {
    /// Connections, files, rows or clients that nobody closes; what they hold comes with them.
    UnclosedHandle,
    /// Goroutines that never end, with what they hold.
    GoroutineLeak,
    /// Objects that stay reachable: a map, a slice, a list. A cache that fills looks the same from here.
    HeapLeak,
    /// No Go profile shows it: C code, mappings, or garbage that was not given back.
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
            Class::OutsideGoHeap => "outside_go_heap",
            Class::Unknown => "unknown",
        }
    }

    /// What it means, with the other reading where there is one; `None` where nothing is known.
    pub fn words(self) -> Option<&'static str> {
        match self {
            Class::UnclosedHandle => {
                Some("unclosed handle: connections, rows, files or clients are made and not closed")
            }
            Class::GoroutineLeak => Some("goroutine leak: goroutines that do not end, with what they hold"),
            Class::HeapLeak => Some(
                "heap leak: objects stay reachable from a map, a slice or a list; a cache that is still filling looks the same",
            ),
            Class::OutsideGoHeap => Some(
                "outside the Go heap: C code, mappings, or garbage that was not given back; no Go profile shows whose",
            ),
            Class::Unknown => None,
        }
    }
}

/// Code that makes something to be closed: start of a full function name, or, with a leading `*`, a part of it. Makers alone: what
/// a library's other functions allocate may be a result that the app keeps.
const MAKERS: [&str; 11] = [
    "net/http.(*Transport).dialConn",
    "database/sql.Open",
    "net.(*Dialer)",
    "net.Dial",
    "os.Open",
    "*/statsd.New",
    "*/statsd.newStatsdBuffer",
    "google.golang.org/grpc.NewClient",
    "*redis/v9.NewClient",
    "*mongo.Connect",
    "*kafka-go.New",
];

/// Code whose goroutine stands for something that is open.
const KEEPERS: [&str; 7] = [
    "net/http.(*persistConn)",
    "net.(*conn)",
    "database/sql.(*Rows)",
    "*/statsd.(*",
    "google.golang.org/grpc",
    "*/go-redis/",
    "go.mongodb.org/mongo-driver/",
];

/// Whether a function's name begins with a pattern, or holds it where the pattern begins with `*`.
pub(super) fn fits(function: &str, pattern: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(part) => function.contains(part),
        None => function.starts_with(pattern),
    }
}

/// Whether a heap stack made a handle.
pub(super) fn makes_a_handle<'a>(mut stack: impl Iterator<Item = &'a Frame>) -> bool {
    stack.any(|frame| MAKERS.iter().any(|pattern| fits(&frame.function, pattern)))
}

fn keeps_a_handle(group: &Group) -> bool {
    group.stack.iter().any(|frame| KEEPERS.iter().any(|pattern| fits(&frame.function, pattern)))
}

/// What goroutines that pile up are, by where they stand and by how many more descriptors are open.
pub(super) fn of_goroutines(groups: &[Group], fds_growth: Option<i64>) -> Class {
    let units = groups.first().map_or(0, |group| group.grew);
    let with_a_descriptor_each = fds_growth.is_some_and(|fds| units > 0 && fds >= units / 2);
    if with_a_descriptor_each || groups.iter().any(keeps_a_handle) {
        Class::UnclosedHandle
    } else {
        Class::GoroutineLeak
    }
}
