//! A full goroutine dump (`debug=2`): who started the goroutines that pile up, which no profile tells (golang/go#16894).
//!
//! The text comes from the app and may be anything, so it is read line by line into a bounded table. Arguments of functions stand
//! in it; they are cut off here and kept nowhere.

use std::collections::HashMap;

use super::names::{self, Kind};
use super::read::Frame;

/// Kinds of goroutine that are told apart, by where they stand and who started them; further ones are not counted.
const MAX_GROUPS: usize = 1_000;

/// Longer lines are cut, in bytes, and further frames of a stack passed over.
const MAX_LINE: usize = 4 << 10;
const MAX_FRAMES: usize = 128;

/// Goroutines that stand in one place and were started in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// The first function outside runtime and standard library, as a profile names it; else the first of all.
    pub stands_in: String,
    /// Full name of the function with the `go` statement, and its place.
    pub creator: String,
    pub file: String,
    pub line: i64,
    pub count: u64,
    /// How many of them the runtime marks as blocked for good.
    pub leaked: u64,
}

/// What a dump tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dump {
    pub goroutines: u64,
    /// Most first.
    pub started: Vec<Started>,
}

/// Whether the text may be a dump, by its beginning.
pub fn is_dump(text: &[u8]) -> bool {
    text.starts_with(b"goroutine ")
}

/// Reads a dump; what is no dump gives an empty one.
pub fn read(text: &[u8]) -> Dump {
    let mut table = Table::default();
    let mut at_hand = None;
    for line in text.split(|byte| *byte == b'\n') {
        let line = String::from_utf8_lossy(&line[..line.len().min(MAX_LINE)]);
        let line = line.trim_end_matches('\r');
        if line.starts_with("goroutine ") && line.ends_with("]:") {
            table.add(at_hand.replace(Goroutine { leaked: line.contains("(leaked)"), ..Goroutine::default() }));
        } else if let Some(goroutine) = &mut at_hand {
            goroutine.take(line);
        }
    }
    table.add(at_hand);
    table.finish()
}

/// One goroutine while its lines come.
#[derive(Debug, Default)]
struct Goroutine {
    leaked: bool,
    /// Functions, leaf first, each with its file once the next line has told it.
    frames: Vec<Frame>,
    creator: Option<Frame>,
    /// The line before named a function; this one tells its file.
    file_of: FileOf,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum FileOf {
    #[default]
    Nobody,
    Frame,
    Creator,
}

impl Goroutine {
    fn take(&mut self, line: &str) {
        let named = |function: &str| Frame { function: function.into(), file: "".into(), line: 0 };
        if let Some(place) = line.strip_prefix('\t') {
            let frame = match std::mem::take(&mut self.file_of) {
                FileOf::Nobody => None,
                FileOf::Frame => self.frames.last_mut(),
                FileOf::Creator => self.creator.as_mut(),
            };
            if let Some(frame) = frame {
                (frame.file, frame.line) = file_and_line(place);
            }
        } else if let Some(creator) = line.strip_prefix("created by ") {
            let creator = creator.split(" in goroutine ").next().unwrap_or_default();
            self.creator = Some(named(creator));
            self.file_of = FileOf::Creator;
        } else if let Some(function) = without_arguments(line).filter(|_| self.frames.len() < MAX_FRAMES) {
            self.frames.push(named(function));
            self.file_of = FileOf::Frame;
        }
    }

    fn stands_in(&self) -> Option<&Frame> {
        let told = |frame: &&Frame| matches!(names::kind(frame), Kind::Dependency | Kind::App);
        self.frames.iter().find(told).or(self.frames.first())
    }
}

/// `main.(*T).f` of `main.(*T).f(0xc000012345, {0x1, 0x2})`; `None` for a line that is no call.
fn without_arguments(line: &str) -> Option<&str> {
    let inside = line.strip_suffix(')')?;
    let mut depth = 1_usize;
    let open = inside.char_indices().rev().find(|(_, c)| {
        match c {
            ')' => depth += 1,
            '(' => depth -= 1,
            _ => (),
        }
        depth == 0
    })?;
    Some(&line[..open.0]).filter(|name| !name.is_empty())
}

/// `/app/main.go` and 57 of `/app/main.go:57 +0x1d`.
fn file_and_line(place: &str) -> (std::sync::Arc<str>, i64) {
    let place = place.split(" +0x").next().unwrap_or_default();
    let (file, line) = place.rsplit_once(':').unwrap_or((place, ""));
    (file.into(), line.parse().unwrap_or(0))
}

#[derive(Debug, Default)]
struct Table {
    goroutines: u64,
    by_place: HashMap<(String, String), Started>,
}

impl Table {
    fn add(&mut self, goroutine: Option<Goroutine>) {
        let Some(goroutine) = goroutine else { return };
        self.goroutines += 1;
        let (Some(stands_in), Some(creator)) = (goroutine.stands_in(), &goroutine.creator) else { return };
        let key = (stands_in.function.to_string(), creator.function.to_string());
        if self.by_place.len() >= MAX_GROUPS && !self.by_place.contains_key(&key) {
            return;
        }
        let fresh = || Started {
            stands_in: key.0.clone(),
            creator: key.1.clone(),
            file: creator.file.to_string(),
            line: creator.line,
            count: 0,
            leaked: 0,
        };
        let started = self.by_place.entry(key.clone()).or_insert_with(fresh);
        started.count += 1;
        started.leaked += u64::from(goroutine.leaked);
    }

    fn finish(self) -> Dump {
        let mut started: Vec<Started> = self.by_place.into_values().collect();
        started.sort_by(|a, b| {
            b.count.cmp(&a.count).then_with(|| (&a.stands_in, &a.creator).cmp(&(&b.stands_in, &b.creator)))
        });
        Dump { goroutines: self.goroutines, started }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
goroutine 1 [running, locked to thread]:
runtime/pprof.writeGoroutineStacks({0x7f, 0xc0})
\t/usr/local/go/src/runtime/pprof/pprof.go:830 +0x6b
main.main()
\t/app/main.go:9 +0x1d

goroutine 18 [chan send (leaked), 2 minutes]:
main.query.func1()
\t/app/main.go:30 +0x5c
created by main.query in goroutine 1
\t/app/main.go:25 +0x8a

goroutine 19 [chan send]:
runtime.gopark(...)
\t/usr/local/go/src/runtime/proc.go:400
main.query.func1()
\t/app/main.go:30 +0x5c
created by main.query in goroutine 1
\t/app/main.go:25 +0x8a

goroutine 20 [select]:
net/http.(*persistConn).writeLoop(0xc000123456)
\t/usr/local/go/src/net/http/transport.go:2519 +0xe7
created by net/http.(*Transport).dialConn
\t/usr/local/go/src/net/http/transport.go:1874 +0x154f
";

    #[test]
    fn who_started_what_is_counted() {
        let dump = read(TEXT.as_bytes());
        let seen: Vec<_> = dump
            .started
            .iter()
            .map(|it| (it.stands_in.as_str(), it.creator.as_str(), it.file.as_str(), it.line, it.count, it.leaked))
            .collect();
        let http = "/usr/local/go/src/net/http/transport.go";
        assert_eq!(
            seen,
            [
                ("main.query.func1", "main.query", "/app/main.go", 25, 2, 1),
                ("net/http.(*persistConn).writeLoop", "net/http.(*Transport).dialConn", http, 1874, 1, 0),
            ]
        );
        assert_eq!(dump.goroutines, 4);
        assert_eq!(read(TEXT.replace('\n', "\r\n").as_bytes()).started.len(), 2);
    }

    #[test]
    fn arguments_are_cut_off_whatever_they_hold() {
        let cases = [
            ("main.f(0x1, {0x2, 0x3})", Some("main.f")),
            ("main.(*T).f(...)", Some("main.(*T).f")),
            ("main.G[...](0x1)", Some("main.G[...]")),
            ("main.f({0xc0, (0x5)})", Some("main.f")),
            ("exit status 2", None),
            ("...additional frames elided...", None),
            ("(0x1)", None),
            (")", None),
        ];
        for (line, expected) in cases {
            assert_eq!(without_arguments(line), expected, "{line}");
        }
    }

    #[test]
    fn hostile_text_ends_soon_and_takes_little() {
        let cut = &TEXT.as_bytes()[..TEXT.len() - 70];
        assert_eq!(read(cut).goroutines, 4, "a dump that is cut off counts what came");
        let many: String =
            (0..5_000).map(|n| format!("goroutine {n} [x]:\nmain.f{n}()\ncreated by main.g{n}\n")).collect();
        let dump = read(many.as_bytes());
        assert_eq!((dump.goroutines, dump.started.len()), (5_000, MAX_GROUPS));
        let deep = format!("goroutine 1 [x]:\n{}created by main.g\n", "main.f()\n".repeat(100_000));
        assert_eq!(read(deep.as_bytes()).started[0].count, 1);
        let long =
            format!("goroutine 1 [x]:\nmain.{}()\nmain.f()\ncreated by {}\n", "x".repeat(1 << 20), "y".repeat(1 << 20));
        assert!(read(long.as_bytes()).started[0].creator.len() <= MAX_LINE);
        let lines: &[&[u8]] =
            &[b"", b"\xff\xfe\x00", b"\t\n\t", b"goroutine ]:\n\tx:9999999999999999999999\n", b"created by \n"];
        assert!(lines.iter().all(|text| read(text).started.is_empty()));
        assert!(!is_dump(b"<html>") && is_dump(TEXT.as_bytes()));
    }
}
