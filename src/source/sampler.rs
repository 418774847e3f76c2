//! Looks at the app once a tick and hands over what it saw.
//!
//! The task keeps time; the looking itself blocks (files below `/proc` may wait for the app's own locks), so it is done by a
//! [`Looker`] on a blocking thread, one look at a time. A pidfd, where the kernel gives one, wakes the task at the target's
//! death: the kill counter must be read before the container runtime removes the cgroup.

mod look;
mod missing;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::pipeline::saved::SavedTarget;
use crate::pipeline::{Observation, Pace};

pub use look::Looker;

/// Looks follow one another no faster, whatever the pace says.
const MIN_PACE: Duration = Duration::from_millis(20);

/// `[watch]` of the settings, with what `app` knows of our own sockets.
#[derive(Clone, Debug)]
pub struct Settings {
    pub pid: Option<i32>,
    pub name: Option<String>,
    pub cmdline: Option<regex_lite::Regex>,
    /// Children are counted in.
    pub tree: bool,
    /// Time between looks until the watch sets another pace.
    pub interval: Duration,
    pub limit: Limit,
    /// `APP_MEMORY_LIMIT` of the downward API.
    pub app_memory_limit: Option<u64>,
    pub proc: PathBuf,
    /// Where the host's cgroup tree may be mounted; looked at last.
    pub cgroup_mount: PathBuf,
    pub statsd_ports: Vec<u16>,
    /// Our StatsD sockets: no clients of ours, and the kernel's drops are read at them.
    pub own_socket_inodes: Vec<u64>,
    /// Our Unix datagram socket: its row tells how many are connected to it.
    pub unixgram_inode: Option<u64>,
    /// Open connections of the Unix stream socket; its source writes, we read.
    pub stream_clients: Option<watch::Receiver<u64>>,
    /// The port of `profile.url` when it is on the loopback: its owner is the app.
    pub pprof_port: Option<u16>,
    /// What the sidecar before this one watched: what became of it is told once.
    pub before: Option<SavedTarget>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            pid: None,
            name: None,
            cmdline: None,
            tree: true,
            interval: Duration::from_secs(1),
            limit: Limit::Auto,
            app_memory_limit: None,
            proc: PathBuf::from("/proc"),
            cgroup_mount: PathBuf::from("/sys/fs/cgroup"),
            statsd_ports: vec![8125],
            own_socket_inodes: Vec::new(),
            unixgram_inode: None,
            stream_clients: None,
            pprof_port: Some(6060),
            before: None,
        }
    }
}

/// `watch.limit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The tightest of the app's cgroups, else the downward API, else none.
    Auto,
    /// This many bytes, whatever the cgroup says.
    Fixed(u64),
}

/// The task that samples.
#[derive(Debug)]
pub struct Sampler {
    looker: Looker,
    interval: Duration,
    began: Instant,
}

impl Sampler {
    pub fn new(settings: Settings) -> Sampler {
        Sampler { interval: settings.interval, looker: Looker::new(settings), began: Instant::now() }
    }

    /// Readings tell their time since `began`, which is not this sampler's own start where another went before it.
    #[must_use]
    pub fn since(self, began: Instant) -> Sampler {
        Sampler { began, ..self }
    }

    /// Sends an observation each tick until `stop`, or until nobody takes them any more.
    ///
    /// A tick that comes while the last look is still under way, or while the queue is full, is skipped.
    pub async fn run(self, out: mpsc::Sender<Observation>, mut pace: watch::Receiver<Pace>, stop: CancellationToken) {
        let begun = self.began;
        let (mut looker, mut interval) = (self.looker, self.interval);
        let mut death = None;
        let mut next = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = out.closed() => return,
                Ok(()) = pace.changed() => {
                    (interval, next) = hasten(*pace.borrow_and_update(), interval, next);
                    continue;
                }
                () = died(death.as_ref()) => {}
                () = tokio::time::sleep_until(next) => {}
            }
            let looked_at = Instant::now();
            let at = looked_at - begun;
            let look = tokio::task::spawn_blocking(move || look(looker, at));
            // A look that hangs ends with the process: the drain waits for what is sent, not for it.
            let looked = tokio::select! {
                looked = look => looked,
                () = stop.cancelled() => return,
            };
            let Ok((returned, observation)) = looked else {
                return;
            };
            looker = returned;
            death = after(&mut looker, death, &observation);
            next = following(looked_at, interval, Instant::now());
            if send(&out, observation, &stop).await.is_err() {
                return;
            }
        }
    }
}

fn look(mut looker: Looker, at: Duration) -> (Looker, Observation) {
    let observation = looker.look(at);
    (looker, observation)
}

/// A faster pace brings the next look forward; a slower one takes effect after it.
fn hasten(pace: Pace, interval: Duration, next: Instant) -> (Duration, Instant) {
    let pace = pace.max(MIN_PACE);
    (pace, next - interval.saturating_sub(pace))
}

/// The tick after a look that began at `from`: a whole number of intervals later, and not in the past.
fn following(from: Instant, interval: Duration, now: Instant) -> Instant {
    let interval = interval.max(MIN_PACE);
    let missed = (now - from).as_nanos() / interval.as_nanos();
    from + interval * u32::try_from(missed + 1).unwrap_or(1)
}

/// The pidfd to wait on from now: a new target's, the old one's, or none.
fn after(looker: &mut Looker, death: Option<AsyncFd<OwnedFd>>, observation: &Observation) -> Option<AsyncFd<OwnedFd>> {
    let kept = if observation.gone.is_some() { None } else { death };
    match looker.take_pidfd() {
        Some(fd) => register(fd),
        None => kept,
    }
}

#[expect(
    deprecated,
    reason = "the successor is an unsafe fn whose condition an OwnedFd meets by its type: one descriptor, open until dropped"
)]
fn register(fd: OwnedFd) -> Option<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, tokio::io::Interest::READABLE).ok()
}

/// Returns when the pidfd says that the process has ended; never without a pidfd.
async fn died(death: Option<&AsyncFd<OwnedFd>>) {
    match death {
        Some(pidfd) if pidfd.readable().await.is_ok() => {}
        _ => std::future::pending().await,
    }
}

/// The watch may be slow, but stopping must not wait for it.
async fn send(out: &mpsc::Sender<Observation>, observation: Observation, stop: &CancellationToken) -> Result<(), ()> {
    tokio::select! {
        sent = out.send(observation) => sent.map_err(drop),
        () = stop.cancelled() => Err(()),
    }
}

#[cfg(test)]
mod tests;
