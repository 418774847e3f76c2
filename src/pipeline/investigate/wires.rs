//! What the investigation is connected with.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::pipeline::past::Past;
use crate::pipeline::plan::Settings;
use crate::pipeline::words::Identity;
use crate::pipeline::{
    Finding, Outgoing, OwnMetric, PullNow, PullRequest, ReadingPlace, Runtime, StoreRequest, Upload,
};
use crate::snapshot::IncidentView;

/// The channels of the investigation.
#[derive(Debug)]
pub struct Wires {
    pub findings: mpsc::Receiver<Finding>,
    /// Wishes from the page; none come when the page has ended.
    pub asked: mpsc::Receiver<PullNow>,
    pub pulls: mpsc::Sender<PullRequest>,
    pub store: mpsc::Sender<StoreRequest>,
    /// `None` when profiles are not uploaded.
    pub uploads: Option<mpsc::Sender<Upload>>,
    pub outgoing: mpsc::Sender<Outgoing>,
    pub own: mpsc::Sender<Vec<OwnMetric>>,
    pub runtime: watch::Sender<Runtime>,
    /// Other settings of the plan, and who we are, after a reload.
    pub settings: watch::Receiver<(Settings, Identity)>,
    pub incidents: watch::Sender<Arc<Vec<IncidentView>>>,
    /// Shared with the page.
    pub reading: ReadingPlace,
    /// The stories of the sidecar before this one.
    pub past: Past,
}
