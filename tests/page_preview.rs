//! The page in a real browser, over hand-made snapshots of a real incident's shape: no script of a name runs, the policy is
//! never broken, and the verdict, the table and the download say what they should.
//!
//! Needs Node, `playwright-core` (`npm ci` in `tests/browser`) and Chromium; without them it prints SKIPPED with why. With
//! `OOMWATCH_PREVIEW_SECONDS` it goes on serving for a look by hand.

#[path = "browser/profiles.rs"]
mod profiles;
#[path = "support/wire.rs"]
mod wire;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use oomwatch::page::{PageServer, Settings};
use oomwatch::pipeline::plan::Wish;
use oomwatch::pipeline::{PullNow, ReadingPlace, StoreRequest, wall_clock};
use oomwatch::snapshot::{
    About, CulpritView, DegradedView, EvidenceView, IncidentView, MemoryView, OutputPart, ProfileView, ReadingPoint,
    Snapshots, StatsdPart, TargetView, TopContexts, TopName, WatchPart, rfc3339,
};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const MIB: u64 = 1024 * 1024;
/// Seconds of readings before now, and how long ago the leak began.
const SPAN: u64 = 900;
const LEAK: u64 = 380;
/// The id by which `page.mjs` says that the sidecar may change its mind now.
const GO_ON: &str = "00000000000000aa";
/// A name as a forged profile would carry it: shown as text or not at all.
const HOSTILE: &str = "main.</script><img src=x onerror=document.title='run'>\"'\u{2028}\u{202e}λ";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_names_the_leak_in_a_browser() {
    let now = wall_clock();
    let rig = serve(now, vec![named(now), recovered(now)], leaking(now), None).await;
    let missing = what_is_missing();
    match &missing {
        Some(why) => println!("SKIPPED: {why}"),
        None => browse(rig.address, &["newStatsdBuffer", "--culprit", "statsd.newStatsdBuffer", "--flame"]).await,
    }
    linger().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_page_says_so_and_what_is_missing() {
    let now = wall_clock();
    let rig = serve(now, vec![recovered(now)], quiet(now), None).await;
    match what_is_missing() {
        Some(why) => println!("SKIPPED: {why}"),
        None => browse(rig.address, &["No leak in sight", "--name", "quiet"]).await,
    }
}

/// The incident opens unnamed; the name comes while the page is open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verdict_that_comes_later_is_told_by_the_stream() {
    let now = wall_clock();
    let verdict = "worker grows by 25 MiB/min; profiles are being pulled.";
    let unnamed = IncidentView { state: "open", verdict: verdict.into(), culprits: vec![], ..named(now) };
    let rig = serve(now, vec![unnamed], leaking(now), None).await;
    let looking = browse(rig.address, &["worker", "--name", "later", "--later", "newStatsdBuffer"]);
    let naming = async {
        tokio::time::timeout(Duration::from_secs(90), rig.go_on.notified()).await.expect("the browser's sign to go on");
        rig.incidents.send_replace(Arc::new(vec![named(now)]));
    };
    match what_is_missing() {
        Some(why) => println!("SKIPPED: {why}"),
        None => {
            tokio::join!(looking, naming);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_with_a_token_opens_for_who_has_it() {
    let now = wall_clock();
    let rig = serve(now, vec![named(now)], leaking(now), Some("let-me-in")).await;
    match what_is_missing() {
        Some(why) => println!("SKIPPED: {why}"),
        None => {
            let expected =
                ["newStatsdBuffer", "--culprit", "statsd.newStatsdBuffer", "--name", "token", "--token", "let-me-in"];
            browse(rig.address, &expected).await;
        }
    }
}

struct Rig {
    address: SocketAddr,
    incidents: watch::Sender<Arc<Vec<IncidentView>>>,
    /// Told when the browser asks for the profile [`GO_ON`].
    go_on: Arc<Notify>,
    _tasks: JoinSet<()>,
}

async fn serve(now: f64, incidents: Vec<IncidentView>, watched: WatchPart, token: Option<&str>) -> Rig {
    let (statsd, statsd_part) = watch::channel(Arc::new(statsd_part()));
    let (output, output_part) = watch::channel(Arc::new(output_part(now)));
    let (watching, watch_part) = watch::channel(Arc::new(watched));
    let (told, incidents) = watch::channel(Arc::new(incidents));
    let about = About { version: "0.1.0".into(), started_at: rfc3339(now - 4000.0), degraded: vec![] };
    let parts = Snapshots {
        statsd: statsd_part,
        output: output_part,
        watch: watch_part,
        incidents,
        about: watch::channel(Arc::new(about)).1,
        state: watch::channel(Arc::default()).1,
    };
    let port = if std::env::var_os("OOMWATCH_PREVIEW_SECONDS").is_some() { 7071 } else { 0 };
    let listen = SocketAddr::from(([127, 0, 0, 1], if token.is_none() { port } else { 0 }));
    let settings = Settings { listen, hosts: vec![], token: token.map(str::to_owned) };
    let server = PageServer::bind(settings).await.expect("bind loopback");
    let address = server.local_addr();
    let (store, mut requests) = mpsc::channel(8);
    let go_on = Arc::new(Notify::new());
    let told_to_go_on = go_on.clone();
    let mut tasks = JoinSet::new();
    let (asked, mut wishes) = mpsc::channel::<PullNow>(1);
    tasks.spawn(async move {
        // The first wish is granted, and the cool-down stands in the way of the next.
        let mut wish = Wish::Begun;
        while let Some(PullNow { reply }) = wishes.recv().await {
            reply.send(wish).ok();
            wish = Wish::Suppressed("cooldown");
        }
    });
    let wires = oomwatch::page::Wires { store, asked, reading: ReadingPlace::default() };
    tasks.spawn(async move { server.run(parts, wires, CancellationToken::new()).await });
    tasks.spawn(async move {
        // The senders live as long as the page, or its parts would stand still.
        let _owners = (statsd, output, watching);
        while let Some(request) = requests.recv().await {
            if let StoreRequest::Read { id, reply } = request {
                if id == GO_ON {
                    told_to_go_on.notify_one();
                }
                reply.send(Some(Bytes::from(profiles::kept(&id)))).ok();
            }
        }
    });
    Rig { address, incidents: told, go_on, _tasks: tasks }
}

async fn linger() {
    if let Ok(seconds) = std::env::var("OOMWATCH_PREVIEW_SECONDS") {
        let seconds = seconds.parse().expect("OOMWATCH_PREVIEW_SECONDS is a number");
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
}

fn browser_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser")
}

fn chromium() -> PathBuf {
    std::env::var_os("CHROMIUM").map_or_else(|| PathBuf::from("/usr/bin/chromium"), PathBuf::from)
}

fn what_is_missing() -> Option<String> {
    if !Command::new("node").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return Some("there is no node".to_owned());
    }
    if !browser_folder().join("node_modules/playwright-core").is_dir() {
        return Some("playwright-core is not installed: npm ci in tests/browser".to_owned());
    }
    (!chromium().exists()).then(|| format!("there is no {}: set CHROMIUM or install it", chromium().display()))
}

async fn browse(address: SocketAddr, expected: &[&str]) {
    let output = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page");
    let mut command = tokio::process::Command::new("node");
    command.arg(browser_folder().join("page.mjs")).arg(format!("http://{address}/")).arg(&output).args(expected);
    command.env("CHROMIUM", chromium()).kill_on_drop(true);
    let ran = tokio::time::timeout(Duration::from_secs(120), command.output()).await;
    let ran = ran.expect("the browser ends in time").expect("node runs");
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    println!("{said}");
    assert!(ran.status.success(), "{said}");
}

fn statsd_part() -> StatsdPart {
    let name = |name: &str, samples, contexts| TopName { name: name.into(), samples, contexts };
    StatsdPart {
        datagrams: 184_220,
        samples: 1_472_904,
        app_samples: 0,
        contexts: 214,
        clients: None,
        senders: 6,
        new_senders: 160,
        reporting_clients: 6,
        dropped: BTreeMap::from([("parse", 3)]),
        identities: BTreeMap::from([("I1", 0), ("I2", 0)]),
        top: TopContexts {
            names: vec![
                name("worker.job.duration", 702_113, 48),
                name("worker.job.done", 351_056, 24),
                name("worker.redis.latency", 298_410, 12),
                name("worker.queue.depth", 92_004, 6),
                name("worker.retry", 21_877, 18),
                name(HOSTILE, 12, 1),
            ],
            folded: 0,
        },
    }
}

fn output_part(now: f64) -> OutputPart {
    OutputPart {
        mode: "intake",
        last_success: Some(rfc3339(now - 4.0)),
        queued_bytes: 1840,
        outage_seconds_left: Some(3300),
        identities: BTreeMap::from([("I3", 0)]),
        ..OutputPart::default()
    }
}

fn target() -> Option<TargetView> {
    let rule = "the only process of another container with a Go pprof endpoint";
    Some(TargetView { pid: 17, name: "worker".into(), rule: rule.into() })
}

/// Steady for a while, then a client more with every job.
fn leaking(now: f64) -> WatchPart {
    let point = |second: u64| {
        let leaked = second.saturating_sub(SPAN - LEAK);
        let saw = (second * 7919 % 13) * MIB / 4 + (second % 45) * MIB / 9;
        let heap = 21 * MIB + saw / 3 + leaked * 402 * 1024;
        ReadingPoint {
            t: now - (SPAN - second) as f64,
            rss_bytes: Some(39 * MIB + saw / 3 + leaked * 425 * 1024),
            working_set_bytes: Some(46 * MIB + saw / 4 + leaked * 428 * 1024),
            heap_bytes: Some(heap),
            limit_bytes: Some(256 * MIB),
            threads: Some(11 + u64::from(second > 640)),
            goroutines: Some(24 + second % 5 + leaked * 936 / LEAK),
            fds: Some(14 + leaked * 311 / LEAK),
            statsd_clients: Some(1 + leaked * 311 / LEAK),
            incarnation: 1,
        }
    };
    let memory = MemoryView {
        rss_bytes: Some(197 * MIB),
        working_set_bytes: Some(205 * MIB),
        limit_bytes: Some(256 * MIB),
        slope_bytes_per_second: Some(425.0 * 1024.0),
        time_to_limit_seconds: Some(138.0),
        state: "warn",
    };
    WatchPart {
        target: target(),
        memory,
        kernel_drops: 0,
        statsd_clients: Some(312),
        degraded: vec![],
        identities: BTreeMap::new(),
        readings: Arc::new((0..=SPAN).map(point).collect()),
    }
}

fn quiet(now: f64) -> WatchPart {
    let point = |second: u64| {
        let saw = (second % 60) * MIB / 6;
        ReadingPoint {
            t: now - (SPAN - second) as f64,
            rss_bytes: Some(44 * MIB + saw),
            working_set_bytes: Some(52 * MIB + saw),
            limit_bytes: Some(256 * MIB),
            threads: Some(11),
            fds: Some(14),
            statsd_clients: Some(1),
            incarnation: 1 + second / 500,
            ..ReadingPoint::default()
        }
    };
    let memory = MemoryView {
        rss_bytes: Some(47 * MIB),
        working_set_bytes: Some(55 * MIB),
        limit_bytes: Some(256 * MIB),
        state: "quiet",
        ..MemoryView::default()
    };
    let degraded = DegradedView {
        what: "No pprof endpoint.".into(),
        why: "Nothing answers at `http://127.0.0.1:6060/debug/pprof`, so growth will be seen but not named.".into(),
        fix: "import _ \"net/http/pprof\"; go http.ListenAndServe(\"127.0.0.1:6060\", nil)".into(),
    };
    let readings = Arc::new((0..=SPAN).map(point).collect());
    WatchPart {
        target: target(),
        memory,
        statsd_clients: Some(1),
        degraded: vec![degraded],
        readings,
        ..WatchPart::default()
    }
}

fn named(now: f64) -> IncidentView {
    let profile = |id: &str, kind, reason: &str, ago: f64, bytes| ProfileView {
        id: id.into(),
        kind,
        reason: reason.into(),
        taken_at: rfc3339(now - ago),
        bytes,
    };
    let evidence = |kind: &str, text: &str| EvidenceView { kind: kind.into(), text: text.into() };
    IncidentView {
        id: "5b1f0c2ad97e4410".into(),
        kind: "memory_growth",
        opened_as: "memory_growth",
        app: "worker".into(),
        severity: "warn",
        opened_at: rfc3339(now - 301.0),
        closed_at: None,
        state: "named",
        verdict: "worker leaks: `statsd.newStatsdBuffer` grew 148 MiB in 6 min, made in `main.handleJob`; 312 StatsD \
                  clients are open, one more per job; the limit is reached in about 2 min."
            .into(),
        culprits: culprits(),
        evidence: vec![
            evidence("clients", "312 StatsD clients are open, 311 more than 6 min ago: one for each job."),
            evidence("goroutines", "936 goroutines more, 932 of them created by `statsd.newClient`."),
            evidence("heap", "`statsd.newStatsdBuffer` holds 92 % of what the heap gained; the next one 4 %."),
            evidence("threads", "Threads did not grow: 12 now, 11 before."),
            evidence("remedy", "Keep one client for the process, or call `Close` when a job ends."),
        ],
        profiles: vec![
            profile("9c40e1b7a2d35f68", "heap_gc", "after a forced collection", 296.0, 48_213),
            profile("1be07a55c94d20f3", "goroutine", "alert opened", 300.0, 12_904),
            profile("77d2a9f01c3b8e46", "heap", "alert opened", 301.0, 47_120),
            profile("02f8b6d4e17ca935", "heap", "baseline", 820.0, 18_457),
        ],
    }
}

fn culprits() -> Vec<CulpritView> {
    let culprit =
        |function: &str, file: &str, line, mib: f64, objects, share, made_by: &str, stack: &[&str]| CulpritView {
            function: function.into(),
            file: file.into(),
            line,
            grew_bytes: (mib * MIB as f64) as i64,
            grew_objects: objects,
            share,
            made_by: made_by.into(),
            stack: stack.iter().map(|&frame| frame.to_owned()).collect(),
        };
    let root = "/go/pkg/mod/github.com/!data!dog/datadog-go/v5@v5.6.0/statsd";
    vec![
        culprit(
            "statsd.newStatsdBuffer",
            &format!("{root}/buffer.go"),
            44,
            148.2,
            18_661,
            0.92,
            "main.handleJob",
            &[
                "github.com/DataDog/datadog-go/v5/statsd.newStatsdBuffer",
                "github.com/DataDog/datadog-go/v5/statsd.newBufferPool",
                "github.com/DataDog/datadog-go/v5/statsd.newClientWithWriter",
                "github.com/DataDog/datadog-go/v5/statsd.New",
                "main.handleJob",
                "main.worker",
            ],
        ),
        culprit(
            "statsd.newAggregator",
            &format!("{root}/aggregator.go"),
            51,
            6.4,
            311,
            0.04,
            "main.handleJob",
            &["github.com/DataDog/datadog-go/v5/statsd.newAggregator", "main.handleJob"],
        ),
        culprit(HOSTILE, "/src/worker/λ.go", 7, 1.6, 96, 0.01, "", &[HOSTILE, "main.main"]),
    ]
}

fn recovered(now: f64) -> IncidentView {
    IncidentView {
        id: "e07d11c35a9f2b84".into(),
        kind: "goroutine_leak",
        severity: "notice",
        opened_at: rfc3339(now - 3400.0),
        closed_at: Some(rfc3339(now - 2900.0)),
        state: "recovered",
        verdict: "worker gained 140 goroutines in 5 min and gave them back.".into(),
        ..IncidentView::default()
    }
}
