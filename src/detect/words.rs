//! Sizes and times as evidence says them.

use std::time::Duration;

const MIB: f64 = 1_048_576.0;

/// `41 MiB`, `0.8 MiB`, `3.2 GiB`.
pub(super) fn size(bytes: f64) -> String {
    match bytes / MIB {
        mib if mib >= 10_240.0 => format!("{:.1} GiB", mib / 1_024.0),
        mib if mib >= 10.0 => format!("{mib:.0} MiB"),
        mib => format!("{mib:.1} MiB"),
    }
}

/// `48 s`, `16 min`, `2.7 h`.
pub(super) fn span(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3_600.0),
    }
}

/// `is` for one.
pub(super) fn is_or_are(count: u64) -> &'static str {
    if count == 1 { "is" } else { "are" }
}

/// `one more every 0.4 s`, or `3 more a second` where that says more.
pub(super) fn pace(per_second: f64) -> String {
    match 1.0 / per_second {
        every if (0.1..10.0).contains(&every) => format!("one more every {every:.1} s"),
        every if every >= 10.0 => format!("one more every {}", span(every)),
        _ => format!("{per_second:.0} more a second"),
    }
}

/// `0.4`, `38`, `12000`: a number a second.
pub(super) fn rate(per_second: f64) -> String {
    if per_second < 10.0 { format!("{per_second:.1}") } else { format!("{per_second:.0}") }
}

/// A time to the limit from its parts; `None` where it is no number or beyond thirty years.
pub(super) fn time_left(room: f64, per_second: f64) -> Option<Duration> {
    let seconds = room.max(0.0) / per_second;
    (per_second > 0.0 && seconds < 1e9).then(|| Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_as_a_person_says_them() {
        assert_eq!(size(41.2 * MIB), "41 MiB");
        assert_eq!(size(0.75 * MIB), "0.8 MiB");
        assert_eq!(size(20.5 * 1_024.0 * MIB), "20.5 GiB");
        assert_eq!((span(48.0), span(960.0), span(9_720.0)), ("48 s".into(), "16 min".into(), "2.7 h".into()));
        assert_eq!(pace(2.7), "one more every 0.4 s");
        assert_eq!(pace(0.01), "one more every 100 s");
        assert_eq!((rate(0.42), rate(38.2)), ("0.4".into(), "38".into()));
        assert_eq!(pace(50.0), "50 more a second");
        assert_eq!(time_left(10.0, 2.0), Some(Duration::from_secs(5)));
        assert_eq!(time_left(10.0, 0.0), None);
        assert_eq!(time_left(1.0, f64::MIN_POSITIVE), None);
    }
}
