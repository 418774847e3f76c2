//! A sample as it stands on the wire, set beside the one before it.
//!
//! Neighbours in a profile share most of their stacks, and where they do their bytes are equal. So only what differs is decoded:
//! one location of six in the heap profile of a large program.

use prost::encoding::{decode_varint, encode_varint};
use prost::{DecodeError, Message};

use super::super::proto;

/// Tags of packed location ids and values.
const LOCATIONS: u8 = 1 << 3 | 2;
const VALUES: u8 = 2 << 3 | 2;

/// Varints of a sample's location ids, leaf first, and of its values.
pub(super) struct RawSample<'a> {
    pub locations: &'a [u8],
    pub values: &'a [u8],
}

/// For what is not packed: Go packs from three numbers on.
#[derive(Debug, Default)]
pub(super) struct Loose {
    sample: proto::Sample,
    locations: Vec<u8>,
    values: Vec<u8>,
}

impl Loose {
    pub fn take_apart<'a>(&'a mut self, bytes: &'a [u8]) -> Result<RawSample<'a>, DecodeError> {
        if let Some((locations, values)) = packed(bytes) {
            return Ok(RawSample { locations, values });
        }
        let Self { sample, locations, values } = self;
        sample.clear();
        locations.clear();
        values.clear();
        sample.merge(bytes)?;
        sample.location_id.iter().for_each(|id| encode_varint(*id, locations));
        sample.value.iter().for_each(|value| encode_varint(value.cast_unsigned(), values));
        Ok(RawSample { locations, values })
    }
}

/// The location ids of the stack that was looked at last.
#[derive(Debug, Default)]
pub(super) struct Before(Vec<u8>);

impl Before {
    /// How many locations at the outer end the stack before had too, and the bytes of the others.
    pub fn fresh<'a>(&mut self, now: &'a [u8]) -> (usize, &'a [u8]) {
        let before = &self.0;
        let same = same_end(now, before);
        // Equal bytes may begin within a number.
        let begins = |bytes: &[u8], same: usize| {
            let at = bytes.len() - same;
            at == 0 || bytes[at - 1] < 0x80
        };
        let same = (0..=same).rev().find(|same| begins(now, *same) && begins(before, *same)).unwrap_or(0);
        self.0.clear();
        self.0.extend_from_slice(now);
        let (fresh, shared) = now.split_at(now.len() - same);
        (shared.iter().filter(|byte| **byte < 0x80).count(), fresh)
    }
}

/// How many bytes are the same at the end of both; eight at a time, for they are most of a profile.
fn same_end(a: &[u8], b: &[u8]) -> usize {
    let chunks = a.rchunks_exact(8).zip(b.rchunks_exact(8)).take_while(|(a, b)| a == b).count() * 8;
    let rest = |bytes: &[u8]| bytes.len() - chunks;
    let (a, b) = (&a[..rest(a)], &b[..rest(b)]);
    chunks + a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count()
}

/// Locations and values, where each is packed, whole and there once; other fields are passed over.
fn packed(mut bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut locations, mut values) = (None, None);
    while let Some((tag, rest)) = bytes.split_first() {
        bytes = rest;
        let field = field(&mut bytes)?;
        let kept = match *tag {
            LOCATIONS => &mut locations,
            VALUES => &mut values,
            tag if tag & 0x87 == 2 && tag > VALUES => continue,
            _ => return None,
        };
        let is_whole = field.last().is_none_or(|last| *last < 0x80);
        if !is_whole || kept.replace(field).is_some() {
            return None;
        }
    }
    Some((locations?, values?)).filter(|(_, values)| are_numbers(values))
}

fn field<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = decode_varint(bytes).ok()?;
    let (field, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    Some(field)
}

/// Whether every varint fits into 64 bits. The ids are decoded in any case, the values only later.
fn are_numbers(bytes: &[u8]) -> bool {
    bytes.split(|byte| *byte < 0x80).all(|number| number.len() < 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(locations: &[u64], values: &[i64]) -> Vec<u8> {
        proto::Sample { location_id: locations.to_vec(), value: values.to_vec() }.encode_to_vec()
    }

    fn fresh(before: &[u64], now: &[u64]) -> (usize, Vec<u64>) {
        let (before, now) = (sample(before, &[1]), sample(now, &[1]));
        let (mut loose, mut seen) = (Loose::default(), Before::default());
        seen.fresh(loose.take_apart(&before).expect("a sample").locations);
        let (shared, mut bytes) = seen.fresh(loose.take_apart(&now).expect("a sample").locations);
        (shared, std::iter::from_fn(|| decode_varint(&mut bytes).ok()).collect())
    }

    #[test]
    fn only_what_differs_is_left() {
        assert_eq!(fresh(&[1, 2, 3], &[9, 2, 3]), (2, vec![9]));
        assert_eq!(fresh(&[1, 2, 3], &[1, 2, 3]), (3, vec![]));
        assert_eq!(fresh(&[2, 3], &[1, 2, 3]), (2, vec![1]));
        assert_eq!(fresh(&[1, 2, 3], &[2, 3]), (2, vec![]));
        assert_eq!(fresh(&[], &[1]), (0, vec![1]));
        // 300 is AC 02 and 2 is 02: their last bytes are equal.
        assert_eq!(fresh(&[2, 7], &[300, 7]), (1, vec![300]));
        assert_eq!(fresh(&[300, 7], &[2, 7]), (1, vec![2]));
        assert_eq!(fresh(&[300], &[428]), (0, vec![428]));
        let long: Vec<u64> = (0..100).collect();
        assert_eq!(fresh(&long, &long[60..]), (40, vec![]));
        assert_eq!(fresh(&long[1..], &long), (99, vec![0]));
    }

    #[test]
    fn packed_or_not_a_sample_is_the_same() {
        // Two ids and a value one by one, as Go writes few, with a label between them.
        let (loose, whole) = ([0x08, 5, 0x1a, 1, 0, 0x08, 6, 0x10, 7], sample(&[5, 6], &[7]));
        let (mut a, mut b) = (Loose::default(), Loose::default());
        let (a, b) = (a.take_apart(&loose).expect("a sample"), b.take_apart(&whole).expect("a sample"));
        assert!(packed(&loose).is_none() && packed(&whole).is_some());
        assert_eq!((a.locations, a.values), (b.locations, b.values));
    }

    #[test]
    fn nonsense_is_left_to_the_decoder_that_can_say_so() {
        for bytes in [
            &[0x0a, 1, 0x80, 0x12, 1, 1][..],
            &[0x0a, 9, 1],
            &[0x0f, 0],
            &[0x12, 11, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
        ] {
            assert!(packed(bytes).is_none() && Loose::default().take_apart(bytes).is_err(), "{bytes:?}");
        }
    }
}
