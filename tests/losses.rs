//! No loss is silent: each reason that the source can count under is reached by a test that looks at its count, and here are
//! the tests of those that no other place reaches.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use oomwatch::aggregate::{Context, Form, Host, Kind, Point, Reason, Suffix, Window};
use oomwatch::pipeline::{Outgoing, wall_clock};
use oomwatch::secret::Secret;
use oomwatch::sink::intake::{Intake, Settings};
use oomwatch::sink::none::Discard;
use oomwatch::snapshot::OutputPart;
use oomwatch::statsd::{self, Event, Message, ServiceCheck};
use regex_lite::Regex;
use support::intake::{FakeIntake, Fault};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

/// Each reason with the file of a test that reaches it, and the words there that assert its count.
const REACHED: &[(&str, &str, &str)] = &[
    ("parse_name", "src/aggregate/conformance.rs", r#"check_drops("q:|c\n:1|c", Reason::ParseName, 1"#),
    ("parse_value", "src/aggregate/conformance.rs", r#"check_drops("a:1e309|c", Reason::ParseValue, 1"#),
    ("parse_type", "src/aggregate/conformance.rs", r#"check_drops("a:1|x\na:1|C", Reason::ParseType, 2"#),
    ("parse_rate", "src/aggregate/conformance.rs", r#"check_drops("a:1|c|@x", Reason::ParseRate, 1"#),
    ("parse_timestamp", "src/aggregate/conformance.rs", r#"check_drops("a:1|c|T-1", Reason::ParseTimestamp, 1"#),
    ("parse_event", "src/aggregate/conformance.rs", r#"check_drops("_e{9,9}:x|y", Reason::ParseEvent, 1"#),
    ("parse_check", "src/aggregate/conformance.rs", r#"check_drops("_sc|x|9", Reason::ParseCheck, 1"#),
    ("nan", "src/aggregate/conformance.rs", r#"check_drops("a:inf|c", Reason::Nan, 1"#),
    ("rate", "src/aggregate/conformance.rs", "Reason::Rate, 3"),
    ("timestamp", "src/aggregate/conformance.rs", r#"check_drops(input, Reason::Timestamp, 1"#),
    ("memory", "src/aggregate/conformance/rules.rs", "stats.dropped(Reason::Copy), stats.samples), (2, 2, 2)"),
    ("copy", "src/aggregate/conformance/rules.rs", "stats.dropped(Reason::Copy), stats.samples), (2, 2, 2)"),
    (
        "filtered",
        "src/aggregate/conformance/rules.rs",
        "stats.dropped(Reason::Filtered), stats.contexts), (4, 1, 3, 1)",
    ),
    ("filtered_points", "src/aggregate/conformance/rules.rs", "(stats.dropped(Reason::FilteredPoints)"),
    ("truncated", "tests/conformance.rs", r#"json!({"truncated": 1})"#),
    ("frame_too_long", "tests/transports.rs", r#"assert_eq!(bench.dropped("frame_too_long"), 1)"#),
    ("connections", "tests/transports.rs", r#"connections\"} "), Some(50.0))"#),
    ("kernel_rcvbuf", "tests/transports.rs", r#"assert_eq!(bench.dropped("kernel_rcvbuf"), dropped"#),
    ("queue_full", "src/pipeline/rollup/tests.rs", r#"[("events_queue_full", 1), ("queue_full", 2)]"#),
    ("queue_full", "tests/sink_intake.rs", r#"let dropped = part.dropped["queue_full"]"#),
    ("events_queue_full", "src/pipeline/rollup/tests.rs", r#"[("events_queue_full", 1), ("queue_full", 2)]"#),
    (
        "shutdown",
        "tests/sink_intake.rs",
        r#"(part.dropped.get("shutdown"), part.dropped.get("event_lost")), (Some(&5), Some(&1))"#,
    ),
    (
        "event_lost",
        "tests/sink_intake.rs",
        r#"(part.dropped.get("shutdown"), part.dropped.get("event_lost")), (Some(&5), Some(&1))"#,
    ),
    ("check_lost", "tests/losses.rs", r#"("check_lost", 1)"#),
    ("too_old", "tests/sink_intake.rs", r#"part.dropped.get("too_old") == Some(&3)"#),
    ("http_400", "tests/sink_intake.rs", r#"part.dropped.get("http_400") == Some(&7)"#),
    ("http_413_single", "tests/sink_intake.rs", r#"part.dropped.get("http_413_single") == Some(&3)"#),
    ("disk_full", "src/sink/dispatch/faults.rs", r#"(world.lost("disk_full"), world.dispatch.memory()), (2, 3_000)"#),
    ("corrupt", "src/sink/dispatch/faults.rs", r#"assert_eq!(world.lost("corrupt"), 1)"#),
    ("encode_name", "tests/sink_intake.rs", r#"("encode_name", 1)"#),
    ("encode_value", "tests/sink_intake.rs", r#"("encode_value", 1)"#),
    ("encode_ahead", "tests/sink_intake.rs", r#"("encode_ahead", 1)"#),
    ("encode_too_large", "src/datadog/encode/tests.rs", "assert_eq!(out.refused, [(Refused::TooLarge, 1)].into())"),
    ("tags_cut", "tests/losses.rs", r#"("tags_cut", 1)"#),
    ("no_output", "tests/losses.rs", r#"("no_output", 2)"#),
    ("agent_unavailable", "tests/sink_agent.rs", r#"[("agent_unavailable", 1_500)].into()"#),
    ("agent_full", "tests/sink_agent.rs", r#"part.dropped["agent_full"] > 0"#),
    ("too_long", "tests/sink_agent.rs", r#"assert_eq!(part.dropped["too_long"], 1)"#),
];

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() { walk(&path, found) } else { found.push(path) }
    }
}

/// Every reason that the source names: the aggregate's by its enum, the others by the places where they are counted.
fn reasons() -> BTreeSet<String> {
    let mut paths = Vec::new();
    walk(&support::root().join("src"), &mut paths);
    let counted = [
        r#"(?:lose|lose_one|note|give_up)\([^;"]*"([a-z0-9_]+)""#,
        r#"Drop\("([a-z0-9_]+)"\)"#,
        r#"Refused::[A-Za-z]+ => "([a-z0-9_]+)""#,
        r#"\("([a-z_]+)", self\.[a-z_]+\)"#,
        r#"DROPPED, Some\("([a-z0-9_]+)"\)"#,
        r#"const [A-Z_]+: &str = "([a-z0-9_]+)"; // reason"#,
    ]
    .map(|pattern| Regex::new(pattern).unwrap());
    let mut found: BTreeSet<String> = Reason::ALL.iter().map(|it| it.label().to_owned()).collect();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|it| it == "rs")) {
        let text = std::fs::read_to_string(path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let looked_at = path.components().any(|it| it.as_os_str() == "sink" || it.as_os_str() == "datadog")
            || path.ends_with("pipeline/watch.rs")
            || path.ends_with("pipeline/rollup/handles.rs");
        if looked_at && !path.ends_with("tests.rs") {
            found.extend(counted.iter().flat_map(|it| it.captures_iter(code)).map(|it| it[1].to_owned()));
        }
    }
    found
}

/// A new reason fails here until a test reaches it and stands in the table.
#[test]
fn every_reason_is_reached_by_a_test_that_asserts_its_count() {
    let reasons = reasons();
    let reached: BTreeSet<String> = REACHED.iter().map(|row| row.0.to_owned()).collect();
    assert!(reasons.len() > 30, "the patterns find them: {reasons:?}");
    let missing: Vec<_> = reasons.difference(&reached).collect();
    let gone: Vec<_> = reached.difference(&reasons).collect();
    assert!(missing.is_empty(), "no test in the table reaches {missing:?}");
    assert!(gone.is_empty(), "the source does not count under {gone:?} any more");
    for (reason, file, words) in REACHED {
        let text = std::fs::read_to_string(support::root().join(file)).unwrap();
        // The table stands in this file too, so a row about it must be found twice.
        let least = if *file == "tests/losses.rs" { 2 } else { 1 };
        assert!(text.matches(words).count() >= least, "{file} does not assert the count of {reason} with {words}");
    }
}

/// Two counters, the second with a tag longer than Datadog takes.
fn window() -> Window {
    let point = |name: &str, tags: &str| Point {
        context: Arc::new(Context::new(Kind::Counter, name, Host::Default, tags, "")),
        suffix: Suffix::None,
        form: Form::Count,
        value: 3.0,
        timestamp: wall_clock() as i64,
        interval_seconds: 10,
    };
    Window { points: vec![point("a", "b:c"), point("d", &format!("e:{}", "f".repeat(300)))], ..Window::default() }
}

fn check() -> ServiceCheck {
    match statsd::parse(b"_sc|alive|0") {
        Ok(Message::Check(check)) => check,
        other => panic!("{other:?}"),
    }
}

async fn through_the_intake(url: &str, messages: Vec<Outgoing>, until: impl Fn(&OutputPart) -> bool) -> OutputPart {
    let (input, output) = mpsc::channel(16);
    let (send, mut status) = watch::channel(Arc::default());
    let settings = Settings {
        hostname: Some("pod-1".into()),
        drain: Duration::from_millis(100),
        ..Settings::new(url, Secret::new("key"))
    };
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(Intake::new(settings).unwrap().run(output, send));
    for message in messages {
        input.send(message).await.unwrap();
    }
    let held = timeout(Duration::from_secs(20), status.wait_for(|part| until(part))).await;
    drop(held.expect("in time").unwrap());
    drop(input);
    tasks.join_next().await.unwrap().unwrap();
    OutputPart::clone(&status.borrow())
}

#[tokio::test]
async fn tags_that_are_cut_are_counted_and_their_point_is_sent() {
    let intake = FakeIntake::start().await;
    let sent = |part: &OutputPart| part.last_success.is_some();
    let part = through_the_intake(&intake.url(), vec![Outgoing::Window(window())], sent).await;
    assert_eq!(part.dropped, BTreeMap::from([("tags_cut", 1)]));
    assert_eq!((intake.seen().series().len(), part.identities["I4"]), (2, 0));
}

#[tokio::test]
async fn a_check_that_is_not_understood_is_counted_apart_from_events_and_points() {
    let intake = FakeIntake::start().await;
    intake.fail_always(Some(Fault::Status(400)));
    let check = Outgoing::Check(check());
    let lost = |part: &OutputPart| part.dropped.contains_key("check_lost");
    let part = through_the_intake(&intake.url(), vec![check], lost).await;
    assert_eq!(part.dropped, BTreeMap::from([("check_lost", 1)]));
}

#[tokio::test]
async fn without_an_output_everything_is_counted_by_its_kind() {
    let (send, input) = mpsc::channel(4);
    let (status, seen) = watch::channel(Arc::default());
    for message in [Outgoing::Window(window()), Outgoing::Event(Event::default()), Outgoing::Check(check())] {
        send.send(message).await.unwrap();
    }
    drop(send);
    Discard::new(|| 0.0).run(input, status).await;
    let expected = BTreeMap::from([("check_lost", 1), ("event_lost", 1), ("no_output", 2)]);
    assert_eq!((&seen.borrow().dropped, seen.borrow().identities["I4"]), (&expected, 0));
}

/// The first success may never come: the age must grow from the start, or an alert on it would never fire.
#[tokio::test]
async fn the_age_of_the_last_success_grows_while_nothing_is_delivered() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _local = metrics::set_default_local_recorder(&recorder);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (input, output) = mpsc::channel(16);
    let (send, _status) = watch::channel(Arc::default());
    let mut tasks = tokio::task::JoinSet::new();
    let settings =
        Settings { hostname: Some("pod-1".into()), ..Settings::new(&format!("http://{nobody}"), Secret::new("key")) };
    tasks.spawn(Intake::new(settings).unwrap().run(output, send));
    input.send(Outgoing::Window(window())).await.unwrap();
    let age = || {
        let text = recorder.handle().render();
        let row = text.lines().find_map(|line| line.strip_prefix("oomwatch_output_last_success_age_seconds "));
        row.map_or(0.0, |value| value.parse::<f64>().unwrap())
    };
    for least in [1.0, 2.0] {
        let grown = async {
            while age() < least {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(20), grown).await.expect("it grows");
    }
}
