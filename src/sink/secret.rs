//! The API key: held where nothing prints it, and read again from its file when that changes.

use std::path::{Path, PathBuf};

use hyper::header::HeaderValue;

/// A text that is never shown: no `Display`, no serialisation, and a `Debug` without the value. Overwritten when dropped.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// White space around it is taken off: key files tend to end in a line feed.
    pub fn new(text: &str) -> Secret {
        Secret(text.trim().to_owned())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As a header that hyper keeps out of its own logs; `None` when it is empty or cannot stand in a header.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(&self.0).ok().filter(|_| !self.is_empty())?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.0).into_bytes();
        bytes.fill(0);
        std::hint::black_box(&bytes);
    }
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
        self.current.header()
    }

    /// Reads the file again; true when there is another key now. A file that is gone or empty leaves the old key in use,
    /// because a mounted secret is absent for a moment while it is replaced.
    ///
    /// The content is compared and not the time stamp: the file is a few bytes, and a mounted secret changes by a symlink.
    pub async fn refresh(&mut self) -> bool {
        let Some(path) = self.file.clone() else {
            return false;
        };
        let fresh = tokio::task::spawn_blocking(move || read(&path)).await.ok().flatten();
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
    Some(Secret::new(&text)).filter(|secret| secret.header().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_trimmed_and_never_shown() {
        let secret = Secret::new(" abc123\n");
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        let header = secret.header().unwrap();
        assert!(header.is_sensitive() && header == "abc123");
        assert!(Secret::new("\n").header().is_none() && Secret::new("a\nb").header().is_none());
    }

    #[tokio::test]
    async fn a_key_file_wins_and_its_change_is_noticed_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "one\n").unwrap();
        let mut key = Key::new(Secret::new("env"), Some(path.clone()));
        assert_eq!(key.header().unwrap(), "one");
        assert!(!key.refresh().await);
        std::fs::write(&path, "two").unwrap();
        assert!(key.refresh().await);
        assert!(!key.refresh().await);
        assert_eq!(key.header().unwrap(), "two");
        std::fs::write(&path, "").unwrap();
        assert!(!key.refresh().await);
        assert_eq!(key.header().unwrap(), "two");
    }

    #[test]
    fn without_a_file_the_value_is_used() {
        let key = Key::new(Secret::new("env"), Some("/nowhere/key".into()));
        assert_eq!(key.header().unwrap(), "env");
    }
}
