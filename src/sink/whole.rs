//! Files that are whole or not there: written under another name, synced, renamed, the names synced; read up to a limit. All of it
//! in one folder that is held open ([`super::storage`]), so nothing is followed and no path is looked up twice. Blocking.

use std::io;

use super::storage::Storage;

/// Writes, waits for the disk, and gives the file its name. `unfinished` must not be there.
pub(super) fn write(folder: &mut dyn Storage, unfinished: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let written = write_through(folder, unfinished, bytes).and_then(|()| folder.rename(unfinished, name));
    if written.is_err() {
        let _ = folder.remove(unfinished);
    }
    written?;
    // The name itself is on disk only when the folder is.
    folder.sync_names()
}

/// A new file, on disk when this returns.
pub(super) fn write_through(folder: &mut dyn Storage, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut file = folder.create(name)?;
    folder.write(&mut file, bytes)?;
    folder.sync(&file)
}

/// Reads at most `limit` bytes; what is longer is not what we wrote.
pub(super) fn read(folder: &mut dyn Storage, name: &str, limit: u64) -> io::Result<Vec<u8>> {
    let (bytes, length) = folder.read(name, usize::try_from(limit).unwrap_or(usize::MAX))?;
    if length > limit { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

/// Removes a file that may not be there.
pub(super) fn remove(folder: &mut dyn Storage, name: &str) -> io::Result<()> {
    match folder.remove(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
