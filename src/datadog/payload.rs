//! One request's worth of data: where it goes, its body as sent, and what is needed to account for it.
//!
//! Bodies of series and sketches are zstd over a concatenation of length-delimited items, each of which is a valid field 1 of
//! the payload message. That is what lets a body be cut between two items, before sending or after a 413.

use std::ops::Range;

use bytes::Bytes;
use prost::encoding::decode_varint;

/// zstd level: saluki's choice; higher ones cost more CPU than they save bytes on payloads of this size.
pub(super) const LEVEL: i32 = 3;

/// What of Datadog's API a payload is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Endpoint {
    Series,
    Sketches,
    Events,
    Checks,
}

impl Endpoint {
    pub const ALL: [Endpoint; 4] = [Endpoint::Series, Endpoint::Sketches, Endpoint::Events, Endpoint::Checks];

    pub fn path(self) -> &'static str {
        match self {
            Endpoint::Series => "/api/v2/series",
            Endpoint::Sketches => "/api/beta/sketches",
            Endpoint::Events => "/api/v1/events",
            Endpoint::Checks => "/api/v1/check_run",
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Endpoint::Series | Endpoint::Sketches => "application/x-protobuf",
            Endpoint::Events | Endpoint::Checks => "application/json",
        }
    }

    /// `None` where the body goes as it is: events and checks are small, and their old endpoints want plain JSON.
    pub fn content_encoding(self) -> Option<&'static str> {
        match self {
            Endpoint::Series | Endpoint::Sketches => Some("zstd"),
            Endpoint::Events | Endpoint::Checks => None,
        }
    }

    /// Whether its payloads carry points; the others carry one event or check each.
    pub fn carries_points(self) -> bool {
        matches!(self, Endpoint::Series | Endpoint::Sketches)
    }
}

/// Sizes that a payload must not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub compressed: usize,
    pub uncompressed: usize,
    pub points: usize,
}

impl Limits {
    /// The smaller of what the Agent and Vector use (datadog-agent's serializer defaults, vector's `datadog/metrics/config.rs`).
    pub const SERIES: Limits = Limits { compressed: 512_000, uncompressed: 5_242_880, points: 10_000 };
    /// As above; the intake limits no points here, and the number keeps one payload's loss small.
    pub const SKETCHES: Limits = Limits { compressed: 2_621_440, uncompressed: 4_194_304, points: 10_000 };
}

/// A request's body and its accounting. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    pub endpoint: Endpoint,
    /// As it is sent: compressed where the endpoint says so.
    pub body: Bytes,
    /// Points in it; for an event or a check 1.
    pub points: u64,
    /// Unix seconds of the oldest item in it: its age counts from here.
    pub created_at: i64,
    /// Ahead of every backlog, and tried at once.
    pub urgent: bool,
}

/// Cuts a payload in two between two items, after a 413. `None` when there is nothing to cut: one item, or JSON.
pub fn split(payload: &Payload) -> Option<(Payload, Payload)> {
    if !payload.endpoint.carries_points() {
        return None;
    }
    let raw = zstd::decode_all(&payload.body[..]).ok()?;
    let items = items(&raw)?;
    if items.len() < 2 {
        return None;
    }
    let (left, right) = items.split_at(items.len() / 2);
    Some((part(payload, &raw, left)?, part(payload, &raw, right)?))
}

/// Where each item stands in the raw body. The encoder puts one point in each.
fn items(raw: &[u8]) -> Option<Vec<Range<usize>>> {
    let mut items = Vec::new();
    let mut start = 0;
    while start < raw.len() {
        // The key of field 1, wire type 2, is the byte 0x0a.
        let mut rest = raw[start..].strip_prefix(&[0x0a])?;
        let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
        let head = raw.len() - start - rest.len();
        let end = start.checked_add(head)?.checked_add(length).filter(|end| *end <= raw.len())?;
        items.push(start..end);
        start = end;
    }
    Some(items)
}

fn part(whole: &Payload, raw: &[u8], items: &[Range<usize>]) -> Option<Payload> {
    let bytes = raw.get(items.first()?.start..items.last()?.end)?;
    let body = zstd::bulk::compress(bytes, LEVEL).ok()?;
    Some(Payload { body: body.into(), points: items.len() as u64, ..whole.clone() })
}
