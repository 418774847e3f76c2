//! Readings become alerts: trend, time to limit, the life of an alert. Pure: numbers in, values out.
//!
//! [`Detectors`] is the door: it owns one rule for each thing that may grow. `growth` is the memory rule, `clients` and
//! `count` are what piles up; below them lie `scale` (one time scale of one signal), `recent` (the last 20 s) and
//! `standing` (the life of an alert). `excuse` says when growth is held at a notice: by what is read `beside` memory (live heap,
//! `load`) or because earlier lives stood there (`plateau`). `freeze` and `churn` tell what is no growth. The defaults of
//! [`Settings`] are scored on the traces of `tests/traces`.

mod beside;
mod burst;
mod churn;
mod clients;
mod count;
mod detectors;
mod excuse;
#[cfg(test)]
mod excuses;
mod facts;
mod freeze;
mod growth;
mod level;
mod load;
mod plateau;
#[cfg(test)]
mod promises;
mod reading;
mod recent;
mod saved;
mod scale;
mod settings;
mod standing;
mod statistics;
#[cfg(test)]
mod stories;
mod words;

pub use detectors::{Detectors, Outlook, State};
pub use plateau::Plateaus;
pub use reading::{Alert, AlertKind, Change, Detector, Reading, Severity};
pub use saved::{Saved, SavedLife};
pub use settings::Settings;
