//! What an app, or whoever speaks for it, can throw at the sidecar: bytes that are nearly StatsD, contexts without end, values
//! that are no numbers. Nothing falls over, memory has its ceiling, sums stay exact, and every loss has a name.
//!
//! The short forms run here; `dev/soak datagrams` and `dev/soak contexts` raise the counts by the variables named below. The
//! tests that look at memory take turns.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use oomwatch::aggregate::{Aggregator, Mode, Settings};
use oomwatch::statsd;
use support::intake::{FakeIntake, Fault};
use support::{Sidecar, rss_bytes, sender, wait_for};
use tokio::sync::Mutex;
use tokio::time::Instant;

const MIB: u64 = 1 << 20;
const KEY: (&str, &str) = ("DD_API_KEY", "0123456789abcdef0123456789abcdef");

/// Held by whoever measures memory or loads both cores.
static TURN: Mutex<()> = Mutex::const_new(());

/// The count of a long form, or the short one.
fn count(variable: &str, short: u64) -> u64 {
    std::env::var(variable).map_or(short, |text| text.parse().unwrap())
}

/// xorshift64*: the same bytes in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

const SEEDS: &[&str] = &[
    "page.views:1|c|@0.5|#env:prod,queue:default",
    "temp:-5.25|g|#host:web1",
    "q:1:2:3:4.5|h|@0.25|c:ci-0123|e:it-false,cn-app|card:low",
    "latency:12e3:nan:7|d|#route:/a/b",
    "t:3|ms|T1700000003",
    "users:someone:else|s|#a,b,c,a",
    "_e{5,4}:title|text|d:17|h:h|k:k|p:low|s:src|t:error|#a:b",
    "_sc|agent.up|2|d:17|h:h1|#a:b|m:it broke",
    "datadog.dogstatsd.client.metrics:12|c|#client:go,client_version:5.9.0",
];
/// What a parser is most likely to trip over.
const SIGNS: &[u8] = b"|:@#,T\n\r_{}-+.0eE\xff\x00";

/// One to three seeds, mostly with a few bytes changed, taken out, put in, or a piece of it repeated.
fn mutated(random: &mut Random, out: &mut Vec<u8>) {
    out.clear();
    for _ in 0..=random.below(3) {
        out.extend_from_slice(SEEDS[random.below(SEEDS.len())].as_bytes());
        out.push(b'\n');
    }
    for _ in 0..random.below(6) {
        let (at, sign) = (random.below(out.len()), SIGNS[random.below(SIGNS.len())]);
        match random.below(5) {
            0 => out[at] = sign,
            1 => out[at] = random.next() as u8,
            2 => out.insert(at, sign),
            3 if out.len() > 1 => drop(out.remove(at)),
            _ => {
                let end = (at + random.below(16)).min(out.len());
                out.extend_from_within(at..end);
            }
        }
    }
}

/// Records so many datagrams in one mode and gives the resident bytes after a tenth of them and at the most after that.
fn survive(datagrams: u64, mode: Mode) -> (u64, u64) {
    let settings =
        Settings { mode, max_contexts: 1_000, max_bytes: 1 << 20, copy_histograms: true, ..Settings::default() };
    let mut aggregator = Aggregator::new(settings);
    let (mut random, mut datagram) = (Random(0x5eed), Vec::new());
    let (mut base, mut most) = (0, 0);
    for n in 0..datagrams {
        mutated(&mut random, &mut datagram);
        let now = 1_700_000_000.0 + n as f64 / 200.0;
        for line in statsd::lines(&datagram) {
            aggregator.record_line(now, line);
        }
        if n % 2_000 == 1_999 {
            let window = aggregator.flush(now);
            assert!(window.points.iter().all(|point| point.value.is_finite()), "datagram {n}");
            let stats = aggregator.stats();
            assert_eq!((stats.line_error(), stats.sample_error()), (0, 0), "datagram {n}");
        }
        if n % (datagrams / 20) == 0 {
            let rss = rss_bytes(std::process::id());
            if n <= datagrams / 10 { base = rss } else { most = most.max(rss) }
        }
    }
    (base, most)
}

#[test]
fn a_million_datagrams_that_are_nearly_statsd_do_no_harm() {
    let _turn = TURN.blocking_lock();
    let short = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
    let datagrams = count("OOMWATCH_HOSTILE_DATAGRAMS", short);
    for mode in [Mode::Intake, Mode::Agent] {
        let began = Instant::now();
        let (base, most) = survive(datagrams / 2, mode);
        let (grown, took) = (most.saturating_sub(base), began.elapsed());
        println!(
            "{mode:?}: {} datagrams in {took:?}, {} KiB resident, {} more at the most",
            datagrams / 2,
            base >> 10,
            grown >> 10
        );
        assert!(grown <= MIB, "{mode:?}: {grown} bytes more than {base}");
    }
}

fn settings(intake: &FakeIntake, more: &str) -> String {
    let (url, pid) = (intake.url(), std::process::id());
    format!("[datadog]\nurl = \"{url}\"\nhostname = \"pod-1\"\n[watch]\npid = {pid}\n{more}")
}

/// What the image sets for the C library's allocator, which otherwise keeps what a flood took.
fn image_env() -> Vec<(String, String)> {
    let dockerfile = std::fs::read_to_string(support::root().join("Dockerfile")).unwrap();
    let words = dockerfile.lines().filter_map(|line| line.strip_prefix("ENV ")).flat_map(str::split_whitespace);
    words.map(|word| word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap()).collect()
}

const KNOWN: u64 = 500;
const NAMES: u64 = 40;
/// Samples of each known context before the flood.
const WARM: u64 = 100;

/// A calm second or two of the known contexts, in datagrams that come close together like a client's.
fn warm_up(sidecar: &Sidecar) {
    let socket = sender(sidecar.statsd[0]);
    for _ in 0..WARM {
        for first in (0..KNOWN).step_by(10) {
            let lines: Vec<String> = (first..first + 10).map(|n| format!("known.{n}:1|c")).collect();
            socket.send(lines.join("\n").as_bytes()).unwrap();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sends `contexts` new contexts of some 120 bytes at `per_second`, and with each ten one more for a context that is known.
fn flood(sidecar: &Sidecar, contexts: u64, per_second: u64) -> u64 {
    let socket = sender(sidecar.statsd[0]);
    let began = Instant::now();
    let (mut datagram, mut most) = (String::new(), 0);
    for first in (0..contexts).step_by(10) {
        datagram.clear();
        for n in first..first + 10 {
            let name = n % NAMES;
            writeln!(datagram, "flood.{name}:1|c|#request:{n:0>64},region:eu-west-1,shard:{:0>12}", n / 7).unwrap();
        }
        writeln!(datagram, "known.{}:1|c", (first / 10) % KNOWN).unwrap();
        socket.send(datagram.as_bytes()).unwrap();
        if first % 1_000 == 0 {
            most = most.max(sidecar.rss_bytes());
            let due = Duration::from_secs_f64(first as f64 / per_second as f64);
            std::thread::sleep(due.saturating_sub(began.elapsed()));
        }
    }
    most
}

fn samples(sidecar: &Sidecar) -> u64 {
    sidecar.metric("oomwatch_statsd_samples_total ").unwrap_or(0.0) as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contexts_without_end_have_a_ceiling_and_exact_sums() {
    let _turn = TURN.lock().await;
    let contexts = count("OOMWATCH_HOSTILE_CONTEXTS", if cfg!(debug_assertions) { 100_000 } else { 200_000 });
    let per_second = (contexts / 10).max(10_000);
    let intake = FakeIntake::start().await;
    let image = image_env();
    let env: Vec<(&str, &str)> =
        image.iter().map(|(name, value)| (name.as_str(), value.as_str())).chain([KEY]).collect();
    let more = "[aggregate]\ninterval = \"2s\"\ncounter_expiry = \"2s\"\nmax_contexts = 10000\n";
    let mut sidecar = Sidecar::start(&settings(&intake, more), &env);
    let (base, most, after) = tokio::task::spawn_blocking(move || {
        warm_up(&sidecar);
        // Their first window is delivered: what receives, encodes and sends has been touched and counts as base.
        wait_for(Duration::from_secs(10), "the known contexts", || {
            (sidecar.metric("oomwatch_points_delivered_total ")? as u64 > KNOWN).then_some(())
        });
        let base = sidecar.rss_bytes();
        let mut most = flood(&sidecar, contexts, per_second);
        wait_for(Duration::from_secs(60), "every sample", || {
            most = most.max(sidecar.rss_bytes());
            (samples(&sidecar) == WARM * KNOWN + contexts + contexts / 10).then_some(())
        });
        let overflowed = sidecar.metric("oomwatch_statsd_overflowed_total ").unwrap_or(0.0) as u64;
        assert!(overflowed > 0 && overflowed <= contexts, "{overflowed} folded");
        let top = sidecar.api("/api/contexts?top=50");
        assert!(top["folded"].as_u64() > Some(0) && top.to_string().contains("flood.0"), "{top}");
        // Twice the time until a counter is forgotten: two windows, and its zeros.
        let after = wait_for(Duration::from_secs(20), "the memory to come back", || {
            let rss = sidecar.rss_bytes();
            (rss <= base + 4 * MIB).then_some(rss)
        });
        for id in ["I2", "I3", "I4"] {
            assert_eq!(sidecar.api("/api/status")["identities"][id], 0, "{id}");
        }
        assert!(sidecar.terminate().success());
        (base, most, after)
    })
    .await
    .unwrap();
    println!("{contexts} contexts at {per_second}/s: {base} bytes resident before, {most} at the most, {after} after");
    assert!(most <= 40 * MIB, "{most} bytes resident");
    let seen = intake.seen();
    let flooded: f64 = (0..NAMES).map(|n| seen.counter(&format!("flood.{n}"))).sum();
    assert_eq!(flooded.round() as u64, contexts, "sums of what was folded and what was not");
    let each = ((contexts / 10).div_ceil(KNOWN) + WARM) as f64;
    for n in 0..KNOWN {
        assert_eq!(seen.counter(&format!("known.{n}")).round(), each, "known.{n}");
    }
}

/// Every kind of wrong in one datagram, with the reason under which each is counted.
const WRONG: &[(&str, &str)] = &[
    ("v.a:NaN|c", "nan"),
    ("v.a:inf|g", "nan"),
    ("v.a:-Inf|h", "nan"),
    ("v.b:1e308:1e308|c\nv.b:-1e308|c", "nan"),
    ("v.a:1e309|c", "parse_value"),
    ("v.a:1|c|@0", "rate"),
    ("v.a:1|d|@1e-300", "rate"),
    ("v.a:1|h|@nan", "rate"),
    ("v.a:1|c|T1", "timestamp"),
    ("v.a:1|g|T99999999999", "timestamp"),
    ("v.a:1|h|T1700000000", "timestamp"),
    ("v.gone:1|c", "filtered"),
    ("v.a:1|c|Tx", "parse_timestamp"),
    ("v.a:1|c|@x", "parse_rate"),
    (":1|c", "parse_name"),
    ("v.a:1|q", "parse_type"),
    ("_e{9,9}:x|y", "parse_event"),
    ("_sc|x|9", "parse_check"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_are_honest_and_our_own_telemetry_is_bounded() {
    let _turn = TURN.lock().await;
    let intake = FakeIntake::start().await;
    let more = "[aggregate]\ninterval = \"1s\"\nmax_contexts = 50\n[filter]\nmetrics = [\"v.gone\"]\n";
    let mut sidecar = Sidecar::start(&settings(&intake, more), &[KEY]);
    intake.fail([Fault::Status(500), Fault::Reset, Fault::Status(400), Fault::Reply(200, "text/html", "<html>")]);
    const ROUNDS: u64 = 200;
    let began = Instant::now();
    let (status, metrics, log) = tokio::task::spawn_blocking(move || {
        let socket = sender(sidecar.statsd[0]);
        let wrong: Vec<&str> = WRONG.iter().map(|(line, _)| *line).collect();
        let pack = format!("v.pack:{}|h", (0..1_000).map(|n| n.to_string()).collect::<Vec<_>>().join(":"));
        for round in 0..ROUNDS {
            socket.send(wrong.join("\n").as_bytes()).unwrap();
            // One name as each type in one window, a pack of a thousand, and tags that never come again.
            let types = format!(
                "v.t:1|c\nv.t:2|g\nv.t:3|h\nv.t:4|d\nv.t:x|s\nv.tag:1|c|#n:{round}\n_e{{5,1}}:title|{}",
                round % 10
            );
            socket.send(types.as_bytes()).unwrap();
            socket.send(pack.as_bytes()).unwrap();
            std::thread::sleep(Duration::from_millis(10));
        }
        let lines = ROUNDS * (WRONG.len() as u64 + 1 + 7 + 1);
        wait_for(Duration::from_secs(20), "every line", || {
            (sidecar.metric("oomwatch_statsd_lines_total ")? as u64 == lines).then_some(())
        });
        let (status, metrics) = (sidecar.api("/api/status"), sidecar.metrics());
        assert!(sidecar.terminate().success());
        (status, metrics, sidecar.log())
    })
    .await
    .unwrap();
    let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
    WRONG.iter().for_each(|(_, reason)| *expected.entry(reason).or_default() += ROUNDS);
    for (reason, times) in expected {
        assert_eq!(status["statsd"]["dropped"][reason], times, "{reason}: {}", status["statsd"]["dropped"]);
    }
    assert_eq!((&status["identities"]["I2"], &status["identities"]["I3"]), (&0.into(), &0.into()));
    let own = metrics.lines().filter(|line| line.starts_with("oomwatch_")).count();
    assert!((20..=300).contains(&own), "{own} series of our own on /metrics");
    check_log(&log, began.elapsed());
    // The fake refuses by itself what is not finite; it checks that when it is dropped.
    let seen = intake.seen();
    let names = |ours: bool| {
        let all = seen.series().into_iter().filter(|it| it.metric.starts_with("oomwatch.") == ours);
        all.map(|it| (it.metric.clone(), it.tags.clone())).collect::<std::collections::BTreeSet<_>>().len()
    };
    assert!((10..=300).contains(&names(true)), "{} series of our own at the intake", names(true));
    assert!(names(false) <= 50 * 5 + 60, "{} series of the app", names(false));
}

/// No story is told more than once in ten seconds: lines that are equal but for their figures are one story.
fn check_log(log: &str, within: Duration) {
    let mut stories: BTreeMap<String, u64> = BTreeMap::new();
    for line in log.lines().filter_map(|line| line.split_once(' ').map(|(_, said)| said)) {
        let story: String = line.chars().filter(|c| !c.is_ascii_digit()).collect();
        *stories.entry(story).or_default() += 1;
    }
    let most = within.as_secs() / 10 + 1;
    let told: Vec<_> = stories.iter().filter(|(_, times)| **times > most).collect();
    assert!(told.is_empty(), "in {within:?}: {told:#?}");
}
