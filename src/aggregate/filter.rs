//! Which metrics and which tags are left out: the Agent's `metric_filterlist` and `metric_tag_filterlist`.
//!
//! Asked when a context is created, with the name as it leaves: mapped, and with its namespace. Contexts that are equal
//! without the tags that go are one context from the start, so nothing has to be merged later.

use std::collections::BTreeMap;

use super::{Aggregate, Percentile};

/// What is left out. The default leaves everything in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    names: Names,
    /// The entries that end in what a histogram adds to its name: asked again for each of its series.
    suffixed: Names,
    tags: BTreeMap<String, TagList>,
}

/// One entry about the tags of a metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagRule {
    pub metric: String,
    pub action: TagAction,
    /// Keys: `queue` stands for `queue` and for `queue:…`.
    pub tags: Vec<String>,
}

/// Whether the tags named are those that stay or those that go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagAction {
    Include,
    Exclude,
}

/// All entries about the tags of one metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TagList {
    action: TagAction,
    tags: Vec<String>,
}

/// Names, or prefixes of names, sorted; none is the prefix of another where they are prefixes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Names {
    sorted: Vec<String>,
    prefixes: bool,
}

impl Filter {
    /// `aggregates` and `percentiles` are what histograms tell: they decide which names end in a histogram's suffix.
    pub fn new(
        names: &[String],
        prefixes: bool,
        tags: impl IntoIterator<Item = TagRule>,
        aggregates: &[Aggregate],
        percentiles: &[Percentile],
    ) -> Filter {
        let suffixes = || aggregates.iter().map(|it| it.suffix()).chain(percentiles.iter().map(|it| it.suffix()));
        let suffixed = names.iter().filter(|name| suffixes().any(|suffix| name.ends_with(suffix)));
        Filter {
            suffixed: Names::new(suffixed, prefixes),
            names: Names::new(names.iter(), prefixes),
            tags: merge(tags),
        }
    }

    pub(super) fn drops(&self, name: &str) -> bool {
        self.names.hold(name)
    }

    /// Whether a series of a histogram is left out; `suffix` is what the histogram adds to its name.
    pub(super) fn drops_series(&self, name: &str, suffix: &str) -> bool {
        !suffix.is_empty() && self.suffixed.hold(&format!("{name}{suffix}"))
    }

    /// Whether [`Filter::drops_series`] can ever say yes.
    pub(super) fn looks_at_series(&self) -> bool {
        !self.suffixed.sorted.is_empty()
    }

    pub(super) fn tags_of(&self, name: &str) -> Option<&TagList> {
        self.tags.get(name)
    }
}

/// Entries with the same action add up; where a metric has both, those that exclude beat those that include.
fn merge(rules: impl IntoIterator<Item = TagRule>) -> BTreeMap<String, TagList> {
    let mut lists: BTreeMap<String, TagList> = BTreeMap::new();
    for TagRule { metric, action, tags } in rules {
        match lists.get_mut(&metric) {
            Some(list) if list.action == action => list.tags.extend(tags),
            Some(list) if action == TagAction::Include && list.action == TagAction::Exclude => {}
            _ => drop(lists.insert(metric, TagList { action, tags })),
        }
    }
    lists
}

impl TagList {
    pub(super) fn keeps(&self, tag: &str) -> bool {
        let key = tag.split_once(':').map_or(tag, |(key, _)| key);
        self.tags.iter().any(|named| named == key) == (self.action == TagAction::Include)
    }
}

impl Names {
    fn new<'a>(names: impl Iterator<Item = &'a String>, prefixes: bool) -> Names {
        let mut sorted: Vec<String> = names.filter(|name| !name.is_empty()).cloned().collect();
        sorted.sort_unstable();
        sorted.dedup_by(|next, kept| next == kept || prefixes && next.starts_with(&**kept));
        Names { sorted, prefixes }
    }

    /// What could hold `name` is the last entry that does not come after it.
    fn hold(&self, name: &str) -> bool {
        let after = self.sorted.partition_point(|entry| entry.as_str() <= name);
        let last = after.checked_sub(1).map(|at| self.sorted[at].as_str());
        last.is_some_and(|entry| entry == name || self.prefixes && name.starts_with(entry))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(list: &[&str], prefixes: bool) -> Filter {
        let list: Vec<String> = list.iter().map(|name| (*name).to_owned()).collect();
        let percentiles: Vec<_> = Percentile::from_fraction(0.95).into_iter().collect();
        Filter::new(&list, prefixes, [], &[Aggregate::Max, Aggregate::Avg], &percentiles)
    }

    #[test]
    fn whole_names_are_dropped_and_prefixes_where_asked() {
        let filter = names(&["b", "a.b"], false);
        for (name, dropped) in [("a.b", true), ("b", true), ("a.b.c", false), ("a", false), ("c", false)] {
            assert_eq!(filter.drops(name), dropped, "{name}");
        }
        let filter = names(&["a.b", "a.b.c", "", "z"], true);
        for (name, dropped) in
            [("a.b", true), ("a.b.d", true), ("a.bc", true), ("a.", false), ("y", false), ("zz", true)]
        {
            assert_eq!(filter.drops(name), dropped, "{name}");
        }
    }

    #[test]
    fn only_entries_with_a_suffix_look_at_the_series_of_a_histogram() {
        let filter = names(&["q.max", "q.95percentile", "q.min", "other"], false);
        for (suffix, dropped) in
            [(".max", true), (".95percentile", true), (".min", false), (".avg", false), ("", false)]
        {
            assert_eq!(filter.drops_series("q", suffix), dropped, "{suffix}");
        }
        assert!(filter.looks_at_series() && !names(&["q.m", "q"], true).looks_at_series());
    }

    fn check_tags(rules: &[(TagAction, &[&str])], kept: &[&str]) {
        let rules = rules.iter().map(|(action, tags)| TagRule {
            metric: "a".to_owned(),
            action: *action,
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        });
        let filter = Filter::new(&[], false, rules, &[], &[]);
        let list = filter.tags_of("a").expect("the metric is named");
        let found: Vec<&str> = ["x:1", "y", "z:2:3"].into_iter().filter(|tag| list.keeps(tag)).collect();
        assert_eq!(found, kept);
        assert!(filter.tags_of("b").is_none());
    }

    #[test]
    fn the_same_action_adds_up_and_exclude_beats_include() {
        use TagAction::{Exclude, Include};
        check_tags(&[(Include, &["x"])], &["x:1"]);
        check_tags(&[(Include, &["x"]), (Include, &["y"])], &["x:1", "y"]);
        check_tags(&[(Exclude, &["x", "z"])], &["y"]);
        check_tags(&[(Include, &["x"]), (Exclude, &["y"])], &["x:1", "z:2:3"]);
        check_tags(&[(Exclude, &["y"]), (Include, &["x"]), (Exclude, &["x"])], &["z:2:3"]);
        check_tags(&[(Include, &[])], &[]);
    }

    proptest! {
        #[test]
        fn a_prefix_is_found_wherever_it_stands(list in proptest::collection::vec("[ab]{1,3}", 0..6), name in "[ab]{0,5}") {
            let list: Vec<&str> = list.iter().map(String::as_str).collect();
            prop_assert_eq!(names(&list, true).drops(&name), list.iter().any(|entry| name.starts_with(entry)));
            prop_assert_eq!(names(&list, false).drops(&name), list.contains(&name.as_str()));
        }
    }
}
