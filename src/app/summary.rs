//! What is on and what is degraded, in a few lines on standard output at start. Scripts read the addresses from it, since port
//! 0 becomes a number only here.

use std::fmt::Write;

use crate::config::{Config, Limit, Output, TraceAddress, UploadTo};
use crate::snapshot::DegradedView;

use super::bind::Bound;

/// Prints the summary. Standard output may be closed; nobody is hurt by that.
pub(super) fn print(config: &Config, bound: &Bound) {
    use std::io::Write;
    let _closed = std::io::stdout().write_all(text(config, bound).as_bytes());
}

fn text(config: &Config, bound: &Bound) -> String {
    let mut text = format!("oomwatch {}\n", env!("CARGO_PKG_VERSION"));
    let mut line = |name: &str, words: &str| {
        let _ = writeln!(text, "  {name:<9}{words}");
    };
    for missing in &bound.missing {
        line("degraded", &format!("statsd.listen {missing}: this machine has no such address"));
    }
    for source in &bound.statsd {
        if let Some(words) = small_buffer(config, source.receive_buffer_bytes()) {
            line("degraded", &words);
            break;
        }
    }
    if let Output::Intake { api_key, api_key_file: Some(file), .. } = &config.output
        && api_key.expose().is_empty()
    {
        line("degraded", &format!("datadog.api_key_file: {} is not there; all is held until it is", file.display()));
    }
    for missing in degraded(config).iter().chain(&bound.unusable_state) {
        line("degraded", &format!("{}: {}; {}", missing.what, missing.why, missing.fix));
    }
    line("output", &output(config));
    line("watch", &watch(config));
    line("profiles", &profiles(config));
    if let Some(dir) = &config.state.dir {
        line("state", &format!("in {}", dir.display()));
    }
    line("statsd", &statsd(bound));
    line("page", &format!("http://{}", bound.page.local_addr()));
    line("health", &format!("http://{}/metrics", bound.health.local_addr()));
    text
}

/// `udp ADDRESS, ADDRESS, unixgram PATH, unixstream PATH`, as far as they are bound.
fn statsd(bound: &Bound) -> String {
    let mut transports = Vec::new();
    let udp: Vec<_> = bound.statsd.iter().map(|source| source.local_addr().to_string()).collect();
    if !udp.is_empty() {
        transports.push(format!("udp {}", udp.join(", ")));
    }
    transports.extend(bound.unixgram.as_ref().map(|source| format!("unixgram {}", source.path().display())));
    transports.extend(bound.unixstream.as_ref().map(|source| format!("unixstream {}", source.path().display())));
    transports.join(", ")
}

/// The kernel doubles what it grants and caps it by net.core.rmem_max; less than half of what was asked is worth saying.
pub(super) fn small_buffer(config: &Config, granted: usize) -> Option<String> {
    let asked = config.statsd.receive_buffer.0 as usize;
    (granted < asked).then(|| {
        format!("statsd.receive_buffer: asked for {asked} bytes, got {granted}; raise net.core.rmem_max on the node, or expect drops in bursts")
    })
}

fn output(config: &Config) -> String {
    match &config.output {
        Output::Intake { base_url, .. } => format!("intake {base_url}"),
        Output::Agent(address) => format!("agent {address}"),
        Output::None => "none: metrics and events stay here, the page works".to_owned(),
    }
}

fn watch(config: &Config) -> String {
    let it = &config.watch;
    let target = match (it.pid, &it.name, &it.cmdline) {
        (Some(pid), ..) => format!("pid {pid}"),
        (None, Some(name), _) => format!("the process named {name:?}"),
        (None, None, Some(pattern)) => format!("the command line like {:?}", pattern.regex().as_str()),
        (None, None, None) => "the app's process, found by rules".to_owned(),
    };
    let limit = match it.limit {
        Limit::Auto => "limit from its cgroup".to_owned(),
        Limit::Fixed(size) => format!("limit {} bytes as set by watch.limit", size.0),
    };
    format!("{target}, every {:?}, {limit}", it.interval)
}

fn profiles(config: &Config) -> String {
    let kept = config.profile.dir.as_ref().map_or("in memory".to_owned(), |dir| format!("in {}", dir.display()));
    let uploaded = match &config.upload {
        None => String::new(),
        Some(UploadTo::Agent(TraceAddress::Http(url))) => format!(", uploaded through the Agent at {}", url.base()),
        Some(UploadTo::Agent(TraceAddress::Unix(path))) => {
            format!(", uploaded through the Agent at unix://{}", path.display())
        }
        Some(UploadTo::Intake { base_url, .. }) => format!(", uploaded to {base_url}"),
    };
    format!("{}, kept {kept}{uploaded}", config.profile.url.base())
}

/// What is known to be missing before anything has run.
pub(super) fn degraded(config: &Config) -> Vec<DegradedView> {
    let mut list = Vec::new();
    if config.output == Output::None {
        list.push(DegradedView {
            what: "output".to_owned(),
            why: "no API key and no Agent address: nothing reaches Datadog".to_owned(),
            fix: "set datadog.api_key_file or DD_API_KEY, or datadog.agent.dogstatsd".to_owned(),
        });
    }
    list
}
