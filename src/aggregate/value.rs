//! What a context holds of the open window: one shape a type, and how it leaves.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashSet;

use super::histogram::{Histogram, SAMPLE_BYTES, Summary};
use super::sketch::Filling;
use super::sum::Sum;
use super::{
    Aggregate, Context, Counters, Form, Kind, Mode, Point, RawSamples, Reason, Settings, SketchPoint, Suffix, Window,
};

/// A set member costs its text, its pointer and its place in the table.
const MEMBER_BYTES: usize = 32;
/// A pack of raw samples: rate, string, and room to grow.
const PACK_BYTES: usize = 64;
/// Packs that are looked through for a sample's rate. An app uses one or two rates a metric; one that uses a thousand must
/// not make every sample look through a thousand packs.
const OPEN_PACKS: usize = 8;

/// One sample of a line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample<'a> {
    /// Finite; 0 for a set.
    pub(super) number: f64,
    /// The number as the app wrote it, or the set's member.
    pub(super) text: &'a [u8],
    /// In (0, 1].
    pub(super) rate: f64,
}

/// Boxed where it is large: three contexts out of four are counters and gauges.
#[derive(Debug)]
pub(super) enum Value {
    Counter {
        sum: Sum,
        seen: bool,
    },
    Gauge(Option<f64>),
    Set(Box<Members>),
    Histogram(Box<Histogram>),
    Sketch(Box<Filling>),
    /// Agent mode.
    Raw(Box<Packs>),
}

#[derive(Debug, Default)]
pub(super) struct Members {
    texts: HashSet<Box<[u8]>, RandomState>,
    /// Agent mode: the members themselves go out.
    raw: bool,
    bytes: usize,
}

/// Samples as they came, one pack a sample rate.
#[derive(Debug, Default)]
pub(super) struct Packs {
    packs: Vec<(f64, String)>,
    bytes: usize,
}

/// When and how a window closes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closing<'a> {
    pub(super) stamp: i64,
    /// An idle counter says 0.
    pub(super) zero: bool,
    /// One of our own: a count is a count, whatever the app's counters are.
    pub(super) own: bool,
    pub(super) settings: &'a Settings,
}

impl Value {
    pub(super) fn new(kind: Kind, mode: Mode) -> Value {
        match (kind, mode) {
            (Kind::Counter, _) => Value::Counter { sum: Sum::default(), seen: false },
            (Kind::Gauge, _) => Value::Gauge(None),
            (Kind::Set, _) => Value::Set(Box::new(Members { raw: mode == Mode::Agent, ..Members::default() })),
            (_, Mode::Agent) => Value::Raw(Box::default()),
            (Kind::Histogram | Kind::Timing, Mode::Intake) => Value::Histogram(Box::default()),
            (Kind::Distribution, Mode::Intake) => Value::Sketch(Box::default()),
        }
    }

    /// Adds one sample if it costs no more than `room` bytes.
    pub(super) fn add(&mut self, sample: Sample<'_>, room: usize) -> Result<(), Reason> {
        match self {
            Value::Counter { sum, seen } => {
                *sum = sum.plus(sample.number / sample.rate).ok_or(Reason::Nan)?;
                *seen = true;
                Ok(())
            }
            Value::Gauge(last) => {
                *last = Some(sample.number);
                Ok(())
            }
            Value::Set(members) => members.add(sample.text, room),
            Value::Histogram(_) if room < SAMPLE_BYTES => Err(Reason::Memory),
            Value::Histogram(histogram) => finite(histogram.add(sample.number, 1.0 / sample.rate)),
            Value::Sketch(_) if room < Filling::cost(sample.rate) => Err(Reason::Memory),
            Value::Sketch(sketch) => sketch.add(sample.number, sample.rate),
            Value::Raw(packs) => packs.add(sample, room),
        }
    }

    /// What the samples of the open window cost.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Value::Counter { .. } | Value::Gauge(_) => 0,
            Value::Set(members) => members.bytes,
            Value::Raw(packs) => packs.bytes,
            Value::Histogram(histogram) => histogram.bytes(),
            Value::Sketch(sketch) => sketch.bytes(),
        }
    }

    /// Hands out what the window held and starts the next one empty.
    pub(super) fn close(&mut self, context: &Arc<Context>, closing: Closing<'_>, out: &mut Window) {
        match self {
            Value::Counter { sum, seen } => {
                if *seen || closing.zero {
                    out.points.push(count_point(context, Suffix::None, sum.value(), closing));
                }
                (*sum, *seen) = (Sum::default(), false);
            }
            Value::Gauge(last) => {
                out.points.extend(last.take().map(|value| gauge_point(context, Suffix::None, value, closing)));
            }
            Value::Set(members) => {
                let texts = members.take();
                if members.raw {
                    out.raw.extend(texts.into_iter().map(|member| raw_samples(context, 1.0, &member)));
                } else if !texts.is_empty() {
                    out.points.push(gauge_point(context, Suffix::None, texts.len() as f64, closing));
                }
            }
            Value::Histogram(histogram) => {
                if let Some(summary) = histogram.take() {
                    close_histogram(context, &summary, closing, out);
                }
            }
            Value::Sketch(sketch) => {
                let closed = sketch.take();
                out.sketches.extend(closed.map(|sketch| SketchPoint {
                    context: Arc::clone(context),
                    timestamp: closing.stamp,
                    sketch,
                }));
            }
            Value::Raw(packs) => {
                let packs = std::mem::take(&mut **packs).packs;
                out.raw.extend(packs.into_iter().map(|(rate, values)| RawSamples {
                    context: Arc::clone(context),
                    sample_rate: rate,
                    values: values.into(),
                }));
            }
        }
    }
}

fn finite(added: bool) -> Result<(), Reason> {
    if added { Ok(()) } else { Err(Reason::Nan) }
}

impl Members {
    fn add(&mut self, member: &[u8], room: usize) -> Result<(), Reason> {
        if self.texts.contains(member) {
            return Ok(());
        }
        let cost = member.len() + MEMBER_BYTES;
        if cost > room {
            return Err(Reason::Memory);
        }
        self.texts.insert(member.into());
        self.bytes += cost;
        Ok(())
    }

    fn take(&mut self) -> HashSet<Box<[u8]>, RandomState> {
        self.bytes = 0;
        std::mem::take(&mut self.texts)
    }
}

impl Packs {
    fn add(&mut self, sample: Sample<'_>, room: usize) -> Result<(), Reason> {
        let text = String::from_utf8_lossy(sample.text);
        let open = self.packs.iter_mut().rev().take(OPEN_PACKS).find(|(rate, _)| *rate == sample.rate);
        let cost = text.len() + if open.is_some() { 1 } else { PACK_BYTES };
        if cost > room {
            return Err(Reason::Memory);
        }
        self.bytes += cost;
        match open {
            Some((_, values)) => {
                values.push(':');
                values.push_str(&text);
            }
            None => self.packs.push((sample.rate, text.into_owned())),
        }
        Ok(())
    }
}

fn close_histogram(context: &Arc<Context>, summary: &Summary, closing: Closing<'_>, out: &mut Window) {
    for aggregate in &closing.settings.histogram_aggregates {
        let suffix = Suffix::Aggregate(*aggregate);
        let value = match aggregate {
            Aggregate::Count => {
                out.points.push(count_point(context, suffix, summary.count, closing));
                continue;
            }
            Aggregate::Min => summary.min(),
            Aggregate::Max => summary.max(),
            Aggregate::Median => summary.median(),
            Aggregate::Avg => summary.avg(),
            Aggregate::Sum => summary.sum,
        };
        out.points.push(gauge_point(context, suffix, value, closing));
    }
    for percentile in &closing.settings.histogram_percentiles {
        let value = summary.percentile(percentile.percent());
        out.points.push(gauge_point(context, Suffix::Percentile(*percentile), value, closing));
    }
}

fn gauge_point(context: &Arc<Context>, suffix: Suffix, value: f64, closing: Closing<'_>) -> Point {
    Point {
        context: Arc::clone(context),
        suffix,
        form: Form::Gauge,
        value,
        timestamp: closing.stamp,
        interval_seconds: closing.settings.interval_seconds,
    }
}

fn count_point(context: &Arc<Context>, suffix: Suffix, sum: f64, closing: Closing<'_>) -> Point {
    let (form, value) = sum_form(sum, closing.own, closing.settings);
    Point { form, value, ..gauge_point(context, suffix, 0.0, closing) }
}

/// A sum in the form in which it goes out.
pub(super) fn sum_form(sum: f64, own: bool, settings: &Settings) -> (Form, f64) {
    if own || settings.mode == Mode::Agent || settings.counters == Counters::Count {
        (Form::Count, sum)
    } else {
        (Form::Rate, sum / f64::from(settings.interval_seconds))
    }
}

fn raw_samples(context: &Arc<Context>, sample_rate: f64, values: &[u8]) -> RawSamples {
    RawSamples { context: Arc::clone(context), sample_rate, values: String::from_utf8_lossy(values).into() }
}
