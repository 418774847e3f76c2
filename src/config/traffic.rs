//! The settings of the way in, through and out: where StatsD is received, how it is aggregated, where it goes.
//!
//! Each field's words are also the comment in `sidecar.toml` and the row in `docs/configuration.md`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::keys::section;
use super::types::{AgentAddress, ByteSize, HttpUrl, TraceAddress};
use super::words::{Counters, MapperProfile, OutputChoice, TagFilter};

section! {
    /// The one key that stands above all sections.
    Top in "" {
        /// Mapper profiles, which turn dotted names into names with tags; usually written as tables at the end of the file, in
        /// place of this line. The first profile whose prefix fits decides, its first mapping that matches wins. For those
        /// who come from plain StatsD.
        mapper: Vec<MapperProfile> = "[]",
    }
}

section! {
    /// Where the app's metrics come in.
    Statsd in "statsd" {
        /// Addresses for DogStatsD over UDP. Both loopback addresses, because a client that resolves "localhost" to ::1 would
        /// lose its metrics in silence otherwise. Port 0 takes a free one. Change it when the port is taken; [] for none, when
        /// there is a Unix socket.
        listen: Vec<SocketAddr> = r#"["127.0.0.1:8125", "[::1]:8125"]"#,
        /// Path of a Unix datagram socket to receive on as well; "" for none. Its directory must be shared with the app
        /// (an emptyDir mounted in both containers). At most 107 bytes. For apps that must lose nothing when we are slow: their
        /// client learns that the socket is full.
        socket: Option<PathBuf> = r#""""#,
        /// Path of a Unix stream socket (frames with a 4-byte little-endian length), likewise; "" for none. At most 1,024
        /// connections; more are closed and counted as connections.
        stream_socket: Option<PathBuf> = r#""""#,
        /// Asked of the kernel for each UDP socket: it holds what comes while we are not scheduled. The kernel may grant less
        /// (net.core.rmem_max); a start that got less says so. Raise it when datagrams are dropped as kernel_rcvbuf.
        receive_buffer: ByteSize = r#""4MiB""#,
        /// The longest datagram, on all transports. The cut line of a longer one is dropped and counted; a longer
        /// frame of a stream is dropped whole. At most 64KiB.
        max_datagram: ByteSize = r#""8KiB""#,
        /// Allows addresses off loopback in statsd.listen. Anyone who reaches them can then send metrics as this app.
        non_local: bool = "false",
    }
}

section! {
    /// How samples become points.
    Aggregate in "aggregate" {
        /// Length of a window: whole seconds, at least 1s. Datadog expects 10s from StatsD; a shorter one sends more points.
        /// Towards an Agent, which sums up again over 10 s, only 1s, 2s, 5s or 10s.
        interval: Duration = r#""10s""#,
        /// The most contexts (type, name, host, tags) held at once. Beyond it samples fold into one overflow context for each
        /// metric name, so sums stay right. Raise it, together with the memory limit, when oomwatch.statsd.overflowed grows.
        max_contexts: u32 = "10000",
        /// The most memory for contexts and their values; what goes beyond folds as above.
        max_bytes: ByteSize = r#""16MiB""#,
        /// What a counter is sent as: "rate" (per second, as the Agent does) or "count" (the sum).
        counters: Counters = r#""rate""#,
        /// Sends each histogram and timing as a distribution of the same name as well.
        histogram_copy_to_distribution: bool = "false",
        /// How long a counter that is no longer incremented is sent as 0. "0s": never.
        counter_expiry: Duration = r#""5m""#,
        /// What is sent for a histogram: any of max, min, median, avg, sum, count.
        histogram_aggregates: Vec<String> = r#"["max", "median", "avg", "count"]"#,
        /// Percentiles sent for a histogram, each from 0.01 to 1; parts of a percent are cut off.
        histogram_percentiles: Vec<String> = r#"["0.95"]"#,
        /// Put in front of every metric name of the app, with a dot between; "" for nothing.
        namespace: String = r#""""#,
    }
}

section! {
    /// What is left out before it is aggregated.
    Filter in "filter" {
        /// Metric names that are dropped, as they leave: mapped, and with the namespace. One that ends in what a histogram adds
        /// ("latency.max") takes out that series alone. Counted as filtered and filtered_points.
        metrics: Vec<String> = "[]",
        /// Takes the names of filter.metrics as prefixes.
        metrics_match_prefix: bool = "false",
        /// Tags to keep or to drop, by metric: tables of { metric, action = "include" or "exclude", tags = keys }. Entries with
        /// the same action add up; exclude beats include. Our own tags (env, service, version, pod) always stay.
        tags: Vec<TagFilter> = "[]",
        /// Prefixes that aggregate.namespace is not put in front of: the Agent's own list.
        namespace_exempt: Vec<String> = r#"["datadog.agent", "datadog.dogstatsd", "datadog.process", "datadog.trace_agent", "datadog.tracer", "activemq", "activemq_58", "airflow", "cassandra", "confluent", "hazelcast", "hive", "ignite", "jboss", "jvm", "kafka", "presto", "sidekiq", "solr", "tomcat", "runtime"]"#,
    }
}

section! {
    /// Where everything goes, and under which name.
    Datadog in "datadog" {
        /// "intake" sends to Datadog itself, "agent" to a Datadog Agent, "none" nowhere (the local page still works).
        /// "auto": the intake when there is an API key, else the Agent when there is an address, else none.
        output: OutputChoice = r#""auto""#,
        /// Datadog's site, such as "datadoghq.eu". Also DD_SITE.
        site: String = r#""datadoghq.com""#,
        /// File with the API key. It is re-read when it changes, so a rotated secret needs no restart. A key in DD_API_KEY
        /// works too, and comes before a file named in sidecar.toml; but whatever may read our environment reads it there.
        api_key_file: Option<PathBuf> = r#""""#,
        /// Replaces `https://api.SITE`, for a proxy or a test; plain http only on loopback. Also DD_URL, DD_DD_URL.
        url: Option<HttpUrl> = r#""""#,
        /// Replaces https://intake.profile.<site> for profile.upload = "intake". For tests and proxies.
        profile_url: Option<HttpUrl> = r#""""#,
        /// Host name of everything sent to the intake; "" takes NODE_NAME. Replicas need a host name or a pod tag each, or
        /// they overwrite one another. Also DD_HOSTNAME.
        hostname: Option<String> = r#""""#,
        /// The env tag. Also DD_ENV.
        env: Option<String> = r#""""#,
        /// The service tag. Also DD_SERVICE.
        service: Option<String> = r#""""#,
        /// The version tag. Also DD_VERSION.
        version: Option<String> = r#""""#,
        /// Tags of everything that is sent, such as ["team:payments"]. Also DD_TAGS.
        tags: Vec<String> = "[]",
        /// PEM file with further certificate authorities, for a proxy that opens TLS. There is no switch to skip verification.
        ca_file: Option<PathBuf> = r#""""#,
        /// Lifts the age cap of one hour: only for accounts with historical metrics.
        historical: bool = "false",
        /// Sends oomwatch's own metrics (oomwatch.*), the app's memory among them. false keeps them on /metrics only.
        own_metrics: bool = "true",
    }
}

section! {
    /// The Datadog Agent to send to, where there is one. It must be the Agent's own address: one of statsd.listen would make
    /// us send to ourselves, and is refused.
    Agent in "datadog.agent" {
        /// "udp://host:port" or "unix:///path". Also DD_DOGSTATSD_URL, else DD_AGENT_HOST with DD_DOGSTATSD_PORT.
        dogstatsd: Option<AgentAddress> = r#""""#,
        /// Where the Agent takes profiles, "http://host:8126" or "unix:///path"; used by profile.upload = "agent" only. Also
        /// DD_TRACE_AGENT_URL, else DD_AGENT_HOST with DD_TRACE_AGENT_PORT.
        trace: Option<TraceAddress> = r#""""#,
    }
}

section! {
    /// What waits while Datadog cannot be reached.
    Spool in "spool" {
        /// Folder for what cannot be sent at once; "" keeps it in memory only, and a restart of the sidecar loses it. A folder
        /// of its own on an emptyDir: it outlives the container, not the pod. It holds metric names, tags and values, and no
        /// API key. One that cannot be used turns the spool off, and everything else goes on.
        dir: Option<PathBuf> = r#""""#,
        /// The most disk that waiting payloads may take, in blocks of 4KiB; at least 1MiB. Beyond it the oldest are dropped and
        /// counted as queue_full. With profile.max_size on the same volume, keep the sum below four fifths of its sizeLimit: the
        /// kubelet evicts the whole pod beyond that.
        max_size: ByteSize = r#""64MiB""#,
        /// The most memory that waiting payloads may take. Beyond it they go to spool.dir; where there is none, the oldest are
        /// dropped and counted as queue_full.
        max_memory: ByteSize = r#""4MiB""#,
        /// Payloads older than this are dropped and counted as too_old: Datadog takes no points older than an hour, unless
        /// datadog.historical says otherwise of series.
        max_age: Duration = r#""55m""#,
    }
}
