//! The fence around the folders: who may import whom, and what a file looks like. The rules are those of `docs/architecture.md`;
//! a rule that is in the way is changed there and here together.

use std::path::{Path, PathBuf};

use regex_lite::Regex;

const PURE: &[&str] = &["statsd", "aggregate", "detect", "pprof", "datadog"];
const IO: &[&str] = &["source", "sink", "page"];

/// Files that may hold `unsafe`.
const UNSAFE: &[&str] = &["sys.rs"];

const MOST_LINES: usize = 400;

struct File {
    /// Below `src/`.
    path: String,
    text: String,
}

impl File {
    fn is_in(&self, folder: &str) -> bool {
        self.path.starts_with(&format!("{folder}/")) || self.path == format!("{folder}.rs")
    }

    /// The lines that are compiled into the program: without comments, and without the tests at the end.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(index, line)| (index + 1, line));
        lines
            .take_while(|(_, line)| line.trim() != "#[cfg(test)]")
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// Every line of code that `pattern` matches, as `path:line: text`. What stands in quotes is no code.
    fn matches(&self, forbidden: &Regex) -> Vec<String> {
        let quoted = pattern(r#""([^"\\]|\\.)*""#);
        let found = self.code().filter(|(_, line)| forbidden.is_match(&quoted.replace_all(line, "\"\"")));
        found.map(|(number, line)| format!("src/{}:{number}: {}", self.path, line.trim())).collect()
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    const SKIPPED: &[&str] = &["target", ".git", ".cache", "node_modules", "dist"];
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if SKIPPED.iter().any(|skipped| name == *skipped) {
            continue;
        } else if path.is_dir() {
            walk(&path, found);
        } else {
            found.push(path);
        }
    }
}

fn sources() -> Vec<File> {
    let src = root().join("src");
    let mut paths = Vec::new();
    walk(&src, &mut paths);
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    paths.sort();
    assert!(paths.len() > 20, "the walk found {} files only", paths.len());
    let read = |path: PathBuf| File {
        text: std::fs::read_to_string(&path).expect("sources can be read"),
        path: path.strip_prefix(&src).expect("it was found below").to_string_lossy().replace('\\', "/"),
    };
    paths.into_iter().map(read).collect()
}

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("the pattern is ours")
}

/// Asserts that no line of code in `files` matches.
fn none<'a>(files: impl Iterator<Item = &'a File>, forbidden: &str, why: &str) {
    let forbidden = pattern(forbidden);
    let found: Vec<String> = files.flat_map(|file| file.matches(&forbidden)).collect();
    assert!(found.is_empty(), "{why}:\n{}", found.join("\n"));
}

/// `crate::a`, and `a` within `use crate::{…}`.
fn imports(modules: &str) -> String {
    format!(r"\bcrate::(\{{.*)?\b({modules})\b")
}

#[test]
fn pure_folders_touch_neither_the_world_nor_the_clock() {
    let files = sources();
    let pure = || files.iter().filter(|file| PURE.iter().any(|folder| file.is_in(folder)));
    let crates = r"\b(tokio|tokio_util|hyper|hyper_util|procfs|cadence|metrics|tracing|nix|socket2|rustls|config)::";
    none(pure(), crates, "a pure folder takes values and gives values");
    let world = r"\bstd::(\{.*)?\b(fs|net|env|process|thread)\b|\b(SystemTime|Instant)\b";
    none(pure(), world, "time comes into a pure folder as an argument, and files and sockets not at all");
    let ours = imports("source|sink|page|pipeline|app|cli|config|snapshot|telemetry");
    none(pure(), &ours, "pure folders import one another only");
}

#[test]
fn io_folders_import_neither_one_another_nor_the_tasks() {
    let files = sources();
    for folder in IO {
        let others: Vec<&str> = IO.iter().copied().filter(|other| other != folder).chain(["app", "cli"]).collect();
        let inside = || files.iter().filter(|file| file.is_in(folder));
        let why = format!("{folder} may import the pure folders and the messages of pipeline");
        none(inside(), &imports(&others.join("|")), &why);
        none(inside(), r"\bpipeline::(\{.*)?\b(rollup|watch|investigate)\b", &why);
    }
}

#[test]
fn tasks_import_no_io() {
    let files = sources();
    let tasks = files.iter().filter(|file| file.is_in("pipeline"));
    none(tasks, &imports("source|sink|page|app|cli"), "a task talks to the world through messages only");
}

#[test]
fn nobody_but_app_knows_everybody() {
    let everybody = IO.iter().map(|folder| pattern(&imports(folder))).collect::<Vec<_>>();
    for file in sources().iter().filter(|file| !file.is_in("app")) {
        let known = everybody.iter().filter(|folder| !file.matches(folder).is_empty()).count();
        assert!(known < IO.len(), "src/{} imports source, sink and page: wiring belongs into app", file.path);
    }
}

#[test]
fn unsafe_stands_in_named_files_only() {
    let files = sources();
    let others = files.iter().filter(|file| !UNSAFE.contains(&file.path.as_str()));
    none(others, r"\bunsafe\b", "unsafe belongs into one small audited file");
}

#[test]
fn files_are_short_and_open_with_what_they_own() {
    for file in sources() {
        let lines = file.text.lines().count();
        assert!(lines <= MOST_LINES, "src/{} has {lines} lines: look for the second idea in it", file.path);
        assert!(file.text.starts_with("//! "), "src/{} does not open with a paragraph on itself", file.path);
    }
}

#[test]
fn nothing_names_the_machine_it_was_written_on() {
    // Put together here, so that this file does not find itself. `/proc/PID/root/` is another thing: it follows a name.
    let places = ["work", "root"].map(|place| format!("(^|[\\s\"'`(=:])/{place}/"));
    let places = pattern(&places.join("|"));
    let mut files = Vec::new();
    walk(root(), &mut files);
    let text = |path: &PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let found: Vec<String> = files
        .iter()
        .flat_map(|path| {
            text(path)
                .lines()
                .filter(|line| places.is_match(line))
                .map(|line| format!("{}: {line}", path.display()))
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// A reason that is counted and not explained leaves whoever sees it on a dashboard guessing.
#[test]
fn every_drop_reason_is_explained_in_operations() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).unwrap();
    let literal = regex_lite::Regex::new(r#"(?:lose|lose_one|note|give_up)\([^;"]*"([a-z0-9_]+)""#).unwrap();
    let mut reasons: Vec<String> = oomwatch::aggregate::Reason::ALL.iter().map(|it| it.label().to_owned()).collect();
    for file in sources() {
        reasons.extend(literal.captures_iter(&file.text).map(|found| found[1].to_owned()));
    }
    assert!(reasons.len() > 15, "the pattern finds them: {reasons:?}");
    let missing: Vec<_> = reasons.iter().filter(|reason| !page.contains(&format!("`{reason}`"))).collect();
    assert!(missing.is_empty(), "docs/operations.md does not explain {missing:?}");
}
