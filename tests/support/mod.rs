//! The rig of the end-to-end tests: the real sidecar on port 0, talked to in bytes.
//!
//! Each test binary uses a part of it, hence the allowance for what it leaves aside. Everything waits for a condition with a
//! deadline; everything started is ended by its own handle.
#![allow(dead_code, clippy::unwrap_used, missing_debug_implementations)]

pub mod can;
pub mod cgroup;
pub mod decode;
pub mod endpoint;
pub mod intake;
pub mod pprof;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use tokio::time::Instant;

/// The binary under test.
pub const OOMWATCH: &str = env!("CARGO_BIN_EXE_oomwatch");

/// A running sidecar. Dropping it kills it.
pub struct Sidecar {
    child: Child,
    pub statsd: Vec<SocketAddr>,
    pub page: SocketAddr,
    pub health: SocketAddr,
    /// What it printed at start.
    pub summary: String,
    /// Its settings.
    pub file: PathBuf,
    log: PathBuf,
    _dir: tempfile::TempDir,
}

/// A settings file for a test: every listener on port 0, no target unless the test names one.
pub const BASE: &str = r#"
[statsd]
listen = ["127.0.0.1:0", "[::1]:0"]
[page]
listen = "127.0.0.1:0"
[health]
listen = "127.0.0.1:0"
"#;

impl Sidecar {
    /// Starts it with [`BASE`] and the further settings, and waits until it has said where it listens.
    pub fn start(settings: &str, env: &[(&str, &str)]) -> Sidecar {
        Sidecar::spawn(settings, env, Command::new(OOMWATCH))
    }

    /// [`Sidecar::start`] with a command that runs the binary under another identity, or from another place.
    pub fn spawn(settings: &str, env: &[(&str, &str)], mut command: Command) -> Sidecar {
        let dir = tempfile::tempdir().unwrap();
        // Another user must be able to read the settings.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let file = dir.path().join("sidecar.toml");
        std::fs::write(&file, format!("{BASE}{settings}")).unwrap();
        let log = dir.path().join("log");
        let mut child = command
            .args(["run", "--config"])
            .arg(&file)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        let mut summary = String::new();
        while !summary.contains("\n  health") {
            match lines.recv_timeout(Duration::from_secs(20)) {
                Ok(line) => summary = summary + &line + "\n",
                Err(_) => panic!("no summary; log: {}", std::fs::read_to_string(&log).unwrap_or_default()),
            }
        }
        let find = |name: &str| {
            let line = summary.lines().find(|line| line.trim_start().starts_with(name));
            line.unwrap_or_else(|| panic!("no {name} in {summary}")).to_owned()
        };
        let addresses = |line: &str| -> Vec<SocketAddr> {
            line.split([' ', ',', '/']).filter_map(|word| word.parse().ok()).collect()
        };
        Sidecar {
            statsd: addresses(&find("statsd")),
            page: addresses(&find("page"))[0],
            health: addresses(&find("health"))[0],
            child,
            summary,
            file,
            log,
            _dir: dir,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The JSON of a page path.
    pub fn api(&self, path: &str) -> serde_json::Value {
        // A busy machine lets a connection time out: asking again changes nothing.
        let (status, body) = wait_for(Duration::from_secs(90), path, || try_http_get(self.page, path).ok());
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    pub fn incidents(&self) -> Vec<serde_json::Value> {
        self.api("/api/incidents").as_array().unwrap().clone()
    }

    pub fn metrics(&self) -> String {
        http_get(self.health, "/metrics").1
    }

    /// One value of `/metrics`; the first row that begins so.
    pub fn metric(&self, row: &str) -> Option<f64> {
        let text = self.metrics();
        text.lines().find_map(|line| line.strip_prefix(row)?.trim().parse().ok())
    }

    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").arg(format!("-{signal}")).arg(self.pid().to_string()).status().unwrap();
        assert!(status.success());
    }

    /// SIGTERM, then waits for the end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait(Duration::from_secs(15))
    }

    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        wait_for(limit, "the sidecar to end", || self.child.try_wait().unwrap())
    }

    pub fn rss_bytes(&self) -> u64 {
        rss_bytes(self.pid())
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- sidecar: {}\n--- log:\n{}", self.summary, self.log());
        }
    }
}

/// A child that is killed when dropped.
pub struct Kept(pub Child);

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The lines of a child's output, through a bounded channel that is always read to its end.
pub fn lines_of(output: impl Read + Send + 'static) -> Receiver<String> {
    let (send, receive) = sync_channel(10_000);
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines() {
            let Ok(line) = line else { return };
            let _ = send.try_send(line);
        }
    });
    receive
}

/// Polls until the condition gives a value, or fails the test saying what was awaited.
pub fn wait_for<T>(limit: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(began.elapsed() < limit, "waited {limit:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// One GET in plain HTTP/1.1: status and body.
pub fn http_get(address: SocketAddr, path: &str) -> (u16, String) {
    try_http_get(address, path).unwrap()
}

fn try_http_get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    Ok((status, dechunk(head, body)))
}

fn dechunk(head: &str, body: &str) -> String {
    if !head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return body.to_owned();
    }
    let (mut out, mut rest) = (String::new(), body);
    while let Some((size, tail)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 || tail.len() < size {
            break;
        }
        out.push_str(&tail[..size]);
        rest = tail[size..].trim_start_matches("\r\n");
    }
    out
}

pub fn rss_bytes(pid: u32) -> u64 {
    memory_bytes(pid, "VmRSS:")
}

/// Resident memory without the pages of the program itself, which come as its code is first run.
pub fn anonymous_bytes(pid: u32) -> u64 {
    memory_bytes(pid, "RssAnon:")
}

fn memory_bytes(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1_024
}

/// Open descriptors of a process.
pub fn fds(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Lines as a frame of the Unix stream socket.
pub fn frame(lines: &[u8]) -> Vec<u8> {
    [&u32::try_from(lines.len()).unwrap().to_le_bytes(), lines].concat()
}

/// A sender of datagrams to a sidecar.
pub fn sender(to: SocketAddr) -> UdpSocket {
    let local = if to.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    let socket = UdpSocket::bind(local).unwrap();
    socket.connect(to).unwrap();
    socket
}

/// Whether a program is there; where it is not, says aloud that the test is skipped and why.
pub fn have(program: &str, test: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
        || Path::new(program).is_file();
    // In CI everything is there, or its set-up is broken: a test that skips itself would hide that.
    assert!(
        found || std::env::var_os("CI").is_none(),
        "{test} needs {program}, which ./dev/setup should have installed"
    );
    if !found {
        // Straight to the terminal: the test harness would swallow the line of a test that passes.
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {program} is not installed (./dev/test installs it)");
    }
    found
}

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Builds a Go package of a folder of the repository: the one there as `target/NAME`, others into the folder `target/NAME`.
pub fn go_build(source: &str, package: &str, name: &str) -> PathBuf {
    let out = root().join("target").join(name);
    if package != "." {
        std::fs::create_dir_all(&out).unwrap();
    }
    let mut go = Command::new("go");
    let built = go.args(["build", "-o"]).arg(&out).arg(package).current_dir(root().join(source)).status();
    assert!(built.unwrap().success(), "go build {package} in {source}");
    out
}

/// Builds the demo worker once for a test binary and gives its path.
pub fn worker() -> PathBuf {
    go_build("demo/worker", ".", "demo-worker")
}
