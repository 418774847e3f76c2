//! Running totals of what came in and what became of it, and the identities that tie them together.
//!
//! Each total is added to where its thing happens, never derived from another, so that a forgotten count shows as an
//! identity that is off.

use crate::statsd::ParseError;

/// Why something was lost on its way through the aggregator. The labels are those of `oomwatch.dropped`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub enum Reason {
    /// Lines.
    ParseName,
    ParseValue,
    ParseType,
    ParseRate,
    ParseTimestamp,
    ParseEvent,
    ParseCheck,
    /// Samples that are no finite number, or would make their sum one that is not.
    Nan,
    /// Samples whose rate is outside (0, 1], or so small that one sample would stand for hundreds of millions.
    Rate,
    /// Samples with a `T` that Datadog would not take, or on a type that cannot carry one.
    Timestamp,
    /// Samples that did not fit into `max_bytes`.
    Memory,
    /// Samples of a name that the settings leave out.
    Filtered,
    /// Copies of histogram samples that found no room in their distribution; they are not counted as samples.
    Copy,
    /// Points of a histogram whose suffixed name the settings leave out; they are not counted as flushed.
    FilteredPoints,
    /// Cut last lines of datagrams longer than `max_datagram`; they are not counted as lines.
    Truncated,
}

impl Reason {
    pub const ALL: [Reason; 15] = [
        Reason::ParseName,
        Reason::ParseValue,
        Reason::ParseType,
        Reason::ParseRate,
        Reason::ParseTimestamp,
        Reason::ParseEvent,
        Reason::ParseCheck,
        Reason::Nan,
        Reason::Rate,
        Reason::Timestamp,
        Reason::Memory,
        Reason::Filtered,
        Reason::Copy,
        Reason::FilteredPoints,
        Reason::Truncated,
    ];

    pub fn label(self) -> &'static str {
        match self {
            Reason::ParseName => ParseError::Name.reason(),
            Reason::ParseValue => ParseError::Value.reason(),
            Reason::ParseType => ParseError::Type.reason(),
            Reason::ParseRate => ParseError::Rate.reason(),
            Reason::ParseTimestamp => ParseError::Timestamp.reason(),
            Reason::ParseEvent => ParseError::Event.reason(),
            Reason::ParseCheck => ParseError::Check.reason(),
            Reason::Nan => "nan",
            Reason::Rate => "rate",
            Reason::Timestamp => "timestamp",
            Reason::Memory => "memory",
            Reason::Filtered => "filtered",
            Reason::Copy => "copy",
            Reason::FilteredPoints => "filtered_points",
            Reason::Truncated => "truncated",
        }
    }

    fn is_parse(self) -> bool {
        self < Reason::Nan
    }

    fn is_sample(self) -> bool {
        matches!(self, Reason::Nan | Reason::Rate | Reason::Timestamp | Reason::Memory | Reason::Filtered)
    }
}

impl From<ParseError> for Reason {
    fn from(error: ParseError) -> Reason {
        match error {
            ParseError::Name => Reason::ParseName,
            ParseError::Value => Reason::ParseValue,
            ParseError::Type => Reason::ParseType,
            ParseError::Rate => Reason::ParseRate,
            ParseError::Timestamp => Reason::ParseTimestamp,
            ParseError::Event => Reason::ParseEvent,
            ParseError::Check => Reason::ParseCheck,
        }
    }
}

/// Totals since the start. Our own metrics are in `contexts`, `bytes` and `points_flushed` only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub lines: u64,
    /// Lines that were metrics.
    pub metrics: u64,
    /// Values: each of a packed line counts.
    pub samples: u64,
    pub events: u64,
    pub checks: u64,
    pub blank: u64,
    pub aggregated: u64,
    /// Samples folded into an overflow context.
    pub overflowed: u64,
    /// Contexts held now, overflow contexts and our own included.
    pub contexts: u64,
    /// Bytes charged to contexts and their values now.
    pub bytes: u64,
    /// Points, sketches and raw packs handed out by flushes.
    pub points_flushed: u64,
    pub(super) dropped: [u64; Reason::ALL.len()],
}

impl Stats {
    pub fn dropped(&self, reason: Reason) -> u64 {
        self.dropped[reason as usize]
    }

    pub(super) fn drop(&mut self, reason: Reason, count: u64) {
        self.dropped[reason as usize] += count;
    }

    fn sum(&self, of: fn(Reason) -> bool) -> u64 {
        Reason::ALL.into_iter().filter(|reason| of(*reason)).map(|reason| self.dropped(reason)).sum()
    }

    /// I2, right side minus left: lines = metrics + events + checks + blank + dropped{parse_*}.
    pub fn line_error(&self) -> i64 {
        let right = self.metrics + self.events + self.checks + self.blank + self.sum(Reason::is_parse);
        right.wrapping_sub(self.lines) as i64
    }

    /// I3, right side minus left: samples = aggregated + overflowed + dropped{nan|rate|timestamp|memory|filtered}.
    pub fn sample_error(&self) -> i64 {
        let right = self.aggregated + self.overflowed + self.sum(Reason::is_sample);
        right.wrapping_sub(self.samples) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_stand_at_their_own_index_with_labels_of_their_own() {
        let mut labels: Vec<_> = Reason::ALL.iter().map(|reason| reason.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), Reason::ALL.len());
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
    }

    #[test]
    fn a_forgotten_count_shows() {
        let mut stats = Stats { lines: 3, metrics: 2, samples: 5, aggregated: 3, overflowed: 1, ..Stats::default() };
        assert_eq!((stats.line_error(), stats.sample_error()), (-1, -1));
        stats.drop(Reason::ParseType, 1);
        stats.drop(Reason::Nan, 1);
        stats.drop(Reason::Truncated, 1);
        assert_eq!((stats.line_error(), stats.sample_error()), (0, 0));
    }
}
