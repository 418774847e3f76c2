//! The file of a Unix socket: put in its place in one step, and taken away at the end if it is still ours.
//!
//! The socket is bound and given its mode under a name beside the wanted one, then renamed over it. So a client never finds a
//! path without a socket, nor one that it may not write to yet; it finds the dead socket of an earlier run, then ours. What is
//! not a dead socket is never replaced: a file may be somebody's data, and a living socket is most likely the Agent's.

use std::ffi::OsString;
use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use socket2::{Domain, SockAddr, Socket, Type};

/// Everyone may write, and only the owner read: what the Agent gives its sockets. Apps run under any user.
const MODE: u32 = 0o722;

/// Connections that wait to be accepted, also while we are not scheduled. The kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 1_024;

/// The path of a socket of ours. Dropping it removes the file, unless another one stands there by then.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn is(&self, found: &Metadata) -> bool {
        (found.dev(), found.ino()) == (self.device, self.inode)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| self.is(&found)) {
            let _gone = fs::remove_file(&self.path);
        }
    }
}

/// Binds a non-blocking socket of `kind` at `path`; a stream socket listens.
///
/// # Errors
/// `AlreadyExists` when something other than a socket stands there, `AddrInUse` when somebody receives there, and whatever
/// the kernel says of the directory.
pub(super) fn bind(path: &Path, kind: Type) -> io::Result<(Socket, SocketFile)> {
    ensure_free(path)?;
    let beside = beside(path);
    ensure_free(&beside)?;
    // Only a socket that nobody has is left there, of a run that was killed at this very spot.
    let _none = fs::remove_file(&beside);
    let socket = Socket::new(Domain::UNIX, kind, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(&beside)?)?;
    if kind == Type::STREAM {
        socket.listen(BACKLOG)?;
    }
    match publish(&beside, path) {
        Ok(file) => Ok((socket, file)),
        Err(fault) => {
            let _gone = fs::remove_file(&beside);
            Err(fault)
        }
    }
}

fn publish(beside: &Path, path: &Path) -> io::Result<SocketFile> {
    fs::set_permissions(beside, Permissions::from_mode(MODE))?;
    let made = fs::symlink_metadata(beside)?;
    fs::rename(beside, path)?;
    Ok(SocketFile { path: path.to_owned(), device: made.dev(), inode: made.ino() })
}

/// The same path with another last byte: as long as the wanted one, which may already be all that a socket address holds.
fn beside(path: &Path) -> PathBuf {
    let mut bytes = path.as_os_str().as_bytes().to_vec();
    if let Some(last) = bytes.last_mut() {
        *last = if *last == b'~' { b'-' } else { b'~' };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// Nothing stands there, or the socket of a process that has ended.
fn ensure_free(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(fault) => Err(fault),
        Ok(found) if !found.file_type().is_socket() => {
            Err(io::Error::new(io::ErrorKind::AlreadyExists, "something that is not a socket stands there"))
        }
        Ok(_) => ensure_dead(path),
    }
}

/// A connect tells: only a socket that no process holds refuses.
fn ensure_dead(path: &Path) -> io::Result<()> {
    let probe = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    probe.set_nonblocking(true)?;
    let refused = probe.connect(&SockAddr::unix(path)?).err().and_then(|fault| fault.raw_os_error());
    match refused.map(Errno::from_raw) {
        Some(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(()),
        // EPROTOTYPE: a stream socket lives there.
        None | Some(Errno::EPROTOTYPE) => Err(io::Error::from(io::ErrorKind::AddrInUse)),
        Some(other) => Err(other.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixDatagram, UnixListener};

    fn names(dir: &Path) -> Vec<String> {
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn the_file_has_the_agents_mode_and_goes_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dsd.socket");
        for kind in [Type::DGRAM, Type::STREAM] {
            let (_socket, file) = bind(&path, kind).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, MODE);
            assert_eq!(names(dir.path()), ["dsd.socket"]);
            drop(file);
            assert!(names(dir.path()).is_empty());
        }
    }

    #[test]
    fn the_socket_of_a_dead_process_is_replaced_in_one_step() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        for kind in [Type::DGRAM, Type::STREAM] {
            drop(UnixDatagram::bind(&path).unwrap());
            let before = fs::symlink_metadata(&path).unwrap().ino();
            let (_socket, file) = bind(&path, kind).unwrap();
            assert_ne!(fs::symlink_metadata(&path).unwrap().ino(), before);
            drop(file);
        }
        drop(UnixListener::bind(&path).unwrap());
        // The name beside it may be left over as well.
        drop(UnixListener::bind(beside(&path)).unwrap());
        bind(&path, Type::DGRAM).unwrap();
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn a_living_socket_is_in_use_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (gram, stream) = (dir.path().join("gram"), dir.path().join("stream"));
        let _gram = UnixDatagram::bind(&gram).unwrap();
        let _stream = UnixListener::bind(&stream).unwrap();
        for path in [&gram, &stream] {
            for kind in [Type::DGRAM, Type::STREAM] {
                assert_eq!(bind(path, kind).unwrap_err().kind(), io::ErrorKind::AddrInUse);
            }
        }
        UnixDatagram::unbound().unwrap().connect(&gram).unwrap();
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&file, "data").unwrap();
        std::os::unix::fs::symlink(dir.path().join("nowhere"), &link).unwrap();
        for path in [file.as_path(), &link, dir.path()] {
            assert_eq!(bind(path, Type::DGRAM).unwrap_err().kind(), io::ErrorKind::AlreadyExists, "{path:?}");
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "data");
        let missing = bind(&dir.path().join("no/dir"), Type::DGRAM).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_that_another_put_there_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (_socket, file) = bind(&path, Type::DGRAM).unwrap();
        fs::remove_file(&path).unwrap();
        let _another = UnixDatagram::bind(&path).unwrap();
        drop(file);
        assert_eq!(names(dir.path()), ["s"]);
    }

    #[test]
    fn the_longest_path_that_an_address_holds_is_bound() {
        let dir = tempfile::tempdir().unwrap();
        let name = "x".repeat(107 - dir.path().as_os_str().len() - 1);
        let path = dir.path().join(name);
        let _bound = bind(&path, Type::STREAM).unwrap();
        assert!(bind(&dir.path().join("x".repeat(110)), Type::STREAM).is_err());
    }
}
