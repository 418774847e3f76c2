//! Bodies for the model that say what they are made of.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use crate::datadog::{Endpoint, Payload};
use crate::sink::spool::record::{self, Kind};

/// The numbers of what a body is made of.
pub(super) type Parts = BTreeSet<u64>;

/// Where the numbers of parts begin: `window << SHIFT | part`. What cannot be cut has the number of its window.
const SHIFT: u32 = 16;
/// How zstd begins a frame.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Points of a part: as many as its number where it cannot be cut, so that sums give away which one is missing.
pub(super) fn weight(part: &u64) -> u64 {
    if *part < 1 << SHIFT { *part } else { 1 }
}

/// As the encoder makes them: zstd over items of field 1. About `size` bytes.
pub(super) fn cuttable(endpoint: Endpoint, n: u64, size: usize, items: usize, created_at: i64) -> Payload {
    let mut raw = Vec::new();
    for part in 1..=items as u64 {
        let number = n << SHIFT | part;
        // A length below 128 is one byte; what does not repeat is not compressed away.
        let noise =
            (0..(size / items).min(100) as u64).map(|at| ((number * 0x9e37_79b9 + at * at * at * 77) >> 3) as u8);
        let item: Vec<u8> = number.to_le_bytes().into_iter().chain(noise).collect();
        raw.extend([0x0a, item.len() as u8]);
        raw.extend(item);
    }
    let body = zstd::bulk::compress(&raw, 1).unwrap().into();
    Payload { endpoint, body, points: items as u64, created_at, urgent: false }
}

pub(super) fn parts(payload: &Payload) -> Parts {
    if !payload.body.starts_with(&ZSTD) {
        return Parts::from([payload.points]);
    }
    let raw = zstd::decode_all(&payload.body[..]).unwrap();
    let (mut parts, mut rest) = (Parts::new(), &raw[..]);
    while let [0x0a, length, more @ ..] = rest {
        parts.insert(u64::from_le_bytes(more[..8].try_into().unwrap()));
        rest = &more[usize::from(*length)..];
    }
    assert!(rest.is_empty() && parts.len() as u64 == payload.points, "a body that is none");
    parts
}

/// Whether all of them came in.
pub(super) fn are_of(parts: &Parts, came: &BTreeMap<u64, Payload>) -> bool {
    parts.iter().all(|part| came.get(&(part >> SHIFT)).is_some_and(|whole| self::parts(whole).contains(part)))
}

/// What stands whole in the files of a folder, without our own code for lists.
pub(super) fn on_disk(dir: &Path) -> HashMap<u64, Parts> {
    let files = std::fs::read_dir(dir).unwrap().flatten();
    let whole = files.filter_map(|file| {
        let (number, kind) = record::parse(&file.file_name().to_string_lossy())?;
        let (head, body) = record::decode(&std::fs::read(file.path()).ok()?)?;
        (kind != Kind::Unfinished).then(|| (number, parts(&head.payload(body))))
    });
    whole.collect()
}
