//! What concerns more than one setting: ranges, refusals with advice, and what follows from the settings taken together.
//!
//! Everything is noted in the layers and nothing stops at the first fault. The files that settings name (key, tokens,
//! authorities) are opened here, so that a wrong path is told at the start and not at the first send.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Config;
use super::datadog_env::{self, set};
use super::layers::{Layers, Origin};
use super::own_address;
use super::traffic::{Agent, Aggregate, Datadog, Filter, Spool, Statsd, Top};
use super::types::{AgentAddress, ByteSize, HttpUrl};
use super::upload;
use super::watching::{Alert, Health, Log, Page, Profile, Run, State, Watch};
use super::words::{OutputChoice, TagFilter};
use crate::secret::Secret;

/// Where everything goes.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    Intake {
        /// `https://api.<site>`, or what `datadog.url` says; no slash at its end.
        base_url: String,
        api_key: Secret,
        /// Where the key came from, to be read again when it changes; `None` when it came from `DD_API_KEY`.
        api_key_file: Option<PathBuf>,
    },
    Agent(AgentAddress),
    None,
}

/// Who we are at Datadog.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// `datadog.hostname`, else `NODE_NAME`.
    pub hostname: Option<String>,
    /// `datadog.tags`, then env, service, version, `pod_name` and `kube_namespace` where those are known and not among them.
    pub tags: Vec<String>,
    pub pod_name: Option<String>,
    pub namespace: Option<String>,
}

/// What the files hold that settings name. `Debug` shows none of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secrets {
    pub page_token: Option<Secret>,
    pub profile_bearer: Option<Secret>,
}

/// Takes every key out of the layers and checks them together.
pub(super) fn config(layers: &mut Layers, env: &BTreeMap<String, String>) -> Config {
    let mut config = Config {
        mapper: Top::read(layers).mapper,
        statsd: Statsd::read(layers),
        aggregate: Aggregate::read(layers),
        filter: Filter::read(layers),
        datadog: Datadog::read(layers),
        agent: Agent::read(layers),
        spool: Spool::read(layers),
        watch: Watch::read(layers),
        alert: Alert::read(layers),
        state: State::read(layers),
        profile: Profile::read(layers),
        page: Page::read(layers),
        health: Health::read(layers),
        run: Run::read(layers),
        log: Log::read(layers),
        output: Output::None,
        upload: None,
        identity: Identity::default(),
        secrets: Secrets::default(),
        proxy: datadog_env::proxy(env),
        app_memory_limit: app_memory_limit(layers, env),
    };
    ranges(&config, layers);
    listeners(&config, layers);
    sockets(&config, layers);
    pulling(&config, layers);
    left_out(&config, layers);
    mapping(&config, layers);
    config.secrets.page_token =
        config.page.token_file.as_deref().and_then(|path| secret("page.token_file", path, layers));
    let bearer = config.profile.bearer_file.as_deref();
    config.secrets.profile_bearer = bearer.and_then(|path| secret("profile.bearer_file", path, layers));
    config.identity = identity(&config.datadog, env);
    let key = api_key(&config, layers, env);
    config.upload = upload::resolve(&config, key.clone(), layers);
    config.output = output(&config, key, layers, env);
    config
}

/// The downward API writes bytes; a size with a unit is taken too, for those who set it by hand.
fn app_memory_limit(layers: &mut Layers, env: &BTreeMap<String, String>) -> Option<ByteSize> {
    let text = set(env, "APP_MEMORY_LIMIT")?;
    let size = ByteSize::parse(text).filter(|size| size.0 > 0);
    if size.is_none() {
        layers.faults.push(super::Fault::new(
            "",
            "APP_MEMORY_LIMIT",
            format!("APP_MEMORY_LIMIT = {text:?}: expected a size, such as \"268435456\""),
        ));
    }
    size
}

fn ranges(config: &Config, layers: &mut Layers) {
    const HOUR: Duration = Duration::from_secs(3_600);
    let within = |value: Duration, low: Duration, high: Duration| (low..=high).contains(&value);
    let mut expect = |fine: bool, path: &str, expected: &str| {
        if !fine {
            layers.refuse(path, expected);
        }
    };
    let (aggregate, profile) = (&config.aggregate, &config.profile);
    let whole = aggregate.interval.subsec_nanos() == 0 && within(aggregate.interval, Duration::from_secs(1), HOUR);
    expect(whole, "aggregate.interval", "whole seconds from 1s to 1h, such as \"10s\"");
    expect(aggregate.max_contexts > 0, "aggregate.max_contexts", "at least 1, such as 10000");
    expect(aggregate.max_bytes.0 >= 65_536, "aggregate.max_bytes", "at least 64KiB, such as \"16MiB\"");
    let known = |name: &String| ["max", "min", "median", "avg", "sum", "count"].contains(&name.as_str());
    let aggregates = aggregate.histogram_aggregates.iter().all(known);
    expect(
        aggregates,
        "aggregate.histogram_aggregates",
        "any of max, min, median, avg, sum, count, such as [\"max\", \"avg\"]",
    );
    let share = |text: &String| text.parse::<f64>().is_ok_and(|share| (0.01..=1.0).contains(&share));
    let percentiles = aggregate.histogram_percentiles.iter().all(share);
    expect(percentiles, "aggregate.histogram_percentiles", "numbers from 0.01 to 1, such as [\"0.95\"]");
    let datagram = config.statsd.max_datagram.0;
    expect((64..=65_536).contains(&datagram), "statsd.max_datagram", "64B to 64KiB, such as \"8KiB\"");
    let buffer = config.statsd.receive_buffer.0;
    expect((4_096..=1 << 30).contains(&buffer), "statsd.receive_buffer", "4KiB to 1GiB, such as \"4MiB\"");
    expect(config.spool.max_memory.0 >= 65_536, "spool.max_memory", "at least 64KiB, such as \"4MiB\"");
    expect(config.spool.max_size.0 >= 1 << 20, "spool.max_size", "at least 1MiB, such as \"64MiB\"");
    expect(
        config.spool.max_age > Duration::ZERO && config.spool.max_age <= HOUR,
        "spool.max_age",
        "up to 1h, such as \"55m\"",
    );
    let interval = within(config.watch.interval, Duration::from_millis(100), Duration::from_secs(60));
    expect(interval, "watch.interval", "100ms to 1m, such as \"1s\"");
    expect(profile.max_files > 0, "profile.max_files", "at least 1, such as 20");
    expect(profile.max_size.0 >= 1 << 20, "profile.max_size", "at least 1MiB, such as \"64MiB\"");
    expect(profile.max_memory.0 >= 1 << 20, "profile.max_memory", "at least 1MiB, such as \"8MiB\"");
    expect(!config.run.shutdown_timeout.is_zero(), "run.shutdown_timeout", "more than nothing, such as \"8s\"");
    expect(is_site(&config.datadog.site), "datadog.site", "a site without scheme or path, such as \"datadoghq.eu\"");
}

/// A host name, so that `https://api.<site>` is the URL it looks like. Not held against a list: new sites come.
fn is_site(site: &str) -> bool {
    site.contains('.') && site.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte))
}

fn listeners(config: &Config, layers: &mut Layers) {
    let off_loopback = |address: &SocketAddr| !address.ip().to_canonical().is_loopback();
    if config.statsd.listen.is_empty() && config.statsd.socket.is_none() && config.statsd.stream_socket.is_none() {
        layers
            .refuse("statsd.listen", "at least one address, such as [\"127.0.0.1:8125\"], or a statsd.socket instead");
    }
    if config.statsd.listen.iter().any(off_loopback) && !config.statsd.non_local {
        let expected = "loopback addresses, such as [\"127.0.0.1:8125\"]; anyone who reaches another can send metrics as this \
                        app, so it needs statsd.non_local = true";
        layers.refuse("statsd.listen", expected);
    }
    if off_loopback(&config.page.listen) && config.page.token_file.is_none() {
        let expected = "a loopback address, such as \"127.0.0.1:7070\" (kubectl port-forward reaches it), or page.token_file \
                        with a token for everyone else";
        layers.refuse("page.listen", expected);
    }
    let (page, health) = (config.page.listen, config.health.listen);
    if page.port() == health.port() && page.port() != 0 && (page.ip() == health.ip() || health.ip().is_unspecified()) {
        layers.refuse("health.listen", "another port than page.listen, such as \"127.0.0.1:9464\"");
    }
}

/// A Unix socket's address holds 108 bytes, the last of which is zero.
fn sockets(config: &Config, layers: &mut Layers) {
    const LONGEST: usize = 107;
    let (gram, stream) = (&config.statsd.socket, &config.statsd.stream_socket);
    for (key, path) in [("statsd.socket", gram), ("statsd.stream_socket", stream)] {
        let fits = |path: &PathBuf| {
            path.is_absolute()
                && path.file_name().is_some()
                && path.as_os_str().len() <= LONGEST
                && !ends_in_slash(path)
        };
        if !path.as_ref().is_none_or(fits) {
            let expected = "the path of a file, of at most 107 bytes, such as \"/var/run/oomwatch/dsd.socket\"";
            layers.refuse(key, expected);
        }
    }
    if gram.is_some() && gram == stream {
        let expected = "another path than statsd.socket, such as \"/var/run/oomwatch/dsd-stream.socket\"";
        layers.refuse("statsd.stream_socket", expected);
    }
}

fn ends_in_slash(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b"/")
}

fn pulling(config: &Config, layers: &mut Layers) {
    let url = &config.profile.url;
    if url.is_https() {
        layers.refuse("profile.url", "plain http, such as \"http://127.0.0.1:6060/debug/pprof\"");
    }
    let allowed = config.profile.allow_hosts.iter().any(|host| host.eq_ignore_ascii_case(url.host()));
    if !url.is_loopback() && !allowed {
        let expected = format!(
            "a loopback host, such as \"http://127.0.0.1:6060/debug/pprof\", or profile.allow_hosts = [\"{}\"]",
            url.host()
        );
        layers.refuse("profile.url", &expected);
    }
}

fn left_out(config: &Config, layers: &mut Layers) {
    let filter = &config.filter;
    if filter.metrics.iter().any(String::is_empty) {
        layers.refuse("filter.metrics", "metric names, such as [\"noisy.metric\"]: \"\" names none");
    }
    let bare = |rule: &TagFilter| !rule.metric.is_empty() && rule.tags.iter().all(|tag| is_tag_key(tag));
    if !filter.tags.iter().all(bare) {
        let expected = "a metric and keys of tags without values, such as [{ metric = \"jobs\", action = \"exclude\", \
                        tags = [\"queue\"] }]";
        layers.refuse("filter.tags", expected);
    }
}

fn is_tag_key(text: &str) -> bool {
    !text.is_empty() && !text.contains([':', ',', '|'])
}

fn mapping(config: &Config, layers: &mut Layers) {
    for (index, profile) in config.mapper.iter().enumerate() {
        let place =
            format!("mapper {:?}", if profile.name.is_empty() { index.to_string() } else { profile.name.clone() });
        if profile.name.is_empty() {
            layers.advise("mapper", format!("{place}: name = \"\": expected a name for the profile, such as \"jobs\""));
        }
        if profile.prefix.is_empty() {
            let message =
                format!("{place}: prefix = \"\": expected what its metrics begin with, such as \"job.\", or \"*\"");
            layers.advise("mapper", message);
        }
        for fault in profile.mappings.iter().filter_map(|mapping| mapping.rule().err()) {
            layers.advise("mapper", format!("{place}: {fault}"));
        }
    }
}

/// What a file holds, without the line end an editor leaves. One that cannot be read, or is empty, is a fault; a text that no
/// HTTP header can carry is one too. What it holds is never told.
fn secret(path: &str, file: &Path, layers: &mut Layers) -> Option<Secret> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            layers.refuse(path, &format!("a file that can be read ({error})"));
            return None;
        }
    };
    let text = text.trim();
    if is_header_text(text) {
        return Some(Secret::new(text));
    }
    layers.refuse(path, "a file with one line of printable characters");
    None
}

fn is_absent(file: &Path) -> bool {
    file.metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

fn is_header_text(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn identity(datadog: &Datadog, env: &BTreeMap<String, String>) -> Identity {
    let variable = |name| set(env, name).map(str::to_owned);
    let (pod_name, namespace) = (variable("POD_NAME"), variable("POD_NAMESPACE"));
    let mut tags = datadog.tags.clone();
    for (key, value) in [
        ("env", &datadog.env),
        ("service", &datadog.service),
        ("version", &datadog.version),
        ("pod_name", &pod_name),
        ("kube_namespace", &namespace),
    ] {
        if let Some(value) = value
            && !has_tag(&tags, key)
        {
            tags.push(format!("{key}:{value}"));
        }
    }
    Identity { hostname: datadog.hostname.clone().or_else(|| variable("NODE_NAME")), tags, pod_name, namespace }
}

fn has_tag(tags: &[String], key: &str) -> bool {
    tags.iter().any(|tag| tag.split_once(':').is_some_and(|(found, value)| found == key && !value.is_empty()))
}

/// Follows `datadog.output` to where it leads, and refuses what could not work there.
fn output(config: &Config, key: Option<ApiKey>, layers: &mut Layers, env: &BTreeMap<String, String>) -> Output {
    if let Some(path) = &config.datadog.ca_file
        && let Err(error) = std::fs::File::open(path)
    {
        layers.refuse("datadog.ca_file", &format!("a file that can be read ({error})"));
    }
    match (config.datadog.output, key, config.agent.dogstatsd.clone()) {
        (OutputChoice::Auto | OutputChoice::Intake, Some((api_key, api_key_file)), _) => {
            intake(config, layers);
            Output::Intake { base_url: base_url(&config.datadog), api_key, api_key_file }
        }
        (OutputChoice::Auto | OutputChoice::Agent, _, Some(address)) => {
            own_address::check(config, &address, layers, env);
            windows_fit(config, layers);
            Output::Agent(address)
        }
        (OutputChoice::Intake, None, _) => {
            layers.refuse("datadog.output", "an API key for it: set datadog.api_key_file, or DD_API_KEY");
            Output::None
        }
        (OutputChoice::Agent, _, None) => {
            let expected =
                "an address for it, such as datadog.agent.dogstatsd = \"udp://10.0.0.7:8125\", or DD_AGENT_HOST";
            layers.refuse("datadog.output", expected);
            Output::None
        }
        (OutputChoice::Auto | OutputChoice::None, ..) => Output::None,
    }
}

pub(super) type ApiKey = (Secret, Option<PathBuf>);

/// The key, and its file when it came from there. `DD_API_KEY` stands above a file named in `sidecar.toml` and below one named
/// by an `OOMWATCH_*` variable, like every other setting.
fn api_key(config: &Config, layers: &mut Layers, env: &BTreeMap<String, String>) -> Option<ApiKey> {
    let file = config.datadog.api_key_file.as_ref();
    let file_first = matches!(layers.origin("datadog.api_key_file"), Origin::Variable(_));
    match (set(env, "DD_API_KEY"), file) {
        (Some(key), file) if file.is_none() || !file_first => {
            if !is_header_text(key) {
                let message = "DD_API_KEY: expected one line of printable characters (the value is not shown)";
                layers.faults.push(super::Fault::new("", "DD_API_KEY", message));
            }
            Some((Secret::new(key), None))
        }
        // A secret may be mounted after the start, and the app must not wait for it: the sink holds everything until then.
        (_, Some(file)) if is_absent(file) => Some((Secret::new(""), Some(file.clone()))),
        (_, Some(file)) => secret("datadog.api_key_file", file, layers).map(|key| (key, Some(file.clone()))),
        (_, None) => None,
    }
}

fn base_url(datadog: &Datadog) -> String {
    datadog.url.as_ref().map_or_else(|| format!("https://api.{}", datadog.site), HttpUrl::base)
}

fn intake(config: &Config, layers: &mut Layers) {
    if config.datadog.url.as_ref().is_some_and(|url| !url.is_https() && !url.is_loopback()) {
        layers.refuse("datadog.url", "https, such as \"https://api.datadoghq.eu\": the key would travel in the clear");
    }
    let named = config.datadog.hostname.is_some() || has_tag(&config.identity.tags, "pod_name");
    if !named {
        layers.advise(
            "datadog.hostname",
            "datadog.hostname = \"\": the intake needs a host name or a pod tag, or replicas overwrite one another; set POD_NAME \
             from the downward API (fieldRef: metadata.name), or datadog.hostname, such as \"web-1\"",
        );
    }
}

/// The Agent sums up again over 10 s. Windows that do not fill those evenly would leave some of its own empty and others
/// doubled.
fn windows_fit(config: &Config, layers: &mut Layers) {
    if ![1, 2, 5, 10].contains(&config.aggregate.interval.as_secs()) {
        layers.refuse("aggregate.interval", "1s, 2s, 5s or 10s towards an Agent, which sums up again over 10 s");
    }
}
