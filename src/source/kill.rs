//! Tells how the target ended: killed by the kernel for memory, or otherwise.
//!
//! The app's cgroup vanishes soon after its last process, and every path below `/proc/PID` at once, so the kill counter is
//! opened at first sight and read through that open file. Where it may not be opened, or its cgroup went before we looked, the
//! machine's own count of kills (`oom_kill` in `/proc/vmstat`, readable by anyone) still proves that nothing was killed when it
//! stood still; when it moved, it may have been somebody else's process.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cgroup::{self, Memory, field};
use super::process::{self, Entry, Held, read_again, read_text};
use crate::pipeline::saved::SavedTarget;
use crate::pipeline::{Gone, Kills};

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
    pub fn look(&mut self, at: Duration) -> Option<Kills> {
        let kills = self.counter.as_ref().and_then(kills);
        self.cgroup.look(at, kills.map(|kills| kills.count));
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

fn kills(counter: &File) -> Option<Kills> {
    let count = field(std::str::from_utf8(&read_again(counter)?).ok()?, "oom_kill")?;
    Some(Kills { counter: counter.metadata().ok()?.ino(), count })
}

/// What became of the process that the sidecar before us watched: `None` while it lives, or where no process can be seen.
///
/// Its cgroup outlives it while others are in it, and through one of them the same counter is read again. A counter that rose is
/// its end; one that stood still says that it was not killed for memory; without it, nothing is known.
pub fn since(proc: &Path, mount: &Path, before: &SavedTarget) -> Option<Gone> {
    if Held::open(proc, before.pid).is_some_and(|held| held.start == before.incarnation) {
        return None;
    }
    let table = process::table(proc).ok().filter(|table| !table.is_empty())?;
    let now = before.kills.and_then(|then| Some((then, counted(proc, mount, &table, then.counter)?)));
    Some(match now {
        Some((then, now)) if now > then.count => Gone::OomKilled,
        Some(_) => Gone::Ended,
        None => Gone::Unknown,
    })
}

/// The kills that this counter tells, where a process still lives in its cgroup. Each cgroup is looked at once.
fn counted(proc: &Path, mount: &Path, table: &[Entry], counter: u64) -> Option<u64> {
    let mut looked_at = HashSet::new();
    let mut found = table.iter().filter(|entry| entry.lives).filter_map(|entry| {
        let held = Held::open(proc, entry.pid)?;
        let is_new = looked_at.insert(held.text("cgroup", 64 * 1024).ok()?);
        let memory = cgroup::resolve(&held, proc, mount).ok().filter(|_| is_new)?;
        kills(&memory.kill_counter(&held).ok()?)
    });
    found.find(|kills| kills.counter == counter).map(|kills| kills.count)
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
        assert_eq!(witness.look(at(1)).map(|kills| kills.count), Some(3));
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
            assert_eq!(witness.look(at(1)).map(|kills| kills.count), Some(4));
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

    /// The app is process 10, the one beside it in its cgroup is 11.
    #[test]
    fn a_process_that_went_between_two_sidecars_ended_as_its_cgroup_counts() {
        let beside = |fixture: &Fixture| {
            fixture.process(11, 1, "beside");
            fixture.write("proc/11/cgroup", "0::/\n");
            fixture.write("proc/11/mountinfo", "1 0 0:1 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
            let (root, shared) = ("proc/11/root/sys/fs/cgroup", "proc/10/root/sys/fs/cgroup");
            std::fs::create_dir_all(fixture.path().join(root)).unwrap();
            for file in ["memory.stat", "memory.events"] {
                std::fs::hard_link(fixture.path().join(shared).join(file), fixture.path().join(root).join(file))
                    .unwrap();
            }
        };
        let cases = [
            (true, "oom_kill 4\n", Gone::OomKilled),
            (true, "oom_kill 3\n", Gone::Ended),
            // The container is another one, with a counter of its own.
            (false, "oom_kill 4\n", Gone::Unknown),
        ];
        for (is_shared, now, expected) in cases {
            let fixture = Fixture::new();
            let kills = witness(&fixture, true).look(at(1));
            let before = SavedTarget { pid: 10, incarnation: 1000, kills };
            let since = |before| since(&fixture.proc(), Path::new("/none"), &before);
            if is_shared {
                beside(&fixture);
            }
            assert_eq!(since(before), None, "it lives");
            assert!(since(SavedTarget { incarnation: 999, ..before }).is_some(), "another has its pid");
            fixture.write(EVENTS, now);
            let events = std::fs::read(fixture.path().join(EVENTS)).unwrap();
            // Before the first one goes, for its inode would be given to another file at once.
            if !is_shared {
                fixture.process(12, 1, "other");
                fixture.write("proc/12/cgroup", "0::/other\n");
                fixture.write("proc/12/mountinfo", "1 0 0:1 /other /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
                fixture.write("proc/12/root/sys/fs/cgroup/memory.stat", "anon 1\n");
                fixture.write("proc/12/root/sys/fs/cgroup/memory.events", std::str::from_utf8(&events).unwrap());
            }
            fixture.remove("proc/10");
            assert_eq!(since(before), Some(expected), "{now}");
            assert_eq!(since(SavedTarget { kills: None, ..before }), Some(Gone::Unknown));
        }
        let empty = Fixture::new();
        let before = SavedTarget { pid: 10, incarnation: 1000, kills: None };
        assert_eq!(since(&empty.path().join("nowhere"), Path::new("/none"), &before), None, "nothing can be seen");
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
