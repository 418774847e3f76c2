//! What Datadog's intake accepts, checked before anything is sent: one bad point must not cost the payload it stands in.
//!
//! A point that breaks a rule is refused under a reason. Tags that are too long or too many are cut, as the intake would cut
//! them, and the point goes out.

use crate::aggregate::Context;

/// Characters of a metric name with its suffix (docs.datadoghq.com/metrics/custom_metrics).
pub const MAX_NAME: usize = 200;
/// Bytes of it: a name in other letters than ASCII reaches this limit first (saluki's test intake, `test/antithesis/intake`).
pub const MAX_NAME_BYTES: usize = 350;
/// Bytes of a host's name (docs.datadoghq.com: the limit of an event's host).
pub const MAX_HOST: usize = 255;
/// Bytes of a tag (saluki's test intake, `test/antithesis/intake`).
pub const MAX_TAG: usize = 200;
/// Tags of a series (as above).
pub const MAX_TAGS: usize = 100;
/// Seconds that a point may lie ahead of the intake's clock.
pub const MAX_AHEAD: i64 = 600;
/// Seconds that a point may lie behind it, unless historical ingestion is on.
pub const MAX_BEHIND: i64 = 3_600;

/// Why a point is not sent. The labels are those of `oomwatch.dropped`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refused {
    /// Empty, without a letter, or longer than [`MAX_NAME`] or [`MAX_NAME_BYTES`].
    Name,
    /// Not a number, or infinite.
    Value,
    /// More than [`MAX_AHEAD`] in the future.
    Ahead,
    /// Older than the intake takes.
    TooOld,
    /// One item alone passes the size limit of a payload.
    TooLarge,
}

impl Refused {
    pub fn label(self) -> &'static str {
        match self {
            Refused::Name => "encode_name",
            Refused::Value => "encode_value",
            Refused::Ahead => "encode_ahead",
            Refused::TooOld => "too_old",
            Refused::TooLarge => "encode_too_large",
        }
    }
}

/// The window of time that the intake accepts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Accepted {
    /// Unix seconds.
    pub now: i64,
    pub historical: bool,
}

impl Accepted {
    pub fn time(self, timestamp: i64) -> Result<(), Refused> {
        if timestamp > self.now.saturating_add(MAX_AHEAD) {
            return Err(Refused::Ahead);
        }
        if !self.historical && timestamp < self.now.saturating_sub(MAX_BEHIND) {
            return Err(Refused::TooOld);
        }
        Ok(())
    }
}

/// The full name, if Datadog would take it.
pub(super) fn name(context: &Context, suffix: &str) -> Result<String, Refused> {
    let name = format!("{}{suffix}", context.name());
    let lettered = name.bytes().any(|byte| byte.is_ascii_alphabetic());
    let short = name.len() <= MAX_NAME_BYTES && name.chars().count() <= MAX_NAME;
    if lettered && short { Ok(name) } else { Err(Refused::Name) }
}

pub(super) fn finite(values: &[f64]) -> Result<(), Refused> {
    if values.iter().all(|value| value.is_finite()) { Ok(()) } else { Err(Refused::Value) }
}

/// The tags as they go out, and whether any had to be cut.
pub(super) fn tags<'a>(tags: impl Iterator<Item = &'a str>) -> (Vec<String>, bool) {
    let mut cut = false;
    let mut out = Vec::new();
    for tag in tags {
        if out.len() == MAX_TAGS {
            return (out, true);
        }
        let kept = prefix(tag, MAX_TAG);
        cut |= kept.len() < tag.len();
        out.push(kept.to_owned());
    }
    (out, cut)
}

/// The longest prefix of at most `limit` bytes that ends between two characters.
pub(super) fn prefix(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Context {
        Context::new(crate::aggregate::Kind::Gauge, name, crate::aggregate::Host::Default, "", "")
    }

    #[test]
    fn a_name_needs_a_letter_and_at_most_200_characters_with_its_suffix() {
        assert_eq!(name(&named("jobs"), ".max"), Ok("jobs.max".to_owned()));
        assert_eq!(name(&named(&"a".repeat(196)), ".max").map(|name| name.len()), Ok(200));
        assert_eq!(name(&named(&"a".repeat(197)), ".max"), Err(Refused::Name));
        assert_eq!(name(&named(&format!("a{}", "é".repeat(174))), "").map(|name| name.len()), Ok(349));
        assert_eq!(name(&named(&format!("a{}", "é".repeat(175))), ""), Err(Refused::Name));
        assert_eq!(name(&named("1.2"), ""), Err(Refused::Name));
        assert_eq!(name(&named(""), ""), Err(Refused::Name));
    }

    #[test]
    fn time_is_accepted_from_an_hour_behind_to_ten_minutes_ahead() {
        let now = Accepted { now: 10_000, historical: false };
        assert_eq!(now.time(10_600), Ok(()));
        assert_eq!(now.time(10_601), Err(Refused::Ahead));
        assert_eq!(now.time(6_400), Ok(()));
        assert_eq!(now.time(6_399), Err(Refused::TooOld));
        assert_eq!(now.time(i64::MIN), Err(Refused::TooOld));
        assert_eq!(Accepted { historical: true, ..now }.time(i64::MIN), Ok(()));
        assert_eq!(Accepted { historical: true, ..now }.time(i64::MAX), Err(Refused::Ahead));
    }

    #[test]
    fn tags_are_cut_at_200_bytes_on_a_character_and_at_a_hundred() {
        let long = format!("k:{}", "é".repeat(150));
        let (out, cut) = tags(["a:b", &long].into_iter());
        assert!(cut);
        assert_eq!(out[0], "a:b");
        assert_eq!(out[1], format!("k:{}", "é".repeat(99)));
        let many: Vec<String> = (0..101).map(|n| format!("t:{n}")).collect();
        assert_eq!(tags(many.iter().map(String::as_str)).0.len(), 100);
        assert!(tags(many.iter().map(String::as_str)).1);
        assert!(!tags(many.iter().take(100).map(String::as_str)).1);
    }

    #[test]
    fn nothing_but_finite_numbers_passes() {
        assert_eq!(finite(&[0.0, -1.5, f64::MAX]), Ok(()));
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(finite(&[1.0, bad]), Err(Refused::Value));
        }
    }
}
