//! `oomwatch profile top` and `diff`: what a profile holds and what grew between two, offline.
//!
//! Text and JSON are made from the same rows. With `--flat` the table is that of `go tool pprof -top -unit=B`, column for
//! column and byte for byte, so that scripts and doubts can compare the two.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::pull;
use crate::pprof::{self, Confidence, Culprit, Flat, Groups, Growth, Naming, Profile};

/// A file is the user's own and this is his workstation, so far more is taken than from an app.
const MAX_FILE: u64 = 256 << 20;
const MAX_INFLATED: usize = 1 << 30;

/// Rows printed as text; JSON has them all.
const MAX_ROWS: usize = 40;

#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// What a profile holds, largest first.
    Top(TopArgs),
    /// What grew between two profiles, and who made it.
    Diff(DiffArgs),
    /// Pull one from an app now, as the sidecar does.
    Pull(pull::Args),
}

/// Runs a `profile` command on this process's outputs.
pub fn run(command: &Command, settings: Option<&Path>) -> ExitCode {
    let (mut out, mut errors) = (std::io::stdout().lock(), std::io::stderr().lock());
    ExitCode::from(match command {
        Command::Top(args) => top(args, &mut out, &mut errors),
        Command::Diff(args) => diff(args, &mut out, &mut errors),
        Command::Pull(args) => return pull::run(args, settings, &mut out, &mut errors),
    })
}

#[derive(Clone, Debug, clap::Args)]
pub struct TopArgs {
    /// By function, as `go tool pprof -top` does.
    #[arg(long)]
    pub flat: bool,
    #[arg(long)]
    pub json: bool,
    pub file: PathBuf,
}

#[derive(Clone, Debug, clap::Args)]
pub struct DiffArgs {
    /// By function, as `go tool pprof -top -diff_base` does.
    #[arg(long)]
    pub flat: bool,
    #[arg(long)]
    pub json: bool,
    pub base: PathBuf,
    pub now: PathBuf,
}

/// Prints what a profile holds. Returns the exit code: 0, or 2 with words on `errors` when the file cannot be read.
pub fn top(args: &TopArgs, out: &mut impl Write, errors: &mut impl Write) -> u8 {
    finish(load(&args.file).map(|now| report(None, &now, args.flat, args.json)), out, errors)
}

/// Prints what grew from `base` to `now`. Returns the exit code as [`top`] does.
pub fn diff(args: &DiffArgs, out: &mut impl Write, errors: &mut impl Write) -> u8 {
    let both = load(&args.base).and_then(|base| Ok((base, load(&args.now)?)));
    finish(both.map(|(base, now)| report(Some(&base), &now, args.flat, args.json)), out, errors)
}

fn load(path: &Path) -> Result<Profile, String> {
    let words = |why: String| format!("{}: {why}", path.display());
    let file = std::fs::File::open(path).map_err(|error| words(error.to_string()))?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|error| words(error.to_string()))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(words(format!("the file is larger than {} MiB", MAX_FILE >> 20)));
    }
    pprof::read::read(&bytes, MAX_INFLATED).map_err(|error| words(error.to_string()))
}

/// Writes the one or the other. A reader that went away, as `head` does, has seen enough.
fn finish(report: Result<String, String>, out: &mut impl Write, errors: &mut impl Write) -> u8 {
    let (written, code) = match report {
        Ok(text) => (out.write_all(text.as_bytes()).and_then(|()| out.flush()), 0),
        Err(words) => (writeln!(errors, "{words}"), 2),
    };
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => 2,
        _ => code,
    }
}

fn report(base: Option<&Profile>, now: &Profile, flat: bool, json: bool) -> String {
    match (flat, json) {
        (true, false) => flat_text(&pprof::flat(base, now)),
        (true, true) => pretty(&flat_json(&pprof::flat(base, now))),
        (false, false) => Table::of(base, now).text(),
        (false, true) => pretty(&Table::of(base, now).json()),
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// pprof's own columns: `%10s %5s%% %5s%% %10s %5s%%  name`.
fn flat_text(flat: &Flat) -> String {
    let show = |value: i64| match flat.unit.as_str() {
        "bytes" if value != 0 => format!("{value}B"),
        _ => value.to_string(),
    };
    let mut text = format!("Type: {}\n", flat.sample_type);
    let _ = writeln!(text, "Showing nodes accounting for all of {} total", show(flat.total));
    let _ = writeln!(text, "{:>10} {:>5}% {:>5}% {:>10} {:>5}%", "flat", "flat", "sum", "cum", "cum");
    let mut sum = 0_i64;
    for row in &flat.rows {
        sum = sum.saturating_add(row.flat);
        let part = |value: i64| share_of(value, flat.total);
        let (flat, cum) = (show(row.flat), show(row.cum));
        let name = row.function.replace(char::is_control, "?");
        let _ = writeln!(text, "{flat:>10} {} {} {cum:>10} {}  {name}", part(row.flat), part(sum), part(row.cum));
    }
    text
}

fn share_of(value: i64, total: i64) -> String {
    let share = if total == 0 { 0.0 } else { (value as f64 / total as f64).abs() * 100.0 };
    match share {
        _ if (99.95..=100.05).contains(&share) => "  100%".to_owned(),
        _ if share >= 1.0 => format!("{share:5.2}%"),
        // Two digits that count, as `%.2g` has them.
        _ if share >= 0.1 || share == 0.0 => format!("{:>5}%", (share * 100.0).round() / 100.0),
        _ => format!("{share:5.3}%"),
    }
}

fn flat_json(flat: &Flat) -> Value {
    let row = |row: &pprof::flat::Row| json!({"function": row.function, "flat": row.flat, "cum": row.cum});
    let rows: Vec<Value> = flat.rows.iter().map(row).collect();
    json!({"sample_type": flat.sample_type, "unit": flat.unit, "total": flat.total, "rows": rows})
}

/// Rows by (leaf, owner), or goroutine groups, with the verdict where there is one to give.
struct Table {
    compared: bool,
    unit: String,
    total: i64,
    rows: Vec<(i64, Culprit)>,
    naming: Option<Naming>,
    note: Option<String>,
}

impl Table {
    fn of(base: Option<&Profile>, now: &Profile) -> Self {
        let counts = |name| now.type_index(name).is_some();
        if counts("goroutine") || counts("goroutineleak") {
            Self::goroutines(base, now)
        } else {
            Self::values(base, now)
        }
    }

    fn goroutines(base: Option<&Profile>, now: &Profile) -> Self {
        let groups = Groups::between(base, now);
        let rows = groups.groups.iter().map(|group| (group.grew, group.culprit(groups.grown))).collect();
        let note = groups.words(base.is_some());
        Self { compared: base.is_some(), unit: "count".into(), total: groups.grown, rows, naming: None, note }
    }

    /// Heap and every other profile, by the value that `go tool pprof` shows of it. Only what is held can leak.
    fn values(base: Option<&Profile>, now: &Profile) -> Self {
        let growth = Growth::shown(base, now);
        let shown = now.sample_types.get(now.default_type);
        let unit = shown.map(|kind| kind.unit.clone()).unwrap_or_default();
        let held = unit == "bytes" && shown.is_some_and(|kind| !kind.name.starts_with("alloc"));
        let rows = growth.rows.iter().map(|row| (row.bytes, growth.culprit(row))).collect();
        let named = base.filter(|_| held).map(|base| pprof::name(&input(base, now)));
        Self { compared: base.is_some(), unit, total: growth.grown_bytes, rows, naming: named, note: None }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        if let Some(words) = self.naming.as_ref().map(|it| &it.sentence).or(self.note.as_ref()) {
            let _ = writeln!(text, "{words}\n");
        }
        let what = if self.compared { "grew" } else { "holds" };
        let mut lines = vec![[what, "share", "leaf", "made by", "at"].map(str::to_owned)];
        lines.extend(self.rows.iter().take(MAX_ROWS).map(|(value, row)| self.line(*value, row)));
        align(&mut text, &lines);
        if self.rows.len() > MAX_ROWS {
            let _ = writeln!(text, "… and {} more (--json has them all)", self.rows.len() - MAX_ROWS);
        }
        let Some(naming) = &self.naming else { return text };
        for (kind, words) in &naming.evidence {
            let _ = writeln!(text, "\n{kind}: {words}");
        }
        if let Some(remedy) = naming.remedy {
            let _ = writeln!(text, "\nThe usual mend: {remedy}");
        }
        text
    }

    fn line(&self, value: i64, row: &Culprit) -> [String; 5] {
        let (file, line) =
            if row.made_by.is_empty() { (&row.file, row.line) } else { (&row.made_by_file, row.made_by_line) };
        let base = file.rsplit('/').next().unwrap_or_default();
        let share = if value > 0 { format!("{:.1} %", row.share * 100.0) } else { "-".to_owned() };
        [self.show(value), share, row.function.clone(), row.made_by.clone(), format!("{base}:{line}")]
    }

    fn show(&self, value: i64) -> String {
        let sign = if value < 0 { "-" } else { "" };
        match self.unit.as_str() {
            "bytes" => format!("{sign}{}", pprof::words::bytes(value)),
            "count" => value.to_string(),
            unit => format!("{value} {unit}"),
        }
    }

    fn json(&self) -> Value {
        let rows: Vec<Value> = self.rows.iter().map(|(value, row)| row_json(*value, row)).collect();
        json!({
            "compared": self.compared, "unit": self.unit, "total": self.total, "rows": rows,
            "note": self.note, "naming": self.naming.as_ref().map(naming_json),
        })
    }
}

fn input<'a>(base: &'a Profile, now: &'a Profile) -> pprof::Input<'a> {
    let known = base.time_nanos > 0 && now.time_nanos > base.time_nanos;
    let seconds = if known { (now.time_nanos - base.time_nanos) as f64 / 1e9 } else { 0.0 };
    pprof::Input::of_heaps(Some(base), now, seconds)
}

fn row_json(value: i64, row: &Culprit) -> Value {
    json!({
        "value": value, "objects": row.grew_objects, "share": row.share, "function": row.function, "file": row.file,
        "line": row.line, "made_by": row.made_by, "made_by_file": row.made_by_file, "made_by_line": row.made_by_line,
        "via": row.via, "stack": row.stack,
    })
}

fn naming_json(naming: &Naming) -> Value {
    let confidence = match naming.confidence {
        Confidence::High => "high",
        Confidence::Medium => "medium",
        Confidence::Low => "low",
        Confidence::Unknown => "unknown",
    };
    let evidence: Vec<Value> =
        naming.evidence.iter().map(|(kind, words)| json!({"kind": kind, "words": words})).collect();
    json!({
        "named": naming.is_named(), "confidence": confidence, "sentence": naming.sentence, "remedy": naming.remedy,
        "evidence": evidence,
    })
}

/// Columns as wide as their widest cell; numbers to the right.
fn align(text: &mut String, lines: &[[String; 5]]) {
    let width = |column: usize| lines.iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
    let widths = [0, 1, 2, 3].map(width);
    for [value, share, leaf, maker, at] in lines {
        let [a, b, c, d] = widths;
        let _ = writeln!(text, "{value:>a$}  {share:>b$}  {leaf:<c$}  {maker:<d$}  {at}");
    }
}
