//! `doctor`: looks at everything that the sidecar will need, in place, and says of each whether it is there and what to do.
//!
//! Uses what the sidecar itself uses: the sampler's look, the puller, the sink's question to the intake, the binds. Changes
//! nothing: what it binds it lets go at once, and it writes no file. It may stand beside a running sidecar, whose ports are
//! then taken and rightly so.

use std::path::Path;
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::{bind, settings, summary};
use crate::config::{ByteSize, Config, Output};
use crate::pipeline::{Index, ProfileKind, PullReply, PullRequest, Pulled, StopTime};
use crate::sink::{intake::Intake, reach};
use crate::source::puller::Puller;
use crate::source::sampler::Looker;
use crate::source::udp::UdpSource;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Ok,
    Warn,
    /// The sidecar cannot do what it is set to do.
    Fail,
}

/// One line of the doctor's.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    pub state: State,
    pub what: String,
    pub why: String,
    /// The line to paste, or the thing to check; empty when all is well.
    pub fix: String,
}

impl Finding {
    pub fn new(state: State, what: &str, why: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding { state, what: what.to_owned(), why: why.into(), fix: fix.into() }
    }

    fn ok(what: &str, why: impl Into<String>) -> Finding {
        Finding::new(State::Ok, what, why, "")
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match self.state {
            State::Ok => "ok",
            State::Warn => "warn",
            State::Fail => "fail",
        };
        write!(f, "{state:<5} {}: {}", self.what, self.why)?;
        if self.fix.is_empty() { Ok(()) } else { write!(f, "; {}", self.fix) }
    }
}

/// Everything, in the order in which it is worth mending. `running`: a sidecar answers on the health listener.
pub async fn examine(config: &Config, running: bool) -> Vec<Finding> {
    let (pprof, port) = pprof(config).await;
    let mut all = target(config, port);
    all.push(pprof);
    all.push(output(config).await);
    all.extend(folders(config));
    all.extend(statsd(config, running));
    all.push(buffer(config));
    all
}

/// Target, rights and limit: one look of the sampler.
fn target(config: &Config, pprof_port: Option<u16>) -> Vec<Finding> {
    let mut looker = Looker::new(settings::looking(config, pprof_port));
    let seen = looker.look(Duration::ZERO);
    let mut all = Vec::new();
    if let Some(target) = &seen.target {
        all.push(Finding::ok("the app's process", format!("{} (pid {}): {}", target.name, target.pid, target.rule)));
    }
    // Without a target nothing is watched; all else makes it worse and not impossible.
    let state = if seen.target.is_some() { State::Warn } else { State::Fail };
    all.extend(seen.degraded.iter().map(|it| Finding::new(state, &it.what, &it.why, &it.fix)));
    let complains = |what: &str| seen.degraded.iter().any(|it| it.what == what);
    if let Some((uid, gid)) = looker.target_ids().filter(|_| !complains("the app's cgroup")) {
        all.push(Finding::ok("rights", format!("status and cgroup of the app ({uid}:{gid}) can be read")));
    }
    if let Some(limit) = seen.reading.limit_bytes.filter(|_| !complains("memory limit")) {
        all.push(Finding::ok("memory limit", format!("{}, from {}", size(limit), seen.limit_source)));
    }
    all
}

/// Asks for the index of the profiles, which costs the app nothing; and gives the port by which the app is found.
async fn pprof(config: &Config) -> (Finding, Option<u16>) {
    let what = "pprof";
    let url = config.profile.url.base();
    let puller = match Puller::new(&settings::puller(config)) {
        Ok(puller) => puller,
        Err(words) => return (Finding::new(State::Fail, what, words, ""), None),
    };
    let port = puller.local_port();
    let (ask, mut asked) = mpsc::channel(1);
    let (reply, answer) = oneshot::channel();
    let mut task = JoinSet::new();
    task.spawn(async move { puller.run(&mut asked).await });
    let _ = ask.send(PullRequest { kind: ProfileKind::Index, reply }).await;
    let finding = match answer.await {
        Ok(PullReply { outcome: Ok(Pulled::Index(Index { goroutines: Some(count), .. })), .. }) => {
            Finding::ok(what, format!("{url} answers: {count} goroutines"))
        }
        Ok(PullReply { outcome: Ok(_), .. }) => {
            let fix = "point profile.url at the app's /debug/pprof";
            Finding::new(State::Warn, what, format!("{url} answers, and not as net/http/pprof does"), fix)
        }
        Ok(PullReply { outcome: Err(failed), .. }) => {
            let fix = "until then growth is told and nobody is named: import _ \"net/http/pprof\" in the app";
            Finding::new(State::Fail, what, failed.words, fix)
        }
        Err(_) => Finding::new(State::Fail, what, "the puller gave no answer", ""),
    };
    (finding, port)
}

async fn output(config: &Config) -> Finding {
    match &config.output {
        Output::Intake { base_url, .. } => match Intake::new(settings::intake(config, StopTime::default())) {
            Err(words) => Finding::new(State::Fail, "API key", words, ""),
            Ok(intake) => match intake.validate().await {
                Ok(()) => Finding::ok("API key", format!("{base_url} calls it good")),
                Err(view) => Finding::new(State::Fail, "API key", format!("{base_url}: {}", view.why), view.fix),
            },
        },
        Output::Agent(address) => {
            let text = address.to_string();
            match tokio::task::spawn_blocking(move || reach::reach(&text)).await {
                Ok(Ok(())) => Finding::ok("Agent", format!("{address}: nothing refuses a datagram there")),
                Ok(Err(words)) => {
                    let fix = "start the Agent with DogStatsD on, or correct datadog.agent.dogstatsd (DD_AGENT_HOST)";
                    Finding::new(State::Fail, "Agent", words, fix)
                }
                Err(broken) => Finding::new(State::Fail, "Agent", format!("{address}: {broken}"), ""),
            }
        }
        Output::None => {
            let missing = summary::degraded(config).into_iter().next().unwrap_or_default();
            Finding::new(State::Warn, "output", missing.why, missing.fix)
        }
    }
}

/// The folders that are set; the sidecar makes one that is not there.
fn folders(config: &Config) -> Vec<Finding> {
    let wanted = [
        ("spool.dir", &config.spool.dir, config.spool.max_size),
        ("profile.dir", &config.profile.dir, config.profile.max_size),
        ("state.dir", &config.state.dir, ByteSize(1 << 20)),
    ];
    let set = wanted.into_iter().filter_map(|(key, dir, most)| Some(folder(key, dir.as_ref()?, most)));
    set.collect()
}

fn folder(key: &str, dir: &Path, most: ByteSize) -> Finding {
    let there = dir.ancestors().find(|part| part.exists()).unwrap_or(dir);
    let made = if there == dir { "" } else { " (to be made)" };
    let mount = || {
        format!(
            "mount an emptyDir there, writable for the sidecar's user: volumeMounts: [{{name: oomwatch, mountPath: {}}}]",
            dir.display()
        )
    };
    let place = format!("{}{made}", dir.display());
    if !there.is_dir() {
        return Finding::new(State::Fail, key, format!("{} is no directory", there.display()), mount());
    }
    // Read-only mounts answer this too, and nothing is written.
    if let Err(fault) = access(there, AccessFlags::W_OK | AccessFlags::X_OK) {
        return Finding::new(State::Fail, key, format!("{place} cannot be written: {fault}"), mount());
    }
    let free = statvfs(there).map(|it| it.blocks_available().saturating_mul(it.fragment_size()));
    match free {
        Ok(free) if free < most.0 => {
            let why = format!("{place} has {} free, and may take {most}", size(free));
            Finding::new(State::Warn, key, why, "give its volume more room, or lower the max_size beside it")
        }
        Ok(free) => Finding::ok(key, format!("{place} can be written, {} free", size(free))),
        Err(fault) => Finding::new(State::Warn, key, format!("{place}: its free space cannot be told: {fault}"), ""),
    }
}

/// Each address is free, or taken by a sidecar that runs.
fn statsd(config: &Config, running: bool) -> Vec<Finding> {
    let listens = |address: &std::net::SocketAddr| match UdpSource::bind(*address, 4_096, 64) {
        Ok(_) if running && address.port() != 0 => {
            let why = format!("a sidecar runs, and {address} is free: it listens elsewhere, or apart from here");
            Finding::new(State::Warn, "StatsD", why, "compare its settings with these: oomwatch config show")
        }
        Ok(_) => Finding::ok("StatsD", format!("{address} is free")),
        Err(fault) if running && fault.kind() == std::io::ErrorKind::AddrInUse => {
            Finding::ok("StatsD", format!("{address} is taken, by the sidecar that runs here"))
        }
        Err(fault) if address.is_ipv6() && bind::is_without_ipv6(&fault) => {
            Finding::ok("StatsD", format!("{address}: this machine has no such address, and the others do"))
        }
        Err(fault) => Finding::new(State::Fail, "StatsD", bind::refused("statsd.listen", address, &fault), ""),
    };
    config.statsd.listen.iter().map(listens).collect()
}

/// What the kernel grants, at a port of its own: the sidecar's may be taken.
fn buffer(config: &Config) -> Finding {
    let asked = config.statsd.receive_buffer.0 as usize;
    let granted = UdpSource::bind((std::net::Ipv4Addr::LOCALHOST, 0).into(), asked, 64);
    match granted.map(|source| source.receive_buffer_bytes()) {
        Ok(granted) => match summary::small_buffer(config, granted) {
            Some(words) => Finding::new(State::Warn, "receive buffer", words, ""),
            None => Finding::ok("receive buffer", format!("{} granted", size(granted as u64))),
        },
        Err(fault) => Finding::new(State::Warn, "receive buffer", format!("no socket on loopback: {fault}"), ""),
    }
}

/// Whole mebibytes, or kibibytes below a few of them.
fn size(bytes: u64) -> String {
    if bytes >= 4 << 20 { format!("{} MiB", bytes >> 20) } else { format!("{} KiB", bytes >> 10) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_writable_or_the_line_says_what_to_mount() {
        let dir = tempfile::tempdir().unwrap();
        let good = folder("profile.dir", &dir.path().join("not/yet"), ByteSize(1));
        assert_eq!(good.state, State::Ok, "{good}");
        assert!(good.why.contains("(to be made)") && good.why.contains(" free"), "{good}");
        assert!(dir.path().read_dir().unwrap().next().is_none(), "nothing was made");
        let full = folder("profile.dir", dir.path(), ByteSize(1 << 62));
        assert_eq!(full.state, State::Warn, "{full}");
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        for bad in [file.join("below"), "/proc/self".into()] {
            let bad = folder("spool.dir", &bad, ByteSize(1));
            assert!(bad.state == State::Fail && bad.fix.contains("mountPath"), "{bad}");
        }
    }

    #[test]
    fn a_line_is_state_what_why_and_fix() {
        assert_eq!(Finding::ok("pprof", "answers").to_string(), "ok    pprof: answers");
        let bad = Finding::new(State::Fail, "API key", "refused", "check it");
        assert_eq!(bad.to_string(), "fail  API key: refused; check it");
    }
}
