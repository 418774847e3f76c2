//! SIGTERM: the rest is received, flushed and sent, within one time for all of it.

use std::time::Duration;

use tokio::time::Instant;

use super::support::intake::{FakeIntake, Fault};
use super::support::{Sidecar, wait_for};
use super::{App, KEY, Said, settings};

/// An app that goes on for two seconds after the SIGTERM: what it said, and how long after its last word the end came.
fn ends_at_load(settings: &str) -> (Said, Duration) {
    let mut sidecar = Sidecar::start(settings, &[KEY]);
    let app = App::start(sidecar.statsd[0]);
    let samples = || sidecar.metric("oomwatch_statsd_samples_total ").filter(|count| *count > 5_000.0);
    wait_for(Duration::from_secs(20), "load", samples);
    sidecar.signal("TERM");
    std::thread::sleep(Duration::from_secs(2));
    let said = app.stop();
    let status = sidecar.wait(Duration::from_secs(20));
    assert_eq!(status.code(), Some(0), "{}", sidecar.log());
    let after = said.ended.elapsed();
    (said, after)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_at_load_delivers_all_that_an_app_says_until_it_falls_quiet() {
    for attempt in 1..=3 {
        let intake = FakeIntake::start().await;
        let settings = settings(&intake).replace("\"1s\"", "\"10s\"");
        let (said, after) = tokio::task::spawn_blocking(move || ends_at_load(&settings)).await.unwrap();
        println!("the end came {after:?} after the last datagram");
        if said.pause > Duration::from_millis(400) {
            println!("attempt {attempt}: the sender itself paused for {:?}", said.pause);
            continue;
        }
        assert_eq!(intake.seen().counter("load").round() as u64, said.load);
        // Half a second of quiet and two to flush and send; the rest is for a machine that is busy otherwise.
        assert!(after < Duration::from_secs(6), "{after:?}");
        return;
    }
    panic!("the machine was too busy for an even sender, three times");
}

/// A sidecar that holds something, and an intake that takes nothing.
fn with_a_dead_intake(intake: &FakeIntake, more: &str) -> Sidecar {
    intake.fail_always(Some(Fault::Reset));
    let sidecar = Sidecar::start(&format!("{}{more}", settings(intake)), &[KEY]);
    let app = App::start(sidecar.statsd[0]);
    let queued = || sidecar.metric("oomwatch_points_queued ").filter(|points| *points > 0.0);
    wait_for(Duration::from_secs(20), "points that wait", queued);
    app.stop();
    sidecar
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_sigterm_ends_the_drain_at_once() {
    let intake = FakeIntake::start().await;
    let mut sidecar = with_a_dead_intake(&intake, "");
    tokio::task::spawn_blocking(move || {
        sidecar.signal("TERM");
        wait_for(Duration::from_secs(5), "the drain to begin", || sidecar.log().contains("told to stop").then_some(()));
        let again = Instant::now();
        sidecar.signal("TERM");
        assert_eq!(sidecar.wait(Duration::from_secs(15)).code(), Some(0));
        let took = again.elapsed();
        println!("the second SIGTERM ended it in {took:?}");
        assert!(took < Duration::from_secs(2), "{took:?}, and the drain alone would be 8 s");
    })
    .await
    .unwrap();
}

/// The time counts from the SIGTERM for everybody: were the sink to count from the end of the quiet, it would be cut before it
/// has told what it lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_dead_intake_the_drain_ends_in_its_time_and_tells_the_loss() {
    for attempt in 1..=3 {
        let intake = FakeIntake::start().await;
        let mut sidecar = with_a_dead_intake(&intake, "[run]\nshutdown_timeout = \"3s\"\n");
        let ended = tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            assert_eq!(sidecar.terminate().code(), Some(0));
            (began.elapsed(), sidecar.log())
        });
        let (took, log) = ended.await.unwrap();
        println!("attempt {attempt}: the drain took {took:?}");
        if log.contains("the drain was cut") {
            continue;
        }
        let books = log.lines().find(|line| line.contains("the intake sink ends")).expect("it tells its books");
        assert!(books.contains(" 0 delivered") && !books.contains(" 0 lost"), "{books}");
        assert!(log.contains("reason=\"shutdown\""), "the reason is told: {log}");
        assert!(took < Duration::from_secs(6), "{took:?} of 3 s");
        return;
    }
    panic!("the drain was cut three times: its parts do not share one time");
}
