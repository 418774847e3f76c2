//! One line into the aggregate. The must is 120 ns (median) for a known context; `docs/benchmarks.md` has the figures.
//!
//! `cargo bench --bench record` (add `--profile ci` for a build that takes seconds).

use divan::Bencher;
use divan::counter::ItemsCount;
use oomwatch::aggregate::{Aggregator, Settings};

const NOW: f64 = 1_700_000_001.0;

fn main() {
    divan::main();
}

fn aggregator() -> Aggregator {
    Aggregator::new(Settings { max_contexts: 200_000, max_bytes: 256 << 20, ..Settings::default() })
}

/// The mix of `bench/loadgen.c`: half counters, the rest gauges, distributions and timings, 5 tags, 68 bytes.
fn lines(contexts: usize) -> Vec<String> {
    let line = |n: usize| {
        // Contexts in an order that no prefetcher guesses.
        let context = n.wrapping_mul(2_654_435_761) % contexts;
        let (kind, value) = match context % 10 {
            0..5 => ("c", "3"),
            5..7 => ("g", "7"),
            7..9 => ("d", "369.658"),
            _ => ("ms", "245.418"),
        };
        let name = context % 100;
        format!("bench.req.{kind}.m{name:03}:{value}|{kind}|#ep:{context:07},env:prod,svc:api,az:us1a,ver:1.42")
    };
    (0..contexts.max(1_000)).map(line).collect()
}

/// Known contexts, `loadgen`'s mix; the time is that of all lines, the rate that of one.
#[divan::bench(args = [1_000, 100_000], sample_count = 200)]
fn known(bencher: Bencher<'_, '_>, contexts: usize) {
    let lines = lines(contexts);
    let mut aggregator = aggregator();
    lines.iter().for_each(|line| drop(aggregator.record_line(NOW, line.as_bytes())));
    let mut now = NOW;
    bencher.counter(ItemsCount::new(lines.len())).bench_local(|| {
        lines.iter().for_each(|line| drop(aggregator.record_line(now, line.as_bytes())));
        // The window is closed with each round: what a sample costs later belongs to it.
        now += 10.0;
        aggregator.flush(now)
    });
}

/// One line of each type over and over.
#[divan::bench(args = ["a.b:3|c|#x:y,z:1", "a.b:3|g|#x:y,z:1", "a.b:3.25|d|#x:y,z:1", "a.b:u1|s|#x:y,z:1", "a.b:1:2:3|c|#x:y,z:1"])]
fn one(bencher: Bencher<'_, '_>, line: &str) {
    let mut aggregator = aggregator();
    aggregator.record_line(NOW, line.as_bytes());
    bencher.bench_local(|| aggregator.record_line(NOW, divan::black_box(line.as_bytes())));
}

/// Lines of contexts that were never seen.
#[divan::bench(sample_count = 50)]
fn new_contexts(bencher: Bencher<'_, '_>) {
    let lines = lines(10_000);
    bencher.counter(ItemsCount::new(lines.len())).with_inputs(aggregator).bench_local_values(|mut aggregator| {
        lines.iter().for_each(|line| drop(aggregator.record_line(NOW, line.as_bytes())));
        aggregator
    });
}
