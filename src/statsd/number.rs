//! Numbers as StatsD clients write them.
//!
//! Rust reads an overflowing literal as infinity where Go reports an error, so a literal with digits in it that comes out
//! infinite is refused here. Go's hexadecimal floats and `1_000` are refused too: no client sends them.

/// Longest run of digits that an `f64` holds exactly; a whole number that is no longer, divided by a power of ten that is
/// exact as well, is rounded once, as the float parser would.
const EXACT_DIGITS: usize = 15;
const TENS: [f64; EXACT_DIGITS + 1] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

/// A float, `inf` and `nan` included: whoever stores it decides about those. `None` for anything else.
pub(crate) fn number(text: &[u8]) -> Option<f64> {
    if let Some(value) = short_decimal(text) {
        return Some(value);
    }
    let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    let out_of_range = value.is_infinite() && text.iter().any(u8::is_ascii_digit);
    (!out_of_range).then_some(value)
}

/// Most values are short: digits with at most one point among them. They need neither a UTF-8 check nor the float parser.
fn short_decimal(text: &[u8]) -> Option<f64> {
    if text.len() > EXACT_DIGITS + 1 {
        return None;
    }
    let (mut value, mut digits, mut decimals) = (0u64, 0, None);
    for byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit <= 9 {
            value = value * 10 + u64::from(digit);
            digits += 1;
        } else if *byte == b'.' && decimals.is_none() {
            decimals = Some(digits);
        } else {
            return None;
        }
    }
    let after = digits - decimals.unwrap_or(digits);
    (1..=EXACT_DIGITS).contains(&digits).then(|| value as f64 / TENS[after])
}

/// Whole Unix seconds, at least 1.
pub(crate) fn seconds(text: &[u8]) -> Option<i64> {
    let value: i64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (value >= 1).then_some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_short_way_reads_what_the_float_parser_reads(text in "[0-9]{0,9}[.]?[0-9]{0,9}") {
            prop_assert_eq!(number(text.as_bytes()).map(f64::to_bits), text.parse::<f64>().ok().map(f64::to_bits));
        }
    }

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
