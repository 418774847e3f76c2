//! The one type for what must not be seen: keys, tokens, the address of a proxy with its password.
//!
//! The settings read it, the sinks use it, and nothing prints it: no `Display`, no serialisation, and a `Debug` without the
//! value. Its memory is overwritten when it is dropped.

use std::fmt;

/// A text that is never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// White space around it is taken off: key files tend to end in a line feed.
    pub fn new(value: impl AsRef<str>) -> Secret {
        Secret(value.as_ref().trim().to_owned())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value itself: for what carries it, and nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What may be shown: stars, and the last four characters of one that is long enough not to be guessed from them.
    pub fn masked(&self) -> String {
        let tail: String = match self.0.char_indices().rev().nth(3) {
            Some((at, _)) if self.0.chars().count() >= 16 => self.0[at..].to_owned(),
            _ => String::new(),
        };
        format!("****{tail}")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(****)")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.0).into_bytes();
        bytes.fill(0);
        std::hint::black_box(&bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_show_four_characters_at_most_and_nothing_of_short_ones() {
        assert_eq!(Secret::new("0123456789abcdef0123456789abcdef").masked(), "****cdef");
        assert_eq!(Secret::new("short").masked(), "****");
        assert_eq!(format!("{:?}", Secret::new("0123456789abcdef")), "Secret(****)");
    }

    #[test]
    fn a_secret_is_trimmed() {
        assert_eq!(Secret::new(" abc123\n").expose(), "abc123");
        assert!(Secret::new("\n").is_empty() && Secret::default().is_empty());
    }
}
