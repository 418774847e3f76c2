//! One folder, by name and through one handle: what spool, profiles and state ask of a disk. Blocking; called on threads made for
//! that.
//!
//! The trait is as narrow as what can fail apart, so that a test fails each step by itself. Nothing is followed that is no
//! plain file, and a file is for us alone.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use nix::dir::Dir;
use nix::fcntl::{self, OFlag};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

/// The steps of which the work on a folder is made.
pub(in crate::sink) trait Storage: Send + std::fmt::Debug {
    /// Every name in the folder.
    fn list(&mut self) -> io::Result<Vec<String>>;
    /// The first `most` bytes of a plain file, and how long it is.
    fn read(&mut self, name: &str, most: usize) -> io::Result<(Vec<u8>, u64)>;
    /// A file that did not exist, empty.
    fn create(&mut self, name: &str) -> io::Result<File>;
    fn write(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()>;
    /// Waits until the file is on disk.
    fn sync(&mut self, file: &File) -> io::Result<()>;
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// Waits until the names are on disk.
    fn sync_names(&mut self) -> io::Result<()>;
}

/// A real folder. Clones share the handle: each thread that works in the folder has one.
#[derive(Clone, Debug)]
pub(in crate::sink) struct Folder {
    handle: Arc<OwnedFd>,
}

impl Folder {
    /// Makes the folder for us alone where it is not there, and holds on to it: whatever becomes of its path later, we stay
    /// in it.
    pub fn open(path: &Path) -> io::Result<Folder> {
        let folder = Folder::make(path)?;
        // A mounted volume may belong to root and be open to our group: then this fails, and the files' own mode protects them.
        let _ = fs::set_permissions(path, Permissions::from_mode(0o700));
        Ok(folder)
    }

    /// As [`Folder::open`] does, but a folder that is there keeps its mode.
    pub fn make(path: &Path) -> io::Result<Folder> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        Folder::look(path)
    }

    /// Opens a folder that is there.
    pub fn look(path: &Path) -> io::Result<Folder> {
        let handle = OpenOptions::new().read(true).custom_flags(OFlag::O_DIRECTORY.bits()).open(path)?;
        Ok(Folder { handle: Arc::new(handle.into()) })
    }

    /// Size and time of a plain file, `None` for anything else that has the name.
    pub fn plain(&self, name: &str) -> io::Result<Option<(u64, SystemTime)>> {
        let data = self.open_at(name, OFlag::O_RDONLY)?.metadata()?;
        Ok(if data.is_file() { Some((data.len(), data.modified()?)) } else { None })
    }

    fn open_at(&self, name: &str, flags: OFlag) -> io::Result<File> {
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        Ok(fcntl::openat(self.handle.as_fd(), name, flags, Mode::from_bits_truncate(0o600))?.into())
    }
}

impl Storage for Folder {
    fn list(&mut self) -> io::Result<Vec<String>> {
        let mut dir = Dir::openat(self.handle.as_fd(), ".", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        let mut names = Vec::new();
        for entry in dir.iter() {
            names.extend(entry?.file_name().to_str().ok().map(str::to_owned));
        }
        Ok(names)
    }

    fn read(&mut self, name: &str, most: usize) -> io::Result<(Vec<u8>, u64)> {
        let file = self.open_at(name, OFlag::O_RDONLY)?;
        let data = file.metadata()?;
        if !data.is_file() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = Vec::with_capacity(most.min(data.len() as usize));
        file.take(most as u64).read_to_end(&mut bytes)?;
        Ok((bytes, data.len()))
    }

    fn create(&mut self, name: &str) -> io::Result<File> {
        self.open_at(name, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL)
    }

    fn write(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn sync(&mut self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        Ok(fcntl::renameat(self.handle.as_fd(), from, self.handle.as_fd(), to)?)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        Ok(unlinkat(self.handle.as_fd(), name, UnlinkatFlags::NoRemoveDir)?)
    }

    fn sync_names(&mut self) -> io::Result<()> {
        Ok(nix::unistd::fsync(self.handle.as_fd())?)
    }
}

/// How a folder is opened: once, on the thread that works with it.
pub(in crate::sink) type Opener = Box<dyn FnOnce() -> io::Result<Box<dyn Storage>> + Send>;

pub(in crate::sink) fn opener(path: PathBuf) -> Opener {
    Box::new(move || Ok(Box::new(Folder::open(&path)?)))
}
