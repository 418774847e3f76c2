//! The sidecar of the demo: its settings, its ports, its process, and what its page and profile folder tell.
//!
//! It is this same executable run as `oomwatch run`, in an environment cleared of everything that configures oomwatch, a
//! Datadog client, a proxy or the Go runtime, so that a demo never reaches a real account and is the same for everybody.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// The memory limit that is set for the demo: at the default rate the worker is here about 80 s after it begins to leak.
pub const LIMIT_MIB: u64 = 512;

/// When the healthy baseline is pulled: well before the worker's healthy start is over, which is at 15 s.
pub const BASELINE_AFTER: Duration = Duration::from_secs(8);

/// How long the sidecar may take until its page answers.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// The default of `page.listen`, taken when it is free.
const USUAL_PAGE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7070);

/// The largest answer of the API that is read.
const MAX_ANSWER: usize = 8 << 20;

/// Addresses on loopback that were free a moment ago.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub statsd: SocketAddr,
    pub page: SocketAddr,
    pub health: SocketAddr,
    pub pprof: SocketAddr,
}

impl Ports {
    /// Binds them all at once, so that no two are the same, and lets them go. Somebody may take one before the sidecar does:
    /// the caller tries again.
    pub fn pick(page: Option<SocketAddr>) -> io::Result<Ports> {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let page = match page {
            Some(wanted) => TcpListener::bind(wanted)?,
            None => TcpListener::bind(USUAL_PAGE).or_else(|_| TcpListener::bind(any))?,
        };
        let (statsd, health, pprof) = (UdpSocket::bind(any)?, TcpListener::bind(any)?, TcpListener::bind(any)?);
        Ok(Ports {
            statsd: statsd.local_addr()?,
            page: page.local_addr()?,
            health: health.local_addr()?,
            pprof: pprof.local_addr()?,
        })
    }
}

/// The settings file. Times are shortened from minutes to seconds, because the demo is; all else is as in a pod.
pub fn settings(ports: &Ports, intake: SocketAddr, home: &Path) -> String {
    let path = |name: &str| quoted(&home.join(name).to_string_lossy());
    let Ports { statsd, page, health, pprof } = ports;
    format!(
        r#"[statsd]
listen = ["{statsd}"]

[aggregate]
interval = "1s"

[datadog]
output = "intake"
url = "http://{intake}"
api_key_file = {key}
hostname = "oomwatch-demo"
service = "worker"
env = "demo"

[watch]
cmdline = {cmdline}
limit = "{LIMIT_MIB}MiB"

[alert]
startup_grace = "5s"

[profile]
url = "http://{pprof}/debug/pprof"
baseline_after = "{baseline}s"
cooldown = "10s"
max_per_hour = 60
dir = {profiles}

[page]
listen = "{page}"

[health]
listen = "{health}"
"#,
        key = path("api-key"),
        cmdline = quoted(&format!(r"-pprof.127\.0\.0\.1:{}\b", pprof.port())),
        baseline = BASELINE_AFTER.as_secs(),
        profiles = path("profiles"),
    )
}

/// As a TOML string.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// Writes the settings and starts the sidecar; returns once it is ready.
///
/// The health listener is asked first: its port is a fresh one, while the usual page may be that of another demo, which was
/// about to take it when we looked. A sidecar that cannot bind its page ends before it is ready.
///
/// # Errors
/// In words, with the end of its log, when it ends or keeps silent.
pub async fn start(ports: &Ports, intake: SocketAddr, home: &Path) -> Result<(Child, Page), String> {
    let file = home.join("sidecar.toml");
    let log = home.join("sidecar.log");
    write_files(ports, intake, home, &file).map_err(|error| format!("write {}: {error}", file.display()))?;
    let executable = std::env::current_exe().map_err(|error| format!("find this executable: {error}"))?;
    let mut command = Command::new(executable);
    command.args(["run", "--end-with-parent", "--config"]).arg(file).stdin(Stdio::null());
    let mut child = spawn(command, &log)?;
    let (health, page) = (Page::at(ports.health), Page::at(ports.page));
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        if health.ask("/readyz").await.is_ok() && page.ask("/api/status").await.is_ok() {
            return Ok((child, page));
        }
        if let Ok(Some(status)) = child.try_wait() {
            return Err(format!("the sidecar ended at its start ({status}):\n{}", tail(&log)));
        }
        if Instant::now() > deadline {
            return Err(format!("no page at http://{} after {READY_WITHIN:?}:\n{}", ports.page, tail(&log)));
        }
        sleep(Duration::from_millis(50)).await;
    }
}

fn write_files(ports: &Ports, intake: SocketAddr, home: &Path, file: &Path) -> io::Result<()> {
    std::fs::create_dir_all(home.join("profiles"))?;
    std::fs::write(home.join("api-key"), "0123456789abcdef0123456789abcdef\n")?;
    std::fs::write(file, settings(ports, intake, home))
}

/// Starts a child that writes to `log`, in a group of its own, so that a Ctrl-C at the terminal reaches the demo alone, which
/// then ends its children in order. Dropping it kills it.
pub fn spawn(mut command: Command, log: &Path) -> Result<Child, String> {
    let output = std::fs::File::create(log).and_then(|file| Ok((file.try_clone()?, file)));
    let (stdout, stderr) = output.map_err(|error| format!("write {}: {error}", log.display()))?;
    for (name, _) in std::env::vars_os().filter(|(name, _)| steers(&name.to_string_lossy())) {
        command.env_remove(name);
    }
    command.stdout(stdout).stderr(stderr).process_group(0).kill_on_drop(true);
    command.spawn().map_err(|error| format!("start {}: {error}", command.as_std().get_program().display()))
}

/// Whether a variable would change what the sidecar or the worker do.
fn steers(variable: &str) -> bool {
    let name = variable.to_ascii_uppercase();
    ["OOMWATCH_", "DD_", "POD_"].iter().any(|prefix| name.starts_with(prefix))
        || name.ends_with("_PROXY")
        || matches!(name.as_str(), "NODE_NAME" | "APP_MEMORY_LIMIT" | "GOMEMLIMIT" | "GOGC" | "GODEBUG" | "GOMAXPROCS")
}

/// The last lines of a log.
pub fn tail(log: &Path) -> String {
    let text = std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last: Vec<String> = lines[lines.len().saturating_sub(15)..].iter().map(|line| format!("  | {line}")).collect();
    format!("{}\n  (all of it: {})", last.join("\n"), log.display())
}

/// Asks the page's API, or the health listener.
#[derive(Debug)]
pub struct Page {
    client: Client<HttpConnector, Empty<Bytes>>,
    addr: SocketAddr,
}

impl Page {
    fn at(addr: SocketAddr) -> Page {
        Page { client: Client::builder(TokioExecutor::new()).build_http(), addr }
    }

    /// What a path answers, as JSON.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, String> {
        let body = self.ask(path).await?;
        serde_json::from_slice(&body).map_err(|error| format!("{path}: {error}"))
    }

    /// What a path answers, within 2 s and with a success.
    async fn ask(&self, path: &str) -> Result<Bytes, String> {
        let uri = format!("http://{}{path}", self.addr).parse().map_err(|error| format!("{path}: {error}"))?;
        let answer = async {
            let response = self.client.get(uri).await.map_err(|error| error.to_string())?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            if status.is_success() {
                body.map(|body| body.to_bytes()).map_err(|error| error.to_string())
            } else {
                Err(status.to_string())
            }
        };
        let answered = timeout(Duration::from_secs(2), answer).await;
        answered.unwrap_or_else(|_| Err("no answer in 2 s".to_owned())).map_err(|error| format!("{path}: {error}"))
    }
}

/// Looks for the healthy baseline: the first profile that comes to the folder after [`BASELINE_AFTER`], the earlier ones being
/// those of the first sight of the app.
#[derive(Debug)]
pub struct Baseline {
    dir: PathBuf,
    early: BTreeSet<OsString>,
    taken: bool,
}

impl Baseline {
    pub fn new(home: &Path) -> Baseline {
        Baseline { dir: home.join("profiles"), early: BTreeSet::new(), taken: false }
    }

    /// True once: when it has come.
    pub fn has_come(&mut self, since_start: Duration) -> bool {
        if self.taken {
            return false;
        }
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let profiles = entries.map(|entry| entry.file_name()).filter(|name| name.to_string_lossy().ends_with(".pb.gz"));
        let there: BTreeSet<OsString> = profiles.collect();
        if since_start < BASELINE_AFTER {
            self.early = there;
            return false;
        }
        self.taken = there.difference(&self.early).next().is_some();
        self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_toml_whatever_the_folder_is_called() {
        let ports = Ports::pick(None).unwrap();
        let text = settings(&ports, "127.0.0.1:1".parse().unwrap(), Path::new("/tmp/a \"b\" \\c"));
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table["profile"]["dir"].as_str(), Some("/tmp/a \"b\" \\c/profiles"));
        assert_eq!(table["watch"]["limit"].as_str(), Some("512MiB"));
        let pattern = regex_lite::Regex::new(table["watch"]["cmdline"].as_str().unwrap()).unwrap();
        let command = |between| ["worker", "-pprof", &ports.pprof.to_string(), "-fixed"].join(between);
        assert!(pattern.is_match(&command("\0")) && pattern.is_match(&command(" ")));
        assert!(!pattern.is_match(&format!("worker -pprof {}0", ports.pprof)), "another port that begins alike");
    }

    #[test]
    fn ports_differ_and_a_wanted_page_is_kept() {
        let first = Ports::pick(None).unwrap();
        assert_ne!(first.health, first.pprof);
        let wanted = first.health;
        assert_eq!(Ports::pick(Some(wanted)).unwrap().page, wanted);
        let _taken = TcpListener::bind(wanted).unwrap();
        assert!(Ports::pick(Some(wanted)).is_err());
    }

    #[test]
    fn variables_that_reach_a_real_account_or_change_the_runtime_are_cleared() {
        for name in ["DD_API_KEY", "OOMWATCH_LOG__LEVEL", "https_proxy", "HTTP_PROXY", "GOMEMLIMIT", "POD_NAME"] {
            assert!(steers(name), "{name}");
        }
        for name in ["PATH", "HOME", "TMPDIR", "SSL_CERT_FILE", "LD_LIBRARY_PATH"] {
            assert!(!steers(name), "{name}");
        }
    }

    #[test]
    fn baseline_is_the_first_new_profile_after_its_time() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("profiles")).unwrap();
        let save = |name: &str| std::fs::write(home.path().join("profiles").join(name), "").unwrap();
        let mut baseline = Baseline::new(home.path());
        save("1.heap.pb.gz");
        assert!(!baseline.has_come(Duration::from_secs(1)), "the pull at first sight");
        save("2.heap.tmp");
        assert!(!baseline.has_come(Duration::from_secs(9)), "a file not finished");
        save("3.heap.pb.gz");
        assert!(baseline.has_come(Duration::from_secs(9)));
        assert!(!baseline.has_come(Duration::from_secs(10)), "told once");
    }

    #[test]
    fn tail_is_short() {
        let home = tempfile::tempdir().unwrap();
        let log = home.path().join("log");
        std::fs::write(&log, (1..=40).map(|n| format!("line {n}\n")).collect::<String>()).unwrap();
        let text = tail(&log);
        assert!(text.starts_with("  | line 26\n") && text.contains("  | line 40\n"), "{text}");
        assert!(tail(&home.path().join("none")).contains("(all of it:"));
    }
}
