//! Puts the layers on one another: default, file, `DD_*`, `OOMWATCH_*`; tells where each value came from, and what is wrong.
//!
//! The `config` crate merges. What it cannot tell stands here: it knows no line numbers, no "did you mean", and silently passes
//! over a variable it does not know. The surprising fact is Kubernetes' own: a Service called `oomwatch` puts variables such as
//! `OOMWATCH_PORT_9464_TCP` into every pod beside it, and those must not stop a start.

use std::collections::BTreeMap;
use std::fmt;

use config::{Environment, File, FileFormat, Value, ValueKind};
use toml::de::{DeTable, DeValue};

use super::datadog_env;
use super::fault::Fault;
use super::keys::{NOT_YET, keys, sections};
use super::render;
use super::suggest::closest;
use super::value::{Setting, written};

/// Variables with our prefix that are no settings.
const OTHER_VARIABLES: &[&str] = &["OOMWATCH_CONFIG", "OOMWATCH_COMMIT", "OOMWATCH_WRITE_DOCS"];

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    /// File and line.
    File(String, usize),
    Variable(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(name, line) => write!(f, "{name}:{line}"),
            Origin::Variable(name) => f.write_str(name),
        }
    }
}

/// The merged values while they are being checked.
#[derive(Debug)]
pub(super) struct Layers {
    merged: config::Config,
    defaults: config::Config,
    /// By path; a key that is not here stands at its default.
    origins: BTreeMap<String, Origin>,
    pub(super) faults: Vec<Fault>,
}

impl Layers {
    /// Merges the defaults, a file (its name and text) and the environment.
    pub(super) fn new(file: Option<(&str, &str)>, env: &BTreeMap<String, String>) -> Layers {
        let mut faults = Vec::new();
        let mut origins = BTreeMap::new();
        let mut builder = config::Config::builder().add_source(File::from_str(&render::defaults(), FileFormat::Toml));
        if let Some((name, text)) = file
            && read_file(name, text, &mut origins, &mut faults)
        {
            builder = builder.add_source(File::from_str(text, FileFormat::Toml));
        }
        let variables = read_environment(env, &mut origins, &mut faults);
        // prefix_separator must be named: it falls back to separator, and OOMWATCH_STATSD__… would then never match.
        let environment = Environment::with_prefix("OOMWATCH").prefix_separator("_").separator("__");
        builder = builder.add_source(environment.source(Some(variables.into_iter().collect())));
        let defaults = config::Config::builder()
            .add_source(File::from_str(&render::defaults(), FileFormat::Toml))
            .build()
            .expect("the defaults are TOML: a test reads them");
        let merged = builder.build().unwrap_or_else(|error| {
            faults.push(Fault::new("", file.map_or("environment", |(name, _)| name), error.to_string()));
            defaults.clone()
        });
        Layers { merged, defaults, origins, faults }
    }

    /// The checked value of a key, or its default after noting a fault.
    pub(super) fn take<T: Setting>(&mut self, section: &str, name: &str) -> T {
        let path = if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") };
        let default = self.default_of(&path);
        let default = T::read(&default).expect("the default is of its own kind: a test reads them all");
        let Some(value) = self.value(&path) else { return default };
        match T::read(&value) {
            None => self.refuse(&path, T::KIND.expected),
            Some(read) if read != default && NOT_YET.contains(&path.as_str()) => {
                let only = written(&self.default_of(&path));
                self.refuse(&path, &format!("{only}, because anything else is not supported yet in this version"));
            }
            Some(read) => return read,
        }
        default
    }

    /// Notes that the value of `path` is not what was expected.
    pub(super) fn refuse(&mut self, path: &str, expected: &str) {
        let value = self.value(path).map(|value| written(&value)).unwrap_or_default();
        self.faults.push(Fault::new(
            path,
            self.origin(path).to_string(),
            format!("{path} = {value}: expected {expected}"),
        ));
    }

    /// Notes a fault of the whole, with the origin of the key that would mend it.
    pub(super) fn advise(&mut self, path: &str, message: impl Into<String>) {
        self.faults.push(Fault::new(path, self.origin(path).to_string(), message.into()));
    }

    pub(super) fn origin(&self, path: &str) -> Origin {
        self.origins.get(path).cloned().unwrap_or(Origin::Default)
    }

    /// Every key with its value as TOML and its origin, in the order of the file.
    pub(super) fn effective(&self) -> Vec<(String, String, Origin)> {
        let shown = |path: String| {
            let value = self.value(&path).unwrap_or_else(|| self.default_of(&path));
            let origin = self.origin(&path);
            (path, written(&value), origin)
        };
        keys().map(|key| shown(key.path())).collect()
    }

    /// `None` where a value of another shape stands in the way, which has been told already.
    fn value(&self, path: &str) -> Option<Value> {
        self.merged.get::<Value>(path).ok().filter(|value| value.kind != ValueKind::Nil)
    }

    fn default_of(&self, path: &str) -> Value {
        self.defaults.get::<Value>(path).expect("every key has a default: the table makes them")
    }
}

/// Notes the line of each key and refuses what is not a setting; false when the file is no TOML at all.
fn read_file(name: &str, text: &str, origins: &mut BTreeMap<String, Origin>, faults: &mut Vec<Fault>) -> bool {
    match DeTable::parse(text) {
        Ok(table) => {
            let mut walk = Walk { name, text, origins, faults };
            walk.table("", table.get_ref());
            true
        }
        Err(error) => {
            let line = error.span().map_or(1, |span| line_of(text, span.start));
            faults.push(Fault::new("", format!("{name}:{line}"), error.message().trim().replace('\n', ", ")));
            false
        }
    }
}

struct Walk<'a> {
    name: &'a str,
    text: &'a str,
    origins: &'a mut BTreeMap<String, Origin>,
    faults: &'a mut Vec<Fault>,
}

impl Walk<'_> {
    fn table(&mut self, section: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let name: &str = key.get_ref();
            let path = if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") };
            let line = line_of(self.text, key.span().start);
            if keys().any(|key| key.path() == path) {
                self.origins.insert(path, Origin::File(self.name.to_owned(), line));
            } else if sections().iter().any(|known| known.name == path) {
                match value.get_ref() {
                    DeValue::Table(table) => self.table(&path, table),
                    _ => self.fault(&path, line, format!("{path}: expected a table, such as [{path}]")),
                }
            } else {
                let message = unknown(section, name, matches!(value.get_ref(), DeValue::Table(_)));
                self.fault(&path, line, message);
            }
        }
    }

    fn fault(&mut self, path: &str, line: usize, message: String) {
        self.faults.push(Fault::new(path, format!("{}:{line}", self.name), message));
    }
}

/// What is said of a key that is not in the table. The names nearby come from its own section, then from all of them: a key
/// in the wrong section is as common as a slip of the finger.
fn unknown(section: &str, name: &str, is_table: bool) -> String {
    if section.is_empty() {
        let what = if is_table { "section" } else { "key" };
        let known = sections().iter().map(|section| section.name.to_owned()).filter(|name| !name.is_empty());
        return format!("unknown {what} \"{name}\"{}", closest(name, known));
    }
    let here = keys().filter(|key| key.section == section).map(|key| key.name.to_owned());
    let hint = closest(name, here);
    let elsewhere = || keys().find(|key| key.name == name).map(|key| format!(", did you mean \"{}\"?", key.path()));
    let hint = if hint.is_empty() { elsewhere().unwrap_or_default() } else { hint };
    format!("unknown key \"{name}\" in [{section}]{hint}")
}

/// The variables that set something, by our own names; every other variable with our prefix is a fault.
fn read_environment(
    env: &BTreeMap<String, String>,
    origins: &mut BTreeMap<String, Origin>,
    faults: &mut Vec<Fault>,
) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (path, variable, value) in datadog_env::settings(env) {
        let ours = keys().find(|key| key.path() == path).map(super::keys::Key::variable);
        found.insert(ours.expect("the table of Datadog's variables names keys: a test looks"), value);
        origins.insert(path.to_owned(), Origin::Variable(variable));
    }
    for (variable, value) in env.iter().filter(|(variable, _)| variable.starts_with("OOMWATCH_")) {
        if let Some(key) = keys().find(|key| key.variable() == *variable) {
            found.insert(variable.clone(), value.clone());
            origins.insert(key.path(), Origin::Variable(variable.clone()));
        } else if !OTHER_VARIABLES.contains(&variable.as_str()) && !is_service_link(variable) {
            let known = keys().map(super::keys::Key::variable).chain(["OOMWATCH_CONFIG".to_owned()]);
            let message = format!("unknown variable {variable}{}", closest(variable, known));
            faults.push(Fault::new("", variable.clone(), message));
        }
    }
    found
}

/// Kubernetes' variables for a Service: `…_SERVICE_HOST`, `…_SERVICE_PORT…`, `…_PORT`, `…_PORT_9464_TCP…`. None of our
/// settings looks like that, because each has a double underscore.
fn is_service_link(variable: &str) -> bool {
    if variable.contains("__") {
        return false;
    }
    let port = variable.split_once("_PORT_").is_some_and(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()));
    variable.ends_with("_SERVICE_HOST")
        || variable.contains("_SERVICE_PORT")
        || (port && ["_TCP", "_UDP", "_SCTP"].iter().any(|protocol| variable.contains(protocol)))
        || variable.ends_with("_PORT")
}

/// The line of a byte of the file, from 1.
fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_a_kubernetes_service_are_no_settings() {
        for variable in [
            "OOMWATCH_SERVICE_HOST",
            "OOMWATCH_SERVICE_PORT",
            "OOMWATCH_SERVICE_PORT_HEALTH",
            "OOMWATCH_PORT",
            "OOMWATCH_PORT_9464_TCP",
            "OOMWATCH_PORT_9464_TCP_ADDR",
            "OOMWATCH_PAGE_PORT_7070_TCP_PROTO",
        ] {
            assert!(is_service_link(variable), "{variable}");
        }
        for variable in ["OOMWATCH_STATSD_LISTEN", "OOMWATCH_STATSD__PORT", "OOMWATCH_LOG_LEVEL"] {
            assert!(!is_service_link(variable), "{variable}");
        }
    }

    #[test]
    fn lines_count_from_one() {
        assert_eq!((line_of("a\nb", 0), line_of("a\nb", 2), line_of("", 9)), (1, 2, 1));
    }
}
