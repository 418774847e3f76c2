//! kill -9 at any moment of an outage: every start is quick, and what is lost is what no flush had closed yet. `dev/soak crash`
//! runs a hundred kills.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use oomwatch::pipeline::wall_clock;
use support::intake::{Decoded, FakeIntake, Fault, Seen};
use support::{Sidecar, sender, wait_for};
use tokio::task::block_in_place;
use tokio::time::Instant;

const KEY: (&str, &str) = ("DD_API_KEY", "0123456789abcdef0123456789abcdef");

fn settings(intake: &FakeIntake, dir: &Path) -> String {
    format!(
        "[datadog]\nurl = \"{}\"\nhostname = \"pod-1\"\n[aggregate]\ninterval = \"1s\"\n[watch]\npid = {}\n[spool]\ndir = \"{}\"\n",
        intake.url(),
        std::process::id(),
        dir.display()
    )
}

/// One counter and one distribution a life, told to the unit when each sample was sent.
struct Life {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<f64>>,
}

impl Life {
    fn start(to: SocketAddr, life: u64) -> Life {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::spawn(move || {
            let (socket, mut sent) = (sender(to), Vec::new());
            let text = format!("life:1|c|#n:{life}\nspan{life}:1|d");
            while !told.load(Ordering::Relaxed) {
                // After the kill nobody is there to receive.
                if socket.send(text.as_bytes()).is_ok() {
                    sent.push(wall_clock());
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            sent
        });
        Life { stop, thread }
    }

    fn end(self) -> Vec<f64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// xorshift64*: the same moments in every run, as far as clocks allow.
fn random(state: &mut u64) -> f64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Two of three lives see an outage, so that kills fall into sending as well.
fn is_outage(life: u64) -> bool {
    life % 3 != 2
}

fn delivered(seen: &Seen, life: u64) -> u64 {
    let tag = format!("n:{life}");
    let mut last = HashMap::new();
    for series in seen.series().into_iter().filter(|series| series.metric == "life" && series.tags.contains(&tag)) {
        let scale = series.interval.max(1) as f64;
        for point in &series.points {
            let before = last.insert(point.timestamp, point.value * scale);
            assert!(before.is_none_or(|value| value == point.value * scale), "a second came twice with another value");
        }
    }
    last.values().sum::<f64>().round() as u64
}

/// Bodies of sketches that were accepted once more, and the points in them: they add up at Datadog.
fn doubled(seen: &Seen) -> (u64, u64) {
    let (mut known, mut bodies, mut points) = (HashSet::new(), 0, 0);
    for request in seen.accepted() {
        if let Decoded::Sketches(sketches) = &request.body
            && !known.insert(&request.raw)
        {
            bodies += 1;
            points += sketches.iter().map(|sketch| sketch.dogsketches.len() as u64).sum::<u64>();
        }
    }
    (bodies, points)
}

/// How late a thread comes to it on this machine now: what a start may take longer than it should.
struct Lag {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl Lag {
    fn start() -> Lag {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::spawn(move || {
            let (nap, mut late) = (Duration::from_millis(5), Duration::ZERO);
            while !told.load(Ordering::Relaxed) {
                let began = Instant::now();
                std::thread::sleep(nap);
                late += began.elapsed().saturating_sub(nap);
            }
            late
        });
        Lag { stop, thread }
    }

    /// All of it, from the start on.
    fn end(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_loses_the_open_window_and_no_more() {
    let kills: u64 = std::env::var("OOMWATCH_KILLS").map_or(10, |text| text.parse().unwrap());
    let (intake, dir) = (FakeIntake::start().await, tempfile::tempdir().unwrap());
    let (mut state, mut slowest, mut lives, mut redelivered) = (0x5EED_u64 | 1, Duration::ZERO, Vec::new(), 0.0);
    for life in 0..=kills {
        // The last one heals everything.
        intake.fail_always((is_outage(life) && life < kills).then_some(Fault::Status(503)));
        let (began, lag) = (Instant::now(), Lag::start());
        let sidecar = block_in_place(|| Sidecar::start(&settings(&intake, dir.path()), &[KEY]));
        let (took, lag) = (began.elapsed(), lag.end());
        assert!(took < Duration::from_secs(1) + lag, "a start took {took:?}, of which {lag:?} are the machine's");
        slowest = slowest.max(took);
        if life == kills {
            redelivered += finish(sidecar, &intake, dir.path());
            break;
        }
        let load = Life::start(sidecar.statsd[0], life);
        tokio::time::sleep(Duration::from_secs_f64(0.3 + 2.7 * random(&mut state))).await;
        let asked = wall_clock();
        redelivered += block_in_place(|| sidecar.metric("oomwatch_redelivered_total ").unwrap_or(0.0));
        let killed = wall_clock();
        let answer = killed - asked;
        // Dropping it is kill -9.
        drop(sidecar);
        lives.push((killed, answer, load.end()));
    }
    let seen = intake.seen();
    // A window is 500 samples, and the socket is read within 20 ms.
    let (mut worst, mut within) = (0, 0);
    for (life, (killed, answer, sent)) in lives.iter().enumerate() {
        let before = sent.iter().filter(|at| **at <= *killed).count() as u64;
        let got = delivered(&seen, life as u64);
        // The window that was open; or, just after its end, while it is being written; or, where the intake answers, while it
        // is on its way, since it goes to disk only a second later. A sample counts when it is read.
        let moment = if is_outage(life as u64) { 0.7 } else { 1.5 };
        // On a machine that is busy with other things it comes to it later, as late as it answers and as we send.
        let gap = sent.windows(2).map(|two| two[1] - two[0]).fold(0.0, f64::max);
        let closed = (killed - moment - 4.0 * (answer + gap)).floor() - 0.3;
        let open = sent.iter().filter(|at| (closed..=*killed + 0.2).contains(*at)).count() as u64;
        assert!(got + open >= before, "life {life}: {got} of {before} arrived, {open} may be lost");
        worst = worst.max(before.saturating_sub(got));
        within += u64::from(before.saturating_sub(got) <= 510);
    }
    let (doubled, doubled_points) = doubled(&seen);
    eprintln!(
        "{kills} kills: slowest start {slowest:?}, worst loss {worst} samples at 500 a second, {within} \
         lost at most a window, {doubled} payloads of sketches \
         twice with {doubled_points} points, {redelivered} redelivered"
    );
    assert!(
        doubled <= kills && redelivered >= doubled_points as f64,
        "{doubled} with {doubled_points}, {redelivered} told"
    );
}

fn finish(mut sidecar: Sidecar, intake: &FakeIntake, dir: &Path) -> f64 {
    block_in_place(|| {
        wait_for(Duration::from_secs(60), "an empty spool", || {
            let files = std::fs::read_dir(dir).unwrap().count();
            (files == 0 && sidecar.metric("oomwatch_points_queued ")? == 0.0).then_some(())
        });
        assert_eq!(sidecar.metric("oomwatch_spool_corrupt_total ").unwrap_or(0.0), 0.0);
        let redelivered = sidecar.metric("oomwatch_redelivered_total ").unwrap_or(0.0);
        assert!(sidecar.terminate().success());
        assert!(intake.seen().violations.is_empty(), "nothing undecodable was sent");
        redelivered
    })
}
