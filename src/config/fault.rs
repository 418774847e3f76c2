//! One thing wrong with the settings, told with its place.

use std::fmt;

use serde::Serialize;

/// Shown as `source: message`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// `section.key`, or `""` when no one key is at fault.
    pub key: String,
    /// `file:line`, the name of a variable, or `default`.
    pub source: String,
    /// What is wrong and what would be accepted.
    pub message: String,
}

impl Fault {
    pub(super) fn new(key: impl Into<String>, source: impl Into<String>, message: impl Into<String>) -> Fault {
        Fault { key: key.into(), source: source.into(), message: message.into() }
    }

    /// Lines of the file first, as numbers, then variables and defaults by name.
    pub(super) fn order(&self) -> (usize, String) {
        let line = self.source.rsplit_once(':').and_then(|(_, line)| line.parse().ok());
        (line.unwrap_or(usize::MAX), self.source.clone())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source, self.message)
    }
}
