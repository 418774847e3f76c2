//! The settings of the watch: which process, when growth is an alert, how profiles are pulled and kept, and what is served.
//!
//! Each field's words are also the comment in `sidecar.toml` and the row in `docs/configuration.md`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::keys::section;
use super::types::{ByteSize, HttpUrl, Limit, Pattern};
use super::words::{LogFormat, LogLevel, Upload};

section! {
    /// The process whose memory is watched. With none of pid, name and cmdline set it is found: the owner of the pprof port,
    /// else the only process tree in the pod that is not ours, else the largest. The rule that matched is always told.
    Watch in "watch" {
        /// Process id; 0 to look for the process.
        pid: Option<i32> = "0",
        /// Name of the process as /proc/PID/comm has it, at most 15 characters; "" for any.
        name: Option<String> = r#""""#,
        /// Regular expression that the command line must match; "" for any.
        cmdline: Option<Pattern> = r#""""#,
        /// Counts the children of the process in.
        tree: bool = "true",
        /// Time between two looks at the app's memory, at least 100ms. Near the limit it is 250ms at most.
        interval: Duration = r#""1s""#,
        /// The memory limit: "auto" reads the app's cgroup, else APP_MEMORY_LIMIT. A size where neither tells the truth.
        limit: Limit = r#""auto""#,
        /// Where /proc is mounted. For tests.
        proc: PathBuf = r#""/proc""#,
    }
}

section! {
    /// When growth is an alert. The defaults are the ones that the detector was scored with.
    Alert in "alert" {
        /// The rules for slow growth wait this long after the app's start, because a starting app always grows. Fast growth,
        /// bursts and the nearness of the limit are told at any time.
        startup_grace: Duration = r#""60s""#,
        /// Up to this size growth is known and raises notices only, such as "192MiB" for a cache that fills; "" for none.
        expected: Option<ByteSize> = r#""""#,
    }
}

section! {
    /// What outlives a restart of the sidecar.
    State in "state" {
        /// Folder for what the rules learned (plateaus of earlier runs, what was told already) and the last 50 incidents; "" for
        /// none. On an emptyDir it outlives a restart of the sidecar, on a volume of its own the pod. One that cannot be used
        /// costs the state and nothing else.
        dir: Option<PathBuf> = r#""""#,
    }
}

section! {
    /// How profiles of the app are pulled and kept.
    Profile in "profile" {
        /// Where the app serves net/http/pprof: plain http, on loopback unless profile.allow_hosts names the host.
        url: HttpUrl = r#""http://127.0.0.1:6060/debug/pprof""#,
        /// Hosts other than loopback that may be pulled from.
        allow_hosts: Vec<String> = "[]",
        /// File with a bearer token, sent to profile.url only; "" for none.
        bearer_file: Option<PathBuf> = r#""""#,
        /// A plain profile is pulled at first sight of the app, and replaced by one of the healthy app after this time.
        baseline_after: Duration = r#""60s""#,
        /// Least time between two rounds of pulls. Baselines do not count, and an alert that turns critical does not wait.
        cooldown: Duration = r#""60s""#,
        /// The most rounds of pulls in an hour; baselines do not count.
        max_per_hour: u32 = "6",
        /// Asks for a full goroutine dump (debug=2) at the end of a critical round, to tell who started the goroutines that pile up:
        /// below 2,000 goroutines and with more than 64 MiB left to the limit only, because it stops the app. The arguments of
        /// functions that stand in it are cut off as it is read; it is neither kept nor uploaded.
        debug2: bool = "false",
        /// Folder for pulled profiles, on disk and not memory-backed; "" keeps them in memory, where they end with the pod.
        dir: Option<PathBuf> = r#""""#,
        /// The most memory for profiles where there is no folder.
        max_memory: ByteSize = r#""8MiB""#,
        /// The most disk for profiles. Keep it well under the volume's sizeLimit: the kubelet evicts the whole pod beyond it.
        max_size: ByteSize = r#""64MiB""#,
        /// The most profiles kept; the oldest goes first.
        max_files: u32 = "20",
        /// Sends the profiles of an incident (heap and goroutines, no baselines) to Datadog: "agent" through datadog.agent.trace,
        /// the recommended way; "intake" straight to Datadog with the API key, a way that Datadog does not promise to keep;
        /// "off" for neither. A profile holds names of functions and files, and no data of the app.
        upload: Upload = r#""off""#,
    }
}

section! {
    /// The local page: kubectl port-forward reaches it on loopback.
    Page in "page" {
        /// Address of the page. Off loopback it needs page.token_file. Port 0 takes a free one.
        listen: SocketAddr = r#""127.0.0.1:7070""#,
        /// Further Host names under which the page may be asked for. Without them only loopback's names are answered, so that
        /// a web page elsewhere cannot read it through a rebound name.
        hosts: Vec<String> = "[]",
        /// The page's address as people reach it, for the links in events; "" gives a port-forward line instead.
        public_url: Option<HttpUrl> = r#""""#,
        /// File with the token that the page asks for; "" for none, which only loopback allows.
        token_file: Option<PathBuf> = r#""""#,
    }
}

section! {
    /// For the kubelet and Prometheus: /livez, /readyz, /metrics, and nothing else.
    Health in "health" {
        /// Address of the health listener. The kubelet probes the pod's address, so manifests set "0.0.0.0:9464".
        listen: SocketAddr = r#""127.0.0.1:9464""#,
    }
}

section! {
    /// How it ends.
    Run in "run" {
        /// The most time between SIGTERM and the end: the last samples are received, flushed and sent in it. Keep it under the
        /// pod's terminationGracePeriodSeconds.
        shutdown_timeout: Duration = r#""8s""#,
    }
}

section! {
    /// What it says about itself, on standard error.
    Log in "log" {
        /// "error", "warn", "info", "debug" or "trace".
        level: LogLevel = r#""info""#,
        /// "text" for people, "json" for machines.
        format: LogFormat = r#""text""#,
    }
}
