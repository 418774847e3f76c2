//! `oomwatch profile top` and `diff`: what a profile holds and what grew between two, offline.
//!
//! Text and JSON are made from the same rows. With `--flat` the table is that of `go tool pprof -top -unit=B`, column for
//! column and byte for byte, so that scripts and doubts can compare the two.

use std::fmt::Write as _;
use std::io::{self, BufReader, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::{plain, pull};
use crate::pprof::{self, Confidence, Culprit, Flat, Groups, Growth, Naming, Profile, read};
use crate::sys;

/// A file is the user's own, so more is read of it than from an app. What is kept is bounded as in the sidecar.
const MAX_INFLATED: usize = 1 << 30;

/// Rows printed as text; JSON has up to a thousand.
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
    sys::set_up_heap();
    let (mut out, mut errors) = (std::io::stdout().lock(), std::io::stderr().lock());
    ExitCode::from(match command {
        Command::Top(args) => top(args, &mut out, &mut errors),
        Command::Diff(args) => diff(args, &mut out, &mut errors),
        Command::Pull(args) => return pull::run(args, settings, &mut out, &mut errors),
    })
}

#[derive(Clone, Debug, clap::Args)]
pub struct TopArgs {
    /// By function, as `go tool pprof -top` does, with the frames and names that the profile has: its drop_frames are not applied, and
    /// no program on this machine is asked for names.
    #[arg(long)]
    pub flat: bool,
    #[arg(long)]
    pub json: bool,
    pub file: PathBuf,
}

#[derive(Clone, Debug, clap::Args)]
pub struct DiffArgs {
    /// By function, as `go tool pprof -top -diff_base` does; what is left aside is the same as in top.
    #[arg(long)]
    pub flat: bool,
    #[arg(long)]
    pub json: bool,
    pub base: PathBuf,
    pub now: PathBuf,
}

/// Prints what a profile holds. Returns the exit code: 0, or 2 with words on `errors` when the file cannot be read.
pub fn top(args: &TopArgs, out: &mut impl Write, errors: &mut impl Write) -> u8 {
    finish(load(&args.file, read::MAX_MEMORY).map(|now| report(None, &now, args.flat, args.json, out)), errors)
}

/// Prints what grew from `base` to `now`. Returns the exit code as [`top`] does; a heap and goroutines have no difference.
pub fn diff(args: &DiffArgs, out: &mut impl Write, errors: &mut impl Write) -> u8 {
    let both = load(&args.base, read::MAX_MEMORY).and_then(|base| {
        let now = load(&args.now, base.memory_beside())?;
        let words = |why| format!("{} and {}: {why}", args.base.display(), args.now.display());
        pprof::comparable(&base, &now).map_err(words)?;
        Ok((base, now))
    });
    finish(both.map(|(base, now)| report(Some(&base), &now, args.flat, args.json, out)), errors)
}

fn load(path: &Path, max_memory: usize) -> Result<Profile, String> {
    let words = |why: String| format!("{}: {why}", path.display());
    let file = std::fs::File::open(path).map_err(|error| words(error.to_string()))?;
    let input = BufReader::with_capacity(32 << 10, file);
    read::read_from(input, MAX_INFLATED, max_memory).map_err(|error| words(error.to_string()))
}

/// Tells how it went. A reader that went away, as `head` does, has seen enough.
fn finish(report: Result<io::Result<()>, String>, errors: &mut impl Write) -> u8 {
    let (written, code) = match report {
        Ok(written) => (written, 0),
        Err(words) => (writeln!(errors, "{words}"), 2),
    };
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => 2,
        _ => code,
    }
}

/// Rows are made as they are written, because all of them together can be larger than the profiles.
fn report(base: Option<&Profile>, now: &Profile, flat: bool, json: bool, out: &mut impl Write) -> io::Result<()> {
    let mut out = BufWriter::new(out);
    match (flat, json) {
        (true, false) => flat_text(&pprof::flat(base, now), &mut out)?,
        (true, true) => plain::json(&FlatJson(&pprof::flat(base, now)), &mut out)?,
        (false, false) => out.write_all(Table::of(base, now).text().as_bytes())?,
        (false, true) => plain::json(&Table::of(base, now), &mut out)?,
    }
    out.flush()
}

/// pprof's own columns: `%10s %5s%% %5s%% %10s %5s%%  name`.
fn flat_text(flat: &Flat, out: &mut impl Write) -> io::Result<()> {
    let show = |value: i64| match flat.unit {
        "bytes" if value != 0 => format!("{value}B"),
        _ => value.to_string(),
    };
    writeln!(out, "Type: {}", plain::name(flat.sample_type))?;
    writeln!(out, "Showing nodes accounting for all of {} total", show(flat.total))?;
    writeln!(out, "{:>10} {:>5}% {:>5}% {:>10} {:>5}%", "flat", "flat", "sum", "cum", "cum")?;
    let mut sum = 0_i64;
    for row in &flat.rows {
        sum = sum.saturating_add(row.flat);
        let part = |value: i64| share_of(value, flat.total);
        let (flat, cum) = (show(row.flat), show(row.cum));
        let name = plain::name(&row.function);
        writeln!(out, "{flat:>10} {} {} {cum:>10} {}  {name}", part(row.flat), part(sum), part(row.cum))?;
    }
    Ok(())
}

struct FlatJson<'a>(&'a Flat<'a>);

impl Serialize for FlatJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Flat { sample_type, unit, total, rows } = self.0;
        let rows = rows.iter().map(|row| json!({"function": row.function, "flat": row.flat, "cum": row.cum}));
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("sample_type", sample_type)?;
        map.serialize_entry("unit", unit)?;
        map.serialize_entry("total", total)?;
        map.serialize_entry("rows", &Sequence(std::cell::RefCell::new(rows)))?;
        map.end()
    }
}

/// Rows that are made as they are written.
struct Sequence<I>(std::cell::RefCell<I>);

impl<I: Iterator<Item = Value>> Serialize for Sequence<I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&mut *self.0.borrow_mut())
    }
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

/// Rows by (leaf, owner), or goroutine groups, with the verdict where there is one to give.
struct Table<'a> {
    compared: bool,
    unit: String,
    rows: Rows<'a>,
    naming: Option<Naming>,
    note: Option<String>,
}

enum Rows<'a> {
    Values(Growth<'a>),
    Goroutines(Groups<'a>),
}

impl Rows<'_> {
    fn len(&self) -> usize {
        match self {
            Rows::Values(growth) => growth.rows.len() + growth.left_out,
            Rows::Goroutines(groups) => groups.groups.len() + groups.left_out,
        }
    }

    fn total(&self) -> i64 {
        match self {
            Rows::Values(growth) => growth.grown_bytes,
            Rows::Goroutines(groups) => groups.grown,
        }
    }

    fn kept(&self) -> usize {
        match self {
            Rows::Values(growth) => growth.rows.len(),
            Rows::Goroutines(groups) => groups.groups.len(),
        }
    }

    fn row(&self, at: usize) -> (i64, Culprit) {
        match self {
            Rows::Values(growth) => (growth.rows[at].bytes, growth.culprit(&growth.rows[at])),
            Rows::Goroutines(groups) => (groups.groups[at].grew, groups.groups[at].culprit(groups.grown)),
        }
    }
}

impl<'a> Table<'a> {
    fn of(base: Option<&'a Profile>, now: &'a Profile) -> Self {
        let counts = |name| now.type_index(name).is_some();
        if counts("goroutine") || counts("goroutineleak") {
            Self::goroutines(base, now)
        } else {
            Self::values(base, now)
        }
    }

    fn goroutines(base: Option<&'a Profile>, now: &'a Profile) -> Self {
        let groups = Groups::between(base, now);
        let note = groups.words(base.is_some());
        Self { compared: base.is_some(), unit: "count".into(), rows: Rows::Goroutines(groups), naming: None, note }
    }

    /// Heap and every other profile, by the value that `go tool pprof` shows of it. Only what is held can leak.
    fn values(base: Option<&'a Profile>, now: &'a Profile) -> Self {
        let shown = now.sample_types.get(now.default_type);
        let unit = shown.map(|kind| kind.unit.clone()).unwrap_or_default();
        let held = unit == "bytes" && shown.is_some_and(|kind| !kind.name.starts_with("alloc"));
        // Before the rows: each compares for itself, and both at once would be too much memory.
        let naming = base.filter(|_| held).map(|base| pprof::name(&input(base, now)));
        let rows = Rows::Values(Growth::shown(base, now));
        Self { compared: base.is_some(), unit, rows, naming, note: None }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        if let Some(words) = self.naming.as_ref().map(|it| &it.sentence).or(self.note.as_ref()) {
            let _ = writeln!(text, "{words}\n");
        }
        let what = if self.compared { "grew" } else { "holds" };
        let mut lines = vec![[what, "share", "leaf", "made by", "at"].map(str::to_owned)];
        let shown = self.rows.kept().min(MAX_ROWS);
        lines.extend((0..shown).map(|at| self.rows.row(at)).map(|(value, row)| self.line(value, &row)));
        align(&mut text, &lines);
        if self.rows.len() > MAX_ROWS {
            let _ = writeln!(text, "… and {} more (--json has up to a thousand)", self.rows.len() - MAX_ROWS);
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
            unit => format!("{value} {}", pprof::names::clean(unit)),
        }
    }
}

impl Serialize for Table<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("compared", &self.compared)?;
        map.serialize_entry("unit", &self.unit)?;
        map.serialize_entry("total", &self.rows.total())?;
        map.serialize_entry("rows", &self.rows)?;
        map.serialize_entry("rows_left_out", &(self.rows.len() - self.rows.kept()))?;
        map.serialize_entry("note", &self.note)?;
        map.serialize_entry("naming", &self.naming.as_ref().map(naming_json))?;
        map.end()
    }
}

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let rows = (0..self.kept()).map(|at| self.row(at));
        serializer.collect_seq(rows.map(|(value, row)| row_json(value, &row)))
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

#[cfg(test)]
mod tests;
