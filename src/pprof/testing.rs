//! Small profiles for tests, written as stacks of `function file line`.

use std::collections::HashSet;
use std::sync::Arc;

use prost::Message;

use super::proto;
use super::read::{Frame, Profile, Sample, SampleType};

/// A heap profile of Go's four types; the value is in bytes, the objects are of one KiB each.
pub fn heap(samples: &[(&[&str], i64)]) -> Profile {
    let types =
        [("alloc_objects", "count"), ("alloc_space", "bytes"), ("inuse_objects", "count"), ("inuse_space", "bytes")];
    profile(&types, samples.iter().map(|(stack, bytes)| (*stack, vec![bytes / 1024, *bytes, bytes / 1024, *bytes])))
}

/// A goroutine profile.
pub fn goroutines(samples: &[(&[&str], i64)]) -> Profile {
    profile(&[("goroutine", "count")], samples.iter().map(|(stack, count)| (*stack, vec![*count])))
}

fn profile<'a>(types: &[(&str, &str)], samples: impl Iterator<Item = (&'a [&'a str], Vec<i64>)>) -> Profile {
    let mut frames = Vec::new();
    let samples = samples.map(|(stack, values)| Sample {
        stack: stack.iter().map(|text| index(&mut frames, text)).collect::<Vec<_>>().into(),
        values: values.into(),
    });
    let samples = samples.collect();
    let sample_types = types.iter().map(|(name, unit)| SampleType { name: (*name).into(), unit: (*unit).into() });
    Profile {
        sample_types: sample_types.collect(),
        samples,
        frames,
        readable: HashSet::new(),
        default_type: types.len() - 1,
        period: 524_288,
        time_nanos: 0,
    }
}

fn index(frames: &mut Vec<Frame>, text: &str) -> u32 {
    let mut words = text.split(' ');
    let mut word = || Arc::from(words.next().unwrap_or_default());
    let (function, file) = (word(), word());
    let frame = Frame { function, file, line: word().parse().unwrap_or(0) };
    let at = frames.iter().position(|it| *it == frame).unwrap_or_else(|| {
        frames.push(frame);
        frames.len() - 1
    });
    at as u32
}

/// The bytes of a profile, as an app would serve them but for the gzip.
pub fn encode(profile: &Profile) -> bytes::Bytes {
    let mut strings = vec![String::new()];
    let mut string = |text: &str| {
        strings.push(text.to_owned());
        strings.len() as i64 - 1
    };
    let ids = || 1..=profile.frames.len() as u64;
    let wire = proto::Profile {
        sample_type: profile
            .sample_types
            .iter()
            .map(|it| proto::ValueType { r#type: string(&it.name), unit: string(&it.unit) })
            .collect(),
        sample: profile
            .samples
            .iter()
            .map(|it| proto::Sample {
                location_id: it.stack.iter().map(|index| u64::from(*index) + 1).collect(),
                value: it.values.to_vec(),
            })
            .collect(),
        location: ids()
            .zip(&profile.frames)
            .map(|(id, frame)| proto::Location {
                id,
                address: id,
                line: vec![proto::Line { function_id: id, line: frame.line }],
            })
            .collect(),
        function: ids()
            .zip(&profile.frames)
            .map(|(id, frame)| {
                let name = string(&frame.function);
                proto::Function { id, name, system_name: name, filename: string(&frame.file) }
            })
            .collect(),
        time_nanos: 1,
        period: profile.period,
        default_sample_type: 0,
        string_table: Vec::new(),
    };
    proto::Profile { string_table: strings, ..wire }.encode_to_vec().into()
}
