//! Where an animal lives: a folder, a memory cgroup with a real limit, the real sidecar that watches it.
//!
//! Where no cgroup can be made, `watch.limit` stands for the limit, and the keeper ends what grows beyond it.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::cgroup::Cgroup;
use crate::support::{Sidecar, have, root, rss_bytes, wait_for};

pub const MIB: u64 = 1 << 20;

/// A program that nobody wrote for this.
pub struct Species {
    pub name: &'static str,
    /// Programs that must be installed.
    pub needs: &'static [&'static str],
    pub limit_mib: u64,
    /// What it must have taken for the run to count: less, and the load was never there.
    pub least_mib: u64,
    pub start: fn(&Pen) -> Lodgers,
}

impl Species {
    pub fn is_here(&self, test: &str) -> bool {
        self.needs.iter().all(|program| have(program, &format!("{test}, {}", self.name)))
    }
}

pub struct Lodgers {
    pub app: Tamed,
    /// Dropped before the app, so that nobody knocks at a closed door.
    pub load: Option<Tamed>,
    /// Where it serves pprof.
    pub pprof: Option<SocketAddr>,
}

/// A child that is asked to end before it is made to, because a killed master leaves its workers behind.
pub struct Tamed(pub Child);

impl Drop for Tamed {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.0.id().cast_signed());
        let ended = |child: &mut Child| matches!(child.try_wait(), Ok(Some(_)) | Err(_));
        if !ended(&mut self.0) {
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        }
        for _ in 0..60 {
            if ended(&mut self.0) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub struct Pen {
    // Fields are dropped in this order: the folder goes last.
    cgroup: Option<Cgroup>,
    pub limit: u64,
    dir: tempfile::TempDir,
}

impl Pen {
    pub fn new(species: &Species) -> Pen {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let limit = species.limit_mib * MIB;
        let cgroup = Cgroup::new(&format!("zoo-{}", species.name), limit);
        if let Err(why) = &cgroup {
            eprintln!("{}: no cgroup, so watch.limit stands for one ({why})", species.name);
        }
        Pen { cgroup: cgroup.ok(), limit, dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A command that is run below the limit: the shell enters the cgroup and becomes the program.
    pub fn inside(&self, program: &str) -> Command {
        let procs = self.cgroup.as_ref().map(Cgroup::procs).unwrap_or_default();
        let mut command = Command::new("sh");
        let enter = r#"[ -z "$0" ] || echo $$ > "$0" || exit 9; exec "$@""#;
        command.args(["-c", enter]).arg(procs).arg(program);
        command
    }

    /// Starts a command with its output in a file of the pen.
    pub fn spawn(&self, command: &mut Command, log: &str) -> Tamed {
        let log = std::fs::File::create(self.path(log)).unwrap();
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn();
        Tamed(child.unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    /// Load from outside of the limit, that leaves the processors to the others when they want them.
    pub fn load(&self, words: &[&str]) -> Tamed {
        let mut command = Command::new("nice");
        self.spawn(command.args(["-n", "4"]).args(words), "load.log")
    }

    /// The sidecar, with the settings of a pod.
    pub fn sidecar(&self, lodgers: &Lodgers, settings: &str) -> Sidecar {
        let limit = if self.cgroup.is_some() { "auto".to_owned() } else { self.limit.to_string() };
        // The discard port: nobody serves pprof there.
        let pprof = lodgers.pprof.unwrap_or(([127, 0, 0, 1], 9).into());
        let settings = format!(
            "[datadog]\noutput = \"none\"\n[watch]\npid = {}\nlimit = \"{limit}\"\n[profile]\nurl = \"http://{pprof}/debug/pprof\"\n{settings}",
            lodgers.app.0.id()
        );
        Sidecar::start(&settings, &[])
    }

    /// How it ended, if it did. Without a cgroup, what has outgrown the limit is ended here.
    pub fn end_of(&self, app: &mut Tamed) -> Option<String> {
        if let Some(status) = app.0.try_wait().unwrap() {
            return Some(status.to_string());
        }
        if self.cgroup.is_some() || rss_bytes(app.0.id()) < self.limit {
            return None;
        }
        app.0.kill().unwrap();
        Some("it has outgrown the limit".to_owned())
    }

    pub fn log(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.path(name)).unwrap_or_default();
        text.chars().take(2_000).collect()
    }

    /// Waits until something listens, or says what the program said instead.
    pub fn knock(&self, address: SocketAddr, app: &mut Tamed) {
        wait_for(Duration::from_secs(60), &format!("{address} to listen"), || {
            let ended = app.0.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}: {}", self.log("app.log"));
            TcpStream::connect(address).ok()
        });
    }
}

pub fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A file of the zoo.
pub fn file(name: &str) -> String {
    root().join("tests/zoo").join(name).display().to_string()
}

/// What the sidecar tells of incidents that send an event: warnings and worse.
pub fn alarms(sidecar: &Sidecar) -> Vec<Value> {
    let incidents = sidecar.api("/api/incidents");
    let loud = |incident: &&Value| incident["severity"] != "notice";
    incidents.as_array().unwrap().iter().filter(loud).cloned().collect()
}

/// Stays with one animal, and says how it was or what was wrong.
pub type Keeper = Box<dyn FnOnce() -> Result<String, String> + Send>;

/// The animals side by side, each with its keeper; fails with what every keeper said that was not content.
pub fn side_by_side(keepers: Vec<(&'static str, Keeper)>) {
    let keepers: Vec<_> = keepers.into_iter().map(|(name, keeper)| (name, std::thread::spawn(keeper))).collect();
    let mut failed = Vec::new();
    for (name, keeper) in keepers {
        match keeper.join().unwrap_or_else(|_| Err("its keeper panicked, see above".to_owned())) {
            Ok(told) => println!("{name:<14} {told}"),
            Err(why) => failed.push(format!("{name}: {why}")),
        }
    }
    for why in &failed {
        println!("FAILED {why}");
    }
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}
