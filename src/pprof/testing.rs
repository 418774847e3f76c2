//! Small profiles for tests, written as stacks of `function file line`.

use prost::Message;

use super::proto;
use super::read::{MAX_INFLATED, Profile, read};

/// A heap profile of Go's four types; the value is in bytes, the objects are of one KiB each.
pub fn heap(samples: &[(&[&str], i64)]) -> Profile {
    let samples: Vec<(&[&str], [i64; 2])> = samples.iter().map(|(stack, bytes)| (*stack, [*bytes; 2])).collect();
    heap_of(&samples)
}

/// A heap profile of Go of bytes (allocated in all, in use).
pub fn heap_of(samples: &[(&[&str], [i64; 2])]) -> Profile {
    let values = |[all, held]: [i64; 2]| vec![all / 1024, all, held / 1024, held];
    profile(&HEAP, samples.iter().map(|(stack, bytes)| (*stack, values(*bytes))))
}

/// A goroutine profile.
pub fn goroutines(samples: &[(&[&str], i64)]) -> Profile {
    profile(&[("goroutine", "count")], samples.iter().map(|(stack, count)| (*stack, vec![*count])))
}

/// The bytes of a heap profile of which nothing is held any more.
pub fn freed(stack: &[&str], bytes: i64) -> bytes::Bytes {
    wire(&HEAP, std::iter::once((stack, vec![bytes / 1024, bytes, 0, 0]))).encode_to_vec().into()
}

const HEAP: [(&str, &str); 4] =
    [("alloc_objects", "count"), ("alloc_space", "bytes"), ("inuse_objects", "count"), ("inuse_space", "bytes")];

fn profile<'a>(types: &[(&str, &str)], samples: impl Iterator<Item = (&'a [&'a str], Vec<i64>)>) -> Profile {
    read(&wire(types, samples).encode_to_vec(), MAX_INFLATED).expect("a profile")
}

fn wire<'a>(types: &[(&str, &str)], samples: impl Iterator<Item = (&'a [&'a str], Vec<i64>)>) -> proto::Profile {
    let mut wire = proto::Profile { string_table: vec![String::new()], period: 524_288, ..Default::default() };
    for (name, unit) in types {
        let kind = proto::ValueType { r#type: string(&mut wire, name), unit: string(&mut wire, unit) };
        wire.sample_type.push(kind);
    }
    for (stack, value) in samples {
        let location_id = stack.iter().map(|text| frame(&mut wire, text)).collect();
        wire.sample.push(proto::Sample { location_id, value });
    }
    wire
}

fn string(wire: &mut proto::Profile, text: &str) -> i64 {
    wire.string_table.push(text.to_owned());
    wire.string_table.len() as i64 - 1
}

fn frame(wire: &mut proto::Profile, text: &str) -> u64 {
    let mut words = text.split(' ');
    let mut word = || words.next().unwrap_or_default();
    let (name, filename) = (string(wire, word()), string(wire, word()));
    located(wire, name, filename, word().parse().unwrap_or(0))
}

/// A location of one frame; Go gives a function the same name in the binary.
fn located(wire: &mut proto::Profile, name: i64, filename: i64, line: i64) -> u64 {
    let id = wire.location.len() as u64 + 1;
    wire.function.push(proto::Function { id, name, system_name: name, filename });
    wire.location.push(proto::Location { id, address: id, line: vec![proto::Line { function_id: id, line }] });
    id
}

/// The stack of each sample.
pub fn stacks(profile: &Profile) -> Vec<u32> {
    let mut stacks = Vec::new();
    profile.each_sample(|stack, _| stacks.push(stack));
    stacks
}

/// The bytes of a profile, as an app would serve them but for the gzip.
pub fn encode(profile: &Profile) -> bytes::Bytes {
    let mut wire = proto::Profile {
        string_table: vec![String::new()],
        time_nanos: 1,
        period: profile.period,
        ..Default::default()
    };
    for it in &profile.sample_types {
        let kind = proto::ValueType { r#type: string(&mut wire, &it.name), unit: string(&mut wire, &it.unit) };
        wire.sample_type.push(kind);
    }
    for it in &profile.frames {
        let (name, filename) = (string(&mut wire, &it.function), string(&mut wire, &it.file));
        located(&mut wire, name, filename, it.line);
    }
    profile.each_sample(|stack, values| {
        let location_id = profile.stack(stack).map(|frame| u64::from(frame) + 1).collect();
        wire.sample.push(proto::Sample { location_id, value: values.to_vec() });
    });
    wire.encode_to_vec().into()
}
