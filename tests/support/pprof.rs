//! What `go tool pprof` says of a profile, to set ours beside it.

use std::path::Path;
use std::process::Command;

use super::OOMWATCH;

/// `profile top --flat`, or `diff --flat` where there is a base, against pprof's own table: functions and bytes equal, order
/// equal but for ties.
pub fn flat_agrees(base: Option<&Path>, now: &Path) {
    let (unit, mut ours) = ours(base, now);
    let mut theirs = theirs(base, now, &unit);
    let order = |rows: &[(i64, String)]| rows.iter().map(|row| row.0.abs()).collect::<Vec<_>>();
    assert_eq!(order(&ours), order(&theirs), "order, ties free: {base:?} {now:?}");
    ours.sort();
    theirs.sort();
    assert_eq!(ours, theirs, "{base:?} {now:?}");
}

fn ours(base: Option<&Path>, now: &Path) -> (String, Vec<(i64, String)>) {
    let action = if base.is_some() { "diff" } else { "top" };
    let output =
        Command::new(OOMWATCH).args(["profile", action, "--flat", "--json"]).args(base).arg(now).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = answer["rows"].as_array().unwrap_or_else(|| panic!("{answer}"));
    let rows = rows.iter().map(|row| (row["flat"].as_i64().unwrap(), row["function"].as_str().unwrap().to_owned()));
    (answer["unit"].as_str().unwrap().to_owned(), rows.collect())
}

fn theirs(base: Option<&Path>, now: &Path, unit: &str) -> Vec<(i64, String)> {
    let mut command = Command::new("go");
    command.arg("tool").arg("pprof").arg(format!("-unit={}", if unit == "nanoseconds" { "ns" } else { "B" }));
    command.args(["-top", "-nodecount=0", "-nodefraction=0", "-edgefraction=0"]);
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
    let first = words.first()?;
    let bytes = first.strip_suffix('B').or_else(|| first.strip_suffix("ns")).unwrap_or(first).parse().ok()?;
    (words.len() >= 6 && words[1].ends_with('%'))
        .then(|| (bytes, words[5..].join(" ").replace(" (inline)", "").replace(" (partial-inline)", "")))
}
