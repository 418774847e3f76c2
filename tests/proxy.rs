//! Through a forward proxy as companies have them: the real sidecar, a real tinyproxy, an intake behind TLS with a private
//! authority. And every way in which a proxy says no, each told in one line that names it.
#![allow(clippy::unwrap_used, reason = "a test that unwraps says where it broke by its line")]

#[path = "support/sink.rs"]
mod sink;
mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use sink::Authority;
use support::intake::FakeIntake;
use support::{Kept, OOMWATCH, Sidecar, have, wait_for};

const SOON: Duration = Duration::from_secs(30);

/// An intake behind TLS, and the settings that lead there.
struct Rig {
    dir: tempfile::TempDir,
    intake: FakeIntake,
    settings: String,
}

impl Rig {
    async fn new() -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new(dir.path());
        let intake = FakeIntake::start_tls(authority.server("localhost")).await;
        let settings = format!(
            "[aggregate]\ninterval = \"1s\"\n[datadog]\nurl = \"{}\"\nhostname = \"h\"\nca_file = \"{}\"\n",
            intake.url(),
            authority.file.display()
        );
        Rig { dir, intake, settings }
    }

    fn sidecar(&self, env: &[(&str, &str)]) -> Sidecar {
        Sidecar::start(&self.settings, &[&[("DD_API_KEY", "abc")], env].concat())
    }

    /// What `doctor` says of the intake with these variables.
    fn doctor(&self, env: &[(&str, &str)]) -> String {
        let file = self.dir.path().join("sidecar.toml");
        std::fs::write(&file, format!("{}{}", support::BASE, self.settings)).unwrap();
        let mut command = Command::new(OOMWATCH);
        command.args(["doctor", "--config"]).arg(file).env_clear().env("DD_API_KEY", "abc").envs(env.iter().copied());
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    }

    /// Until the sidecar has told `words` in its log, in one line, and on the page; the proxy's password in neither. The doctor
    /// says the same.
    fn is_told(&self, env: &[(&str, &str)], words: &[&str]) {
        let sidecar = self.sidecar(env);
        let all = |text: &str| words.iter().all(|word| text.contains(word));
        wait_for(SOON, words[0], || sidecar.log().lines().any(all).then_some(()));
        wait_for(SOON, words[0], || all(&sidecar.api("/api/status")["degraded"].to_string()).then_some(()));
        let log = sidecar.log();
        let lines = log.lines().filter(|line| line.contains("Datadog intake")).count();
        assert!(lines == 1 && !log.contains("s3cret"), "{log}");
        assert_eq!(self.intake.seen().arrived, 0);
        let doctor = self.doctor(env);
        assert!(doctor.lines().any(all) && !doctor.contains("s3cret"), "{doctor}");
    }

    async fn arrives(&self) {
        self.intake.wait_for("a payload", SOON, |seen| seen.accepted().next().is_some()).await;
    }
}

/// A tinyproxy that tunnels to this port only. Ends with the value.
struct Tinyproxy {
    _child: Kept,
    port: u16,
    log: PathBuf,
}

impl Tinyproxy {
    fn start(rig: &Rig, connect_port: u16, more: &str) -> Tinyproxy {
        // It takes no port 0; another process may take the port between, which then shows as an end.
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let (file, log) = (rig.dir.path().join("tinyproxy.conf"), rig.dir.path().join(format!("{port}.log")));
            let settings = format!(
                "Port {port}\nListen 127.0.0.1\nTimeout 600\nAllow 127.0.0.1\nLogFile \"{}\"\nLogLevel Connect\n\
                 ConnectPort {connect_port}\n{more}",
                log.display()
            );
            std::fs::write(&file, settings).unwrap();
            let (program, null) = ("tinyproxy", Stdio::null);
            let child =
                Command::new(program).arg("-d").arg("-c").arg(&file).stdout(null()).stderr(null()).spawn().unwrap();
            let mut child = Kept(child);
            let up = wait_for(SOON, "tinyproxy to listen", || match child.0.try_wait().unwrap() {
                Some(_) => Some(false),
                None => std::net::TcpStream::connect(("127.0.0.1", port)).is_ok().then_some(true),
            });
            if up {
                return Tinyproxy { _child: child, port, log };
            }
        }
        panic!("no free port for tinyproxy in ten tries");
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// A port where nobody listens.
fn dead() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("127.0.0.1:{}", listener.local_addr().unwrap().port())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payloads_go_through_the_proxy_that_datadogs_variable_names_or_everybodys() {
    if !have("tinyproxy", "payloads_go_through_the_proxy") {
        return;
    }
    let dead = format!("http://{}", dead());
    for datadogs in [true, false] {
        let rig = Rig::new().await;
        let proxy = Tinyproxy::start(&rig, rig.intake.address.port(), "");
        let url = proxy.url();
        let env = [("DD_PROXY_HTTPS", url.as_str()), ("HTTPS_PROXY", dead.as_str())];
        let sidecar = if datadogs { rig.sidecar(&env) } else { rig.sidecar(&[("HTTPS_PROXY", &url)]) };
        rig.arrives().await;
        let asked = format!("CONNECT localhost:{}", rig.intake.address.port());
        wait_for(SOON, "the proxy's log", || proxy.log().contains(&asked).then_some(()));
        assert!(!rig.intake.seen().validated.is_empty() && !proxy.log().contains("abc"));
        let succeeded = || sidecar.api("/api/status")["output"]["last_success"].is_string();
        wait_for(SOON, "a success", || succeeded().then_some(()));
        let doctor = rig.doctor(&[("HTTPS_PROXY", &url)]);
        assert!(doctor.lines().any(|line| line.starts_with("ok") && line.contains("API key")), "{doctor}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_of_no_proxy_are_reached_without_it() {
    let dead = format!("http://{}", dead());
    for no in [("NO_PROXY", "example.com,localhost"), ("DD_PROXY_NO_PROXY", "example.com localhost")] {
        let rig = Rig::new().await;
        let _sidecar = rig.sidecar(&[("HTTPS_PROXY", &dead), no]);
        rig.arrives().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_is_down_is_named() {
    let rig = Rig::new().await;
    let address = dead();
    let url = format!("http://user:s3cret@{address}");
    rig.is_told(&[("HTTPS_PROXY", &url)], &[&format!("the proxy {address} cannot be reached"), "HTTPS_PROXY"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_refuses_is_named_with_its_answer() {
    if !have("tinyproxy", "a_proxy_that_refuses") {
        return;
    }
    let rig = Rig::new().await;
    let proxy = Tinyproxy::start(&rig, 1, "");
    let refused = format!("the proxy 127.0.0.1:{} answered 403", proxy.port);
    rig.is_told(&[("HTTPS_PROXY", &proxy.url())], &[&refused, "allow CONNECT"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_wants_a_password_gets_it_and_nobody_else_does() {
    if !have("tinyproxy", "a_proxy_that_wants_a_password") {
        return;
    }
    let rig = Rig::new().await;
    let proxy = Tinyproxy::start(&rig, rig.intake.address.port(), "BasicAuth user s3cret\n");
    let with = |password: &str| format!("http://user:{password}@127.0.0.1:{}", proxy.port);
    let wants = format!("the proxy 127.0.0.1:{} wants a user name and a password", proxy.port);
    rig.is_told(&[("HTTPS_PROXY", &proxy.url())], &[&wants, "http://user:password@host:port"]);
    let sidecar = rig.sidecar(&[("HTTPS_PROXY", &with("s3cret"))]);
    rig.arrives().await;
    let told = format!("{}{}{}", sidecar.log(), sidecar.summary, sidecar.api("/api/status"));
    assert!(!told.contains("s3cret"), "{told}");
    assert!(rig.intake.seen().requests.iter().all(|it| !it.headers.contains_key("proxy-authorization")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_answers_with_a_page_is_named() {
    let rig = Rig::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 1_024]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n<html>please log in</html>");
        }
    });
    let words = format!("the proxy {address} sent something else than a tunnel, perhaps a page");
    rig.is_told(&[("HTTPS_PROXY", &format!("http://{address}"))], &[&words, "HTTPS_PROXY"]);
}
