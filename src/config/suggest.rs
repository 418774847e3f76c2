//! "Did you mean": the known name nearest to an unknown one.

/// `, did you mean "…"?` for the nearest of `known` that is near enough to be a slip, else nothing.
pub(super) fn closest(name: &str, known: impl Iterator<Item = String>) -> String {
    // A third of the letters may be wrong, which takes in "flsh" for "flush" and leaves out what merely has the same length.
    let limit = (name.chars().count() / 3).clamp(1, 4);
    known
        // Of two as near, the longer: a letter is forgotten more often than mistaken ("statd" is statsd, not state).
        .map(|candidate| (distance(name, &candidate), std::cmp::Reverse(candidate.len()), candidate))
        .filter(|(distance, _, candidate)| *distance <= limit || (name.len() > 3 && candidate.starts_with(name)))
        .min()
        .map(|(.., candidate)| format!(", did you mean \"{candidate}\"?"))
        .unwrap_or_default()
}

/// Levenshtein's distance, in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in [("flush", "flsh", 1), ("", "abc", 3), ("kitten", "sitting", 3), ("same", "same", 0)] {
            assert_eq!((distance(a, b), distance(b, a)), (expected, expected), "{a} {b}");
        }
    }

    #[test]
    fn a_far_name_gets_no_suggestion() {
        let known = || ["interval".to_owned(), "limit".to_owned()].into_iter();
        assert_eq!(closest("intervall", known()), ", did you mean \"interval\"?");
        assert_eq!(closest("colour", known()), "");
    }
}
