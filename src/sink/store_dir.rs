//! Profile files in one folder: `<id>.<kind>.pb.gz`, reached through its handle alone. Blocking; called on threads made for that.
//!
//! A file appears under its name only when all of it is on disk ([`whole`]), so a kill leaves whole files or none. Names are made
//! here and never taken from outside.

use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::storage::{Folder, Storage};
use super::whole;

const ENDING: &str = ".pb.gz";
const UNFINISHED: &str = ".unfinished-";

/// A file that was found.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Found {
    pub id: String,
    pub kind: String,
    pub bytes: u64,
    /// Unix seconds.
    pub written_at: f64,
}

/// `^[0-9a-f]{16}$`
pub(super) fn is_id(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn name(id: &str, kind: &str) -> String {
    format!("{id}.{kind}{ENDING}")
}

/// Makes the folder for us alone, removes what a kill left unfinished, and lists the profiles, oldest first.
pub(super) fn open(dir: &Path) -> io::Result<(Folder, Vec<Found>)> {
    let mut folder = Folder::open(dir)?;
    let mut found = Vec::new();
    for name in folder.list()? {
        if name.starts_with(UNFINISHED) {
            whole::remove(&mut folder, &name)?;
        } else if let Some((id, kind)) = parse(&name)
            // A link, or a file that another user keeps from us, is none of ours.
            && let Ok(Some((bytes, written))) = folder.plain(&name)
        {
            found.push((written, Found { id, kind, bytes, written_at: unix_seconds(written) }));
        }
    }
    found.sort_by_key(|it| it.0);
    Ok((folder, found.into_iter().map(|it| it.1).collect()))
}

fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

fn parse(name: &str) -> Option<(String, String)> {
    let (id, kind) = name.strip_suffix(ENDING)?.split_once('.')?;
    let plain = !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    (is_id(id) && plain).then(|| (id.to_owned(), kind.to_owned()))
}

pub(super) fn write(folder: &mut dyn Storage, id: &str, kind: &str, bytes: &[u8]) -> io::Result<()> {
    whole::write(folder, &format!("{UNFINISHED}{id}"), &name(id, kind), bytes)
}

/// A file of exactly so many bytes: another one is not what we wrote.
pub(super) fn read(folder: &mut dyn Storage, id: &str, kind: &str, length: u64) -> io::Result<Vec<u8>> {
    let bytes = whole::read(folder, &name(id, kind), length)?;
    if bytes.len() as u64 == length { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

pub(super) fn remove(folder: &mut dyn Storage, id: &str, kind: &str) -> io::Result<()> {
    whole::remove(folder, &name(id, kind))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const ID: &str = "00000000000000a1";

    fn path(dir: &Path) -> std::path::PathBuf {
        dir.join(name(ID, "heap"))
    }

    #[test]
    fn ids_are_sixteen_lower_case_hex_digits() {
        assert!(is_id(ID));
        for bad in
            ["", "../../etc/passwd", "00000000000000A1", "00000000000000a", "00000000000000a1a", "00000000000000g1"]
        {
            assert!(!is_id(bad), "{bad}");
        }
    }

    #[test]
    fn a_file_is_for_us_alone_and_found_again() {
        let outer = tempfile::tempdir().unwrap();
        let dir = outer.path().join("profiles");
        let (mut folder, found) = open(&dir).unwrap();
        assert_eq!(found, []);
        write(&mut folder, ID, "heap", b"profile").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir), mode(&path(&dir))), (0o700, 0o600));
        let found = open(&dir).unwrap().1;
        assert_eq!((found.len(), found[0].id.as_str(), found[0].kind.as_str(), found[0].bytes), (1, ID, "heap", 7));
        assert!(found[0].written_at > 1e9);
        assert_eq!(read(&mut folder, ID, "heap", 7).unwrap(), b"profile");
        assert!(read(&mut folder, ID, "heap", 6).is_err() && read(&mut folder, ID, "heap", 8).is_err());
    }

    #[test]
    fn unfinished_files_are_cleared_and_strangers_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let stay = ["notes.txt", "00000000000000a1.HEAP.pb.gz", "00000000000000a1.pb.gz"];
        for name in stay.iter().copied().chain([".unfinished-00000000000000a2"]) {
            fs::write(dir.path().join(name), b"x").unwrap();
        }
        assert_eq!(open(dir.path()).unwrap().1, []);
        assert!(stay.iter().all(|name| dir.path().join(name).exists()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), stay.len());
    }

    #[test]
    fn a_symlink_is_neither_listed_nor_read_nor_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        fs::write(&secret, b"secret").unwrap();
        let (mut folder, _) = open(dir.path()).unwrap();
        std::os::unix::fs::symlink(&secret, path(dir.path())).unwrap();
        std::os::unix::fs::symlink(&secret, dir.path().join(format!("{UNFINISHED}{ID}"))).unwrap();
        assert!(read(&mut folder, ID, "heap", 6).is_err());
        assert!(write(&mut folder, ID, "heap", b"overwritten").is_err());
        assert_eq!(open(dir.path()).unwrap().1, []);
        assert_eq!(fs::read(&secret).unwrap(), b"secret");
    }

    /// Somebody who may write beside the folder puts a link in its place.
    #[test]
    fn whatever_becomes_of_its_path_the_folder_that_was_opened_is_the_one() {
        let outer = tempfile::tempdir().unwrap();
        let (dir, elsewhere) = (outer.path().join("profiles"), outer.path().join("elsewhere"));
        let (mut folder, _) = open(&dir).unwrap();
        write(&mut folder, ID, "heap", b"profile").unwrap();
        fs::create_dir(&elsewhere).unwrap();
        fs::write(path(&elsewhere), b"another").unwrap();
        fs::rename(&dir, outer.path().join("moved")).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &dir).unwrap();
        assert_eq!(read(&mut folder, ID, "heap", 7).unwrap(), b"profile");
        write(&mut folder, "00000000000000a2", "heap", b"profile").unwrap();
        remove(&mut folder, ID, "heap").unwrap();
        assert_eq!(fs::read(path(&elsewhere)).unwrap(), b"another");
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 1);
    }
}
