//! What the encoder writes, read back with the same messages; and what it leaves out.

use std::sync::Arc;

use proptest::prelude::*;
use prost::Message;

use super::super::payload::split;
use super::super::proto::{MetricPayload, SketchPayload};
use super::*;
use crate::aggregate::{Aggregate, Bin, Context, Kind, Suffix};

const NOW: i64 = 1_700_000_000;

fn context(name: &str, host: Host<'_>, tags: &str) -> Arc<Context> {
    Arc::new(Context::new(Kind::Gauge, name, host, tags, ""))
}

fn point(name: &str, value: f64, timestamp: i64) -> Point {
    let context = context(name, Host::Default, "a:b,c");
    Point { context, suffix: Suffix::None, form: Form::Gauge, value, timestamp, interval_seconds: 10 }
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
    rate.suffix = Suffix::Aggregate(Aggregate::Count);
    let out =
        encode(&points(vec![rate]), EncoderSettings { hostname: Some("h".to_owned()), ..EncoderSettings::default() });
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
    for (host, expected) in [(Host::Default, Some("own")), (Host::None, None), (Host::Named("x"), Some("x"))] {
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
    let one = SketchPoint { context: context("d", Host::Named("x"), "a:b"), timestamp: NOW, sketch };
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
