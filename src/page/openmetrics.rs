//! The scrape as OpenMetrics 1.0, made from the Prometheus text that the exporter renders.
//!
//! The exporter knows the older text form only. What differs for counts and gauges: a counter's family is named without
//! `_total`, blank lines are not allowed, quotes in HELP are escaped, and the text ends with `# EOF`.

pub(super) const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
pub(super) const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether the `Accept` header asks for OpenMetrics. Prometheus lists it first and would rather have it.
pub(super) fn is_wanted(accept: &str) -> bool {
    accept
        .split(',')
        .any(|range| range.split(';').next().is_some_and(|kind| kind.trim() == "application/openmetrics-text"))
}

/// `text` must hold counters, whose names end in `_total`, and gauges, whose names do not.
pub(super) fn from_prometheus(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for line in text.lines().filter(|line| !line.is_empty()) {
        match metadata(line) {
            Some((keyword, name, rest)) => {
                let family = name.strip_suffix("_total").unwrap_or(name);
                let rest = if keyword == "HELP" { rest.replace('"', "\\\"") } else { rest.to_owned() };
                out += &format!("# {keyword} {family} {rest}\n");
            }
            None => {
                out += line;
                out.push('\n');
            }
        }
    }
    out + "# EOF\n"
}

/// (`HELP` or `TYPE`, name, rest) of a line that describes a family.
fn metadata(line: &str) -> Option<(&str, &str, &str)> {
    let (keyword, rest) = line.strip_prefix("# ")?.split_once(' ')?;
    let (name, rest) = rest.split_once(' ')?;
    matches!(keyword, "HELP" | "TYPE").then_some((keyword, name, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counter_families_lose_total_and_their_samples_keep_it() {
        let text =
            "# HELP a_total What \"a\" is.\n# TYPE a_total counter\na_total{reason=\"x\"} 3\n\n# TYPE b gauge\nb 1\n\n";
        let expected =
            "# HELP a What \\\"a\\\" is.\n# TYPE a counter\na_total{reason=\"x\"} 3\n# TYPE b gauge\nb 1\n# EOF\n";
        assert_eq!(from_prometheus(text), expected);
    }

    #[test]
    fn nothing_to_tell_is_still_a_whole_text() {
        assert_eq!(from_prometheus(""), "# EOF\n");
    }

    #[test]
    fn openmetrics_is_given_to_those_who_ask() {
        assert!(is_wanted("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"));
        assert!(!is_wanted("text/plain;version=0.0.4;q=0.5,*/*;q=0.1"));
        assert!(!is_wanted(""));
    }
}
