//! What `go tool pprof` says of a profile, to set ours beside it.

use std::path::Path;
use std::process::Command;

use super::OOMWATCH;

/// `profile top --flat`, or `diff --flat` where there is a base, against pprof's own table: functions and bytes equal, order
/// equal but for ties.
pub fn flat_agrees(base: Option<&Path>, now: &Path) {
    let (unit, ours) = ours(base, now);
    let theirs = theirs(base, now, &unit);
    let sizes = |rows: &[(i64, String)]| rows.iter().map(|row| row.0.abs()).collect::<Vec<_>>();
    let sorted = |rows: &[(i64, String)]| rows.iter().cloned().collect::<std::collections::BTreeSet<_>>();
    let (left, right) = (sorted(&ours), sorted(&theirs));
    let agree = sizes(&ours) == sizes(&theirs) && left == right;
    let alone = (left.difference(&right).collect::<Vec<_>>(), right.difference(&left).collect::<Vec<_>>());
    assert!(agree, "{base:?} {now:?}\nonly ours and only theirs: {alone:#?}\nours: {ours:#?}\ntheirs: {theirs:#?}");
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

/// `1024B 12.34% 12.34% 2048B 5%  main.f` → (1024, "main.f"). A name may hold any blanks.
fn row(line: &str) -> Option<(i64, String)> {
    let bytes = line.split_whitespace().next()?;
    let bytes = bytes.strip_suffix('B').or_else(|| bytes.strip_suffix("ns")).unwrap_or(bytes).parse().ok()?;
    let name = line.splitn(4, '%').nth(3)?.strip_prefix("  ")?;
    Some((bytes, name.trim_end_matches(" (inline)").trim_end_matches(" (partial-inline)").to_owned()))
}
