//! What one flush hands to the output: points, sketches, and (for an Agent) raw samples.
//!
//! Everything points at its [`Context`], which is stored once for as long as it lives, so a window of ten thousand points
//! copies no names and no tags.

use std::sync::Arc;

use super::Sketch;
pub use crate::statsd::Kind;

/// Whose host a context belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Host {
    /// The sidecar's own host name, if there is one.
    #[default]
    Default,
    /// `host:` with an empty value: explicitly no host.
    None,
    Named(Box<str>),
}

/// One time series' identity. Tags are deduplicated, joined by commas in the order in which they first came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    pub kind: Kind,
    pub name: Box<str>,
    pub host: Host,
    pub tags: Box<str>,
    /// `c:…|e:…|card:…` as the app sent them, joined by `|`; empty when absent and always empty in intake mode.
    pub origin: Box<str>,
}

impl Context {
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.tags.split(',').filter(|tag| !tag.is_empty())
    }
}

/// How a point is to be read by Datadog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Gauge,
    /// A value per second; `interval_seconds` says over which window it was averaged.
    Rate,
    /// A sum over `interval_seconds`.
    Count,
}

/// One value of one series at one second.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    pub context: Arc<Context>,
    /// `""`, or what a histogram adds to the name: `.max`, `.95percentile`.
    pub suffix: &'static str,
    pub form: Form,
    pub value: f64,
    /// Unix seconds: the start of the window, or the second of a partial flush.
    pub timestamp: i64,
    /// 0 where it has no meaning (timestamped samples).
    pub interval_seconds: u32,
}

/// One distribution of one series over one window.
#[derive(Clone, Debug, PartialEq)]
pub struct SketchPoint {
    pub context: Arc<Context>,
    pub timestamp: i64,
    pub sketch: Sketch,
}

/// Agent mode only: samples of `h`, `ms`, `d` or members of `s`, kept as they came so that the Agent aggregates once.
#[derive(Clone, Debug, PartialEq)]
pub struct RawSamples {
    pub context: Arc<Context>,
    /// 1.0 when the app gave none.
    pub sample_rate: f64,
    /// The values' text joined by `:` (packed, v1.1); for a set exactly one member.
    pub values: Box<str>,
}

/// The outcome of one flush. Timestamped (`|T`) samples are in `points` with their own second and interval 0.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Window {
    pub points: Vec<Point>,
    pub sketches: Vec<SketchPoint>,
    pub raw: Vec<RawSamples>,
    /// The second that a partial flush was stamped with: whoever flushes next must take another one.
    pub partial: Option<i64>,
}
