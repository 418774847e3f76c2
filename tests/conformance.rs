//! Rows of conformance with DataDog/datadog-agent, each driven as bytes through a UDP socket of the real sidecar and read
//! where it arrives: at an intake, or at the socket that stands for an Agent. `docs/statsd.md` says where we differ and why.
//!
//! A row is one datagram, which the sidecar takes in one piece, so it never falls into two windows; its names begin with its
//! number. The default interval of ten seconds is kept, and SIGTERM spares the wait.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::UdpSocket;
use std::time::Duration;

use oomwatch::datadog::proto::{MetricSeries, MetricType};
use serde_json::{Value, json};
use support::intake::{FakeIntake, Seen};
use support::{Sidecar, sender, wait_for};

const KEY: (&str, &str) = ("DD_API_KEY", "0123456789abcdef0123456789abcdef");

fn settings(intake: &FakeIntake, more: &str) -> String {
    let (url, pid) = (intake.url(), std::process::id());
    format!("[datadog]\nurl = \"{url}\"\nhostname = \"pod-1\"\nown_metrics = false\n[watch]\npid = {pid}\n{more}")
}

/// What arrived under names that begin with `row.`, as text that leaves out what is the default: form, value, second where
/// the row is about it, tags, host. Zeros of idle counters are left out.
fn told(seen: &Seen, row: &str) -> Vec<String> {
    let prefix = format!("{row}.");
    let mut told: Vec<String> =
        seen.series().into_iter().filter(|it| it.metric.contains(&prefix)).flat_map(points).collect();
    for sketch in seen.sketches().into_iter().filter(|it| it.metric.starts_with(&prefix)) {
        for dog in &sketch.dogsketches {
            let bins: Vec<String> = dog.k.iter().zip(&dog.n).map(|(k, n)| format!(" {k}:{n}")).collect();
            told.push(format!("{} sketch n={} sum={}{}", sketch.metric, dog.cnt, dog.sum, bins.concat()));
        }
    }
    told.sort();
    told
}

fn points(series: &MetricSeries) -> Vec<String> {
    let form = match series.r#type() {
        MetricType::Rate => format!("rate/{}", series.interval),
        MetricType::Count => format!("count/{}", series.interval),
        _ => "gauge".to_owned(),
    };
    let tags = if series.tags.is_empty() { String::new() } else { format!(" #{}", series.tags.join(",")) };
    let host = series.resources.iter().find(|it| it.r#type == "host").map_or("none", |it| &it.name);
    let host = if host == "pod-1" { String::new() } else { format!(" host={host}") };
    let shown = series.points.iter().filter(|it| it.value != 0.0 || series.r#type() == MetricType::Gauge);
    let at = |second: i64| if series.metric.ends_with(".at") { format!(" @{second}") } else { String::new() };
    shown.map(|it| format!("{} {form} {}{}{tags}{host}", series.metric, it.value, at(it.timestamp))).collect()
}

/// Sends each row, ends the sidecar, and compares; every row that is off is named.
async fn check(more: &str, rows: &[(&str, String, &[&str])]) {
    let intake = FakeIntake::start().await;
    let mut sidecar = Sidecar::start(&settings(&intake, more), &[KEY]);
    let socket = sender(sidecar.statsd[0]);
    for (_, datagram, _) in rows {
        socket.send(datagram.as_bytes()).unwrap();
    }
    end(&mut sidecar);
    let seen = intake.seen();
    let off: Vec<String> = rows
        .iter()
        .map(|(row, datagram, expected)| (row, datagram, *expected, told(&seen, row)))
        .filter(|(_, _, expected, found)| expected != found)
        .map(|(row, datagram, expected, found)| {
            format!("{row} {datagram:?}\n  expected {expected:#?}\n  found {found:#?}")
        })
        .collect();
    assert!(off.is_empty(), "{}", off.join("\n"));
}

fn end(sidecar: &mut Sidecar) {
    assert_eq!(sidecar.terminate().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_arrive_as_the_agent_sends_them() {
    let at = oomwatch::pipeline::wall_clock() as i64 - 100;
    let text = str::to_owned;
    let stamped = [format!("r34.c.at rate/10 2 @{at}"), format!("r34.g.at gauge 7 @{at}")];
    let stamped = stamped.each_ref().map(String::as_str);
    let sampled = format!("r20.q.count rate/10 {}", 1.0 / 0.3 / 10.0);
    let rows: &[(&str, String, &[&str])] = &[
        ("r01", text("r01.page.views:1|c"), &["r01.page.views rate/10 0.1"]),
        ("r03", text("r03.temp:10|g\nr03.temp:-5|g"), &["r03.temp gauge -5"]),
        (
            "r05",
            text("r05.q:1:2:3|h"),
            &[
                "r05.q.95percentile gauge 3",
                "r05.q.avg gauge 2",
                "r05.q.count rate/10 0.3",
                "r05.q.max gauge 3",
                "r05.q.median gauge 2",
            ],
        ),
        ("r08", text("r08.q:1::3|d"), &["r08.q sketch n=2 sum=4 1338:1 1409:1"]),
        ("r14", text("r14.u:abc:def|s\nr14.u:abc|s\nr14.u:abc|s"), &["r14.u gauge 2"]),
        ("r16", text("r16.a:1|c|@0.5"), &["r16.a rate/10 0.2"]),
        ("r18", text("r18.a:5|g|@0.1\nr18.u:x|s|@0.1"), &["r18.a gauge 5", "r18.u gauge 1"]),
        // Ours: the Agent says avg 11.11 and count 0.3.
        (
            "r20",
            text("r20.q:10|h|@0.3"),
            &[
                "r20.q.95percentile gauge 10",
                "r20.q.avg gauge 10",
                &sampled,
                "r20.q.max gauge 10",
                "r20.q.median gauge 10",
            ],
        ),
        ("r22", text("r22.a:1|c|#"), &["r22.a rate/10 0.1"]),
        ("r24", text("r24.a:1|c|#x,y\nr24.a:1|c|#y,x,x"), &["r24.a rate/10 0.2 #x,y"]),
        ("r26", text("r26.a:1|c|#host:web1,env:p"), &["r26.a rate/10 0.1 #env:p host=web1"]),
        ("r28", text("r28.a:1|c|#dd.internal.entity_id:U1,dd.internal.card:low,k:v"), &["r28.a rate/10 0.1 #k:v"]),
        ("r30", text("r30.a:1|c||#x"), &["r30.a rate/10 0.1 #x"]),
        // The origin splits no series on the way to the intake.
        ("r32", text("r32.a:1|c|c:abc\nr32.a:1|c|c:in-42\nr32.a:1|c|c:in-xyz"), &["r32.a rate/10 0.3"]),
        ("r34", format!("r34.g.at:7|g|T{at}\nr34.c.at:20|c|@0.5|T{at}"), &stamped),
    ];
    check("", rows).await;
}

/// What a row made the drop counts grow by.
fn dropped(sidecar: &Sidecar, datagrams: u64, before: &Value) -> Value {
    let status = wait_for(Duration::from_secs(5), "the datagram", || {
        let status = sidecar.api("/api/status");
        (status["statsd"]["datagrams"].as_u64()? == datagrams).then_some(status)
    });
    let mut grown = serde_json::Map::new();
    for (reason, total) in status["statsd"]["dropped"].as_object().unwrap() {
        let more = total.as_u64().unwrap() - before["statsd"]["dropped"][reason].as_u64().unwrap_or(0);
        if more > 0 {
            grown.insert(reason.clone(), more.into());
        }
    }
    Value::Object(grown)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_counted_and_the_rest_of_its_packet_kept() {
    let intake = FakeIntake::start().await;
    let mut sidecar = Sidecar::start(&settings(&intake, ""), &[KEY]);
    let socket = sender(sidecar.statsd[0]);
    let line = format!("r42.a:1|c|#{}\n", "x".repeat(88));
    let rows: [(&str, String, Value, &[&str]); 8] = [
        ("r10", "r10.q:|c\n:1|c".into(), json!({"parse_value": 1, "parse_name": 1}), &[]),
        ("r12", "r12.a:1|x\nr12.a:1|C".into(), json!({"parse_type": 2}), &[]),
        ("r36", "r36.a:5|h|T1700000003".into(), json!({"timestamp": 1}), &[]),
        ("r38", "r38.a:inf|c".into(), json!({"nan": 1}), &[]),
        (
            "r40",
            "r40.a:1|c\r\nr40.b:2|c\n\nbad\nr40.c:3|c".into(),
            json!({"parse_type": 1}),
            &["r40.a rate/10 0.1", "r40.b rate/10 0.2", "r40.c rate/10 0.3"],
        ),
        // 8,192 bytes hold 81 whole lines of 100; ours: the cut one is not parsed.
        ("r42", line.repeat(90), json!({"truncated": 1}), &["r42.a rate/10 8.1"]),
        (
            "r52",
            "_e{0,4}:|text\n_e{5,4}:title|tex\n_e{-1,4}:x|text\n_e{5,4}title|text".into(),
            json!({"parse_event": 4}),
            &[],
        ),
        // Ours: the Agent takes such rates, and an infinity goes out.
        ("r53", "r53.a:1|c|@0\nr53.b:1|h|@2\nr53.c:1|g".into(), json!({"rate": 2}), &["r53.c gauge 1"]),
    ];
    for (datagrams, (row, datagram, expected, _)) in (1..).zip(&rows) {
        let before = sidecar.api("/api/status");
        socket.send(datagram.as_bytes()).unwrap();
        assert_eq!(&dropped(&sidecar, datagrams, &before), expected, "{row} {datagram:?}");
    }
    end(&mut sidecar);
    let seen = intake.seen();
    for (row, datagram, _, expected) in rows {
        let mut found = told(&seen, row);
        found.iter_mut().for_each(|line| *line = line.split(" #").next().unwrap().to_owned());
        assert_eq!(found, expected, "{row} {datagram:?}");
    }
    assert!(seen.events().is_empty(), "r52: {:?}", seen.events());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r46_a_gauge_is_sent_once_and_an_idle_counter_as_zero() {
    let intake = FakeIntake::start().await;
    let sidecar = Sidecar::start(&settings(&intake, "[aggregate]\ninterval = \"1s\"\n"), &[KEY]);
    sender(sidecar.statsd[0]).send(b"r46.g:7|g\nr46.c:1|c").unwrap();
    let of = |seen: &Seen, name: &str| -> Vec<f64> {
        seen.series().into_iter().filter(|it| it.metric == name).flat_map(|it| &it.points).map(|it| it.value).collect()
    };
    intake.wait_for("zeros of the counter", Duration::from_secs(15), |seen| of(seen, "r46.c").len() >= 4).await;
    let seen = intake.seen();
    assert_eq!(of(&seen, "r46.g"), [7.0], "r46");
    assert_eq!(of(&seen, "r46.c")[..4], [1.0, 0.0, 0.0, 0.0], "r46");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_and_checks_arrive_with_their_defaults() {
    let intake = FakeIntake::start().await;
    let mut sidecar = Sidecar::start(&settings(&intake, ""), &[KEY]);
    let socket = sender(sidecar.statsd[0]);
    let began = oomwatch::pipeline::wall_clock() as i64;
    for datagram in [
        "_e{5,4}:title|text",
        "_e{5,6}:r50.t|a\\nb\\n",
        "_sc|r54.up|0\n_sc|r54.x|2|d:17|h:h1|#a:b|m:it\\nbroke",
        "_e{5,4}:r49.t|text|d:17|h:h|k:k|p:low|s:src|t:error|#a:b,c",
    ] {
        socket.send(datagram.as_bytes()).unwrap();
    }
    end(&mut sidecar);
    let seen = intake.seen();
    let event = |title: &str| {
        let found = seen.events().into_iter().find(|event| event["title"] == title).cloned();
        found.unwrap_or_else(|| panic!("no {title} in {:?}", seen.events()))
    };
    let mut plain = event("title");
    let now = plain["date_happened"].take().as_i64().unwrap();
    assert!((began..began + 60).contains(&now), "r48: {now}");
    let expected = json!({"title": "title", "text": "text", "date_happened": null, "priority": "normal", "alert_type": "info",
        "source_type_name": "api", "host": "pod-1", "tags": []});
    assert_eq!(plain, expected, "r48");
    let expected = json!({"title": "r49.t", "text": "text", "date_happened": 17, "priority": "low", "alert_type": "error",
        "source_type_name": "src", "host": "h", "aggregation_key": "k", "tags": ["a:b", "c"]});
    assert_eq!(event("r49.t"), expected, "r49");
    assert_eq!(event("r50.t")["text"], "a\nb\n", "r50");
    let check = |name: &str| (*seen.checks().iter().find(|check| check["check"] == name).unwrap()).clone();
    assert_eq!((&check("r54.up")["status"], &check("r54.up")["host_name"]), (&json!(0), &json!("pod-1")), "r54");
    let expected = json!({"check": "r54.x", "host_name": "h1", "status": 2, "timestamp": 17, "message": "it\\nbroke",
        "tags": ["a:b"]});
    assert_eq!(check("r54.x"), expected, "r54");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r56_the_namespace_spares_the_agents_prefixes() {
    check(
        "[aggregate]\nnamespace = \"app\"\n",
        &[("r56", "r56.a:1|c\njvm.r56.heap:1|g".into(), &["app.r56.a rate/10 0.1", "jvm.r56.heap gauge 1"])],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r58_names_are_mapped_filtered_and_copied() {
    let more = r#"
[aggregate]
histogram_copy_to_distribution = true
histogram_aggregates = ["max", "count"]
histogram_percentiles = []
[filter]
metrics = ["r59.gone", "r59.q.max"]
tags = [{ metric = "r60.a", action = "exclude", tags = ["user"] }]
[[mapper]]
name = "jobs"
prefix = "job."
mappings = [{ match = "job.*.done", name = "r58.job.done", tags = { kind = "$1" } }]
"#;
    let rows: &[(&str, String, &[&str])] = &[
        ("r58", "job.mail.done:1|c".into(), &["r58.job.done rate/10 0.1 #kind:mail"]),
        (
            "r59",
            "r59.gone:1|c\nr59.q:1:3|h".into(),
            &["r59.q sketch n=2 sum=4 1338:1 1409:1", "r59.q.count rate/10 0.2"],
        ),
        ("r60", "r60.a:1|c|#user:1,k:v\nr60.a:1|c|#k:v,user:2".into(), &["r60.a rate/10 0.2 #k:v"]),
    ];
    check(more, rows).await;
}

#[test]
fn an_agent_behind_us_gets_what_the_app_sent() {
    let agent = UdpSocket::bind("127.0.0.1:0").unwrap();
    agent.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let settings = format!(
        "[datadog]\noutput = \"agent\"\nown_metrics = false\n[datadog.agent]\ndogstatsd = \"udp://{}\"\n[watch]\npid = {}\n",
        agent.local_addr().unwrap(),
        std::process::id()
    );
    let mut sidecar = Sidecar::start(&settings, &[]);
    let socket = sender(sidecar.statsd[0]);
    for datagram in [
        "r05.q:1:2.50:3|h\nr14.u:abc:def|s\nr14.u:abc|s\nr14.u:abc|s\nr16.a:1|c|@0.5\nr16.a:2|c",
        "r26.a:1|g|#host:web1,env:p\nr28.a:1|c|#dd.internal.entity_id:U1,dd.internal.card:low,k:v",
        "r32.a:1|c|c:abc\nr32.a:1|c|c:in-42|e:it-0|card:low\nr32.a:1|c|c:abc",
        "_e{5,6}:r50.t|a\\nb\\n|d:17|h:h|k:k|p:low|s:src|t:error|#a:b,c|c:x\n_sc|r54.x|2|d:17|h:h1|#a:b|m:m: it\\nbroke",
    ] {
        socket.send(datagram.as_bytes()).unwrap();
    }
    end(&mut sidecar);
    let mut lines = Vec::new();
    let mut bytes = [0; 8192];
    while let Ok(n) = agent.recv(&mut bytes) {
        lines.extend(String::from_utf8_lossy(&bytes[..n]).lines().map(str::to_owned));
    }
    lines.sort();
    let mut expected = [
        "_e{5,6}:r50.t|a\\nb\\n|d:17|h:h|k:k|p:low|s:src|t:error|#a:b,c|c:x",
        "_sc|r54.x|2|d:17|h:h1|#a:b|m:m: it\\nbroke",
        "r05.q:1:2.50:3|h",
        "r14.u:abc:def|s",
        "r14.u:abc|s",
        "r16.a:4|c",
        "r26.a:1|g|#host:web1,env:p",
        "r28.a:1|c|#dd.internal.entity_id:U1,dd.internal.card:low,k:v",
        "r32.a:1|c|c:in-42|e:it-0|card:low",
        "r32.a:2|c|c:abc",
    ];
    expected.sort_unstable();
    assert_eq!(lines, expected);
}
