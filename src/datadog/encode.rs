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
    let metric = rules::name(&point.context, point.suffix)?;
    let (tags, cut) = rules::tags(point.context.tags());
    let host = host(&point.context.host, hostname);
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
    let host = host(&point.context.host, hostname).unwrap_or_default().to_owned();
    Ok((Sketch { metric, host, tags, dogsketches: vec![dogsketch] }, cut))
}

fn host<'a>(of: &'a Host, own: Option<&'a str>) -> Option<&'a str> {
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
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::payload::split;
    use super::super::proto::{MetricPayload, SketchPayload};
    use super::*;
    use crate::aggregate::{Bin, Context, Kind};

    const NOW: i64 = 1_700_000_000;

    fn context(name: &str, host: Host, tags: &str) -> Arc<Context> {
        Arc::new(Context { kind: Kind::Gauge, name: name.into(), host, tags: tags.into(), origin: "".into() })
    }

    fn point(name: &str, value: f64, timestamp: i64) -> Point {
        let context = context(name, Host::Default, "a:b,c");
        Point { context, suffix: "", form: Form::Gauge, value, timestamp, interval_seconds: 10 }
    }

    fn encode(window: &Window, settings: EncoderSettings) -> Encoded {
        Encoder::new(settings).unwrap().encode(window, NOW)
    }

    fn series_of(payload: &Payload) -> Vec<MetricSeries> {
        let raw = zstd::decode_all(&payload.body[..]).unwrap();
        MetricPayload::decode(&raw[..]).unwrap().series
    }

    fn points(points: Vec<Point>) -> Window {
        Window { points, ..Window::default() }
    }

    #[test]
    fn a_point_is_a_series_with_host_tags_type_and_interval() {
        let mut rate = point("jobs", 2.5, NOW);
        rate.form = Form::Rate;
        rate.suffix = ".count";
        let out = encode(
            &points(vec![rate]),
            EncoderSettings { hostname: Some("h".to_owned()), ..EncoderSettings::default() },
        );
        assert_eq!(
            series_of(&out.payloads[0]),
            vec![MetricSeries {
                resources: vec![Resource { r#type: "host".to_owned(), name: "h".to_owned() }],
                metric: "jobs.count".to_owned(),
                tags: vec!["a:b".to_owned(), "c".to_owned()],
                points: vec![MetricPoint { value: 2.5, timestamp: NOW }],
                r#type: 2,
                interval: 10,
            }]
        );
        assert_eq!((out.payloads[0].points, out.payloads[0].created_at), (1, NOW));
    }

    #[test]
    fn a_context_can_name_its_host_or_none() {
        let settings = || EncoderSettings { hostname: Some("own".to_owned()), ..EncoderSettings::default() };
        for (host, expected) in [(Host::Default, Some("own")), (Host::None, None), (Host::Named("x".into()), Some("x"))]
        {
            let mut it = point("a", 1.0, NOW);
            it.context = context("a", host, "");
            let series = series_of(&encode(&points(vec![it]), settings()).payloads[0]);
            assert_eq!(series[0].resources.first().map(|it| it.name.as_str()), expected);
        }
    }

    #[test]
    fn a_sketch_keeps_its_bins_and_its_host_in_a_field() {
        let bins = vec![Bin { key: -1338, n: 1 }, Bin { key: 0, n: 65_535 }];
        let sketch = crate::aggregate::Sketch { bins, count: 65_536, min: -1.0, max: 0.0, sum: -1.0, avg: -0.5 };
        let one = SketchPoint { context: context("d", Host::Named("x".into()), "a:b"), timestamp: NOW, sketch };
        let out = encode(&Window { sketches: vec![one], ..Window::default() }, EncoderSettings::default());
        let raw = zstd::decode_all(&out.payloads[0].body[..]).unwrap();
        let sketches = SketchPayload::decode(&raw[..]).unwrap().sketches;
        assert_eq!((sketches[0].metric.as_str(), sketches[0].host.as_str()), ("d", "x"));
        let dog = &sketches[0].dogsketches[0];
        assert_eq!((&dog.k[..], &dog.n[..]), (&[-1338, 0][..], &[1, 65_535][..]));
        assert_eq!((dog.ts, dog.cnt, dog.min, dog.max, dog.sum, dog.avg), (NOW, 65_536, -1.0, 0.0, -1.0, -0.5));
    }

    #[test]
    fn a_point_that_the_intake_would_refuse_is_counted_and_left_out() {
        let window = points(vec![
            point("ok", 1.0, NOW),
            point("7", 1.0, NOW),
            point("nan", f64::NAN, NOW),
            point("ahead", 1.0, NOW + 601),
            point("old", 1.0, NOW - 3_601),
        ]);
        let out = encode(&window, EncoderSettings::default());
        let reasons = [Refused::Name, Refused::Value, Refused::Ahead, Refused::TooOld];
        assert_eq!(out.refused, reasons.into_iter().map(|reason| (reason, 1)).collect());
        assert_eq!(series_of(&out.payloads[0]).len(), 1);
        let historical = encode(&window, EncoderSettings { historical: true, ..EncoderSettings::default() });
        assert!(!historical.refused.contains_key(&Refused::TooOld));
    }

    #[test]
    fn late_points_stand_in_a_payload_of_their_own() {
        let out = encode(
            &points(vec![point("a", 1.0, NOW), point("b", 1.0, NOW - 3_000), point("c", 1.0, NOW - 50)]),
            EncoderSettings::default(),
        );
        let ages: Vec<_> = out.payloads.iter().map(|payload| (payload.created_at - NOW, payload.points)).collect();
        assert_eq!(ages, [(-3_000, 1), (-50, 2)]);
    }

    #[test]
    fn a_window_of_ten_thousand_and_one_points_is_two_payloads() {
        let window = points((0..10_001).map(|n| point(&format!("m{n}"), f64::from(n), NOW)).collect());
        let out = encode(&window, EncoderSettings::default());
        assert_eq!(out.payloads.iter().map(|payload| payload.points).collect::<Vec<_>>(), [10_000, 1]);
    }

    #[test]
    fn an_item_larger_than_a_payload_is_refused_alone() {
        let mut large = point("large", 1.0, NOW);
        large.context =
            context("large", Host::Default, &(0..50).map(|n| format!("tag{n}:{n}")).collect::<Vec<_>>().join(","));
        let limits = Limits { uncompressed: 200, ..Limits::SERIES };
        let settings = EncoderSettings { series: limits, ..EncoderSettings::default() };
        let out = encode(&points(vec![point("a", 1.0, NOW), large, point("b", 1.0, NOW)]), settings);
        assert_eq!(out.refused, [(Refused::TooLarge, 1)].into());
        assert_eq!(out.payloads.iter().map(|payload| payload.points).sum::<u64>(), 2);
    }

    #[test]
    fn tags_that_were_cut_are_told_and_the_point_goes_out() {
        let mut it = point("a", 1.0, NOW);
        it.context = context("a", Host::Default, &format!("k:{}", "x".repeat(300)));
        let out = encode(&points(vec![it]), EncoderSettings::default());
        assert_eq!((out.tags_cut, out.payloads[0].points), (1, 1));
        assert_eq!(series_of(&out.payloads[0])[0].tags[0].len(), 200);
    }

    #[test]
    fn a_split_payload_holds_the_same_series_down_to_one() {
        let window = points((0..5).map(|n| point(&format!("m{n}"), f64::from(n), NOW)).collect());
        let whole = encode(&window, EncoderSettings::default()).payloads.remove(0);
        let (left, right) = split(&whole).unwrap();
        assert_eq!((left.points, right.points, left.created_at), (2, 3, NOW));
        assert_eq!([series_of(&left), series_of(&right)].concat(), series_of(&whole));
        let (one, _) = split(&left).unwrap();
        assert_eq!((one.points, split(&one)), (1, None));
    }

    #[test]
    fn a_body_that_is_not_ours_is_not_split() {
        for body in
            [&b""[..], b"not zstd", &zstd::bulk::compress(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 1).unwrap()]
        {
            let payload = Payload {
                endpoint: Endpoint::Series,
                body: bytes::Bytes::copy_from_slice(body),
                points: 2,
                created_at: 0,
                urgent: false,
            };
            assert_eq!(split(&payload), None);
        }
    }

    proptest! {
        #[test]
        fn every_point_comes_out_once_within_every_limit(
            values in prop::collection::vec((any::<f64>(), -5_000_i64..1_000, "[a-z0-9.]{0,12}"), 0..120),
            compressed in 40_usize..400, uncompressed in 60_usize..2_000, most in 1_usize..50,
        ) {
            let window = points(values.iter().map(|(value, at, name)| point(name, *value, NOW + at)).collect());
            let limits = Limits { compressed, uncompressed, points: most };
            let out = encode(&window, EncoderSettings { series: limits, ..EncoderSettings::default() });
            let mut sent = 0;
            for payload in &out.payloads {
                let series = series_of(payload);
                prop_assert_eq!(series.len() as u64, payload.points);
                prop_assert!(payload.body.len() <= compressed && series.len() <= most);
                prop_assert!(zstd::decode_all(&payload.body[..]).unwrap().len() <= uncompressed);
                prop_assert_eq!(series.iter().map(|it| it.points[0].timestamp).min(), Some(payload.created_at));
                sent += payload.points;
            }
            prop_assert_eq!(sent + out.refused.values().sum::<u64>(), values.len() as u64);
        }
    }
}
