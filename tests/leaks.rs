//! Real Go programs with one real mistake each, and healthy ones beside them: the sidecar names the function that made the
//! mistake, says what kind it is, and leaves the healthy in peace. On every profile that it stored, our sums are those of
//! `go tool pprof`.
//!
//! Of a leak the last word before the limit counts: a name that comes too late, or gives way to a wrong one, is none. Of a healthy
//! program the sidecar says nothing, so it is asked for profiles, and the difference of two must accuse nobody, although one
//! function holds most of the heap all the time.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use oomwatch::pprof::read::{MAX_INFLATED, read};
use serde_json::Value;
use support::endpoint::pull_now;
use support::pprof::flat_agrees;
use support::{Kept, OOMWATCH, Sidecar, go_build, have, rss_bytes, wait_for};
use tokio::time::Instant;

/// Program, who made it, what kind it is.
const LEAKS: [(&str, &str, &str); 16] = [
    ("clientperjob", "main.handleJob", "unclosed_handle"),
    ("mapbyuser", "main.(*sessions).remember", "heap_leak"),
    ("appendglobal", "main.audit", "heap_leak"),
    ("chansend", "main.query.func1", "goroutine_leak"),
    ("chanrecv", "main.subscribe.func1", "goroutine_leak"),
    ("selectticker", "main.newPoller", "goroutine_leak"),
    ("waitgroup", "main.gather", "goroutine_leak"),
    ("mutex", "main.serve", "goroutine_leak"),
    ("nocancel", "main.handle", "heap_leak"),
    ("httpbody", "main.post", "unclosed_handle"),
    ("transport", "main.newClient", "unclosed_handle"),
    ("tickerrange", "main.heartbeat", "goroutine_leak"),
    ("sqlrows", "main.latest", "unclosed_handle"),
    ("syncpool", "main.render", "heap_leak"),
    ("subslice", "main.readHeader", "heap_leak"),
    ("cgomalloc", "", "outside_go_heap"),
];

/// And whether its work comes in waves: in the midst of one there is more of it than before, and nobody could tell that from a leak.
const HEALTHY: [(&str, bool); 4] =
    [("healthygarbage", false), ("healthycache", false), ("healthygoroutines", false), ("healthybatch", true)];

/// The healthy holder of memory that every program has ([`rig.go`](leaks/rig/rig.go)).
const HOLDER: &str = "rig.Run";

/// Watched at once: on two cores more of them would starve one another of the collections that a heap profile waits for.
const LEAKS_AT_ONCE: usize = 6;
const HEALTHY_AT_ONCE: usize = 2;

const LIMIT: u64 = 256 << 20;

/// A leak runs into its limit within half a minute or so. One that a busy machine slows down has its last word then.
const PATIENCE: Duration = Duration::from_secs(75);

/// A healthy program has work for so long before it is asked for profiles: its cache is full then.
const WARM: Duration = Duration::from_secs(10);
/// So long without growth.
const STANDS: Duration = Duration::from_secs(5);

/// Rounds of profiles of a healthy program, five seconds apart.
const ROUNDS: usize = 5;

struct App {
    /// A program that leaks for ever is not left behind by a test that fails.
    child: Kept,
    pprof: String,
}

impl App {
    fn start(program: &Path) -> App {
        let mut child = Command::new(program).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pprof =
            line.trim().strip_prefix("pprof=").unwrap_or_else(|| panic!("{program:?} said {line:?}")).to_owned();
        App { child: Kept(child), pprof }
    }

    /// From now on it makes its mistake; a healthy one gets its load.
    fn leak(&self) {
        let address: SocketAddr = self.pprof.split('/').nth(2).unwrap().parse().unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .write_all(b"POST /leak HTTP/1.1\r\nhost: app\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            .unwrap();
        let mut status = String::new();
        BufReader::new(stream).read_line(&mut status).unwrap();
        assert!(status.contains("200"), "{status}");
    }
}

/// The sidecar beside a program, once it has its healthy baseline.
fn watch(app: &App, profiles: &Path) -> Sidecar {
    let settings = format!(
        "[datadog]\noutput = \"none\"\n[watch]\npid = {}\nlimit = \"{LIMIT}B\"\n[alert]\nstartup_grace = \"5s\"\n\
         [profile]\nurl = \"{}\"\nbaseline_after = \"5s\"\ncooldown = \"5s\"\nmax_per_hour = 30\nmax_files = 60\ndir = \"{}\"\n",
        app.child.0.id(),
        app.pprof,
        profiles.display()
    );
    let sidecar = Sidecar::start(&settings, &[]);
    wait_for(Duration::from_secs(60), "a healthy baseline", || {
        sidecar.log().contains("healthy baseline taken").then_some(())
    });
    sidecar
}

fn incident(sidecar: &Sidecar) -> Option<Value> {
    let answer = sidecar.api("/api/incidents");
    answer.as_array().or_else(|| answer["incidents"].as_array()).unwrap().first().cloned()
}

fn class(incident: &Value) -> String {
    let all = incident["evidence"].as_array().unwrap();
    let text = all.iter().find(|it| it["kind"] == "class").map_or("", |it| it["text"].as_str().unwrap());
    text.split(':').next().unwrap().replace(' ', "_").replace("outside_the_Go", "outside_go")
}

/// What is said of a leak when it reaches its limit: who made it, of which class, in which words.
fn verdict(
    dir: &Path,
    (program, made_by, class_wanted): (&str, &str, &str),
    profiles: &Path,
) -> Result<String, String> {
    let mut app = App::start(&dir.join(program));
    let sidecar = watch(&app, profiles);
    app.leak();
    let (began, mut last, mut named) = (Instant::now(), None, false);
    while began.elapsed() < PATIENCE && app.child.0.try_wait().unwrap().is_none() {
        let said = incident(&sidecar);
        // What was heard after the limit was reached would have come too late.
        if rss_bytes(app.child.0.id()) >= LIMIT {
            break;
        }
        last = said.or(last);
        named |= last.as_ref().is_some_and(|it| it["culprits"][0]["made_by"] == made_by);
        std::thread::sleep(Duration::from_millis(200));
    }
    let took = began.elapsed().as_secs();
    let Some(last) = last else { return Err(format!("{program}: no incident in {took} s\n{}", sidecar.log())) };
    let (said, class) = (last["culprits"][0]["made_by"].as_str().unwrap_or_default(), class(&last));
    let words = format!("{program}: {said:?}, {class}: {} (its last word, after {took} s)", last["verdict"]);
    if said == made_by && class == class_wanted {
        return Ok(words);
    }
    Err(format!("{words}\nexpected {made_by:?}, {class_wanted}; named for a time: {named}\n{}", sidecar.log()))
}

/// A healthy program gets no alarm, or one that names nobody; and no two of its profiles accuse anybody.
fn peace(dir: &Path, (program, in_waves): (&str, bool), profiles: &Path) -> Result<String, String> {
    let app = App::start(&dir.join(program));
    let sidecar = watch(&app, profiles);
    app.leak();
    let (began, mut most, mut since) = (Instant::now(), 0, Instant::now());
    // What fills up is no healthy program before it is full, which takes longer on a busy machine.
    wait_for(Duration::from_secs(90), "it to be warm, and to reach no new height", || {
        let rss = rss_bytes(app.child.0.id());
        if rss > most + (1 << 20) {
            (most, since) = (rss, Instant::now());
        }
        (began.elapsed() >= WARM && since.elapsed() >= STANDS).then_some(())
    });
    for round in 1..=ROUNDS {
        pull_now(&sidecar);
        wait_for(Duration::from_secs(60), "a round", || (heaps(&sidecar, profiles).len() >= round).then_some(()));
    }
    if let Some(incident) = incident(&sidecar).filter(|it| it["culprits"].as_array().is_some_and(|it| !it.is_empty())) {
        return Err(format!("{program} is healthy: {}", incident["verdict"]));
    }
    let heaps = heaps(&sidecar, profiles);
    let (first, later) = (&heaps[0], &heaps[1..]);
    let later: Vec<&PathBuf> =
        if in_waves { later.iter().min_by_key(|it| held(it)).into_iter().collect() } else { later.iter().collect() };
    for now in later {
        accuses_nobody(program, first, now)?;
    }
    Ok(format!("{program}: in peace"))
}

/// The heaps after a collection that were asked for, oldest first.
fn heaps(sidecar: &Sidecar, profiles: &Path) -> Vec<PathBuf> {
    let listed = sidecar.api("/api/profiles");
    let of_rounds =
        listed.as_array().unwrap().iter().filter(|it| it["type"] == "heap_gc" && it["reason"] != "baseline");
    let file = |it: &Value| profiles.join(format!("{}.heap_gc.pb.gz", it["id"].as_str().unwrap()));
    let mut files: Vec<PathBuf> = of_rounds.map(file).collect();
    files.reverse();
    files
}

fn held(heap: &Path) -> i64 {
    let profile = read(&std::fs::read(heap).unwrap(), MAX_INFLATED).unwrap();
    profile.total(profile.type_index("inuse_space").unwrap())
}

fn profile(arguments: &[&str], files: &[&Path]) -> Value {
    let output = Command::new(OOMWATCH).arg("profile").args(arguments).arg("--json").args(files).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// As in the true story: the largest holder of the heap, more than a third of it, is not who grows.
fn accuses_nobody(program: &str, base: &Path, now: &Path) -> Result<(), String> {
    let top = profile(&["top"], &[now]);
    let largest = &top["rows"][0];
    assert!(largest["function"] == HOLDER && largest["share"].as_f64().unwrap() > 0.34, "{program}: {largest:#}");
    let naming = &profile(&["diff"], &[base, now])["naming"];
    let sure = ["high", "medium"].iter().any(|word| naming["confidence"] == *word);
    if sure || naming["named"] != false {
        return Err(format!("{program} is healthy, and two of its profiles accuse: {naming:#}"));
    }
    Ok(())
}

/// Does it for each, so many at once, and gives what they said; a fault of one fails the test when all have been tried. Then each
/// profile that was stored is set beside `go tool pprof`.
fn each<T: Copy + Sync>(
    all: &[(&str, T)],
    at_once: usize,
    one: impl Fn(&Path, T, &Path) -> Result<String, String> + Sync,
) {
    // Once: a program that runs cannot be written.
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    let dir = PROGRAMS.get_or_init(|| go_build("tests/leaks", "./...", "leaks"));
    let (store, next) = (tempfile::tempdir().unwrap(), AtomicUsize::new(0));
    let compared = AtomicUsize::new(0);
    let tried = |&(program, it): &(&str, T)| {
        let profiles = store.path().join(program);
        std::fs::create_dir_all(&profiles).unwrap();
        let said = one(dir, it, &profiles);
        compared.fetch_add(agrees_with_go(&profiles), Ordering::Relaxed);
        said
    };
    let lane = || std::iter::from_fn(|| all.get(next.fetch_add(1, Ordering::Relaxed)).map(tried)).collect::<Vec<_>>();
    let said: Vec<Result<String, String>> = std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..at_once).map(|_| scope.spawn(lane)).collect();
        lanes.into_iter().flat_map(|lane| lane.join().unwrap()).collect()
    });
    said.iter().filter_map(|it| it.as_ref().ok()).for_each(|it| println!("{it}"));
    let wrong: Vec<&String> = said.iter().filter_map(|it| it.as_ref().err()).collect();
    assert!(
        wrong.is_empty() && said.len() == all.len(),
        "{}",
        wrong.iter().map(|it| format!("{it}\n")).collect::<String>()
    );
    let compared = compared.into_inner();
    println!("{compared} profiles and their differences agree with go tool pprof");
    assert!(compared > 3 * all.len(), "only {compared} profiles were stored");
}

#[test]
fn every_mistake_has_its_name_when_it_reaches_the_limit() {
    if have("go", "every_mistake_has_its_name_when_it_reaches_the_limit") {
        each(&LEAKS.map(|it| (it.0, it)), LEAKS_AT_ONCE, verdict);
    }
}

#[test]
fn the_healthy_are_left_in_peace() {
    if have("go", "the_healthy_are_left_in_peace") {
        each(&HEALTHY.map(|it| (it.0, it)), HEALTHY_AT_ONCE, peace);
    }
}

/// Every stored profile by itself, and every one against the one before it of its kind. How many there were.
fn agrees_with_go(dir: &Path) -> usize {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.to_str().unwrap().ends_with(".pb.gz"));
    files.sort_by_key(|path| path.metadata().unwrap().modified().unwrap());
    files.iter().for_each(|file| flat_agrees(None, file));
    for kind in ["inuse_space", "goroutine", "goroutineleak"] {
        let is_of =
            |path: &&PathBuf| read(&std::fs::read(path).unwrap(), MAX_INFLATED).unwrap().type_index(kind).is_some();
        let of_kind: Vec<&PathBuf> = files.iter().filter(is_of).collect();
        of_kind.windows(2).for_each(|pair| flat_agrees(Some(pair[0]), pair[1]));
    }
    files.len()
}
