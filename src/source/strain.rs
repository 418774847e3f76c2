//! What a freeze at the limit looks like from outside: reclaim, pages read in again, where the processor's time goes, pressure.
//!
//! Everything is read through files that were opened at first sight, a `pread` each: at the limit the readings come each 250 ms,
//! and a path costs ten times that. What could not be opened is unknown for as long as the target lives in that cgroup.

use std::fs::File;
use std::time::Duration;

use super::cgroup::{Memory, Version, field};
use super::process::{Held, read_again};

/// The files of one target.
#[derive(Debug, Default)]
pub struct Strain {
    stat: Option<File>,
    /// Version 1 has one counter for the limit of memory and one for that of memory and swap: where both limits are the same,
    /// only the latter moves.
    reclaims: Vec<File>,
    pressure: Option<File>,
    version: Option<Version>,
}

/// What one look brought; running totals but for the pressure.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    pub reclaims: Option<u64>,
    /// Of the process alone.
    pub major_faults: Option<u64>,
    pub user: Option<Duration>,
    pub system: Option<Duration>,
    /// `full avg10` of the cgroup, in percent.
    pub pressure: Option<f64>,
}

impl Strain {
    /// `total` is the machine's memory: the counters are those of the cgroup whose limit is below it.
    pub fn open(held: &Held, memory: Option<&Memory>, total: u64) -> Strain {
        let open = |name: &str| memory.and_then(|memory| memory.at_limit(held, total, name));
        let version = memory.map(|memory| memory.version);
        let names: &[&str] = match version {
            Some(Version::V1) => &["memory.failcnt", "memory.memsw.failcnt"],
            Some(Version::V2) => &["memory.events"],
            None => &[],
        };
        Strain {
            stat: held.file(std::path::Path::new("stat")).ok(),
            reclaims: names.iter().filter_map(|name| open(name)).collect(),
            pressure: if version == Some(Version::V2) { open("memory.pressure") } else { None },
            version,
        }
    }

    pub fn look(&self) -> Figures {
        let counts = self.reclaims.iter().filter_map(|file| self.count(file));
        let stat = self.stat.as_ref().and_then(text);
        let times = stat.as_deref().and_then(times);
        Figures {
            reclaims: counts.reduce(u64::saturating_add),
            major_faults: times.map(|it| it.0),
            user: times.map(|it| it.1),
            system: times.map(|it| it.2),
            pressure: self.pressure.as_ref().and_then(text).and_then(|text| full_avg10(&text)),
        }
    }

    fn count(&self, file: &File) -> Option<u64> {
        let text = text(file)?;
        match self.version? {
            Version::V1 => text.trim().parse().ok(),
            Version::V2 => field(&text, "max"),
        }
    }
}

fn text(file: &File) -> Option<String> {
    read_again(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Major faults, user and system time: fields 12, 14 and 15 of `stat`, counted behind the name, which may hold anything.
fn times(stat: &str) -> Option<(u64, Duration, Duration)> {
    let mut words = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().skip(9);
    let mut number = || words.next()?.parse::<u64>().ok();
    let (faults, _of_children, user, system) = (number()?, number()?, number()?, number()?);
    let time = |ticks: u64| Duration::from_millis(ticks.saturating_mul(1_000) / procfs::ticks_per_second().max(1));
    Some((faults, time(user), time(system)))
}

/// `full avg10=12.50 avg60=…`
fn full_avg10(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("full avg10="))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::source::cgroup;
    use crate::source::fixture::Fixture;

    const TOTAL: u64 = 16 << 30;
    const GROUP: &str = "proc/10/root/sys/fs/cgroup";

    fn strain(fixture: &Fixture, version: Version, files: &[(&str, &str)]) -> Strain {
        fixture.process(10, 1, "a) b");
        let (line, mount) = match version {
            Version::V1 => ("5:memory:/\n", "1 0 0:1 / /sys/fs/cgroup ro - cgroup cgroup rw,memory\n"),
            Version::V2 => ("0::/\n", "1 0 0:1 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n"),
        };
        fixture.write("proc/10/cgroup", line);
        fixture.write("proc/10/mountinfo", mount);
        fixture.write(&format!("{GROUP}/memory.stat"), "anon 1\n");
        for (name, text) in files {
            fixture.write(&format!("{GROUP}/{name}"), text);
        }
        let held = Held::open(&fixture.proc(), 10).unwrap();
        let memory = cgroup::resolve(&held, &fixture.proc(), Path::new("/none")).unwrap();
        Strain::open(&held, Some(&memory), TOTAL)
    }

    #[test]
    fn version_two_tells_reclaims_and_pressure() {
        let fixture = Fixture::new();
        let pressure =
            "some avg10=50.00 avg60=38.00 avg300=1.00 total=1\nfull avg10=12.50 avg60=9.00 avg300=1.00 total=1\n";
        let events = "low 0\nhigh 0\nmax 71947\noom 0\noom_kill 0\n";
        let files = [("memory.max", "67108864\n"), ("memory.events", events), ("memory.pressure", pressure)];
        let seen = strain(&fixture, Version::V2, &files).look();
        assert_eq!((seen.reclaims, seen.pressure), (Some(71_947), Some(12.5)));
    }

    #[test]
    fn version_one_adds_the_counter_of_memory_and_swap() {
        let fixture = Fixture::new();
        let limit = ("memory.limit_in_bytes", "67108864\n");
        let strain =
            strain(&fixture, Version::V1, &[limit, ("memory.failcnt", "0\n"), ("memory.memsw.failcnt", "1500\n")]);
        assert_eq!(strain.look().reclaims, Some(1_500));
        // The files stay open: no path is looked up again.
        std::fs::remove_dir_all(fixture.path().join(GROUP)).unwrap();
        assert_eq!(strain.look().reclaims, Some(1_500));
    }

    #[test]
    fn faults_and_times_are_counted_behind_the_name() {
        let ticks = procfs::ticks_per_second();
        let line = format!("10 (a) b) S 1 10 10 0 -1 0 900 0 432 7 {} {} 9 9 20 0 1", 2 * ticks, 3 * ticks);
        assert_eq!(times(&line), Some((432, Duration::from_secs(2), Duration::from_secs(3))));
        for nonsense in ["", ")", "10 (x) S 1 2", "10 (x) S 1 10 10 0 -1 0 900 0 x 7 1 1"] {
            assert_eq!(times(nonsense), None, "{nonsense:?}");
        }
    }

    #[test]
    fn what_is_not_there_is_unknown_and_not_zero() {
        let fixture = Fixture::new();
        let seen = strain(&fixture, Version::V2, &[]).look();
        assert_eq!((seen.reclaims, seen.pressure), (None, None));
        assert!(seen.major_faults.is_some());
        assert_eq!(Strain::default().look(), Figures::default());
        assert_eq!(full_avg10("full avg10=x avg60=1"), None);
    }
}
