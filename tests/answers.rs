//! Whatever the intake answers: no point is lost without a name or delivered twice, no key leaves for the wrong ears, and no
//! answer can hurt the sidecar.
#![allow(clippy::unwrap_used, reason = "a test that unwraps says where it broke by its line")]

#[path = "support/sink.rs"]
mod sink;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use oomwatch::aggregate::{Bin, Form, Point, Sketch, SketchPoint, Suffix, Window};
use oomwatch::pipeline::{Outgoing, wall_clock};
use oomwatch::sink::intake::Settings;
use sink::{Authority, Rig, context, now, self_signed, settings, window};
use support::intake::{FLOODED, FakeIntake, Fault};
use support::{Sidecar, anonymous_bytes, sender, wait_for};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

const LONG: Duration = Duration::from_secs(50);

/// Requests of the mix, dealt out to so many sinks at once, each with an intake of its own.
const REQUESTS: usize = 2_000;
const SINKS: usize = 16;

/// Two thousand answers in a fixed disorder.
fn mix() -> Vec<Fault> {
    let share = |percent: usize, fault: Fault| vec![fault; REQUESTS * percent / 100];
    let mut all = [
        share(40, Fault::Delay(Duration::ZERO)),
        share(10, Fault::Status(500)),
        share(10, Fault::Status(503)),
        share(10, Fault::RetryAfter(429, 1)),
        share(10, Fault::Hang),
        share(5, Fault::Reset),
        share(5, Fault::Cut(502)),
        share(5, Fault::Status(408)),
        share(2, Fault::Status(413)),
        share(2, Fault::Status(403)),
        share(1, Fault::Status(400)),
    ]
    .concat();
    assert_eq!(all.len(), REQUESTS);
    let mut seed = 6_u64;
    for at in (1..all.len()).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        all.swap(at, (seed >> 33) as usize % (at + 1));
    }
    all
}

/// Eight series and two sketches that no other window has.
fn distinct(sink: usize, number: usize) -> Window {
    let name = |n: usize| format!("mix.s{sink}.w{number}.n{n}");
    let point = |n| Point {
        context: context(&name(n)),
        suffix: Suffix::None,
        form: Form::Count,
        value: 1.0,
        timestamp: now(),
        interval_seconds: 10,
    };
    let sketch = Sketch { bins: vec![Bin { key: 1338, n: 1 }], count: 1, min: 1.0, max: 1.0, sum: 1.0, avg: 1.0 };
    let sketched = |n| SketchPoint { context: context(&name(n)), timestamp: now(), sketch: sketch.clone() };
    Window { points: (0..8).map(point).collect(), sketches: (8..10).map(sketched).collect(), ..Window::default() }
}

/// Feeds a sink until its intake has given all its answers; gives what was dropped, and the statuses that were answered.
async fn through_the_mix(number: usize, faults: Vec<Fault>) -> (BTreeMap<&'static str, u64>, BTreeMap<u16, usize>) {
    let intake = FakeIntake::start().await;
    let answers = faults.len();
    intake.fail(faults);
    let mut fast = settings(&intake.url());
    fast.policy.longest = Duration::from_millis(100);
    fast.policy.longest_asked = Duration::from_millis(50);
    let mut rig = Rig::start(Settings {
        timeout: Duration::from_secs(2),
        key_hold: Duration::from_millis(30),
        drain: LONG,
        ..fast
    });
    let (mut windows, begun) = (0, Instant::now());
    while intake.seen().arrived < answers {
        assert!(begun.elapsed() < LONG, "{} of {answers} requests came", intake.seen().arrived);
        if rig.status.borrow().queued_bytes < 1_000 {
            rig.send(Outgoing::Window(distinct(number, windows))).await;
            windows += 1;
        }
        sleep(Duration::from_millis(5)).await;
    }
    let empty = timeout(LONG, rig.status.wait_for(|part| part.queued_bytes == 0)).await;
    assert!(empty.is_ok_and(|it| it.is_ok()), "the queue empties");
    let part = rig.end().await;
    let seen = intake.seen();
    let names: Vec<String> = seen
        .series()
        .into_iter()
        .map(|it| it.metric.clone())
        .chain(seen.sketches().into_iter().map(|it| it.metric.clone()))
        .collect();
    let once: BTreeSet<&String> = names.iter().collect();
    assert_eq!(once.len(), names.len(), "a point was delivered twice");
    let lost: u64 = part.dropped.values().sum();
    assert_eq!(names.len() as u64 + lost, windows as u64 * 10, "{:?}", part.dropped);
    let mut statuses = BTreeMap::new();
    seen.requests.iter().for_each(|request| *statuses.entry(request.status).or_default() += 1);
    (part.dropped.clone(), statuses)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mix_of_two_thousand_answers_delivers_each_point_once_or_names_its_loss() {
    let mut sinks = JoinSet::new();
    for (number, faults) in mix().chunks(REQUESTS / SINKS).enumerate() {
        sinks.spawn(through_the_mix(number, faults.to_vec()));
    }
    let (mut dropped, mut statuses) = (BTreeMap::<&str, u64>::new(), BTreeMap::<u16, usize>::new());
    while let Some(done) = sinks.join_next().await {
        let (lost, seen) = done.unwrap();
        lost.into_iter().for_each(|(reason, n)| *dropped.entry(reason).or_default() += n);
        seen.into_iter().for_each(|(status, n)| *statuses.entry(status).or_default() += n);
    }
    println!("dropped {dropped:?}, answered {statuses:?}");
    assert!(dropped.keys().all(|reason| ["http_400", "http_413_single"].contains(reason)), "{dropped:?}");
    assert!(dropped["http_400"] > 0);
    let planned = [(400, 20), (403, 40), (408, 100), (413, 40), (429, 200), (500, 200), (502, 100), (503, 200)];
    for (status, n) in planned {
        assert_eq!(statuses[&status], n, "{status}: {statuses:?}");
    }
}

static AHEAD: AtomicI64 = AtomicI64::new(0);

#[tokio::test]
async fn a_refused_key_is_tried_once_a_hold_and_nothing_goes_before_its_age() {
    let hold = Duration::from_millis(200);
    let intake = FakeIntake::start().await;
    intake.take_only_key("other");
    let later: fn() -> f64 = || wall_clock() + AHEAD.load(Ordering::Relaxed) as f64;
    let mut rig = Rig::start(Settings {
        key_hold: hold,
        concurrency: 1,
        wall_clock: later,
        drain: Duration::ZERO,
        ..settings(&intake.url())
    });
    for _ in 0..20 {
        rig.send(Outgoing::Window(window(3))).await;
    }
    intake.wait_for("eight tries", LONG, |seen| seen.requests.len() == 8).await;
    {
        let seen = intake.seen();
        let gaps: Vec<Duration> = seen.requests.windows(2).map(|two| two[1].at - two[0].at).collect();
        // The intake notes a request a moment after it was sent, so two notes may lie a little closer than the sends.
        assert!(gaps.iter().all(|gap| *gap >= hold - Duration::from_millis(20)), "{gaps:?}");
    }
    AHEAD.store(54 * 60, Ordering::Relaxed);
    let tried = intake.seen().requests.len();
    intake.wait_for("three more", LONG, |seen| seen.requests.len() >= tried + 3).await;
    assert!(rig.status.borrow().dropped.is_empty(), "54 minutes are no reason to drop");
    AHEAD.store(55 * 60 + 5, Ordering::Relaxed);
    rig.until("too old", |part| part.dropped.get("too_old") == Some(&60)).await;
    rig.end().await;
}

/// A sidecar that sends its own metrics there each second.
fn sidecar(url: &str, more: &str) -> Sidecar {
    let settings = format!("[aggregate]\ninterval = \"1s\"\n[datadog]\nurl = \"{url}\"\nhostname = \"h\"\n{more}");
    Sidecar::start(&settings, &[("DD_API_KEY", KEY)])
}

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn degraded(sidecar: &Sidecar, words: &str) -> bool {
    let status = sidecar.api("/api/status");
    let all = status["degraded"].as_array().unwrap();
    all.iter().any(|it| it["why"].as_str().is_some_and(|why| why.contains(words)))
}

fn failures(sidecar: &Sidecar, reason: &str) -> f64 {
    sidecar.metric(&format!("oomwatch_output_failures_total{{reason=\"{reason}\"}}")).unwrap_or(0.0)
}

/// Until the trouble is told in the log, on the page and on `/metrics`.
fn wait_for_trouble(sidecar: &Sidecar, reason: &str, words: &str) {
    wait_for(LONG, words, || degraded(sidecar, words).then_some(()));
    wait_for(LONG, reason, || (failures(sidecar, reason) >= 1.0).then_some(()));
    assert!(sidecar.log().contains(words), "{}", sidecar.log());
    assert!(!sidecar.log().contains(KEY));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_not_right_gets_neither_key_nor_body() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path());
    let expired = authority.server_with("localhost", |it| {
        it.not_before = rcgen::date_time_ymd(2020, 1, 1);
        it.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    let trust = format!("ca_file = \"{}\"\n", authority.file.display());
    let cases = [
        ("UnknownIssuer", self_signed("localhost"), trust.as_str()),
        ("UnknownIssuer", authority.server("localhost"), ""),
        ("expired", expired, &trust),
        ("not valid for name", authority.server("other.example"), &trust),
    ];
    let mut running = Vec::new();
    for (words, tls, trust) in cases {
        let intake = FakeIntake::start_tls(tls).await;
        let sidecar = sidecar(&intake.url(), trust);
        running.push((words, intake, sidecar));
    }
    for (words, intake, sidecar) in &running {
        wait_for_trouble(sidecar, "tls", words);
        let seen = intake.seen();
        assert_eq!((seen.arrived, seen.requests.len(), seen.validated.len()), (0, 0, 0), "{words}");
    }
}

/// Listens, and keeps all that it is told; answers in plain HTTP whatever that was.
fn plain_listener() -> (u16, std::sync::mpsc::Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = std::sync::mpsc::sync_channel(1_000);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.set_read_timeout(Some(Duration::from_millis(300)));
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
            let mut all = Vec::new();
            let _ = stream.read_to_end(&mut all);
            let _ = tell.send(all);
        }
    });
    (port, told)
}

#[test]
fn an_intake_that_speaks_no_tls_gets_neither_key_nor_body() {
    let (port, told) = plain_listener();
    let sidecar = sidecar(&format!("https://localhost:{port}"), "");
    wait_for_trouble(&sidecar, "tls", "does not speak TLS");
    let heard: Vec<u8> = told.try_iter().flatten().collect();
    assert!(heard.starts_with(&[0x16, 0x03]), "a ClientHello: {heard:?}");
    for secret in [KEY.as_bytes(), b"dd-api-key", b"POST"] {
        assert!(!heard.windows(secret.len()).any(|part| part.eq_ignore_ascii_case(secret)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_leads_nowhere() {
    let trap = TcpListener::bind("127.0.0.1:0").unwrap();
    trap.set_nonblocking(true).unwrap();
    let to = format!("http://{}/api/v2/series", trap.local_addr().unwrap());
    let intake = FakeIntake::start().await;
    intake.fail([301, 302, 303, 307, 308].map(|status| Fault::Redirect(status, to.clone())));
    let mut rig = Rig::start(settings(&intake.url()));
    rig.send(Outgoing::Window(window(1))).await;
    intake.wait_for("the point", LONG, |seen| seen.counter("c0") == 3.0).await;
    assert_eq!(intake.seen().requests.len(), 6);
    rig.end().await;
    intake.fail_always(Some(Fault::Redirect(307, to.clone())));
    intake.answer_validate(Some(Fault::Redirect(302, to)));
    let sidecar = sidecar(&intake.url(), "");
    wait_for_trouble(&sidecar, "redirected", "redirects are not followed");
    assert_eq!(trap.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "somebody came");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_key_and_a_wrong_site_are_told_at_the_start() {
    let wrong_key = FakeIntake::start().await;
    wrong_key.take_only_key("other");
    let wrong_site = FakeIntake::start().await;
    wrong_site.answer_validate(Some(Fault::Status(404)));
    // Nothing is sent for an hour: what is told comes from the question alone.
    let start = |url: String| {
        let settings = format!("[aggregate]\ninterval = \"1h\"\n[datadog]\nurl = \"{url}\"\nhostname = \"h\"\n");
        Sidecar::start(&settings, &[("DD_API_KEY", KEY)])
    };
    let (key, site) = (start(wrong_key.url()), start(wrong_site.url()));
    wait_for_trouble(&key, "key_refused", "the API key was refused");
    wait_for_trouble(&site, "not_found", "no Datadog intake");
    for (sidecar, advice) in [(&key, "datadog.api_key_file or DD_API_KEY"), (&site, "check datadog.site")] {
        let log = sidecar.log();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains("Datadog intake")).collect();
        assert!(lines.len() == 1 && lines[0].contains(advice), "{log}");
    }
    assert_eq!(wrong_key.seen().validated, [KEY]);
    assert_eq!((wrong_key.seen().arrived, wrong_site.seen().arrived), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_takes_memory_or_time() {
    const GIB: u64 = 1 << 30;
    let intake = FakeIntake::start().await;
    let sidecar = sidecar(&intake.url(), "");
    let app = sender(sidecar.statsd[0]);
    let requests = |n: usize| {
        let before = intake.seen().requests.len();
        let begun = Instant::now();
        wait_for(LONG, "further requests", || {
            app.send(b"load:1|c").unwrap();
            (intake.seen().requests.len() >= before + n).then_some(())
        });
        begun.elapsed()
    };
    requests(5);
    let base = anonymous_bytes(sidecar.pid());
    let check = |what: &str| {
        let grown = anonymous_bytes(sidecar.pid()).saturating_sub(base);
        println!("{what}: {} KiB more", grown >> 10);
        assert!(grown <= 1 << 20, "{what}: {grown} bytes more");
    };
    // Statuses that cost no back-off, so that one follows another at once.
    intake.fail([400, 200, 400, 200].map(|status| Fault::Flood(status, GIB)));
    requests(4);
    requests(1);
    let flooded = FLOODED.load(Ordering::Relaxed);
    println!("{} KiB of 4 GiB left the intake", flooded >> 10);
    assert!(flooded < GIB / 4, "{flooded} bytes were taken");
    check("four bodies of a gibibyte");
    intake.fail([Fault::Headers(400, 10_000), Fault::Headers(400, 10_000)]);
    requests(3);
    check("ten thousand headers, twice");
    intake.fail([Fault::Drip(200), Fault::Drip(400)]);
    let took = requests(3);
    assert!(took < Duration::from_secs(20), "{took:?}");
    check("two bodies that drip");
    assert_eq!(failures(&sidecar, "timeout"), 0.0, "a success that drips is a success");
}
