//! The detector on recorded and generated traces: every leak told with time to spare, nothing said of the healthy.
//!
//! `tests/traces/generate.py` draws traces, `shapes.py` and `second.py` let mechanisms run, and `score.py` scores all of it
//! (`dev/soak traces`); here a small part runs: one seed of the shapes named below, and a recording of a real leak. Of the second
//! book only its own promises are looked at, so that the detector is not made to fit it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use oomwatch::cli::replay;
use oomwatch::detect::Settings;

const LEAKS: &str =
    "linear_very_fast,linear_minutes,burst_90s,burst_20s,per_job_step,leak_restarts,leak_from_start,leak_threads";
const HEALTHY: &str =
    "flat,warmup_fast,sawtooth_gogc100,sawtooth_full,single_step,noisy,batch_spikes,rolling_restarts,thread_pool";

fn traces() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces")
}

/// Makes one seed of these shapes and gives the folder that holds them.
fn generate(dir: &Path, shapes: &str) -> PathBuf {
    let done = Command::new("python3")
        .arg(traces().join("generate.py"))
        .args(["--split", "dev", "--seeds", "1", "--only", shapes, "--out"])
        .arg(dir)
        .output()
        .expect("python3 runs the generator");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    dir.join("dev")
}

fn csv_files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).expect("read the traces");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("read an entry").path()).collect();
    files.sort();
    files
}

/// `(trace, seconds, severity, rule)` of each line after the header.
fn replayed(files: &[PathBuf]) -> Vec<(String, f64, String, String)> {
    let mut out = Vec::new();
    replay::run(files, &Settings::default(), &mut out).expect("replay the traces");
    let text = String::from_utf8(out).expect("text");
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("trace,t_s,severity,rule"));
    lines
        .map(|line| match line.split(',').collect::<Vec<_>>()[..] {
            [trace, t, severity, rule] => (trace.into(), t.parse().expect("seconds"), severity.into(), rule.into()),
            _ => panic!("{line}"),
        })
        .collect()
}

#[test]
fn every_leak_is_told_five_seconds_before_the_kill() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = generate(dir.path(), LEAKS);
    let mut alarms: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (trace, t, severity, _) in replayed(&csv_files(&dir)) {
        if severity != "notice" {
            alarms.entry(trace).or_default().push(t);
        }
    }
    let labels = std::fs::read_to_string(dir.join("labels.csv")).expect("labels");
    let episodes: Vec<Vec<&str>> = labels.lines().skip(1).map(|line| line.split(',').collect()).collect();
    assert!(episodes.len() >= 8, "{labels}");
    for episode in episodes {
        let (trace, start, kill): (_, f64, f64) =
            (episode[1], episode[4].parse().expect("start"), episode[5].parse().expect("kill"));
        let told = alarms.get(trace).is_some_and(|at| at.iter().any(|t| (start..=kill - 5.0).contains(t)));
        assert!(told, "{trace}: leaks from {start}, killed at {kill}, told at {:?}", alarms.get(trace));
        let early = alarms[trace].iter().any(|t| *t < start && episode[8] != "leak_restarts");
        assert!(!early, "{trace}: told at {:?}, before it leaks at {start}", alarms[trace]);
    }
}

#[test]
fn healthy_processes_raise_no_alarm() {
    let dir = tempfile::tempdir().expect("a folder");
    let alerts = replayed(&csv_files(&generate(dir.path(), HEALTHY)));
    let alarms: Vec<_> = alerts.into_iter().filter(|(_, _, severity, _)| severity != "notice").collect();
    assert_eq!(alarms, []);
}

/// One seed of shapes whose curves come from mechanisms: bursts of tens of seconds, a leak behind a collector, a crash loop. All of
/// them and the figures: `dev/soak traces`.
#[test]
fn leaks_from_mechanisms_are_told_and_mapped_files_are_not() {
    const LEAKS: &str =
        "soft_limit_leak,stuck_threads,crash_loop,runaway_query,broken_parser,flood_of_clients,burst_under_a_sawtooth";
    const HEALTHY: &str = "mapped_files";
    let dir = tempfile::tempdir().expect("a folder");
    let done = Command::new("python3")
        .arg(traces().join("shapes.py"))
        .args(["--seeds", "1", "--only", &format!("{LEAKS},{HEALTHY}"), "--out"])
        .arg(dir.path())
        .output()
        .expect("python3 runs the generator");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    for split in ["tune", "held"] {
        check_labels(&dir.path().join(split));
    }
}

/// Each episode of the labels is told five seconds before its kill, and nothing else is.
fn check_labels(dir: &Path) {
    let alerts = replayed(&csv_files(dir));
    let alarms = |trace: &str| -> Vec<f64> {
        let of_trace = alerts.iter().filter(|(name, _, severity, _)| name == trace && severity != "notice");
        of_trace.map(|(_, t, ..)| *t).collect()
    };
    let labels = std::fs::read_to_string(dir.join("labels.csv")).expect("labels");
    for row in labels.lines().skip(1) {
        let row: Vec<&str> = row.split(',').collect();
        let at = alarms(row[1]);
        if row[3] == "no" {
            assert!(at.is_empty(), "{} is healthy, told at {at:?}", row[1]);
            continue;
        }
        let (start, kill): (f64, f64) = (row[4].parse().expect("start"), row[5].parse().expect("kill"));
        let told = at.iter().any(|t| (start..=kill - 5.0).contains(t));
        assert!(told, "{}: leaks from {start}, killed at {kill}, told at {at:?}", row[1]);
    }
}

/// Labels that fit the traces, healthy processes that live, the same traces each time.
#[test]
fn the_second_book_of_traces_keeps_its_promises() {
    let done = Command::new("python3")
        .arg(traces().join("second.py"))
        .arg("--check")
        .output()
        .expect("python3 runs the check");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// A real worker under 512 MiB, quiet until 660 s, two clients leaked a second from there, killed at 929 s.
#[test]
fn a_recorded_leak_is_told_a_minute_before_the_kill() {
    let alerts = replayed(&[traces().join("fixtures/origin_live.csv")]);
    assert!(alerts.iter().all(|(trace, t, ..)| trace == "origin_live" && *t >= 660.0), "{alerts:?}");
    let (_, first, ..) = alerts.iter().find(|(_, _, severity, _)| severity != "notice").expect("it is told");
    assert!(*first <= 869.0, "told at {first}");
    assert_eq!(alerts.last().map(|(_, _, severity, _)| severity.as_str()), Some("crit"));
}

/// Three starts that load 700 MiB of 1 GiB in eight minutes, each three hours after the other.
#[test]
fn what_one_life_of_a_file_held_is_known_ground_for_the_next() {
    let mut text = String::new();
    for (life, t) in (0..3).flat_map(|life| (0..10_800).step_by(5).map(move |t| (life, t))) {
        let mib = 60.0 + 700.0 * (f64::from(t) / 480.0).min(1.0);
        let bytes = (mib * 1_048_576.0) as u64;
        text += &format!("{},{bytes},{bytes},1,1073741824,{life}\n", life * 10_800 + t);
    }
    let told = outcome_of(&text).expect("it is replayed");
    let alarms: Vec<f64> = told
        .lines()
        .skip(1)
        .map(|line| line.split(',').collect::<Vec<_>>())
        .filter(|row| row[2] != "notice")
        .map(|row| row[1].parse().expect("seconds"))
        .collect();
    assert!(!alarms.is_empty() && alarms.iter().all(|t| *t < 10_800.0), "{told}");
}

fn outcome_of(text: &str) -> Result<String, String> {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("trace.csv");
    std::fs::write(&path, text).expect("write the trace");
    let mut out = Vec::new();
    let done = replay::run(&[dir.path().join("labels.csv"), path.clone()], &Settings::default(), &mut out);
    let place = path.display().to_string();
    done.map(|()| String::from_utf8(out).expect("text")).map_err(|error| error.to_string().replace(&place, "FILE"))
}

#[test]
fn a_line_that_is_no_reading_is_named() {
    const HEADER: &str = "t_s,rss_bytes,working_set_bytes,threads,limit_bytes,incarnation\n";
    for (lines, expected) in [
        ("0,1,1,1,100,1\n1,many,1,1,100,1\n", "FILE:3: rss_bytes = \"many\": expected a whole number"),
        ("0,1,1\n", "FILE:2: expected the six fields t_s,rss_bytes,working_set_bytes,threads,limit_bytes,incarnation"),
        (
            "0,1,1,1,100,1,7\n",
            "FILE:2: expected no more than the six fields t_s,rss_bytes,working_set_bytes,threads,limit_bytes,incarnation",
        ),
        ("-1,1,1,1,100,1\n", "FILE:2: t_s = \"-1\": expected seconds, such as 12 or 12.5"),
        ("NaN,1,1,1,100,1\n", "FILE:2: t_s = \"NaN\": expected seconds, such as 12 or 12.5"),
        ("0,1,1,1,100,\n", "FILE:2: incarnation is empty: expected a whole number"),
        ("5,1,1,1,100,1\n4,1,1,1,100,1\n", "FILE:3: t_s goes back: readings must be in order of time"),
    ] {
        assert_eq!(outcome_of(&format!("{HEADER}{lines}")), Err(expected.to_owned()));
    }
    let quiet = Ok("trace,t_s,severity,rule\n".to_owned());
    assert_eq!(
        outcome_of(&format!("{HEADER}0.5,,,,,1\r\n\n1.5,1,1,1,100,1")),
        quiet,
        "empty fields are what was not read"
    );
    assert!(outcome_of(&"9".repeat(1 << 20)).is_err_and(|error| error.starts_with("FILE:1: ")));
}
