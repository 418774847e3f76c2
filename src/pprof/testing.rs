//! Small profiles for tests, written as stacks of `function file line`.

use std::sync::Arc;

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
