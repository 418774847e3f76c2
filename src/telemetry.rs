//! The catalogue of our own metrics: name, kind, unit, labels, a sentence. The one table behind Datadog names, Prometheus
//! names, HELP texts, `docs/metrics.md` and `metadata.csv`.
//!
//! Datadog names are dotted and fixed (people's dashboards rely on them); Prometheus names are made from them, with
//! underscores and the usual suffixes. Labels come from enums, never from the traffic, so the number of series is bounded
//! by this file.

use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};

/// How a value behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The latest value counts.
    Gauge,
    /// A running total here; what was added since the last flush in Datadog.
    Count,
}

/// What a value is measured in; the suffix of its Prometheus name and the unit of `metadata.csv`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    None,
    Bytes,
    BytesPerSecond,
    Seconds,
}

impl Unit {
    fn suffix(self) -> &'static str {
        match self {
            Unit::None => "",
            Unit::Bytes => "_bytes",
            Unit::BytesPerSecond => "_bytes_per_second",
            Unit::Seconds => "_seconds",
        }
    }

    /// (unit, per unit) as Datadog's `metadata.csv` spells them.
    fn datadog(self) -> (&'static str, &'static str) {
        match self {
            Unit::None => ("", ""),
            Unit::Bytes => ("byte", ""),
            Unit::BytesPerSecond => ("byte", "second"),
            Unit::Seconds => ("second", ""),
        }
    }
}

/// One row of the catalogue.
#[derive(Debug)]
pub struct Metric {
    /// The dotted Datadog name.
    pub name: &'static str,
    pub kind: Kind,
    pub unit: Unit,
    /// The one label it may carry, or `""`.
    pub label: &'static str,
    /// Sent to Datadog as well as shown on `/metrics`.
    pub datadog: bool,
    pub help: &'static str,
}

macro_rules! catalogue {
    ($($id:ident: $name:literal, $kind:ident, $unit:ident, $label:literal, $where:ident, $help:literal;)*) => {
        $(#[doc = $help] pub const $id: Metric = Metric {
            name: $name, kind: Kind::$kind, unit: Unit::$unit, label: $label, datadog: catalogue!(@ $where), help: $help,
        };)*
        /// Every metric we have, in the order of the docs page.
        pub const CATALOGUE: &[&Metric] = &[$(&$id),*];
    };
    (@ datadog) => { true };
    (@ local) => { false };
}

catalogue! {
    APP_RSS: "oomwatch.app.memory.rss", Gauge, Bytes, "", datadog, "Resident memory of the watched process tree.";
    APP_WORKING_SET: "oomwatch.app.memory.working_set", Gauge, Bytes, "", datadog, "Working set of the app's cgroup, as the kubelet counts it; page cache in use is part of it.";
    APP_ANONYMOUS: "oomwatch.app.memory.anonymous", Gauge, Bytes, "", datadog, "Memory of the app that the kernel cannot take back: what the growth rules look at.";
    APP_LIMIT: "oomwatch.app.memory.limit", Gauge, Bytes, "", datadog, "The memory limit at which the kernel kills the app.";
    APP_SLOPE: "oomwatch.app.memory.slope", Gauge, BytesPerSecond, "", datadog, "How fast the app's memory grows; absent while it does not.";
    APP_TIME_TO_LIMIT: "oomwatch.app.memory.time_to_limit", Gauge, Seconds, "", datadog, "Time until the limit at the present growth; absent while memory does not grow.";
    APP_THREADS: "oomwatch.app.threads", Gauge, None, "", datadog, "OS threads of the app.";
    APP_GOROUTINES: "oomwatch.app.goroutines", Gauge, None, "", datadog, "Goroutines, from the index page of the app's pprof endpoint.";
    APP_HEAP: "oomwatch.app.heap", Gauge, Bytes, "", datadog, "Live Go heap, as the last profile told; none once three regular pulls are missing.";
    APP_FDS: "oomwatch.app.fds", Gauge, None, "", datadog, "Open file descriptors of the app.";
    APP_STATSD_CLIENTS: "oomwatch.app.statsd_clients", Gauge, None, "", datadog, "Live StatsD clients: sockets of the app that are connected to our port or Unix sockets.";
    APP_RESTARTS: "oomwatch.app.restarts", Count, None, "", datadog, "Restarts of the app seen since the sidecar started.";
    APP_OOM_KILLS: "oomwatch.app.oom_kills", Count, None, "", datadog, "Kills of the app by the kernel for memory.";
    INCIDENTS_OPEN: "oomwatch.incidents.open", Gauge, None, "", datadog, "Incidents that are open now.";
    PROFILES_ATTEMPTED: "oomwatch.profiles.attempted", Count, None, "", local, "Profiles that were wanted: each is pulled, failed or suppressed.";
    PROFILES_PULLED: "oomwatch.profiles.pulled", Count, None, "", datadog, "Profiles pulled from the app and kept.";
    PROFILES_FAILED: "oomwatch.profiles.failed", Count, None, "reason", local, "Pulls of a profile that brought none, by reason.";
    PROFILES_SUPPRESSED: "oomwatch.profiles.suppressed", Count, None, "reason", local, "Rounds of pulls not begun, by reason.";
    PROFILES_UNCOMPARED: "oomwatch.profiles.uncompared", Count, None, "reason", local, "Profiles that were stored and left out of the comparison, by reason.";
    PROFILE_UPLOADS: "oomwatch.profile.uploads", Count, None, "result", local, "Uploads of an incident's profiles to Datadog, by result; all but sent are losses, docs/operations.md has each.";
    STATSD_DATAGRAMS: "oomwatch.statsd.datagrams", Count, None, "", datadog, "Datagrams received from the app.";
    STATSD_SAMPLES: "oomwatch.statsd.samples", Count, None, "", datadog, "Samples received from the app; each value of a packed line counts.";
    STATSD_EVENTS: "oomwatch.statsd.events", Count, None, "", local, "Events received from the app.";
    STATSD_CHECKS: "oomwatch.statsd.service_checks", Count, None, "", local, "Service checks received from the app.";
    STATSD_LINES: "oomwatch.statsd.lines", Count, None, "", local, "Lines received from the app, blank ones included.";
    STATSD_OVERFLOWED: "oomwatch.statsd.overflowed", Count, None, "", local, "Samples folded into an overflow context because max_contexts or max_bytes was reached.";
    STATSD_CONTEXTS: "oomwatch.statsd.contexts", Gauge, None, "", datadog, "Contexts (type, name, host, tags) held now.";
    STATSD_CONTEXT_BYTES: "oomwatch.statsd.contexts.size", Gauge, Bytes, "", local, "Memory charged to contexts and their values.";
    STATSD_SENDERS: "oomwatch.statsd.senders", Gauge, None, "", datadog, "Distinct source ports of datagrams in the last 10 s; more than the app has clients for means clients that are never closed.";
    STATSD_NEW_SENDERS: "oomwatch.statsd.new_senders", Count, None, "", datadog, "Source ports of datagrams that had been silent for the minute before: clients that were made; many, while the live ones stay few, are clients made for each job.";
    STATSD_REPORTING: "oomwatch.statsd.reporting_clients", Gauge, None, "", datadog, "Reports of Datadog clients on themselves in the last 10 s: one a live client with telemetry, on any transport.";
    STATSD_CLIENT_DROPS: "oomwatch.statsd.client_reported_drops", Count, None, "unit", datadog, "What Datadog clients say that they dropped before it was sent: packets, metrics or bytes.";
    OUTPUT_FAILURES: "oomwatch.output.failures", Count, None, "reason", local, "Requests to the intake that did not deliver, by what was wrong; docs/operations.md has each.";
    DROPPED: "oomwatch.dropped", Count, None, "reason", datadog, "What was lost, by reason: lines, samples, datagrams or points; docs/operations.md has each.";
    POINTS_FLUSHED: "oomwatch.points.flushed", Count, None, "", local, "Points handed to the output by flushes.";
    POINTS_RESTORED: "oomwatch.points.restored", Count, None, "", local, "Points found on disk at the start: what an earlier run could not send.";
    POINTS_DELIVERED: "oomwatch.points.delivered", Count, None, "", local, "Points that Datadog or the Agent took.";
    POINTS_QUEUED: "oomwatch.points.queued", Gauge, None, "", local, "Points that wait in memory or on disk, or are on their way.";
    OUTPUT_LAST_SUCCESS: "oomwatch.output.last_success.age", Gauge, Seconds, "", local, "Time since the last success of the output, or since the start before the first.";
    OUTPUT_OUTAGE_LEFT: "oomwatch.output.outage_left", Gauge, Seconds, "", local, "How long an outage of the output may still last before points are lost; absent while that is not known.";
    SPOOL_BYTES: "oomwatch.spool.bytes", Gauge, Bytes, "", datadog, "Payloads waiting to be sent again.";
    SPOOL_DISK: "oomwatch.spool.disk", Gauge, Bytes, "", local, "What the disk spool takes of its volume, in whole blocks.";
    SPOOL_STATE: "oomwatch.spool.state", Gauge, None, "spool", local, "1 for what the spool is: memory (no folder is set), disk, failing (the disk fails for now) or disabled (the folder cannot be used).";
    SPOOL_CORRUPT: "oomwatch.spool.corrupt", Count, None, "", local, "Files of the spool that were not what was written, and were skipped.";
    STATE_FAILED: "oomwatch.state.failed", Count, None, "reason", local, "State files that could not be used at the start (read, damaged, version) or be written (write).";
    REDELIVERED: "oomwatch.redelivered", Count, None, "", local, "Points of distributions sent after a crash that may have arrived before it: at most so many count twice.";
    SELF_RSS: "oomwatch.self.rss", Gauge, Bytes, "", datadog, "Resident memory of the sidecar itself.";
    IDENTITY_ERROR: "oomwatch.identity.error", Gauge, None, "id", local, "Right side minus left side of an accounting identity; anything but 0 is a defect of oomwatch.";
    READINGS_FAILED: "oomwatch.readings.failed", Count, None, "", local, "Readings of /proc or the cgroup that brought no memory figure.";
    CONFIG_RELOADS: "oomwatch.config.reloads", Count, None, "result", local, "Settings files read again after SIGHUP: taken over (ok) or refused, the old settings kept (failed).";
    TASK_RESTARTS: "oomwatch.task.restarts", Count, None, "task", local, "Restarts of a task that may be restarted.";
}

impl Metric {
    /// The Prometheus name: underscores, unit, `_total` for a count.
    pub fn prometheus(&self) -> String {
        let stem = self.name.replace('.', "_");
        let unit = self.unit.suffix();
        let unit = if stem.ends_with(unit) { "" } else { unit };
        let total = if self.kind == Kind::Count { "_total" } else { "" };
        format!("{stem}{unit}{total}")
    }
}

/// A gauge of the catalogue as `/metrics` shows it.
pub fn gauge(metric: &'static Metric, label: Option<&'static str>) -> metrics::Gauge {
    debug_assert_eq!(metric.kind, Kind::Gauge);
    match label {
        Some(value) => metrics::gauge!(metric.prometheus(), metric.label => value),
        None => metrics::gauge!(metric.prometheus()),
    }
}

/// A count of the catalogue as `/metrics` shows it.
pub fn count(metric: &'static Metric, label: Option<&'static str>) -> metrics::Counter {
    debug_assert_eq!(metric.kind, Kind::Count);
    match label {
        Some(value) => metrics::counter!(metric.prometheus(), metric.label => value),
        None => metrics::counter!(metric.prometheus()),
    }
}

/// Installs the recorder of this process and describes every metric, so that HELP is there before the first value.
///
/// No histograms are registered anywhere, so the exporter's upkeep has nothing to drain.
///
/// # Errors
/// When a recorder is installed already.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new().install_recorder()?;
    for metric in CATALOGUE {
        let name = metric.prometheus();
        match metric.kind {
            Kind::Gauge => metrics::describe_gauge!(name, metric.help),
            Kind::Count => metrics::describe_counter!(name, metric.help),
        }
    }
    Ok(handle)
}

/// `metadata.csv` in the layout of Datadog's integrations.
pub fn metadata_csv() -> String {
    let mut csv = String::from(
        "metric_name,metric_type,interval,unit_name,per_unit_name,description,orientation,integration,short_name,curated_metric\n",
    );
    for metric in CATALOGUE.iter().filter(|metric| metric.datadog) {
        let kind = if metric.kind == Kind::Gauge { "gauge" } else { "count" };
        let (unit, per) = metric.unit.datadog();
        let short = metric.name.trim_start_matches("oomwatch.").replace('.', " ");
        csv += &format!("{},{kind},10,{unit},{per},\"{}\",0,oomwatch,{short},\n", metric.name, metric.help);
    }
    csv
}

/// The body of `docs/metrics.md`.
pub fn markdown() -> String {
    let mut page = String::from(
        "# Metrics\n\nMade from the catalogue in `src/telemetry.rs`; a test compares. Counts are running totals on `/metrics` and \
         what was added since the last flush in Datadog.\n\n| Datadog | Prometheus | kind | tag | meaning |\n|---|---|---|---|---|\n",
    );
    for metric in CATALOGUE {
        let datadog = if metric.datadog { format!("`{}`", metric.name) } else { "–".to_owned() };
        let kind = if metric.kind == Kind::Gauge { "gauge" } else { "count" };
        page += &format!("| {datadog} | `{}` | {kind} | {} | {} |\n", metric.prometheus(), metric.label, metric.help);
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_names_carry_unit_and_total_once() {
        assert_eq!(APP_RSS.prometheus(), "oomwatch_app_memory_rss_bytes");
        assert_eq!(SPOOL_BYTES.prometheus(), "oomwatch_spool_bytes");
        assert_eq!(APP_OOM_KILLS.prometheus(), "oomwatch_app_oom_kills_total");
        assert_eq!(APP_TIME_TO_LIMIT.prometheus(), "oomwatch_app_memory_time_to_limit_seconds");
    }

    #[test]
    fn no_name_stands_twice() {
        let mut names: Vec<_> = CATALOGUE.iter().map(|metric| metric.prometheus()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), CATALOGUE.len());
    }

    #[test]
    fn docs_page_and_metadata_are_made_from_the_catalogue() {
        assert_eq!(
            include_str!("../docs/metrics.md"),
            markdown(),
            "write docs/metrics.md again: OOMWATCH_WRITE_DOCS=1 cargo test"
        );
        assert_eq!(include_str!("../docs/datadog/metadata.csv"), metadata_csv());
    }
}
