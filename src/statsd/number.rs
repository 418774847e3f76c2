//! Numbers as StatsD clients write them.
//!
//! Rust reads an overflowing literal as infinity where Go reports an error, so a literal with digits in it that comes out
//! infinite is refused here. Go's hexadecimal floats and `1_000` are refused too: no client sends them.

/// Longest run of digits that fits a `u64`, and an `f64` exactly, without a check.
const EXACT_DIGITS: usize = 15;

/// A float, `inf` and `nan` included: whoever stores it decides about those. `None` for anything else.
pub(crate) fn number(text: &[u8]) -> Option<f64> {
    if let Some(integer) = short_integer(text) {
        return Some(integer);
    }
    let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    let out_of_range = value.is_infinite() && text.iter().any(u8::is_ascii_digit);
    (!out_of_range).then_some(value)
}

/// Most values are small whole numbers; they need neither a UTF-8 check nor the float parser.
fn short_integer(text: &[u8]) -> Option<f64> {
    if text.is_empty() || text.len() > EXACT_DIGITS {
        return None;
    }
    let mut value = 0u64;
    for byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + u64::from(digit);
    }
    Some(value as f64)
}

/// Whole Unix seconds, at least 1.
pub(crate) fn seconds(text: &[u8]) -> Option<i64> {
    let value: i64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (value >= 1).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_go_but_for_hex_and_underscores() {
        for (text, expected) in [
            ("1", Some(1.0)),
            ("-5", Some(-5.0)),
            ("+5", Some(5.0)),
            (".5", Some(0.5)),
            ("5.", Some(5.0)),
            ("1e3", Some(1000.0)),
            ("999999999999999", Some(999_999_999_999_999.0)),
            ("18446744073709551616", Some(18_446_744_073_709_551_616.0)),
            ("inf", Some(f64::INFINITY)),
            ("-Inf", Some(f64::NEG_INFINITY)),
            ("1e309", None),
            ("-1e309", None),
            ("", None),
            (" 1", None),
            ("1 ", None),
            ("1_000", None),
            ("0x1p4", None),
            ("--1", None),
            ("e", None),
        ] {
            assert_eq!(number(text.as_bytes()), expected, "{text:?}");
        }
        assert!(number(b"NaN").is_some_and(f64::is_nan));
        assert_eq!(number(b"\xff"), None);
    }

    #[test]
    fn seconds_are_whole_and_positive() {
        for (text, expected) in [("1", Some(1)), ("0", None), ("-1", None), ("1.5", None), ("", None), ("x", None)] {
            assert_eq!(seconds(text.as_bytes()), expected, "{text:?}");
        }
    }
}
