//! An intake that answers after half a minute costs nothing on the way in.

use std::time::Duration;

use super::support::intake::{FakeIntake, Fault};
use super::support::{Sidecar, anonymous_bytes, wait_for};
use super::{App, KEY, settings};

/// Longer than the sink waits for an answer, so that requests are given up and sent again.
const ANSWER: Duration = Duration::from_secs(30);

fn lost(sidecar: &Sidecar) -> Vec<String> {
    let text = sidecar.metrics();
    let rows = text.lines().filter(|line| line.starts_with("oomwatch_dropped_total{") && !line.ends_with(" 0"));
    rows.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_after_half_a_minute_hold_up_nothing_and_lose_nothing() {
    let intake = FakeIntake::start().await;
    let text = settings(&intake);
    let sidecar = tokio::task::spawn_blocking(move || Sidecar::start(&text, &[KEY])).await.unwrap();
    let app = App::start(sidecar.statsd[0]);
    intake.wait_for("the first payloads", Duration::from_secs(20), |seen| seen.arrived >= 3).await;
    let base = anonymous_bytes(sidecar.pid());
    intake.fail_always(Some(Fault::Delay(ANSWER)));
    let before = (intake.seen().arrived, intake.seen().requests.len());
    let (sidecar, most) = tokio::task::spawn_blocking(move || {
        let mut most = 0;
        // Past the 20 s after which a request is given up: the next two are under way then.
        wait_for(Duration::from_secs(60), "requests that are given up", || {
            most = most.max(anonymous_bytes(sidecar.pid()));
            assert_eq!(lost(&sidecar), Vec::<String>::new());
            sidecar.log().contains("Datadog intake: ").then_some(())
        });
        (sidecar, most)
    })
    .await
    .unwrap();
    let after = (intake.seen().arrived, intake.seen().requests.len());
    println!("arrived and answered: {before:?}, then {after:?}; memory {base} bytes, at most {most}");
    assert!(after.0 - before.0 <= 4, "two at once, given up once: {before:?} {after:?}");
    assert!(most < base + (8 << 20), "memory: {base} bytes, then {most}");
    intake.fail_always(None);
    let said = app.stop();
    let mut sidecar = sidecar;
    let empty = move || {
        let queued = || sidecar.metric("oomwatch_points_queued ").filter(|points| *points < 50.0);
        wait_for(Duration::from_secs(90), "the backlog to go", queued);
        assert_eq!((lost(&sidecar), sidecar.terminate().code()), (Vec::new(), Some(0)));
    };
    tokio::task::spawn_blocking(empty).await.unwrap();
    assert_eq!(intake.seen().counter("load").round() as u64, said.load);
}
