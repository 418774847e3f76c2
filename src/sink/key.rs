//! The API key: held where nothing prints it, and read again from its file when that changes.

use std::path::{Path, PathBuf};

use hyper::header::HeaderValue;

use crate::secret::Secret;

/// As a header that hyper keeps out of its own logs; `None` when it is empty or cannot stand in a header.
pub(super) fn header(secret: &Secret) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(secret.expose()).ok().filter(|_| !secret.is_empty())?;
    value.set_sensitive(true);
    Some(value)
}

/// A key file larger than this is not a key file.
const MAX_FILE: u64 = 4_096;

/// The key in use and where a newer one may appear.
#[derive(Debug)]
pub(super) struct Key {
    current: Secret,
    file: Option<PathBuf>,
    /// Grows with each new key: tells whether a refusal was about the key in use.
    generation: u64,
}

impl Key {
    /// The file wins over the value where both are there and the file can be read.
    pub fn new(value: Secret, file: Option<PathBuf>) -> Key {
        let from_file = file.as_deref().and_then(read);
        Key { current: from_file.unwrap_or(value), file, generation: 0 }
    }

    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub fn header(&self) -> Option<HeaderValue> {
        header(&self.current)
    }

    /// What reads the file again, where there is one; it may take as long as the volume under it hangs.
    pub fn reader(&self) -> Option<impl FnOnce() -> Option<Secret> + Send + 'static> {
        let path = self.file.clone()?;
        Some(move || read(&path))
    }

    /// True when what was read is another key than the one in use. A file that is gone or empty leaves the old key in use,
    /// because a mounted secret is absent for a moment while it is replaced.
    ///
    /// The content is compared and not the time stamp: the file is a few bytes, and a mounted secret changes by a symlink.
    pub fn take(&mut self, fresh: Option<Secret>) -> bool {
        match fresh.filter(|fresh| *fresh != self.current) {
            Some(fresh) => {
                self.current = fresh;
                self.generation += 1;
                true
            }
            None => false,
        }
    }
}

fn read(path: &Path) -> Option<Secret> {
    if std::fs::metadata(path).ok()?.len() > MAX_FILE {
        return None;
    }
    let text = std::fs::read_to_string(path).ok()?;
    Some(Secret::new(&text)).filter(|secret| header(secret).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_kept_out_of_logs_and_only_made_of_what_can_be_sent() {
        let good = header(&Secret::new(" abc123\n")).unwrap();
        assert!(good.is_sensitive() && good == "abc123");
        assert!(header(&Secret::new("\n")).is_none() && header(&Secret::new("a\nb")).is_none());
    }

    fn refresh(key: &mut Key) -> bool {
        let fresh = key.reader().and_then(|read| read());
        key.take(fresh)
    }

    #[test]
    fn a_key_file_wins_and_its_change_is_noticed_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "one\n").unwrap();
        let mut key = Key::new(Secret::new("env"), Some(path.clone()));
        assert_eq!(key.header().unwrap(), "one");
        assert!(!refresh(&mut key));
        std::fs::write(&path, "two").unwrap();
        assert!(refresh(&mut key));
        assert!(!refresh(&mut key));
        assert_eq!(key.header().unwrap(), "two");
        std::fs::write(&path, "").unwrap();
        assert!(!refresh(&mut key));
        assert_eq!(key.header().unwrap(), "two");
    }

    #[test]
    fn without_a_file_the_value_is_used() {
        let key = Key::new(Secret::new("env"), Some("/nowhere/key".into()));
        assert_eq!(key.header().unwrap(), "env");
    }
}
