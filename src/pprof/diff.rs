//! Heap growth by (leaf, owner): which function's allocations grew, and which line of the app asked for them.
//!
//! *Leaf* is the first frame outside runtime and standard library, because the top of a stack is often a helper such as
//! `bytealg.MakeNoZero` that accuses nobody. *Owner* is the leaf-most frame of the app, and *via* the frame that it called.
//! Bytes here are the heap profile's: they include pages never touched, so they compare with one another and never with RSS
//! or a limit.

use super::delta::Delta;
use super::flat::place;
use super::names::{self, Kind};
use super::naming::Culprit;
use super::read::{Frame, Profile, SampleType};

/// Frames kept of a stack that leaves this folder.
pub(super) const MAX_STACK: usize = 64;

/// Rows kept of those that grew most, and of those that shrank most.
const MAX_FIRST: usize = 990;
const MAX_LAST: usize = 10;

/// What a heap gained and lost.
#[derive(Debug)]
pub struct Growth<'a> {
    delta: Delta<'a>,
    /// The pairs that changed, largest growth first, shrinking ones last: all of them up to a thousand.
    pub rows: Vec<Row<'a>>,
    /// Pairs beyond that, out of the middle.
    pub left_out: usize,
    /// Sum of the rows that grew, in bytes: what shares are of.
    pub grown_bytes: i64,
    /// Growth of the heap as a whole, in bytes.
    pub net_bytes: i64,
}

/// One pair of leaf and owner.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    pub leaf: &'a Frame,
    pub owner: Option<&'a Frame>,
    pub via: Option<&'a Frame>,
    pub bytes: i64,
    pub objects: i64,
    /// The change that moved most; lines and stack are taken from it.
    change: usize,
}

impl<'a> Growth<'a> {
    /// What grew from `base` to `now`, or what `now` holds where there is no base.
    pub fn between(base: Option<&'a Profile>, now: &'a Profile) -> Self {
        Self::of_columns(base, now, [space_column(base, now), objects_column(base, now)])
    }

    /// The same of the value that a viewer shows first, and the count beside it: allocated bytes of an allocs profile, delay of a
    /// block profile.
    pub fn shown(base: Option<&'a Profile>, now: &'a Profile) -> Self {
        let shown = now.sample_types.get(now.default_type).map_or("", |kind| kind.name.as_str());
        if shown == "inuse_space" {
            return Self::between(base, now);
        }
        let column = |name: &str| {
            let of = |profile: &Profile| profile.type_index(name).unwrap_or(usize::MAX);
            (base.map_or(usize::MAX, of), of(now))
        };
        let count = if shown == "alloc_space" { "alloc_objects" } else { "contentions" };
        Self::of_columns(base, now, [column(shown), column(count)])
    }

    fn of_columns(base: Option<&'a Profile>, now: &'a Profile, columns: [(usize, usize); 2]) -> Self {
        let delta = Delta::between(base, now, columns);
        let pairs = pairs(&delta);
        let all = pairs.len();
        let grown_bytes = pairs.iter().fold(0_i64, |sum, pair| sum.saturating_add(pair.bytes.max(0)));
        let net_bytes = pairs.iter().fold(0_i64, |sum, pair| sum.saturating_add(pair.bytes));
        let rows = rows(&delta, pairs);
        Self { left_out: all - rows.len(), delta, rows, grown_bytes, net_bytes }
    }

    /// Nothing differs, not even a byte.
    pub fn is_nothing(&self) -> bool {
        self.delta.changes.is_empty()
    }

    /// A row's share of all growth, 0 to 1.
    pub fn share(&self, row: &Row) -> f64 {
        if self.grown_bytes > 0 { row.bytes.max(0) as f64 / self.grown_bytes as f64 } else { 0.0 }
    }

    /// Frames of the stack a row stands for, leaf first.
    pub fn stack(&self, row: &Row) -> impl Iterator<Item = &'a Frame> {
        self.delta.stack(&self.delta.changes[row.change])
    }

    /// A row in bounded words.
    pub fn culprit(&self, row: &Row) -> Culprit {
        let owner = |take: fn(&Frame) -> String| row.owner.map(take).unwrap_or_default();
        Culprit {
            function: names::short(&row.leaf.function),
            file: names::clean(&row.leaf.file),
            line: row.leaf.line,
            grew_bytes: row.bytes,
            grew_objects: row.objects,
            share: self.share(row),
            made_by: owner(|frame| names::short(&frame.function)),
            made_by_file: owner(|frame| names::clean(&frame.file)),
            made_by_line: row.owner.map_or(0, |frame| frame.line),
            via: row.via.map(|frame| names::short(&frame.function)).unwrap_or_default(),
            stack: self.stack(row).take(MAX_STACK).map(|frame| names::clean(&frame.function)).collect(),
            unit: super::naming::Unit::Bytes,
        }
    }
}

/// Whether two profiles count the same: what a viewer shows of each must stand in the other, in the same unit.
///
/// # Errors
/// When they do not, in words: the difference of a heap and of goroutines is a number that means nothing.
pub fn comparable(base: &Profile, now: &Profile) -> Result<(), String> {
    let shown = |profile: &Profile| profile.sample_types.get(profile.default_type).cloned();
    let (of_base, of_now) = (shown(base), shown(now));
    let in_both = |kind: &SampleType| [base, now].iter().all(|profile| profile.sample_types.contains(kind));
    if of_base.iter().chain(&of_now).all(in_both) && of_base.is_some() == of_now.is_some() {
        return Ok(());
    }
    let words = |kind: Option<SampleType>| {
        kind.map_or("nothing".to_owned(), |it| format!("{} in {}", names::clean(&it.name), names::clean(&it.unit)))
    };
    Err(format!("not comparable: the base counts {}, the other profile {}", words(of_base), words(of_now)))
}

/// Bytes in use; a profile that has another name for them shows them first. Those of the base go by the same name.
fn space_column(base: Option<&Profile>, now: &Profile) -> (usize, usize) {
    let of_now = now.type_index("inuse_space").unwrap_or(now.default_type);
    let name = now.sample_types.get(of_now).map_or("", |kind| kind.name.as_str());
    (base.map_or(usize::MAX, |base| place(base, name, of_now)), of_now)
}

fn objects_column(base: Option<&Profile>, now: &Profile) -> (usize, usize) {
    let of = |profile: &Profile| profile.type_index("inuse_objects").unwrap_or(usize::MAX);
    (base.map_or(0, of), of(now))
}

/// What a stack says at first sight.
pub(super) struct Roles {
    pub leaf: usize,
    pub owner: Option<usize>,
    pub via: Option<usize>,
}

/// Finds leaf, owner and via among the kinds of a stack's frames, leaf first; `None` for an empty stack.
pub(super) fn roles(kinds: &[Kind]) -> Option<Roles> {
    let named = kinds.iter().position(|kind| matches!(kind, Kind::Dependency | Kind::App));
    let leaf = named.or_else(|| kinds.iter().position(|kind| *kind != Kind::Runtime)).unwrap_or(0);
    let owner = kinds.iter().position(|kind| *kind == Kind::App);
    let via = owner.and_then(|at| at.checked_sub(1)).filter(|at| kinds[*at] != Kind::Runtime);
    (!kinds.is_empty()).then_some(Roles { leaf, owner, via })
}

/// What a pair of leaf and owner gained.
#[derive(Clone, Copy)]
struct Pair {
    bytes: i64,
    objects: i64,
    /// The change that moved most.
    change: u32,
}

fn pairs(delta: &Delta) -> Vec<Pair> {
    let mut keys = keys(delta);
    keys.sort_unstable();
    let pair = |of_one: &[(u32, u32, u32)]| {
        let changes = of_one.iter().map(|(_, _, change)| (*change, delta.changes[*change as usize].values));
        let mut pair = Pair { bytes: 0, objects: 0, change: 0 };
        let mut most = i64::MIN;
        for (change, [bytes, objects]) in changes {
            if bytes > most {
                (pair.change, most) = (change, bytes);
            }
            pair.bytes = pair.bytes.saturating_add(bytes);
            pair.objects = pair.objects.saturating_add(objects);
        }
        pair
    };
    let all = keys.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)).map(pair);
    all.filter(|pair| pair.bytes != 0 || pair.objects != 0).collect()
}

/// Leaf and owner of each change by number, and the change.
fn keys(delta: &Delta) -> Vec<(u32, u32, u32)> {
    let kinds: Vec<Kind> = delta.frames.iter().map(|frame| names::kind(frame)).collect();
    // Instances of one generic function are one function to the person who wrote it.
    let functions = delta.functions(names::without_types);
    let (mut frames, mut keys, mut of_stack) = (Vec::new(), Vec::new(), Vec::new());
    for (at, change) in (0..).zip(&delta.changes) {
        frames.clear();
        frames.extend(delta.indices(change));
        of_stack.clear();
        of_stack.extend(frames.iter().map(|frame| kinds[*frame as usize]));
        let Some(roles) = roles(&of_stack) else { continue };
        let function = |index: usize| functions[frames[index] as usize];
        keys.push((function(roles.leaf), roles.owner.map_or(u32::MAX, function), at));
    }
    keys
}

fn rows<'a>(delta: &Delta<'a>, mut pairs: Vec<Pair>) -> Vec<Row<'a>> {
    pairs.sort_unstable_by_key(|pair| (std::cmp::Reverse(pair.bytes), pair.change));
    if let Some(end) = pairs.len().checked_sub(MAX_LAST).filter(|end| *end > MAX_FIRST) {
        pairs.drain(MAX_FIRST..end);
    }
    let row = |pair: Pair| {
        let frames: Vec<&Frame> = delta.stack(&delta.changes[pair.change as usize]).collect();
        let kinds: Vec<Kind> = frames.iter().map(|frame| names::kind(frame)).collect();
        let (roles, Pair { bytes, objects, change }) = (roles(&kinds)?, pair);
        let (leaf, owner, via) = (frames[roles.leaf], roles.owner.map(|at| frames[at]), roles.via.map(|at| frames[at]));
        Some(Row { leaf, owner, via, bytes, objects, change: change as usize })
    };
    pairs.into_iter().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{goroutines, heap};
    use super::*;

    const GROW: &str = "bytes.growSlice /usr/local/go/src/bytes/buffer.go 252";
    const MALLOC: &str = "runtime.mallocgc /usr/local/go/src/runtime/malloc.go 1";
    const BUFFER: &str = "github.com/DataDog/datadog-go/v5/statsd.newStatsdBuffer /go/pkg/mod/github.com/!data!dog/datadog-go/v5@v5.9.1/statsd/buffer.go 26";
    const NEW: &str = "github.com/DataDog/datadog-go/v5/statsd.New /go/pkg/mod/github.com/!data!dog/datadog-go/v5@v5.9.1/statsd/statsd.go 440";
    const JOB: &str = "main.handleJob /app/main.go 57";
    const MAIN: &str = "main.main /app/main.go 90";

    fn only(stack: &[&str]) -> (String, String, String) {
        let now = heap(&[(stack, 4096)]);
        let growth = Growth::between(None, &now);
        let it = growth.culprit(&growth.rows[0]);
        assert_eq!((growth.rows.len(), it.grew_bytes, it.grew_objects, it.share), (1, 4096, 4, 1.0));
        (it.function, it.made_by, it.via)
    }

    #[test]
    fn leaf_owner_and_via_are_found_in_the_stack() {
        let cases: [(&[&str], [&str; 3]); 6] = [
            (&[BUFFER, NEW, JOB, MAIN], ["statsd.newStatsdBuffer", "main.handleJob", "statsd.New"]),
            (&[MALLOC, GROW, BUFFER, JOB], ["statsd.newStatsdBuffer", "main.handleJob", "statsd.newStatsdBuffer"]),
            (&[GROW, JOB, MAIN], ["main.handleJob", "main.handleJob", "bytes.growSlice"]),
            (&[MALLOC, JOB], ["main.handleJob", "main.handleJob", ""]),
            (&[BUFFER, NEW], ["statsd.newStatsdBuffer", "", ""]),
            (&[MALLOC, GROW], ["bytes.growSlice", "", ""]),
        ];
        for (stack, expected) in cases {
            let found = only(stack);
            assert_eq!([found.0.as_str(), &found.1, &found.2], expected, "{stack:?}");
        }
    }

    #[test]
    fn stacks_of_a_pair_are_summed_and_the_line_is_that_of_the_most_growth() {
        let other = "main.handleJob /app/main.go 60";
        let base = heap(&[(&[BUFFER, JOB], 1024)]);
        let now = heap(&[(&[BUFFER, JOB], 2048), (&[BUFFER, NEW, other], 10_240), (&[MAIN], 3072)]);
        let growth = Growth::between(Some(&base), &now);
        let seen: Vec<_> = growth.rows.iter().map(|row| growth.culprit(row)).collect();
        assert_eq!((seen[0].grew_bytes, seen[0].made_by_line, seen[0].stack.len()), (11_264, 60, 3));
        assert_eq!((seen[1].function.as_str(), seen[1].grew_bytes), ("main.main", 3072));
        assert_eq!((growth.grown_bytes, growth.net_bytes), (14_336, 14_336));
    }

    #[test]
    fn instances_of_a_generic_function_are_one() {
        let (int, text) = ("main.Fill[go.shape.int] /app/f.go 3", "main.Fill[go.shape.string] /app/f.go 3");
        let now = heap(&[(&[int, MAIN], 1024), (&[text, MAIN], 2048)]);
        let growth = Growth::between(None, &now);
        assert_eq!((growth.rows.len(), growth.rows[0].bytes), (1, 3072));
        assert_eq!(growth.culprit(&growth.rows[0]).function, "main.Fill[...]");
    }

    #[test]
    fn names_without_a_package_are_told_apart_by_their_file() {
        let (shop, store) = ("insert src/shop.rs 3", "insert src/store.rs 9");
        let now = heap(&[(&[shop], 2048), (&[store], 1024)]);
        let growth = Growth::between(None, &now);
        let seen: Vec<_> = growth.rows.iter().map(|row| (&*row.leaf.file, row.bytes)).collect();
        assert_eq!(seen, [("src/shop.rs", 2048), ("src/store.rs", 1024)]);
    }

    #[test]
    fn shrinking_pairs_come_last_and_share_nothing() {
        let base = heap(&[(&[MAIN], 8192)]);
        let now = heap(&[(&[JOB], 4096)]);
        let growth = Growth::between(Some(&base), &now);
        let seen: Vec<_> = growth.rows.iter().map(|row| (row.bytes, growth.share(row))).collect();
        assert_eq!(seen, [(4096, 1.0), (-8192, 0.0)]);
        assert_eq!((growth.grown_bytes, growth.net_bytes), (4096, -4096));
    }

    #[test]
    fn profiles_of_other_kinds_are_refused_in_words() {
        let (held, standing) = (heap(&[(&[MAIN], 8192)]), goroutines(&[(&[MAIN], 9)]));
        let mut allocs = heap(&[(&[MAIN], 8192)]);
        allocs.default_type = 1;
        assert_eq!((comparable(&held, &allocs), comparable(&standing, &standing)), (Ok(()), Ok(())));
        let words = "not comparable: the base counts goroutine in count, the other profile inuse_space in bytes";
        assert_eq!(comparable(&standing, &held), Err(words.to_owned()));
        assert!(comparable(&held, &standing).is_err());
        assert!(comparable(&Profile::default(), &held).is_err_and(|words| words.contains("the base counts nothing")));
        let mut megabytes = heap(&[(&[MAIN], 8192)]);
        megabytes.sample_types[3].unit = "megabytes".into();
        assert!(comparable(&megabytes, &held).is_err());
        let growth = Growth::between(Some(&standing), &held);
        assert_eq!(growth.net_bytes, 8192, "goroutines are no bytes");
    }

    #[test]
    fn deep_stacks_are_cut() {
        let frames: Vec<String> = (0..500).map(|n| format!("main.f{n} /app/main.go {n}")).collect();
        let stack: Vec<&str> = frames.iter().map(String::as_str).collect();
        let now = heap(&[(&stack, 1024)]);
        let growth = Growth::between(None, &now);
        assert_eq!(growth.culprit(&growth.rows[0]).stack.len(), MAX_STACK);
    }
}
