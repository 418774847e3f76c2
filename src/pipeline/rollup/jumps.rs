//! The wall clock jumps or stands still while samples come in each second: the rhythm of the windows stays, and what Datadog
//! would keep of them, one value a second of a series, adds up to what was sent.

use std::cell::Cell;

use tokio::task::JoinSet;

use super::*;
use crate::aggregate::Settings;

/// Three seconds into a bucket, so that every jump finds one open.
const T0: f64 = 1_700_000_003.0;
const HOUR: f64 = 3_600.0;

thread_local! {
    /// What the wall clock showed, and when; without a when it stands still there.
    static WALL: Cell<(f64, Option<Instant>)> = const { Cell::new((T0, None)) };
}

fn wall() -> f64 {
    let (shown, since) = WALL.get();
    shown + since.map_or(0.0, |since| since.elapsed().as_secs_f64())
}

/// What happens to the wall clock at a second of the run.
#[derive(Clone, Copy)]
enum Jump {
    By(f64),
    StandStill,
}

impl Jump {
    fn happen(self) {
        match self {
            Jump::By(seconds) => WALL.set((wall() + seconds, Some(Instant::now()))),
            Jump::StandStill => WALL.set((wall(), None)),
        }
    }
}

/// A window as the sink would get it: when, and the counter's stamps with their sums.
type Got = (f64, Vec<(i64, f64)>);

/// Sends one sample a second for so many seconds, with these jumps on the way.
async fn run(seconds: u32, jumps: &[(u32, Jump)]) -> Vec<Got> {
    let began = Instant::now();
    WALL.set((T0, Some(began)));
    let (batches, batches_in) = mpsc::channel(64);
    let (out, mut windows) = mpsc::channel(64);
    let rollup = Rollup {
        aggregator: Aggregator::new(Settings::default()),
        batches: batches_in,
        own: mpsc::channel(1).1,
        out,
        snapshot: watch::channel(Arc::default()).0,
        output: watch::channel(Arc::default()).1,
        settings: watch::channel(Settings::default()).1,
        wall_clock: wall,
        flush_every: Duration::from_secs(10),
        own_metrics: false,
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(rollup.run());
    let mut got = Vec::new();
    let mut take = |outgoing: Outgoing| {
        let Outgoing::Window(window) = outgoing else { panic!("no window") };
        let sums = window.points.iter().map(|point| (point.timestamp, point.value * 10.0)).collect();
        got.push((began.elapsed().as_secs_f64(), sums));
    };
    for second in 0..seconds {
        jumps.iter().filter(|(at, _)| *at == second).for_each(|(_, jump)| jump.happen());
        let mut batch = Batch::default();
        batch.bytes.extend_from_slice(b"a:1|c");
        batch.datagrams.push(crate::pipeline::Datagram { end: 5, truncated: false, port: 1 });
        batches.send(batch).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        while let Ok(outgoing) = windows.try_recv() {
            take(outgoing);
        }
    }
    drop(batches);
    while let Some(outgoing) = windows.recv().await {
        take(outgoing);
    }
    got
}

/// Runs with the jumps; `right` is what a right clock would have shown that many seconds into the run, `falls` how often stamps
/// may go back.
async fn check(name: &str, seconds: u32, jumps: &[(u32, Jump)], falls: usize, right: impl Fn(f64) -> f64) {
    let got = run(seconds, jumps).await;
    // The last window is that of the end. Of the interval with a jump in it nothing is promised, nor of the rest of one that a
    // leap forward ended early.
    let times: Vec<f64> = got.iter().map(|(at, _)| *at).collect();
    let odd = times[..times.len() - 1].windows(2).filter(|pair| !(9.0..=11.0).contains(&(pair[1] - pair[0])));
    let unforced = odd.filter(|pair| !jumps.iter().any(|(at, _)| (pair[0] - 1.5..=pair[1]).contains(&f64::from(*at))));
    assert_eq!(unforced.count(), 0, "{name}: {times:?}");
    let mut last_writes = BTreeMap::new();
    for (at, sums) in &got {
        for (stamp, sum) in sums {
            let off = *stamp as f64 - right(*at);
            assert!((-HOUR..=600.0).contains(&off), "{name}: {off} s off at {at}");
            last_writes.insert(*stamp, *sum);
        }
    }
    let stamps: Vec<i64> = got.iter().flat_map(|(_, sums)| sums.iter().map(|(stamp, _)| *stamp)).collect();
    assert_eq!(stamps.windows(2).filter(|pair| pair[1] < pair[0]).count(), falls, "{name}: {stamps:?}");
    assert_eq!(last_writes.values().sum::<f64>().round(), f64::from(seconds), "{name}: {got:?}");
}

#[tokio::test(start_paused = true)]
async fn an_hour_forward_keeps_rhythm_order_and_sums() {
    check("+1 h", 200, &[(64, Jump::By(HOUR))], 0, |at| T0 + at + if at > 64.0 { HOUR } else { 0.0 }).await;
}

/// The wall clock is taken for right. To go on an hour ahead of it would be to have everything refused, so stamps fall, once.
#[tokio::test(start_paused = true)]
async fn an_hour_back_falls_once_and_loses_nothing() {
    check("-1 h", 200, &[(64, Jump::By(-HOUR))], 1, |at| T0 + at - if at > 64.0 { HOUR } else { 0.0 }).await;
}

#[tokio::test(start_paused = true)]
async fn a_second_back_is_waited_for() {
    check("-1 s", 200, &[(64, Jump::By(-1.0))], 0, |at| T0 + at).await;
}

#[tokio::test(start_paused = true)]
async fn minutes_back_are_waited_for() {
    check("-5 min", 2_000, &[(64, Jump::By(-300.0))], 0, |at| T0 + at).await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_stands_still_is_not_believed() {
    check("frozen", 2_000, &[(64, Jump::StandStill)], 0, |at| T0 + at).await;
}

#[tokio::test(start_paused = true)]
async fn an_hour_forward_and_back_within_a_bucket_loses_nothing() {
    let right = |at: f64| T0 + at + if (64.0..66.0).contains(&at) { HOUR } else { 0.0 };
    check("+1 h and back", 200, &[(64, Jump::By(HOUR)), (66, Jump::By(-HOUR))], 0, right).await;
    let half = HOUR / 2.0;
    let right = |at: f64| T0 + at + if (64.0..66.0).contains(&at) { half } else { 0.0 };
    check("+30 min and back", 200, &[(64, Jump::By(half)), (66, Jump::By(-half))], 1, right).await;
}
