//! Contexts, windows, sketches: `record(now, line)` on the hot path, `flush(now)` on the tick. Pure.

mod aggregator;
mod contexts;
mod filter;
mod histogram;
mod identity;
mod lines;
mod mapper;
mod settings;
mod sketch;
mod spelling;
mod stats;
mod sum;
mod value;
mod window;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod model;

pub use aggregator::{Aggregator, Recorded, Taken, TopName, points_in};
pub use filter::{Filter, TagAction, TagRule};
pub use lines::{write_point, write_raw};
pub use mapper::{Mapper, Profile, Rule};
pub use settings::{Aggregate, Counters, Mode, Percentile, Settings};
pub use sketch::{Bin, Sketch};
pub use stats::{Reason, Stats};
pub use window::{Context, Form, Host, Kind, Point, RawSamples, SketchPoint, Suffix, Window};
