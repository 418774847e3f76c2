//! The parts of a profile as they arrive, and how they become one: Go writes the string table last, so nothing can be looked up
//! before the end.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::BuildHasher;
use std::io::BufRead;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use prost::Message;
use prost::encoding::decode_varint;

use super::super::proto;
use super::super::samples::Samples;
use super::super::stacks::{HELD_NODE_COST, NODE_COST, Node, ROOT, Tree};
use super::super::wire::{Field, Wire};
use super::raw::{Before, Loose};
use super::{Budget, Frame, Locations, MAX_FRAMES, Profile, ReadError, SampleType};

/// Names are cut here, in bytes.
const MAX_NAME: usize = 4 << 10;

/// Location ids below this are looked up in a list; Go counts them from 1 on.
const DENSE: u64 = 1 << 16;

/// Bytes that a comparison takes for each stack that holds something.
const HELD_COST: usize = 60;

/// What Go's heap profiles count, in this order.
pub(super) const HEAP: [&str; 4] = ["alloc_objects", "alloc_space", "inuse_objects", "inuse_space"];

/// Whether a stack of a heap holds nothing any more.
fn is_dead(values: &[i64]) -> bool {
    values.get(2..) == Some(&[0, 0])
}

/// What is used again for every sample.
#[derive(Default)]
struct Sampled {
    loose: Loose,
    before: Before,
    stack: Vec<u32>,
}

struct RawLocation {
    address: u64,
    /// Function id and line, innermost first.
    lines: Box<[(u64, i64)]>,
}

/// String indices.
struct RawFunction {
    name: i64,
    system_name: i64,
    file: i64,
}

/// What of a heap profile is kept.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Keep {
    #[default]
    All,
    /// Stacks that hold something now. In the profile of a large Go program they are one of five; of the others nothing is alive.
    Held,
}

/// The parts, ids not resolved.
#[derive(Default)]
pub(super) struct Parts {
    budget: Budget,
    keep: Keep,
    /// Whether a sample was taken for one of a heap that holds nothing.
    passed_over: bool,
    types: Vec<proto::ValueType>,
    samples: Samples,
    /// Stacks of locations by index.
    tree: Tree,
    ids: Ids,
    locations: Vec<Option<RawLocation>>,
    functions: HashMap<u64, RawFunction>,
    strings: Vec<Arc<str>>,
    /// Equal strings are one.
    texts: HashSet<Arc<str>>,
    default_type: i64,
    period: i64,
    time_nanos: i64,
}

/// Location id to index, given at first mention; `u32::MAX` is none.
#[derive(Default)]
struct Ids {
    dense: Vec<u32>,
    sparse: HashMap<u64, u32, RandomState>,
}

impl Parts {
    pub fn new(budget: Budget, keep: Keep) -> Self {
        Self { budget, keep, ..Self::default() }
    }

    pub fn collect<R: BufRead>(&mut self, wire: &mut Wire<R>) -> Result<(), ReadError> {
        let mut sampled = Sampled::default();
        while let Some(field) = wire.next(|tag| matches!(tag, 1 | 2 | 4 | 5 | 6))? {
            match field {
                Field::Bytes(1, bytes) => self.sample_type(bytes)?,
                Field::Bytes(2, bytes) => self.sample(bytes, &mut sampled)?,
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

    fn sample(&mut self, bytes: &[u8], sampled: &mut Sampled) -> Result<(), ReadError> {
        const BAD: ReadError = ReadError::Malformed("a sample cannot be decoded");
        let Sampled { loose, before, stack } = sampled;
        let sample = loose.take_apart(bytes).map_err(|_| BAD)?;
        if is_dead(self.samples.see(sample.values)?) && self.is_of_heap() {
            self.passed_over = true;
            return Ok(());
        }
        let (shared, mut fresh) = before.fresh(sample.locations);
        stack.clear();
        while !fresh.is_empty() {
            stack.push(self.location_index(decode_varint(&mut fresh).map_err(|_| BAD)?)?);
        }
        let node = self.tree.add(shared, stack, &mut self.budget)?;
        self.samples.keep(node, sample.values, &mut self.budget)
    }

    /// Whether this looks like a Go heap. Names come last, so [`Parts::assemble`] has to look whether it was one.
    fn is_of_heap(&self) -> bool {
        self.keep == Keep::Held && self.types.len() == HEAP.len() && self.default_type == 0
    }

    fn location_index(&mut self, id: u64) -> Result<u32, ReadError> {
        if let Some(index) = self.ids.get(id) {
            return Ok(index);
        }
        self.budget.charge(96)?;
        let index = u32::try_from(self.locations.len()).expect("the budget ends long before 2^32 locations");
        self.locations.push(None);
        self.ids.keep(id, index);
        Ok(index)
    }

    fn location(&mut self, bytes: &[u8]) -> Result<(), ReadError> {
        let wire = proto::Location::decode(bytes).map_err(|_| ReadError::Malformed("a location cannot be decoded"))?;
        self.budget.charge(24 * wire.line.len())?;
        let lines = wire.line.iter().map(|line| (line.function_id, line.line)).collect();
        let index = self.location_index(wire.id)?;
        self.locations[index as usize] = Some(RawLocation { address: wire.address, lines });
        Ok(())
    }

    fn function(&mut self, bytes: &[u8]) -> Result<(), ReadError> {
        let wire = proto::Function::decode(bytes).map_err(|_| ReadError::Malformed("a function cannot be decoded"))?;
        self.budget.charge(96)?;
        let function = RawFunction { name: wire.name, system_name: wire.system_name, file: wire.filename };
        self.functions.insert(wire.id, function);
        Ok(())
    }

    fn string(&mut self, bytes: &[u8]) -> Result<(), ReadError> {
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_NAME)]);
        self.budget.charge(24)?;
        if let Some(known) = self.texts.get(&*text) {
            self.strings.push(Arc::clone(known));
            return Ok(());
        }
        self.budget.charge(72 + text.len())?;
        let text: Arc<str> = Arc::from(text);
        self.texts.insert(Arc::clone(&text));
        self.strings.push(text);
        Ok(())
    }

    /// The profile, or `None` where samples were passed over that count: it has to be read once more, whole.
    pub fn assemble(mut self) -> Result<Option<Profile>, ReadError> {
        if self.types.is_empty() || self.strings.is_empty() {
            return Err(ReadError::Malformed("it names no sample type"));
        }
        if self.samples.width().is_some_and(|width| width != self.types.len()) {
            return Err(ReadError::Malformed("a sample has another number of values than the profile has types"));
        }
        let sample_types = self.types.iter().map(|it| self.type_of(it)).collect::<Result<Vec<_>, _>>()?;
        let default = self.text(self.default_type)?;
        let default_type = sample_types.iter().position(|it| *it.name == **default).unwrap_or(sample_types.len() - 1);
        let is_heap = sample_types.iter().map(|it| &*it.name).eq(HEAP) && default_type == HEAP.len() - 1;
        if self.passed_over && !is_heap {
            return Ok(None);
        }
        let mut frames = Frames::default();
        let (locations, places) = self.resolve(&mut frames)?;
        let mut profile = Profile {
            sample_types,
            frames: frames.list,
            default_type,
            period: self.period,
            time_nanos: self.time_nanos,
            readable: frames.readable,
            samples: self.samples,
            nodes: self.tree.into_nodes(),
            locations,
            held: 0,
        };
        place(&mut profile.nodes, &places)?;
        check(&profile, &mut self.budget)?;
        profile.held = self.budget.used() - profile.nodes.len() * (NODE_COST - HELD_NODE_COST);
        Ok(Some(profile))
    }

    fn type_of(&self, wire: &proto::ValueType) -> Result<SampleType, ReadError> {
        Ok(SampleType { name: self.text(wire.r#type)?.to_string(), unit: self.text(wire.unit)?.to_string() })
    }

    fn text(&self, index: i64) -> Result<&Arc<str>, ReadError> {
        let text = usize::try_from(index).ok().and_then(|index| self.strings.get(index));
        text.ok_or(ReadError::Malformed("a name is outside the string table"))
    }

    /// The frames of each location, those of equal frames being one; and for each index given so far the location's number, which
    /// is `u32::MAX` where a location was only mentioned.
    fn resolve(&mut self, frames: &mut Frames) -> Result<(Locations, Vec<u32>), ReadError> {
        let (mut all, mut places, mut list) = (Locations::default(), Vec::new(), Vec::new());
        let (mut known, hasher) = (HashTable::<u32>::new(), RandomState::default());
        for location in std::mem::take(&mut self.locations) {
            let Some(location) = location else {
                places.push(u32::MAX);
                continue;
            };
            list.clear();
            for (function, line) in &location.lines {
                list.push(self.frame(frames, *function, *line)?);
            }
            if list.is_empty() {
                list.push(self.bare_address(frames, location.address)?);
            }
            let hash = hasher.hash_one(&list);
            let place = known.find(hash, |at| all.frames(*at) == list).copied().unwrap_or_else(|| {
                let next = u32::try_from(all.len()).expect("the budget ends long before 2^32 locations");
                all.push(&list);
                known.insert_unique(hash, next, |at| hasher.hash_one(all.frames(*at)));
                next
            });
            places.push(place);
        }
        Ok((all, places))
    }

    fn frame(&mut self, frames: &mut Frames, function: u64, line: i64) -> Result<u32, ReadError> {
        let raw = self.functions.get(&function).ok_or(ReadError::Malformed("a line names no function"))?;
        let (name, file) = (self.text(raw.name)?, self.text(raw.file)?);
        let key = (name.as_ptr(), file.as_ptr(), line);
        if let Some(index) = frames.by_line.get(&key) {
            return Ok(*index);
        }
        let is_readable = name != self.text(raw.system_name)?;
        let frame = Frame { function: Arc::clone(name), file: Arc::clone(file), line };
        self.budget.charge(if is_readable { 176 } else { 128 })?;
        if is_readable {
            frames.readable.insert(Arc::clone(&frame.function));
        }
        Ok(frames.keep(key, frame))
    }

    /// A location without symbols, as a stripped cgo library leaves it.
    fn bare_address(&mut self, frames: &mut Frames, address: u64) -> Result<u32, ReadError> {
        self.budget.charge(176)?;
        let name: Arc<str> = Arc::from(format!("0x{address:x}"));
        let name = self.texts.get(&name).cloned().unwrap_or(name);
        self.texts.insert(Arc::clone(&name));
        let key = (name.as_ptr(), std::ptr::null(), 0);
        if let Some(index) = frames.by_line.get(&key) {
            return Ok(*index);
        }
        Ok(frames.keep(key, Frame { function: name, file: Arc::from(""), line: 0 }))
    }
}

impl Ids {
    fn get(&self, id: u64) -> Option<u32> {
        if id < DENSE {
            return self.dense.get(id as usize).copied().filter(|index| *index != u32::MAX);
        }
        self.sparse.get(&id).copied()
    }

    fn keep(&mut self, id: u64, index: u32) {
        if id >= DENSE {
            self.sparse.insert(id, index);
            return;
        }
        let at = id as usize;
        if at >= self.dense.len() {
            self.dense.resize(at + 1, u32::MAX);
        }
        self.dense[at] = index;
    }
}

/// Puts the numbers of the locations into the tree.
fn place(nodes: &mut [Node], places: &[u32]) -> Result<(), ReadError> {
    for node in nodes {
        node.location = places[node.location as usize];
        if node.location == u32::MAX {
            return Err(ReadError::Malformed("a sample names no location"));
        }
    }
    Ok(())
}

/// What the work on a profile will cost: frames to look at, and memory for what is compared.
fn check(profile: &Profile, budget: &mut Budget) -> Result<(), ReadError> {
    let mut depths: Vec<u32> = Vec::with_capacity(profile.nodes.len());
    for node in &profile.nodes {
        let below = if node.parent == ROOT { 0 } else { depths[node.parent as usize] };
        let own = u32::try_from(profile.locations.frames(node.location).len()).unwrap_or(u32::MAX);
        depths.push(below.saturating_add(own));
    }
    let compared = ["inuse_space", "inuse_objects", "goroutine"].map(|name| profile.type_index(name));
    let compared = compared.map(|index| index.unwrap_or(profile.default_type));
    let (mut frames, mut held) = (0_u64, 0_usize);
    profile.each_sample(|stack, values| {
        frames += depths.get(stack as usize).copied().map_or(0, u64::from);
        held += usize::from(values[profile.default_type] != 0 || compared.iter().any(|index| values[*index] != 0));
    });
    if frames > MAX_FRAMES {
        return Err(ReadError::TooManyFrames(MAX_FRAMES));
    }
    budget.charge(held.saturating_mul(HELD_COST))
}

/// Frames by name, file and line, each kept once. Equal texts are one, so where they stand tells them apart.
#[derive(Default)]
struct Frames {
    list: Vec<Frame>,
    by_line: HashMap<(*const u8, *const u8, i64), u32>,
    readable: BTreeSet<Arc<str>>,
}

impl Frames {
    fn keep(&mut self, key: (*const u8, *const u8, i64), frame: Frame) -> u32 {
        let index = u32::try_from(self.list.len()).expect("the budget ends long before 2^32 frames");
        self.list.push(frame);
        self.by_line.insert(key, index);
        index
    }
}
