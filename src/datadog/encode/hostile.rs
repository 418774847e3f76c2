//! A hundred thousand contexts as no app should have them: every payload within every limit, and every point either in one
//! payload or counted under the reason that a naive reading of the rules gives.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prost::Message;

use super::super::proto::{MetricPayload, SketchPayload};
use super::*;
use crate::aggregate::{Aggregate, Bin, Context, Kind, Percentile, Suffix};

const NOW: i64 = 1_700_000_000;
const CONTEXTS: usize = 100_000;
/// Contexts of a window, as many as one payload may hold and some.
const WINDOW: usize = 12_500;

/// Knuth's generator: the same contexts in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    /// Mostly letters, some of more bytes than one, some that are none.
    fn text(&mut self, longest: u64) -> String {
        let length = self.below(longest + 1);
        let odd = self.below(4) == 0;
        (0..length)
            .map(|_| match self.below(if odd { 8 } else { 4 }) {
                0..4 => char::from(b'a' + self.below(26) as u8),
                4 => 'é',
                5 => '🦀',
                6 => char::from(b'0' + self.below(10) as u8),
                _ => ['.', '_', '-', '\u{1}', '\u{7f}', ' '][self.below(6) as usize],
            })
            .collect()
    }

    fn name(&mut self) -> String {
        match self.below(20) {
            0 => String::new(),
            1 => self.below(1_000_000).to_string(),
            2 => self.text(1_000),
            3 => format!("a{}", "é".repeat(100 + self.below(120) as usize)),
            4 => "n".repeat(195 + self.below(10) as usize),
            _ => format!("app.{}", self.text(40)),
        }
    }

    fn tags(&mut self) -> String {
        let (count, longest) = match self.below(100) {
            0 => (self.below(300), 30),
            1 => (self.below(8), 8_000),
            2 => (101, 250),
            3..50 => (self.below(4), 20),
            _ => (self.below(20), 40),
        };
        (0..count).map(|_| self.text(longest)).collect::<Vec<_>>().join(",")
    }

    fn context(&mut self) -> Arc<Context> {
        let (which, named) = (self.below(5), self.text(400));
        let host = match which {
            0 => Host::None,
            1 => Host::Named(&named),
            _ => Host::Default,
        };
        let (name, tags) = (self.name(), self.tags());
        Arc::new(Context::new(Kind::Gauge, &name, host, &tags, ""))
    }

    fn time(&mut self) -> i64 {
        match self.below(20) {
            0 => [i64::MIN, i64::MAX, 0, NOW + 601, NOW - 3_601][self.below(5) as usize],
            1 => NOW - 5_000 + self.below(7_000) as i64,
            _ => NOW - self.below(20) as i64,
        }
    }

    /// Finite ones are `id`, so that each can be found again.
    fn value(&mut self, id: usize) -> f64 {
        let bad = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
        if self.below(25) == 0 { bad[self.below(3) as usize] } else { id as f64 }
    }

    fn point(&mut self, id: usize) -> Point {
        let percentile = Percentile::from_fraction(0.95).map_or(Suffix::None, Suffix::Percentile);
        let suffix = [Suffix::None, Suffix::Aggregate(Aggregate::Max), percentile][self.below(3) as usize];
        let (context, value, timestamp) = (self.context(), self.value(id), self.time());
        Point { context, suffix, form: Form::Count, value, timestamp, interval_seconds: 10 }
    }

    fn sketch(&mut self, id: usize) -> SketchPoint {
        // One in a thousand is larger alone than a payload may be.
        let bins = if id % 1_000 == 7 { 1_200_000 } else { self.below(60) };
        let bins = (0..bins).map(|n| Bin { key: n as i16, n: 1 + self.below(9) as u16 }).collect();
        let sum = self.value(id);
        let sketch = crate::aggregate::Sketch { bins, count: 1, min: 0.0, max: 0.0, sum, avg: 0.0 };
        SketchPoint { context: self.context(), timestamp: self.time(), sketch }
    }
}

/// What the rules say of an item, written down a second time.
fn expected(name: &str, value: f64, timestamp: i64, alone: usize) -> Option<&'static str> {
    if !value.is_finite() {
        Some("encode_value")
    } else if timestamp > NOW + 600 {
        Some("encode_ahead")
    } else if timestamp < NOW - 3_600 {
        Some("too_old")
    } else if name.len() > 350 || name.chars().count() > 200 || !name.chars().any(|it| it.is_ascii_alphabetic()) {
        Some("encode_name")
    } else if alone > 4_194_304 {
        Some("encode_too_large")
    } else {
        None
    }
}

/// The ids that must come out, and how many must be refused under each reason.
#[derive(Debug, Default, PartialEq, Eq)]
struct Books {
    sent: BTreeSet<u64>,
    refused: BTreeMap<&'static str, u64>,
}

impl Books {
    fn expect(&mut self, verdict: Option<&'static str>, id: usize) {
        match verdict {
            Some(reason) => *self.refused.entry(reason).or_default() += 1,
            None => assert!(self.sent.insert(id as u64)),
        }
    }

    fn send(&mut self, id: f64) {
        assert!(self.sent.insert(id as u64), "{id} came out twice");
    }
}

fn check_item(name: &str, host: &str, tags: &[String], timestamp: i64) {
    assert!(name.len() <= 350 && name.chars().count() <= 200 && name.chars().any(|it| it.is_ascii_alphabetic()));
    assert!(host.len() <= 255 && tags.len() <= 100);
    assert!(tags.iter().all(|tag| !tag.is_empty() && tag.len() <= 200));
    assert!((NOW - 3_600..=NOW + 600).contains(&timestamp));
}

/// Decodes a payload after checking its sizes, and gives the ids in it.
fn ids(payload: &Payload, limits: Limits) -> Vec<f64> {
    let raw = zstd::decode_all(&payload.body[..]).unwrap();
    assert!(payload.body.len() <= limits.compressed, "{} bytes", payload.body.len());
    assert!(raw.len() <= limits.uncompressed, "{} bytes uncompressed", raw.len());
    let ids: Vec<f64> = if payload.endpoint == Endpoint::Series {
        let item = |it: MetricSeries| {
            let host = it.resources.first().map(|it| it.name.clone()).unwrap_or_default();
            check_item(&it.metric, &host, &it.tags, it.points[0].timestamp);
            assert!(it.points.len() == 1 && it.points[0].value.is_finite());
            it.points[0].value
        };
        MetricPayload::decode(&raw[..]).unwrap().series.into_iter().map(item).collect()
    } else {
        let item = |it: Sketch| {
            check_item(&it.metric, &it.host, &it.tags, it.dogsketches[0].ts);
            it.dogsketches[0].sum
        };
        SketchPayload::decode(&raw[..]).unwrap().sketches.into_iter().map(item).collect()
    };
    assert!(ids.len() as u64 == payload.points && ids.len() <= 10_000);
    ids
}

fn account(out: &Encoded, limits: Limits, books: &mut Books) {
    out.payloads.iter().flat_map(|payload| ids(payload, limits)).for_each(|id| books.send(id));
    for (reason, n) in &out.refused {
        *books.refused.entry(reason.label()).or_default() += n;
    }
}

#[test]
fn a_hundred_thousand_hostile_series_are_within_every_limit_or_counted() {
    let mut random = Random(28);
    let mut encoder = Encoder::new(EncoderSettings::default()).unwrap();
    let (mut wanted, mut got) = (Books::default(), Books::default());
    for begin in (0..CONTEXTS).step_by(WINDOW) {
        let points: Vec<Point> = (begin..begin + WINDOW).map(|id| random.point(id)).collect();
        for (at, point) in points.iter().enumerate() {
            let name = format!("{}{}", point.context.name(), point.suffix.text());
            wanted.expect(expected(&name, point.value, point.timestamp, 0), begin + at);
        }
        let out = encoder.encode(&Window { points, ..Window::default() }, NOW);
        assert!(out.payloads.len() > 1 && out.tags_cut > 0);
        account(&out, Limits::SERIES, &mut got);
    }
    assert_eq!(wanted.refused, got.refused);
    assert!(wanted == got && wanted.refused.len() == 4, "not what the rules say came out");
}

#[test]
fn hostile_sketches_are_within_every_limit_or_counted() {
    let mut random = Random(37);
    let mut encoder = Encoder::new(EncoderSettings::default()).unwrap();
    let (mut wanted, mut got) = (Books::default(), Books::default());
    let sketches: Vec<SketchPoint> = (0..5_000).map(|id| random.sketch(id)).collect();
    for (id, point) in sketches.iter().enumerate() {
        // Two bytes and more for each bin.
        let alone = point.sketch.bins.len() * 4;
        wanted.expect(expected(point.context.name(), point.sketch.sum, point.timestamp, alone), id);
    }
    let out = encoder.encode(&Window { sketches, ..Window::default() }, NOW);
    account(&out, Limits::SKETCHES, &mut got);
    assert_eq!(wanted.refused, got.refused);
    assert!(wanted == got && got.refused.contains_key("encode_too_large"));
}
