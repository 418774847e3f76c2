//! Real Go programs with one real mistake each, and healthy ones beside them: the sidecar names the function that made the
//! mistake, says what kind it is, and leaves the healthy in peace. On every profile that it stored, our sums are those of
//! `go tool pprof`.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use oomwatch::pprof::read::{MAX_INFLATED, read};
use serde_json::Value;
use support::pprof::flat_agrees;
use support::{Kept, Sidecar, go_build, have, wait_for};
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

const HEALTHY: [&str; 4] = ["healthygarbage", "healthycache", "healthygoroutines", "healthybatch"];

/// Watched at once: on two cores more of them would starve one another of the collections that a heap profile waits for.
const AT_ONCE: usize = 5;

/// A leak runs into its limit of 256 MiB within half a minute or so; a healthy one is watched for as long.
const PATIENCE: Duration = Duration::from_secs(75);
const WATCHED: Duration = Duration::from_secs(40);

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
        "[datadog]\noutput = \"none\"\n[watch]\npid = {}\nlimit = \"256MiB\"\n[alert]\nstartup_grace = \"5s\"\n\
         [profile]\nurl = \"{}\"\nbaseline_after = \"5s\"\ncooldown = \"5s\"\ndir = \"{}\"\n",
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

/// What is said of a leak in the end: who made it, of which class, in which words. The last word before the limit counts.
fn verdict(dir: &Path, program: &str, made_by: &str, class_wanted: &str, profiles: &Path) -> Result<String, String> {
    let mut app = App::start(&dir.join(program));
    let sidecar = watch(&app, profiles);
    app.leak();
    let deadline = Instant::now() + PATIENCE;
    let mut last = "no incident".to_owned();
    while Instant::now() < deadline && app.child.0.try_wait().unwrap().is_none() {
        if let Some(incident) = incident(&sidecar) {
            let said = incident["culprits"][0]["made_by"].as_str().unwrap_or_default().to_owned();
            let (class, verdict) = (class(&incident), incident["verdict"].as_str().unwrap().to_owned());
            last = format!("{program}: {said:?}, {class}: {verdict}");
            if said == made_by && class == class_wanted {
                return Ok(last);
            }
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    Err(format!("{program}: expected {made_by:?}, {class_wanted}; last: {last}\n{}", sidecar.log()))
}

/// A healthy program gets no alarm, or one that names nobody.
fn peace(dir: &Path, program: &str, profiles: &Path) -> Result<String, String> {
    let app = App::start(&dir.join(program));
    let sidecar = watch(&app, profiles);
    app.leak();
    let deadline = Instant::now() + WATCHED;
    while Instant::now() < deadline {
        match incident(&sidecar) {
            Some(incident) if incident["culprits"].as_array().is_some_and(|it| !it.is_empty()) => {
                return Err(format!("{program} is healthy: {}", incident["verdict"]));
            }
            _ => std::thread::sleep(Duration::from_millis(500)),
        }
    }
    Ok(format!("{program}: in peace"))
}

#[test]
fn every_mistake_gets_its_name_and_the_healthy_are_left_in_peace() {
    if !have("go", "every_mistake_gets_its_name_and_the_healthy_are_left_in_peace") {
        return;
    }
    let dir = go_build("tests/leaks", "./...", "leaks");
    let store = tempfile::tempdir().unwrap();
    let mut work: Vec<(&str, Option<(&str, &str)>)> = LEAKS.iter().map(|it| (it.0, Some((it.1, it.2)))).collect();
    work.extend(HEALTHY.map(|program| (program, None)));
    let one = |(program, expected): (&str, Option<(&str, &str)>)| {
        let profiles = store.path().join(program);
        std::fs::create_dir_all(&profiles).unwrap();
        match expected {
            Some((made_by, class)) => verdict(&dir, program, made_by, class, &profiles),
            None => peace(&dir, program, &profiles),
        }
    };
    let (one, work) = (&one, &work);
    let lane = |lane: usize| work.iter().skip(lane).step_by(AT_ONCE).map(|it| one(*it)).collect::<Vec<_>>();
    let said: Vec<Result<String, String>> = std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..AT_ONCE).map(|number| scope.spawn(move || lane(number))).collect();
        lanes.into_iter().flat_map(|lane| lane.join().unwrap()).collect()
    });
    let wrong: Vec<&String> = said.iter().filter_map(|it| it.as_ref().err()).collect();
    said.iter().filter_map(|it| it.as_ref().ok()).for_each(|it| println!("{it}"));
    assert!(wrong.is_empty(), "{wrong:#?}");
    let compared: usize = LEAKS.iter().map(|it| agrees_with_go(&store.path().join(it.0))).sum();
    assert!(compared > 3 * LEAKS.len(), "only {compared} profiles were stored");
}

/// Every stored profile by itself, and every heap against the one before it. How many there were.
fn agrees_with_go(dir: &Path) -> usize {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.to_str().unwrap().ends_with(".pb.gz"));
    files.sort_by_key(|path| path.metadata().unwrap().modified().unwrap());
    files.iter().for_each(|file| flat_agrees(None, file));
    let heap = |path: &&PathBuf| {
        let profile = read(&std::fs::read(path).unwrap(), MAX_INFLATED).unwrap();
        profile.type_index("inuse_space").is_some()
    };
    let heaps: Vec<&PathBuf> = files.iter().filter(heap).collect();
    heaps.windows(2).for_each(|pair| flat_agrees(Some(pair[0]), pair[1]));
    files.len()
}
