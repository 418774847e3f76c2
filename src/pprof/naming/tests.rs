//! Verdicts on small made-up profiles: who is named, how surely, and why nobody is.

use super::super::testing::{goroutines, heap, heap_of};
use super::*;
use crate::pprof::Look;
use std::time::Duration;

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

/// A look at a heap at a second.
fn look(at: u64, heap: &Profile) -> Look {
    Look::of(Duration::from_secs(at), 100 << 20, heap, None)
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
fn confidence_follows_share_and_growth_that_goes_on() {
    let base = heap(&[]);
    let other: &[&str] = &[CACHE, MAIN];
    let third: &[&str] = &[MAIN];
    let fourth: &[&str] = &["main.d /app/d.go 4"];
    let check = |now: &[(&[&str], i64)], earlier: &[Look], expected: Confidence| {
        let now = heap(now);
        let of_now = look(40, &now);
        let naming = name(&Input { looks: Looks { now: Some(&of_now), earlier }, ..input(&base, &now) });
        assert_eq!(naming.confidence, expected, "{}", naming.sentence);
        naming
    };
    let half = [look(20, &heap(&[(LEAK, 30 * MIB), (other, 20 * MIB)]))];
    check(&[(LEAK, 60 * MIB), (other, 40 * MIB)], &[], Confidence::Medium);
    let sure = check(&[(LEAK, 60 * MIB), (other, 40 * MIB)], &half, Confidence::High);
    assert!(has(&sure, "agreement", "it grew another 30 MiB since a look 20 s ago, more than all else"));
    check(&[(LEAK, 59 * MIB), (other, 41 * MIB)], &half, Confidence::Medium);
    let turned = [look(20, &heap(&[(LEAK, 5 * MIB), (other, 40 * MIB)]))];
    check(&[(LEAK, 40 * MIB), (other, 60 * MIB)], &turned, Confidence::Medium);
    let low = [(LEAK, 29 * MIB), (other, 28 * MIB), (third, 22 * MIB), (fourth, 21 * MIB)];
    let low = check(&low, &[], Confidence::Low);
    assert_eq!(
        low.sentence,
        "no single function stands out in 100 MiB of heap growth in 40 s: `statsd.newStatsdBuffer` 29 %, `cache.(*Cache).Put` 28 %, `main.main` 22 %"
    );
    assert_eq!((low.is_named(), low.remedy), (true, None));
}

#[test]
fn a_cache_that_filled_before_the_first_look_is_no_sure_leak() {
    let (base, now) = (heap(&[]), heap(&[(&[CACHE, MAIN], 36 * MIB)]));
    let (earlier, of_now) = ([look(30, &now), look(90, &now), look(210, &now)], look(450, &now));
    let seen = |earlier, seconds| Input {
        looks: Looks { now: Some(&of_now), earlier },
        ..Input::of_heaps(Some(&base), &now, seconds)
    };
    let full = name(&seen(&earlier, 450.0));
    assert_eq!((full.confidence, full.class), (Confidence::Medium, Class::CacheFills));
    assert!(full.sentence.ends_with(", at cache.go:12; it has not grown for 7 min"), "{}", full.sentence);
    assert!(has(&full, "standstill", "it has not grown since a look 7 min ago, and memory stands"));
    let first = name(&seen(&[], 450.0));
    assert_eq!((first.confidence, first.class), (Confidence::Medium, Class::HeapLeak));
    let (calm, piled) = (goroutines(&[(&[CACHE], 1)]), goroutines(&[(&[CACHE], 51)]));
    let with = Input { goroutines: Some((Some(&calm), &piled)), ..seen(&[], 450.0) };
    assert_eq!(name(&with).confidence, Confidence::High, "goroutines in step");
    let still = Input { goroutines: with.goroutines, ..seen(&earlier, 450.0) };
    assert_eq!(name(&still).confidence, Confidence::Medium, "and yet it stands still");
}

#[test]
fn clients_in_step_are_what_is_counted_and_what_did_not_grow_speaks_against_a_handle() {
    let (base, now) = (heap(&[]), heap(&[(LEAK, 1_248 * MIB)]));
    let (calm, piled) = (goroutines(&[(&[WATCH], 1)]), goroutines(&[(&[WATCH], 309)]));
    let counts = Counts { statsd_clients: Some(312), fds: Some(314), threads: Some(0) };
    let clients = name(&Input { goroutines: Some((Some(&calm), &piled)), counts, ..input(&base, &now) });
    assert!(
        has(&clients, "unit", "312 StatsD clients of about 4.0 MiB of heap each, 468 more a minute"),
        "{clients:#?}"
    );
    assert!(has(&clients, "in_step", "312 StatsD clients more, one for each, 314 file descriptors more, one for each"));
    assert!(has(&clients, "did_not_grow", "threads (+0)"));
    let unseen = name(&Input { counts, ..input(&base, &now) });
    assert!(has(&unseen, "unit", "312 StatsD clients of about 4.0 MiB of heap each, 468 more a minute"));
    let conn: &[&str] = &["net.(*conn).Read net/net.go 1", CACHE];
    let (calm, piled) = (goroutines(&[(conn, 1)]), goroutines(&[(conn, 301)]));
    let class = |fds| {
        let counts = Counts { fds, ..Counts::default() };
        name(&Input { goroutines: Some((Some(&calm), &piled)), counts, ..input(&heap(&[]), &heap(&[])) }).class
    };
    assert_eq!(
        [class(None), class(Some(300)), class(Some(1))],
        [Class::UnclosedHandle, Class::UnclosedHandle, Class::GoroutineLeak]
    );
}

#[test]
fn what_was_allocated_tells_garbage_from_what_lies_outside() {
    let base = heap(&[(LEAK, MIB)]);
    let far = |allocated: i64| {
        // Allocated and dead again, beside what lives.
        let now = heap_of(&[(LEAK, [allocated, 2 * MIB])]);
        name(&Input { rss_growth_bytes: Some(200 << 20), ..input(&base, &now) })
    };
    let outside = far(50 * MIB);
    assert_eq!((outside.class, outside.confidence), (Class::OutsideGoHeap, Confidence::Unknown));
    assert!(has(
        &outside,
        "allocated",
        "48 MiB that was allocated since the baseline is dead, and memory grew 200 MiB: it cannot be garbage of Go"
    ));
    let garbage = far(5_000 * MIB);
    assert_eq!((garbage.class, garbage.confidence), (Class::Garbage, Confidence::Unknown));
    assert_eq!(
        garbage.sentence,
        "not nameable: memory grew and what lives did not: garbage, fragmentation, or memory outside the Go heap"
    );
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
    let (earlier, of_now) = ([look(20, &heap(&[(LEAK, 20 * MIB), (&[CACHE, MAIN], 60 * MIB)]))], look(40, &now));
    let sure = name(&Input { looks: Looks { now: Some(&of_now), earlier: &earlier }, ..input(&base, &now) });
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
    let (earlier, of_now) = ([look(20, &heap(&[(LEAK, 10 * MIB)]))], look(40, &now));
    let looks = Looks { now: Some(&of_now), earlier: &earlier };
    let with = |rss: i64| name(&Input { rss_growth_bytes: Some(rss as u64), looks, ..input(&base, &now) });
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
        let counts = Counts { fds, ..Counts::default() };
        name(&Input { goroutines: Some((Some(&calm), &piled)), counts, ..input(&base, &now) })
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
    let of_now = look(40, &base);
    let looks = Looks { now: Some(&of_now), earlier: &[] };
    let forced = name(&Input { rss_growth_bytes: Some(200 << 20), looks, ..input(&base, &base) });
    assert_eq!(forced.class, Class::OutsideGoHeap, "a collection was forced for the second");
    assert_eq!(name(&input(&base, &now)).class, Class::Unknown);
}
