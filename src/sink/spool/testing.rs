//! A real folder whose steps fail on command, for tests.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU8, Ordering};

use nix::errno::Errno;

use crate::sink::storage::{Folder, Opener, Storage};

pub(in crate::sink) const CREATE: u8 = 1;
pub(in crate::sink) const WRITE: u8 = 2;
pub(in crate::sink) const SYNC: u8 = 4;
pub(in crate::sink) const RENAME: u8 = 8;
pub(in crate::sink) const REMOVE: u8 = 16;
pub(in crate::sink) const SYNC_NAMES: u8 = 32;
pub(in crate::sink) const READ: u8 = 64;

/// Which steps fail now, and how. Shared between the test and the storage.
#[derive(Debug, Default)]
pub(in crate::sink) struct Faults {
    broken: AtomicU8,
    errno: AtomicI32,
}

impl Faults {
    pub fn set(&self, broken: u8, errno: Errno) {
        self.broken.store(broken, Ordering::Relaxed);
        self.errno.store(errno as i32, Ordering::Relaxed);
    }

    pub fn heal(&self) {
        self.broken.store(0, Ordering::Relaxed);
    }

    pub fn is_broken(&self, step: u8) -> bool {
        self.broken.load(Ordering::Relaxed) & step != 0
    }

    fn pass(&self, step: u8) -> io::Result<()> {
        if self.is_broken(step) {
            return Err(io::Error::from_raw_os_error(self.errno.load(Ordering::Relaxed)));
        }
        Ok(())
    }
}

/// Does not wait for the disk: a test kills nothing but itself.
#[derive(Debug)]
struct Faulty {
    folder: Folder,
    faults: Arc<Faults>,
}

impl Storage for Faulty {
    fn list(&mut self) -> io::Result<Vec<String>> {
        self.folder.list()
    }

    fn read(&mut self, name: &str, most: usize) -> io::Result<(Vec<u8>, u64)> {
        self.faults.pass(READ)?;
        self.folder.read(name, most)
    }

    fn create(&mut self, name: &str) -> io::Result<File> {
        self.faults.pass(CREATE)?;
        self.folder.create(name)
    }

    /// A write that fails has written half.
    fn write(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        let passed = self.faults.pass(WRITE);
        let n = if passed.is_ok() { bytes.len() } else { bytes.len() / 2 };
        self.folder.write(file, &bytes[..n])?;
        passed
    }

    fn sync(&mut self, _: &File) -> io::Result<()> {
        self.faults.pass(SYNC)
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.faults.pass(RENAME)?;
        self.folder.rename(from, to)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.faults.pass(REMOVE)?;
        self.folder.remove(name)
    }

    fn sync_names(&mut self) -> io::Result<()> {
        self.faults.pass(SYNC_NAMES)
    }
}

pub(in crate::sink) fn faulty(path: &Path, faults: &Arc<Faults>) -> Opener {
    let (path, faults) = (path.to_owned(), faults.clone());
    Box::new(move || Ok(Box::new(Faulty { folder: Folder::open(&path)?, faults })))
}
