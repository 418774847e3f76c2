//! The small types that settings hold: sizes, URLs, addresses, patterns. The choices that are words, and the tables,
//! stand in `words.rs`.

use std::fmt;
use std::path::PathBuf;

use config::Value;

use super::value::{Kind, Setting, setting};

/// A number of bytes. Written with binary units (`4MiB`) or decimal ones (`4MB`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// The units that are read, largest first within each family. Kubernetes' own `Mi` is taken too, because people paste it.
const UNITS: [(&str, u64); 14] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("KB", 1_000),
    ("B", 1),
];

impl ByteSize {
    /// Reads `4MiB`, `1.5GiB`, `512 kB` or a bare number of bytes; `None` for anything else, also beyond 2^53 bytes.
    pub fn parse(text: &str) -> Option<ByteSize> {
        let text = text.trim();
        let unit = UNITS.iter().find(|(unit, _)| text.ends_with(unit));
        let (number, factor) = unit.map_or((text, 1), |(unit, factor)| (&text[..text.len() - unit.len()], *factor));
        let number = number.trim_end();
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            return None;
        }
        // A fraction of a byte is nothing; whole figures below 2^53 pass through f64 exactly.
        let bytes = number.parse::<f64>().ok()? * factor as f64;
        (bytes < (1_u64 << 53) as f64).then_some(ByteSize(bytes as u64))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS[..4].iter().find(|(_, factor)| self.0 > 0 && self.0.is_multiple_of(*factor));
        match unit {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}", self.0),
        }
    }
}

/// An `http://` or `https://` address with a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl(hyper::Uri);

impl HttpUrl {
    /// Reads a URL. One with a user name in it is refused: credentials belong into files.
    pub fn parse(text: &str) -> Option<HttpUrl> {
        let uri: hyper::Uri = text.trim().parse().ok()?;
        let known = matches!(uri.scheme_str(), Some("http" | "https"));
        let plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        let host = uri.host().is_some_and(|host| !host.is_empty());
        (known && plain && host && uri.query().is_none()).then_some(HttpUrl(uri))
    }

    pub fn is_https(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }

    /// The host, an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        self.0.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
    }

    /// The host is this machine's own, by its text alone.
    pub fn is_loopback(&self) -> bool {
        is_loopback(self.host())
    }

    /// The address without a slash at its end, ready for a path to be put after it.
    pub fn base(&self) -> String {
        self.0.to_string().trim_end_matches('/').to_owned()
    }
}

/// Tells by its text alone whether a host is this machine: nothing is looked up.
pub(super) fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Where an Agent takes DogStatsD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentAddress {
    /// Host (an IPv6 address without brackets) and port.
    Udp(String, u16),
    /// A Unix datagram socket.
    Unix(PathBuf),
}

impl AgentAddress {
    /// Reads `udp://host:port` (port 8125 when left out) or `unix:///path`; `unixgram://` is Datadog's other word for it.
    pub fn parse(text: &str) -> Option<AgentAddress> {
        let text = text.trim();
        if let Some(path) = text.strip_prefix("unix://").or_else(|| text.strip_prefix("unixgram://")) {
            return socket_path(path).map(AgentAddress::Unix);
        }
        let rest = text.strip_prefix("udp://")?.trim_end_matches('/');
        let authority: hyper::http::uri::Authority = rest.parse().ok()?;
        // "host:" and "host:99999" parse as an authority without a port.
        let port = match authority.port_u16() {
            Some(port) => port,
            None if authority.as_str() == authority.host() => 8125,
            None => return None,
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        (!host.is_empty() && port > 0).then(|| AgentAddress::Udp(host.to_owned(), port))
    }
}

/// The absolute path after `unix://`.
fn socket_path(path: &str) -> Option<PathBuf> {
    (path.len() > 1 && path.starts_with('/')).then(|| PathBuf::from(path))
}

/// Where an Agent takes traces and profiles. Datadog's admission controller hands out both forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraceAddress {
    Http(HttpUrl),
    Unix(PathBuf),
}

impl TraceAddress {
    /// Reads `http://host:8126` or `unix:///path`.
    pub fn parse(text: &str) -> Option<TraceAddress> {
        match text.trim().strip_prefix("unix://") {
            Some(path) => socket_path(path).map(TraceAddress::Unix),
            None => HttpUrl::parse(text).map(TraceAddress::Http),
        }
    }
}

impl fmt::Display for AgentAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AgentAddress::Udp(host, port) if host.contains(':') => write!(f, "udp://[{host}]:{port}"),
            AgentAddress::Udp(host, port) => write!(f, "udp://{host}:{port}"),
            AgentAddress::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// A regular expression that is equal to another with the same text.
#[derive(Clone, Debug)]
pub struct Pattern(regex_lite::Regex);

impl Pattern {
    pub fn parse(text: &str) -> Option<Pattern> {
        regex_lite::Regex::new(text).ok().map(Pattern)
    }

    pub fn regex(&self) -> &regex_lite::Regex {
        &self.0
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

/// The memory limit to hold the app against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Read from the app's cgroup, else from `APP_MEMORY_LIMIT`.
    Auto,
    Fixed(ByteSize),
}

setting!(
    Limit,
    "size",
    "\"auto\" or a size, such as \"512MiB\"",
    r#"{"type":["string","integer"],"examples":["auto","512MiB"]}"#,
    |value: &Value| {
        let auto = matches!(&value.kind, config::ValueKind::String(text) if text == "auto");
        if auto { Some(Limit::Auto) } else { ByteSize::read(value).filter(|size| size.0 > 0).map(Limit::Fixed) }
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_binary_and_decimal_units() {
        let table = [
            ("4MiB", Some(4 << 20)),
            ("4 MiB", Some(4 << 20)),
            ("1.5GiB", Some(3 << 29)),
            ("64Mi", Some(64 << 20)),
            ("4MB", Some(4_000_000)),
            ("512", Some(512)),
            ("0", Some(0)),
            ("7B", Some(7)),
            ("4mib", None),
            ("-1MiB", None),
            ("1e3", None),
            ("MiB", None),
            ("", None),
            ("NaN", None),
            ("9007199254740992", None),
            ("1.2.3KiB", None),
        ];
        for (text, bytes) in table {
            assert_eq!(ByteSize::parse(text).map(|size| size.0), bytes, "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_size_reads_back_as_it_was_written(bytes in 0_u64..(1 << 53)) {
            assert_eq!(ByteSize::parse(&ByteSize(bytes).to_string()), Some(ByteSize(bytes)));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in ".{0,40}") {
            let _ = (ByteSize::parse(&text), AgentAddress::parse(&text), HttpUrl::parse(&text));
        }
    }

    #[test]
    fn agent_addresses() {
        let table = [
            ("udp://10.0.0.7:8125", Some("udp://10.0.0.7:8125")),
            ("udp://agent", Some("udp://agent:8125")),
            ("udp://[::1]:9000", Some("udp://[::1]:9000")),
            ("unix:///var/run/datadog/dsd.socket", Some("unix:///var/run/datadog/dsd.socket")),
            ("unixgram:///dsd.socket", Some("unix:///dsd.socket")),
            ("udp://agent:99999", None),
            ("udp://:8125", None),
            ("unix://relative", None),
            ("10.0.0.7:8125", None),
        ];
        for (text, shown) in table {
            let read = AgentAddress::parse(text).map(|address| address.to_string());
            assert_eq!(read.as_deref(), shown, "{text}");
        }
    }

    #[test]
    fn urls_with_credentials_or_without_a_host_are_refused() {
        assert!(HttpUrl::parse("https://user:secret@example.com").is_none());
        assert!(HttpUrl::parse("ftp://example.com").is_none());
        assert!(HttpUrl::parse("/debug/pprof").is_none());
        let url = HttpUrl::parse("http://[::1]:6060/debug/pprof/").expect("a plain URL");
        assert_eq!((url.host(), url.is_loopback()), ("::1", true));
        assert_eq!(url.base(), "http://[::1]:6060/debug/pprof");
    }
}
