//! From the checked settings of the file to what each part wants to know.

use std::time::Duration;

use crate::aggregate;
use crate::config::{Config, Counters, Limit, MapperProfile, Output, TagAction, TraceAddress, UploadTo};
use crate::datadog::Policy;
use crate::pipeline::words::Identity;
use crate::pipeline::{StopTime, plan};
use crate::secret::Secret;
use crate::sink::{Proxy, agent, intake, store, upload};
use crate::source::{puller, sampler, unix::UnixgramSource, unix_stream::UnixStreamSource};
use crate::{detect, page};

use super::bind::Bound;

/// The sink may use all of the shutdown time but a moment, in which it counts what it could not send.
pub(super) fn drain(shutdown_timeout: Duration) -> Duration {
    shutdown_timeout.saturating_sub(Duration::from_millis(300))
}

pub(super) fn intake(config: &Config, stopped: StopTime) -> intake::Settings {
    let Output::Intake { base_url, api_key, api_key_file } = &config.output else {
        return intake::Settings::new("", Secret::default());
    };
    let defaults = intake::Settings::new(base_url, api_key.clone());
    let policy = Policy { max_age: config.spool.max_age, ..defaults.policy };
    intake::Settings {
        api_key_file: api_key_file.clone(),
        hostname: config.identity.hostname.clone(),
        ca_file: config.datadog.ca_file.clone(),
        proxy: proxy(config),
        max_memory: config.spool.max_memory.0,
        spool_dir: config.spool.dir.clone(),
        max_size: config.spool.max_size.0,
        historical: config.datadog.historical,
        policy,
        drain: drain(config.run.shutdown_timeout),
        stopped,
        ..defaults
    }
}

fn proxy(config: &Config) -> Proxy {
    Proxy { https: config.proxy.https.clone(), no: config.proxy.no_proxy.clone() }
}

/// `None` when profiles are not uploaded.
pub(super) fn upload(config: &Config, stopped: StopTime) -> Option<upload::Settings> {
    let to = match config.upload.as_ref()? {
        UploadTo::Agent(TraceAddress::Http(url)) => upload::To::Agent(url.base()),
        UploadTo::Agent(TraceAddress::Unix(path)) => upload::To::AgentSocket(path.clone()),
        UploadTo::Intake { base_url, api_key, api_key_file } => upload::To::Intake {
            base_url: base_url.clone(),
            api_key: api_key.clone(),
            api_key_file: api_key_file.clone(),
            ca_file: config.datadog.ca_file.clone(),
            proxy: proxy(config),
        },
    };
    let hostname = config.identity.hostname.clone();
    Some(upload::Settings { to, hostname, drain: drain(config.run.shutdown_timeout), stopped })
}

pub(super) fn agent(config: &Config, stopped: StopTime) -> agent::Settings {
    let address = match &config.output {
        Output::Agent(address) => address.to_string(),
        Output::Intake { .. } | Output::None => String::new(),
    };
    agent::Settings {
        spread: config.aggregate.interval / 2,
        drain: drain(config.run.shutdown_timeout),
        stopped,
        ..agent::Settings::new(&address)
    }
}

pub(super) fn aggregate(config: &Config) -> aggregate::Settings {
    let it = &config.aggregate;
    let histogram_aggregates: Vec<_> =
        it.histogram_aggregates.iter().filter_map(|name| aggregate::Aggregate::from_name(name)).collect();
    let percentile = |text: &String| aggregate::Percentile::from_fraction(text.parse().ok()?);
    let histogram_percentiles: Vec<_> = it.histogram_percentiles.iter().filter_map(percentile).collect();
    aggregate::Settings {
        interval_seconds: u32::try_from(it.interval.as_secs()).unwrap_or(10),
        max_contexts: it.max_contexts as usize,
        max_bytes: it.max_bytes.0 as usize,
        counters: match it.counters {
            Counters::Rate => aggregate::Counters::Rate,
            Counters::Count => aggregate::Counters::Count,
        },
        counter_expiry_seconds: u32::try_from(it.counter_expiry.as_secs()).unwrap_or(u32::MAX),
        filter: filter(config, &histogram_aggregates, &histogram_percentiles),
        histogram_aggregates,
        histogram_percentiles,
        namespace: it.namespace.clone(),
        namespace_exempt: config.filter.namespace_exempt.clone(),
        mapper: mapper(config),
        copy_histograms: it.histogram_copy_to_distribution,
        tags: config.identity.tags.clone(),
        historical: config.datadog.historical,
        mode: match config.output {
            Output::Agent(_) => aggregate::Mode::Agent,
            Output::Intake { .. } | Output::None => aggregate::Mode::Intake,
        },
    }
}

fn filter(
    config: &Config,
    aggregates: &[aggregate::Aggregate],
    percentiles: &[aggregate::Percentile],
) -> aggregate::Filter {
    let it = &config.filter;
    let tags = it.tags.iter().map(|rule| aggregate::TagRule {
        metric: rule.metric.clone(),
        action: match rule.action {
            TagAction::Include => aggregate::TagAction::Include,
            TagAction::Exclude => aggregate::TagAction::Exclude,
        },
        tags: rule.tags.clone(),
    });
    aggregate::Filter::new(&it.metrics, it.metrics_match_prefix, tags, aggregates, percentiles)
}

fn mapper(config: &Config) -> aggregate::Mapper {
    let profile = |it: &MapperProfile| aggregate::Profile {
        prefix: it.prefix.clone(),
        // A faulty rule was refused at the start.
        rules: it.mappings.iter().filter_map(|mapping| mapping.rule().ok()).collect(),
    };
    aggregate::Mapper { profiles: config.mapper.iter().map(profile).collect() }
}

pub(super) fn sampler(config: &Config, bound: &Bound, pprof_port: Option<u16>) -> sampler::Settings {
    sampler::Settings {
        statsd_ports: bound.statsd.iter().map(|source| source.local_addr().port()).collect(),
        own_socket_inodes: bound.statsd.iter().filter_map(|source| source.inode()).collect(),
        unixgram_inode: bound.unixgram.as_ref().and_then(UnixgramSource::inode),
        stream_clients: bound.unixstream.as_ref().map(UnixStreamSource::clients),
        ..looking(config, pprof_port)
    }
}

/// What a look at the app needs without any socket of ours.
pub(super) fn looking(config: &Config, pprof_port: Option<u16>) -> sampler::Settings {
    sampler::Settings {
        pid: config.watch.pid,
        name: config.watch.name.clone(),
        cmdline: config.watch.cmdline.as_ref().map(|pattern| pattern.regex().clone()),
        tree: config.watch.tree,
        interval: config.watch.interval,
        limit: match config.watch.limit {
            Limit::Auto => sampler::Limit::Auto,
            Limit::Fixed(size) => sampler::Limit::Fixed(size.0),
        },
        app_memory_limit: config.app_memory_limit.map(|size| size.0),
        proc: config.watch.proc.clone(),
        statsd_ports: config.statsd.listen.iter().map(std::net::SocketAddr::port).collect(),
        pprof_port,
        ..sampler::Settings::default()
    }
}

pub(super) fn puller(config: &Config) -> puller::Settings {
    puller::Settings {
        url: config.profile.url.base(),
        allow_hosts: config.profile.allow_hosts.clone(),
        bearer: config.secrets.profile_bearer.as_ref().map(|secret| secret.expose().to_owned()),
    }
}

pub(super) fn detectors(config: &Config) -> detect::Settings {
    detect::Settings {
        startup_grace: config.alert.startup_grace,
        expected: config.alert.expected.map(|size| size.0),
        ..detect::Settings::default()
    }
}

pub(super) fn plan(config: &Config) -> plan::Settings {
    plan::Settings {
        baseline_after: config.profile.baseline_after,
        cooldown: config.profile.cooldown,
        max_per_hour: config.profile.max_per_hour,
        debug2: config.profile.debug2,
    }
}

pub(super) fn store(config: &Config) -> store::Settings {
    store::Settings {
        dir: config.profile.dir.clone(),
        max_size: config.profile.max_size.0,
        max_files: config.profile.max_files as usize,
        max_memory: config.profile.max_memory.0,
    }
}

pub(super) fn page(config: &Config) -> page::Settings {
    page::Settings {
        listen: config.page.listen,
        hosts: config.page.hosts.clone(),
        token: config.secrets.page_token.as_ref().map(|token| token.expose().to_owned()),
    }
}

/// `port`: where the page listens.
pub(super) fn identity(config: &Config, port: u16) -> Identity {
    let public = config.page.public_url.as_ref();
    Identity {
        service: config.datadog.service.clone().unwrap_or_default(),
        version: config.datadog.version.clone().unwrap_or_default(),
        tags: config.identity.tags.clone(),
        pod: config.identity.pod_name.clone(),
        namespace: config.identity.namespace.clone(),
        page_url: public.map_or_else(|| format!("http://127.0.0.1:{port}"), |url| url.base()),
        page_port: port,
        public_url: public.is_some(),
        profile_dir: config.profile.dir.clone(),
    }
}
