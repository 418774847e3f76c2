//! The reader against profiles as Go writes them, and against everything else.

use std::io::Write;

use prost::Message;

use super::super::{proto, testing};
use super::*;
use crate::pprof::{Input, name};

const CAP: usize = 1 << 20;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).expect("memory takes all");
    out.finish().expect("memory takes all")
}

/// Two stacks of three functions, one frame inlined into another.
fn wire() -> proto::Profile {
    let strings = ["", "inuse_space", "bytes", "main.leaf", "main.mid", "main.main", "/app/main.go"];
    let line = |function_id, line| proto::Line { function_id, line };
    proto::Profile {
        sample_type: vec![proto::ValueType { r#type: 1, unit: 2 }],
        sample: vec![
            proto::Sample { location_id: vec![7, 9], value: vec![100] },
            proto::Sample { location_id: vec![9], value: vec![-5] },
        ],
        location: vec![
            proto::Location { id: 7, address: 1, line: vec![line(1, 10), line(2, 20)] },
            proto::Location { id: 9, address: 2, line: vec![line(3, 30)] },
        ],
        function: (1..=3)
            .map(|id| proto::Function { id, name: id as i64 + 2, system_name: id as i64 + 2, filename: 6 })
            .collect(),
        string_table: strings.map(str::to_owned).to_vec(),
        time_nanos: 77,
        period: 512,
        default_sample_type: 0,
    }
}

fn check(bytes: &[u8], expected: &str) {
    let error = read(bytes, CAP).expect_err("these bytes are not a profile");
    assert_eq!(error.to_string(), expected);
}

#[test]
fn stacks_come_leaf_first_with_inlined_frames_spelled_out() {
    let profile = read(&gzip(&wire().encode_to_vec()), CAP).expect("a profile");
    let names = |at: usize| -> Vec<_> {
        let frames = profile.stack(testing::stacks(&profile)[at]).map(|frame| &profile.frames[frame as usize]);
        frames.map(|it| format!("{}:{}", it.function, it.line)).collect()
    };
    assert_eq!(names(0), ["main.leaf:10", "main.mid:20", "main.main:30"]);
    assert_eq!(names(1), ["main.main:30"]);
    assert_eq!((profile.total(0), profile.period, profile.time_nanos, profile.frames.len()), (95, 512, 77, 3));
    assert_eq!(profile.type_index("inuse_space"), Some(0));
}

/// Values of four types for one stack after another, the second of which holds nothing.
fn four(names: [&str; 4], default: i64) -> Vec<u8> {
    let mut profile = wire();
    profile.sample[0].value = vec![9, 900, 1, 100];
    profile.sample[1].value = vec![5, 500, 0, 0];
    profile.sample_type = (7..11).map(|at| proto::ValueType { r#type: at, unit: 2 }).collect();
    profile.string_table.extend(names.map(str::to_owned));
    profile.default_sample_type = default;
    profile.encode_to_vec()
}

#[test]
fn stacks_of_a_heap_that_hold_nothing_count_in_its_sums_alone() {
    let heap = four(parts::HEAP, 0);
    let profile = read(&gzip(&heap), CAP).expect("a profile");
    assert_eq!((testing::stacks(&profile).len(), profile.default_type), (1, 3));
    assert_eq!([0, 1, 2, 3].map(|at| profile.total(at)), [14, 1_400, 1, 100]);
    let whole = read_whole(Cursor::new(gzip(&heap)), CAP, CAP).expect("a profile");
    assert_eq!(testing::stacks(&whole).len(), 2);
    assert_eq!([0, 1, 2, 3].map(|at| whole.total(at)), [14, 1_400, 1, 100]);
}

#[test]
fn what_only_looks_like_a_heap_is_read_whole() {
    let turned = ["inuse_objects", "inuse_space", "alloc_objects", "alloc_space"];
    for bytes in [four(turned, 0), four(["a", "b", "c", "d"], 0), four(parts::HEAP, 8)] {
        for bytes in [gzip(&bytes), bytes] {
            let profile = read(&bytes, CAP).expect("a profile");
            assert_eq!((testing::stacks(&profile).len(), profile.total(1)), (2, 1_400));
        }
    }
}

#[test]
fn gzip_and_plain_read_alike_in_any_order_of_fields() {
    let plain = wire().encode_to_vec();
    let names = proto::Profile { string_table: wire().string_table, ..Default::default() }.encode_to_vec();
    let rest = proto::Profile { string_table: Vec::new(), ..wire() }.encode_to_vec();
    let turned = [names, rest].concat();
    let of = |bytes: &[u8]| format!("{:?}", read(bytes, CAP).expect("a profile"));
    assert_eq!(of(&gzip(&plain)), of(&plain));
    assert_eq!(of(&turned), of(&plain));
}

#[test]
fn what_is_not_a_profile_is_told_apart() {
    check(b"", "the answer is empty");
    check(&gzip(b""), "the answer is empty");
    check(b"<!DOCTYPE html><html>", "the answer is a web page, not a profile: is the URL that of net/http/pprof?");
    check(b"  <html><head>", "the answer is a web page, not a profile: is the URL that of net/http/pprof?");
    check(b"{\"error\":1}", "the answer is JSON, not a profile: is the URL that of net/http/pprof?");
    check(b"404 page not found\n", "the answer is plain text, not a profile: is the URL that of net/http/pprof?");
    check(
        b"heap profile: 1: 2 [3: 4] @ heap/1048576\n",
        "the answer is plain text, not a profile: is the URL that of net/http/pprof?",
    );
    check(&[0, 1, 2, 3], "the profile is damaged: it is not pprof's protobuf");
}

#[test]
fn damage_is_told_in_words() {
    let damaged = |change: fn(&mut proto::Profile)| {
        let mut profile = wire();
        change(&mut profile);
        profile.encode_to_vec()
    };
    check(&damaged(|it| it.sample[0].location_id[0] = 99), "the profile is damaged: a sample names no location");
    check(&damaged(|it| it.function.truncate(1)), "the profile is damaged: a line names no function");
    check(&damaged(|it| it.function[0].name = -1), "the profile is damaged: a name is outside the string table");
    check(&damaged(|it| it.sample_type.clear()), "the profile is damaged: it names no sample type");
    check(
        &damaged(|it| it.sample[0].value.push(1)),
        "the profile is damaged: a sample has another number of values than the profile has types",
    );
}

#[test]
fn a_cut_gzip_stream_is_cut_everywhere() {
    let whole = gzip(&wire().encode_to_vec());
    for end in 2..whole.len() {
        assert_eq!(read(&whole[..end], CAP).expect_err("a refusal"), ReadError::Truncated, "cut at {end}");
    }
}

#[test]
fn a_bomb_is_cut_while_it_inflates() {
    let mut bomb = wire().encode_to_vec();
    bomb.extend([0x1a, 0x80, 0x80, 0x80, 0x80, 0x04]);
    bomb.resize(CAP + 100, 0);
    assert_eq!(read(&gzip(&bomb), CAP).expect_err("a refusal"), ReadError::TooLarge(CAP));
    assert_eq!(read(&bomb, CAP).expect_err("a refusal"), ReadError::TooLarge(CAP));
}

#[test]
fn many_small_parts_cost_no_more_than_their_share_of_the_cap() {
    for part in [&[0x12_u8, 2, 0x10, 0][..], &[0x0a, 0], &[0x22, 0], &[0x2a, 0], &[0x32, 0]] {
        let mut bytes = wire().encode_to_vec();
        bytes.extend(part.repeat(CAP / 5));
        let error = read(&bytes, CAP);
        let one_id = matches!(part[0], 0x22 | 0x2a);
        assert!(matches!(error, Err(ReadError::TooManyParts(n)) if n == CAP / 4) || one_id, "{part:?}: {error:?}");
    }
}

#[test]
fn one_location_of_many_frames_cannot_multiply() {
    let mut profile = wire();
    profile.location[0].line = vec![proto::Line { function_id: 1, line: 1 }; 5_000];
    profile.sample = vec![proto::Sample { location_id: vec![7; 2_000], value: vec![1] }; 10];
    assert_eq!(read(&profile.encode_to_vec(), CAP).expect_err("a refusal"), ReadError::TooManyFrames(MAX_FRAMES));
}

#[test]
fn names_that_are_not_text_are_kept_readable() {
    let mut bytes = proto::Profile { string_table: Vec::new(), ..wire() }.encode_to_vec();
    for name in [&b""[..], b"inuse_space", b"bytes", b"main.\xff", b"a", b"b", b"c"] {
        bytes.extend([0x32, name.len() as u8]);
        bytes.extend(name);
    }
    assert_eq!(&*read(&bytes, CAP).expect("a profile").frames[0].function, "main.\u{fffd}");
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400)) {
        let _ = read(&bytes, CAP);
        let _ = read(&gzip(&bytes), CAP);
    }

    #[test]
    fn a_bent_profile_is_read_or_refused(
        bends in proptest::collection::vec((0_usize..400, proptest::prelude::any::<u8>()), 1..8),
    ) {
        let mut bytes = wire().encode_to_vec();
        for (at, byte) in bends {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        if let Ok(profile) = read(&bytes, CAP) {
            let naming = name(&Input {
                goroutines: Some((None, &profile)),
                ..Input::of_heaps(None, &profile, 1.0)
            });
            proptest::prop_assert!(!naming.sentence.is_empty());
            let _ = super::super::flat::flat(Some(&profile), &profile);
        }
    }
}
