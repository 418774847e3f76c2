//! The zoo: programs in other runtimes, that nobody wrote for this, each below a real limit and watched by the real sidecar.
//!
//! Healthy ones under load must raise no alarm; leaks must raise one before memory reaches the limit. A notice is none: it is
//! on the page only. The long forms are `dev/soak zoo` and `dev/soak leaks`; what was read stands in `target/zoo` afterwards.
#![allow(clippy::unwrap_used)]

#[path = "zoo/beast.rs"]
mod beast;
#[path = "zoo/healthy.rs"]
mod healthy;
#[path = "zoo/leaks.rs"]
mod leaks;
#[path = "zoo/pen.rs"]
mod pen;
#[path = "zoo/record.rs"]
mod record;
mod support;

use std::time::Duration;

use pen::{Keeper, MIB, Pen, Species, alarms, side_by_side};
use record::Recorder;
use support::Sidecar;
use tokio::time::Instant;

const HEALTHY: &str = "healthy_programs_under_load_raise_no_alarm";
const LEAKS: &str = "leaks_in_other_runtimes_are_told_before_the_limit";

/// How long, and from when on the slow rules are awake: 30 s after the start in the short form. What fills up first, a cache or a
/// heap that is left to its soft limit, gets the default grace of 60 s, as all do in the long form.
fn healthy_run(species: &str) -> (Duration, &'static str) {
    match (std::env::var("OOMWATCH_ZOO_SECONDS"), species) {
        (Ok(seconds), _) => (Duration::from_secs(seconds.parse().expect("a number of seconds")), ""),
        (Err(_), "redis" | "go-memlimit") => (Duration::from_secs(85), ""),
        (Err(_), _) => (Duration::from_secs(85), "[alert]\nstartup_grace = \"30s\"\n"),
    }
}

#[test]
fn healthy_programs_under_load_raise_no_alarm() {
    let (length, settings) = healthy_run("");
    println!("{HEALTHY}: {length:?} each; {}", if settings.is_empty() { "default settings" } else { settings.trim() });
    let keepers = healthy::SPECIES.iter().filter(|species| species.is_here(HEALTHY));
    side_by_side(keepers.map(|species| (species.name, boxed(move || keep(species)))).collect());
}

fn boxed(keeper: impl FnOnce() -> Result<String, String> + Send + 'static) -> Keeper {
    Box::new(keeper)
}

/// Watches a healthy animal to the end of its time. No alarm, and a sidecar that was not blind.
fn keep(species: &'static Species) -> Result<String, String> {
    let (length, settings) = healthy_run(species.name);
    let pen = Pen::new(species);
    let mut lodgers = (species.start)(&pen);
    let sidecar = pen.sidecar(&lodgers, settings);
    let mut recorder = Recorder::new(species.name, &pen, &lodgers);
    let (began, mut peak) = (Instant::now(), 0);
    while began.elapsed() < length {
        if let Some(end) = pen.end_of(&mut lodgers.app) {
            return Err(format!("it ended by itself: {end}: {}", pen.log("app.log")));
        }
        if let Some(load) = lodgers.load.as_mut().and_then(|load| load.0.try_wait().unwrap()) {
            return Err(format!("its load ended by itself: {load}: {}", pen.log("load.log")));
        }
        recorder.look();
        peak = peak.max(used(&sidecar));
        std::thread::sleep(Duration::from_millis(500));
    }
    drop(lodgers.load.take());
    verdict(species, &pen, &sidecar, length, peak)
}

fn used(sidecar: &Sidecar) -> u64 {
    let memory = &sidecar.api("/api/status")["memory"];
    memory["working_set_bytes"].as_u64().or_else(|| memory["rss_bytes"].as_u64()).unwrap_or(0)
}

fn verdict(species: &Species, pen: &Pen, sidecar: &Sidecar, length: Duration, peak: u64) -> Result<String, String> {
    let (status, readings) = (sidecar.api("/api/status"), sidecar.api("/api/readings"));
    let (memory, loud) = (&status["memory"], alarms(sidecar));
    let seen = readings["t"].as_array().unwrap().len() as u64;
    let told = format!(
        "peak {} of {} MiB, state {}, {seen} readings, {} notices",
        peak / MIB,
        pen.limit / MIB,
        memory["state"],
        sidecar.api("/api/incidents").as_array().unwrap().len() - loud.len()
    );
    if !loud.is_empty() {
        return Err(format!("false alarm ({told}): {}", serde_json::Value::from(loud)));
    }
    let awake = memory["state"] != "learning" && memory["limit_bytes"] == pen.limit;
    if !awake || seen < (length.as_secs() / 4).min(500) || peak < species.least_mib * MIB {
        return Err(format!("the sidecar or the load was not there ({told}): {status}"));
    }
    Ok(told)
}

#[test]
fn leaks_in_other_runtimes_are_told_before_the_limit() {
    let (rate, calm) = leaks::pace();
    println!("{LEAKS}: {rate:.2} MiB/s after {calm} s of calm, default settings");
    let keepers = leaks::SPECIES.iter().filter(|species| species.is_here(LEAKS));
    side_by_side(keepers.map(|species| (species.name, boxed(move || wait_for_the_alarm(species)))).collect());
}

/// Watches a leak to its end, and tells how long before that the first alarm stood.
fn wait_for_the_alarm(species: &'static Species) -> Result<String, String> {
    let pen = Pen::new(species);
    let mut lodgers = (species.start)(&pen);
    let sidecar = pen.sidecar(&lodgers, "");
    let mut recorder = Recorder::new(&format!("leak {}", species.name), &pen, &lodgers);
    let (began, mut first) = (Instant::now(), None);
    let end = loop {
        recorder.look();
        if first.is_none() {
            first = alarms(&sidecar).into_iter().next().map(|alarm| (Instant::now(), used(&sidecar), alarm));
        }
        if let Some(end) = pen.end_of(&mut lodgers.app) {
            break end;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    let ended = began.elapsed().as_secs_f64();
    let (at, share, alarm) =
        first.ok_or_else(|| format!("no alarm before its end after {ended:.0} s ({end}): {}", pen.log("app.log")))?;
    let lead = ended - (at - began).as_secs_f64();
    Ok(format!(
        "{} {lead:.1} s before its end at {ended:.0} s, at {} of {} MiB: {}",
        alarm["severity"],
        share / MIB,
        pen.limit / MIB,
        alarm["evidence"][0]["text"]
    ))
}
