//! SIGHUP: reads the settings again, and tells each owner of state what changed for it.
//!
//! A file that is bad in one place is not taken over in any: the old settings stay, and the page says so. Of a good one, the
//! keys of [`LIVE`] take effect at once; what was decided when sockets were bound and connections made is named, and waits for a
//! restart. The variables of the environment cannot change, so a key that is set there stays as it is.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::tasks::Restart;
use super::{Start, settings, summary};
use crate::config::{self, Aggregate, Config, Datadog, Identity, Loaded, Log, LogLevel, Profile};
use crate::pipeline::{plan, words};
use crate::snapshot::{About, DegradedView, rfc3339};
use crate::{aggregate, detect, telemetry};

/// Sets the level of our own log lines.
pub type SetLevel = Box<dyn Fn(LogLevel) + Send>;

/// Keys, and sections, that take effect without a restart. [`merged`] takes exactly these over.
const LIVE: &[&str] = &[
    "mapper",
    "filter",
    "alert",
    "log.level",
    "aggregate.max_contexts",
    "aggregate.max_bytes",
    "aggregate.counters",
    "aggregate.histogram_copy_to_distribution",
    "aggregate.counter_expiry",
    "aggregate.histogram_aggregates",
    "aggregate.histogram_percentiles",
    "aggregate.namespace",
    "datadog.env",
    "datadog.service",
    "datadog.version",
    "datadog.tags",
    "profile.baseline_after",
    "profile.cooldown",
    "profile.max_per_hour",
];

fn is_live(path: &str) -> bool {
    let section = path.split('.').next().unwrap_or_default();
    LIVE.iter().any(|live| *live == path || *live == section)
}

/// The settings in force after a reload: the old ones, with what may change from the new.
fn merged(old: &Config, new: Config) -> Config {
    let old = old.clone();
    Config {
        mapper: new.mapper,
        filter: new.filter,
        alert: new.alert,
        log: Log { level: new.log.level, ..old.log },
        aggregate: Aggregate { interval: old.aggregate.interval, ..new.aggregate },
        datadog: Datadog {
            env: new.datadog.env,
            service: new.datadog.service,
            version: new.datadog.version,
            tags: new.datadog.tags,
            ..old.datadog
        },
        identity: Identity { tags: new.identity.tags, ..old.identity },
        profile: Profile {
            baseline_after: new.profile.baseline_after,
            cooldown: new.profile.cooldown,
            max_per_hour: new.profile.max_per_hour,
            ..old.profile
        },
        ..old
    }
}

/// To every owner of something that may change. Latest wins.
pub(super) struct Owners {
    aggregate: watch::Sender<aggregate::Settings>,
    detect: watch::Sender<detect::Settings>,
    investigation: watch::Sender<(plan::Settings, words::Identity)>,
    about: watch::Sender<Arc<About>>,
    page_port: u16,
}

/// The other ends.
pub(super) struct Changes {
    pub aggregate: watch::Receiver<aggregate::Settings>,
    pub detect: watch::Receiver<detect::Settings>,
    pub investigation: watch::Receiver<(plan::Settings, words::Identity)>,
    pub about: watch::Receiver<Arc<About>>,
}

impl Owners {
    pub fn new(config: &Config, page_port: u16, started: f64) -> (Owners, Changes) {
        let about = About {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: rfc3339(started),
            degraded: summary::degraded(config),
        };
        let (aggregate, aggregate_in) = watch::channel(settings::aggregate(config));
        let (detect, detect_in) = watch::channel(settings::detectors(config));
        let (investigation, investigation_in) =
            watch::channel((settings::plan(config), settings::identity(config, page_port)));
        let (about, about_in) = watch::channel(Arc::new(about));
        let owners = Owners { aggregate, detect, investigation, about, page_port };
        let changes =
            Changes { aggregate: aggregate_in, detect: detect_in, investigation: investigation_in, about: about_in };
        (owners, changes)
    }

    /// The aggregate closes its window for a change, so it is told only of one that concerns it.
    fn tell(&self, config: &Config) {
        let aggregate = settings::aggregate(config);
        self.aggregate.send_if_modified(|now| std::mem::replace(now, aggregate.clone()) != aggregate);
        self.detect.send_replace(settings::detectors(config));
        self.investigation.send_replace((settings::plan(config), settings::identity(config, self.page_port)));
    }

    fn degrade(&self, views: Vec<DegradedView>) {
        self.about.send_modify(|about| Arc::make_mut(about).degraded = views);
    }
}

/// The task that reloads; the only owner of the settings once everything runs.
pub(super) struct Reload {
    path: Option<PathBuf>,
    hangup: Signal,
    owners: Owners,
    stop: CancellationToken,
    set_level: SetLevel,
    in_force: Config,
    /// Of `in_force`, each key with its value as TOML.
    values: BTreeMap<String, String>,
    /// Faults as they were told last: the same file may be refused often and is told once.
    told: String,
}

impl Restart for Reload {
    async fn run(&mut self) {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = self.hangup.recv() => self.again().await,
            }
        }
    }
}

impl Reload {
    pub fn new(start: Start, hangup: Signal, owners: Owners, stop: CancellationToken) -> Reload {
        let Start { loaded, path, set_level } = start;
        let values = loaded.values();
        Reload { path, hangup, owners, stop, set_level, in_force: loaded.config, values, told: String::new() }
    }

    async fn again(&mut self) {
        let path = self.path.clone();
        let read = move || config::load(path.as_deref(), &config::environment());
        // Files block, and this one may lie on a volume that hangs.
        let result = match tokio::task::spawn_blocking(read).await {
            Ok(Ok(loaded)) => self.take(loaded),
            Ok(Err(faults)) => self.refuse(&faults.iter().map(ToString::to_string).collect::<Vec<_>>()),
            Err(broken) => self.refuse(&[format!("reading them broke off: {broken}")]),
        };
        telemetry::count(&telemetry::CONFIG_RELOADS, Some(result)).increment(1);
    }

    fn refuse(&mut self, faults: &[String]) -> &'static str {
        let words = faults.join("; ");
        let mut degraded = summary::degraded(&self.in_force);
        degraded.push(DegradedView {
            what: "settings file".to_owned(),
            why: format!("not taken over, the settings before it stay: {words}"),
            fix: "mend the file, try it with oomwatch check, and send SIGHUP".to_owned(),
        });
        self.owners.degrade(degraded);
        if self.told != words {
            error!(faults = faults.len(), "the settings file is bad and the old settings stay: {words}");
            self.told = words;
        }
        "failed"
    }

    fn take(&mut self, loaded: Loaded) -> &'static str {
        let values = loaded.values();
        let changed: Vec<_> = values.iter().filter(|(path, value)| self.values.get(*path) != Some(*value)).collect();
        let (live, mut waiting): (Vec<String>, Vec<String>) =
            changed.into_iter().map(|(path, _)| path.clone()).partition(|path| is_live(path));
        if loaded.config.secrets != self.in_force.secrets && waiting.is_empty() {
            waiting.push("the contents of page.token_file or profile.bearer_file".to_owned());
        }
        self.values.extend(values.into_iter().filter(|(path, _)| is_live(path)));
        self.in_force = merged(&self.in_force, loaded.config);
        (self.set_level)(self.in_force.log.level);
        self.owners.tell(&self.in_force);
        self.say(&live, &waiting);
        self.told.clear();
        "ok"
    }

    fn say(&self, live: &[String], waiting: &[String]) {
        let mut degraded = summary::degraded(&self.in_force);
        let what = if live.is_empty() { "nothing".to_owned() } else { live.join(", ") };
        info!("the settings were read again: changed {what}");
        if !waiting.is_empty() {
            let keys = waiting.join(", ");
            warn!("these settings stay as they were until a restart: {keys}");
            degraded.push(DegradedView {
                what: "settings".to_owned(),
                why: format!("these were changed in the file and stay as they were: {keys}"),
                fix: "restart the container".to_owned(),
            });
        }
        self.owners.degrade(degraded);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(text: &str) -> Loaded {
        config::from_text(Some((std::path::Path::new("test"), text)), &BTreeMap::new()).unwrap()
    }

    /// Of the settings in `text`, which are live, and whether they are all that is taken over.
    fn check(text: &str, all_live: bool) {
        let (old, new) = (loaded(""), loaded(text));
        let (before, after) = (old.values(), new.values());
        let changed: Vec<_> = after.iter().filter(|(path, value)| before.get(*path) != Some(*value)).collect();
        assert!(!changed.is_empty());
        assert!(changed.iter().all(|(path, _)| is_live(path) == all_live), "{changed:?}");
        let expected = if all_live { new.config.clone() } else { old.config.clone() };
        assert_eq!(merged(&old.config, new.config), expected);
    }

    #[test]
    fn what_is_called_live_is_taken_over_whole() {
        let text = "[aggregate]\nmax_contexts = 7\nmax_bytes = \"1MiB\"\ncounters = \"count\"\nhistogram_copy_to_distribution = true\n\
            counter_expiry = \"1m\"\nhistogram_aggregates = [\"max\"]\nhistogram_percentiles = [\"0.5\"]\nnamespace = \"n\"\n\
            [filter]\nmetrics = [\"a\"]\nmetrics_match_prefix = true\ntags = [{ metric = \"m\", action = \"exclude\", tags = [\"t\"] }]\n\
            namespace_exempt = [\"x\"]\n[datadog]\nenv = \"e\"\nservice = \"s\"\nversion = \"v\"\ntags = [\"a:b\"]\n\
            [alert]\nstartup_grace = \"5s\"\nexpected = \"9MiB\"\n[log]\nlevel = \"debug\"\n\
            [profile]\nbaseline_after = \"5s\"\ncooldown = \"5s\"\nmax_per_hour = 2\n\
            [[mapper]]\nname = \"p\"\nprefix = \"a.\"\nmappings = [{ match = \"a.*\", name = \"b\" }]\n";
        check(text, true);
        let changed: Vec<String> =
            loaded(text).values().into_iter().filter(|it| loaded("").values()[&it.0] != it.1).map(|it| it.0).collect();
        let missing: Vec<_> = LIVE.iter().filter(|live| !changed.iter().any(|path| path.starts_with(**live))).collect();
        assert!(missing.is_empty(), "this test leaves out {missing:?}");
    }

    #[test]
    fn what_was_decided_at_the_start_stays_as_it_was() {
        check(
            "[statsd]\nlisten = [\"127.0.0.1:1\"]\nmax_datagram = \"1KiB\"\n[aggregate]\ninterval = \"2s\"\n[watch]\ninterval = \"2s\"\n\
             [datadog]\noutput = \"none\"\nprofile_url = \"https://127.0.0.1:1\"\nhistorical = true\nown_metrics = false\n\
             [datadog.agent]\ntrace = \"http://127.0.0.1:1\"\n[spool]\nmax_memory = \"1MiB\"\n\
             [profile]\nurl = \"http://127.0.0.1:1/debug/pprof\"\nmax_files = 3\nupload = \"agent\"\n[page]\nlisten = \"127.0.0.1:2\"\n\
             [health]\nlisten = \"127.0.0.1:3\"\n[run]\nshutdown_timeout = \"3s\"\n[log]\nformat = \"json\"\n",
            false,
        );
    }
}
