//! The sentences of a naming. Names are cleaned before they come here; numbers are said as a person says them.

use super::look::Pace;
use super::names;
use super::naming::Culprit;

/// "`statsd.newStatsdBuffer` grew 148 MiB (92 % of heap growth) in 40 s, made in `main.handleJob` (main.go:57) via `statsd.New`"
pub(super) fn sentence(it: &Culprit, seconds: f64) -> String {
    let (size, share) = (bytes(it.grew_bytes), percent(it.share));
    let grew = format!("`{}` grew {size} ({share} of heap growth){}", it.function, time(seconds));
    let place = format!("{}:{}", names::base_name(&it.made_by_file), it.made_by_line);
    let via = if it.via.is_empty() || it.via == it.function { String::new() } else { format!(" via `{}`", it.via) };
    match it.made_by.as_str() {
        "" => grew,
        owner if owner == it.function => format!("{grew}, at {place}{via}"),
        owner => format!("{grew}, made in `{owner}` ({place}){via}"),
    }
}

/// The three that share the growth when none stands out.
pub(super) fn none_stands_out(culprits: &[Culprit], grown_bytes: i64, seconds: f64) -> String {
    let each = |it: &Culprit| format!("`{}` {}", it.function, percent(it.share));
    let names: Vec<String> = culprits.iter().take(3).map(each).collect();
    let of = format!("{} of heap growth{}", bytes(grown_bytes), time(seconds));
    format!("no single function stands out in {of}: {}", names.join(", "))
}

/// "275 units of about 4.1 MiB of heap each, 390 more a minute"
pub(super) fn units_of((units, what): (i64, &str), each: i64, seconds: f64) -> String {
    let told = format!("{units} {what} of about {} of heap each", bytes(each));
    if seconds.is_finite() && seconds >= 1.0 {
        let a_minute = units as f64 / seconds * 60.0;
        return match a_minute < 1.0 {
            true => format!("{told}, {:.0} more an hour", a_minute * 60.0),
            false => format!("{told}, {a_minute:.0} more a minute"),
        };
    }
    told
}

/// " in 40 s", or nothing where the time is not known.
pub(super) fn time(seconds: f64) -> String {
    if seconds.is_finite() && seconds >= 1.0 { format!(" in {}", span(seconds)) } else { String::new() }
}

/// "40 s", "3 min".
pub(super) fn span(seconds: f64) -> String {
    match seconds {
        _ if seconds < 120.0 => format!("{seconds:.0} s"),
        _ if seconds < 7_200.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.0} h", seconds / 3_600.0),
    }
}

/// How it went on since an earlier look, for the end of a sentence; nothing where it grows on.
pub(super) fn rest(pace: Pace) -> String {
    match pace {
        Pace::Stopped { seconds, .. } => format!("; it has not grown for {}", span(seconds)),
        Pace::Slowed { by, seconds, .. } => format!("; only {} of it in the last {}", bytes(by), span(seconds)),
        Pace::Grows { .. } | Pace::Untold => String::new(),
    }
}

/// `148 MiB` without its sign, with a decimal below ten.
pub(crate) fn bytes(n: i64) -> String {
    let n = n.unsigned_abs();
    let (value, unit) = match n {
        0..=1_023 => return format!("{n} B"),
        1_024..=1_048_575 => (n as f64 / 1_024.0, "KiB"),
        1_048_576..=1_073_741_823 => (n as f64 / 1_048_576.0, "MiB"),
        _ => (n as f64 / 1_073_741_824.0, "GiB"),
    };
    if value < 10.0 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

pub(super) fn signed(n: i64) -> String {
    format!("{}{}", if n < 0 { "-" } else { "+" }, bytes(n))
}

pub(super) fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_said_as_a_person_says_them() {
        const MIB: i64 = 1 << 20;
        let sizes = [(0, "0 B"), (1_023, "1023 B"), (1_536, "1.5 KiB"), (148 * MIB, "148 MiB"), (-3 * MIB, "3.0 MiB")];
        for (n, words) in sizes {
            assert_eq!(bytes(n), words);
        }
        assert_eq!((signed(-2 * MIB).as_str(), signed(MIB).as_str()), ("-2.0 MiB", "+1.0 MiB"));
        assert_eq!(bytes(i64::MIN), "8589934592 GiB");
        let times = [(0.4, ""), (f64::NAN, ""), (40.2, " in 40 s"), (180.0, " in 3 min"), (10_800.0, " in 3 h")];
        for (seconds, words) in times {
            assert_eq!(time(seconds), words);
        }
    }
}
