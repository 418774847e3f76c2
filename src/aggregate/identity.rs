//! What makes two lines the same series: type, name, host, the set of tags, and, for an Agent, the origin.
//!
//! Built only when a line's raw bytes are not known yet. Tags are a set, but keep the order in which they first came.

use std::borrow::Cow;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;

use super::window::MAX_NAME;
use super::{Context, Host, Kind, Mode, Settings};
use crate::statsd::Line;

/// The tag of every overflow context.
const OVERFLOW_TAG: &str = "oomwatch_overflow:true";
/// Its value is the host of a metric, an event or a check, and no tag.
const HOST_KEY: &str = "host:";

#[derive(Debug)]
pub(super) struct Identity<'a> {
    kind: Kind,
    name: Cow<'a, str>,
    host: Host<'a>,
    tags: Vec<&'a str>,
    origin: String,
}

impl<'a> Identity<'a> {
    /// `name` is the line's own or what it was mapped to, `tags` its own and then those of the mapper. `None` where the
    /// settings leave the name out.
    pub(super) fn of_line(
        line: &Line<'_>,
        name: &'a str,
        tags: impl Iterator<Item = &'a str>,
        settings: &'a Settings,
    ) -> Option<Identity<'a>> {
        let name = with_namespace(&name[..name.floor_char_boundary(MAX_NAME)], settings);
        if settings.filter.drops(&name) {
            return None;
        }
        let filter = settings.filter.tags_of(&name);
        let mut host = Host::Default;
        let mut kept = Vec::new();
        for tag in tags.filter(|tag| !tag.is_empty()) {
            host = host_of(tag).unwrap_or(host);
            let stays =
                if is_special(tag) { settings.mode == Mode::Agent } else { filter.is_none_or(|list| list.keeps(tag)) };
            if stays {
                kept.push(tag);
            }
        }
        if settings.mode == Mode::Agent {
            // On the way to an Agent the host stays a tag.
            host = Host::Default;
        }
        deduplicate(&mut kept);
        add_missing(&mut kept, settings);
        let origin = if settings.mode == Mode::Agent { join_origin(line) } else { String::new() };
        Some(Identity { kind: line.kind, name, host, tags: kept, origin })
    }

    /// One of our own metrics: no namespace, the unified tags all the same.
    pub(super) fn own(kind: Kind, name: &'static str, tag: Option<&'a str>, settings: &'a Settings) -> Identity<'a> {
        let mut tags: Vec<&str> = tag.into_iter().collect();
        add_missing(&mut tags, settings);
        Identity { kind, name: Cow::Borrowed(name), host: Host::Default, tags, origin: String::new() }
    }

    /// Where the samples of a name go when there is no room for its contexts.
    pub(super) fn overflow(&self, settings: &'a Settings) -> Identity<'a> {
        let mut tags = vec![OVERFLOW_TAG];
        add_missing(&mut tags, settings);
        Identity { kind: self.kind, name: self.name.clone(), host: Host::Default, tags, origin: String::new() }
    }

    /// Where they go when there are too many names as well: one name a type, because a name has one type at the intake.
    pub(super) fn overflow_of_kind(&self, settings: &'a Settings) -> Identity<'a> {
        let name = match self.kind {
            Kind::Counter => "oomwatch.overflow.counter",
            Kind::Gauge => "oomwatch.overflow.gauge",
            Kind::Set => "oomwatch.overflow.set",
            Kind::Histogram => "oomwatch.overflow.histogram",
            Kind::Timing => "oomwatch.overflow.timing",
            Kind::Distribution => "oomwatch.overflow.distribution",
        };
        Identity { name: Cow::Borrowed(name), ..self.overflow(settings) }
    }

    /// The same for the same set of tags in any order.
    pub(super) fn hash(&self, hasher: &RandomState) -> u32 {
        let rest = hasher.hash_one((self.kind, &*self.name, &self.host, &self.origin));
        let whole = self.tags.iter().fold(rest, |hash, tag| hash.wrapping_add(hasher.hash_one(tag)));
        whole as u32
    }

    pub(super) fn is(&self, context: &Context) -> bool {
        self.kind == context.kind()
            && *self.name == *context.name()
            && self.host == context.host()
            && *self.origin == *context.origin()
            && same_set(self.tags.clone(), context.tags().collect())
    }

    pub(super) fn context(&self) -> Context {
        Context::new(self.kind, &self.name, self.host, &self.tags.join(","), &self.origin)
    }

    /// The bytes of its texts.
    pub(super) fn text_bytes(&self) -> usize {
        self.name.len() + self.origin.len() + self.tags.iter().map(|tag| tag.len() + 1).sum::<usize>()
    }
}

/// Tags of an event or a check, treated as those of a metric: special ones removed, unified ones added. `host` is what the
/// message itself said, which beats a `host:` tag.
pub(super) fn dress(tags: &mut Vec<String>, host: &mut Option<String>, settings: &Settings) {
    if settings.mode == Mode::Intake {
        let from_tag = tags.iter().rev().find_map(|tag| tag.strip_prefix(HOST_KEY)).map(str::to_owned);
        *host = host.take().or(from_tag);
        tags.retain(|tag| !is_special(tag));
    }
    let missing: Vec<String> =
        settings.tags.iter().filter(|tag| !tags.iter().any(|have| key(have) == key(tag))).cloned().collect();
    tags.extend(missing);
}

/// Whether a tag speaks to the server and is no tag of the series.
fn is_special(tag: &str) -> bool {
    tag.starts_with(HOST_KEY) || tag.starts_with("dd.internal.")
}

fn host_of(tag: &str) -> Option<Host<'_>> {
    let name = tag.strip_prefix(HOST_KEY)?;
    Some(if name.is_empty() { Host::None } else { Host::Named(name) })
}

fn add_missing<'a>(tags: &mut Vec<&'a str>, settings: &'a Settings) {
    for tag in &settings.tags {
        if !tags.iter().any(|have| key(have) == key(tag)) {
            tags.push(tag);
        }
    }
}

fn key(tag: &str) -> &str {
    tag.split_once(':').map_or(tag, |(key, _)| key)
}

/// Keeps the first of equal tags. By sorting, because a datagram can hold thousands of them.
fn deduplicate(tags: &mut Vec<&str>) {
    if tags.len() < 2 {
        return;
    }
    let mut placed: Vec<(&str, usize)> = tags.iter().copied().zip(0..).collect();
    placed.sort_unstable();
    placed.dedup_by_key(|(tag, _)| *tag);
    if placed.len() < tags.len() {
        placed.sort_unstable_by_key(|(_, place)| *place);
        *tags = placed.into_iter().map(|(tag, _)| tag).collect();
    }
}

fn same_set(mut left: Vec<&str>, mut right: Vec<&str>) -> bool {
    if left.len() != right.len() {
        return false;
    }
    left.sort_unstable();
    right.sort_unstable();
    left == right
}

fn with_namespace<'a>(name: &'a str, settings: &Settings) -> Cow<'a, str> {
    let exempt = || settings.namespace_exempt.iter().any(|prefix| name.starts_with(prefix.as_str()));
    if settings.namespace.is_empty() || exempt() {
        return Cow::Borrowed(name);
    }
    Cow::Owned(format!("{}.{name}", settings.namespace.trim_end_matches('.')))
}

fn join_origin(line: &Line<'_>) -> String {
    let present: Vec<Cow<'_, str>> = [line.local, line.external, line.cardinality]
        .into_iter()
        .filter(|field| !field.is_empty())
        .map(String::from_utf8_lossy)
        .collect();
    present.join("|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equal_tags_keeps_its_place() {
        let mut tags = vec!["y", "x", "y", "a", "x"];
        deduplicate(&mut tags);
        assert_eq!(tags, ["y", "x", "a"]);
    }

    #[test]
    fn events_are_dressed_like_metrics() {
        let settings = Settings { tags: vec!["env:prod".into(), "service:s".into()], ..Settings::default() };
        let mut tags = vec!["host:h1".to_owned(), "env:dev".to_owned(), "dd.internal.card:low".to_owned()];
        let mut host = None;
        dress(&mut tags, &mut host, &settings);
        assert_eq!((tags, host.as_deref()), (vec!["env:dev".to_owned(), "service:s".to_owned()], Some("h1")));
        let mut own = Some("own".to_owned());
        dress(&mut vec!["host:h1".to_owned()], &mut own, &settings);
        assert_eq!(own.as_deref(), Some("own"));
    }
}
