//! Files that are whole or not there: written under another name, synced, renamed, the folder synced; read up to a limit. For us
//! alone (0600), and no symlink is followed. Blocking; called on threads made for that.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

/// Writes, waits for the disk, and gives the file its name in the same folder. `unfinished` must not be there.
pub(super) fn write(unfinished: &Path, name: &Path, bytes: &[u8]) -> io::Result<()> {
    let written = write_through(unfinished, bytes).and_then(|()| fs::rename(unfinished, name));
    if written.is_err() {
        let _ = fs::remove_file(unfinished);
    }
    written?;
    // The name itself is on disk only when the folder is.
    File::open(name.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// A new file, on disk when this returns.
pub(super) fn write_through(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file =
        options.write(true).create_new(true).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Reads at most `limit` bytes; what is longer is not what we wrote.
pub(super) fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path)?;
    let mut bytes = Vec::new();
    let n = file.take(limit + 1).read_to_end(&mut bytes)?;
    if n as u64 > limit { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

/// Removes a file that may not be there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
