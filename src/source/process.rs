//! Figures of one process and its children from `/proc`.
//!
//! What is held of a process is its open `/proc/PID` directory, not its number: a read through it fails once the process is
//! gone, even when another has taken the number, so figures of two processes never mix. `status` is read with a small reader
//! of our own, because the procfs crate refuses the whole file when one of some forty fields is missing, as under gVisor.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use procfs::process::{Process, Stat};

/// Processes looked at in one pass over `/proc`: a pod has tens; what lies beyond is not seen.
pub const MAX_PROCESSES: usize = 4_096;

/// Kernel threads carry this flag in field 9 of `stat` (`PF_KTHREAD`, include/linux/sched.h).
const KERNEL_THREAD: u32 = 0x0020_0000;

/// The flag of a thread that is on its way out (`PF_EXITING`).
const EXITING: u32 = 0x4;

/// SIGKILL among waiting signals: in field 31 of `stat` those of the main thread, in `ShdPnd` of `status` those of the process.
const KILL_PENDING: u64 = 1 << 8;

/// One row of the process table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub pid: i32,
    pub parent: i32,
    /// Clock ticks since boot.
    pub start: u64,
    /// The kernel's name of it, at most 15 bytes, set by the process itself.
    pub name: String,
    pub resident_bytes: u64,
    /// Neither a kernel thread nor dead.
    pub lives: bool,
}

/// Every process that can be seen below `proc`, in no order. Those that vanish meanwhile are left out.
///
/// # Errors
/// When `proc` itself cannot be listed.
pub fn table(proc: &Path) -> Result<Vec<Entry>, String> {
    let processes =
        procfs::process::all_processes_with_root(proc).map_err(|error| format!("list {}: {error}", proc.display()))?;
    Ok(processes.flatten().take(MAX_PROCESSES).filter_map(|process| process.stat().ok()).map(entry).collect())
}

fn entry(stat: Stat) -> Entry {
    Entry {
        pid: stat.pid,
        parent: stat.ppid,
        start: stat.starttime,
        lives: !is_dead(&stat) && stat.flags & KERNEL_THREAD == 0,
        resident_bytes: stat.rss.saturating_mul(procfs::page_size()),
        name: stat.comm,
    }
}

/// A zombie whose threads still run (the main thread left first) is alive: its memory is. Nothing outlives a SIGKILL that waits,
/// or the exit of its last thread, and half a gigabyte of memory takes the kernel most of a second to take back meanwhile: a
/// fall that is no recovery.
fn is_dead(stat: &Stat) -> bool {
    let killed = stat.signal & KILL_PENDING != 0;
    let leaves = stat.state == 'Z' || stat.flags & EXITING != 0;
    killed || matches!(stat.state, 'X' | 'x') || (leaves && stat.num_threads <= 1)
}

/// The pids of `root` and of everything that descends from it, root first.
pub fn tree(table: &[Entry], root: i32) -> Vec<i32> {
    let mut pids = vec![root];
    let mut next = 0;
    while let Some(&parent) = pids.get(next) {
        let children = table.iter().filter(|entry| entry.parent == parent && entry.pid != parent && entry.lives);
        let new: Vec<i32> = children.map(|entry| entry.pid).filter(|pid| !pids.contains(pid)).collect();
        pids.extend(new);
        next += 1;
    }
    pids
}

/// A process that is held by its open directory.
#[derive(Debug)]
pub struct Held {
    process: Process,
    pub pid: i32,
    pub start: u64,
}

impl Held {
    /// Takes hold of `pid` below `proc`; `None` when it is not there or dead.
    pub fn open(proc: &Path, pid: i32) -> Option<Held> {
        let process = Process::new_with_root(proc.join(pid.to_string())).ok()?;
        let start = process.stat().ok()?.starttime;
        Some(Held { process, pid, start }).filter(Held::lives)
    }

    /// Whether it is still the process that was opened, and alive.
    pub fn lives(&self) -> bool {
        let stat = self.process.stat();
        // The main thread may be a zombie already while the last of the others gives the memory back: that, only `status` tells.
        stat.is_ok_and(|stat| stat.starttime == self.start && !is_dead(&stat)) && !self.status().killed
    }

    /// Its name as the kernel has it, escaped where a process put in what is not printable.
    pub fn name(&self) -> Option<String> {
        self.process.stat().ok().map(|stat| plain(&stat.comm))
    }

    /// Opens a file below its directory; an absolute path is opened as it is.
    pub fn file(&self, path: &Path) -> std::io::Result<File> {
        self.process.open_relative(path).map_err(|error| match error {
            procfs::ProcError::PermissionDenied(_) => std::io::ErrorKind::PermissionDenied.into(),
            procfs::ProcError::NotFound(_) => std::io::ErrorKind::NotFound.into(),
            procfs::ProcError::Io(error, _) => error,
            other => std::io::Error::other(other.to_string()),
        })
    }

    /// Up to `max` bytes of a file below its directory, as text.
    pub fn text(&self, path: &str, max: u64) -> std::io::Result<String> {
        read_text(self.file(Path::new(path))?, max)
    }

    pub fn status(&self) -> Status {
        self.text("status", 64 * 1024).map(|text| Status::parse(&text)).unwrap_or_default()
    }

    /// Its arguments, as far as the first 4 KiB: an app may have megabytes of them.
    pub fn arguments(&self) -> Vec<String> {
        let text = self.text("cmdline", 4096).unwrap_or_default();
        text.split('\0').filter(|argument| !argument.is_empty()).map(str::to_owned).collect()
    }

    /// The socket inodes among its open files; `None` where they may not be listed.
    pub fn sockets(&self) -> Option<Vec<u64>> {
        use procfs::process::FDTarget;
        let files = self.process.fd().ok()?;
        let sockets = files.flatten().filter_map(|file| match file.target {
            FDTarget::Socket(inode) => Some(inode),
            _ => None,
        });
        Some(sockets.collect())
    }

    /// The soft limit of open files; `None` where unlimited or unreadable.
    pub fn fd_limit(&self) -> Option<u64> {
        // Not procfs's reader: it panics on a line that is shorter than it expects.
        let text = self.text("limits", 16 * 1024).ok()?;
        let files = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
        files.split_ascii_whitespace().next()?.parse().ok()
    }

    pub fn usage(&self) -> Usage {
        let status = self.status();
        let resident = || self.process.statm().ok().map(|statm| statm.resident.saturating_mul(procfs::page_size()));
        Usage {
            rss_bytes: status.rss_bytes.or_else(resident),
            anonymous_bytes: status.anonymous_bytes.map(|bytes| bytes.saturating_add(status.shared_bytes.unwrap_or(0))),
            threads: status.threads,
            fds: self.process.fd_count().ok().map(|count| count as u64),
        }
    }
}

/// What a process takes up. `None` is "could not be read".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub rss_bytes: Option<u64>,
    /// RssAnon + RssShmem: what the kernel cannot take back without swap. Pages shared by a parent and its children are
    /// counted once for each.
    pub anonymous_bytes: Option<u64>,
    pub threads: Option<u64>,
    pub fds: Option<u64>,
}

impl Usage {
    /// Adds a child's figures to its parent's. What could not be read of a child adds nothing; what could not be read of the
    /// parent stays unknown.
    #[must_use]
    pub fn plus(self, child: Usage) -> Usage {
        let sum = |own: Option<u64>, more: Option<u64>| own.map(|own| own.saturating_add(more.unwrap_or(0)));
        Usage {
            rss_bytes: sum(self.rss_bytes, child.rss_bytes),
            anonymous_bytes: sum(self.anonymous_bytes, child.anonymous_bytes),
            threads: sum(self.threads, child.threads),
            fds: sum(self.fds, child.fds),
        }
    }
}

/// The lines of `/proc/PID/status` that we use. Memory lines are missing for kernel threads and the dead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Effective user and group.
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub rss_bytes: Option<u64>,
    pub anonymous_bytes: Option<u64>,
    pub shared_bytes: Option<u64>,
    pub threads: Option<u64>,
    /// A SIGKILL waits for the whole process, which it does to the end.
    pub killed: bool,
}

impl Status {
    pub fn parse(text: &str) -> Status {
        let mut status = Status::default();
        for (key, value) in text.lines().filter_map(|line| line.split_once(':')) {
            let mut words = value.split_ascii_whitespace();
            let kib = |mut words: std::str::SplitAsciiWhitespace| words.next()?.parse::<u64>().ok()?.checked_mul(1024);
            match key {
                "Uid" => status.uid = words.nth(1).and_then(|word| word.parse().ok()),
                "Gid" => status.gid = words.nth(1).and_then(|word| word.parse().ok()),
                "VmRSS" => status.rss_bytes = kib(words),
                "RssAnon" => status.anonymous_bytes = kib(words),
                "RssShmem" => status.shared_bytes = kib(words),
                "Threads" => status.threads = words.next().and_then(|word| word.parse().ok()),
                "ShdPnd" => {
                    let pending = words.next().and_then(|word| u64::from_str_radix(word, 16).ok());
                    status.killed = pending.is_some_and(|pending| pending & KILL_PENDING != 0);
                }
                _ => {}
            }
        }
        status
    }
}

/// A process names itself: what is not printable is escaped.
pub fn plain(name: &str) -> String {
    name.escape_debug().to_string()
}

/// The first KiB of a file that stays open: one `pread`. Fails once what it tells of has gone: `ESRCH` for a process, `ENODEV` for a
/// cgroup.
pub fn read_again(file: &File) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 1024];
    let length = file.read_at(&mut bytes, 0).ok()?;
    bytes.truncate(length);
    Some(bytes)
}

/// Up to `max` bytes as text; bytes that are no UTF-8 are replaced, because a process chooses its own name and arguments.
pub fn read_text(file: File, max: u64) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    file.take(max).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::fixture::Fixture;

    #[test]
    fn status_lines_become_bytes_and_effective_ids() {
        let text = "Name:\tworker\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nVmRSS:\t  2048 kB\nRssAnon:\t1024 kB\nRssShmem:\t4 kB\nThreads:\t9\nShdPnd:\t0000000000000100\n";
        let expected = Status {
            uid: Some(2),
            gid: Some(6),
            rss_bytes: Some(2 << 20),
            anonymous_bytes: Some(1 << 20),
            shared_bytes: Some(4096),
            threads: Some(9),
            killed: true,
        };
        assert_eq!(Status::parse(text), expected);
    }

    #[test]
    fn nonsense_in_status_is_unknown_rather_than_zero() {
        for text in [
            "",
            "VmRSS",
            "VmRSS:",
            "VmRSS: x kB",
            "Threads:\t-1",
            "ShdPnd:\t?",
            "VmRSS:\t99999999999999999999 kB",
            "\0\0:\n::",
        ] {
            assert_eq!(Status::parse(text), Status::default(), "{text:?}");
        }
    }

    #[test]
    fn the_table_leaves_the_dead_and_kernel_threads_marked() {
        let fixture = Fixture::new();
        fixture.process(10, 1, "worker");
        fixture.process_state(11, 2, "kworker", 'S', KERNEL_THREAD);
        fixture.process_state(12, 10, "gone", 'Z', 0);
        let mut rows = table(&fixture.proc()).unwrap();
        rows.sort_by_key(|row| row.pid);
        assert_eq!(
            rows.iter().map(|row| (row.pid, row.lives)).collect::<Vec<_>>(),
            [(10, true), (11, false), (12, false)]
        );
        assert_eq!((rows[0].parent, rows[0].start, rows[0].name.as_str()), (1, 1000, "worker"));
    }

    #[test]
    fn a_tree_holds_grandchildren_and_survives_a_loop_of_parents() {
        let row = |pid, parent| Entry { pid, parent, start: 1, name: "x".into(), resident_bytes: 0, lives: true };
        let table = [row(5, 1), row(6, 5), row(7, 6), row(8, 1), row(9, 9)];
        assert_eq!(tree(&table, 5), [5, 6, 7]);
        assert_eq!(tree(&table, 9), [9]);
        assert_eq!(tree(&[row(1, 2), row(2, 1)], 1), [1, 2]);
    }

    #[test]
    fn another_start_time_is_another_process() {
        let fixture = Fixture::new();
        fixture.process(10, 1, "worker");
        let held = Held::open(&fixture.proc(), 10).unwrap();
        assert!(held.lives());
        fixture.write("proc/10/stat", &fixture.stat_line(10, 1, "worker", 'S', 0, 2000));
        assert!(!held.lives());
    }

    #[test]
    fn a_process_that_is_being_killed_is_dead_while_its_memory_is_taken_back() {
        let fixture = Fixture::new();
        fixture.process(10, 1, "worker");
        let held = Held::open(&fixture.proc(), 10).unwrap();
        let line = fixture.stat_line(10, 1, "worker", 'D', 0, 1000);
        let killed = line.replace("18446744073709551615 1 1 0 0 0 0 ", "18446744073709551615 1 1 0 0 0 256 ");
        assert_ne!(line, killed);
        // The last thread, whose own SIGKILL is taken; a main thread that is a zombie already, while another takes its time.
        let last = fixture.stat_line(10, 1, "worker", 'R', EXITING, 1000);
        for dying in [killed, last] {
            fixture.write("proc/10/stat", &dying);
            assert!(!held.lives() && Held::open(&fixture.proc(), 10).is_none(), "{dying}");
        }
        fixture.write("proc/10/stat", &line);
        assert!(held.lives());
        fixture.write("proc/10/status", "Threads:\t2\nShdPnd:\t0000000000000100\n");
        assert!(!held.lives() && Held::open(&fixture.proc(), 10).is_none());
    }

    #[test]
    fn usage_of_the_fixture_is_read_and_a_child_adds_to_it() {
        let fixture = Fixture::new();
        fixture.process(10, 1, "worker");
        fixture.status(10, 1000, 1000, 200, 100, 8);
        let held = Held::open(&fixture.proc(), 10).unwrap();
        let usage = held.usage();
        assert_eq!(
            (usage.rss_bytes, usage.anonymous_bytes, usage.threads),
            (Some(200 << 20), Some((100 << 20) + 4096), Some(8))
        );
        assert_eq!(held.fd_limit(), Some(1024));
        assert_eq!(usage.plus(usage).threads, Some(16));
        assert_eq!(Usage::default().plus(usage), Usage::default());
        assert_eq!(usage.plus(Usage::default()), usage);
    }

    #[test]
    fn limits_in_a_form_of_their_own_are_unknown() {
        let fixture = Fixture::new();
        fixture.process(10, 1, "worker");
        let held = Held::open(&fixture.proc(), 10).unwrap();
        for text in [
            "",
            "Max open files",
            "Max open files            unlimited            unlimited            files\n",
            "Limit\nMax cpu\n",
        ] {
            fixture.write("proc/10/limits", text);
            assert_eq!(held.fd_limit(), None, "{text:?}");
        }
    }

    #[test]
    fn without_a_status_file_the_resident_size_comes_from_statm() {
        let fixture = Fixture::new();
        fixture.process(10, 1, "worker");
        fixture.write("proc/10/statm", "500 300 0 0 0 0 0\n");
        let usage = Held::open(&fixture.proc(), 10).unwrap().usage();
        assert_eq!(usage.rss_bytes, Some(300 * procfs::page_size()));
        assert_eq!((usage.anonymous_bytes, usage.threads), (None, None));
    }
}
