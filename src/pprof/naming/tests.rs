//! Verdicts on small made-up profiles: who is named, how surely, and why nobody is.

use super::super::testing::{goroutines, heap};
use super::*;

const MIB: i64 = 1 << 20;
const BUFFER: &str = "github.com/DataDog/datadog-go/v5/statsd.newStatsdBuffer /m/github.com/!data!dog/datadog-go/v5@v5.9.1/statsd/buffer.go 26";
const NEW: &str =
    "github.com/DataDog/datadog-go/v5/statsd.New /m/github.com/!data!dog/datadog-go/v5@v5.9.1/statsd/statsd.go 440";
const WATCH: &str = "github.com/DataDog/datadog-go/v5/statsd.(*Client).watch /m/github.com/!data!dog/datadog-go/v5@v5.9.1/statsd/statsd.go 500";
const FLUSH: &str = "github.com/DataDog/datadog-go/v5/statsd.(*worker).pull /m/github.com/!data!dog/datadog-go/v5@v5.9.1/statsd/worker.go 50";
const JOB: &str = "main.handleJob /app/main.go 57";
const MAIN: &str = "main.main /app/main.go 90";
const CACHE: &str = "example.com/shop/cache.(*Cache).Put /app/cache/cache.go 12";
const LEAK: &[&str] = &[BUFFER, NEW, JOB, MAIN];

fn input<'a>(base: &'a Profile, now: &'a Profile) -> Input<'a> {
    Input::of_heaps(Some(base), now, 40.0)
}

fn has(naming: &Naming, kind: &str, words: &str) -> bool {
    naming.evidence.iter().any(|(k, w)| k == kind && w == words)
}

#[test]
fn the_leak_of_the_story_is_named_with_its_maker() {
    let base = heap(&[(LEAK, 8 * MIB)]);
    let now = heap(&[(LEAK, 156 * MIB), (&[CACHE, MAIN], 13 * MIB)]);
    let (calm, piled) = (goroutines(&[(&[WATCH], 1), (&[FLUSH], 1)]), goroutines(&[(&[WATCH], 38), (&[FLUSH], 38)]));
    let naming = name(&Input { goroutines: Some((Some(&calm), &piled)), ..input(&base, &now) });
    assert_eq!(
        naming.sentence,
        "`statsd.newStatsdBuffer` grew 148 MiB (92 % of heap growth) in 40 s, made in `main.handleJob` (main.go:57) via `statsd.New`"
    );
    assert_eq!((naming.confidence, naming.is_named()), (Confidence::High, true));
    assert_eq!(naming.remedy, Some("make one StatsD client at start, reuse it, and close it at shutdown"));
    assert!(has(&naming, "module", "github.com/DataDog/datadog-go/v5@v5.9.1"));
    assert!(has(&naming, "path", "`main.handleJob` ← `main.main`"));
    assert!(has(&naming, "unit", "37 units of about 4.0 MiB of heap each, 56 more a minute"));
    assert!(has(
        &naming,
        "goroutines",
        "goroutines +74 in 2 groups of equal size (+37 each): statsd.(*Client).watch, statsd.(*worker).pull"
    ));
}

#[test]
fn confidence_follows_share_and_agreement() {
    let base = heap(&[]);
    let other: &[&str] = &[CACHE, MAIN];
    let third: &[&str] = &[MAIN];
    let fourth: &[&str] = &["main.d /app/d.go 4"];
    let check = |now: &[(&[&str], i64)], previous: Option<&Naming>, expected: Confidence| {
        let now = heap(now);
        let naming = name(&Input { previous, ..input(&base, &now) });
        assert_eq!(naming.confidence, expected, "{}", naming.sentence);
        naming
    };
    let first = check(&[(LEAK, 60 * MIB), (other, 40 * MIB)], None, Confidence::Medium);
    check(&[(LEAK, 60 * MIB), (other, 40 * MIB)], Some(&first), Confidence::High);
    check(&[(LEAK, 59 * MIB), (other, 41 * MIB)], Some(&first), Confidence::Medium);
    check(&[(LEAK, 40 * MIB), (other, 60 * MIB)], Some(&first), Confidence::Medium);
    let low = [(LEAK, 29 * MIB), (other, 28 * MIB), (third, 22 * MIB), (fourth, 21 * MIB)];
    let low = check(&low, None, Confidence::Low);
    assert_eq!(
        low.sentence,
        "no single function stands out in 100 MiB of heap growth in 40 s: `statsd.newStatsdBuffer` 29 %, `cache.(*Cache).Put` 28 %, `main.main` 22 %"
    );
    assert_eq!((low.is_named(), low.remedy), (true, None));
}

#[test]
fn nobody_is_named_without_reason() {
    let (small, large) = (heap(&[(LEAK, MIB)]), heap(&[(LEAK, 200 * MIB)]));
    let grown = heap(&[(LEAK, 2 * MIB + MIB / 5)]);
    let (moved, empty) = (heap(&[(LEAK, MIB), (&[CACHE, MAIN], 100 * MIB)]), heap(&[]));
    let cases = [
        (&small, &grown, "not nameable yet: too little growth (1.2 MiB; 4.5 MiB needed)"),
        (&small, &small, "not nameable yet: no garbage collection between the two profiles"),
        (&large, &small, "not nameable yet: the heap did not grow (-199 MiB; 4.5 MiB of growth needed)"),
        (&large, &moved, "not nameable yet: the heap did not grow (-99 MiB; 4.5 MiB of growth needed)"),
        (
            &small,
            &empty,
            "not nameable: the heap profile is empty; does the app sample memory (runtime.MemProfileRate)?",
        ),
    ];
    for (base, now, sentence) in cases {
        let naming = name(&input(base, now));
        assert_eq!((naming.sentence.as_str(), naming.confidence), (sentence, Confidence::Unknown));
        assert!(!naming.is_named());
    }
}

#[test]
fn unlike_profiles_name_nobody() {
    let (base, now) = (goroutines(&[(LEAK, 9)]), heap(&[(LEAK, 100 * MIB)]));
    let naming = name(&input(&base, &now));
    assert!(!naming.is_named() && naming.sentence.starts_with("not comparable: the base counts goroutine"));
}

#[test]
fn a_leak_hidden_by_a_shrinking_cache_is_named_once_something_agrees() {
    let base = heap(&[(LEAK, MIB), (&[CACHE, MAIN], 100 * MIB)]);
    let now = heap(&[(LEAK, 41 * MIB)]);
    let plain = name(&input(&base, &now));
    assert!(!plain.is_named());
    assert!(has(&plain, "shrank", "`cache.(*Cache).Put` -100 MiB"));
    let earlier = name(&input(&heap(&[]), &heap(&[(LEAK, 40 * MIB)])));
    let sure = name(&Input { previous: Some(&earlier), ..input(&base, &now) });
    assert_eq!((sure.confidence, sure.culprits[0].grew_bytes), (Confidence::Medium, 40 * MIB));
}

#[test]
fn without_a_baseline_the_holder_is_not_accused() {
    let now = heap(&[(LEAK, 66 * MIB), (&[CACHE, MAIN], 34 * MIB)]);
    let naming = name(&Input { base: None, ..input(&now, &now) });
    assert_eq!(
        naming.sentence,
        "no healthy baseline: `statsd.newStatsdBuffer` holds 66 MiB (66 %) of the heap, but it may do so in health too"
    );
    assert_eq!((naming.confidence, naming.culprits.len()), (Confidence::Unknown, 0));
    assert!(has(
        &naming,
        "heap",
        "`statsd.newStatsdBuffer` holds 66 MiB (66 %), `cache.(*Cache).Put` holds 34 MiB (34 %)"
    ));
}

#[test]
fn growth_outside_the_heap_is_told_and_lowers_confidence() {
    let (base, now) = (heap(&[]), heap(&[(LEAK, 20 * MIB)]));
    let earlier = name(&input(&base, &now));
    let with =
        |rss: i64| name(&Input { rss_growth_bytes: Some(rss as u64), previous: Some(&earlier), ..input(&base, &now) });
    assert_eq!(with(60 * MIB).confidence, Confidence::High);
    let outside = with(61 * MIB);
    assert_eq!(outside.confidence, Confidence::Medium);
    assert!(has(&outside, "memory", "most of the growth is outside the Go heap"));
    let far = name(&Input { rss_growth_bytes: Some(201 << 20), ..input(&base, &now) });
    assert_eq!(far.sentence, "not nameable: most of the growth is outside the Go heap");
    assert!(!far.is_named());
}

#[test]
fn goroutines_that_pile_up_while_the_heap_does_not_are_the_leak() {
    let flat = heap(&[(LEAK, MIB)]);
    let stack: &[&str] =
        &["runtime.gopark runtime/proc.go 1", "runtime.chansend1 runtime/chan.go 1", "main.leak.func1 /app/main.go 30"];
    let (calm, piled) = (goroutines(&[(stack, 10)]), goroutines(&[(stack, 5_010), (&[MAIN], 1)]));
    let naming = name(&Input { goroutines: Some((Some(&calm), &piled)), ..input(&flat, &flat) });
    assert_eq!(
        naming.sentence,
        "5000 more goroutines stand in `main.leak.func1` (100 % of goroutine growth) in 40 s, waiting on a channel send"
    );
    assert_eq!((naming.confidence, naming.culprits[0].grew_bytes), (Confidence::Medium, 5_000 * 2_048));
    assert_eq!(
        naming.remedy,
        Some("let the goroutine end: select on ctx.Done() beside the channel, or close the channel")
    );
    assert!(has(&naming, "heap", "not nameable yet: no garbage collection between the two profiles"));
    let grown = heap(&[(LEAK, MIB), (&[CACHE, MAIN], 9 * MIB)]);
    let beside = name(&Input { goroutines: Some((Some(&calm), &piled)), ..input(&flat, &grown) });
    assert_eq!(beside.sentence, naming.sentence);
    let grown = heap(&[(LEAK, MIB), (&[CACHE, MAIN], 10 * MIB)]);
    let above = name(&Input { goroutines: Some((Some(&calm), &piled)), ..input(&flat, &grown) });
    assert_eq!(above.culprits[0].function, "cache.(*Cache).Put");
}

#[test]
fn the_floor_follows_the_period_of_the_profile() {
    let (base, mut now) = (heap(&[]), heap(&[(LEAK, MIB)]));
    assert!(!name(&input(&base, &now)).is_named());
    now.period = 64 << 10;
    assert!(name(&input(&base, &now)).is_named());
}

#[test]
fn an_allocation_of_the_app_itself_is_at_its_line() {
    let now = heap(&[(&["bytes.growSlice bytes/buffer.go 9", JOB, MAIN], 20 * MIB)]);
    let naming = name(&Input { seconds: 0.0, ..input(&heap(&[]), &now) });
    assert_eq!(
        naming.sentence,
        "`main.handleJob` grew 20 MiB (100 % of heap growth), at main.go:57 via `bytes.growSlice`"
    );
}

#[test]
fn the_class_follows_what_piles_up() {
    let (base, now) = (heap(&[]), heap(&[(&[CACHE, MAIN], 20 * MIB)]));
    let wait: &[&str] =
        &["runtime.selectgo runtime/select.go 1", "example.com/shop/cache.(*Cache).loop /app/cache/cache.go 40"];
    let conn: &[&str] =
        &["runtime.gopark runtime/proc.go 1", "net/http.(*persistConn).readLoop net/http/transport.go 1"];
    let class = |stack: &[&str], fds: Option<i64>| {
        let (calm, piled) = (goroutines(&[(stack, 1)]), goroutines(&[(stack, 201)]));
        name(&Input { goroutines: Some((Some(&calm), &piled)), fds_growth: fds, ..input(&base, &now) })
    };
    assert_eq!(name(&input(&base, &now)).class, Class::HeapLeak);
    assert_eq!(class(wait, Some(3)).class, Class::GoroutineLeak);
    assert_eq!(class(wait, Some(100)).class, Class::UnclosedHandle, "a descriptor for every other goroutine");
    let unread = class(conn, None);
    assert_eq!(unread.class, Class::UnclosedHandle);
    assert_eq!(unread.remedy, Some("read and close every response body, and share one http.Client"));
    assert_eq!(name(&input(&base, &heap(&[(LEAK, 20 * MIB)]))).class, Class::UnclosedHandle);
    let scan = "database/sql.(*Rows).Scan database/sql/sql.go 1";
    let get = "github.com/redis/go-redis/v9.(*StringCmd).readReply /m/github.com/redis/go-redis/v9@v9.1.0/command.go 1";
    for kept in [scan, get] {
        let naming = name(&input(&base, &heap(&[(&[kept, CACHE, MAIN], 20 * MIB)])));
        assert_eq!((naming.class, naming.remedy), (Class::HeapLeak, None), "results that are kept: {kept}");
    }
}

#[test]
fn what_no_go_profile_shows_is_told_as_such_once_a_collection_was_seen() {
    let (base, now) = (heap(&[(LEAK, MIB)]), heap(&[(LEAK, 2 * MIB)]));
    let far = |now| name(&Input { rss_growth_bytes: Some(200 << 20), ..input(&base, now) });
    let outside = far(&now);
    assert_eq!((outside.class, outside.is_named()), (Class::OutsideGoHeap, false));
    assert_eq!(outside.sentence, "not nameable: most of the growth is outside the Go heap");
    assert_eq!(far(&base).class, Class::Unknown, "the second profile may be as old as the first");
    assert_eq!(name(&input(&base, &now)).class, Class::Unknown);
}
