//! Who ends how: the whole sidecar in this process, with a panic put into one task after another.
//!
//! The shipped program has no switch that breaks a task: the hooks stand here, and in two lines that only a test build has.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::tasks::Restart;
use super::*;
use crate::config;

/// A panic that waits in one task, once.
#[derive(Clone)]
pub(super) struct Fault {
    name: &'static str,
    now: Arc<Notify>,
}

/// The task, or its panic in the middle of it.
pub(super) async fn breakable(fault: Option<Fault>, name: &'static str, task: impl Future<Output = ()>) {
    let fault = fault.filter(|fault| fault.name == name);
    let broken = async {
        match &fault {
            Some(fault) => fault.now.notified().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = task => {}
        () = broken => panic!("a test breaks the task {name}"),
    }
}

/// The same around a task that is begun again.
pub(super) struct Breakable<T> {
    pub fault: Option<Fault>,
    pub name: &'static str,
    pub task: T,
}

impl<T: Restart> Restart for Breakable<T> {
    async fn run(&mut self) {
        breakable(self.fault.clone(), self.name, self.task.run()).await;
    }
}

/// Other tests may want the processor: nothing here says how fast things are, but for what is measured by its own bound.
const DEADLINE: Duration = Duration::from_secs(20);

/// Where a sidecar of this process listens, the Agent that it sends to, and the panic that waits in it.
struct Rig {
    statsd: SocketAddr,
    page: SocketAddr,
    health: SocketAddr,
    agent: UdpSocket,
    panic: Arc<Notify>,
    /// What is watched: a sidecar never watches itself, and here that is this very process.
    app: std::process::Child,
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.app.kill();
        let _ = self.app.wait();
    }
}

impl Rig {
    /// A sidecar whose task `name` waits for its panic, as a future that is the whole of it.
    async fn start(name: &'static str, metrics: PrometheusHandle) -> (Rig, impl Future<Output = Ended>) {
        let agent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let app = std::process::Command::new("sleep").arg("300").spawn().unwrap();
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let text = format!(
            "[statsd]\nlisten = [\"127.0.0.1:0\"]\n[page]\nlisten = \"127.0.0.1:0\"\n[health]\nlisten = \"127.0.0.1:0\"\n\
             [aggregate]\ninterval = \"1s\"\n[datadog]\nown_metrics = false\n[datadog.agent]\ndogstatsd = \"udp://{}\"\n\
             trace = \"http://{nobody}\"\n\
             [watch]\npid = {}\ninterval = \"100ms\"\n[profile]\nurl = \"http://{nobody}/debug/pprof\"\nupload = \"agent\"\n",
            agent.local_addr().unwrap(),
            app.id()
        );
        let loaded = config::from_text(Some((std::path::Path::new("test"), &text)), &Default::default()).unwrap();
        let bound = Bound::bind(&loaded.config).await.unwrap();
        let panic = Arc::new(Notify::new());
        let rig = Rig {
            statsd: bound.statsd[0].local_addr(),
            page: bound.page.local_addr(),
            health: bound.health.local_addr(),
            agent,
            panic: panic.clone(),
            app,
        };
        let mut tasks = Tasks::default();
        tasks.fault = Some(Fault { name, now: panic });
        let start = Start { loaded, path: None, set_level: Box::new(|_| {}) };
        (rig, sidecar(start, bound, metrics, tasks))
    }

    async fn send(&self, line: &str) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(line.as_bytes(), self.statsd).await.unwrap();
    }

    /// Waits until the Agent has got a line that begins so.
    async fn arrives(&self, line: &str) {
        let mut buffer = vec![0; 65_536];
        let found = async {
            loop {
                let read = self.agent.recv(&mut buffer).await.unwrap();
                if String::from_utf8_lossy(&buffer[..read]).lines().any(|it| it.starts_with(line)) {
                    return;
                }
            }
        };
        timeout(DEADLINE, found).await.unwrap_or_else(|_| panic!("{line} has not arrived"));
    }

    /// Waits until a path answers with something in which `wanted` is true.
    async fn answers(&self, address: SocketAddr, path: &str, wanted: impl Fn(&str) -> bool) {
        let asked = async {
            while !get(address, path).await.is_ok_and(|answer| wanted(&answer)) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(DEADLINE, asked).await.unwrap_or_else(|_| panic!("{path} does not answer as it should"));
    }

    async fn metric(&self, row: &str, wanted: impl Fn(f64) -> bool) {
        let value = |text: &str| text.lines().find_map(|line| line.strip_prefix(row)?.trim().parse::<f64>().ok());
        self.answers(self.health, "/metrics", |text| value(text).is_some_and(&wanted)).await;
    }
}

async fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    ask(address, &format!("GET {path} HTTP/1.1\r\n")).await
}

async fn ask(address: SocketAddr, head: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("{head}Host: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Breaks a task that carries something and sees the process end, with what came before on its way.
async fn dies(name: &'static str) {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _local = metrics::set_default_local_recorder(&recorder);
    let (rig, whole) = Rig::start(name, recorder.handle()).await;
    let script = async {
        rig.send("before:1|c").await;
        rig.metric("oomwatch_statsd_samples_total", |samples| samples >= 1.0).await;
        rig.panic.notify_one();
        Instant::now()
    };
    let (ended, broken_at) = tokio::join!(whole, script);
    assert_eq!(ended, Ended::TaskDied, "{name}");
    let took = broken_at.elapsed();
    println!("{name}: the end came {took:?} after the panic");
    // The sidecar's own bound is 0.8 s; a busy machine adds to it, the drain of a healthy stop would be seconds.
    assert!(took < Duration::from_secs(3), "{name} took {took:?} to end the process");
    if !["rollup", "sink"].contains(&name) {
        rig.arrives("before:").await;
    }
}

#[tokio::test]
async fn a_panic_in_a_task_that_carries_something_ends_the_process_within_a_second() {
    for name in ["statsd", "rollup", "watch", "investigate", "sink", "store"] {
        dies(name).await;
    }
}

/// Breaks a task that may be begun again, and sees it work again while samples go through.
async fn comes_back(name: &'static str) {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _local = metrics::set_default_local_recorder(&recorder);
    let (rig, whole) = Rig::start(name, recorder.handle()).await;
    let script = async {
        works(name, &rig).await;
        rig.panic.notify_one();
        rig.send("meanwhile:1|c").await;
        rig.metric(&format!("oomwatch_task_restarts_total{{task=\"{name}\"}}"), |count| count == 1.0).await;
        rig.arrives("meanwhile:1|c").await;
        works(name, &rig).await;
    };
    tokio::select! {
        ended = whole => panic!("{name}: the process ended: {ended:?}"),
        () = script => {}
    }
}

/// What only the task itself can bring about.
async fn works(name: &str, rig: &Rig) {
    match name {
        "page" => {
            rig.answers(rig.page, "/api/status", |answer| answer.starts_with("HTTP/1.1 200")).await;
            // Its wires to store and investigation outlive the fault.
            rig.answers(rig.page, "/api/profiles", |answer| answer.starts_with("HTTP/1.1 200")).await;
            let begun = ask(rig.page, "POST /api/profiles HTTP/1.1\r\nX-Oomwatch: 1\r\n").await.unwrap();
            let known = ["202", "409", "429"];
            assert!(known.iter().any(|status| begun.starts_with(&format!("HTTP/1.1 {status}"))), "{begun}");
        }
        "health" => rig.answers(rig.health, "/readyz", |answer| answer.starts_with("HTTP/1.1 200")).await,
        // The second is surely a new one.
        "sampler" => {
            for _ in 0..2 {
                let before = get(rig.page, "/api/readings?format=csv").await.unwrap();
                rig.answers(rig.page, "/api/readings?format=csv", |now| now.len() > before.len()).await;
            }
        }
        "puller" => {
            let row = "oomwatch_profiles_failed_total{reason=\"unreachable\"}";
            let text = get(rig.health, "/metrics").await.unwrap();
            let before = text.lines().find_map(|line| line.strip_prefix(row)?.trim().parse().ok()).unwrap_or(0.0);
            rig.metric(row, |failed| failed > before).await;
        }
        _ => {}
    }
}

#[tokio::test]
async fn a_panic_in_the_page_leaves_the_rest_alone() {
    comes_back("page").await;
}

#[tokio::test]
async fn a_panic_in_the_health_listener_leaves_the_rest_alone() {
    comes_back("health").await;
}

#[tokio::test]
async fn a_panic_in_the_sampler_leaves_the_rest_alone() {
    comes_back("sampler").await;
}

#[tokio::test]
async fn a_panic_in_the_puller_leaves_the_rest_alone() {
    comes_back("puller").await;
}

#[tokio::test]
async fn a_panic_in_the_uploader_leaves_the_rest_alone() {
    comes_back("upload").await;
}

#[tokio::test]
async fn a_panic_in_the_reload_leaves_the_rest_alone() {
    comes_back("reload").await;
}
