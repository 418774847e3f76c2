//! Readings become alerts: trend, time to limit, the life of an alert. Pure: numbers in, values out.

mod reading;

pub use reading::{Alert, AlertKind, Change, Detector, Reading, Severity};
