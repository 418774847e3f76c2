//! Tells how the target ended: killed by the kernel for memory, or otherwise.
//!
//! The app's cgroup vanishes soon after its last process, and every path below `/proc/PID` at once, so the kill counter is
//! opened at first sight and read through that open file. Where it may not be opened, or its cgroup went before we looked, the
//! machine's own count of kills (`oom_kill` in `/proc/vmstat`, readable by anyone) still proves that nothing was killed when it
//! stood still; when it moved, it may have been somebody else's process.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cgroup::{Memory, field};
use super::process::{Held, read_again, read_text};
use crate::pipeline::Gone;

/// How long before the end a kill may have been counted: a process with many gigabytes takes seconds to go, after the
/// kernel counted it.
const RECENT: Duration = Duration::from_secs(10);

/// A counter and when it last rose.
#[derive(Debug, Default)]
struct Rising {
    last: Option<u64>,
    rose: Option<Duration>,
}

impl Rising {
    /// Takes the counter's value at `at`. An unreadable one leaves what was known.
    fn look(&mut self, at: Duration, value: Option<u64>) {
        let Some(value) = value else { return };
        if self.last.is_some_and(|last| value > last) {
            self.rose = Some(at);
        }
        self.last = Some(value);
    }

    fn rose_before(&self, end: Duration) -> bool {
        self.rose.is_some_and(|rose| end.saturating_sub(rose) <= RECENT)
    }
}

/// Watches the kill counters on behalf of one target.
#[derive(Debug)]
pub struct Witness {
    counter: Option<File>,
    cgroup: Rising,
    vmstat: PathBuf,
    machine: Rising,
}

impl Witness {
    /// Opens the counters and takes their first values.
    pub fn open(held: &Held, memory: Option<&Memory>, proc: &Path, at: Duration) -> Witness {
        let counter = memory.and_then(|memory| memory.kill_counter(held).ok());
        let vmstat = proc.join("vmstat");
        let mut witness = Witness { counter, cgroup: Rising::default(), vmstat, machine: Rising::default() };
        witness.look(at);
        witness
    }

    /// Reads the counters; gives the kills in the app's cgroup since it was made, where that can be read now.
    pub fn look(&mut self, at: Duration) -> Option<u64> {
        let kills = self.counter.as_ref().and_then(kills);
        self.cgroup.look(at, kills);
        let machine = File::open(&self.vmstat).and_then(|file| read_text(file, 64 * 1024)).ok();
        self.machine.look(at, machine.and_then(|text| field(&text, "oom_kill")));
        kills
    }

    /// Whether a kill was counted in the held cgroup just now.
    pub fn saw_kill(&mut self, at: Duration) -> bool {
        self.look(at);
        self.cgroup.rose_before(at)
    }

    /// The end, seen at `at`. `was_near` tells that the last reading stood close to the limit: with a kill somewhere on the
    /// machine at the same time, that is taken for this one.
    pub fn verdict(&mut self, at: Duration, was_near: bool) -> Gone {
        let readable = self.look(at).is_some();
        let machine_counts = self.machine.last.is_some();
        match (self.cgroup.rose_before(at), self.machine.rose_before(at)) {
            (true, _) => Gone::OomKilled,
            _ if readable => Gone::Ended,
            (false, true) if was_near => Gone::OomKilled,
            (false, false) if machine_counts => Gone::Ended,
            _ => Gone::Unknown,
        }
    }
}

fn kills(counter: &File) -> Option<u64> {
    field(std::str::from_utf8(&read_again(counter)?).ok()?, "oom_kill")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::cgroup;
    use crate::source::fixture::Fixture;

    const EVENTS: &str = "proc/10/root/sys/fs/cgroup/memory.events";

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn witness(fixture: &Fixture, with_cgroup: bool) -> Witness {
        fixture.process(10, 1, "worker");
        fixture.write("proc/10/cgroup", "0::/\n");
        fixture.write("proc/10/mountinfo", "1 0 0:1 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
        fixture.write("proc/10/root/sys/fs/cgroup/memory.stat", "anon 1\n");
        if with_cgroup {
            fixture.write(EVENTS, "low 0\noom 0\noom_kill 3\noom_group_kill 0\n");
        }
        let held = Held::open(&fixture.proc(), 10).unwrap();
        let memory = cgroup::resolve(&held, &fixture.proc(), Path::new("/none")).unwrap();
        Witness::open(&held, Some(&memory), &fixture.proc(), at(0))
    }

    #[test]
    fn a_counter_that_rose_is_a_kill_though_its_path_is_gone() {
        let fixture = Fixture::new();
        let mut witness = witness(&fixture, true);
        assert_eq!(witness.look(at(1)), Some(3));
        fixture.write(EVENTS, "low 0\noom 1\noom_kill 4\noom_group_kill 0\n");
        fixture.remove("proc/10");
        assert_eq!(witness.verdict(at(2), false), Gone::OomKilled);
    }

    #[test]
    fn a_counter_that_stood_still_is_an_ordinary_end() {
        let fixture = Fixture::new();
        let mut witness = witness(&fixture, true);
        fixture.remove("proc/10");
        assert_eq!(witness.verdict(at(2), true), Gone::Ended);
    }

    #[test]
    fn a_kill_counted_while_the_process_was_still_going_is_its_end_but_an_old_one_is_not() {
        for (end, expected) in [(at(11), Gone::OomKilled), (at(12), Gone::Ended)] {
            let fixture = Fixture::new();
            let mut witness = witness(&fixture, true);
            fixture.write(EVENTS, "oom_kill 4\n");
            assert_eq!(witness.look(at(1)), Some(4));
            assert_eq!(witness.verdict(end, false), expected);
        }
    }

    /// With `memory.oom.group` every process of the cgroup goes, and each is counted.
    #[test]
    fn the_kill_of_the_whole_group_is_one_kill() {
        let fixture = Fixture::new();
        let mut witness = witness(&fixture, true);
        fixture.write(EVENTS, "low 0\noom 1\noom_kill 12\noom_group_kill 1\n");
        fixture.remove("proc/10");
        assert_eq!(witness.verdict(at(1), false), Gone::OomKilled);
        // A group that is killed above us moves no counter but those of the victims, ours among them.
        let fixture = Fixture::new();
        let mut witness = self::witness(&fixture, true);
        fixture.write(EVENTS, "low 0\noom 0\noom_kill 4\noom_group_kill 0\n");
        assert_eq!(witness.verdict(at(1), false), Gone::OomKilled);
    }

    #[test]
    fn without_a_cgroup_the_machine_count_decides_as_far_as_it_can() {
        let cases = [
            ("oom_kill 7\n", "oom_kill 7\n", true, Gone::Ended),
            ("oom_kill 7\n", "oom_kill 8\n", true, Gone::OomKilled),
            ("oom_kill 7\n", "oom_kill 8\n", false, Gone::Unknown),
            ("", "", true, Gone::Unknown),
            ("oom_kill x\n", "oom_kill \n", true, Gone::Unknown),
        ];
        for (before, after, near, expected) in cases {
            let fixture = Fixture::new();
            fixture.write("proc/vmstat", before);
            let mut witness = witness(&fixture, false);
            fixture.write("proc/vmstat", after);
            assert_eq!(witness.verdict(at(1), near), expected, "{before:?} {after:?} {near}");
        }
    }
}
