//! Datadog's own generated Go types read the bodies that our encoder writes, field for field.
//!
//! The decoder is `tests/decode`, built once into `target/`. Without Go the test says so and proves nothing.
#![allow(clippy::unwrap_used, reason = "a test that unwraps says where it broke by its line")]

#[path = "support/decode.rs"]
mod decode;

use std::sync::Arc;

use decode::{decode, decoder};

use oomwatch::aggregate::{Bin, Context, Form, Host, Kind, Point, Sketch, SketchPoint, Suffix, Window};
use oomwatch::datadog::{Encoder, EncoderSettings, Endpoint, split};
use serde_json::{Value, json};

const NOW: i64 = 1_700_000_000;

fn context(name: &str, host: Host<'_>, tags: &str) -> Arc<Context> {
    Arc::new(Context::new(Kind::Gauge, name, host, tags, ""))
}

fn window() -> Window {
    let point = |name: &str, host, tags: &str, form, value, interval_seconds| Point {
        context: context(name, host, tags),
        suffix: Suffix::None,
        form,
        value,
        timestamp: NOW,
        interval_seconds,
    };
    let bins = [(-1_338, 1), (0, 2), (1_487, 65_535), (1_487, 65_535)].map(|(key, n)| Bin { key, n });
    let sketch = Sketch { bins: bins.to_vec(), count: 131_073, min: -1.0, max: 10.0, sum: 1_310_699.0, avg: 9.999_763 };
    Window {
        points: vec![
            point("jobs.done", Host::Default, "env:prod,é:ü", Form::Rate, 0.1, 10),
            point("jobs.sum", Host::None, "", Form::Count, 3.0, 10),
            point("rss", Host::Named("other"), "a:b", Form::Gauge, 9_007_199_254_740_993.0, 0),
        ],
        sketches: vec![SketchPoint { context: context("latency", Host::Default, "a:b"), timestamp: NOW, sketch }],
        ..Window::default()
    }
}

#[test]
fn datadogs_own_types_read_what_we_write() {
    let decoder = match decoder() {
        Ok(decoder) => decoder,
        Err(why) => {
            use std::io::Write;
            // Straight to the terminal: the test harness would swallow the line of a test that passes.
            let _ = writeln!(std::io::stderr(), "SKIPPED datadogs_own_types_read_what_we_write: {why}");
            return;
        }
    };
    let settings = EncoderSettings { hostname: Some("pod-1".to_owned()), ..EncoderSettings::default() };
    let payloads = Encoder::new(settings).unwrap().encode(&window(), NOW).payloads;
    let (left, right) = split(&payloads[0]).unwrap();
    let bodies: Vec<(Endpoint, &[u8])> =
        [&payloads[0], &payloads[1], &left, &right].map(|payload| (payload.endpoint, &payload.body[..])).into();
    let read = decode(&decoder, &bodies);
    let series = json!([
        {"resources": [{"type": "host", "name": "pod-1"}], "metric": "jobs.done", "tags": ["env:prod", "é:ü"],
         "points": [{"value": 0.1, "timestamp": NOW}], "type": 2, "interval": 10},
        {"metric": "jobs.sum", "points": [{"value": 3.0, "timestamp": NOW}], "type": 1, "interval": 10},
        {"resources": [{"type": "host", "name": "other"}], "metric": "rss", "tags": ["a:b"],
         "points": [{"value": 9_007_199_254_740_992_u64, "timestamp": NOW}], "type": 3},
    ]);
    assert_eq!(numbers(&read[0]), numbers(&series));
    let sketches = &read[1][0];
    assert_eq!(
        (&sketches["metric"], &sketches["host"], &sketches["tags"]),
        (&json!("latency"), &json!("pod-1"), &json!(["a:b"]))
    );
    let dog = json!({"ts": NOW, "cnt": 131_073, "min": -1.0, "max": 10.0, "sum": 1_310_699.0, "avg": 9.999_763,
        "k": [-1_338, 0, 1_487, 1_487], "n": [1, 2, 65_535, 65_535]});
    assert_eq!(numbers(&sketches["dogsketches"]), numbers(&json!([dog])));
    let halves: Vec<Value> = [&read[2], &read[3]].iter().flat_map(|half| half.as_array().unwrap().clone()).collect();
    assert_eq!(Value::Array(halves), read[0], "the halves of a split payload hold the same series");
}

/// Go writes `3` where we write `3.0`: numbers are compared as numbers.
fn numbers(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(all) => all.iter().map(numbers).collect(),
        Value::Object(all) => Value::Object(all.iter().map(|(key, value)| (key.clone(), numbers(value))).collect()),
        other => other.clone(),
    }
}
