//! Profile bytes, gzip or plain, become a [`Profile`] of interned frames and stacks.
//!
//! The bytes come from the app and may be anything: the inflated size is cut while streaming, every id is checked, and what
//! does not fit together is an error in words, never a panic. Decoding needs a small multiple of the inflated size, so the
//! cap on that size is the cap on memory.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use prost::Message;

use super::proto;

/// How much a profile may inflate to; a Go heap profile of a large service is below 10 MiB.
pub const MAX_INFLATED: usize = 64 << 20;

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

    pub fn stack<'a>(&'a self, sample: &'a Sample) -> impl DoubleEndedIterator<Item = &'a Frame> {
        sample.stack.iter().map(|index| &self.frames[*index as usize])
    }
}

/// Reads a profile, gzip or plain.
///
/// # Errors
/// When the bytes are not a profile, are cut, damaged, or inflate beyond `max_inflated`.
pub fn read(bytes: &[u8], max_inflated: usize) -> Result<Profile, ReadError> {
    let plain = inflate(bytes, max_inflated)?;
    let wire = proto::Profile::decode(plain.as_slice()).map_err(|_| looks_like(&plain))?;
    if wire.sample_type.is_empty() || wire.string_table.is_empty() {
        return Err(looks_like(&plain));
    }
    Interner::default().profile(&wire)
}

fn inflate(bytes: &[u8], max_inflated: usize) -> Result<Vec<u8>, ReadError> {
    if bytes.is_empty() {
        return Err(ReadError::Empty);
    }
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return if bytes.len() > max_inflated { Err(ReadError::TooLarge(max_inflated)) } else { Ok(bytes.to_vec()) };
    }
    let mut plain = Vec::new();
    flate2::read::MultiGzDecoder::new(bytes)
        .take(max_inflated as u64 + 1)
        .read_to_end(&mut plain)
        .map_err(|_| ReadError::Truncated)?;
    match plain.len() {
        0 => Err(ReadError::Empty),
        n if n > max_inflated => Err(ReadError::TooLarge(max_inflated)),
        _ => Ok(plain),
    }
}

/// Tells a web page or a text from a damaged profile, because the mend is another one.
fn looks_like(plain: &[u8]) -> ReadError {
    let start: Vec<u8> = plain.iter().take(256).map(u8::to_ascii_lowercase).collect();
    let text = start.iter().all(|byte| (0x20..0x7f).contains(byte) || byte.is_ascii_whitespace());
    let trimmed = start.trim_ascii_start();
    if trimmed.starts_with(b"<!doctype") || trimmed.starts_with(b"<html") {
        ReadError::NotAProfile("a web page")
    } else if trimmed.starts_with(b"{") {
        ReadError::NotAProfile("JSON")
    } else if text {
        ReadError::NotAProfile("plain text")
    } else {
        ReadError::Malformed("it is not pprof's protobuf")
    }
}

/// Turns ids into indices, sharing strings, frames and stacks.
#[derive(Default)]
struct Interner {
    frames: Vec<Frame>,
    by_line: HashMap<(u64, i64), u32>,
}

impl Interner {
    fn profile(mut self, wire: &proto::Profile) -> Result<Profile, ReadError> {
        let strings: Vec<Arc<str>> = wire.string_table.iter().map(|text| Arc::from(text.as_str())).collect();
        let functions: HashMap<u64, &proto::Function> = wire.function.iter().map(|it| (it.id, it)).collect();
        let locations = self.locations(wire, &functions, &strings)?;
        let mut samples = Vec::with_capacity(wire.sample.len());
        for sample in &wire.sample {
            samples.push(sample_of(sample, &locations, wire.sample_type.len())?);
        }
        let sample_types = sample_types(wire, &strings)?;
        let default = string(&strings, wire.default_sample_type)?;
        let default_type = sample_types.iter().position(|it| *it.name == *default).unwrap_or(sample_types.len() - 1);
        Ok(Profile {
            sample_types,
            samples,
            frames: self.frames,
            default_type,
            period: wire.period,
            time_nanos: wire.time_nanos,
        })
    }

    /// Location id to its frames, innermost first.
    fn locations(
        &mut self,
        wire: &proto::Profile,
        functions: &HashMap<u64, &proto::Function>,
        strings: &[Arc<str>],
    ) -> Result<HashMap<u64, Vec<u32>>, ReadError> {
        let mut locations = HashMap::with_capacity(wire.location.len());
        for location in &wire.location {
            let mut frames = Vec::with_capacity(location.line.len().max(1));
            for line in &location.line {
                frames.push(self.frame(line, functions, strings)?);
            }
            if frames.is_empty() {
                frames.push(self.bare_address(location.address));
            }
            locations.insert(location.id, frames);
        }
        Ok(locations)
    }

    fn frame(
        &mut self,
        line: &proto::Line,
        functions: &HashMap<u64, &proto::Function>,
        strings: &[Arc<str>],
    ) -> Result<u32, ReadError> {
        if let Some(index) = self.by_line.get(&(line.function_id, line.line)) {
            return Ok(*index);
        }
        let function = functions.get(&line.function_id).ok_or(ReadError::Malformed("a line names no function"))?;
        let frame = Frame {
            function: string(strings, function.name)?,
            file: string(strings, function.filename)?,
            line: line.line,
        };
        Ok(self.keep((line.function_id, line.line), frame))
    }

    /// A location without symbols, as a stripped cgo library leaves it.
    fn bare_address(&mut self, address: u64) -> u32 {
        let frame = Frame { function: Arc::from(format!("0x{address:x}")), file: Arc::from(""), line: 0 };
        self.keep((u64::MAX, i64::from_ne_bytes(address.to_ne_bytes())), frame)
    }

    fn keep(&mut self, key: (u64, i64), frame: Frame) -> u32 {
        let index = *self.by_line.entry(key).or_insert(u32::try_from(self.frames.len()).unwrap_or(u32::MAX));
        if index as usize == self.frames.len() {
            self.frames.push(frame);
        }
        index
    }
}

fn sample_of(sample: &proto::Sample, locations: &HashMap<u64, Vec<u32>>, types: usize) -> Result<Sample, ReadError> {
    if sample.value.len() != types {
        return Err(ReadError::Malformed("a sample has another number of values than the profile has types"));
    }
    let mut stack = Vec::with_capacity(sample.location_id.len());
    for id in &sample.location_id {
        stack.extend(locations.get(id).ok_or(ReadError::Malformed("a sample names no location"))?);
    }
    Ok(Sample { stack: stack.into(), values: sample.value.clone().into() })
}

fn sample_types(wire: &proto::Profile, strings: &[Arc<str>]) -> Result<Vec<SampleType>, ReadError> {
    let of = |it: &proto::ValueType| {
        Ok(SampleType { name: string(strings, it.r#type)?.to_string(), unit: string(strings, it.unit)?.to_string() })
    };
    wire.sample_type.iter().map(of).collect()
}

fn string(strings: &[Arc<str>], index: i64) -> Result<Arc<str>, ReadError> {
    usize::try_from(index)
        .ok()
        .and_then(|index| strings.get(index))
        .cloned()
        .ok_or(ReadError::Malformed("a name is outside the string table"))
}
