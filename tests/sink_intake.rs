//! The intake sink against a fake intake on loopback: what comes out, and where every point is when something fails.
#![allow(clippy::unwrap_used, reason = "a test that unwraps says where it broke by its line")]

#[path = "support/intake.rs"]
mod intake;
#[path = "support/sink.rs"]
mod sink;

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use intake::{FakeIntake, Fault};
use oomwatch::aggregate::{Bin, Sketch, SketchPoint, Window};
use oomwatch::pipeline::{Outgoing, wall_clock};
use oomwatch::secret::Secret;
use oomwatch::sink::Proxy;
use oomwatch::sink::intake::{Intake, Settings};
use oomwatch::statsd::{Event, ServiceCheck, Status};
use sink::{Authority, Rig, SOON, context, now, settings, window};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// One counter with a name that compresses badly, so that payloads have a size.
fn bulky(n: u64) -> Window {
    let mut window = window(50);
    for (at, point) in window.points.iter_mut().enumerate() {
        let noise: String = (0..12_u64)
            .map(|k| {
                format!(
                    "{:x}",
                    (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
                        ^ (at as u64 * 977 + k).wrapping_mul(0xd1b5_4a32_d192_ed03)
                )
            })
            .collect();
        point.context = context(&format!("bulk.{}", &noise[..150]));
    }
    window
}

fn event(title: &str) -> Event {
    Event { title: title.to_owned(), ..Event::default() }
}

#[tokio::test]
async fn all_kinds_are_delivered_exactly() {
    let intake = FakeIntake::start().await;
    let mut rig = Rig::start(settings(&intake.url()));
    let mut all = window(3);
    let sketch = Sketch { bins: vec![Bin { key: 1338, n: 4 }], count: 4, min: 1.0, max: 1.0, sum: 4.0, avg: 1.0 };
    all.sketches.push(SketchPoint { context: context("d"), timestamp: now(), sketch });
    rig.send(Outgoing::Window(all)).await;
    rig.send(Outgoing::Event(event("hello"))).await;
    let check = ServiceCheck {
        name: "up".to_owned(),
        status: Status::Ok,
        timestamp: None,
        host: None,
        message: None,
        tags: vec![],
        origin: vec![],
    };
    rig.send(Outgoing::Check(check)).await;
    intake.wait_for("four requests", SOON, |seen| seen.accepted().count() == 4).await;
    {
        let seen = intake.seen();
        assert_eq!((seen.counter("c0"), seen.counter("c2"), seen.sketch_count("d")), (3.0, 3.0, 4));
        assert_eq!(
            (seen.events()[0]["title"].as_str(), seen.checks()[0]["host_name"].as_str()),
            (Some("hello"), Some("host"))
        );
        assert_eq!(seen.requests[0].key, "key");
        assert!(seen.requests[0].headers["user-agent"].starts_with("oomwatch/"));
    }
    let part = rig.end().await;
    assert_eq!((part.mode, part.queued_bytes, part.dropped.len(), part.degraded.len()), ("intake", 0, 0, 0));
    assert!(part.last_success.is_some());
}

#[tokio::test]
async fn an_outage_loses_nothing_and_newest_goes_first() {
    let intake = FakeIntake::start().await;
    intake.fail_always(Some(Fault::Status(503)));
    let mut rig = Rig::start(settings(&intake.url()));
    for _ in 0..5 {
        rig.send(Outgoing::Window(window(2))).await;
    }
    rig.send(Outgoing::Event(event("late"))).await;
    intake.wait_for("some tries", SOON, |seen| seen.requests.len() > 4).await;
    rig.until("the trouble shows", |part| part.degraded.first().is_some_and(|it| it.why.contains("503"))).await;
    intake.fail_always(None);
    intake.wait_for("everything", SOON, |seen| seen.series().len() == 10 && seen.events().len() == 1).await;
    let part = rig.end().await;
    assert_eq!((part.dropped.len(), part.degraded.len()), (0, 0));
}

#[tokio::test]
async fn an_intake_that_comes_back_gets_everything() {
    let intake = FakeIntake::start().await;
    let (url, address) = (intake.url(), intake.address);
    drop(intake);
    let mut rig = Rig::start(settings(&url));
    rig.send(Outgoing::Window(window(4))).await;
    rig.until("unreachable", |part| part.degraded.first().is_some_and(|it| it.fix.contains("egress"))).await;
    let intake = FakeIntake::start_at(address, None).await;
    intake.wait_for("everything", SOON, |seen| seen.series().len() == 4).await;
    assert!(rig.end().await.dropped.is_empty());
}

#[tokio::test]
async fn a_connection_closed_without_an_answer_is_tried_again() {
    let intake = FakeIntake::start().await;
    intake.fail([Fault::Reset, Fault::Reset, Fault::Reset]);
    let mut rig = Rig::start(settings(&intake.url()));
    rig.send(Outgoing::Window(window(1))).await;
    intake.wait_for("the point", SOON, |seen| seen.counter("c0") == 3.0).await;
    assert!(rig.end().await.dropped.is_empty());
}

#[tokio::test]
async fn a_payload_too_large_is_split_down_to_what_fits() {
    let intake = FakeIntake::start().await;
    intake.take_at_most(2);
    let mut rig = Rig::start(settings(&intake.url()));
    rig.send(Outgoing::Window(window(9))).await;
    intake.wait_for("nine series", SOON, |seen| seen.series().len() == 9).await;
    assert!(intake.seen().accepted().count() >= 5);
    intake.take_at_most(0);
    rig.send(Outgoing::Window(window(3))).await;
    rig.until("what cannot be split is counted", |part| part.dropped.get("http_413_single") == Some(&3)).await;
    rig.end().await;
}

#[tokio::test]
async fn points_that_the_intake_would_refuse_are_counted_and_never_sent() {
    let intake = FakeIntake::start().await;
    let mut rig = Rig::start(settings(&intake.url()));
    let mut all = window(5);
    all.points[0].value = f64::NAN;
    all.points[1].context = context("12.5");
    all.points[2].timestamp = now() + 3_600;
    all.points[3].timestamp = now() - 7_200;
    rig.send(Outgoing::Window(all)).await;
    intake.wait_for("the good one", SOON, |seen| seen.counter("c4") == 3.0).await;
    let part = rig.end().await;
    let reasons = [("encode_ahead", 1), ("encode_name", 1), ("encode_value", 1), ("too_old", 1)];
    assert_eq!((part.dropped.clone(), intake.seen().series().len()), (reasons.into(), 1));
}

#[tokio::test]
async fn a_payload_that_is_not_understood_is_dropped_and_counted() {
    let intake = FakeIntake::start().await;
    intake.fail([Fault::Status(400)]);
    let mut rig = Rig::start(settings(&intake.url()));
    rig.send(Outgoing::Window(window(7))).await;
    rig.until("dropped", |part| part.dropped.get("http_400") == Some(&7)).await;
    rig.end().await;
}

#[tokio::test]
async fn a_refused_key_holds_everything_until_the_file_brings_another() {
    let intake = FakeIntake::start().await;
    intake.take_only_key("fresh");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    std::fs::write(&file, "stale\n").unwrap();
    let mut rig = Rig::start(Settings { api_key_file: Some(file.clone()), ..settings(&intake.url()) });
    for _ in 0..4 {
        rig.send(Outgoing::Window(window(2))).await;
    }
    rig.until("the refusal shows", |part| part.degraded.first().is_some_and(|it| it.why.contains("403"))).await;
    // The file is looked at every 50 ms, and nothing is sent meanwhile.
    for _ in 0..10 {
        rig.status.changed().await.unwrap();
    }
    let tried = intake.seen().requests.len();
    assert!(tried <= 2, "one try, or two that were under way together, and not {tried}");
    std::fs::write(&file, "fresh\n").unwrap();
    intake.wait_for("everything", SOON, |seen| seen.series().len() == 8).await;
    let part = rig.end().await;
    assert!(part.dropped.is_empty() && part.degraded.is_empty());
}

#[tokio::test]
async fn without_a_key_nothing_is_sent_until_there_is_one() {
    let intake = FakeIntake::start().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    let mut rig = Rig::start(Settings {
        api_key: Secret::default(),
        api_key_file: Some(file.clone()),
        ..settings(&intake.url())
    });
    rig.send(Outgoing::Window(window(2))).await;
    rig.until("told", |part| part.degraded.first().is_some_and(|it| it.why.contains("no API key"))).await;
    assert_eq!(intake.seen().requests.len(), 0);
    std::fs::write(&file, "key").unwrap();
    intake.wait_for("everything", SOON, |seen| seen.series().len() == 2).await;
    rig.end().await;
}

/// A reader of a pipe that nobody writes hangs, as one on a dead network volume does.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_file_that_hangs_holds_nothing_else_back() {
    let intake = FakeIntake::start().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    std::fs::write(&file, "key\n").unwrap();
    let mut rig = Rig::start(Settings { api_key_file: Some(file.clone()), ..settings(&intake.url()) });
    std::fs::remove_file(&file).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
    for n in 1..=5 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        rig.send(Outgoing::Window(window(1))).await;
        intake.wait_for("a window", SOON, |seen| seen.requests.len() == n).await;
    }
    let part = rig.end().await;
    // Lets the reader go, which the runtime would wait for.
    std::fs::OpenOptions::new().write(true).open(&file).unwrap();
    assert!(part.dropped.is_empty(), "{part:?}");
}

#[tokio::test]
async fn over_budget_the_oldest_points_go_and_are_counted_to_the_point() {
    let intake = FakeIntake::start().await;
    intake.fail_always(Some(Fault::Status(503)));
    let mut rig = Rig::start(Settings { max_memory: 20_000, ..settings(&intake.url()) });
    rig.send(Outgoing::Urgent(event("alarm"))).await;
    for n in 0..20 {
        rig.send(Outgoing::Window(bulky(n))).await;
    }
    rig.until("something is dropped", |part| part.dropped.get("queue_full").is_some_and(|n| *n > 0)).await;
    intake.fail_always(None);
    rig.until("the queue is empty", |part| part.queued_bytes == 0 && part.last_success.is_some()).await;
    let part = rig.end().await;
    let dropped = part.dropped["queue_full"];
    assert_eq!(dropped + intake.seen().series().len() as u64, 1_000, "{part:?}");
    assert_eq!((part.dropped.len(), intake.seen().events().len()), (1, 1), "an event is worth more than points");
}

#[tokio::test]
async fn an_urgent_event_is_tried_at_once_while_everything_waits() {
    let intake = FakeIntake::start().await;
    intake.fail([Fault::Status(503), Fault::Status(503)]);
    let mut waits = settings(&intake.url());
    (waits.policy.base, waits.policy.longest) = (Duration::from_secs(300), Duration::from_secs(600));
    let mut rig = Rig::start(Settings { drain: Duration::ZERO, ..waits });
    rig.send(Outgoing::Window(window(1))).await;
    rig.send(Outgoing::Event(event("plain"))).await;
    intake.wait_for("two failures", SOON, |seen| seen.requests.len() == 2).await;
    rig.send(Outgoing::Event(event("plain too"))).await;
    rig.send(Outgoing::Urgent(event("alarm"))).await;
    intake.wait_for("the alarm", SOON, |seen| seen.events().first().is_some_and(|it| it["title"] == "alarm")).await;
    let part = rig.end().await;
    assert_eq!(part.dropped.get("shutdown"), Some(&1), "the window still waits");
}

#[tokio::test]
async fn an_urgent_event_does_not_wait_for_slow_answers() {
    let intake = FakeIntake::start().await;
    intake.fail([Fault::Delay(SOON * 2), Fault::Delay(SOON * 2)]);
    let mut rig = Rig::start(Settings { drain: Duration::ZERO, ..settings(&intake.url()) });
    for n in 0..20 {
        rig.send(Outgoing::Window(window(n + 1))).await;
    }
    intake.wait_for("two requests that hang", SOON, |seen| seen.arrived == 2).await;
    let before = Instant::now();
    rig.send(Outgoing::Urgent(event("alarm"))).await;
    intake.wait_for("the alarm", SOON, |seen| seen.events().len() == 1).await;
    assert!(before.elapsed() < SOON);
    assert_eq!(rig.end().await.dropped["shutdown"], (1..=20).sum::<u64>());
}

#[tokio::test]
async fn at_closure_what_waits_is_tried_once_more_at_once() {
    let intake = FakeIntake::start().await;
    intake.fail([Fault::Status(503)]);
    let mut waits = settings(&intake.url());
    (waits.policy.base, waits.policy.longest) = (Duration::from_secs(300), Duration::from_secs(600));
    let mut rig = Rig::start(waits);
    rig.send(Outgoing::Window(window(5))).await;
    intake.wait_for("a failure", SOON, |seen| seen.requests.len() == 1).await;
    rig.until("the way is blocked", |part| !part.degraded.is_empty()).await;
    rig.send(Outgoing::Window(window(2))).await;
    let part = rig.end().await;
    assert_eq!((intake.seen().series().len(), part.dropped.len()), (7, 0));
}

#[tokio::test]
async fn what_cannot_be_sent_before_the_end_is_counted() {
    let intake = FakeIntake::start().await;
    intake.fail_always(Some(Fault::Status(503)));
    let mut rig = Rig::start(Settings { drain: Duration::from_millis(200), ..settings(&intake.url()) });
    rig.send(Outgoing::Window(window(5))).await;
    rig.send(Outgoing::Event(event("lost"))).await;
    let part = rig.end().await;
    assert_eq!((part.dropped.get("shutdown"), part.dropped.get("event_lost")), (Some(&5), Some(&1)));
}

static AHEAD: AtomicI64 = AtomicI64::new(0);

#[tokio::test]
async fn points_that_became_too_old_are_dropped_unless_history_is_wanted() {
    let intake = FakeIntake::start().await;
    for historical in [false, true] {
        AHEAD.store(0, Ordering::Relaxed);
        intake.fail_always(Some(Fault::Status(503)));
        let later: fn() -> f64 = || wall_clock() + AHEAD.load(Ordering::Relaxed) as f64;
        let mut rig =
            Rig::start(Settings { wall_clock: later, historical, drain: Duration::ZERO, ..settings(&intake.url()) });
        rig.send(Outgoing::Window(window(3))).await;
        rig.until("it waits", |part| part.queued_bytes > 0).await;
        AHEAD.store(55 * 60 + 2, Ordering::Relaxed);
        if !historical {
            rig.until("too old", |part| part.dropped.get("too_old") == Some(&3)).await;
            continue;
        }
        intake.fail_always(None);
        rig.until("delivered", |part| part.last_success.is_some()).await;
        assert_eq!(intake.seen().series().len(), 3);
        assert!(rig.end().await.dropped.is_empty());
    }
}

#[tokio::test]
async fn a_login_page_is_no_delivery() {
    let intake = FakeIntake::start().await;
    intake.fail([Fault::Reply(200, "text/html", "<html>please log in</html>")]);
    let mut rig = Rig::start(settings(&intake.url()));
    rig.send(Outgoing::Window(window(1))).await;
    intake.wait_for("the point", SOON, |seen| seen.counter("c0") == 3.0).await;
    rig.end().await;
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let intake = FakeIntake::start().await;
    intake.fail([Fault::RetryAfter(429, 1)]);
    let mut rig = Rig::start(settings(&intake.url()));
    rig.send(Outgoing::Window(window(1))).await;
    intake.wait_for("the point", SOON, |seen| seen.counter("c0") == 3.0).await;
    {
        let requests = &intake.seen().requests;
        let waited = requests[1].at - requests[0].at;
        assert!(waited >= Duration::from_millis(995) && waited < Duration::from_millis(1_500), "{waited:?}");
    }
    rig.end().await;
}

#[tokio::test]
async fn an_answer_that_never_ends_is_cut_off() {
    let intake = FakeIntake::start().await;
    intake.fail([Fault::Drip(500)]);
    let mut rig = Rig::start(Settings { timeout: Duration::from_millis(300), ..settings(&intake.url()) });
    rig.send(Outgoing::Window(window(1))).await;
    intake.wait_for("the point", SOON, |seen| seen.counter("c0") == 3.0).await;
    rig.end().await;
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let intake = FakeIntake::start().await;
    intake.fail([Fault::Status(302)]);
    let mut rig = Rig::start(settings(&intake.url()));
    rig.send(Outgoing::Window(window(1))).await;
    intake.wait_for("the point", SOON, |seen| seen.counter("c0") == 3.0).await;
    assert!(intake.seen().requests.iter().all(|request| request.path == "/api/v2/series"));
    rig.end().await;
}

#[tokio::test]
async fn validate_tells_good_keys_from_bad_ones_and_from_silence() {
    let intake = FakeIntake::start().await;
    let sink = Intake::new(settings(&intake.url())).unwrap();
    assert_eq!(sink.validate().await, Ok(()));
    intake.answer_validate(Some(Fault::Status(403)));
    assert!(sink.validate().await.unwrap_err().why.contains("the API key was refused"));
    intake.answer_validate(Some(Fault::Status(503)));
    assert!(sink.validate().await.unwrap_err().why.contains("503"));
}

#[tokio::test]
async fn a_private_ca_is_trusted_only_when_it_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path());
    let (tls, ca_file) = (authority.server("localhost"), authority.file.clone());
    let intake = FakeIntake::start_tls(tls).await;
    let mut stranger = Rig::start(Settings { drain: Duration::ZERO, ..settings(&intake.url()) });
    stranger.send(Outgoing::Window(window(1))).await;
    stranger
        .until("TLS is refused", |part| part.degraded.first().is_some_and(|it| it.fix.contains("datadog.ca_file")))
        .await;
    assert_eq!(stranger.end().await.dropped.get("shutdown"), Some(&1));
    assert_eq!(intake.seen().requests.len(), 0);
    let mut friend = Rig::start(Settings { ca_file: Some(ca_file), ..settings(&intake.url()) });
    friend.send(Outgoing::Window(window(1))).await;
    intake.wait_for("the point", SOON, |seen| seen.counter("c0") == 3.0).await;
    assert!(friend.end().await.dropped.is_empty());
}

/// A proxy that carries one tunnel after another, and tells how each was asked for.
async fn proxy(tasks: &mut JoinSet<()>) -> (String, mpsc::Receiver<String>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, asked) = mpsc::channel(16);
    tasks.spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(near.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let target = head.split(' ').nth(1).unwrap().to_owned();
            tell.send(head).await.unwrap();
            let mut far = tokio::net::TcpStream::connect(target).await.unwrap();
            near.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        }
    });
    (format!("http://user:secret@{address}"), asked)
}

#[tokio::test]
async fn https_goes_through_the_proxy_with_its_password_and_without_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path());
    let (tls, ca_file) = (authority.server("localhost"), authority.file.clone());
    let intake = FakeIntake::start_tls(tls).await;
    let mut tasks = JoinSet::new();
    let (https, mut asked) = proxy(&mut tasks).await;
    let through = Proxy { https: Some(Secret::new(https)), no: String::new() };
    let mut rig = Rig::start(Settings { ca_file: Some(ca_file), proxy: through, ..settings(&intake.url()) });
    rig.send(Outgoing::Window(window(1))).await;
    intake.wait_for("the point", SOON, |seen| seen.counter("c0") == 3.0).await;
    let head = asked.recv().await.unwrap().to_lowercase();
    assert!(
        head.starts_with("connect localhost:")
            && head.contains("proxy-authorization: basic")
            && !head.contains("dd-api-key"),
        "{head}"
    );
    rig.end().await;
}
