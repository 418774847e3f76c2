//! Profile files in one folder: `<id>.<kind>.pb.gz`. Blocking; called on threads made for that.
//!
//! A file appears under its name only when all of it is on disk ([`whole`]), so a kill leaves whole files or none. Names are made
//! here and never taken from outside.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

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

fn path(dir: &Path, id: &str, kind: &str) -> PathBuf {
    dir.join(format!("{id}.{kind}{ENDING}"))
}

/// Makes the folder for us alone, removes what a kill left unfinished, and lists the profiles, oldest first.
pub(super) fn open(dir: &Path) -> io::Result<Vec<Found>> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    // A mounted volume may belong to root and be open to our group: then this fails, and the files' own mode protects them.
    let _ = fs::set_permissions(dir, Permissions::from_mode(0o700));
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let data = entry.metadata()?;
        if !data.is_file() {
            continue;
        }
        if name.starts_with(UNFINISHED) {
            fs::remove_file(entry.path())?;
        } else if let Some((id, kind)) = parse(&name) {
            let written = data.modified()?;
            let written_at = written.duration_since(std::time::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
            found.push((written, Found { id, kind, bytes: data.len(), written_at }));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.id.cmp(&b.1.id)));
    Ok(found.into_iter().map(|it| it.1).collect())
}

fn parse(name: &str) -> Option<(String, String)> {
    let (id, kind) = name.strip_suffix(ENDING)?.split_once('.')?;
    let plain = !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    (is_id(id) && plain).then(|| (id.to_owned(), kind.to_owned()))
}

pub(super) fn write(dir: &Path, id: &str, kind: &str, bytes: &[u8]) -> io::Result<()> {
    whole::write(&dir.join(format!("{UNFINISHED}{id}")), &path(dir, id, kind), bytes)
}

pub(super) fn read(dir: &Path, id: &str, kind: &str, limit: u64) -> io::Result<Vec<u8>> {
    whole::read(&path(dir, id, kind), limit)
}

pub(super) fn remove(dir: &Path, id: &str, kind: &str) -> io::Result<()> {
    whole::remove(&path(dir, id, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "00000000000000a1";

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
        assert_eq!(open(&dir).unwrap(), []);
        write(&dir, ID, "heap", b"profile").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir), mode(&path(&dir, ID, "heap"))), (0o700, 0o600));
        let found = open(&dir).unwrap();
        assert_eq!((found.len(), found[0].id.as_str(), found[0].kind.as_str(), found[0].bytes), (1, ID, "heap", 7));
        assert!(found[0].written_at > 1e9);
        assert_eq!(read(&dir, ID, "heap", 7).unwrap(), b"profile");
        assert!(read(&dir, ID, "heap", 6).is_err());
    }

    #[test]
    fn unfinished_files_are_cleared_and_strangers_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let stay = ["notes.txt", "00000000000000a1.HEAP.pb.gz", "00000000000000a1.pb.gz"];
        for name in stay.iter().copied().chain([".unfinished-00000000000000a2"]) {
            fs::write(dir.path().join(name), b"x").unwrap();
        }
        assert_eq!(open(dir.path()).unwrap(), []);
        assert!(stay.iter().all(|name| dir.path().join(name).exists()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), stay.len());
    }

    #[test]
    fn a_symlink_is_neither_listed_nor_read_nor_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        fs::write(&secret, b"secret").unwrap();
        std::os::unix::fs::symlink(&secret, path(dir.path(), ID, "heap")).unwrap();
        std::os::unix::fs::symlink(&secret, dir.path().join(format!("{UNFINISHED}{ID}"))).unwrap();
        assert_eq!(open(dir.path()).unwrap(), []);
        assert!(read(dir.path(), ID, "heap", 100).is_err());
        assert!(write(dir.path(), ID, "heap", b"overwritten").is_err());
        assert_eq!(fs::read(&secret).unwrap(), b"secret");
    }
}
