//! What a single setting may hold: how its value is read, what is said when it cannot be, and how it stands in the schema.
//!
//! Values come from the `config` crate's merged tree. A variable always arrives as text and the file brings TOML's types, so
//! every reader here takes both; a number that TOML would round (`version = 1.10`) is refused, not guessed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use config::{Value, ValueKind};

use super::types::{AgentAddress, ByteSize, HttpUrl, Pattern, TraceAddress};
use super::words::{MapperProfile, TagFilter};

/// What a kind of value is called, in words and in JSON schema.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// One word for the documentation.
    pub name: &'static str,
    /// Follows "expected" in a fault.
    pub expected: &'static str,
    /// The JSON schema of it.
    pub schema: &'static str,
}

/// A type that a setting can have.
pub trait Setting: Clone + PartialEq + Sized {
    const KIND: Kind;
    /// `None` when the value is not one of this kind; the caller words the fault from [`Kind::expected`].
    fn read(value: &Value) -> Option<Self>;
}

/// The text of a string value.
fn text(value: &Value) -> Option<&str> {
    match &value.kind {
        ValueKind::String(text) => Some(text),
        _ => None,
    }
}

/// A whole number, also when it came as the text of a variable.
fn whole(value: &Value) -> Option<u64> {
    match &value.kind {
        ValueKind::I64(number) => u64::try_from(*number).ok(),
        ValueKind::U64(number) => Some(*number),
        ValueKind::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

macro_rules! setting {
    ($type:ty, $name:literal, $expected:literal, $schema:literal, $read:expr) => {
        impl Setting for $type {
            const KIND: Kind = Kind { name: $name, expected: $expected, schema: $schema };
            fn read(value: &Value) -> Option<Self> {
                $read(value)
            }
        }
    };
}
pub(super) use setting;

setting!(bool, "switch", "true or false", r#"{"type":"boolean"}"#, |value: &Value| match &value.kind {
    ValueKind::Boolean(on) => Some(*on),
    ValueKind::String(text) => text.trim().parse().ok(),
    _ => None,
});
setting!(u32, "number", "a whole number, such as 6", r#"{"type":"integer","minimum":0}"#, |value| {
    whole(value).and_then(|number| u32::try_from(number).ok())
});
setting!(String, "text", "text in quotes, such as \"prod\"", r#"{"type":"string"}"#, |value| text(value)
    .map(str::to_owned));
setting!(Option<String>, "text", "text in quotes, such as \"prod\"", r#"{"type":"string"}"#, |value| {
    text(value).map(|text| Some(text.trim().to_owned()).filter(|text| !text.is_empty()))
});
setting!(Option<PathBuf>, "path", "an absolute path, such as \"/var/lib/oomwatch\"", r#"{"type":"string"}"#, |value| {
    match text(value)? {
        "" => Some(None),
        path => Some(Some(PathBuf::from(path))).filter(|_| path.starts_with('/')),
    }
});
setting!(PathBuf, "path", "an absolute path, such as \"/proc\"", r#"{"type":"string","pattern":"^/"}"#, |value| {
    text(value).filter(|path| path.starts_with('/')).map(PathBuf::from)
});
setting!(
    Option<i32>,
    "number",
    "a process id, such as 17, or 0 to look for the process",
    r#"{"type":"integer","minimum":0}"#,
    |value| whole(value).and_then(|pid| i32::try_from(pid).ok()).map(|pid| Some(pid).filter(|pid| *pid > 0))
);
setting!(
    SocketAddr,
    "address",
    "an IP address and a port, such as \"127.0.0.1:7070\"",
    r#"{"type":"string"}"#,
    |value| text(value).and_then(|text| text.trim().parse().ok())
);
setting!(
    Duration,
    "duration",
    "a duration with its unit, such as \"10s\"",
    r#"{"type":"string","examples":["10s","5m"]}"#,
    |value| text(value).and_then(|text| humantime::parse_duration(text.trim()).ok())
);
setting!(
    ByteSize,
    "size",
    "a size, such as \"4MiB\"",
    r#"{"type":["string","integer"],"examples":["4MiB"]}"#,
    |value| {
        match whole(value) {
            Some(bytes) => Some(ByteSize(bytes)),
            None => text(value).and_then(ByteSize::parse),
        }
    }
);
setting!(
    Option<ByteSize>,
    "size",
    "a size, such as \"192MiB\", or \"\" for none",
    r#"{"type":["string","integer"],"examples":["192MiB",""]}"#,
    |value: &Value| if text(value) == Some("") { Some(None) } else { ByteSize::read(value).map(Some) }
);
setting!(
    Option<Pattern>,
    "regex",
    "a regular expression, such as \"worker .*--queue\"",
    r#"{"type":"string","format":"regex"}"#,
    |value| match text(value)? {
        "" => Some(None),
        pattern => Pattern::parse(pattern).map(Some),
    }
);
setting!(Option<HttpUrl>, "url", "a URL, such as \"https://api.datadoghq.eu\"", r#"{"type":"string"}"#, |value| {
    match text(value)? {
        "" => Some(None),
        url => HttpUrl::parse(url).map(Some),
    }
});
setting!(HttpUrl, "url", "a URL, such as \"http://127.0.0.1:6060/debug/pprof\"", r#"{"type":"string"}"#, |value| text(
    value
)
.and_then(HttpUrl::parse));
setting!(
    Option<AgentAddress>,
    "address",
    "\"udp://host:port\" or \"unix:///path\", such as \"udp://10.0.0.7:8125\"",
    r#"{"type":"string"}"#,
    |value| match text(value)? {
        "" => Some(None),
        address => AgentAddress::parse(address).map(Some),
    }
);

setting!(
    Option<TraceAddress>,
    "address",
    "\"http://host:port\" or \"unix:///path\", such as \"http://10.0.0.7:8126\"",
    r#"{"type":"string"}"#,
    |value| match text(value)? {
        "" => Some(None),
        address => TraceAddress::parse(address).map(Some),
    }
);

/// A list from the file, or a comma-separated text from a variable; `each` reads one entry.
fn list<T>(value: &Value, each: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
    match &value.kind {
        ValueKind::Array(values) => values.iter().map(each).collect(),
        ValueKind::String(text) => text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| each(&Value::from(part.to_owned())))
            .collect(),
        _ => None,
    }
}

setting!(
    Vec<SocketAddr>,
    "addresses",
    "a list of IP addresses with ports, such as [\"127.0.0.1:8125\"]",
    r#"{"type":"array","items":{"type":"string"}}"#,
    |value| list(value, SocketAddr::read)
);
setting!(
    Vec<String>,
    "texts",
    "a list of texts, such as [\"team:payments\"]",
    r#"{"type":"array","items":{"type":"string"}}"#,
    |value| list(value, String::read)
);

/// Reads an array of tables by its own strict shape.
fn tables<T: serde::de::DeserializeOwned>(value: &Value) -> Option<Vec<T>> {
    let ValueKind::Array(values) = &value.kind else { return None };
    values.iter().map(|value| value.clone().try_deserialize().ok()).collect()
}

setting!(
    Vec<TagFilter>,
    "tables",
    "a list of { metric, action = \"include\" or \"exclude\", tags }",
    r#"{"type":"array","items":{"type":"object"}}"#,
    tables
);
setting!(
    Vec<MapperProfile>,
    "tables",
    "tables of { name, prefix, mappings = [{ match, match_type = \"wildcard\" or \"regex\", name, tags }] }",
    r#"{"type":"array","items":{"type":"object"}}"#,
    tables
);

/// A value as TOML would write it, for faults and for `config show`.
pub(super) fn written(value: &Value) -> String {
    match &value.kind {
        ValueKind::Nil => String::new(),
        ValueKind::String(text) => toml::Value::String(text.clone()).to_string(),
        ValueKind::Array(values) => format!("[{}]", values.iter().map(written).collect::<Vec<_>>().join(", ")),
        ValueKind::Table(table) => {
            let mut entries: Vec<_> = table.iter().map(|(key, value)| format!("{key} = {}", written(value))).collect();
            entries.sort();
            format!("{{ {} }}", entries.join(", "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: Setting>(text: &str) -> Option<T> {
        T::read(&Value::from(text.to_owned()))
    }

    #[test]
    fn durations_need_their_unit() {
        assert_eq!(read::<Duration>("1m 30s"), Some(Duration::from_secs(90)));
        assert_eq!(read::<Duration>("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(read::<Duration>("10"), None);
        assert_eq!(Duration::read(&Value::from(10_i64)), None);
    }

    #[test]
    fn sizes_are_bytes_when_no_unit_is_given() {
        assert_eq!(ByteSize::read(&Value::from(4096_i64)), Some(ByteSize(4096)));
        assert_eq!(read::<ByteSize>("4096"), Some(ByteSize(4096)));
        assert_eq!(ByteSize::read(&Value::from(-1_i64)), None);
    }

    #[test]
    fn a_variable_holds_a_list_with_commas() {
        assert_eq!(read::<Vec<String>>("a:1, b:2,,"), Some(vec!["a:1".to_owned(), "b:2".to_owned()]));
        assert_eq!(
            read::<Vec<SocketAddr>>("127.0.0.1:1,[::1]:2").map(|list| list.len()),
            Some(2),
            "IPv6 addresses hold colons, never commas"
        );
        assert_eq!(read::<Vec<SocketAddr>>("127.0.0.1"), None);
    }

    #[test]
    fn numbers_are_no_text() {
        assert_eq!(Option::<String>::read(&Value::from(1.1_f64)), None);
        assert_eq!(read::<Option<String>>("1.10"), Some(Some("1.10".to_owned())));
    }
}
