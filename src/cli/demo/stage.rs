//! The stage of the demo: the folder of one run, the intake, the sidecar and the worker, and the loop that watches them.
//!
//! Order matters twice: the sidecar starts before the worker, or the first datagrams are lost; and the worker ends before the
//! sidecar, so that what it sent last is still flushed to the intake.

use std::fs::DirBuilder;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::intake::{ARRIVALS, Arrived, Intake};
use super::sidecar::{self, Baseline, LIMIT_MIB, Page, Ports};
use super::story::{Incident, Status, Story, progress};
use super::{Demo, End, Stop, say, worker};

/// How often the page is asked.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How often a line says where the worker stands.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// How long a child may take to end by itself; the sidecar's own limit is 8 s.
const PATIENCE: Duration = Duration::from_secs(10);

/// Everything that runs. Dropping it kills both children.
#[derive(Debug)]
pub struct Stage {
    home: Home,
    arrivals: mpsc::Receiver<Arrived>,
    /// Holds the intake; aborted when dropped.
    _tasks: JoinSet<()>,
    page: Page,
    sidecar: Child,
    /// `None` once the demo has killed it at the limit.
    worker: Option<Child>,
    started: Instant,
    next_progress: Duration,
    baseline: Baseline,
    story: Story,
}

enum Happened {
    Arrived(Arrived),
    Time,
    Asked,
}

impl Stage {
    /// Builds and starts everything, the worker last.
    pub async fn prepare(demo: &Demo) -> Result<Stage, String> {
        let home = Home::create().map_err(|error| format!("make a folder for this run: {error}"))?;
        let binary = worker::build(&cache(&home), say).await?;
        let intake = Intake::bind().await.map_err(|error| format!("start the intake: {error}"))?;
        let intake_addr = intake.addr().map_err(|error| format!("start the intake: {error}"))?;
        let (sender, arrivals) = mpsc::channel(ARRIVALS);
        let mut tasks = JoinSet::new();
        tasks.spawn(intake.run(sender));
        let (ports, sidecar, page) = start_sidecar(demo, intake_addr, &home.path).await?;
        say(&format!("page: http://{}/", ports.page));
        say(&format!(
            "no real memory limit here: watch.limit = {LIMIT_MIB} MiB is set for the demo, and times are shortened"
        ));
        let worker = start_worker(demo, &binary, &ports, &home.path)?;
        let baseline = Baseline::new(&home.path);
        Ok(Stage {
            home,
            arrivals,
            _tasks: tasks,
            page,
            sidecar,
            worker: Some(worker),
            started: Instant::now(),
            next_progress: PROGRESS_EVERY,
            baseline,
            story: Story::default(),
        })
    }

    /// Watches until the demo is over.
    pub async fn play(mut self, demo: &Demo, stop: &mut Stop) -> (End, Stage) {
        self.tell(vec![if demo.fixed {
            "the worker runs with one client: nothing should be raised".to_owned()
        } else {
            "the worker runs, healthy for 15 s, then with a new StatsD client for every job".to_owned()
        }]);
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let happened = tokio::select! {
                Some(arrived) = self.arrivals.recv() => Happened::Arrived(arrived),
                _ = ticks.tick() => Happened::Time,
                () = stop.asked() => Happened::Asked,
            };
            if let Some(end) = self.take(happened).await.or_else(|| demo.end(&self.story, self.started.elapsed())) {
                return (end, self);
            }
        }
    }

    async fn take(&mut self, happened: Happened) -> Option<End> {
        match happened {
            Happened::Asked => return Some(End::Interrupted),
            Happened::Arrived(arrived) => {
                let lines = self.story.arrived(arrived);
                self.tell(lines);
            }
            Happened::Time => {
                self.ask_page().await;
                return self.children();
            }
        }
        None
    }

    /// A page that does not answer is asked again: it answers from snapshots and may be restarted.
    async fn ask_page(&mut self) {
        let elapsed = self.started.elapsed();
        if !self.story.began() && self.baseline.has_come(elapsed) {
            self.tell(vec!["healthy baseline taken".to_owned()]);
        }
        if let Ok(incidents) = self.page.get::<Vec<Incident>>("/api/incidents").await {
            let lines = self.story.incidents(incidents);
            self.tell(lines);
        }
        if elapsed >= self.next_progress {
            self.next_progress = elapsed + PROGRESS_EVERY;
            if let Ok(status) = self.page.get::<Status>("/api/status").await {
                self.tell(vec![progress(&status, LIMIT_MIB << 20)]);
            }
        }
    }

    /// Looks after both children: neither may end by itself, and the worker may not outgrow its limit.
    fn children(&mut self) -> Option<End> {
        if let Ok(Some(status)) = self.sidecar.try_wait() {
            let log = self.home.path.join("sidecar.log");
            return Some(End::Failed(format!("the sidecar ended ({status}):\n{}", sidecar::tail(&log))));
        }
        let worker = self.worker.as_mut()?;
        if let Ok(Some(status)) = worker.try_wait() {
            let log = self.home.path.join("worker.log");
            return Some(End::Failed(format!("the worker ended ({status}):\n{}", sidecar::tail(&log))));
        }
        if worker.id().and_then(rss_mib).is_some_and(|rss| rss >= LIMIT_MIB) {
            // Dropping it kills it; tokio reaps it.
            self.worker = None;
            self.tell(vec![format!(
                "{LIMIT_MIB} MiB reached: ending the worker by SIGKILL, as the kernel would; Ctrl-C ends the demo"
            )]);
        }
        None
    }

    fn tell(&self, lines: Vec<String>) {
        tell(self.started, lines);
    }

    /// Ends the worker, then the sidecar, taking in what still arrives. Where the demo did not end well the folder is kept and
    /// named, because the logs are in it.
    pub async fn close(mut self, good: impl Fn(&Story) -> bool) -> (Story, Option<PathBuf>) {
        if let Some(worker) = &mut self.worker {
            finish(worker, &mut self.arrivals, &mut self.story, self.started).await;
        }
        finish(&mut self.sidecar, &mut self.arrivals, &mut self.story, self.started).await;
        while let Ok(arrived) = self.arrivals.try_recv() {
            tell(self.started, self.story.arrived(arrived));
        }
        let kept = if good(&self.story) { None } else { Some(self.home.keep()) };
        (self.story, kept)
    }
}

/// Asks a child to end, waits for it, and kills it when it takes too long. The intake must be emptied meanwhile, or the
/// sidecar could not send what it holds.
async fn finish(child: &mut Child, arrivals: &mut mpsc::Receiver<Arrived>, story: &mut Story, started: Instant) {
    if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()) {
        // Fails only for a child that has ended already.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        tokio::select! {
            _ = child.wait() => return,
            Some(arrived) = arrivals.recv() => tell(started, story.arrived(arrived)),
            () = sleep_until(deadline) => break,
        }
    }
    let _ = child.kill().await;
}

fn tell(started: Instant, lines: Vec<String>) {
    let seconds = started.elapsed().as_secs_f64();
    for line in lines {
        say(&format!("{seconds:6.1} s  {line}"));
    }
}

/// Starts the sidecar; once more with other ports when the first try fails, because somebody may have taken one.
async fn start_sidecar(demo: &Demo, intake: SocketAddr, home: &Path) -> Result<(Ports, Child, Page), String> {
    let mut last = String::new();
    for _ in 0..2 {
        let ports = Ports::pick(demo.page).map_err(|error| match demo.page {
            Some(page) => format!("--page {page}: {error}"),
            None => format!("find free ports: {error}"),
        })?;
        match sidecar::start(&ports, intake, home).await {
            Ok((child, page)) => return Ok((ports, child, page)),
            Err(words) => last = words,
        }
    }
    Err(last)
}

/// The worker ends by itself when its standard input closes, so not even a killed demo leaves it growing.
fn start_worker(demo: &Demo, binary: &Path, ports: &Ports, home: &Path) -> Result<Child, String> {
    let mut command = Command::new(binary);
    command.args(["-statsd", &ports.statsd.to_string(), "-pprof", &ports.pprof.to_string(), "-until-eof"]);
    if demo.fixed {
        command.arg("-fixed");
    }
    command.stdin(Stdio::piped());
    sidecar::spawn(command, &home.join("worker.log"))
}

/// The user's cache, or the folder of this run where that cannot be written.
fn cache(home: &Home) -> PathBuf {
    let cache = worker::cache_dir(|name| std::env::var_os(name).map(PathBuf::from), &home.path);
    if std::fs::create_dir_all(&cache).is_ok() { cache } else { home.path.join("oomwatch") }
}

/// Resident memory of a process; `None` when it is gone.
fn rss_mib(pid: u32) -> Option<u64> {
    rss_in(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn rss_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

/// The folder of this run, readable by its owner only; removed at the end unless it is kept.
#[derive(Debug)]
struct Home {
    path: PathBuf,
    keep: bool,
}

impl Home {
    fn create() -> io::Result<Home> {
        let name = format!("oomwatch-demo-{:016x}", RandomState::new().build_hasher().finish());
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Home { path, keep: false })
    }

    fn keep(&mut self) -> PathBuf {
        self.keep = true;
        self.path.clone()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if !self.keep {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[test]
    fn resident_memory_is_read_from_status() {
        assert_eq!(rss_in("Name:\tworker\nVmRSS:\t  524288 kB\nThreads:\t8\n"), Some(512));
        assert_eq!(rss_in("Name:\tzombie\n"), None);
        assert!(rss_mib(std::process::id()).is_some());
    }

    #[test]
    fn the_folder_of_a_run_is_private_and_goes_unless_kept() {
        use std::os::unix::fs::PermissionsExt;
        let home = Home::create().unwrap();
        let path = home.path.clone();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        drop(home);
        assert!(!path.exists());
        let kept = Home::create().unwrap().keep();
        assert!(kept.exists());
        std::fs::remove_dir_all(kept).unwrap();
    }

    #[tokio::test]
    async fn a_child_that_does_not_listen_is_killed_and_the_intake_emptied_meanwhile() {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' TERM; echo deaf; while :; do sleep 1; done"]).kill_on_drop(true);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut words = [0; 5];
        child.stdout.as_mut().unwrap().read_exact(&mut words).await.unwrap();
        tokio::time::pause();
        let (sender, mut arrivals) = mpsc::channel(4);
        sender.send(Arrived { endpoint: "/api/v2/series", items: 1, ..Arrived::default() }).await.unwrap();
        let mut story = Story::default();
        finish(&mut child, &mut arrivals, &mut story, Instant::now()).await;
        assert!(child.id().is_none(), "reaped");
        assert!(story.summary().contains("1 payloads"));
    }
}
