//! Events as a person reads them: one whole text of each kind, and what must hold of any.

use std::path::PathBuf;
use std::time::Duration;

use super::super::incident::KeptProfile;
use super::*;
use crate::detect::Alert;
use crate::pprof::Culprit;
use crate::pprof::{Confidence, Naming, Unit};

const MIB: u64 = 1 << 20;
/// 03:00 UTC.
const NOW: f64 = 1_767_236_400.0;

fn alert(kind: AlertKind, rule: &'static str, evidence: &str) -> Alert {
    Alert {
        kind,
        severity: Severity::Warn,
        rule,
        at: Duration::ZERO,
        per_second: 1e5,
        time_to_limit: None,
        evidence: evidence.into(),
    }
}

fn incident(kind: AlertKind, alert: Alert) -> Incident {
    let kind = IncidentKind::Alert(kind);
    let mut incident = Incident::open("6955e0a801".into(), kind, Severity::Warn, "orders-worker".into(), NOW - 180.0);
    incident.join(alert);
    incident
}

fn buffer() -> Culprit {
    Culprit {
        function: "statsd.newStatsdBuffer".into(),
        grew_bytes: 148 * MIB as i64,
        share: 0.94,
        made_by: "main.handleJob".into(),
        made_by_file: "/app/handler.go".into(),
        made_by_line: 37,
        via: "statsd.New".into(),
        ..Culprit::default()
    }
}

fn goroutines() -> Culprit {
    Culprit {
        function: "main.query.func1".into(),
        made_by: "main.query.func1".into(),
        made_by_file: "/app/main.go".into(),
        made_by_line: 30,
        grew_objects: 300,
        grew_bytes: 300 * 2_048,
        share: 1.0,
        unit: Unit::Goroutines,
        ..Culprit::default()
    }
}

fn naming(confidence: Confidence, class: Class, culprits: Vec<Culprit>, sentence: &str) -> Naming {
    Naming { confidence, class, sentence: sentence.into(), culprits, evidence: Vec::new(), remedy: None }
}

/// The origin's leak, as the round on its alarm names it.
fn named() -> Incident {
    let evidence = "312 StatsD clients open, 310 more in 40 min: one more every 7.7 s";
    let mut incident = incident(AlertKind::ClientLeak, alert(AlertKind::ClientLeak, "clients", evidence));
    incident.join(alert(AlertKind::MemoryGrowth, "trend_60s", "rose 84 MiB in 32 min, and the floor with it"));
    let sentence = "`statsd.newStatsdBuffer` grew 148 MiB (94 % of heap growth) in 40 min, made in `main.handleJob` \
                    (handler.go:37) via `statsd.New`";
    let mut naming = naming(Confidence::High, Class::UnclosedHandle, vec![buffer()], sentence);
    let class = "unclosed handle: connections, rows, files or clients are made and not closed";
    naming.evidence = [
        ("class", class),
        ("goroutines", "goroutines +1240 in 4 groups of equal size (+310 each): statsd.(*Client).watch"),
    ]
    .map(|(kind, words)| (kind.to_owned(), words.to_owned()))
    .into();
    naming.remedy = Some("make one StatsD client at start, reuse it, and close it at shutdown");
    incident.learn(naming);
    let kept = |id: &str, kind, reason: &str| KeptProfile {
        id: id.into(),
        kind,
        reason: reason.into(),
        taken_at: 0.0,
        bytes: 1,
    };
    incident.profiles = vec![
        kept("18867a3f2c41b001", "heap_gc", "baseline"),
        kept("18867c71f0a3b002", "heap", "client_leak"),
        kept("18867c7214d7b003", "heap_gc", "client_leak"),
        kept("18867c7299c1b004", "goroutine", "client_leak"),
    ];
    incident
}

fn figures() -> Figures {
    Figures {
        memory_bytes: 198 * MIB,
        limit_bytes: Some(256 * MIB),
        slope_bytes_per_second: Some(4.1 * MIB as f64 / 60.0),
        time_to_limit: Some(Duration::from_secs(14 * 60 + 10)),
        statsd_clients: Some(312),
        goroutines: Some(1_254),
        threads: Some(9),
        fds: Some(322),
        restarts: 3,
        ..Figures::default()
    }
}

fn footing() -> Footing {
    let mut footing = Footing::default();
    footing.appeared(NOW - 20_000.0);
    footing.appeared(NOW - 2_500.0);
    let well = Figures {
        memory_bytes: 28 * MIB,
        statsd_clients: Some(2),
        goroutines: Some(14),
        threads: Some(9),
        fds: Some(12),
        healthy: true,
        ..Figures::default()
    };
    footing.see(&well, NOW - 2_500.0);
    footing.see(&well, NOW - 2_440.0);
    footing
}

fn who() -> Identity {
    Identity {
        service: "orders-worker".into(),
        pod: Some("orders-worker-7c9d".into()),
        namespace: Some("shop".into()),
        page_url: "http://127.0.0.1:7070".into(),
        page_port: 7070,
        profile_dir: Some(PathBuf::from("/var/lib/oomwatch/profiles")),
        ..Identity::default()
    }
}

fn told(mut incident: Incident, turn: &Turn, figures: &Figures, who: &Identity) -> Event {
    if incident.verdict.is_empty() {
        incident.verdict = super::super::words::verdict(&incident, figures);
    }
    let event = event(&incident, turn, &Scene { figures, footing: &footing(), who, now: NOW });
    assert!(event.text.chars().count() <= 4_000 && event.title.chars().count() <= 100, "{event:?}");
    assert!(event.text.starts_with("%%% \n") && event.text.ends_with("\n %%%"), "{}", event.text);
    // `cargo test event::tests -- --nocapture` shows all of them.
    println!("{}\n{}\n{:?}\n", event.title, event.text, event.tags);
    event
}

#[test]
fn the_leak_with_its_name_is_told_in_full_as_the_operations_page_shows_it() {
    let event = told(named(), &Turn::Named, &figures(), &who());
    assert_eq!(event.title, "orders-worker leaks in statsd.newStatsdBuffer: limit in 14 min");
    assert!(event.tags.contains(&"oomwatch_culprit:main.handleJob".to_owned()));
    let page = include_str!("../../../docs/operations.md");
    let shown = page.split("\n```\n").find(|block| block.starts_with(&event.title)).expect("it is shown");
    assert_eq!(event.text.trim_matches(['%', ' ', '\n']), shown[event.title.len()..].trim());
}

#[test]
fn three_that_share_the_growth_are_listed_and_nobody_is_accused() {
    let ten = (0..10).map(|n| Culprit { function: format!("main.f{n}"), share: 0.1, ..buffer() }).collect();
    let sentence = "no single function stands out in 90 MiB of heap growth: `main.f0` 10 %, `main.f1` 10 %";
    let mut story = incident(AlertKind::MemoryGrowth, alert(AlertKind::MemoryGrowth, "trend_60s", "rose 84 MiB"));
    story.learn(naming(Confidence::Low, Class::HeapLeak, ten, sentence));
    assert_eq!(story.state, State::Open);
    let event = told(story.clone(), &Turn::Unnamed, &figures(), &who());
    assert_eq!(event.title, "orders-worker: memory grows towards its limit: limit in 14 min");
    assert!(!event.text.contains("leaks") && !event.tags.iter().any(|tag| tag.contains("culprit")), "{event:?}");
    assert!(["f0", "f1", "f2"].iter().all(|it| event.text.contains(&format!("- `main.{it}` made by"))));
    assert!(!event.text.contains("- `main.f3`"));
    story.close(State::Killed, "gone".into(), NOW);
    assert_eq!(told(story, &Turn::Ended, &figures(), &who()).title, "orders-worker was OOM-killed");
}

#[test]
fn goroutines_are_counted_and_an_owner_that_is_not_known_is_left_out() {
    let evidence = "1254 goroutines, 300 more in 5 min";
    let mut story = incident(AlertKind::GoroutineLeak, alert(AlertKind::GoroutineLeak, "goroutines", evidence));
    let nobody = Culprit { function: "sql.(*DB).connectionOpener".into(), made_by: String::new(), ..goroutines() };
    let nobody = Culprit { made_by_file: String::new(), made_by_line: 0, ..nobody };
    story.learn(naming(Confidence::Medium, Class::GoroutineLeak, vec![nobody, goroutines()], "300 more goroutines"));
    let event = told(story, &Turn::Named, &figures(), &who());
    let lines = "- `sql.(*DB).connectionOpener`: 300 more goroutines, 100 % of their growth\n\
                 - `main.query.func1` (/app/main.go:30): 300 more goroutines, 100 % of their growth\n";
    assert!(
        event.text.contains(lines) && !event.text.contains("600 KiB") && !event.text.contains("``"),
        "{}",
        event.text
    );
    assert!(event.tags.contains(&"oomwatch_culprit:sql.(*DB).connectionOpener".to_owned()), "{:?}", event.tags);
}

#[test]
fn growth_that_no_profile_shows_says_so_in_its_title() {
    let mut story = incident(AlertKind::MemoryGrowth, alert(AlertKind::MemoryGrowth, "trend_10s", "rose 41 MiB"));
    let sentence = "not nameable: most of the growth is outside the Go heap";
    story.learn(naming(Confidence::Unknown, Class::OutsideGoHeap, Vec::new(), sentence));
    let event = told(story, &Turn::Unnamed, &figures(), &who());
    assert_eq!(event.title, "orders-worker: memory grows outside the profiled heap: limit in 14 min");
    assert!(event.text.contains(sentence) && event.text.contains("alert.expected"), "{}", event.text);
}

#[test]
fn what_is_new_stands_in_a_line_of_its_own() {
    let nearer = Turn::Nearer { left: Duration::from_secs(1_800), told_at: NOW - 600.0 };
    let text = told(named(), &nearer, &figures(), &who()).text;
    assert!(text.contains("- worse: when last told, at 02:50 UTC, the limit was 30 min away\n"), "{text}");
    let text = told(named(), &Turn::Renamed("main.`x`".into()), &figures(), &who()).text;
    assert!(text.contains("- told before: `main.'x'`; a later look says otherwise\n"), "{text}");
    told(named(), &Turn::Surer, &figures(), &who());
}

#[test]
fn an_end_promises_no_kill_and_a_restart_only_what_is_known() {
    let mut killed = named();
    killed.close(State::Killed, "orders-worker was killed by the kernel for memory".into(), NOW);
    let text = told(killed, &Turn::Ended, &figures(), &who()).text;
    assert!(!text.contains("the kill comes in") && !text.contains("alert.expected"), "{text}");
    assert!(text.contains("at that rate the next life lasts about 55 min, from 28 MiB up to the limit"), "{text}");

    let mut over = named();
    over.close(State::Recovered, "orders-worker is over".into(), NOW);
    let text = told(over, &Turn::Ended, &figures(), &who()).text;
    assert!(!text.contains("restart") || text.contains("restarted 3 times"), "{text}");
    assert!(!text.contains("the other reading"), "{text}");

    let unknown = Figures { slope_bytes_per_second: None, time_to_limit: None, restarts: 0, ..figures() };
    let text = told(named(), &Turn::Opened, &unknown, &who()).text;
    assert!(!text.contains("restart") && !text.contains("a minute"), "{text}");
}

#[test]
fn the_difference_can_be_seen_without_a_disk_and_without_a_cluster() {
    let plain = Identity { pod: None, namespace: None, ..who() };
    let text = told(named(), &Turn::Named, &figures(), &plain).text;
    let dir = "/var/lib/oomwatch/profiles";
    let command =
        format!("`oomwatch profile diff {dir}/18867a3f2c41b001.heap_gc.pb.gz {dir}/18867c7214d7b003.heap_gc.pb.gz`");
    assert!(text.contains(&command), "{text}");
    let memory = Identity { profile_dir: None, ..who() };
    let text = told(named(), &Turn::Named, &figures(), &memory).text;
    let fetch = "`curl -sO http://127.0.0.1:7070/api/profiles/18867a3f2c41b001 \
                 -O http://127.0.0.1:7070/api/profiles/18867c7214d7b003 && \
                 oomwatch profile diff 18867a3f2c41b001 18867c7214d7b003`";
    assert!(text.contains(fetch), "{text}");
}

#[test]
fn the_longest_of_everything_loses_the_least_important_lines_whole() {
    let long = |sign: &str| sign.repeat(20_000);
    let mut story = named();
    let culprit = Culprit {
        function: long("%"),
        made_by: long("`"),
        made_by_file: long("_"),
        grew_bytes: i64::MAX,
        share: f64::MAX,
        ..buffer()
    };
    let mut worst = naming(Confidence::High, Class::HeapLeak, vec![culprit; 10], &long("[x"));
    worst.evidence = (0..200).map(|n| (format!("e{n}{}", long("k")), long("]("))).collect();
    worst.remedy = Some("close it");
    story.learn(worst);
    story.app = long("a");
    for (kind, rule) in [(AlertKind::FdLeak, "fds"), (AlertKind::ThreadLeak, "threads")] {
        story.join(alert(kind, rule, &long("<")));
    }
    let far = Figures { time_to_limit: Some(Duration::from_secs(999_999_999)), ..figures() };
    let who = Identity {
        pod: Some(long("p")),
        namespace: Some(long("n")),
        page_url: long("u"),
        profile_dir: Some(PathBuf::from(long("d"))),
        ..who()
    };
    let event = told(story, &Turn::Renamed(long("r")), &far, &who);
    let kept = [
        "port-forward ppp",
        "how sure: high",
        "the usual mend: close it; a restart now buys",
        "did not grow: threads (9)",
    ];
    assert!(kept.iter().all(|words| event.text.contains(words)), "{}", event.text);
    assert_eq!(event.text.matches("%%%").count(), 2, "one beginning and one end");
    assert!(!event.text.contains("e9k"), "of two hundred lines of evidence most are left out");
}

#[test]
fn the_way_to_look_at_it_survives_any_length() {
    let mut story = incident(AlertKind::MemoryGrowth, alert(AlertKind::MemoryGrowth, "trend_10s", "rose"));
    story.verdict = "long ".repeat(2_000);
    let event = told(story, &Turn::Opened, &Figures::default(), &who());
    assert!(event.text.contains("kubectl -n shop port-forward orders-worker-7c9d 7070"), "{}", event.text);
}
