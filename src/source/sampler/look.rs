//! One look: finds the target when there is none, reads its figures, notices its end.
//!
//! Everything that is held of the target between looks lives in [`Watched`]. The target stays until its (pid, start time) is
//! gone. Only a guess is looked at again: an app opens its pprof port some time after it starts, and its owner is a better
//! answer than the largest process.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Limit, Settings, missing};
use crate::detect::Reading;
use crate::pipeline::{Census, Degraded, Gone, Kills, Observation, Target};
use crate::source::census;
use crate::source::cgroup::{self, Figures, Unreachable};
use crate::source::find::{self, Found, Strength};
use crate::source::kill::{self, Witness};
use crate::source::process::{self, Held, Usage, read_text, tree};
use crate::source::strain::Strain;

/// The process table, the sockets' table and the search for a target cost more than the figures of one process, so they are
/// read no more often than this, whatever the pace.
const SLOW: Duration = Duration::from_secs(1);

/// How often a guess is tried again: half of the time that it has stood, within these. The kernel walks a table of all the
/// machine's sockets for it, 5 ms each time, so a guess that lasts must not be tried each few seconds for ever.
const GUESS: Duration = Duration::from_secs(5);
const OLD_GUESS: Duration = Duration::from_secs(60);

/// At this share of the limit a kill that the machine counted is taken for the target's.
const NEAR: f64 = 0.8;

/// Looks at the app and at `/proc/net`. Blocks; the sampler runs it on a blocking thread, `doctor` calls it once.
#[derive(Debug)]
pub struct Looker {
    settings: Settings,
    watched: Option<Watched>,
    /// Why there is no target, in words.
    none: String,
    /// The machine's memory in bytes; a limit at or above it is none.
    total: u64,
    census: Census,
    census_due: Duration,
    degraded: Arc<Vec<Degraded>>,
    /// For the sampler to wait on: of a target that was found in the last look.
    pidfd: Option<OwnedFd>,
}

/// What is held of the target.
#[derive(Debug)]
struct Watched {
    target: Target,
    held: Held,
    strength: Strength,
    taken_at: Duration,
    guess_due: Duration,
    /// Its living children, refreshed with the process table.
    children: Vec<Held>,
    refresh_due: Duration,
    /// `/proc/PID/cgroup` as it was when `memory` was found: a process that was caught between its start and its move into
    /// the container's cgroup is looked up again.
    membership: String,
    memory: Result<cgroup::Memory, Unreachable>,
    /// The memory figure came from the cgroup: it must not jump to that of `/proc` because of one failed read.
    from_cgroup: bool,
    witness: Witness,
    strain: Strain,
    near: bool,
}

impl Looker {
    pub fn new(settings: Settings) -> Looker {
        let total = total_memory(&settings.proc).unwrap_or(u64::MAX);
        Looker {
            settings,
            watched: None,
            none: String::new(),
            total,
            census: Census::default(),
            census_due: Duration::ZERO,
            degraded: Arc::default(),
            pidfd: None,
        }
    }

    /// One observation, at `at` since the sidecar began. A death is an observation of its own, without a target.
    pub fn look(&mut self, at: Duration) -> Observation {
        let mut observation = match self.bury(at) {
            Some((gone, kills)) => Observation { gone: Some(gone), oom_kills: kills, ..Observation::default() },
            None => {
                self.search(at);
                Observation { before: self.end_of_before(), ..self.observe(at) }
            }
        };
        self.count_clients(at);
        observation.reading.at = at;
        observation.reading.statsd_clients = self.census.clients;
        observation.census = self.census.clone();
        observation.self_rss_bytes = own_rss(&self.settings.proc);
        if observation.gone.is_none() {
            self.say_what_is_missing(&observation);
        }
        observation.degraded = Arc::clone(&self.degraded);
        observation
    }

    /// A pidfd of the target that the last look found, once.
    pub(super) fn take_pidfd(&mut self) -> Option<OwnedFd> {
        self.pidfd.take()
    }

    /// The user and group of the target, for `doctor`.
    pub fn target_ids(&self) -> Option<(u32, u32)> {
        let status = self.watched.as_ref()?.held.status();
        Some((status.uid?, status.gid?))
    }

    /// What became of the process that was watched before us. It is asked for until that is gone, or ours.
    fn end_of_before(&mut self) -> Option<Gone> {
        let before = self.settings.before?;
        let is_ours = self.watched.as_ref().is_some_and(|watched| before.is(&watched.target));
        let look = || kill::since(&self.settings.proc, &self.settings.cgroup_mount, &before);
        let gone = if is_ours { None } else { look() };
        if is_ours || gone.is_some() {
            self.settings.before = None;
        }
        gone
    }

    fn bury(&mut self, at: Duration) -> Option<(Gone, Option<Kills>)> {
        let watched = self.watched.take_if(|watched| !watched.held.lives())?;
        let mut witness = watched.witness;
        let kills = witness.look(at);
        Some((witness.verdict(at, watched.near), kills))
    }

    /// Finds a target when there is none, and a better one than a guess when that is due.
    fn search(&mut self, at: Duration) {
        let due = |watched: &Watched| watched.strength == Strength::Guess && at >= watched.guess_due;
        if !self.watched.as_ref().is_none_or(due) {
            return;
        }
        let found = process::table(&self.settings.proc)
            .and_then(|table| find::find(&self.settings.proc, &table, &self.wanted()));
        match (found, &mut self.watched) {
            (Ok(found), None) => self.take(found, at),
            (Ok(found), Some(watched)) if found.strength > watched.strength => {
                if (found.pid, found.start) == (watched.held.pid, watched.held.start) {
                    (watched.target.rule, watched.strength) = (found.rule, found.strength);
                } else {
                    self.take(found, at);
                }
            }
            (_, Some(watched)) => watched.guess_due = at + guess_pause(at.saturating_sub(watched.taken_at)),
            (Err(words), None) => self.none = words,
        }
    }

    fn wanted(&self) -> find::Wanted {
        find::Wanted {
            pid: self.settings.pid,
            name: self.settings.name.clone(),
            cmdline: self.settings.cmdline.clone(),
            pprof_port: self.settings.pprof_port,
        }
    }

    /// Takes hold of a target: directory, cgroup, kill counter and pidfd are opened now, while it lives.
    fn take(&mut self, found: Found, at: Duration) {
        let proc = &self.settings.proc;
        let Some(held) = Held::open(proc, found.pid).filter(|held| held.start == found.start) else { return };
        let membership = held.text("cgroup", 64 * 1024).unwrap_or_default();
        let memory = cgroup::resolve(&held, proc, &self.settings.cgroup_mount);
        let witness = Witness::open(&held, memory.as_ref().ok(), proc, at);
        let strain = Strain::open(&held, memory.as_ref().ok(), self.total);
        self.pidfd = pidfd(proc, &held);
        self.watched = Some(Watched {
            target: Target { pid: found.pid, name: found.name, rule: found.rule, incarnation: found.start },
            held,
            strength: found.strength,
            taken_at: at,
            guess_due: at + GUESS,
            children: Vec::new(),
            refresh_due: at,
            membership,
            memory,
            from_cgroup: false,
            witness,
            strain,
            near: false,
        });
    }

    fn observe(&mut self, at: Duration) -> Observation {
        let Some(watched) = &mut self.watched else { return Observation::default() };
        if at >= watched.refresh_due {
            watched.refresh_due = at + SLOW;
            watched.refresh(&self.settings, self.total, at);
        }
        let figures = watched.cgroup_figures(&self.settings, self.total);
        let usage = watched.children.iter().fold(watched.held.usage(), |sum, child| sum.plus(child.usage()));
        let (limit_bytes, limit_source) = limit(&self.settings, figures.as_ref(), self.total);
        // On its way out a process has no memory any more and is not yet a zombie: that is no figure of its life.
        let exiting = usage.rss_bytes == Some(0);
        let memory_bytes = watched.memory_bytes(figures.as_ref(), &usage).filter(|_| !exiting);
        if let (Some(memory), Some(limit)) = (memory_bytes, limit_bytes) {
            watched.near = memory as f64 >= NEAR * limit as f64;
        }
        let strain = watched.strain.look();
        Observation {
            reading: Reading {
                incarnation: watched.target.incarnation,
                age: age(&self.settings.proc, watched.held.start),
                memory_bytes,
                limit_bytes,
                threads: usage.threads,
                fds: usage.fds,
                fd_limit: watched.held.fd_limit(),
                usage_bytes: figures.and_then(|figures| figures.usage_bytes),
                reclaims: strain.reclaims,
                major_faults: figures.and_then(|figures| figures.major_faults).or(strain.major_faults),
                user_time: strain.user,
                system_time: strain.system,
                pressure: strain.pressure,
                ..Reading::default()
            },
            target: Some(watched.target.clone()),
            rss_bytes: usage.rss_bytes.filter(|_| !exiting),
            working_set_bytes: figures.and_then(|figures| figures.working_set_bytes),
            oom_kills: watched.witness.look(at),
            limit_source,
            ..Observation::default()
        }
    }

    fn count_clients(&mut self, at: Duration) {
        if at >= self.census_due {
            let ours = census::Ours {
                ports: self.settings.statsd_ports.clone(),
                inodes: self.settings.own_socket_inodes.clone(),
                unixgram: self.settings.unixgram_inode,
                connections: self.settings.stream_clients.as_ref().map(|open| *open.borrow()),
            };
            let known_drops = self.census.kernel_drops;
            self.census = census::take(&self.settings.proc, &ours);
            // Our rows may lie beyond those that are read: what was counted stays counted.
            self.census.kernel_drops = self.census.kernel_drops.max(known_drops);
            self.census_due = at + census_pause(self.census.clients);
        }
    }

    fn say_what_is_missing(&mut self, observation: &Observation) {
        let found =
            self.watched.as_ref().map(|watched| (watched.held.status(), watched.memory.as_ref().err().copied()));
        let degraded = missing::list(&self.settings.proc, found, &self.none, observation);
        if degraded != *self.degraded {
            self.degraded = Arc::new(degraded);
        }
    }
}

impl Watched {
    /// Looks again at what changes seldom: children, cgroup membership, and what an exec changes: the name, and the user. An
    /// entrypoint that begins as root and drops its rights opens its cgroup to us only then, with its kill counter.
    fn refresh(&mut self, settings: &Settings, total: u64, at: Duration) {
        if settings.tree {
            self.children = children(&settings.proc, &self.held);
        }
        if let Some(name) = self.held.name() {
            self.target.name = name;
        }
        let membership = self.held.text("cgroup", 64 * 1024).unwrap_or_default();
        let moved = membership != self.membership && !membership.is_empty();
        if moved || self.memory.is_err() {
            self.follow(membership, settings, total, at);
        }
    }

    /// Takes hold of the cgroup that the target is in now, with its kill counter. A process that is being killed is moved to the
    /// root cgroup before it is a zombie, for a few milliseconds: then only the counter that is held already can tell its end.
    fn follow(&mut self, membership: String, settings: &Settings, total: u64, at: Duration) {
        let fresh = cgroup::resolve(&self.held, &settings.proc, &settings.cgroup_mount);
        let dying = self.witness.saw_kill(at);
        if fresh.is_ok() && !dying {
            self.membership = membership;
            self.witness = Witness::open(&self.held, fresh.as_ref().ok(), &settings.proc, at);
            self.strain = Strain::open(&self.held, fresh.as_ref().ok(), total);
            self.memory = fresh;
        } else if self.memory.is_err() {
            self.memory = fresh;
        }
    }

    /// Reads the cgroup, and looks for it again when it has moved.
    fn cgroup_figures(&mut self, settings: &Settings, total: u64) -> Option<Figures> {
        let memory = self.memory.as_ref().ok()?;
        let figures = memory.figures(&self.held, total);
        if figures.is_none() {
            self.memory = cgroup::resolve(&self.held, &settings.proc, &settings.cgroup_mount);
        }
        figures
    }

    fn memory_bytes(&mut self, figures: Option<&Figures>, usage: &Usage) -> Option<u64> {
        let cgroup = figures.and_then(|figures| figures.unreclaimable_bytes);
        let skip = self.from_cgroup && figures.is_none();
        self.from_cgroup = cgroup.is_some();
        if skip { None } else { cgroup.or(usage.anonymous_bytes) }
    }
}

/// The kernel's work grows with the square of the rows (see [`census::MAX_ROWS`]), so a table that a leak has made long is read
/// more rarely: each 15 s at its longest, which keeps the work near 2 % of a core.
fn census_pause(clients: Option<u64>) -> Duration {
    let clients = clients.unwrap_or(0);
    SLOW.max(Duration::from_millis(clients * clients / 18_000))
}

fn guess_pause(stood: Duration) -> Duration {
    (stood / 2).clamp(GUESS, OLD_GUESS)
}

/// The limit and where it comes from, in words. `watch.limit` beats all.
fn limit(settings: &Settings, figures: Option<&Figures>, total: u64) -> (Option<u64>, &'static str) {
    if let Limit::Fixed(bytes) = settings.limit {
        return (Some(bytes), "watch.limit");
    }
    if let Some((bytes, figures)) = figures.and_then(|figures| Some((figures.limit_bytes?, figures))) {
        return (Some(bytes), figures.limit_source);
    }
    match settings.app_memory_limit {
        // Without a limit on the container the downward API gives what the node can allocate, a little less than it has.
        Some(bytes) if bytes < total && bytes > total / 10 * 9 => {
            (Some(bytes), "APP_MEMORY_LIMIT, which is about the node's memory: no limit is set")
        }
        Some(bytes) if bytes < total => (Some(bytes), "APP_MEMORY_LIMIT from the downward API"),
        // The node kills too, and growth towards its end is growth all the same.
        _ if total > 0 => (Some(total), missing::NO_LIMIT),
        _ => (None, "no limit found"),
    }
}

fn children(proc: &Path, held: &Held) -> Vec<Held> {
    let table = process::table(proc).unwrap_or_default();
    tree(&table, held.pid).into_iter().skip(1).filter_map(|pid| Held::open(proc, pid)).collect()
}

/// A pidfd of the process that is held. Only our own `/proc` numbers processes as the system call does.
fn pidfd(proc: &Path, held: &Held) -> Option<OwnedFd> {
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    if proc != Path::new("/proc") {
        return None;
    }
    let fd = pidfd_open(Pid::from_raw(held.pid)?, PidfdFlags::NONBLOCK).ok()?;
    // The number may have passed to another process between the two calls.
    held.lives().then_some(fd)
}

/// Age from `/proc/uptime`: needs no clock of ours, and both count from boot.
fn age(proc: &Path, start: u64) -> Option<Duration> {
    let text = File::open(proc.join("uptime")).and_then(|file| read_text(file, 128)).ok()?;
    let uptime: f64 = text.split_ascii_whitespace().next()?.parse().ok()?;
    let started = start as f64 / procfs::ticks_per_second() as f64;
    Duration::try_from_secs_f64((uptime - started).max(0.0)).ok()
}

fn total_memory(proc: &Path) -> Option<u64> {
    let text = File::open(proc.join("meminfo")).and_then(|file| read_text(file, 16 * 1024)).ok()?;
    let kib: u64 =
        text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.split_ascii_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

fn own_rss(proc: &Path) -> Option<u64> {
    let text = File::open(proc.join("self/statm")).and_then(|file| read_text(file, 256)).ok()?;
    text.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(procfs::page_size())
}
