//! A window becomes payloads: every series and sketch is encoded alone as a length-delimited field 1 and appended (`pile.rs`),
//! and the concatenation is a valid message.
//!
//! Points are taken in order of time and a payload spans at most a minute, so its age means the age of all of it: a
//! batch of hour-old samples does not take fresh ones down with it.

use std::collections::BTreeMap;

use super::payload::{Endpoint, Limits, Payload};
use super::pile::{Pile, Stream};
use super::proto::{Dogsketch, MetricPoint, MetricSeries, MetricType, Resource, Sketch};
use super::rules::{self, Accepted, Refused};
use crate::aggregate::{Form, Host, Point, SketchPoint, Window};

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
    /// Points that went out with tags, or the name of their host, cut; they are not lost.
    pub tags_cut: u64,
}

impl Encoded {
    pub(super) fn refuse(&mut self, reason: Refused, points: u64) {
        *self.refused.entry(reason).or_default() += points;
    }
}

/// Turns windows into payloads.
pub struct Encoder {
    settings: EncoderSettings,
    stream: Stream,
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
        let stream = Stream::new().map_err(|error| format!("start the zstd compressor: {error}"))?;
        Ok(Encoder { settings, stream })
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
        let mut pile = Pile::new(Endpoint::Series, self.settings.series, &mut self.stream, out);
        for point in sorted {
            match series(point, self.settings.hostname.as_deref(), accepted) {
                Ok((series, cut)) => pile.add(&series, point.timestamp, cut),
                Err(refused) => pile.refuse(refused),
            }
        }
        pile.close();
    }

    fn encode_sketches(&mut self, sketches: &[SketchPoint], now: i64, out: &mut Encoded) {
        let accepted = Accepted { now, historical: false };
        let mut sorted: Vec<&SketchPoint> = sketches.iter().collect();
        sorted.sort_by_key(|point| point.timestamp);
        let mut pile = Pile::new(Endpoint::Sketches, self.settings.sketches, &mut self.stream, out);
        for point in sorted {
            match sketch(point, self.settings.hostname.as_deref(), accepted) {
                Ok((sketch, cut)) => pile.add(&sketch, point.timestamp, cut),
                Err(refused) => pile.refuse(refused),
            }
        }
        pile.close();
    }
}

fn series(point: &Point, hostname: Option<&str>, accepted: Accepted) -> Result<(MetricSeries, bool), Refused> {
    rules::finite(&[point.value])?;
    accepted.time(point.timestamp)?;
    let metric = rules::name(&point.context, point.suffix.text())?;
    let (tags, tags_cut) = rules::tags(point.context.tags());
    let (host, host_cut) = host(point.context.host(), hostname);
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
    Ok((series, tags_cut || host_cut))
}

fn sketch(point: &SketchPoint, hostname: Option<&str>, accepted: Accepted) -> Result<(Sketch, bool), Refused> {
    let of = &point.sketch;
    rules::finite(&[of.min, of.max, of.sum, of.avg])?;
    accepted.time(point.timestamp)?;
    let metric = rules::name(&point.context, "")?;
    let (tags, tags_cut) = rules::tags(point.context.tags());
    let (host, host_cut) = host(point.context.host(), hostname);
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
    let host = host.unwrap_or_default().to_owned();
    Ok((Sketch { metric, host, tags, dogsketches: vec![dogsketch] }, tags_cut || host_cut))
}

/// The host as it goes out, and whether its name had to be cut.
fn host<'a>(of: Host<'a>, own: Option<&'a str>) -> (Option<&'a str>, bool) {
    let name = match of {
        Host::Default => own,
        Host::None => None,
        Host::Named(name) => Some(name),
    };
    let kept = name.map(|name| rules::prefix(name, rules::MAX_HOST));
    (kept, kept.map(str::len) != name.map(str::len))
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;
