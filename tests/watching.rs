//! What it costs to watch: a process with very many threads, one with many dead children, and an ordinary one for a while.
//!
//! The last is in a pod in a can, because the process table is read too, and a pod has few processes. `dev/soak sampling` measures
//! it for a minute and holds the sidecar to 0.3 % of a core; here it is a few seconds, and the bound is loose, because other tests
//! run beside it.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use oomwatch::source::sampler::{Looker, Settings};
use support::can::{Stage, again_inside, is_inside};
use support::{Kept, Sidecar, have, lines_of, root, wait_for};

/// The program of these tests, compiled once, and before a can is made.
fn crowd() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let out = root().join("target/crowd");
        if is_inside() {
            return out;
        }
        std::fs::create_dir_all(root().join("target")).unwrap();
        let source = root().join("tests/watching/crowd.c");
        let status = Command::new("cc").args(["-O2", "-pthread", "-o"]).arg(&out).arg(source).status();
        assert!(status.unwrap().success(), "cc of tests/watching/crowd.c");
        out
    };
    BUILT.get_or_init(build).clone()
}

/// A process of so many threads and zombies; `None`, said aloud, where the machine does not allow it.
fn gather(test: &str, threads: u32, zombies: u32) -> Option<Kept> {
    if !have("cc", test) {
        return None;
    }
    started(test, Command::new(crowd()), threads, zombies)
}

fn started(test: &str, mut command: Command, threads: u32, zombies: u32) -> Option<Kept> {
    command.args([threads.to_string(), zombies.to_string()]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut app = Kept(command.spawn().unwrap());
    let said = lines_of(app.0.stdout.take().unwrap()).recv_timeout(Duration::from_secs(60)).unwrap();
    if said != "ready" {
        assert!(std::env::var_os("CI").is_none(), "{test}: {said}");
        eprintln!("SKIPPED {test}: {said}");
        return None;
    }
    Some(app)
}

/// Processor time of this thread.
fn spent() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

/// Looks at a process each second of its own clock: the least processor time of a look, and the last of what was seen.
fn look(app: &Kept) -> (Duration, oomwatch::pipeline::Observation) {
    let pid = Some(i32::try_from(app.0.id()).unwrap());
    let mut looker = Looker::new(Settings { pid, pprof_port: None, ..Settings::default() });
    let mut least = Duration::MAX;
    let mut seen = looker.look(Duration::ZERO);
    for second in 1..10 {
        let before = spent();
        seen = looker.look(Duration::from_secs(second));
        least = least.min(spent() - before);
    }
    (least, seen)
}

#[test]
fn ten_thousand_threads_are_counted_and_not_read_one_by_one() {
    let test = "ten_thousand_threads_are_counted_and_not_read_one_by_one";
    let (Some(small), Some(large)) = (gather(test, 10, 0), gather(test, 10_000, 0)) else { return };
    let ((little, _), (much, seen)) = (look(&small), look(&large));
    println!("a look at 10 threads takes {little:?} of processor time, at 10,000 {much:?}");
    assert_eq!(seen.reading.threads, Some(10_000));
    assert!(seen.rss_bytes.unwrap() > 10 << 20 && seen.reading.memory_bytes.is_some());
    // Their files one by one would take 50 ms and more.
    assert!(much < little + Duration::from_millis(10), "{little:?} {much:?}");
}

#[test]
fn zombies_are_no_children() {
    let Some(app) = gather("zombies_are_no_children", 3, 300) else { return };
    let (_, seen) = look(&app);
    assert_eq!(seen.reading.threads, Some(3));
    let dead = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", app.0.id()));
    if let Ok(dead) = dead {
        assert_eq!(dead.split_ascii_whitespace().count(), 300);
    }
}

/// Processor time of a process, of all its threads.
fn spent_by(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

#[test]
fn watching_a_hundred_threads_each_second_costs_next_to_nothing() {
    let test = "watching_a_hundred_threads_each_second_costs_next_to_nothing";
    if !have("cc", test) {
        return;
    }
    crowd();
    if !is_inside() {
        return again_inside(test, 256 << 20);
    }
    let stage = Stage::new(&crowd());
    let Some(_app) = started(test, stage.app(), 100, 0) else { return };
    let (seconds, most) = match std::env::var("OOMWATCH_SAMPLING_SECONDS") {
        Ok(seconds) => (seconds.parse().expect("a number of seconds"), 0.3),
        Err(_) => (12, 2.0),
    };
    let sidecar = Sidecar::spawn("[datadog]\noutput = \"none\"\n", &[], stage.oomwatch());
    let readings = || sidecar.api("/api/readings")["t"].as_array().unwrap().len();
    wait_for(Duration::from_secs(30), "the first readings", || (readings() >= 3).then_some(()));
    let (before, seen) = (spent_by(sidecar.pid()), readings());
    std::thread::sleep(Duration::from_secs(seconds));
    let spent = spent_by(sidecar.pid()) - before;
    let share = spent.as_secs_f64() / seconds as f64 * 100.0;
    println!("sampling: {share:.2} % of a core over {seconds} s, {} readings", readings() - seen);
    assert!(readings() - seen >= seconds as usize * 8 / 10, "it looked each second");
    assert!(share <= most, "{share:.2} % of a core");
}
