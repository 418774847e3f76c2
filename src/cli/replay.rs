//! `replay`: the detector over recorded readings, for judging it on traces and for asking what it would have said.
//!
//! One trace a file, read as a stream. The memory that the rules see is `rss_bytes`: the working set holds page cache, which the
//! kernel takes back before it kills. An empty field is a value that could not be read.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use crate::detect::{Change, Detector, Detectors, Reading, Settings, Severity};

const HEADER: &str = "t_s,rss_bytes,working_set_bytes,threads,limit_bytes,incarnation";
/// Six numbers need a tenth of it; a file that is something else must not be read into memory as one line.
const MAX_LINE: u64 = 1_024;

/// Replays files with the default settings on standard output. Exit code 0, or 1 with words when a file cannot be read.
pub fn command(files: &[PathBuf]) -> ExitCode {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match run(files, &Settings::default(), &mut out) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let _closed = writeln!(io::stderr(), "oomwatch: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Replays each file through detectors with these settings and writes `trace,t_s,severity,rule` for every alert that opens or
/// gets worse. A `labels.csv` among the files is passed over. A line that is no reading ends it, named as `FILE:LINE`.
pub fn run(files: &[PathBuf], settings: &Settings, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "trace,t_s,severity,rule")?;
    let traces = files.iter().filter(|path| path.file_name().is_none_or(|name| name != "labels.csv"));
    for path in traces {
        replay(path, settings.clone(), out)?;
    }
    out.flush()
}

fn replay(path: &Path, settings: Settings, out: &mut impl Write) -> io::Result<()> {
    let file = File::open(path).map_err(|error| about(path, None, &error.to_string(), error.kind()))?;
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let trace = quoted(&path.file_stem().unwrap_or_default().to_string_lossy());
    let mut detectors = Detectors::new(settings);
    let (mut line, mut number, mut before) = (Vec::new(), 0_u64, Duration::ZERO);
    loop {
        line.clear();
        number += 1;
        if reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let wrong = |what: &str| about(path, Some(number), what, io::ErrorKind::InvalidData);
        let text = std::str::from_utf8(&line).map_err(|_| wrong("expected text"))?.trim_ascii();
        if number == 1 && text == HEADER || text.is_empty() {
            continue;
        }
        let reading = parse(text).map_err(|what| wrong(&what))?;
        if reading.at < before {
            return Err(wrong("t_s goes back: readings must be in order of time"));
        }
        before = reading.at;
        for change in detectors.observe(&reading) {
            tell(&trace, text, &change, out)?;
        }
    }
}

/// A reading from a line of the file, or what is wrong with it.
fn parse(line: &str) -> Result<Reading, String> {
    let mut fields = line.split(',');
    let mut next = || fields.next().map(str::trim_ascii).ok_or_else(|| format!("expected the six fields {HEADER}"));
    let seconds = next()?;
    let at = seconds.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let memory = number("rss_bytes", next()?)?;
    number::<u64>("working_set_bytes", next()?)?;
    let reading = Reading {
        at: at.ok_or_else(|| format!("t_s = {seconds:?}: expected seconds, such as 12 or 12.5"))?,
        memory_bytes: memory,
        threads: number("threads", next()?)?,
        limit_bytes: number("limit_bytes", next()?)?,
        incarnation: number("incarnation", next()?)?.ok_or("incarnation is empty: expected a whole number")?,
        ..Reading::default()
    };
    match fields.next() {
        Some(_) => Err(format!("expected no more than the six fields {HEADER}")),
        None => Ok(reading),
    }
}

fn number<T: FromStr>(name: &str, field: &str) -> Result<Option<T>, String> {
    if field.is_empty() {
        return Ok(None);
    }
    field.parse().map(Some).map_err(|_| format!("{name} = {field:?}: expected a whole number"))
}

fn tell(trace: &str, line: &str, change: &Change, out: &mut impl Write) -> io::Result<()> {
    let (Change::Opened(alert) | Change::Escalated(alert)) = change else { return Ok(()) };
    let severity = match alert.severity {
        Severity::Notice => "notice",
        Severity::Warn => "warn",
        Severity::Crit => "crit",
    };
    let seconds = line.split(',').next().unwrap_or_default();
    writeln!(out, "{trace},{seconds},{severity},{}", alert.rule)
}

/// A name as a field of CSV.
fn quoted(name: &str) -> String {
    if name.contains([',', '"', '\n', '\r']) { format!("\"{}\"", name.replace('"', "\"\"")) } else { name.to_owned() }
}

fn about(path: &Path, line: Option<u64>, what: &str, kind: io::ErrorKind) -> io::Error {
    let line = line.map_or(String::new(), |line| format!(":{line}"));
    io::Error::new(kind, format!("{}{line}: {what}", path.display()))
}
