//! Datadog's own variables, read as if they were ours. An empty one counts as not set, as in Datadog's clients.
//!
//! In a pod the app's `DD_AGENT_HOST` points at us while ours must point at the real Agent: the check of an address that is our
//! own listener stands in `own_address.rs`.

use std::collections::BTreeMap;

use crate::secret::Secret;

/// (key, variable); of two variables for one key the first that is set counts.
const PLAIN: &[(&str, &str)] = &[
    ("datadog.site", "DD_SITE"),
    ("datadog.url", "DD_URL"),
    ("datadog.url", "DD_DD_URL"),
    ("datadog.hostname", "DD_HOSTNAME"),
    ("datadog.env", "DD_ENV"),
    ("datadog.service", "DD_SERVICE"),
    ("datadog.version", "DD_VERSION"),
    ("datadog.tags", "DD_TAGS"),
    ("datadog.agent.dogstatsd", "DD_DOGSTATSD_URL"),
    ("datadog.agent.trace", "DD_TRACE_AGENT_URL"),
];

/// A variable that is set and not empty.
pub(super) fn set<'a>(env: &'a BTreeMap<String, String>, name: &str) -> Option<&'a str> {
    env.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
}

/// (key, variable, value) of everything that Datadog's variables set.
pub(super) fn settings(env: &BTreeMap<String, String>) -> Vec<(&'static str, String, String)> {
    let mut found: Vec<(&'static str, String, String)> = Vec::new();
    for (path, variable) in PLAIN {
        if let Some(value) = set(env, variable)
            && !found.iter().any(|(known, ..)| known == path)
        {
            let value = if *variable == "DD_TAGS" { comma_separated(value) } else { value.to_owned() };
            found.push((path, (*variable).to_owned(), value));
        }
    }
    let Some(host) = set(env, "DD_AGENT_HOST") else { return found };
    let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() };
    for (path, scheme, variable, port) in [
        ("datadog.agent.dogstatsd", "udp", "DD_DOGSTATSD_PORT", "8125"),
        ("datadog.agent.trace", "http", "DD_TRACE_AGENT_PORT", "8126"),
    ] {
        if !found.iter().any(|(known, ..)| *known == path) {
            let port = set(env, variable).unwrap_or(port);
            found.push((path, "DD_AGENT_HOST".to_owned(), format!("{scheme}://{host}:{port}")));
        }
    }
    found
}

/// Datadog separates tags by commas, or by spaces where there is no comma.
fn comma_separated(tags: &str) -> String {
    if tags.contains(',') { tags.to_owned() } else { tags.split_whitespace().collect::<Vec<_>>().join(",") }
}

/// The proxy for what leaves towards Datadog. Its address may hold a password, so it is a secret as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxy {
    /// From `DD_PROXY_HTTPS`, else `HTTPS_PROXY`, else `https_proxy`.
    pub https: Option<Secret>,
    /// Hosts that are reached without it, separated by commas: `DD_PROXY_NO_PROXY`, else `NO_PROXY`, else `no_proxy`.
    pub no_proxy: String,
}

pub(super) fn proxy(env: &BTreeMap<String, String>) -> Proxy {
    let first = |names: &[&str]| names.iter().find_map(|name| set(env, name));
    Proxy {
        https: first(&["DD_PROXY_HTTPS", "HTTPS_PROXY", "https_proxy"]).map(Secret::new),
        no_proxy: first(&["DD_PROXY_NO_PROXY", "NO_PROXY", "no_proxy"]).map(comma_separated).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::keys;

    #[test]
    fn datadog_variables_name_keys() {
        for (path, variable) in PLAIN {
            assert!(keys().any(|key| key.path() == *path), "{variable} sets {path}");
        }
    }

    #[test]
    fn tags_are_separated_by_commas_or_spaces() {
        assert_eq!(comma_separated("a:1 b:2"), "a:1,b:2");
        assert_eq!(comma_separated("a:1,b:2 3"), "a:1,b:2 3");
    }
}
