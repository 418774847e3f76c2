//! Profiles that mean harm, and such as have no difference.

use super::*;
use crate::pprof::testing::{encode, goroutines, heap};

/// Clears a screen twice over, begins a line, turns the direction of text.
const HARM: &str = "x\u{1b}[2J\u{9b}2J\n\r\u{7f}\u{202e}\u{2066}y";

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Files {
        Files(tempfile::tempdir().unwrap())
    }

    fn put(&self, name: &str, profile: &Profile) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, encode(profile)).unwrap();
        path
    }
}

/// Code, output, errors.
fn ran(base: Option<&PathBuf>, now: &Path, flat: bool, json: bool) -> (u8, String, String) {
    let (mut out, mut errors, now) = (Vec::new(), Vec::new(), now.to_owned());
    let code = match base {
        Some(base) => diff(&DiffArgs { flat, json, base: base.clone(), now }, &mut out, &mut errors),
        None => top(&TopArgs { flat, json, file: now }, &mut out, &mut errors),
    };
    (code, String::from_utf8(out).unwrap(), String::from_utf8(errors).unwrap())
}

#[derive(Clone, Copy)]
enum Kind {
    Heap,
    Goroutines,
}

/// With every string in it hostile.
fn hostile(value: i64, kind: Kind) -> Profile {
    let (leaf, owner) =
        (format!("main.{HARM} /app/{HARM}.go 26"), format!("main.job{HARM} /m/{HARM}@v1.2.3/{HARM} 57"));
    let stack: &[&str] = &[&leaf, &owner];
    match kind {
        Kind::Heap => heap(&[(stack, value)]),
        Kind::Goroutines => goroutines(&[(stack, value)]),
    }
}

#[test]
fn no_string_of_a_profile_reaches_the_terminal_raw() {
    let files = Files::new();
    let renamed = |bytes, kind: &str, unit: &str| {
        let mut profile = hostile(bytes, Kind::Heap);
        (profile.sample_types[3].name, profile.sample_types[3].unit) = (kind.into(), unit.into());
        profile
    };
    let pairs = [
        (hostile(1 << 20, Kind::Heap), hostile(90 << 20, Kind::Heap)),
        (hostile(9, Kind::Goroutines), hostile(900, Kind::Goroutines)),
        (renamed(1 << 20, HARM, "bytes"), renamed(90 << 20, HARM, "bytes")),
        (renamed(1 << 20, "inuse_space", HARM), renamed(90 << 20, "inuse_space", HARM)),
    ];
    for (before, after) in &pairs {
        let (base, now) = (files.put("base", before), files.put("now", after));
        for (flat, json) in [(false, false), (false, true), (true, false), (true, true)] {
            for base in [None, Some(&base)] {
                let (code, out, errors) = ran(base, &now, flat, json);
                let harm = |c: char| c != '\n' && (c.is_control() || "\u{202e}\u{2066}".contains(c));
                assert!(code == 0 && !out.contains(harm), "{flat} {json}: {out:?} {errors}");
                assert!(out.contains("2J"), "{flat} {json}: it is there, made harmless: {out:?}");
                // Of six strings none began a line.
                assert!(!out.lines().any(|line| line.starts_with(['y', '.'])), "{out:?}");
            }
        }
    }
}

#[test]
fn unlike_profiles_are_refused_in_words() {
    let files = Files::new();
    let stack: &[&str] = &["main.grow /app/main.go 7"];
    let mut megabytes = heap(&[(stack, 9 << 20)]);
    megabytes.sample_types[3].unit = "megabytes".into();
    let heap = files.put("heap", &heap(&[(stack, 9 << 20)]));
    let others = [files.put("goroutine", &goroutines(&[(stack, 9)])), files.put("megabytes", &megabytes)];
    for other in &others {
        for (base, now) in [(&heap, other), (other, &heap)] {
            for (flat, json) in [(false, false), (true, true)] {
                let (code, out, errors) = ran(Some(base), now, flat, json);
                assert_eq!((code, out.as_str()), (2, ""));
                let both = [base, now].iter().all(|path| errors.contains(path.to_str().unwrap()));
                assert!(both && errors.contains("not comparable"), "{errors}");
            }
        }
    }
    assert_eq!(ran(Some(&heap), &heap, false, false).0, 0);
}
