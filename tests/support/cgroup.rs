//! A memory cgroup with a limit, for tests that want the kernel's own figures and the kernel's own kill.
//!
//! It is made below our own (version 1) or below the root (version 2), as `tests/can/in-can.sh` does it; that needs root and a
//! cgroup tree that may be written to.

use std::path::{Path, PathBuf};

/// Removed again at the end, with whatever still runs in it.
pub struct Cgroup {
    pub dir: PathBuf,
}

impl Cgroup {
    /// # Errors
    /// Why this machine cannot.
    pub fn new(name: &str, limit: u64) -> Result<Cgroup, String> {
        let own = std::fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
        let first = own.lines().find_map(|line| line.split_once(":memory:"));
        let (parent, file) = match first {
            Some((_, path)) => (PathBuf::from(format!("/sys/fs/cgroup/memory{path}")), "memory.limit_in_bytes"),
            None => (PathBuf::from("/sys/fs/cgroup"), "memory.max"),
        };
        let dir = parent.join(format!("oomwatch-{name}-{}", std::process::id()));
        let say = |what: &str, error: std::io::Error| format!("{what} {}: {error}", dir.display());
        std::fs::create_dir(&dir).map_err(|error| say("make", error))?;
        let cgroup = Cgroup { dir: dir.clone() };
        std::fs::write(dir.join(file), limit.to_string()).map_err(|error| say("limit", error))?;
        Ok(cgroup)
    }

    pub fn procs(&self) -> PathBuf {
        self.dir.join("cgroup.procs")
    }

    /// How often the kernel had to reclaim at the limit so far.
    pub fn reclaims(&self) -> u64 {
        let read = |file: &str| std::fs::read_to_string(self.dir.join(file)).unwrap_or_default();
        let second = read("memory.events").lines().find_map(|line| line.strip_prefix("max ")?.trim().parse().ok());
        second.or_else(|| read("memory.failcnt").trim().parse().ok()).unwrap_or(0)
    }

    /// Whether the kernel has killed in here.
    pub fn has_killed(&self) -> bool {
        let read = |file: &str| std::fs::read_to_string(self.dir.join(file)).unwrap_or_default();
        ["memory.oom_control", "memory.events"].iter().any(|file| {
            let told = read(file);
            told.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count.trim() != "0"))
        })
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The kernel lets a cgroup go a moment after its last process.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.dir).is_ok() {
                return;
            }
            end_all(&self.procs());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// Children of what was started here may outlive it: PostgreSQL's do, for a moment.
fn end_all(procs: &Path) {
    for pid in std::fs::read_to_string(procs).unwrap_or_default().lines().filter_map(|line| line.parse().ok()) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
}
