//! The state file: what the rules learned and the incidents so far, for the next start of the sidecar.
//!
//! One owner writes it, off every hot path: the latest of what the watch and the investigation publish, at most every half minute,
//! and once more when both have ended. The file is whole or it is not there: written under another name, synced, renamed. Its first
//! line holds a version and a checksum. A file of another version, or one that is not what was written, is told once and counted,
//! and everything starts anew; a disk that fails costs the state and nothing else.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::storage::Folder;
use super::{sealed, whole};
use crate::pipeline::WallClock;
use crate::pipeline::saved::{INCIDENTS, Saved, SavedIncident, SavedWatch};
use crate::snapshot::{DegradedView, IncidentView};
use crate::telemetry;

const NAME: &str = "oomwatch.state";
const UNFINISHED: &str = ".unfinished-oomwatch.state";
/// What the first line begins with ([`sealed`]).
const MAGIC: &str = "oomwatch-state";
const VERSION: u32 = 1;
/// Fifty incidents with long stacks are a tenth of it. What would be longer leaves the oldest incidents out.
const MAX_BYTES: usize = 1 << 20;
/// Between two writes.
const EVERY: Duration = Duration::from_secs(30);

/// What was found at the start.
#[derive(Debug)]
pub enum Found {
    /// No file yet.
    Nothing,
    State(Box<Saved>),
    /// It cannot be used, and why: told and counted, and everything starts anew.
    Unusable {
        reason: &'static str,
        why: String,
    },
}

/// Makes the folder and tries it; the words say what is wrong and what mends it.
pub fn check(dir: &Path) -> Option<DegradedView> {
    let tried = Folder::make(dir).and_then(|mut folder| {
        whole::remove(&mut folder, UNFINISHED)?;
        whole::write_through(&mut folder, UNFINISHED, b"")?;
        whole::remove(&mut folder, UNFINISHED)
    });
    tried.err().map(|fault| degraded(&fault.to_string()))
}

fn degraded(why: &str) -> DegradedView {
    let fix = "mount a writable folder (an emptyDir) at state.dir, owned by this user or group (fsGroup)";
    let why = format!("state.dir cannot be used, so nothing outlives a restart: {why}");
    DegradedView { what: "state file".to_owned(), why, fix: fix.to_owned() }
}

/// Reads the file of the sidecar before us. Never refuses: what cannot be used is told and counted.
pub fn load(dir: &Path) -> Option<Box<Saved>> {
    match find(dir) {
        Found::Nothing => None,
        Found::State(saved) => {
            info!(incidents = saved.incidents.len(), "state of the last run taken over");
            Some(saved)
        }
        Found::Unusable { reason, why } => {
            telemetry::count(&telemetry::STATE_FAILED, Some(reason)).increment(1);
            warn!(reason, "the state file cannot be used, so everything is learnt anew: {why}");
            None
        }
    }
}

fn find(dir: &Path) -> Found {
    let unusable = |reason, why: String| Found::Unusable { reason, why };
    let read = Folder::look(dir).and_then(|mut folder| whole::read(&mut folder, NAME, MAX_BYTES as u64));
    let bytes = match read {
        Ok(bytes) => bytes,
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Found::Nothing,
        Err(fault) => return unusable("read", fault.to_string()),
    };
    match decode(&bytes) {
        Ok(saved) => Found::State(Box::new(saved)),
        Err((reason, why)) => unusable(reason, why),
    }
}

fn decode(bytes: &[u8]) -> Result<Saved, (&'static str, String)> {
    let damaged = |why: &str| ("damaged", why.to_owned());
    let body = sealed::open(MAGIC, VERSION, bytes)?;
    let saved: Saved = serde_json::from_slice(body).map_err(|fault| damaged(&fault.to_string()))?;
    if saved.rules.is_sound() { Ok(saved) } else { Err(damaged("a figure in it is out of bounds")) }
}

fn encode(saved: &mut Saved) -> Vec<u8> {
    loop {
        let body = serde_json::to_vec(saved).expect("numbers and text have a form in JSON");
        if body.len() + 64 <= MAX_BYTES || saved.incidents.pop().is_none() {
            return sealed::seal(MAGIC, VERSION, &body);
        }
    }
}

fn write(dir: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut folder = Folder::make(dir)?;
    // What a kill left under its name goes first.
    whole::remove(&mut folder, UNFINISHED)?;
    whole::write(&mut folder, UNFINISHED, NAME, bytes)
}

/// The owner of the file.
#[derive(Debug)]
pub struct StateFile {
    pub dir: PathBuf,
    pub clock: WallClock,
    pub rules: watch::Receiver<Arc<SavedWatch>>,
    pub incidents: watch::Receiver<Arc<Vec<IncidentView>>>,
    /// What is wrong with the disk now.
    pub status: watch::Sender<Arc<Vec<DegradedView>>>,
}

impl StateFile {
    /// Runs until the watch and the investigation have ended, and writes once more.
    pub async fn run(mut self) {
        // The values that stand at the start are nobody's news.
        let (mut due, mut dirty, mut fails) = (Instant::now(), false, false);
        let mut open = [true, true];
        while open != [false, false] {
            tokio::select! {
                changed = self.rules.changed(), if open[0] => (open[0], dirty) = (changed.is_ok(), true),
                changed = self.incidents.changed(), if open[1] => (open[1], dirty) = (changed.is_ok(), true),
                () = sleep_until(due), if dirty => {
                    fails = self.write(fails).await;
                    (due, dirty) = (Instant::now() + EVERY, false);
                }
            }
        }
        self.write(fails).await;
    }

    /// Writes what is known now and says whether that failed; `failed` did it before, and is told once.
    async fn write(&self, failed: bool) -> bool {
        let mut saved = self.saved();
        if saved.target.is_none() && saved.incidents.is_empty() && saved.rules == crate::detect::Saved::default() {
            return failed;
        }
        let dir = self.dir.clone();
        let job = tokio::task::spawn_blocking(move || write(&dir, &encode(&mut saved)));
        let fault = match job.await {
            Ok(Ok(())) => None,
            Ok(Err(fault)) => Some(fault.to_string()),
            Err(fault) => Some(fault.to_string()),
        };
        if fault.is_some() {
            telemetry::count(&telemetry::STATE_FAILED, Some("write")).increment(1);
        }
        if let Some(fault) = fault.as_ref().filter(|_| !failed) {
            warn!("the state file cannot be written, and is tried again: {fault}");
        }
        let views = fault.iter().map(|why| degraded(why)).collect();
        self.status.send_replace(Arc::new(views));
        fault.is_some()
    }

    fn saved(&self) -> Saved {
        let SavedWatch { target, rules } = SavedWatch::clone(&self.rules.borrow());
        let incidents = self.incidents.borrow().iter().take(INCIDENTS).map(SavedIncident::from).collect();
        Saved { saved_at: (self.clock)(), target, rules, incidents }
    }
}

#[cfg(test)]
mod tests;
