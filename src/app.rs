//! Wiring: binds the sockets, builds every task, owns the JoinSet, drains. The only file that knows everybody.
//!
//! Binding comes first and tells all its faults at once; nothing is spawned before everything stands. At SIGTERM only the
//! sources and the two HTTP servers are told to stop: the rest ends as its input closes, having flushed, under the one
//! deadline of `run.shutdown_timeout`.

mod bind;
mod settings;
mod summary;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::config::{Config, Output};
use crate::pipeline::{self, OwnMetric, Rollup, Runtime, StopTime, investigate, wall_clock};
use crate::sink::{agent::Agent, intake::Intake, none::Discard, store::Store, upload::Uploader};
use crate::snapshot::{About, OutputPart, Snapshots, StatsdPart, WatchPart, rfc3339};
use crate::source::{puller::Puller, sampler::Sampler};
use crate::{aggregate::Aggregator, detect::Detectors, page, telemetry};

use bind::Bound;

/// How the sidecar ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// Told to stop, and drained.
    Drained,
    /// The drain was cut by its deadline or by a second signal.
    Cut,
    /// A task ended that should not have.
    TaskDied,
    /// It could not begin: what is wrong, all of it, each with what to do.
    Refused(Vec<String>),
}

/// The sidecar from start to end.
pub async fn run(config: Config) -> Ended {
    let metrics = match telemetry::install() {
        Ok(handle) => handle,
        Err(fault) => return Ended::Refused(vec![format!("set up /metrics: {fault}")]),
    };
    let (mut terminate, mut interrupt) = match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
        (Err(fault), _) | (_, Err(fault)) => return Ended::Refused(vec![format!("listen for signals: {fault}")]),
    };
    let bound = match Bound::bind(&config).await {
        Ok(bound) => bound,
        Err(faults) => return Ended::Refused(faults),
    };
    let stopped = StopTime::default();
    let sink = match Sink::build(&config, &stopped) {
        Ok(sink) => sink,
        Err(fault) => return Ended::Refused(vec![fault]),
    };
    let uploader = match settings::upload(&config, stopped.clone()).map(Uploader::new).transpose() {
        Ok(uploader) => uploader,
        Err(fault) => return Ended::Refused(vec![fault]),
    };
    summary::print(&config, &bound);
    let stop = CancellationToken::new();
    let mut tasks = Tasks::default();
    if let Err(fault) = spawn(&config, bound, (sink, uploader), metrics, &stop, &mut tasks) {
        return Ended::Refused(vec![fault]);
    }
    let early = tokio::select! {
        name = tasks.ended() => Some(name),
        () = told(&mut terminate, &mut interrupt) => None,
    };
    if let Some(name) = early {
        error!(task = name, "a task ended that should not have: stopping");
    } else {
        info!("told to stop: receiving what is still under way, then flushing");
    }
    // Written once; nobody else writes it.
    let _ = stopped.set(Instant::now());
    stop.cancel();
    let sources = tasks.abort_handles("statsd");
    let drained = tokio::select! {
        () = tasks.all() => true,
        // Never true: an app that goes on talking is left, so that what it said so far can still be sent.
        true = leave(&sources, config.run.shutdown_timeout.mul_f64(SOURCES_SHARE)) => false,
        () = tokio::time::sleep(config.run.shutdown_timeout) => false,
        () = told(&mut terminate, &mut interrupt) => false,
    };
    match (early, drained) {
        (Some(_), _) => Ended::TaskDied,
        (None, true) => Ended::Drained,
        (None, false) => {
            warn!("the drain was cut: what was not sent is lost");
            Ended::Cut
        }
    }
}

/// Of the shutdown time, what the sources may take to fall quiet.
const SOURCES_SHARE: f64 = 0.65;

async fn leave(sources: &[AbortHandle], after: Duration) -> bool {
    tokio::time::sleep(after).await;
    sources.iter().for_each(AbortHandle::abort);
    false
}

async fn told(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Every task of this process, by name.
#[derive(Default)]
struct Tasks {
    set: JoinSet<&'static str>,
    names: std::collections::HashMap<tokio::task::Id, &'static str>,
    handles: Vec<(&'static str, AbortHandle)>,
}

impl Tasks {
    fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.set.spawn(async move {
            task.await;
            name
        });
        self.names.insert(handle.id(), name);
        self.handles.push((name, handle));
    }

    fn abort_handles(&self, name: &str) -> Vec<AbortHandle> {
        self.handles.iter().filter(|it| it.0.starts_with(name)).map(|it| it.1.clone()).collect()
    }

    /// The name of the next task to end, be it by a panic.
    async fn ended(&mut self) -> &'static str {
        match self.set.join_next().await {
            Some(Ok(name)) => name,
            Some(Err(fault)) => {
                let name = self.names.get(&fault.id()).copied().unwrap_or("unknown");
                if fault.is_panic() {
                    error!(task = name, "a task panicked: {fault}");
                }
                name
            }
            None => "none",
        }
    }

    async fn all(&mut self) {
        while !self.set.is_empty() {
            self.ended().await;
        }
    }
}

/// Where windows and events go.
enum Sink {
    Intake(Box<Intake>),
    Agent(Box<Agent>),
    None(Discard),
}

impl Sink {
    fn build(config: &Config, stopped: &StopTime) -> Result<Sink, String> {
        match &config.output {
            Output::Intake { .. } => {
                Intake::new(settings::intake(config, stopped.clone())).map(|sink| Sink::Intake(Box::new(sink)))
            }
            Output::Agent(_) => {
                Agent::new(settings::agent(config, stopped.clone())).map(|sink| Sink::Agent(Box::new(sink)))
            }
            Output::None => Ok(Sink::None(Discard::new(wall_clock))),
        }
    }

    async fn run(self, input: mpsc::Receiver<pipeline::Outgoing>, status: watch::Sender<Arc<OutputPart>>) {
        match self {
            Sink::Intake(sink) => sink.run(input, status).await,
            Sink::Agent(sink) => sink.run(input, status).await,
            Sink::None(sink) => sink.run(input, status).await,
        }
    }
}

/// Builds every task with its channels and spawns them.
fn spawn(
    config: &Config,
    bound: Bound,
    (sink, uploader): (Sink, Option<Uploader>),
    metrics: PrometheusHandle,
    stop: &CancellationToken,
    tasks: &mut Tasks,
) -> Result<(), String> {
    let (batches, batches_in) = mpsc::channel(pipeline::BATCHES);
    let (outgoing, outgoing_in) = mpsc::channel(pipeline::OUTGOING);
    let (own, own_in) = mpsc::channel::<Vec<OwnMetric>>(pipeline::OWN_METRICS);
    let (observations, observations_in) = mpsc::channel(pipeline::OBSERVATIONS);
    let (findings, findings_in) = mpsc::channel(pipeline::FINDINGS);
    let (pulls, pulls_in) = mpsc::channel(pipeline::PULLS);
    let (asked, asked_in) = mpsc::channel(pipeline::ASKED);
    let (store, store_in) = mpsc::channel(pipeline::STORE);
    let (uploads, uploads_in) = mpsc::channel(pipeline::UPLOADS);
    let (pace, pace_in) = watch::channel(config.watch.interval);
    let (runtime, runtime_in) = watch::channel(Runtime::default());
    let (statsd, statsd_part) = watch::channel(Arc::new(StatsdPart::default()));
    let (output, output_part) = watch::channel(Arc::new(OutputPart::default()));
    let (watched, watch_part) = watch::channel(Arc::new(WatchPart::default()));
    let (incidents, incidents_part) = watch::channel(Arc::default());

    let puller = Puller::new(&settings::puller(config))?;
    let sampler = Sampler::new(settings::sampler(config, &bound, puller.local_port()));
    let detectors = Detectors::new(settings::detectors(config));
    let watch_wires = pipeline::watch::Wires {
        observations: observations_in,
        pace,
        own: own.clone(),
        findings,
        runtime: runtime_in,
        part: watched,
    };
    let watch = pipeline::watch::Watch::new(detectors, config.watch.interval, wall_clock, watch_wires);
    let wires = investigate::Wires {
        findings: findings_in,
        asked: asked_in,
        pulls,
        store: store.clone(),
        uploads: uploader.is_some().then_some(uploads),
        outgoing: outgoing.clone(),
        own,
        runtime,
        incidents,
    };
    let who = settings::identity(config, &bound);
    let investigation = investigate::Investigation::new(settings::plan(config), who, wall_clock, wires);
    let rollup = Rollup {
        aggregator: Aggregator::new(settings::aggregate(config)),
        batches: batches_in,
        own: own_in,
        out: outgoing,
        snapshot: statsd,
        output: output_part.clone(),
        wall_clock,
        flush_every: config.aggregate.interval,
        own_metrics: config.datadog.own_metrics,
    };
    let about = About {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: rfc3339(wall_clock()),
        degraded: summary::degraded(config),
    };
    let parts = Snapshots {
        statsd: statsd_part,
        output: output_part,
        watch: watch_part,
        incidents: incidents_part,
        about: Arc::new(about),
    };

    for source in bound.statsd {
        tasks.spawn("statsd", source.run(batches.clone(), stop.clone()));
    }
    if let Some(source) = bound.unixgram {
        tasks.spawn("statsd unixgram", source.run(batches.clone(), stop.clone()));
    }
    if let Some(source) = bound.unixstream {
        tasks.spawn("statsd unixstream", source.run(batches.clone(), stop.clone()));
    }
    tasks.spawn("sampler", sampler.run(observations, pace_in, stop.clone()));
    tasks.spawn("puller", puller.run(pulls_in));
    tasks.spawn("rollup", rollup.run());
    tasks.spawn("watch", watch.run());
    tasks.spawn("investigate", investigation.run());
    tasks.spawn("sink", sink.run(outgoing_in, output));
    if let Some(uploader) = uploader {
        tasks.spawn("upload", uploader.run(uploads_in));
    }
    tasks.spawn("store", Store::new(settings::store(config)).run(store_in));
    tasks.spawn("health", bound.health.run(metrics, stop.clone()));
    tasks.spawn("page", bound.page.run(parts, page::Wires { store, asked }, stop.clone()));
    Ok(())
}
