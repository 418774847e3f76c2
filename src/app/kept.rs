//! The tasks that may be begun again, each with what outlives it.

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use metrics_exporter_prometheus::PrometheusHandle;

use super::tasks::Restart;
use crate::page::{HealthServer, PageServer, Wires};
use crate::pipeline::{Observation, Pace, PullRequest, Upload};
use crate::sink::upload::Uploader;
use crate::snapshot::Snapshots;
use crate::source::{puller::Puller, sampler, sampler::Sampler};

/// The sampler looks for its target anew. Its readings go on counting from the same start, or the rules would see time go back.
pub(super) struct Sampling {
    pub settings: sampler::Settings,
    pub began: Instant,
    pub out: mpsc::Sender<Observation>,
    pub pace: watch::Receiver<Pace>,
    pub stop: CancellationToken,
}

impl Restart for Sampling {
    async fn run(&mut self) {
        let sampler = Sampler::new(self.settings.clone()).since(self.began);
        sampler.run(self.out.clone(), self.pace.clone(), self.stop.clone()).await;
    }
}

/// The puller loses the pull that was under way; who asked for it is told so by the closed reply.
pub(super) struct Pulling {
    pub puller: Puller,
    pub requests: mpsc::Receiver<PullRequest>,
}

impl Restart for Pulling {
    async fn run(&mut self) {
        self.puller.run(&mut self.requests).await;
    }
}

/// The uploader gives up what was under way, and says so; the next round brings other profiles.
pub(super) struct Uploading {
    pub uploader: Uploader,
    pub uploads: mpsc::Receiver<Upload>,
}

impl Restart for Uploading {
    async fn run(&mut self) {
        self.uploader.run(&mut self.uploads).await;
    }
}

/// The listener stays bound: probes wait in its backlog meanwhile.
pub(super) struct Health {
    pub server: HealthServer,
    pub metrics: PrometheusHandle,
    pub stop: CancellationToken,
}

impl Restart for Health {
    async fn run(&mut self) {
        self.server.run(self.metrics.clone(), self.stop.clone()).await;
    }
}

/// Likewise; open connections end with the fault, and browsers come back by themselves.
pub(super) struct Page {
    pub server: PageServer,
    pub parts: Snapshots,
    pub wires: Wires,
    pub stop: CancellationToken,
}

impl Restart for Page {
    async fn run(&mut self) {
        self.server.run(self.parts.clone(), self.wires.clone(), self.stop.clone()).await;
    }
}
