//! Contexts, windows, sketches: `record(now, line)` on the hot path, `flush(now)` on the tick. Pure.

mod sketch;
mod window;

pub use sketch::{Bin, Sketch};
pub use window::{Context, Form, Host, Kind, Point, RawSamples, SketchPoint, Window};
