//! Profile bytes, gzip or plain, become a [`Profile`] of interned frames and stacks.
//!
//! The bytes come from the app and may be anything: they are inflated and taken apart as a stream, every id is checked, and
//! what does not fit together is an error in words, never a panic. The inflated size is capped, and so is, apart from it, the
//! memory of what is kept: two bytes on the wire can stand for an empty sample, and one location of many inlined frames can be
//! named by many samples.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader};
use std::sync::Arc;

use prost::Message;

use super::proto;
use super::wire::{Field, Wire};

/// How much a profile may inflate to; a Go heap profile of a large service is below 10 MiB.
pub const MAX_INFLATED: usize = 64 << 20;

/// Names are cut here, in bytes. Long ones are hashed and copied for each line that bears them, so length times lines must stay small.
const MAX_NAME: usize = 4 << 10;

/// Why bytes are not a profile, in words for the page and `doctor`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("the answer is empty")]
    Empty,
    #[error("the answer is {0}, not a profile: is the URL that of net/http/pprof?")]
    NotAProfile(&'static str),
    #[error("the profile ends too early: the gzip stream is cut")]
    Truncated,
    #[error("the profile inflates to more than {} MiB", .0 >> 20)]
    TooLarge(usize),
    #[error("the profile would take more than {} MiB of memory", .0 >> 20)]
    TooManyParts(usize),
    #[error("the profile is damaged: {0}")]
    Malformed(&'static str),
}

/// One line of one function, shared by all stacks that pass through it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    pub function: Arc<str>,
    pub file: Arc<str>,
    pub line: i64,
}

/// A sample: a stack, leaf first with inlined frames spelled out, and one value for each sample type.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Indices into [`Profile::frames`].
    pub stack: Arc<[u32]>,
    pub values: Box<[i64]>,
}

/// What a value of a sample means: `inuse_space` in `bytes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleType {
    pub name: String,
    pub unit: String,
}

/// A profile as it is computed with.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    pub sample_types: Vec<SampleType>,
    pub samples: Vec<Sample>,
    pub frames: Vec<Frame>,
    /// Names of functions that differ from their symbols: whoever made the profile has made them readable.
    pub readable: HashSet<Arc<str>>,
    /// Which type a viewer shows first, by index.
    pub default_type: usize,
    /// Sampling period: bytes between samples of a heap profile, 524,288 unless the app changed it.
    pub period: i64,
    pub time_nanos: i64,
}

impl Profile {
    /// The index of a sample type by name.
    pub fn type_index(&self, name: &str) -> Option<usize> {
        self.sample_types.iter().position(|it| it.name == name)
    }

    /// Sum of one value over all samples.
    pub fn total(&self, index: usize) -> i64 {
        self.samples.iter().filter_map(|sample| sample.values.get(index)).fold(0, |sum, v| sum.saturating_add(*v))
    }

    /// Frames of a sample, leaf first.
    pub fn stack<'a>(&'a self, sample: &'a Sample) -> impl DoubleEndedIterator<Item = &'a Frame> {
        sample.stack.iter().map(|index| &self.frames[*index as usize])
    }
}

/// Reads a profile, gzip or plain.
///
/// Memory stays below a sixth of `max_inflated`: at the usual 64 MiB that is 10 MiB, enough for 30,000 stacks of 40 frames.
///
/// # Errors
/// When the bytes are not a profile, are cut, damaged, inflate beyond `max_inflated`, or hold more parts than fit in memory.
pub fn read(bytes: &[u8], max_inflated: usize) -> Result<Profile, ReadError> {
    if bytes.is_empty() {
        return Err(ReadError::Empty);
    }
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let plain = BufReader::with_capacity(32 << 10, flate2::bufread::MultiGzDecoder::new(bytes));
        read_plain(Wire::new(plain, max_inflated), max_inflated / 6)
    } else {
        read_plain(Wire::new(bytes, max_inflated), max_inflated / 6)
    }
}

fn read_plain<R: BufRead>(mut wire: Wire<R>, max_memory: usize) -> Result<Profile, ReadError> {
    let start = wire.start()?;
    if start.is_empty() {
        return Err(ReadError::Empty);
    }
    let mut parts = Parts { budget: Budget { left: max_memory, whole: max_memory }, ..Parts::default() };
    let read = parts.collect(&mut wire).and_then(|()| parts.assemble());
    read.map_err(|error| match error {
        ReadError::Malformed(_) => looks_like(&start).unwrap_or(error),
        other => other,
    })
}

/// Tells a web page or a text from a damaged profile, because the mend is another one.
fn looks_like(start: &[u8]) -> Option<ReadError> {
    let text = start.iter().all(|byte| (0x20..0x7f).contains(byte) || byte.is_ascii_whitespace());
    let trimmed = start.trim_ascii_start().to_ascii_lowercase();
    let what = if trimmed.starts_with(b"<!doctype") || trimmed.starts_with(b"<html") {
        "a web page"
    } else if trimmed.starts_with(b"{") && text {
        "JSON"
    } else if text {
        "plain text"
    } else {
        return None;
    };
    Some(ReadError::NotAProfile(what))
}

/// What may still be kept, in bytes. The charges are estimates that lean high.
#[derive(Default)]
struct Budget {
    left: usize,
    whole: usize,
}

impl Budget {
    fn charge(&mut self, bytes: usize) -> Result<(), ReadError> {
        self.left = self.left.checked_sub(bytes).ok_or(ReadError::TooManyParts(self.whole))?;
        Ok(())
    }
}

/// A sample whose locations are not looked up yet: Go writes the string table last.
struct RawSample {
    locations: Box<[u32]>,
    values: Box<[i64]>,
}

struct RawLocation {
    address: u64,
    /// Function id and line, innermost first.
    lines: Box<[(u64, i64)]>,
}

/// The parts of a profile in the order they arrive, ids not resolved.
#[derive(Default)]
struct Parts {
    budget: Budget,
    types: Vec<proto::ValueType>,
    samples: Vec<RawSample>,
    /// Location id to its index in `locations`, given at first mention.
    location_ids: HashMap<u64, u32>,
    locations: Vec<Option<RawLocation>>,
    /// Function id to the string indices of name, symbol and file.
    functions: HashMap<u64, [i64; 3]>,
    strings: Vec<Arc<str>>,
    default_type: i64,
    period: i64,
    time_nanos: i64,
}

impl Parts {
    fn collect<R: BufRead>(&mut self, wire: &mut Wire<R>) -> Result<(), ReadError> {
        let mut sample = proto::Sample::default();
        while let Some(field) = wire.next(|tag| matches!(tag, 1 | 2 | 4 | 5 | 6))? {
            match field {
                Field::Bytes(1, bytes) => self.sample_type(bytes)?,
                Field::Bytes(2, bytes) => {
                    sample.clear();
                    sample.merge(bytes).map_err(|_| ReadError::Malformed("a sample cannot be decoded"))?;
                    self.sample(&sample)?;
                }
                Field::Bytes(4, bytes) => self.location(bytes)?,
                Field::Bytes(5, bytes) => self.function(bytes)?,
                Field::Bytes(6, bytes) => self.string(bytes)?,
                Field::Number(9, value) => self.time_nanos = value.cast_signed(),
                Field::Number(12, value) => self.period = value.cast_signed(),
                Field::Number(14, value) => self.default_type = value.cast_signed(),
                _ => (),
            }
        }
        Ok(())
    }

    fn sample_type(&mut self, bytes: &[u8]) -> Result<(), ReadError> {
        let kind =
            proto::ValueType::decode(bytes).map_err(|_| ReadError::Malformed("a sample type cannot be decoded"))?;
        self.budget.charge(64)?;
        self.types.push(kind);
        Ok(())
    }

    fn sample(&mut self, sample: &proto::Sample) -> Result<(), ReadError> {
        self.budget.charge(64 + 4 * sample.location_id.len() + 8 * sample.value.len())?;
        let mut locations = Vec::with_capacity(sample.location_id.len());
        for id in &sample.location_id {
            locations.push(self.location_index(*id)?);
        }
        self.samples.push(RawSample { locations: locations.into(), values: sample.value.as_slice().into() });
        Ok(())
    }

    fn location_index(&mut self, id: u64) -> Result<u32, ReadError> {
        if let Some(index) = self.location_ids.get(&id) {
            return Ok(*index);
        }
        self.budget.charge(96)?;
        let index = u32::try_from(self.locations.len()).map_err(|_| ReadError::TooManyParts(self.budget.whole))?;
        self.locations.push(None);
        self.location_ids.insert(id, index);
        Ok(index)
    }

    fn location(&mut self, bytes: &[u8]) -> Result<(), ReadError> {
        let wire = proto::Location::decode(bytes).map_err(|_| ReadError::Malformed("a location cannot be decoded"))?;
        self.budget.charge(16 * wire.line.len())?;
        let lines = wire.line.iter().map(|line| (line.function_id, line.line)).collect();
        let index = self.location_index(wire.id)?;
        self.locations[index as usize] = Some(RawLocation { address: wire.address, lines });
        Ok(())
    }

    fn function(&mut self, bytes: &[u8]) -> Result<(), ReadError> {
        let wire = proto::Function::decode(bytes).map_err(|_| ReadError::Malformed("a function cannot be decoded"))?;
        self.budget.charge(64)?;
        self.functions.insert(wire.id, [wire.name, wire.system_name, wire.filename]);
        Ok(())
    }

    fn string(&mut self, bytes: &[u8]) -> Result<(), ReadError> {
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_NAME)]);
        self.budget.charge(48 + text.len())?;
        self.strings.push(Arc::from(text));
        Ok(())
    }

    fn assemble(&mut self) -> Result<Profile, ReadError> {
        if self.types.is_empty() || self.strings.is_empty() {
            return Err(ReadError::Malformed("it names no sample type"));
        }
        let sample_types = self.types.iter().map(|it| self.type_of(it)).collect::<Result<Vec<_>, _>>()?;
        let default = self.text(self.default_type)?;
        let default_type = sample_types.iter().position(|it| *it.name == *default).unwrap_or(sample_types.len() - 1);
        let (Frames { list: frames, readable, .. }, stacks) = self.resolve()?;
        let raw = std::mem::take(&mut self.samples);
        let samples = raw.into_iter().map(|it| self.finish(it, &stacks)).collect::<Result<Vec<_>, _>>()?;
        let (period, time_nanos) = (self.period, self.time_nanos);
        Ok(Profile { sample_types, samples, frames, readable, default_type, period, time_nanos })
    }

    fn type_of(&self, wire: &proto::ValueType) -> Result<SampleType, ReadError> {
        Ok(SampleType { name: self.text(wire.r#type)?.to_string(), unit: self.text(wire.unit)?.to_string() })
    }

    fn text(&self, index: i64) -> Result<Arc<str>, ReadError> {
        let text = usize::try_from(index).ok().and_then(|index| self.strings.get(index));
        text.cloned().ok_or(ReadError::Malformed("a name is outside the string table"))
    }

    /// The frames, and for each location its frames by index, innermost first; `None` where a location was only mentioned.
    #[expect(clippy::type_complexity, reason = "both halves are read on the next line of the only caller")]
    fn resolve(&mut self) -> Result<(Frames, Vec<Option<Box<[u32]>>>), ReadError> {
        let mut frames = Frames::default();
        let mut stacks = Vec::with_capacity(self.locations.len());
        for location in std::mem::take(&mut self.locations) {
            let Some(location) = location else {
                stacks.push(None);
                continue;
            };
            let mut stack = Vec::with_capacity(location.lines.len().max(1));
            for (function, line) in &location.lines {
                stack.push(self.frame(&mut frames, *function, *line)?);
            }
            if stack.is_empty() {
                stack.push(self.bare_address(&mut frames, location.address)?);
            }
            stacks.push(Some(stack.into()));
        }
        Ok((frames, stacks))
    }

    fn frame(&mut self, frames: &mut Frames, function: u64, line: i64) -> Result<u32, ReadError> {
        if let Some(index) = frames.by_line.get(&(function, line)) {
            return Ok(*index);
        }
        let names = *self.functions.get(&function).ok_or(ReadError::Malformed("a line names no function"))?;
        let [name, symbol, file] = names.map(|at| self.text(at));
        let (name, symbol, file) = (name?, symbol?, file?);
        let is_readable = name != symbol;
        self.budget.charge(if is_readable { 160 } else { 112 })?;
        let frame = Frame { function: name, file, line };
        if is_readable {
            frames.readable.insert(Arc::clone(&frame.function));
        }
        Ok(frames.keep((function, line), frame))
    }

    /// A location without symbols, as a stripped cgo library leaves it.
    fn bare_address(&mut self, frames: &mut Frames, address: u64) -> Result<u32, ReadError> {
        let key = (u64::MAX, address.cast_signed());
        if let Some(index) = frames.by_line.get(&key) {
            return Ok(*index);
        }
        self.budget.charge(160)?;
        Ok(frames.keep(key, Frame { function: Arc::from(format!("0x{address:x}")), file: Arc::from(""), line: 0 }))
    }

    fn finish(&mut self, raw: RawSample, stacks: &[Option<Box<[u32]>>]) -> Result<Sample, ReadError> {
        if raw.values.len() != self.types.len() {
            return Err(ReadError::Malformed("a sample has another number of values than the profile has types"));
        }
        let mut stack = Vec::with_capacity(raw.locations.len());
        for index in &raw.locations {
            let frames = stacks[*index as usize].as_ref().ok_or(ReadError::Malformed("a sample names no location"))?;
            self.budget.charge(4 * (frames.len() - 1))?;
            stack.extend_from_slice(frames);
        }
        Ok(Sample { stack: stack.into(), values: raw.values })
    }
}

/// Frames by function id and line, each kept once.
#[derive(Default)]
struct Frames {
    list: Vec<Frame>,
    readable: HashSet<Arc<str>>,
    by_line: HashMap<(u64, i64), u32>,
}

impl Frames {
    fn keep(&mut self, key: (u64, i64), frame: Frame) -> u32 {
        let index = u32::try_from(self.list.len()).expect("the budget ends long before 2^32 frames");
        self.list.push(frame);
        self.by_line.insert(key, index);
        index
    }
}

#[cfg(test)]
mod tests;
