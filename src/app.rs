//! Wiring: binds the sockets, builds every task, owns the JoinSet, drains. The only file that knows everybody.
//!
//! Binding comes first and tells all its faults at once; nothing is spawned before everything stands. At SIGTERM only the
//! sources and the two HTTP servers are told to stop: the rest ends as its input closes, having flushed, under the one
//! deadline of `run.shutdown_timeout`.

mod bind;
mod doctor;
mod kept;
mod own_address;
mod reload;
mod settings;
mod summary;
mod tasks;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::config::{Config, Loaded, Output};
use crate::pipeline::past::Past;
use crate::pipeline::saved::Saved;
use crate::pipeline::{self, OwnMetric, Rollup, Runtime, StopTime, investigate, wall_clock};
use crate::sink::state::{self as state_file, StateFile};
use crate::sink::{agent::Agent, intake::Intake, last_partial, none::Discard, store::Store, upload::Uploader};
use crate::snapshot::{OutputPart, Snapshots, StatsdPart, WatchPart};
use crate::source::{puller::Puller, sampler};
use crate::{aggregate::Aggregator, detect::Detectors, page, telemetry};

use bind::Bound;
pub use doctor::{Finding, State, examine};
pub use reload::SetLevel;
use reload::{Owners, Reload};
use tasks::Tasks;

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

/// What a run begins with.
pub struct Start {
    pub loaded: Loaded,
    /// `--config`, for the reload to look where the start looked.
    pub path: Option<PathBuf>,
    pub set_level: SetLevel,
}

impl std::fmt::Debug for Start {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Start").field("loaded", &self.loaded).field("path", &self.path).finish_non_exhaustive()
    }
}

/// The sidecar from start to end.
pub async fn run(start: Start) -> Ended {
    let metrics = match telemetry::install() {
        Ok(metrics) => metrics,
        Err(fault) => return Ended::Refused(vec![format!("set up /metrics: {fault}")]),
    };
    match Bound::bind(&start.loaded.config).await {
        Ok(bound) => sidecar(start, bound, metrics, Tasks::default()).await,
        Err(faults) => Ended::Refused(faults),
    }
}

async fn sidecar(start: Start, bound: Bound, metrics: PrometheusHandle, mut tasks: Tasks) -> Ended {
    let (mut signals, hangup) = match Signals::listen() {
        Ok(both) => both,
        Err(fault) => return Ended::Refused(vec![format!("listen for signals: {fault}")]),
    };
    let config = &start.loaded.config;
    let timeout = config.run.shutdown_timeout;
    let stopped = StopTime::default();
    let sink = match Sink::build(config, &stopped) {
        Ok(sink) => sink,
        Err(fault) => return Ended::Refused(vec![fault]),
    };
    let uploader = match settings::upload(config, stopped.clone()).map(Uploader::new).transpose() {
        Ok(uploader) => uploader,
        Err(fault) => return Ended::Refused(vec![fault]),
    };
    summary::print(config, &bound);
    let stop = CancellationToken::new();
    if let Err(fault) = spawn(start, bound, (sink, uploader), metrics, hangup, &stop, &mut tasks) {
        return Ended::Refused(vec![fault]);
    }
    let early = tokio::select! {
        name = tasks.ended() => Some(name),
        () = signals.told() => None,
    };
    match early {
        Some(name) => {
            error!(task = name, "a task ended that should not have: stopping");
            let drain = settings::drain(timeout);
            collapse(&mut tasks, &stop, &stopped, drain).await;
            Ended::TaskDied
        }
        None if drained(&mut tasks, &mut signals, &stop, &stopped, timeout).await => Ended::Drained,
        None => {
            warn!("the drain was cut: what was not sent is lost");
            Ended::Cut
        }
    }
}

/// The end after SIGTERM; false when it was cut.
async fn drained(
    tasks: &mut Tasks,
    signals: &mut Signals,
    stop: &CancellationToken,
    stopped: &StopTime,
    timeout: Duration,
) -> bool {
    info!("told to stop: receiving what is still under way, then flushing");
    // Written once; nobody else writes it.
    let _ = stopped.set(Instant::now());
    stop.cancel();
    let sources = tasks.abort_handles("statsd");
    tokio::select! {
        () = tasks.all() => true,
        // Never true: an app that goes on talking is left, so that what it said so far can still be sent.
        true = leave(&sources, timeout.mul_f64(SOURCES_SHARE)) => false,
        () = tokio::time::sleep(timeout) => false,
        () = signals.told() => false,
    }
}

/// The end after the death of a task: nothing more is received, and the sink has one try with what came until now.
async fn collapse(tasks: &mut Tasks, stop: &CancellationToken, stopped: &StopTime, drain: Duration) {
    let now = Instant::now();
    // As if the stop had been told so long ago that only the last moment of the drain is left.
    let _ = stopped.set(now.checked_sub(drain.saturating_sub(LAST_TRY)).unwrap_or(now));
    stop.cancel();
    tasks.abort_handles("statsd").iter().for_each(AbortHandle::abort);
    // What is left of it then hangs, and the process must be begun again.
    tokio::time::timeout(COLLAPSE, tasks.all()).await.ok();
}

/// After the death of a task the sink may go on sending for this long, and the process is gone after that.
const LAST_TRY: Duration = Duration::from_millis(500);
const COLLAPSE: Duration = Duration::from_millis(800);

/// Of the shutdown time, what the sources may take to fall quiet.
const SOURCES_SHARE: f64 = 0.65;

async fn leave(sources: &[AbortHandle], after: Duration) -> bool {
    tokio::time::sleep(after).await;
    sources.iter().for_each(AbortHandle::abort);
    false
}

/// What tells us to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// With the signal that asks for a reload, which would end the process if nobody listened.
    fn listen() -> std::io::Result<(Signals, Signal)> {
        let [terminate, interrupt, hangup] =
            [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
        Ok((Signals { terminate: terminate?, interrupt: interrupt? }, hangup?))
    }

    async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// One that uses no second again that the process before us used for its last flush.
fn aggregator(config: &Config) -> Aggregator {
    let mut aggregator = Aggregator::new(settings::aggregate(config));
    let soon = wall_clock() + 600.0;
    // A stamp further ahead was made by a clock that was set back since.
    let stamp = config.spool.dir.as_deref().and_then(last_partial).filter(|stamp| (*stamp as f64) < soon);
    stamp.into_iter().for_each(|stamp| aggregator.set_last_partial(stamp));
    aggregator
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
    start: Start,
    bound: Bound,
    (sink, uploader): (Sink, Option<Uploader>),
    metrics: PrometheusHandle,
    hangup: Signal,
    stop: &CancellationToken,
    tasks: &mut Tasks,
) -> Result<(), String> {
    let config = &start.loaded.config;
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
    let (state, state_part) = watch::channel(Arc::new(bound.unusable_state.iter().cloned().collect()));
    let before = config.state.dir.as_deref().and_then(state_file::load);
    // The file as it was until the watch knows more: an early write must not empty it.
    let first = before.as_deref().map(Saved::watched).unwrap_or_default();
    let mut detectors = Detectors::new(settings::detectors(config));
    detectors.restore(first.rules.clone());
    let (saved, saved_in) = watch::channel(Arc::new(first));
    let (owners, changes) = Owners::new(config, bound.page.local_addr().port(), wall_clock());

    let puller = Puller::new(&settings::puller(config))?;
    let sampling = kept::Sampling {
        settings: sampler::Settings {
            before: before.as_deref().and_then(|saved| saved.target),
            ..settings::sampler(config, &bound, puller.local_port())
        },
        began: Instant::now(),
        out: observations,
        pace: pace_in,
        stop: stop.clone(),
    };
    let watch_wires = pipeline::watch::Wires {
        observations: observations_in,
        pace,
        own: own.clone(),
        findings,
        runtime: runtime_in,
        statsd: statsd_part.clone(),
        settings: changes.detect,
        part: watched,
        saved: config.state.dir.is_some().then_some(saved),
    };
    let (plan, who) = changes.investigation.borrow().clone();
    let reading = pipeline::ReadingPlace::default();
    let watch = pipeline::watch::Watch::new(detectors, config.watch.interval, wall_clock, watch_wires).of(who.clone());
    let wires = investigate::Wires {
        findings: findings_in,
        asked: asked_in,
        pulls,
        store: store.clone(),
        uploads: uploader.is_some().then_some(uploads),
        outgoing: outgoing.clone(),
        own,
        runtime,
        settings: changes.investigation,
        incidents,
        reading: reading.clone(),
        past: before.as_deref().map_or_else(Past::default, Past::new),
    };
    let investigation = investigate::Investigation::new(plan, who, wall_clock, wires);
    let rollup = Rollup {
        aggregator: aggregator(config),
        batches: batches_in,
        own: own_in,
        out: outgoing,
        snapshot: statsd,
        output: output_part.clone(),
        settings: changes.aggregate,
        wall_clock,
        flush_every: config.aggregate.interval,
        own_metrics: config.datadog.own_metrics,
    };
    let parts = Snapshots {
        statsd: statsd_part,
        output: output_part,
        watch: watch_part,
        incidents: incidents_part.clone(),
        about: changes.about,
        state: state_part,
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
    tasks.spawn("rollup", rollup.run());
    tasks.spawn("watch", watch.run());
    tasks.spawn("investigate", investigation.run());
    tasks.spawn("sink", sink.run(outgoing_in, output));
    if let Some(dir) = config.state.dir.clone() {
        let file = StateFile { dir, clock: wall_clock, rules: saved_in, incidents: incidents_part, status: state };
        tasks.spawn("state", file.run());
    }
    tasks.spawn("store", Store::new(settings::store(config)).run(store_in));
    tasks.keep("sampler", stop.clone(), sampling);
    tasks.keep("puller", stop.clone(), kept::Pulling { puller, requests: pulls_in });
    if let Some(uploader) = uploader {
        tasks.keep("upload", stop.clone(), kept::Uploading { uploader, uploads: uploads_in });
    }
    let health = kept::Health { server: bound.health, metrics, stop: stop.clone() };
    tasks.keep("health", stop.clone(), health);
    let wires = page::Wires { store, asked, reading };
    tasks.keep("page", stop.clone(), kept::Page { server: bound.page, parts, wires, stop: stop.clone() });
    tasks.keep("reload", stop.clone(), Reload::new(start, hangup, owners, stop.clone()));
    Ok(())
}
