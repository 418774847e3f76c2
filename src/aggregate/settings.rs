//! The settings of aggregation, checked when they are built, so that nothing later parses them again.

use std::sync::LazyLock;

use super::{Filter, Mapper};

/// What the aggregator may be told. The defaults are the Agent's, but for the two limits, which it does not have.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Length of a bucket in seconds; default 10, and nothing else if an Agent aggregates again behind us. 0 counts as 1.
    pub interval_seconds: u32,
    /// Contexts held at most; default 10,000. A new one beyond that is folded into its name's overflow context.
    pub max_contexts: usize,
    /// Bytes for contexts and their values; default 16 MiB. Beyond it new contexts are folded, and histogram samples, set
    /// members and sketch bins are refused. Counters and gauges of known contexts go on.
    pub max_bytes: usize,
    /// How sums go out; default a rate, as the Agent sends them.
    pub counters: Counters,
    /// How long an idle counter is reported as 0, in seconds; default 300. 0 stops zeros altogether.
    pub counter_expiry_seconds: u32,
    /// What a histogram tells, in this order; default max, median, avg, count.
    pub histogram_aggregates: Vec<Aggregate>,
    /// Default the 95th.
    pub histogram_percentiles: Vec<Percentile>,
    /// Put before every name of the app's, with a dot between; default empty.
    pub namespace: String,
    /// Names that begin with one of these keep their name; default the Agent's list.
    pub namespace_exempt: Vec<String>,
    /// Names and tags that are left out; default none.
    pub filter: Filter,
    /// Turns dotted names into names with tags; default none.
    pub mapper: Mapper,
    /// Every sample of a histogram or timing goes into a distribution of the same name as well; default false.
    pub copy_histograms: bool,
    /// `key:value` tags for every context in which the key is absent: env, service, version, the pod's name.
    pub tags: Vec<String>,
    /// Accept timestamped samples older than an hour; default false, because Datadog ignores them then.
    pub historical: bool,
    /// Who aggregates last; default the intake's way.
    pub mode: Mode,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            interval_seconds: 10,
            max_contexts: 10_000,
            max_bytes: 16 * 1024 * 1024,
            counters: Counters::Rate,
            counter_expiry_seconds: 300,
            histogram_aggregates: vec![Aggregate::Max, Aggregate::Median, Aggregate::Avg, Aggregate::Count],
            histogram_percentiles: Percentile::from_fraction(0.95).into_iter().collect(),
            namespace: String::new(),
            namespace_exempt: NAMESPACE_EXEMPT.iter().map(|prefix| (*prefix).to_owned()).collect(),
            filter: Filter::default(),
            mapper: Mapper::default(),
            copy_histograms: false,
            tags: Vec::new(),
            historical: false,
            mode: Mode::Intake,
        }
    }
}

/// `statsd_metric_namespace_blacklist` of the Agent (`pkg/config/setup/config.go`).
const NAMESPACE_EXEMPT: &[&str] = &[
    "datadog.agent",
    "datadog.dogstatsd",
    "datadog.process",
    "datadog.trace_agent",
    "datadog.tracer",
    "activemq",
    "activemq_58",
    "airflow",
    "cassandra",
    "confluent",
    "hazelcast",
    "hive",
    "ignite",
    "jboss",
    "jvm",
    "kafka",
    "presto",
    "sidekiq",
    "solr",
    "tomcat",
    "runtime",
];

/// The form in which sums reach the intake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Counters {
    /// Sum divided by the interval, type rate.
    #[default]
    Rate,
    /// The sum, type count.
    Count,
}

/// Where the windows go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Straight to Datadog: everything is aggregated here, origins are dropped.
    #[default]
    Intake,
    /// Through an Agent's DogStatsD: counters and gauges are summed up, the rest is passed on raw so that it is aggregated
    /// once, and contexts are told apart by their origin too. Nothing is zero-filled: the Agent does that.
    Agent,
}

/// One number that a histogram tells of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregate {
    Min,
    Max,
    Median,
    Avg,
    Sum,
    Count,
}

impl Aggregate {
    /// By its name in `histogram_aggregates`.
    pub fn from_name(name: &str) -> Option<Aggregate> {
        Some(match name {
            "min" => Aggregate::Min,
            "max" => Aggregate::Max,
            "median" => Aggregate::Median,
            "avg" => Aggregate::Avg,
            "sum" => Aggregate::Sum,
            "count" => Aggregate::Count,
            _ => return None,
        })
    }

    pub(super) fn suffix(self) -> &'static str {
        match self {
            Aggregate::Min => ".min",
            Aggregate::Max => ".max",
            Aggregate::Median => ".median",
            Aggregate::Avg => ".avg",
            Aggregate::Sum => ".sum",
            Aggregate::Count => ".count",
        }
    }
}

/// A whole percentile, 1 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percentile(u8);

static SUFFIXES: LazyLock<Vec<String>> = LazyLock::new(|| (0..=100).map(|p| format!(".{p}percentile")).collect());

impl Percentile {
    /// From `0.95`, rounded to a whole percent as the Agent does (`p * 100 + 0.5`, cut). `None` outside (0, 1].
    pub fn from_fraction(fraction: f64) -> Option<Percentile> {
        let percent = (fraction * 100.0 + 0.5).floor();
        (1.0..=100.0).contains(&percent).then_some(Percentile(percent as u8))
    }

    pub(super) fn percent(self) -> u64 {
        u64::from(self.0)
    }

    pub(super) fn suffix(self) -> &'static str {
        &SUFFIXES[usize::from(self.0)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_round_to_whole_names() {
        for (fraction, suffix) in
            [(0.95, Some(".95percentile")), (0.999, Some(".100percentile")), (0.29, Some(".29percentile"))]
        {
            assert_eq!(Percentile::from_fraction(fraction).map(Percentile::suffix), suffix);
        }
        for fraction in [0.0, -1.0, 1.01, f64::NAN, f64::INFINITY] {
            assert_eq!(Percentile::from_fraction(fraction), None);
        }
    }
}
