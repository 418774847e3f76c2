//! Keeps profiles: on disk where there is a folder, else in memory, and in memory too when the disk fails.
//!
//! Bounded on both sides, because a kubelet evicts the whole pod when its volume is over quota: room is made before a profile
//! is written. The oldest that is not pinned goes first, and what is pinned (the last baselines, the evidence of the last
//! incident: five at most) gives way to nothing but another pin. Pins are not kept across a restart.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tracing::{info, warn};

use super::complaints::Complaints;
use super::{random, store_dir};
use crate::pipeline::{NewProfile, Pin, StoreRequest, StoredProfile};

#[derive(Clone, Debug)]
pub struct Settings {
    /// `None` keeps profiles in memory alone.
    pub dir: Option<PathBuf>,
    /// Bytes on disk. Default 64 MiB.
    pub max_size: u64,
    /// Profiles, wherever they are. Default 20.
    pub max_files: usize,
    /// Bytes in memory. Default 8 MiB.
    pub max_memory: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { dir: None, max_size: 64 << 20, max_files: 20, max_memory: 8 << 20 }
    }
}

/// The store, before it runs. The task that runs it is the only one that touches the folder.
#[derive(Debug)]
pub struct Store {
    settings: Settings,
    /// The folder, while it can be used.
    dir: Option<Arc<PathBuf>>,
    /// Oldest first. At most `max_files`.
    kept: Vec<Kept>,
    complaints: Complaints,
}

#[derive(Clone, Debug)]
struct Kept {
    id: String,
    kind: String,
    reason: String,
    /// Unix seconds.
    taken_at: f64,
    bytes: u64,
    pin: Pin,
    /// `None`: it is on disk.
    memory: Option<Bytes>,
}

impl Store {
    pub fn new(settings: Settings) -> Store {
        Store { settings, dir: None, kept: Vec::new(), complaints: Complaints::default() }
    }

    /// Lists the folder, then answers until the requests end.
    pub async fn run(mut self, mut requests: mpsc::Receiver<StoreRequest>) {
        self.open().await;
        while let Some(request) = requests.recv().await {
            match request {
                // An asker that is gone is no fault.
                StoreRequest::Save { profile, reply } => drop(reply.send(self.save(profile).await)),
                StoreRequest::Read { id, reply } => drop(reply.send(self.read(&id).await)),
                StoreRequest::Forget { id, reply } => drop(reply.send(self.forget(&id).await)),
                StoreRequest::List { reply } => drop(reply.send(self.list())),
            }
        }
    }

    async fn open(&mut self) {
        let Some(dir) = self.settings.dir.clone().map(Arc::new) else {
            return;
        };
        match blocking({
            let dir = dir.clone();
            move || store_dir::open(&dir)
        })
        .await
        {
            Ok(found) => {
                info!(profiles = found.len(), "profiles are kept in {}", dir.display());
                self.kept = found.into_iter().map(Kept::on_disk).collect();
                self.dir = Some(dir);
                self.make_room(true, 0, 0, &Pin::None).await;
            }
            Err(error) => warn!("profiles are kept in memory: cannot use profile.dir {}: {error}", dir.display()),
        }
    }

    /// The id, once the profile is on disk; or in memory, where there is no disk or it failed.
    async fn save(&mut self, profile: NewProfile) -> Result<String, String> {
        let id = random::hex();
        let why = match self.save_on_disk(&id, &profile).await {
            Ok(()) => return Ok(id),
            Err(why) => why,
        };
        let bytes = profile.bytes.len() as u64;
        if bytes > self.settings.max_memory || self.settings.max_files == 0 {
            return Err(format!(
                "the profile ({bytes} bytes) was not kept: {why}, and it is larger than profile.max_memory"
            ));
        }
        if !self.make_room(false, bytes, 1, &profile.pin).await {
            return Err(format!("the profile was not kept: {why}, and memory is full of those that must stay"));
        }
        self.keep(Kept::new(id.clone(), &profile, Some(profile.bytes.clone())));
        Ok(id)
    }

    async fn save_on_disk(&mut self, id: &str, profile: &NewProfile) -> Result<(), String> {
        let dir = self.dir.clone().ok_or("there is no folder for it")?;
        let bytes = profile.bytes.len() as u64;
        if bytes > self.settings.max_size || self.settings.max_files == 0 {
            return Err("it is larger than profile.max_size".to_owned());
        }
        if !self.make_room(true, bytes, 1, &profile.pin).await {
            return Err("it is full of profiles that must stay".to_owned());
        }
        let (name, kind, body) = (id.to_owned(), profile.kind, profile.bytes.clone());
        let written = blocking(move || store_dir::write(&dir, &name, kind, &body)).await;
        match written {
            Ok(()) => {
                self.keep(Kept::new(id.to_owned(), profile, None));
                Ok(())
            }
            Err(error) => {
                if self.complaints.add("disk", 1, Instant::now()).is_some() {
                    warn!("a profile could not be written to profile.dir and is kept in memory: {error}");
                }
                Err(format!("the disk failed ({error})"))
            }
        }
    }

    /// `None` for an id that is not one, is not known, or whose file cannot be read any more.
    async fn read(&self, id: &str) -> Option<Bytes> {
        let kept = self.kept.iter().find(|kept| store_dir::is_id(id) && kept.id == id)?;
        if let Some(bytes) = &kept.memory {
            return Some(bytes.clone());
        }
        let (dir, kept, limit) = (self.dir.clone()?, kept.clone(), self.settings.max_size);
        blocking(move || store_dir::read(&dir, &kept.id, &kept.kind, limit)).await.ok().map(Bytes::from)
    }

    /// Adds a profile; a pin lets those go that it takes the place of.
    fn keep(&mut self, new: Kept) {
        for old in self.kept.iter_mut().filter(|old| gives_way(old, &new.pin, &new.kind)) {
            old.pin = Pin::None;
        }
        self.kept.push(new);
    }

    /// Whether there was such a profile.
    async fn forget(&mut self, id: &str) -> bool {
        let Some(place) = self.kept.iter().position(|kept| kept.id == id) else { return false };
        let gone = self.kept.remove(place);
        self.discard(gone).await;
        true
    }

    fn list(&self) -> Vec<StoredProfile> {
        let stored = |kept: &Kept| StoredProfile {
            id: kept.id.clone(),
            kind: kept.kind.clone(),
            reason: kept.reason.clone(),
            taken_at: kept.taken_at,
            bytes: kept.bytes,
        };
        self.kept.iter().rev().map(stored).collect()
    }

    /// Evicts until `bytes` and `files` more fit on the disk or in memory; false when only pins are left, and what comes is none.
    async fn make_room(&mut self, disk: bool, bytes: u64, files: usize, pin: &Pin) -> bool {
        let limit = if disk { self.settings.max_size } else { self.settings.max_memory };
        loop {
            let here = |kept: &&Kept| kept.memory.is_none() == disk;
            let used: u64 = self.kept.iter().filter(here).map(|kept| kept.bytes).sum();
            let pinned = *pin != Pin::None;
            let victim = if used + bytes > limit {
                oldest(&self.kept, pinned, |kept| here(&kept))
            } else if self.kept.len() + files > self.settings.max_files {
                oldest(&self.kept, pinned, |_| true)
            } else {
                return true;
            };
            let Some(place) = victim else {
                return false;
            };
            let gone = self.kept.remove(place);
            self.discard(gone).await;
        }
    }

    async fn discard(&mut self, gone: Kept) {
        let Some(dir) = self.dir.clone().filter(|_| gone.memory.is_none()) else {
            return;
        };
        if let Err(error) = blocking(move || store_dir::remove(&dir, &gone.id, &gone.kind)).await
            && self.complaints.add("remove", 1, Instant::now()).is_some()
        {
            warn!("an old profile could not be removed from profile.dir: {error}");
        }
    }
}

impl Kept {
    fn on_disk(found: store_dir::Found) -> Kept {
        let (reason, pin) = (String::new(), Pin::None);
        Kept {
            id: found.id,
            kind: found.kind,
            reason,
            taken_at: found.written_at,
            bytes: found.bytes,
            pin,
            memory: None,
        }
    }

    fn new(id: String, profile: &NewProfile, memory: Option<Bytes>) -> Kept {
        Kept {
            id,
            kind: profile.kind.to_owned(),
            reason: profile.reason.clone(),
            taken_at: profile.taken_at,
            bytes: profile.bytes.len() as u64,
            pin: profile.pin.clone(),
            memory,
        }
    }
}

/// Whether an old pin ends with this one: the last baseline of a kind stays, and the last incident with the last of each kind.
fn gives_way(old: &Kept, new: &Pin, kind: &str) -> bool {
    match (&old.pin, new) {
        (Pin::Baseline, Pin::Baseline) => old.kind == kind,
        (Pin::Incident(old_id), Pin::Incident(id)) => old_id != id || old.kind == kind,
        _ => false,
    }
}

/// The oldest that is not pinned; for a pin the oldest pin, when nothing else is left.
fn oldest(kept: &[Kept], pinned: bool, among: impl Fn(&Kept) -> bool) -> Option<usize> {
    let free = kept.iter().position(|kept| among(kept) && kept.pin == Pin::None);
    free.or_else(|| kept.iter().position(among).filter(|_| pinned))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> std::io::Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|broken| Err(std::io::Error::other(broken)))
}

#[cfg(test)]
mod tests;
