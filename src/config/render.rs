//! The table of settings as text: `sidecar.toml`, `docs/configuration.md`, the JSON schema, and `config show`.

use super::keys::{Key, NOT_YET_WORDS, sections};
use super::layers::Origin;
use super::{Loaded, Output};

/// The defaults alone, for the lowest layer.
pub(super) fn defaults() -> String {
    file(|_, key| format!("{} = {}\n", key.name, key.default), |_| String::new())
}

/// `sidecar.toml`: every key at its default, with its description above it.
pub fn sample() -> String {
    let head = "# oomwatch: every setting, at its default. docs/configuration.md has the same as a table.\n#\n\
                # Each key can be set by a variable too, OOMWATCH_SECTION__KEY, which beats this file:\n\
                # OOMWATCH_STATSD__MAX_DATAGRAM=16KiB. Lists are separated by commas there. Datadog's own DD_* variables stand\n\
                # between the two. Durations are \"10s\", sizes \"4MiB\". `oomwatch check` tells all that is wrong at once.\n";
    let body = file(
        |first, key| {
            let gap = if first { "" } else { "\n" };
            let not_yet = if key.is_supported() { String::new() } else { format!("# {NOT_YET_WORDS}\n") };
            format!("{gap}{}{not_yet}{} = {}\n", comment(key.doc), key.name, key.default)
        },
        comment,
    );
    format!("{head}{body}")
}

fn file(line: impl Fn(bool, &Key) -> String, about: impl Fn(&'static [&'static str]) -> String) -> String {
    let mut text = String::new();
    for section in sections() {
        text.push('\n');
        if !section.name.is_empty() {
            text += &format!("{}[{}]\n", about(section.doc), section.name);
        }
        for (index, key) in section.keys.iter().enumerate() {
            text += &line(index == 0, key);
        }
    }
    text
}

fn comment(lines: &[&str]) -> String {
    lines.iter().map(|line| format!("#{line}\n")).collect()
}

/// `docs/configuration.md`.
pub fn docs() -> String {
    let mut page = String::from(include_str!("configuration_head.md"));
    for section in sections() {
        let title = if section.name.is_empty() { "[[mapper]]".to_owned() } else { format!("[{}]", section.name) };
        let about = section.doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
        page +=
            &format!("\n## `{title}`\n\n{about}\n\n| key | kind | default | what it changes |\n|---|---|---|---|\n");
        for key in section.keys {
            let sentence = key.sentence().replace('|', "\\|").replace('<', "&lt;");
            page += &format!("| `{}` | {} | `{}` | {sentence} |\n", key.name, key.kind.name, key.default);
        }
    }
    page
}

/// The JSON schema of `sidecar.toml`.
pub fn schema() -> serde_json::Value {
    let mut root = serde_json::json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "oomwatch settings (sidecar.toml)",
    });
    for section in sections() {
        let mut node = &mut root;
        for part in section.name.split('.').filter(|part| !part.is_empty()) {
            node = &mut node["properties"][part];
        }
        node["type"] = "object".into();
        node["additionalProperties"] = false.into();
        for key in section.keys {
            node["properties"][key.name] = property(key);
        }
    }
    root
}

fn property(key: &Key) -> serde_json::Value {
    let mut property: serde_json::Value =
        serde_json::from_str(key.kind.schema).expect("kinds hold JSON: a test reads all");
    property["description"] = key.sentence().into();
    property["default"] = default_json(key);
    property
}

fn default_json(key: &Key) -> serde_json::Value {
    let table: toml::Table = format!("value = {}", key.default).parse().expect("defaults are TOML: a test reads them");
    serde_json::to_value(&table["value"]).expect("the defaults hold no dates and no NaN")
}

/// `config show`: the file as it is in force, each line with its origin.
pub(super) fn show(loaded: &Loaded) -> String {
    let mut text =
        format!("# file: {}\n", loaded.file.as_ref().map_or("none".into(), |path| path.display().to_string()));
    text += &format!("# output: {}\n", output(&loaded.config.output));
    let identity = &loaded.config.identity;
    text += &format!("# host: {}\n", identity.hostname.as_deref().unwrap_or("none"));
    text += &format!("# tags: {}\n", identity.tags.join(","));
    let mut values = loaded.effective.iter();
    for section in sections() {
        text.push('\n');
        if !section.name.is_empty() {
            text += &format!("[{}]\n", section.name);
        }
        for (key, (_, value, origin)) in section.keys.iter().zip(values.by_ref()) {
            let default = if *origin == Origin::Default { "default".to_owned() } else { format!("from {origin}") };
            text += &format!("{} = {value}  # {default}\n", key.name);
        }
    }
    text
}

fn output(output: &Output) -> String {
    match output {
        Output::Intake { base_url, api_key, api_key_file } => {
            let from = api_key_file.as_ref().map_or("DD_API_KEY".to_owned(), |path| path.display().to_string());
            format!("intake {base_url}, API key {} from {from}", api_key.masked())
        }
        Output::Agent(address) => format!("agent {address}"),
        Output::None => "none (page and /metrics only)".to_owned(),
    }
}
