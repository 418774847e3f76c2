//! What a large profile costs: the decode and difference of a pair of 10 MiB beside `go tool pprof`, and the memory of whatever is
//! thrown at it. Alone in its file, because what is measured is a process and its clock.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use support::{OOMWATCH, have};
use tokio::time::Instant;

const MIB: u64 = 1 << 20;

/// Above what reading a profile of a few lines takes.
const MOST: u64 = 24 * MIB;

/// A profile on the wire, in the order that Go writes.
#[derive(Default)]
struct Wire(Vec<u8>);

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn packed(tag: u8, values: impl IntoIterator<Item = u64>) -> Vec<u8> {
    let mut all = Vec::new();
    values.into_iter().for_each(|value| varint(&mut all, value));
    field(tag, &all)
}

fn field(tag: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![tag << 3 | 2];
    varint(&mut out, bytes.len() as u64);
    out.extend_from_slice(bytes);
    out
}

impl Wire {
    fn heap() -> Wire {
        let mut wire = Wire::default();
        for kind in [[1, 2], [3, 4], [5, 2], [6, 4]] {
            wire.0.extend(field(1, &[0x08, kind[0], 0x10, kind[1]]));
        }
        wire
    }

    fn sample(&mut self, stack: impl IntoIterator<Item = u64>, values: [u64; 4]) {
        self.0.extend(field(2, &[packed(1, stack), packed(2, values)].concat()));
    }

    /// Locations from 1 on, each of a line of its own in one of so many functions, whose names are as long.
    fn finish(mut self, locations: u64, functions: u64, name: usize, whose: char) -> Vec<u8> {
        let number = |tag: u8, value: u64| {
            let mut out = vec![tag << 3];
            varint(&mut out, value);
            out
        };
        for at in 1..=locations {
            let line = [number(1, at % functions + 1), number(2, at)].concat();
            self.0.extend(field(4, &[number(1, at), number(3, at << 4), field(4, &line)].concat()));
        }
        for at in 1..=functions {
            let text = at + 6;
            self.0.extend(field(5, &[number(1, at), number(2, text), number(3, text), number(4, 4)].concat()));
        }
        for text in ["", "alloc_objects", "count", "alloc_space", "bytes", "inuse_objects", "inuse_space"] {
            self.0.extend(field(6, text.as_bytes()));
        }
        for at in 1..=functions {
            let text = format!("example.org/shop/part{}.(*{whose}).do{at}", at % 50);
            self.0.extend(field(6, format!("{text:x>name$}").as_bytes()));
        }
        self.0
    }
}

/// The same numbers every time.
struct Random(u64);

impl Random {
    fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// A heap as large programs have it, after that of a type checker with every allocation sampled: stacks of 34 locations of which
/// a neighbour shares 30, 2,500 locations in 815 functions, one stack of five alive.
fn large(samples: u64, alive: u64) -> Vec<u8> {
    let (mut random, mut stack, mut wire) = (Random(7), Vec::<u64>::new(), Wire::heap());
    for at in 0..samples {
        let mut fresh = 1 + random.below(7).min(random.below(7));
        stack.truncate(stack.len().saturating_sub(fresh as usize).min(33));
        fresh += u64::from(stack.len() < 31);
        while fresh > 0 || stack.len() < 20 {
            // A function calls a few others.
            let caller = stack.last().copied().unwrap_or(0);
            stack.push((caller * 31 + random.below(6) * 97) % 2_500 + 1);
            fresh = fresh.saturating_sub(1);
        }
        let objects = 1 + random.below(90);
        let is_alive = at % 5 == 0;
        let live = if is_alive { 1 + objects * alive / 100 } else { 0 };
        wire.sample(stack.iter().rev().copied(), [objects, objects * 64, live, live * 64]);
    }
    wire.finish(2_500, 815, 0, 'A')
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    let mut out = flate2::write::GzEncoder::new(std::fs::File::create(&path).unwrap(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap();
    path
}

struct Run {
    took: Duration,
    /// Most resident memory.
    peak: u64,
    said: Result<String, String>,
}

fn run(arguments: &[&str], files: &[&Path]) -> Run {
    let began = Instant::now();
    let mut command = Command::new(OOMWATCH);
    command.arg("profile").args(arguments).args(files).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let watcher = std::thread::spawn(move || {
        let mut peak = 0;
        // Gone, or a zombie without memory.
        while let Some(now) = std::fs::read_to_string(&status).ok().and_then(|text| high_water(&text)) {
            peak = peak.max(now);
            std::thread::sleep(Duration::from_micros(200));
        }
        peak
    });
    let output = child.wait_with_output().unwrap();
    let took = began.elapsed();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let said = if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) };
    Run { took, peak: watcher.join().unwrap(), said }
}

fn high_water(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? << 10)
}

/// What the program takes without a profile to speak of.
fn base(dir: &Path) -> u64 {
    let mut wire = Wire::heap();
    wire.sample([1, 2], [1, 1, 1, 1]);
    let tiny = write(dir, "tiny", &wire.finish(2, 2, 0, 'A'));
    (0..5).map(|_| run(&["diff"], &[&tiny, &tiny]).peak).max().unwrap()
}

#[test]
fn a_large_profile_costs_little_and_a_hostile_one_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let base = base(dir.path());
    a_pair_of_ten_mebibytes(dir.path(), base);
    no_profile_takes_more(dir.path(), base);
}

fn a_pair_of_ten_mebibytes(dir: &Path, base: u64) {
    let (old, new) = (large(132_000, 80), large(133_000, 100));

    println!("{} and {} bytes", old.len(), new.len());
    let (old, new) = (write(dir, "old", &old), write(dir, "new", &new));
    let mut best = Duration::MAX;
    for arguments in [&["diff", "--flat"][..], &["diff", "--flat"], &["diff", "--flat"], &["diff"], &["diff", "--json"]]
    {
        let it = run(arguments, &[&old, &new]);
        println!("{arguments:?}: {:?}, {} KiB above {} KiB", it.took, it.peak.saturating_sub(base) >> 10, base >> 10);
        assert!(it.peak <= base + MOST, "{arguments:?}: {} above {base}", it.peak - base);
        it.said.unwrap_or_else(|error| panic!("{error}"));
        best = best.min(it.took);
    }
    if !have("go", "a_large_profile_costs_little, beside pprof") {
        return;
    }
    support::pprof::flat_agrees(Some(&old), &new);
    let theirs = pprof(&old, &new);
    let ratio = theirs.as_secs_f64() / best.as_secs_f64();
    println!("10 MiB and 10 MiB: {best:?}, go tool pprof {theirs:?}: {ratio:.1} times as fast");
    // A build without optimisation proves nothing.
    assert!(ratio >= 5.0 || cfg!(debug_assertions), "{best:?} is not five times faster than {theirs:?}");
}

fn pprof(old: &Path, new: &Path) -> Duration {
    let began = Instant::now();
    let mut go = Command::new("go");
    go.args(["tool", "pprof", "-top", "-unit=B", "-nodecount=0", "-nodefraction=0", "-diff_base"]).arg(old).arg(new);
    assert!(go.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    began.elapsed()
}

type Make = fn(u64, char) -> Vec<u8>;

/// Profiles that are all of one thing, by how many MiB of memory they should take, about, and whose functions they are.
const HOSTILE: [(&str, Make); 6] = [
    ("stacks that share nothing", unshared),
    ("stacks that are alive", alive),
    ("one stack over and over", repeated),
    ("long names", long_names),
    ("locations", locations),
    ("one location of many frames", inlined),
];

fn unshared(size: u64, whose: char) -> Vec<u8> {
    let (mut random, mut wire) = (Random(size), Wire::heap());
    for _ in 0..size * MIB / 20 / 100 {
        wire.sample((0..100).map(|_| 1 + random.below(120)), [1, 1, 0, 0]);
    }
    wire.finish(120, 120, 0, whose)
}

/// Every one of its own leaf and owner.
fn alive(size: u64, whose: char) -> Vec<u8> {
    let mut wire = Wire::heap();
    for at in 0..size * MIB / 90 {
        wire.sample([1 + at % 400, 401 + at / 400 % 400], [1, 1, 1 + at % 9, 1 + at % 9]);
    }
    wire.finish(800, 800, 0, whose)
}

fn repeated(size: u64, whose: char) -> Vec<u8> {
    let mut wire = Wire::heap();
    (0..size * MIB / 8).for_each(|_| wire.sample([1], [1, 1, 0, 0]));
    wire.finish(1, 1, 0, whose)
}

fn long_names(size: u64, whose: char) -> Vec<u8> {
    let (count, mut wire) = (size * MIB / 4_400, Wire::heap());
    (1..=count).for_each(|at| wire.sample([at], [1, 1, 1, 1]));
    wire.finish(count, count, 4_000, whose)
}

fn locations(size: u64, whose: char) -> Vec<u8> {
    let (count, mut wire) = (size * MIB / 350, Wire::heap());
    (1..=count).for_each(|at| wire.sample([at], [1, 1, 1, 1]));
    wire.finish(count, 10, 0, whose)
}

/// A third of a location's 256 KiB, named by all samples.
fn inlined(size: u64, whose: char) -> Vec<u8> {
    let mut wire = Wire::heap();
    (0..size * 30).for_each(|_| wire.sample([1], [1, 1, 1, 1]));
    let line = field(4, &[0x08, 1, 0x10, 1]);
    wire.0.extend(field(4, &[vec![0x08, 9], line.repeat(15_000)].concat()));
    (0..size * 30).for_each(|_| wire.sample([9], [1, 1, 1, 1]));
    wire.finish(2, 2, 0, whose)
}

fn no_profile_takes_more(dir: &Path, base: u64) {
    let file = |kind: usize, size: u64, whose: char| {
        let path = dir.join(format!("{kind}-{size}-{whose}"));
        if path.exists() { path } else { write(dir, path.to_str().unwrap(), &HOSTILE[kind].1(size, whose)) }
    };
    let (mut taken, mut refused, mut most) = (0, 0, (0, String::new()));
    for (old, new, sizes) in cases() {
        let files = [file(old, sizes[0], 'A'), file(new, sizes[1], 'B')];
        let json: &[&str] = if taken % 2 == 0 { &["diff", "--json"] } else { &["diff", "--flat", "--json"] };
        let it = run(json, &[&files[0], &files[1]]);
        let what = format!("{} and {} of {sizes:?}", HOSTILE[old].0, HOSTILE[new].0);
        match &it.said {
            Ok(_) => taken += 1,
            Err(words) => {
                refused += 1;
                let is_told = words.contains("would take more than") || words.contains("million frames together");
                assert!(is_told, "{what}: {words}");
            }
        }
        most = most.max((it.peak.saturating_sub(base), what.clone()));
        assert!(it.peak <= base + MOST, "{what}: {} KiB above {} KiB", (it.peak - base) >> 10, base >> 10);
    }
    // As much as may be pulled.
    let whole = write(dir, "whole", &large(800_000, 80));
    let it = run(&["top"], &[&whole]);
    println!("64 MiB inflated: {:?}, {} KiB above base", it.said, it.peak.saturating_sub(base) >> 10);
    assert!(
        it.peak <= base + MOST && it.said.unwrap_err().contains("would take more than"),
        "{} above {base}",
        it.peak
    );
    println!("hostile pairs: {taken} taken, {refused} refused, at most {} KiB above base: {}", most.0 >> 10, most.1);
    assert!(taken > 3 && refused > 3, "{taken} taken, {refused} refused: the sizes prove nothing");
}

/// Two kinds and their sizes. A build without optimisation takes its time, so it sees fewer.
fn cases() -> Vec<(usize, usize, [u64; 2])> {
    let all = 0..HOSTILE.len();
    let pairs = all.clone().flat_map(|old| all.clone().map(move |new| (old, new)));
    let few = |(old, new): &(usize, usize)| !cfg!(debug_assertions) || old == new;
    let sizes = [[11, 11], [13, 20]];
    pairs.filter(few).flat_map(|(old, new)| sizes.map(|sizes| (old, new, sizes))).collect()
}
