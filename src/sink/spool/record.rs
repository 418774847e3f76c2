//! A payload as a file: a head of 44 bytes, then the body as it is sent. Pure: bytes in, values out.
//!
//! The head has a checksum of its own, so that a start reads heads alone and trusts them; the body's is checked when the
//! body is read to be sent. No API key is in it: the key is added to each request.

use bytes::Bytes;

use crate::datadog::{Endpoint, Payload};

const MAGIC: [u8; 4] = *b"oomw";
const VERSION: u8 = 1;
const URGENT: u8 = 1;
pub(in crate::sink) const HEAD: usize = 44;
/// The largest body that is ever made is a sketch payload of 2.5 MiB; what claims more is not ours.
const MAX_BODY: u32 = 16 << 20;
pub(in crate::sink) const MAX_FILE: usize = HEAD + MAX_BODY as usize;

/// All of a payload but its body. Two that are equal are the same payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::sink) struct Head {
    pub endpoint: Endpoint,
    pub urgent: bool,
    pub sequence: u64,
    pub points: u64,
    pub created_at: i64,
    pub length: u32,
    body_checksum: u32,
}

impl Head {
    pub fn of(payload: &Payload, sequence: u64) -> Head {
        Head {
            endpoint: payload.endpoint,
            urgent: payload.urgent,
            sequence,
            points: payload.points,
            created_at: payload.created_at,
            length: u32::try_from(payload.body.len()).unwrap_or(u32::MAX),
            body_checksum: crc32fast::hash(&payload.body),
        }
    }

    pub fn payload(&self, body: Bytes) -> Payload {
        let Head { endpoint, points, created_at, urgent, .. } = *self;
        Payload { endpoint, body, points, created_at, urgent }
    }

    pub fn encode(&self) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = VERSION;
        bytes[5] = self.endpoint as u8;
        bytes[6] = if self.urgent { URGENT } else { 0 };
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.points.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.created_at.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.length.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.body_checksum.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..40]);
        bytes[40..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// `None` for what is torn, changed, or of a version that we do not know.
    pub fn decode(bytes: &[u8]) -> Option<Head> {
        let bytes: &[u8; HEAD] = bytes.get(..HEAD)?.try_into().ok()?;
        let whole = bytes[..4] == MAGIC && bytes[4] == VERSION && crc32fast::hash(&bytes[..40]) == four(bytes, 40);
        let head = Head {
            endpoint: Endpoint::ALL.into_iter().find(|endpoint| *endpoint as u8 == bytes[5])?,
            urgent: bytes[6] & URGENT != 0,
            sequence: eight(bytes, 8),
            points: eight(bytes, 16),
            created_at: eight(bytes, 24).cast_signed(),
            length: four(bytes, 32),
            body_checksum: four(bytes, 36),
        };
        (whole && head.length <= MAX_BODY).then_some(head)
    }

    /// Bytes of the whole file.
    pub fn file_length(&self) -> u64 {
        HEAD as u64 + u64::from(self.length)
    }

    pub fn fits(&self, body: &[u8]) -> bool {
        body.len() == self.length as usize && crc32fast::hash(body) == self.body_checksum
    }
}

fn four(bytes: &[u8; HEAD], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn eight(bytes: &[u8; HEAD], at: usize) -> u64 {
    u64::from(four(bytes, at)) | u64::from(four(bytes, at + 4)) << 32
}

/// The payload of a whole file, or `None` when anything in it is not as it was written.
pub(in crate::sink) fn decode(file: &[u8]) -> Option<(Head, Bytes)> {
    let head = Head::decode(file)?;
    let body = file.get(HEAD..).filter(|body| head.fits(body))?;
    Some((head, Bytes::copy_from_slice(body)))
}

/// What a file's name tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sink) enum Kind {
    /// Never under way while it was on disk.
    Waiting,
    /// It was under way, so the intake may have it.
    Tried,
    /// A file that is not whole yet.
    Unfinished,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Waiting, Kind::Tried, Kind::Unfinished];

    fn ending(self) -> &'static str {
        match self {
            Kind::Waiting => ".payload",
            Kind::Tried => ".tried",
            Kind::Unfinished => ".unfinished",
        }
    }
}

/// Sixteen lower-case hex digits and an ending.
pub(in crate::sink) fn name(file: u64, kind: Kind) -> String {
    format!("{file:016x}{}", kind.ending())
}

/// `None` for a name that we never give.
pub(in crate::sink) fn parse(name: &str) -> Option<(u64, Kind)> {
    let kind = Kind::ALL.into_iter().find(|kind| name.ends_with(kind.ending()))?;
    let number = name.strip_suffix(kind.ending())?;
    let plain = number.len() == 16 && number.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    plain.then(|| u64::from_str_radix(number, 16).ok().map(|file| (file, kind))).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn payload(body: Vec<u8>) -> Payload {
        Payload { endpoint: Endpoint::Sketches, body: body.into(), points: 7, created_at: -5, urgent: true }
    }

    fn file(payload: &Payload) -> Vec<u8> {
        [&Head::of(payload, 9).encode()[..], &payload.body].concat()
    }

    #[test]
    fn names_are_ours_or_nobodys() {
        for kind in Kind::ALL {
            assert_eq!(parse(&name(0xa1, kind)), Some((0xa1, kind)));
        }
        for other in ["", "a.payload", "00000000000000A1.payload", "00000000000000a1.payload.x", "00000000000000a1"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(body in prop::collection::vec(any::<u8>(), 1..200)) {
            let payload = payload(body);
            let (head, read) = decode(&file(&payload)).unwrap();
            prop_assert_eq!((head, read), (Head::of(&payload, 9), payload.body.clone()));
            prop_assert_eq!(head.file_length(), file(&payload).len() as u64);
        }

        #[test]
        fn any_change_is_seen(body in prop::collection::vec(any::<u8>(), 1..200), at in any::<prop::sample::Index>(), bit in 0_u32..8) {
            let whole = file(&payload(body));
            let mut changed = whole.clone();
            let at = at.index(changed.len());
            changed[at] ^= 1_u8 << bit;
            prop_assert_eq!(decode(&changed), None);
            prop_assert_eq!(decode(&whole[..at]), None);
        }

        #[test]
        fn bytes_from_anywhere_do_nothing(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(decode(&bytes), None);
        }
    }
}
