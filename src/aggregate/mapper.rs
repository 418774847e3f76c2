//! Dotted names become names with tags: the Agent's mapper profiles (`dogstatsd_mapper_profiles`).
//!
//! Asked once for each new spelling of a context, never for a known line: the raw-line lookup of `contexts` is the cache that
//! the Agent keeps apart. The first profile whose prefix fits decides, even where none of its rules does.

use regex_lite::{Captures, Regex};

/// The profiles, in the order in which they are asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mapper {
    pub profiles: Vec<Profile>,
}

/// Rules for the names that begin with `prefix`; `*` fits every name.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    pub prefix: String,
    /// The first that matches wins.
    pub rules: Vec<Rule>,
}

/// One rule: what it matches, and what the name and the tags become (`$1` stands for the first part that was matched).
#[derive(Clone, Debug)]
pub struct Rule {
    pattern: Regex,
    name: String,
    tags: Vec<(String, String)>,
}

impl PartialEq for Rule {
    fn eq(&self, other: &Rule) -> bool {
        (self.pattern.as_str(), &self.name, &self.tags) == (other.pattern.as_str(), &other.name, &other.tags)
    }
}

/// What a name was mapped to. The tags are joined by commas.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mapped {
    pub(super) name: String,
    pub(super) tags: String,
}

type Tags<'a> = &'a mut dyn Iterator<Item = (&'a String, &'a String)>;

impl Rule {
    /// A rule whose `*` each stand for one part of the name without a dot.
    ///
    /// # Errors
    /// What would be expected in place of what is wrong.
    pub fn wildcard(pattern: &str, name: &str, tags: Tags<'_>) -> Result<Rule, String> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_*.".contains(&byte);
        if pattern.is_empty() || !pattern.bytes().all(allowed) || pattern.contains("**") {
            return Err(format!(
                "match = {pattern:?}: expected letters, digits, - _ . and *, never two * in a row, such as \"job.*.done\"; \
                 anything else needs match_type = \"regex\""
            ));
        }
        Rule::regex(&pattern.replace('.', "\\.").replace('*', "([^.]*)"), name, tags)
    }

    /// A rule whose regular expression matches from the beginning of the name to its end.
    ///
    /// # Errors
    /// As [`Rule::wildcard`].
    pub fn regex(pattern: &str, name: &str, tags: Tags<'_>) -> Result<Rule, String> {
        let compiled = Regex::new(&format!("^{pattern}$")).ok().filter(|_| !pattern.is_empty());
        let pattern = compiled.ok_or_else(|| {
            format!("match = {pattern:?}: expected a regular expression, such as \"job\\\\.([a-z]+)\\\\.done\"")
        })?;
        if name.is_empty() || name.contains([':', '|', '\n']) {
            return Err(format!("name = {name:?}: expected a metric name, such as \"job.done\" or \"job.$1\""));
        }
        let tags: Vec<_> = tags.map(|(key, value)| (key.clone(), value.clone())).collect();
        match tags
            .iter()
            .find(|(key, value)| key.is_empty() || [key, value].iter().any(|it| it.contains([',', '|', '\n'])))
        {
            Some((key, value)) => Err(format!(
                "tags = {{ {key} = {value:?} }}: expected a tag without comma, such as {{ kind = \"$1\" }}"
            )),
            None => Ok(Rule { pattern, name: name.to_owned(), tags }),
        }
    }

    fn apply(&self, name: &str) -> Option<Mapped> {
        let parts = self.pattern.captures(name)?;
        let tags: Vec<String> =
            self.tags.iter().map(|(key, value)| format!("{key}:{}", expand(&parts, value).replace(',', "_"))).collect();
        Some(Mapped { name: expand(&parts, &self.name), tags: tags.join(",") })
    }
}

fn expand(parts: &Captures<'_>, template: &str) -> String {
    let mut text = String::new();
    parts.expand(template, &mut text);
    text
}

impl Mapper {
    /// What a name becomes; `None` where it stays as it is, which it does too where nothing would be left of it.
    pub(super) fn map(&self, name: &str) -> Option<Mapped> {
        let fits = |profile: &&Profile| profile.prefix == "*" || name.starts_with(&*profile.prefix);
        let profile = self.profiles.iter().find(fits)?;
        profile.rules.iter().find_map(|rule| rule.apply(name)).filter(|mapped| !mapped.name.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    type Make = fn(&str, &str, Tags<'_>) -> Result<Rule, String>;

    fn rule(make: Make, pattern: &str, name: &str, tags: &[(&str, &str)]) -> Result<Rule, String> {
        let tags: BTreeMap<String, String> = tags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        make(pattern, name, &mut tags.iter())
    }

    fn profile(prefix: &str, rules: Vec<Rule>) -> Profile {
        Profile { prefix: prefix.to_owned(), rules }
    }

    fn check(mapper: &Mapper, name: &str, expected: Option<(&str, &str)>) {
        let found = mapper.map(name);
        assert_eq!(found.as_ref().map(|it| (&*it.name, &*it.tags)), expected, "{name}");
    }

    #[test]
    fn the_first_fitting_profile_decides_and_in_it_the_first_rule() {
        let wildcard = |pattern, name, tags| rule(Rule::wildcard, pattern, name, tags).unwrap();
        let mapper = Mapper {
            profiles: vec![
                profile(
                    "job.",
                    vec![
                        wildcard("job.*.done", "job.done", &[("kind", "$1")]),
                        wildcard("job.*.*", "job.$2", &[("b", "${1}_x"), ("a", "$1")]),
                        wildcard("job.m.done", "never", &[]),
                    ],
                ),
                profile("job", vec![wildcard("job.a", "never", &[])]),
                profile("*", vec![rule(Rule::regex, r"db\.(\w+)\.(read|write)s?", "db.$2", &[("t", "$1")]).unwrap()]),
            ],
        };
        check(&mapper, "job.mail.done", Some(("job.done", "kind:mail")));
        check(&mapper, "job.mail.failed", Some(("job.failed", "a:mail,b:mail_x")));
        check(&mapper, "job.a", None);
        check(&mapper, "job.a.b.done", None);
        check(&mapper, "jobs.x", None);
        check(&mapper, "db.users.reads", Some(("db.read", "t:users")));
        check(&mapper, "a.db.users.reads", None);
        check(&mapper, "job..done", Some(("job.done", "kind:")));
        check(&mapper, "job.a,b.done", Some(("job.done", "kind:a_b")));
    }

    #[test]
    fn a_name_is_never_mapped_to_nothing() {
        let rules = vec![rule(Rule::wildcard, "a.*", "$1", &[]).unwrap()];
        let mapper = Mapper { profiles: vec![profile("a.", rules)] };
        check(&mapper, "a.", None);
        check(&mapper, "a.b", Some(("b", "")));
    }

    #[test]
    fn bad_rules_are_refused_with_what_is_expected() {
        let check = |make: Make, pattern: &str, name: &str, tag: &str, words: &str| {
            let fault = rule(make, pattern, name, &[("k", tag)]).expect_err(pattern);
            assert!(fault.contains(words), "{fault}");
        };
        check(Rule::wildcard, "a.**", "a", "", "never two * in a row");
        check(Rule::wildcard, "a b", "a", "", "match_type = \"regex\"");
        check(Rule::wildcard, "", "a", "", "letters, digits");
        check(Rule::regex, "a(", "a", "", "a regular expression");
        check(Rule::regex, "", "a", "", "a regular expression");
        check(Rule::regex, "a", "a:b", "", "a metric name");
        check(Rule::regex, "a", "", "", "a metric name");
        check(Rule::regex, "a", "a", "1,2", "a tag without comma");
    }
}
