//! What `go tool pprof` says of a profile, to set ours beside it.

use std::path::Path;
use std::process::Command;

use super::OOMWATCH;

/// `profile top --flat`, or `diff --flat` where there is a base, against pprof's own table: functions and bytes equal, order
/// equal but for ties.
pub fn flat_agrees(base: Option<&Path>, now: &Path) {
    let (mut ours, mut theirs) = (ours(base, now), theirs(base, now));
    let order = |rows: &[(i64, String)]| rows.iter().map(|row| row.0.abs()).collect::<Vec<_>>();
    assert_eq!(order(&ours), order(&theirs), "order, ties free: {base:?} {now:?}");
    ours.sort();
    theirs.sort();
    assert_eq!(ours, theirs, "{base:?} {now:?}");
}

fn ours(base: Option<&Path>, now: &Path) -> Vec<(i64, String)> {
    let action = if base.is_some() { "diff" } else { "top" };
    let output =
        Command::new(OOMWATCH).args(["profile", action, "--flat", "--json"]).args(base).arg(now).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = answer["rows"].as_array().unwrap_or_else(|| panic!("{answer}"));
    rows.iter().map(|row| (row["flat"].as_i64().unwrap(), row["function"].as_str().unwrap().to_owned())).collect()
}

fn theirs(base: Option<&Path>, now: &Path) -> Vec<(i64, String)> {
    let mut command = Command::new("go");
    command.args(["tool", "pprof", "-top", "-unit=B", "-nodecount=0", "-nodefraction=0", "-edgefraction=0"]);
    if let Some(base) = base {
        command.arg("-diff_base").arg(base);
    }
    let output = command.arg(now).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().filter_map(row).collect()
}

/// `1024B 12.34% 12.34% 2048B 5% main.f` → (1024, "main.f").
fn row(line: &str) -> Option<(i64, String)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let bytes = words.first()?.strip_suffix('B').unwrap_or(words.first()?).parse().ok()?;
    (words.len() >= 6 && words[1].ends_with('%'))
        .then(|| (bytes, words[5..].join(" ").replace(" (inline)", "").replace(" (partial-inline)", "")))
}
