//! The investigation under a clock that stands still, with a puller and a store that answer as the test says.

mod in_hand;
mod rounds;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::*;
use crate::detect::{Alert, AlertKind};
use crate::pipeline::past::Past;
use crate::pipeline::{Figures, PullFailed, PullReply, PullRequest, Pulled, StoreRequest, Upload};
use crate::pprof::testing::{encode, goroutines, heap};
use crate::snapshot::IncidentView;

const MIB: i64 = 1 << 20;
const BUFFER: &str = "github.com/DataDog/datadog-go/v5/statsd.newStatsdBuffer /m/github.com/!data!dog/datadog-go/v5@v5.9.1/statsd/buffer.go 26";
const JOB: &str = "main.handleJob /app/main.go 57";
const WATCH: &str = "github.com/DataDog/datadog-go/v5/statsd.(*Client).watch /m/github.com/!data!dog/datadog-go/v5@v5.9.1/statsd/statsd.go 500";

/// How the app's pprof endpoint behaves.
#[derive(Clone, Copy, PartialEq)]
enum App {
    /// Grows by a client with each pull.
    Leaks,
    /// Refuses connections.
    Silent,
    /// Takes the request and never answers.
    Hangs,
    /// Leaks, and a forced collection takes longer than anybody waits.
    CollectsForEver,
    /// The same, and that is told.
    CollectsInVain,
    CollectsSlowly,
    HidesCount,
    /// Fills a map, and no goroutine piles up beside it.
    Fills,
    /// Has filled a map, and stands.
    Full,
    /// Leaks goroutines that block for good, and serves all there is to be known of them.
    Blocks,
    /// Leaks in functions whose names mean harm.
    Hostile,
}

/// Everything at once: markup, an end of Datadog's block, another line, a turn of the text, and no end.
const HARM: &str = "main.<script>alert(1)</script>\n%%%\r\u{1b}[31m`rm`](javascript:x)\u{202e}";

struct Rig {
    findings: mpsc::Sender<Finding>,
    outgoing: mpsc::Receiver<Outgoing>,
    incidents: watch::Receiver<Arc<Vec<IncidentView>>>,
    runtime: watch::Receiver<Runtime>,
    app: watch::Sender<App>,
    asked: mpsc::Sender<PullNow>,
    uploads: mpsc::Receiver<Upload>,
    settings: watch::Sender<(Settings, Identity)>,
    pulled: watch::Receiver<Vec<ProfileKind>>,
    tasks: JoinSet<()>,
}

impl Rig {
    fn start(app: App) -> Rig {
        let (findings, findings_in) = mpsc::channel(64);
        let (pulls, pulls_in) = mpsc::channel(1);
        let (store, store_in) = mpsc::channel(8);
        let (outgoing, outgoing_in) = mpsc::channel(64);
        let (own, own_in) = mpsc::channel(10_000);
        let (runtime, runtime_in) = watch::channel(Runtime::default());
        let (incidents, incidents_in) = watch::channel(Arc::default());
        let (app, app_in) = watch::channel(app);
        let (pulled, pulled_in) = watch::channel(Vec::new());
        let (asked, asked_in) = mpsc::channel(1);
        let (uploads, uploads_in) = mpsc::channel(1);
        let seconds = Duration::from_secs;
        let settings = Settings { baseline_after: seconds(60), cooldown: seconds(60), max_per_hour: 6, debug2: true };
        let (reload, changes) = watch::channel((settings, Identity::default()));
        let wires = Wires {
            findings: findings_in,
            asked: asked_in,
            pulls,
            store,
            uploads: Some(uploads),
            outgoing,
            own,
            runtime,
            settings: changes,
            incidents,
            reading: crate::pipeline::ReadingPlace::default(),
            past: Past::default(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(Investigation::new(settings, Identity::default(), || 1_000.0, wires).run());
        tasks.spawn(puller(pulls_in, app_in, pulled));
        tasks.spawn(storekeeper(store_in, own_in));
        Rig {
            findings,
            outgoing: outgoing_in,
            incidents: incidents_in,
            runtime: runtime_in,
            app,
            asked,
            uploads: uploads_in,
            settings: reload,
            pulled: pulled_in,
            tasks,
        }
    }

    async fn tell(&self, finding: Finding) {
        self.findings.send(finding).await.expect("the investigation runs");
    }

    async fn appear(&self) {
        let target = Target { pid: 7, name: "worker".into(), rule: "test".into(), incarnation: 1 };
        self.tell(Finding::Appeared(target)).await;
        self.tell(Finding::Figures(figures(true))).await;
    }

    async fn alarm(&self, severity: Severity) {
        self.tell(Finding::Figures(figures(false))).await;
        let alert = Alert {
            kind: AlertKind::MemoryGrowth,
            severity,
            rule: "trend_10s",
            at: Duration::ZERO,
            per_second: 1e6,
            time_to_limit: None,
            evidence: "rose".into(),
        };
        let change = if severity == Severity::Crit { Change::Escalated(alert) } else { Change::Opened(alert) };
        self.tell(Finding::Alert(change)).await;
    }

    async fn event(&mut self) -> Event {
        match timeout(Duration::from_secs(300), self.outgoing.recv()).await {
            Ok(Some(Outgoing::Urgent(event))) => event,
            other => panic!("expected an event: {other:?}"),
        }
    }

    /// The incidents once they are so.
    async fn story(&mut self, is_so: impl FnMut(&Arc<Vec<IncidentView>>) -> bool) -> Arc<Vec<IncidentView>> {
        let told = timeout(Duration::from_secs(900), self.incidents.wait_for(is_so)).await;
        told.expect("the story goes on").expect("it runs").clone()
    }

    async fn pulls(&mut self, count: usize) -> Vec<ProfileKind> {
        let enough = self.pulled.wait_for(|pulled| pulled.len() >= count);
        timeout(Duration::from_secs(900), enough).await.expect("pulls come").expect("the puller runs").clone()
    }
}

fn figures(healthy: bool) -> Figures {
    Figures {
        memory_bytes: 100 << 20,
        rss_bytes: 100 << 20,
        limit_bytes: Some(512 << 20),
        healthy,
        ..Figures::default()
    }
}

async fn puller(
    mut requests: mpsc::Receiver<PullRequest>,
    app: watch::Receiver<App>,
    pulled: watch::Sender<Vec<ProfileKind>>,
) {
    let mut held = Vec::new();
    while let Some(PullRequest { kind, reply }) = requests.recv().await {
        pulled.send_modify(|pulled| pulled.push(kind));
        let clients = pulled.borrow().len() as i64;
        let app = *app.borrow();
        if app == App::CollectsSlowly && kind == ProfileKind::HeapAfterGc {
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        let outcome = match app {
            App::Hangs => {
                held.push(reply);
                continue;
            }
            App::CollectsForEver if kind == ProfileKind::HeapAfterGc => {
                held.push(reply);
                continue;
            }
            App::CollectsInVain if kind == ProfileKind::HeapAfterGc => fails("heap?gc=1 did not answer"),
            App::HidesCount if kind == ProfileKind::Index => fails("no index"),
            App::Silent => fails("connection refused"),
            App::Fills | App::Full if kind == ProfileKind::Goroutine => {
                Ok(Pulled::Profile(encode(&goroutines(&[(&[WATCH], 3)]))))
            }
            App::Full => Ok(answer(kind, 9)),
            App::Blocks => Ok(blocked(kind, clients)),
            App::Hostile => Ok(harm(kind, clients)),
            _ => Ok(answer(kind, clients)),
        };
        let _ = reply.send(PullReply { kind, took: Duration::from_millis(3), outcome });
    }
}

fn fails(words: &str) -> Result<Pulled, PullFailed> {
    Err(PullFailed { reason: "unreachable", words: words.to_owned() })
}

fn answer(kind: ProfileKind, clients: i64) -> Pulled {
    match kind {
        ProfileKind::Index => Pulled::Index(Index { goroutines: Some(40), leak_profile: false }),
        ProfileKind::GoroutineDump => Pulled::Dump(bytes::Bytes::new()),
        ProfileKind::Goroutine => Pulled::Profile(encode(&goroutines(&[(&[WATCH], 200 * clients)]))),
        _ => Pulled::Profile(encode(&heap(&[(&[BUFFER, JOB], 20 * clients * MIB)]))),
    }
}

fn blocked(kind: ProfileKind, clients: i64) -> Pulled {
    let stack: &[&str] = &["runtime.chansend runtime/chan.go 1", "main.query.func1 /app/main.go 30"];
    let text = "goroutine 7 [chan send]:\nmain.query.func1(0x5ec4e7)\n\t/app/main.go:30 +0x1\n\
                created by main.query in goroutine 1\n\t/app/main.go:25 +0x8a\n\n";
    match kind {
        ProfileKind::Index => Pulled::Index(Index { goroutines: Some(1_500), leak_profile: true }),
        ProfileKind::Goroutine | ProfileKind::GoroutineLeak => {
            Pulled::Profile(encode(&goroutines(&[(stack, 200 * clients)])))
        }
        ProfileKind::GoroutineDump => Pulled::Dump(text.repeat(3).into()),
        _ => Pulled::Profile(encode(&heap(&[(stack, 20 * clients * MIB)]))),
    }
}

fn harm(kind: ProfileKind, clients: i64) -> Pulled {
    let (leaf, owner) =
        (format!("{HARM}{0} /app/{HARM}/x.go 26", "x".repeat(5_000)), format!("main.{HARM}.job {HARM} 57"));
    let stack: &[&str] = &[&leaf, &owner];
    match kind {
        ProfileKind::Index => Pulled::Index(Index { goroutines: Some(40), leak_profile: false }),
        ProfileKind::GoroutineDump => Pulled::Dump(bytes::Bytes::new()),
        ProfileKind::Goroutine => Pulled::Profile(encode(&goroutines(&[(stack, 200 * clients)]))),
        _ => Pulled::Profile(encode(&heap(&[(stack, 20 * clients * MIB)]))),
    }
}

async fn storekeeper(mut requests: mpsc::Receiver<StoreRequest>, mut own: mpsc::Receiver<Vec<OwnMetric>>) {
    let mut id = 0;
    loop {
        tokio::select! {
            Some(_) = own.recv() => {}
            request = requests.recv() => match request {
                Some(StoreRequest::Save { reply, .. }) => {
                    id += 1;
                    let _ = reply.send(Ok(format!("{id:016x}")));
                }
                Some(_) => {}
                None => return,
            },
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_alert_is_told_at_once_and_the_name_when_the_round_is_done() {
    let mut rig = Rig::start(App::Leaks);
    rig.appear().await;
    rig.pulls(2).await;
    tokio::time::advance(Duration::from_secs(61)).await;
    rig.pulls(6).await;
    rig.alarm(Severity::Warn).await;
    let opened = rig.event().await;
    assert_eq!(opened.title, "worker: memory grows towards its limit");
    let named = rig.event().await;
    assert_eq!(named.title, "worker leaks in statsd.newStatsdBuffer");
    assert!(named.text.contains("main.handleJob"), "{}", named.text);
    assert!(named.text.contains("goroutines +"), "the round's goroutine profile is in it: {}", named.text);
    let incidents = rig.incidents.borrow().clone();
    assert_eq!((incidents.len(), incidents[0].state), (1, "named"));
    let kinds: Vec<_> = incidents[0].profiles.iter().map(|it| (it.reason.as_str(), it.kind)).collect();
    let evidence = [
        ("memory_growth", "heap"),
        ("baseline", "heap_gc"),
        ("memory_growth", "heap_gc"),
        ("memory_growth", "goroutine"),
    ];
    assert!(evidence.iter().all(|it| kinds.contains(it)), "{kinds:?}");
}

#[tokio::test(start_paused = true)]
async fn an_app_found_before_its_exec_is_told_by_the_name_it_has_since() {
    let mut rig = Rig::start(App::Hangs);
    rig.appear().await;
    let target = Target { pid: 7, name: "shop".into(), rule: "test".into(), incarnation: 1 };
    rig.tell(Finding::Renamed(target)).await;
    rig.alarm(Severity::Warn).await;
    assert_eq!(rig.event().await.title, "shop: memory grows towards its limit");
}

#[tokio::test(start_paused = true)]
async fn a_round_is_uploaded_in_one_piece_under_the_tags_in_force() {
    let mut rig = Rig::start(App::Leaks);
    rig.appear().await;
    rig.pulls(2).await;
    let tags = vec!["team:other".to_owned()];
    rig.settings.send_modify(|(_, who)| *who = Identity { tags: tags.clone(), ..Identity::default() });
    // The clock that stands still goes on only when everybody waits: the settings are taken by then.
    tokio::time::sleep(Duration::from_millis(1)).await;
    rig.alarm(Severity::Warn).await;
    let upload = timeout(Duration::from_secs(300), rig.uploads.recv()).await.expect("in time").expect("an upload");
    assert_eq!((upload.tags, upload.trigger, upload.sequence), (tags, "memory_growth", 0));
    assert_eq!(upload.profiles.iter().map(|it| it.0).collect::<Vec<_>>(), ["heap.pprof", "goroutines.pprof"]);
}

#[tokio::test(start_paused = true)]
async fn names_that_mean_harm_reach_event_and_page_as_plain_text() {
    let mut rig = Rig::start(App::Hostile);
    rig.appear().await;
    rig.pulls(2).await;
    tokio::time::advance(Duration::from_secs(61)).await;
    rig.pulls(6).await;
    rig.alarm(Severity::Warn).await;
    rig.event().await;
    let named = rig.event().await;
    let turned = |text: &str| text.contains('\u{202e}') || text.chars().any(|c| c.is_control() && c != '\n');
    assert!(
        named.title.contains("leaks in") && !named.title.contains('\n') && !turned(&named.title),
        "{}",
        named.title
    );
    assert!(named.text.chars().count() <= 4_000 && !turned(&named.text), "{}", named.text);
    assert_eq!(named.text.matches("%%%").count(), 2, "the block has one beginning and one end: {}", named.text);
    let bare = |text: &str, sign: &str| text.match_indices(sign).any(|(at, _)| !text[..at].ends_with('\\'));
    let outside: String = named.text.split('`').step_by(2).collect();
    assert!(!bare(&outside, "<script>") && !bare(&outside, "]("), "{}", named.text);
    for tag in &named.tags {
        assert!(tag.len() <= 200 && !tag.contains(',') && !turned(tag) && !tag.contains('\n'), "{tag:?}");
    }
    let incident = rig.incidents.borrow()[0].clone();
    assert!(!turned(&incident.verdict) && incident.verdict.chars().count() < 4_000, "{}", incident.verdict);
    for culprit in &incident.culprits {
        for text in [&culprit.function, &culprit.made_by].into_iter().chain(&culprit.stack) {
            assert!(!turned(text) && !text.contains('\n') && text.chars().count() <= 400, "{text:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_kill_is_told_at_once_although_a_pull_hangs() {
    let mut rig = Rig::start(App::Hangs);
    rig.appear().await;
    rig.alarm(Severity::Warn).await;
    rig.event().await;
    let asked = Instant::now();
    rig.tell(Finding::Vanished(Gone::OomKilled)).await;
    let killed = rig.event().await;
    assert_eq!(killed.title, "worker was OOM-killed");
    assert!(asked.elapsed() < Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_pulled_is_said_in_the_verdict_and_as_degraded() {
    let mut rig = Rig::start(App::Silent);
    rig.appear().await;
    rig.alarm(Severity::Warn).await;
    rig.event().await;
    let told = rig.incidents.wait_for(|all| all.first().is_some_and(|it| it.verdict.contains("connection refused")));
    timeout(Duration::from_secs(60), told).await.expect("the verdict says why").expect("it runs");
    let unnamed = rig.event().await;
    assert!(unnamed.text.contains("not nameable: connection refused"), "Datadog hears it too: {}", unnamed.text);
    let degraded = rig.runtime.borrow().degraded.clone().expect("degraded");
    assert_eq!((degraded.what.as_str(), degraded.why.as_str()), ("profiles", "connection refused"));
    // It opens its port: the next round, after the cool-down, clears it.
    rig.app.send_replace(App::Leaks);
    let cleared = rig.runtime.wait_for(|runtime| runtime.degraded.is_none());
    timeout(Duration::from_secs(120), cleared).await.expect("cleared").expect("it runs");
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_its_findings_and_waits_for_no_pull() {
    let rig = Rig::start(App::Hangs);
    rig.appear().await;
    let Rig { findings, mut tasks, .. } = rig;
    drop(findings);
    timeout(Duration::from_secs(1), tasks.join_next())
        .await
        .expect("it ends")
        .expect("a task")
        .expect("without a panic");
}
