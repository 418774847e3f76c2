//! Keeps profiles: on disk where there is a folder, else in memory, and in memory too when the disk fails.
//!
//! Bounded on both sides, because a kubelet evicts the whole pod when its volume is over quota: room is made before a profile
//! is written. The oldest that is not pinned goes first; pins are not kept across a restart.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tracing::{info, warn};

use super::complaints::Complaints;
use super::{random, store_dir};
use crate::pipeline::{NewProfile, StoreRequest};

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
    bytes: u64,
    pinned: bool,
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
                self.make_room(true, 0, 0).await;
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
        self.make_room(false, bytes, 1).await;
        self.kept.push(Kept::new(id.clone(), &profile, Some(profile.bytes.clone())));
        Ok(id)
    }

    async fn save_on_disk(&mut self, id: &str, profile: &NewProfile) -> Result<(), String> {
        let dir = self.dir.clone().ok_or("there is no folder for it")?;
        let bytes = profile.bytes.len() as u64;
        if bytes > self.settings.max_size || self.settings.max_files == 0 {
            return Err("it is larger than profile.max_size".to_owned());
        }
        self.make_room(true, bytes, 1).await;
        let (name, kind, body) = (id.to_owned(), profile.kind, profile.bytes.clone());
        let written = blocking(move || store_dir::write(&dir, &name, kind, &body)).await;
        match written {
            Ok(()) => {
                self.kept.push(Kept::new(id.to_owned(), profile, None));
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

    /// Evicts until `bytes` and `files` more fit on the disk or in memory.
    async fn make_room(&mut self, disk: bool, bytes: u64, files: usize) {
        let limit = if disk { self.settings.max_size } else { self.settings.max_memory };
        loop {
            let here = |kept: &&Kept| kept.memory.is_none() == disk;
            let used: u64 = self.kept.iter().filter(here).map(|kept| kept.bytes).sum();
            let victim = if used + bytes > limit {
                oldest(&self.kept, |kept| here(&kept))
            } else if self.kept.len() + files > self.settings.max_files {
                oldest(&self.kept, |_| true)
            } else {
                return;
            };
            let Some(place) = victim else {
                return;
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
        Kept { id: found.id, kind: found.kind, bytes: found.bytes, pinned: false, memory: None }
    }

    fn new(id: String, profile: &NewProfile, memory: Option<Bytes>) -> Kept {
        Kept { id, kind: profile.kind.to_owned(), bytes: profile.bytes.len() as u64, pinned: profile.pinned, memory }
    }
}

/// The oldest that is not pinned, else the oldest: a store full of pins must still take the next profile.
fn oldest(kept: &[Kept], among: impl Fn(&Kept) -> bool) -> Option<usize> {
    let free = kept.iter().position(|kept| among(kept) && !kept.pinned);
    free.or_else(|| kept.iter().position(among))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> std::io::Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|broken| Err(std::io::Error::other(broken)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::sync::oneshot;

    use super::*;

    fn profile(bytes: usize, pinned: bool) -> NewProfile {
        NewProfile { kind: "heap", reason: "test".to_owned(), bytes: vec![7; bytes].into(), pinned }
    }

    async fn store(dir: Option<&Path>, max_size: u64, max_files: usize, max_memory: u64) -> Store {
        let mut store = Store::new(Settings { dir: dir.map(Path::to_owned), max_size, max_files, max_memory });
        store.open().await;
        store
    }

    async fn has(store: &Store, ids: &[&String]) -> Vec<bool> {
        let mut has = Vec::new();
        for id in ids {
            has.push(store.read(id).await.is_some());
        }
        has
    }

    #[tokio::test]
    async fn a_saved_profile_is_read_by_its_id_over_the_channel() {
        let dir = tempfile::tempdir().unwrap();
        let (send, requests) = mpsc::channel(4);
        let (saved, id) = oneshot::channel();
        let running = Store::new(Settings { dir: Some(dir.path().to_owned()), ..Settings::default() }).run(requests);
        let asking = async move {
            send.send(StoreRequest::Save { profile: profile(5, false), reply: saved }).await.unwrap();
            let id = id.await.unwrap().unwrap();
            assert!(dir.path().join(format!("{id}.heap.pb.gz")).exists());
            for (id, found) in [(id, true), ("../secret".to_owned(), false), ("0".repeat(16), false)] {
                let (reply, bytes) = oneshot::channel();
                send.send(StoreRequest::Read { id, reply }).await.unwrap();
                assert_eq!(bytes.await.unwrap().is_some(), found);
            }
        };
        tokio::join!(running, asking);
    }

    #[tokio::test]
    async fn profiles_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let id = store(Some(dir.path()), 100, 5, 100).await.save(profile(9, true)).await.unwrap();
        assert_eq!(store(Some(dir.path()), 100, 5, 100).await.read(&id).await, Some(vec![7; 9].into()));
        let smaller = store(Some(dir.path()), 5, 5, 100).await;
        assert_eq!(smaller.read(&id).await, None, "a smaller limit holds from the start");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn the_oldest_that_is_not_pinned_goes_first() {
        let dir = tempfile::tempdir().unwrap();
        for dir in [Some(dir.path()), None] {
            let mut store = store(dir, 30, 20, 30).await;
            let a = store.save(profile(10, true)).await.unwrap();
            let b = store.save(profile(10, false)).await.unwrap();
            let c = store.save(profile(10, false)).await.unwrap();
            let d = store.save(profile(10, true)).await.unwrap();
            assert_eq!(has(&store, &[&a, &b, &c, &d]).await, [true, false, true, true]);
            let e = store.save(profile(20, true)).await.unwrap();
            assert_eq!(
                has(&store, &[&a, &c, &d, &e]).await,
                [false, false, true, true],
                "pins go when nothing else is left"
            );
        }
    }

    #[tokio::test]
    async fn the_number_of_profiles_is_bounded() {
        let mut store = store(None, 1_000, 2, 1_000).await;
        let ids = [store.save(profile(1, false)).await.unwrap(), store.save(profile(1, false)).await.unwrap()];
        let last = store.save(profile(1, false)).await.unwrap();
        assert_eq!(has(&store, &[&ids[0], &ids[1], &last]).await, [false, true, true]);
    }

    #[tokio::test]
    async fn a_disk_that_fails_leaves_memory_and_then_words() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("profiles");
        let mut store = store(Some(&inside), 1_000, 5, 10).await;
        std::fs::remove_dir_all(&inside).unwrap();
        let id = store.save(profile(10, false)).await.unwrap();
        assert_eq!(store.read(&id).await, Some(vec![7; 10].into()));
        let words = store.save(profile(11, false)).await.unwrap_err();
        assert!(words.contains("the disk failed") && words.contains("profile.max_memory"), "{words}");
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_made_leaves_memory() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut store = store(Some(&file.path().join("profiles")), 1_000, 5, 10).await;
        assert!(store.save(profile(10, false)).await.is_ok());
    }
}
