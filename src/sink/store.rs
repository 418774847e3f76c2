//! Keeps profiles: on disk where there is a folder, else in memory, and in memory too when the disk fails.
//!
//! Bounded on both sides, because a kubelet evicts the whole pod when its volume is over quota: room is made before a profile
//! is written. The oldest that is not pinned goes first, and what is pinned (`pins`: nine or so) gives way to nothing but another
//! pin. Reasons and pins outlive a restart in an `index` beside the files.

mod index;
mod pins;

use std::path::PathBuf;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tracing::{info, warn};

use self::pins::{Pins, Role};
use super::complaints::Complaints;
use super::storage::Folder;
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
    folder: Option<Folder>,
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
    pins: Pins,
    /// `None`: it is on disk.
    memory: Option<Bytes>,
}

impl Store {
    pub fn new(settings: Settings) -> Store {
        Store { settings, folder: None, kept: Vec::new(), complaints: Complaints::default() }
    }

    /// Lists the folder, then answers until the requests end.
    pub async fn run(mut self, mut requests: mpsc::Receiver<StoreRequest>) {
        self.open().await;
        while let Some(request) = requests.recv().await {
            match request {
                // An asker that is gone is no fault.
                StoreRequest::Save { profile, reply } => drop(reply.send(self.save(profile).await)),
                StoreRequest::Read { id, reply } => drop(reply.send(self.read(&id).await)),
                StoreRequest::Settle { id, readable, base } => self.settle(&id, readable, base.as_deref()).await,
                StoreRequest::Forget { id, reply } => drop(reply.send(self.forget(&id).await)),
                StoreRequest::List { reply } => drop(reply.send(self.list())),
            }
        }
    }

    async fn open(&mut self) {
        let Some(dir) = self.settings.dir.clone() else {
            return;
        };
        let opened = blocking({
            let dir = dir.clone();
            move || {
                let (mut folder, found) = store_dir::open(&dir)?;
                let entries = index::read(&mut folder);
                Ok((folder, found, entries))
            }
        });
        match opened.await {
            Ok((folder, found, entries)) => {
                info!(profiles = found.len(), "profiles are kept in {}", dir.display());
                self.folder = Some(folder);
                self.take_in(found, &entries).await;
            }
            Err(error) => warn!("profiles are kept in memory: cannot use profile.dir {}: {error}", dir.display()),
        }
    }

    /// What an earlier run left, within today's limits.
    async fn take_in(&mut self, mut found: Vec<store_dir::Found>, entries: &[index::Entry]) {
        let place = |file: &store_dir::Found| entries.iter().position(|it| it.id == file.id && it.kind == file.kind);
        // A file system's clock may be coarse: what it takes for one moment stands in the index in order, newest first.
        found.sort_by(|a, b| a.written_at.total_cmp(&b.written_at).then_with(|| place(b).cmp(&place(a))));
        let mut torn = Vec::new();
        for file in found {
            let entry = place(&file).map(|at| &entries[at]);
            let whole = entry.is_none_or(|entry| entry.bytes == file.bytes);
            let kept = Kept::on_disk(file, entry);
            if whole { self.kept.push(kept) } else { torn.push(kept) }
        }
        for file in torn {
            warn!(id = file.id, "a profile in profile.dir is not as long as it was written, and is removed");
            self.discard(file).await;
        }
        pins::take_over(&mut self.kept);
        // A smaller limit holds for pins too.
        self.make_room(true, 0, 0, true).await;
        self.write_index().await;
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
        if !self.make_room(false, bytes, 1, profile.pin != Pin::None).await {
            return Err(format!("the profile was not kept: {why}, and memory is full of those that must stay"));
        }
        self.kept.push(Kept::new(id.clone(), &profile, Some(profile.bytes.clone())));
        pins::take_over(&mut self.kept);
        Ok(id)
    }

    async fn save_on_disk(&mut self, id: &str, profile: &NewProfile) -> Result<(), String> {
        let mut folder = self.folder.clone().ok_or("there is no folder for it")?;
        let bytes = profile.bytes.len() as u64;
        if bytes > self.settings.max_size || self.settings.max_files == 0 {
            return Err("it is larger than profile.max_size".to_owned());
        }
        if !self.make_room(true, bytes, 1, profile.pin != Pin::None).await {
            return Err("it is full of profiles that must stay".to_owned());
        }
        let (name, kind, body) = (id.to_owned(), profile.kind, profile.bytes.clone());
        let written = blocking(move || store_dir::write(&mut folder, &name, kind, &body)).await;
        match written {
            Ok(()) => {
                self.kept.push(Kept::new(id.to_owned(), profile, None));
                pins::take_over(&mut self.kept);
                self.write_index().await;
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
        let (mut folder, kept) = (self.folder.clone()?, kept.clone());
        blocking(move || store_dir::read(&mut folder, &kept.id, &kept.kind, kept.bytes)).await.ok().map(Bytes::from)
    }

    /// What came of reading a pinned profile: only now others give way to it; one that cannot be read is kept as any other.
    async fn settle(&mut self, id: &str, readable: bool, base: Option<&str>) {
        let Some(kept) = self.kept.iter_mut().find(|kept| kept.id == id) else { return };
        let incident = kept.pins.incident.as_ref().map(|it| it.0.clone());
        kept.pins = if readable { Pins { unread: false, ..kept.pins.clone() } } else { Pins::default() };
        if let (Some(incident), Some(base)) = (incident, base) {
            self.pin_base(base, &incident);
        }
        pins::take_over(&mut self.kept);
        self.write_index().await;
    }

    /// The last one that the incident's evidence was compared with stays with it.
    fn pin_base(&mut self, id: &str, incident: &str) {
        if self.kept.iter().all(|kept| kept.id != id) {
            return;
        }
        for kept in &mut self.kept {
            if kept.id == id {
                kept.pins.incident = Some((incident.to_owned(), Role::Base));
            } else if kept.pins.incident.as_ref().is_some_and(|it| it.0 == incident && it.1 == Role::Base) {
                kept.pins.incident = None;
            }
        }
    }

    /// Whether there was such a profile.
    async fn forget(&mut self, id: &str) -> bool {
        let Some(place) = self.kept.iter().position(|kept| kept.id == id) else { return false };
        let gone = self.kept.remove(place);
        self.discard(gone).await;
        self.write_index().await;
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
    async fn make_room(&mut self, disk: bool, bytes: u64, files: usize, pinned: bool) -> bool {
        let limit = if disk { self.settings.max_size } else { self.settings.max_memory };
        loop {
            let here = |kept: &&Kept| kept.memory.is_none() == disk;
            let used: u64 = self.kept.iter().filter(here).map(|kept| kept.bytes).sum();
            let victim = if used + bytes > limit {
                pins::oldest(&self.kept, pinned, |kept| here(&kept))
            } else if self.kept.len() + files > self.settings.max_files {
                pins::oldest(&self.kept, pinned, |_| true)
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
        let Some(mut folder) = self.folder.clone().filter(|_| gone.memory.is_none()) else {
            return;
        };
        if let Err(error) = blocking(move || store_dir::remove(&mut folder, &gone.id, &gone.kind)).await
            && self.complaints.add("remove", 1, Instant::now()).is_some()
        {
            warn!("an old profile could not be removed from profile.dir: {error}");
        }
    }

    /// Costs nothing but reasons and pins, and only after a restart, when it fails.
    async fn write_index(&mut self) {
        let Some(mut folder) = self.folder.clone() else { return };
        let bytes = index::encode(&self.kept);
        if let Err(error) = blocking(move || index::write(&mut folder, &bytes)).await
            && self.complaints.add("index", 1, Instant::now()).is_some()
        {
            warn!("the index of profile.dir could not be written: {error}");
        }
    }
}

impl Kept {
    fn on_disk(found: store_dir::Found, entry: Option<&index::Entry>) -> Kept {
        Kept {
            id: found.id,
            kind: found.kind,
            reason: entry.map(|it| it.reason.clone()).unwrap_or_default(),
            taken_at: entry.map_or(found.written_at, |it| it.taken_at),
            bytes: found.bytes,
            pins: entry.map(|it| it.pins.clone()).unwrap_or_default(),
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
            pins: Pins::new(&profile.pin),
            memory,
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> std::io::Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|broken| Err(std::io::Error::other(broken)))
}

#[cfg(test)]
mod tests;
