//! A window becomes payloads: every series and sketch is encoded alone as a length-delimited field 1 and appended, and the
//! concatenation is a valid message.
//!
//! Points are taken in order of time and a payload spans at most [`SPAN`] seconds, so its age means the age of all of it: a
//! batch of hour-old samples does not take fresh ones down with it.

use std::collections::BTreeMap;

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::payload::{Endpoint, LEVEL, Limits, Payload};
use super::proto::{Dogsketch, MetricPoint, MetricSeries, MetricType, Resource, Sketch};
use super::rules::{self, Accepted, Refused};
use crate::aggregate::{Form, Host, Point, SketchPoint, Window};

/// Seconds between the oldest and the newest point of a payload.
const SPAN: i64 = 60;

/// What the encoder has to know of the sidecar.
#[derive(Clone, Debug)]
pub struct EncoderSettings {
    /// The host of contexts that name none; `None` sends them without a host.
    pub hostname: Option<String>,
    /// `datadog.historical`: points older than an hour are sent too. Sketches never are: the intake does not take them.
    pub historical: bool,
    pub series: Limits,
    pub sketches: Limits,
}

impl Default for EncoderSettings {
    fn default() -> EncoderSettings {
        EncoderSettings { hostname: None, historical: false, series: Limits::SERIES, sketches: Limits::SKETCHES }
    }
}

/// What became of a window. The points of all payloads and of `refused` add up to those of the window.
#[derive(Debug, Default)]
pub struct Encoded {
    pub payloads: Vec<Payload>,
    pub refused: BTreeMap<Refused, u64>,
    /// Points that went out with tags cut; they are not lost.
    pub tags_cut: u64,
}

/// Turns windows into payloads. Keeps its compressor, because a fresh one costs about a megabyte.
pub struct Encoder {
    settings: EncoderSettings,
    compressor: zstd::bulk::Compressor<'static>,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Encoder {
    /// # Errors
    /// When the compressor cannot be made, which only a lack of memory brings about.
    pub fn new(settings: EncoderSettings) -> Result<Encoder, String> {
        let compressor =
            zstd::bulk::Compressor::new(LEVEL).map_err(|error| format!("start the zstd compressor: {error}"))?;
        Ok(Encoder { settings, compressor })
    }

    /// Encodes points and sketches; raw samples are an Agent's and are passed over. `now` is Unix seconds.
    pub fn encode(&mut self, window: &Window, now: i64) -> Encoded {
        let mut out = Encoded::default();
        self.encode_points(&window.points, now, &mut out);
        self.encode_sketches(&window.sketches, now, &mut out);
        out
    }

    fn encode_points(&mut self, points: &[Point], now: i64, out: &mut Encoded) {
        let accepted = Accepted { now, historical: self.settings.historical };
        let mut sorted: Vec<&Point> = points.iter().collect();
        sorted.sort_by_key(|point| point.timestamp);
        let mut pile = Pile::new(Endpoint::Series, self.settings.series);
        for point in sorted {
            match series(point, self.settings.hostname.as_deref(), accepted) {
                Ok((series, cut)) => pile.add(&series, point.timestamp, cut, &mut self.compressor, out),
                Err(refused) => *out.refused.entry(refused).or_default() += 1,
            }
        }
        pile.close(&mut self.compressor, out);
    }

    fn encode_sketches(&mut self, sketches: &[SketchPoint], now: i64, out: &mut Encoded) {
        let accepted = Accepted { now, historical: false };
        let mut sorted: Vec<&SketchPoint> = sketches.iter().collect();
        sorted.sort_by_key(|point| point.timestamp);
        let mut pile = Pile::new(Endpoint::Sketches, self.settings.sketches);
        for point in sorted {
            match sketch(point, self.settings.hostname.as_deref(), accepted) {
                Ok((sketch, cut)) => pile.add(&sketch, point.timestamp, cut, &mut self.compressor, out),
                Err(refused) => *out.refused.entry(refused).or_default() += 1,
            }
        }
        pile.close(&mut self.compressor, out);
    }
}

fn series(point: &Point, hostname: Option<&str>, accepted: Accepted) -> Result<(MetricSeries, bool), Refused> {
    rules::finite(&[point.value])?;
    accepted.time(point.timestamp)?;
    let metric = rules::name(&point.context, point.suffix.text())?;
    let (tags, cut) = rules::tags(point.context.tags());
    let host = host(point.context.host(), hostname);
    let form = match point.form {
        Form::Gauge => MetricType::Gauge,
        Form::Rate => MetricType::Rate,
        Form::Count => MetricType::Count,
    };
    let series = MetricSeries {
        resources: host.map(|name| Resource { r#type: "host".to_owned(), name: name.to_owned() }).into_iter().collect(),
        metric,
        tags,
        points: vec![MetricPoint { value: point.value, timestamp: point.timestamp }],
        r#type: form.into(),
        interval: i64::from(point.interval_seconds),
    };
    Ok((series, cut))
}

fn sketch(point: &SketchPoint, hostname: Option<&str>, accepted: Accepted) -> Result<(Sketch, bool), Refused> {
    let of = &point.sketch;
    rules::finite(&[of.min, of.max, of.sum, of.avg])?;
    accepted.time(point.timestamp)?;
    let metric = rules::name(&point.context, "")?;
    let (tags, cut) = rules::tags(point.context.tags());
    let dogsketch = Dogsketch {
        ts: point.timestamp,
        cnt: i64::try_from(of.count).unwrap_or(i64::MAX),
        min: of.min,
        max: of.max,
        avg: of.avg,
        sum: of.sum,
        k: of.bins.iter().map(|bin| i32::from(bin.key)).collect(),
        n: of.bins.iter().map(|bin| u32::from(bin.n)).collect(),
    };
    let host = host(point.context.host(), hostname).unwrap_or_default().to_owned();
    Ok((Sketch { metric, host, tags, dogsketches: vec![dogsketch] }, cut))
}

fn host<'a>(of: Host<'a>, own: Option<&'a str>) -> Option<&'a str> {
    match of {
        Host::Default => own,
        Host::None => None,
        Host::Named(name) => Some(name),
    }
}

/// Items of one payload in the making, one point each.
struct Pile {
    endpoint: Endpoint,
    limits: Limits,
    bytes: Vec<u8>,
    /// Where each item ends in `bytes`, its time, and whether its tags were cut.
    items: Vec<(usize, i64, bool)>,
}

impl Pile {
    fn new(endpoint: Endpoint, limits: Limits) -> Pile {
        Pile { endpoint, limits, bytes: Vec::new(), items: Vec::new() }
    }

    fn add<M: Message>(
        &mut self,
        item: &M,
        timestamp: i64,
        cut: bool,
        compressor: &mut zstd::bulk::Compressor<'_>,
        out: &mut Encoded,
    ) {
        let length = item.encoded_len();
        let oldest = self.items.first().map_or(timestamp, |item| item.1);
        // Ten bytes are more than a key and a length take.
        let full = self.bytes.len() + length + 10 > self.limits.uncompressed || self.items.len() >= self.limits.points;
        if full || timestamp.saturating_sub(oldest) > SPAN {
            self.close(compressor, out);
        }
        encode_key(1, WireType::LengthDelimited, &mut self.bytes);
        encode_varint(length as u64, &mut self.bytes);
        item.encode_raw(&mut self.bytes);
        self.items.push((self.bytes.len(), timestamp, cut));
    }

    fn close(&mut self, compressor: &mut zstd::bulk::Compressor<'_>, out: &mut Encoded) {
        let items = std::mem::take(&mut self.items);
        let bytes = std::mem::take(&mut self.bytes);
        self.seal(&bytes, 0, &items, compressor, out);
    }

    /// Compresses, and halves what comes out too large until it fits or is one item.
    fn seal(
        &self,
        bytes: &[u8],
        start: usize,
        items: &[(usize, i64, bool)],
        compressor: &mut zstd::bulk::Compressor<'_>,
        out: &mut Encoded,
    ) {
        let (Some(first), Some(last)) = (items.first(), items.last()) else {
            return;
        };
        let raw = &bytes[start..last.0];
        let body = compressor.compress(raw).ok();
        match body.filter(|body| body.len() <= self.limits.compressed && raw.len() <= self.limits.uncompressed) {
            Some(mut body) => {
                body.shrink_to_fit();
                out.tags_cut += items.iter().filter(|item| item.2).count() as u64;
                out.payloads.push(Payload {
                    endpoint: self.endpoint,
                    body: body.into(),
                    points: items.len() as u64,
                    created_at: first.1,
                    urgent: false,
                });
            }
            None if items.len() == 1 => *out.refused.entry(Refused::TooLarge).or_default() += 1,
            None => {
                let (left, right) = items.split_at(items.len() / 2);
                self.seal(bytes, start, left, compressor, out);
                self.seal(bytes, left[left.len() - 1].0, right, compressor, out);
            }
        }
    }
}

#[cfg(test)]
mod tests;
