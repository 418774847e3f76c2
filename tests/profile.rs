//! Profiles of a real Go program: our difference by function against `go tool pprof`'s, and the name against what the program
//! does. The program stands in `profiles/gen` and needs Go, but no network.

use std::path::{Path, PathBuf};
use std::process::Command;

use oomwatch::cli::profile::{DiffArgs, TopArgs, diff, top};
use oomwatch::pprof::read::{MAX_INFLATED, read};
use oomwatch::pprof::{Confidence, Groups, Input, Naming, Profile, name};

const SHAPES: [&str; 10] =
    ["leak", "closure", "generics", "inlined", "stdlib", "method", "recursion", "shrink", "constrained", "same"];

/// Profiles made by one run of the program, removed with the value.
struct Made {
    folder: tempfile::TempDir,
}

impl Made {
    /// `None` where there is no Go, which is said.
    fn by_go(flags: &[&str], rate: &str) -> Option<Self> {
        if let Err(error) = Command::new("go").arg("version").output() {
            println!("SKIPPED: no Go to make profiles with: {error}");
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder for profiles");
        let binary = folder.path().join("gen");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/profiles/gen");
        let mut build = Command::new("go");
        build.args(["build", "-mod=vendor", "-buildvcs=false"]).args(flags).arg("-o").arg(&binary).arg(".");
        build.current_dir(source).env("GOWORK", "off").env("GOPROXY", "off").env("GOFLAGS", "").env("CGO_ENABLED", "0");
        succeed(&mut build);
        succeed(Command::new(&binary).arg(folder.path()).env("GEN_RATE", rate).env_remove("GODEBUG"));
        Some(Self { folder })
    }

    fn file(&self, shape: &str, kind: &str) -> PathBuf {
        self.folder.path().join(format!("{shape}.{kind}"))
    }

    fn profile(&self, shape: &str, kind: &str) -> Profile {
        read(&std::fs::read(self.file(shape, kind)).expect("the program wrote it"), MAX_INFLATED).expect("a profile")
    }

    fn name(&self, shape: &str) -> Naming {
        let (base, now) =
            (self.profile(&format!("{shape}-base"), "heap"), self.profile(&format!("{shape}-now"), "heap"));
        let calm = self.profile(&format!("{shape}-base"), "goroutine");
        let piled = self.profile(&format!("{shape}-now"), "goroutine");
        name(&Input { goroutines: Some((Some(&calm), &piled)), ..Input::of_heaps(Some(&base), &now, 20.0) })
    }
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().expect("the command starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// (flat, cum, function) of pprof's table, and so of ours.
fn rows(text: &str) -> Vec<(i64, i64, String)> {
    let table = text.lines().skip_while(|line| !line.trim_start().starts_with("flat  flat%")).skip(1);
    let number = |word: &str| word.trim_end_matches('B').parse().expect("a number of bytes");
    let row = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let name = words[5..].join(" ");
        let name = name.trim_end_matches(" (inline)").trim_end_matches(" (partial-inline)");
        (number(words[0]), number(words[3]), name.to_owned())
    };
    table.map(row).collect()
}

fn go_rows(base: Option<&Path>, now: &Path) -> Vec<(i64, i64, String)> {
    let mut pprof = Command::new("go");
    pprof.args(["tool", "pprof", "-top", "-unit=B", "-nodecount=0", "-nodefraction=0", "-edgefraction=0"]);
    if let Some(base) = base {
        pprof.arg("-diff_base").arg(base);
    }
    rows(&succeed(pprof.arg(now)))
}

fn our_rows(base: Option<&Path>, now: &Path) -> Vec<(i64, i64, String)> {
    let (mut out, mut errors) = (Vec::new(), Vec::new());
    let now = now.to_owned();
    let code = match base {
        Some(base) => diff(&DiffArgs { flat: true, json: false, base: base.to_owned(), now }, &mut out, &mut errors),
        None => top(&TopArgs { flat: true, json: false, file: now }, &mut out, &mut errors),
    };
    assert_eq!((code, errors.len()), (0, 0));
    rows(&String::from_utf8(out).expect("text"))
}

/// Same functions with the same bytes, and the same order but for ties.
fn agree(what: &str, ours: &[(i64, i64, String)], theirs: &[(i64, i64, String)]) {
    let sizes = |rows: &[(i64, i64, String)]| -> Vec<u64> { rows.iter().map(|row| row.0.unsigned_abs()).collect() };
    assert_eq!(sizes(ours), sizes(theirs), "order of {what}");
    let sorted = |rows: &[(i64, i64, String)]| {
        let mut rows = rows.to_vec();
        rows.sort();
        rows
    };
    assert_eq!(sorted(ours), sorted(theirs), "{what}");
}

#[test]
fn differences_by_function_agree_with_go_tool_pprof() {
    let Some(made) = Made::by_go(&[], "512") else { return };
    let mut compared = 0;
    for shape in SHAPES {
        for kind in ["heap", "goroutine"] {
            let (base, now) = (made.file(&format!("{shape}-base"), kind), made.file(&format!("{shape}-now"), kind));
            let ours = our_rows(Some(&base), &now);
            compared += ours.len();
            agree(&format!("{shape} {kind}"), &ours, &go_rows(Some(&base), &now));
        }
    }
    let now = made.file("recursion-now", "heap");
    agree("a single profile", &our_rows(None, &now), &go_rows(None, &now));
    assert!(compared > 60, "only {compared} rows: the shapes are too small to prove anything");
}

#[test]
fn the_leak_and_its_maker_are_named() {
    let Some(made) = Made::by_go(&["-trimpath"], "") else { return };
    let cases = [
        ("leak", "statsd.newStatsdBuffer", "main.handleJob", "statsd.New"),
        ("closure", "main.main.func", "main.main.func", ""),
        ("generics", "cache.room[...]", "cache.room[...]", ""),
        ("inlined", "main.smaller", "main.smaller", ""),
        ("stdlib", "main.stdlib", "main.stdlib", ""),
        ("method", "main.(*grower).grow", "main.(*grower).grow", ""),
        ("recursion", "main.plant", "main.plant", ""),
    ];
    for (shape, leaf, owner, via) in cases {
        let naming = made.name(shape);
        assert!(naming.is_named(), "{shape}: {}", naming.sentence);
        let first = &naming.culprits[0];
        assert!(first.function.starts_with(leaf), "{shape}: {}", naming.sentence);
        assert!(first.made_by.starts_with(owner), "{shape}: {}", naming.sentence);
        assert!(via.is_empty() || first.via == via, "{shape}: {}", naming.sentence);
        assert!(first.share > 0.9, "{shape}: {}", naming.sentence);
    }
}

#[test]
fn a_client_left_open_is_named_surely_with_its_goroutines() {
    let Some(made) = Made::by_go(&["-trimpath"], "") else { return };
    let naming = made.name("leak");
    assert_eq!(naming.confidence, Confidence::High, "{}", naming.sentence);
    assert!(naming.sentence.contains("made in `main.handleJob` (main.go:"), "{}", naming.sentence);
    assert_eq!(naming.remedy, Some("make one StatsD client at start, reuse it, and close it at shutdown"));
    let said = |kind: &str| naming.evidence.iter().find(|(k, _)| k == kind).map(|(_, words)| words.as_str());
    assert_eq!(
        said("goroutines"),
        Some("goroutines +400 in 2 groups of equal size (+200 each): statsd.(*Client).flush, statsd.(*Client).watch")
    );
    assert_eq!(said("module"), Some("example.org/metrics@v1.4.2"));
    let (calm, piled) = (made.profile("leak-base", "goroutine"), made.profile("leak-now", "goroutine"));
    assert_eq!(Groups::between(Some(&calm), &piled).net, 400);
}

#[test]
fn a_swap_of_memory_and_a_missing_collection_name_nobody() {
    let Some(made) = Made::by_go(&[], "") else { return };
    let shrink = made.name("shrink");
    assert!(!shrink.is_named() && shrink.sentence.contains("the heap did not grow"), "{}", shrink.sentence);
    assert_eq!(made.name("same").sentence, "not nameable yet: no garbage collection between the two profiles");
}

#[test]
fn bent_profiles_of_a_real_program_are_read_or_refused() {
    let Some(made) = Made::by_go(&[], "") else { return };
    let mut plain = Vec::new();
    let file = std::fs::read(made.file("leak-now", "heap")).expect("the program wrote it");
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&file[..]), &mut plain).expect("gzip");
    let mut state = 1_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).expect("31 bits")
    };
    let healthy = read(&plain, MAX_INFLATED).expect("a profile");
    let mut read_anyway = 0;
    for _ in 0..2_000 {
        let mut bent = plain.clone();
        for _ in 0..=random() % 4 {
            let at = random() % bent.len();
            bent[at] = u8::try_from(random() & 0xff).expect("a byte");
        }
        bent.truncate(if random() % 4 == 0 { random() % bent.len() } else { bent.len() });
        let Ok(profile) = read(&bent, MAX_INFLATED) else { continue };
        read_anyway += 1;
        let (base, groups) = (Some(&healthy), Some((Some(&healthy), &profile)));
        let naming =
            name(&Input { goroutines: groups, rss_growth_bytes: Some(1), ..Input::of_heaps(base, &profile, 1.0) });
        assert!(naming.culprits.len() <= 10 && naming.sentence.len() < 8_000);
    }
    assert!(read_anyway > 50, "only {read_anyway} bent profiles were read: the bends are too rough to test naming");
}

#[test]
fn text_and_json_tell_the_same_and_unreadable_files_are_two() {
    let Some(made) = Made::by_go(&["-trimpath"], "") else { return };
    let (base, now) = (made.file("leak-base", "heap"), made.file("leak-now", "heap"));
    let run = |json: bool| {
        let (mut out, mut errors) = (Vec::new(), Vec::new());
        let args = DiffArgs { flat: false, json, base: base.clone(), now: now.clone() };
        assert_eq!(diff(&args, &mut out, &mut errors), 0);
        String::from_utf8(out).expect("text")
    };
    let json: serde_json::Value = serde_json::from_str(&run(true)).expect("JSON");
    let text = run(false);
    assert!(text.starts_with(json["naming"]["sentence"].as_str().expect("a sentence")), "{text}");
    assert_eq!(json["rows"][0]["function"], "statsd.newStatsdBuffer");
    assert_eq!(json["rows"][0]["made_by"], "main.handleJob");
    assert!(json["rows"][0]["value"].as_i64() > Some(0) && json["naming"]["named"] == true, "{json}");
    let row = text.lines().nth(3).expect("a first row");
    assert!(row.contains("statsd.newStatsdBuffer  main.handleJob") && row.contains("main.go:"), "{text}");

    let refused = |bytes: &[u8], words: &str| {
        let path = made.file("bad", "heap");
        std::fs::write(&path, bytes).expect("a file");
        let (mut out, mut errors) = (Vec::new(), Vec::new());
        assert_eq!(top(&TopArgs { flat: false, json: false, file: path }, &mut out, &mut errors), 2);
        assert!(out.is_empty() && String::from_utf8_lossy(&errors).contains(words), "{errors:?}");
    };
    refused(b"<html>", "the answer is a web page");
    refused(b"", "the answer is empty");
    refused(&std::fs::read(&now).expect("the program wrote it")[..500], "the gzip stream is cut");
    let (mut out, mut errors) = (Vec::new(), Vec::new());
    let missing = DiffArgs { flat: true, json: false, base, now: made.file("no", "heap") };
    assert_eq!(diff(&missing, &mut out, &mut errors), 2);
    assert!(String::from_utf8_lossy(&errors).contains("no.heap: No such file"), "{errors:?}");
}
