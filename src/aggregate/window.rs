//! What one flush hands to the output: points, sketches, and (for an Agent) raw samples.
//!
//! Everything points at its [`Context`], which is stored once for as long as it lives, so a window of ten thousand points
//! copies no names and no tags.

use std::fmt;
use std::sync::Arc;

use super::{Aggregate, Percentile, Sketch};
pub use crate::statsd::Kind;

/// What a name may have of bytes; Datadog takes a few hundred.
pub(super) const MAX_NAME: usize = u16::MAX as usize;

/// Whose host a context belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Host<'a> {
    /// The sidecar's own host name, if there is one.
    #[default]
    Default,
    /// `host:` with an empty value: explicitly no host.
    None,
    Named(&'a str),
}

/// One time series' identity. There may be a hundred thousand of them, so it is one text with where it is cut: 40 bytes
/// with the two counts of its [`Arc`], and what it says.
#[derive(Clone, PartialEq, Eq)]
pub struct Context {
    /// Name, tags, and then the host's name or the origin: who has the one has no need of the other.
    text: Box<str>,
    tags_bytes: u32,
    name_bytes: u16,
    kind: Kind,
    host: HostIs,
}

/// What stands at the end of a context's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HostIs {
    /// And an origin at the end.
    Default,
    None,
    Named,
}

impl Context {
    /// `tags` are joined by commas. A name is cut at 64 KiB; the origin of a context that names its host is left out, because
    /// on the way to an Agent the host is a tag, and to the intake there is no origin.
    pub fn new(kind: Kind, name: &str, host: Host<'_>, tags: &str, origin: &str) -> Context {
        let name = &name[..name.floor_char_boundary(MAX_NAME)];
        let (host, end) = match host {
            Host::Default => (HostIs::Default, origin),
            Host::None => (HostIs::None, ""),
            Host::Named(host) => (HostIs::Named, host),
        };
        let text = [name, tags, end].concat().into();
        let name_bytes = u16::try_from(name.len()).expect("it was cut");
        let tags_bytes = u32::try_from(tags.len()).expect("all contexts together are bounded below 4 GiB");
        Context { text, tags_bytes, name_bytes, kind, host }
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn name(&self) -> &str {
        &self.text[..self.tags_from()]
    }

    pub fn host(&self) -> Host<'_> {
        match self.host {
            HostIs::Default => Host::Default,
            HostIs::None => Host::None,
            HostIs::Named => Host::Named(&self.text[self.end_from()..]),
        }
    }

    /// Deduplicated, in the order in which they first came.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.joined_tags().split(',').filter(|tag| !tag.is_empty())
    }

    /// The tags with commas between them.
    pub fn joined_tags(&self) -> &str {
        &self.text[self.tags_from()..self.end_from()]
    }

    /// `c:…|e:…|card:…` as the app sent them, joined by `|`; empty when absent and always empty in intake mode.
    pub fn origin(&self) -> &str {
        if self.host == HostIs::Default { &self.text[self.end_from()..] } else { "" }
    }

    /// The bytes of all it says.
    pub(super) fn text_bytes(&self) -> usize {
        self.text.len()
    }

    fn tags_from(&self) -> usize {
        usize::from(self.name_bytes)
    }

    fn end_from(&self) -> usize {
        self.tags_from() + self.tags_bytes as usize
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = (self.kind, self.name(), self.host(), self.joined_tags(), self.origin());
        write!(f, "Context{told:?}")
    }
}

/// What a histogram adds to its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Suffix {
    #[default]
    None,
    Aggregate(Aggregate),
    Percentile(Percentile),
}

impl Suffix {
    /// `""`, `.max`, `.95percentile`.
    pub fn text(self) -> &'static str {
        match self {
            Suffix::None => "",
            Suffix::Aggregate(aggregate) => aggregate.suffix(),
            Suffix::Percentile(percentile) => percentile.suffix(),
        }
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

/// One value of one series at one second: 32 bytes, of which a window may have several for each context.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    pub context: Arc<Context>,
    pub suffix: Suffix,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_says_what_it_was_made_of() {
        for (host, origin) in
            [(Host::Default, "c:x|e:y"), (Host::Default, ""), (Host::None, ""), (Host::Named("h"), "")]
        {
            for (name, tags) in [("jobs", "a:b,c"), ("jobs", ""), ("", "a"), ("é", "ü:ö")] {
                let context = Context::new(Kind::Timing, name, host, tags, origin);
                let told = (context.kind(), context.name(), context.host(), context.joined_tags(), context.origin());
                assert_eq!(told, (Kind::Timing, name, host, tags, origin));
                assert_eq!(context.tags().collect::<Vec<_>>().join(","), tags);
            }
        }
    }

    #[test]
    fn a_name_past_all_measure_is_cut_between_characters() {
        let context = Context::new(Kind::Gauge, &"é".repeat(40_000), Host::Named("h"), "a", "");
        assert_eq!((context.name().len(), context.joined_tags(), context.host()), (65_534, "a", Host::Named("h")));
    }

    #[test]
    fn what_there_is_most_of_stays_small() {
        assert_eq!((size_of::<Context>(), size_of::<Point>()), (24, 32));
    }
}
