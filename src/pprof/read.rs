//! Profile bytes, gzip or plain, become a [`Profile`] of interned frames and stacks.
//!
//! The bytes come from the app and may be anything: they are inflated and taken apart as a stream, every id is checked, and
//! what does not fit together is an error in words, never a panic. Three things are capped, each apart from the others: the
//! inflated size; the memory of what is kept, for two bytes on the wire can stand for an empty sample; and the sum of the
//! stacks' lengths, for one location of many inlined frames can be named by many samples.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Cursor, Seek};
use std::sync::Arc;

use super::samples::Samples;
use super::stacks::{Node, ROOT};
use super::wire::Wire;

mod parts;
mod raw;

use parts::{Keep, Parts};

/// How much a profile may inflate to; a Go heap profile of a large service is below 10 MiB.
pub const MAX_INFLATED: usize = 64 << 20;

/// What may be kept of one profile, in bytes; half a million nodes of stacks.
pub const MAX_MEMORY: usize = 14 << 20;

/// What two profiles that are compared may take together, with all that comparing takes: what the first left is the second's.
const MAX_PAIR: usize = 21 << 20;

/// What may be kept of a profile that stands beside such a pair; thousands of different stacks of goroutines.
pub const MAX_BESIDE: usize = 1 << 20;

/// Frames of all stacks together; a profile of 64 MiB has as many. Each is looked at some ten times.
const MAX_FRAMES: u64 = 32 << 20;

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
    #[error("the stacks of the profile have more than {} million frames together", .0 >> 20)]
    TooManyFrames(u64),
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
    pub frames: Vec<Frame>,
    /// Which type a viewer shows first, by index.
    pub default_type: usize,
    /// Sampling period: bytes between samples of a heap profile, 524,288 unless the app changed it.
    pub period: i64,
    pub time_nanos: i64,
    /// Functions whose name in the binary is another, so that the one here was made readable by whoever wrote the profile.
    pub(super) readable: BTreeSet<Arc<str>>,
    pub(super) samples: Samples,
    pub(super) nodes: Vec<Node>,
    pub(super) locations: Locations,
    /// Bytes that are held and that comparing will take.
    held: usize,
}

/// The frames of each location, innermost first.
#[derive(Clone, Debug, Default)]
pub(super) struct Locations {
    /// Where the frames of each end; they begin where those of the one before end.
    ends: Vec<u32>,
    frames: Vec<u32>,
}

impl Locations {
    pub fn push(&mut self, frames: &[u32]) {
        self.frames.extend_from_slice(frames);
        self.ends.push(u32::try_from(self.frames.len()).expect("the budget ends long before 2^32 frames"));
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn frames(&self, location: u32) -> &[u32] {
        let at = location as usize;
        let begin = at.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        &self.frames[begin..self.ends[at] as usize]
    }
}

impl Profile {
    /// The index of a sample type by name.
    pub fn type_index(&self, name: &str) -> Option<usize> {
        self.sample_types.iter().position(|it| it.name == name)
    }

    /// What is left of memory for another profile beside this one.
    pub fn memory_beside(&self) -> usize {
        MAX_PAIR.saturating_sub(self.held).min(MAX_MEMORY)
    }

    /// Calls `visit` with the stack and the values of each sample that is kept, one value for each sample type. Of a Go heap
    /// these are the samples that hold something.
    pub fn each_sample(&self, visit: impl FnMut(u32, &[i64])) {
        self.samples.each(visit);
    }

    /// Sum of one value over all samples, kept or not.
    pub fn total(&self, index: usize) -> i64 {
        self.samples.total(index)
    }

    /// Whether no sample, kept or not, has any value but zero.
    pub fn is_empty(&self) -> bool {
        !self.samples.hold_anything()
    }

    /// Frames of a stack by index, leaf first, inlined frames spelled out.
    pub fn stack(&self, stack: u32) -> impl Iterator<Item = u32> {
        let (mut at, mut frames) = (stack, [].iter());
        std::iter::from_fn(move || {
            loop {
                if let Some(frame) = frames.next() {
                    return Some(*frame);
                }
                let node = *self.nodes.get(at as usize)?;
                debug_assert!(node.parent == ROOT || node.parent < at, "a node comes after its parent");
                frames = self.locations.frames(node.location).iter();
                at = node.parent;
            }
        })
    }
}

/// What may still be kept, in bytes. The charges are estimates that lean high.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Budget {
    left: usize,
    whole: usize,
}

impl Budget {
    pub fn new(bytes: usize) -> Self {
        Self { left: bytes, whole: bytes }
    }

    pub fn used(&self) -> usize {
        self.whole - self.left
    }

    pub fn charge(&mut self, bytes: usize) -> Result<(), ReadError> {
        self.left = self.left.checked_sub(bytes).ok_or(ReadError::TooManyParts(self.whole))?;
        Ok(())
    }
}

/// Reads a profile, gzip or plain, from memory.
///
/// # Errors
/// When the bytes are not a profile, are cut, damaged, inflate beyond `max_inflated`, or hold more parts than fit in memory.
pub fn read(bytes: &[u8], max_inflated: usize) -> Result<Profile, ReadError> {
    read_from(Cursor::new(bytes), max_inflated, MAX_MEMORY.min(max_inflated / 4))
}

/// Reads a profile, gzip or plain, as it comes. What is kept stays below `max_memory`: of a Go heap the stacks that hold
/// something, for growth is of them, and what was ever allocated by its sums.
///
/// # Errors
/// As [`read`] has them; a file that cannot be read on is [`ReadError::Malformed`].
pub fn read_from(mut input: impl BufRead + Seek, max_inflated: usize, max_memory: usize) -> Result<Profile, ReadError> {
    if let Some(profile) = read_once(&mut input, max_inflated, Parts::new(Budget::new(max_memory), Keep::Held))? {
        return Ok(profile);
    }
    read_whole(input, max_inflated, max_memory)
}

/// As [`read_from`], with the stacks of a heap that hold nothing any more.
///
/// # Errors
/// As there.
pub fn read_whole(
    mut input: impl BufRead + Seek,
    max_inflated: usize,
    max_memory: usize,
) -> Result<Profile, ReadError> {
    input.rewind().map_err(|_| ReadError::Malformed("it cannot be read"))?;
    let whole = read_once(input, max_inflated, Parts::new(Budget::new(max_memory), Keep::All))?;
    whole.ok_or(ReadError::Malformed("it cannot be read"))
}

fn read_once(mut input: impl BufRead, max_inflated: usize, parts: Parts) -> Result<Option<Profile>, ReadError> {
    let start = input.fill_buf().map_err(|_| ReadError::Malformed("it cannot be read"))?;
    if start.is_empty() {
        return Err(ReadError::Empty);
    }
    if start.starts_with(&[0x1f, 0x8b]) {
        let plain = BufReader::with_capacity(32 << 10, flate2::bufread::MultiGzDecoder::new(input));
        read_plain(Wire::new(plain, max_inflated), parts)
    } else {
        read_plain(Wire::new(input, max_inflated), parts)
    }
}

fn read_plain<R: BufRead>(mut wire: Wire<R>, mut parts: Parts) -> Result<Option<Profile>, ReadError> {
    let start = wire.start()?;
    if start.is_empty() {
        return Err(ReadError::Empty);
    }
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

#[cfg(test)]
mod tests;
