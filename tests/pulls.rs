//! A pprof endpoint that means harm, under the bounds as they are in a pod: nothing is waited for, kept or followed that should
//! not be, each fault is told in words that say what to do, and the next good pull works. And the stored profiles, asked for by
//! every name but their own.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use oomwatch::pipeline::{ProfileKind, PullFailed};
use oomwatch::pprof::read::{MAX_INFLATED, read};
use oomwatch::pprof::{Input, Look, Looks, name};
use support::endpoint::{Act, Endpoint, answer, ask, gzipped, message, pull_now, told, watching};
use support::{OOMWATCH, Sidecar, wait_for};
use tokio::time::Instant;

const MIB: u64 = 1 << 20;

fn profile() -> Vec<u8> {
    gzipped(&message(["inuse_space", "bytes"], &[(&[1, 2, 3], 100), (&[2, 3], 7)]))
}

/// Pulls once and gives the fault with the time it took.
async fn fails(act: Act) -> (PullFailed, Duration, usize) {
    let endpoint = Endpoint::start(act);
    let began = Instant::now();
    let failed = endpoint.puller().pull(ProfileKind::Heap).await.unwrap_err();
    (failed, began.elapsed(), endpoint.sent.load(Ordering::Relaxed))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_and_bytes_have_their_bounds() {
    let (silent, drip, flood, bomb) =
        tokio::join!(fails(Act::Silence), fails(Act::Drip), fails(Act::Flood(1 << 30)), fails(Act::Bomb(10 << 30)));
    let seconds = Duration::from_secs;
    // The lower ends are exact; the upper ones leave room for a machine that is busy.
    assert_eq!(silent.0.reason, "timeout");
    assert!((seconds(5)..seconds(10)).contains(&silent.1), "silent: {:?}", silent.1);
    assert_eq!(drip.0.reason, "timeout");
    assert!((seconds(15)..seconds(22)).contains(&drip.1), "drip: {:?}", drip.1);
    assert_eq!((flood.0.reason, bomb.0.reason), ("too_large", "too_large"));
    assert!(flood.0.words.contains("16777216 bytes"), "{}", flood.0.words);
    assert!(bomb.0.words.contains("inflates to more than 64 MiB"), "{}", bomb.0.words);
    // Beyond the bound lies only what the kernel's socket buffers hold.
    assert!((16 << 20..32 << 20).contains(&flood.2), "{} bytes of the flood left", flood.2);
    assert!(bomb.2 < 8 << 20, "{} bytes of the bomb left", bomb.2);
}

#[test]
fn every_fault_is_told_and_the_next_good_pull_works() {
    let (elsewhere, dir) = (TcpListener::bind("127.0.0.1:0").unwrap(), tempfile::tempdir().unwrap());
    elsewhere.set_nonblocking(true).unwrap();
    let place = elsewhere.local_addr().unwrap();
    let endpoint = Endpoint::start(Act::Answer(answer("200 OK", &profile())));
    let sidecar = Sidecar::start(&watching(&endpoint, dir.path()), &[]);
    let names = || {
        let entries = std::fs::read_dir(dir.path()).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "oomwatch.profiles")
    };
    let stored = || names().filter(|name| name.ends_with(".pb.gz")).count();
    wait_for(Duration::from_secs(20), "the first profile", || (stored() == 1).then_some(()));
    let base = sidecar.rss_bytes();
    endpoint.now(Act::Bomb(10 << 30));
    pull_now(&sidecar);
    let mut most = 0;
    wait_for(Duration::from_secs(40), "the bomb to be given up", || {
        most = most.max(sidecar.rss_bytes());
        sidecar.api("/api/status").to_string().contains("inflates to more than 64 MiB").then_some(())
    });
    println!("a bomb of 10 GiB: {} KiB more than {} KiB resident", most.saturating_sub(base) >> 10, base >> 10);
    assert!(most <= base + 8 * MIB, "{most} bytes resident, {base} before");
    let page = b"<html><body>hello</body></html>";
    let away = format!("307 Away\r\nLocation: http://{place}/debug/pprof/heap");
    let faults: [(Vec<u8>, &str); 8] = [
        (answer(&away, b""), "redirects are not followed"),
        (answer("200 OK\r\nContent-Type: text/html", page), "answers text/html that is no profile"),
        (
            answer("200 OK\r\nContent-Type: application/json", b"{\"a\":1}"),
            "answers application/json that is no profile",
        ),
        (answer("200 OK", b""), "ends in the middle"),
        (answer("404 Not Found", b""), "404 at /debug/pprof/heap: import net/http/pprof"),
        (answer("401 Unauthorized", b""), "set profile.bearer_file"),
        (answer("200 OK", &profile()[..40]), "ends in the middle"),
        (answer("200 OK", &gzipped(&[0x0a; 300])), "read heap profile"),
    ];
    for (bytes, words) in faults {
        endpoint.now(Act::Answer(bytes));
        pull_now(&sidecar);
        told(&sidecar, words);
    }
    endpoint.now(Act::Answer(answer("200 OK", &profile())));
    let before = stored();
    pull_now(&sidecar);
    wait_for(Duration::from_secs(20), "the next good pull", || (stored() > before).then_some(()));
    assert!(elsewhere.accept().is_err(), "somebody followed the redirect");
    assert_eq!(endpoint.at_once.load(Ordering::SeqCst), 1, "one pull at a time");
    wait_for(Duration::from_secs(10), "the account of pulls to be even", || {
        (sidecar.api("/api/status")["identities"]["I6"] == 0).then_some(())
    });
    wait_for(Duration::from_secs(10), "partial files to be gone", || {
        names().all(|name| name.ends_with(".pb.gz")).then_some(())
    });
    let listed = sidecar.api("/api/profiles");
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["reason"]), (stored(), &"by_hand".into()));
}

/// Names that lead elsewhere, in every spelling that some server or file system once took for another.
fn traversals(id: &str) -> Vec<Vec<u8>> {
    let dots =
        ["..", "%2e%2e", "%2E%2E", ".%2e", "%252e%252e", "....", "..;", "%c0%ae%c0%ae", "..%00", "\\..", "..%5c"];
    let slashes = ["/", "%2f", "%2F", "%252f", "\\", "%5c", "//", "/./", "%c0%af", "%ef%bc%8f"];
    let ends = ["etc/passwd", "secret", "proc/self/environ", "%00", "secret.heap.pb.gz"];
    let mut forms = Vec::new();
    for dot in dots {
        for slash in slashes {
            for end in ends {
                for depth in [1, 6] {
                    forms.push(format!("{}{end}", format!("{dot}{slash}").repeat(depth)).into_bytes());
                }
            }
        }
    }
    for end in ["", "/", "%00", ".heap.pb.gz", "/..", "%2f", " ", ";", "?x", "#", "%0a", "\0"] {
        forms.push(format!("{}{end}", id.to_uppercase()).into_bytes());
        forms.push(format!("/{id}{end}").into_bytes());
        forms.push(format!("{}{end}", &id[..15]).into_bytes());
        forms.push([id.as_bytes(), b"0", end.as_bytes()].concat());
    }
    forms
}

/// What is none never comes to an answer of ours: with a blank or a control character in it, it is no request line.
fn is_target(form: &[u8]) -> bool {
    form.iter().all(|byte| byte.is_ascii_graphic())
}

#[test]
fn a_profile_is_had_by_its_id_and_by_no_other_name() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let secret = outside.path().join("secret");
    std::fs::write(&secret, b"the secret").unwrap();
    // Somebody put a link under a name of ours.
    let planted = "00000000000000aa";
    std::os::unix::fs::symlink(&secret, dir.path().join(format!("{planted}.heap.pb.gz"))).unwrap();
    let endpoint = Endpoint::start(Act::Answer(answer("200 OK", &profile())));
    let sidecar = Sidecar::start(&watching(&endpoint, dir.path()), &[]);
    let id = wait_for(Duration::from_secs(20), "the first profile", || {
        Some(sidecar.api("/api/profiles").as_array()?.first()?["id"].as_str()?.to_owned())
    });
    assert_eq!(ask(sidecar.page, "GET", format!("/api/profiles/{id}").as_bytes(), ""), (200, profile()));
    assert_eq!(ask(sidecar.page, "GET", format!("/api/profiles/{planted}").as_bytes(), "").0, 404);
    let forms = traversals(&id);
    assert!(forms.len() > 1_000, "{} forms", forms.len());
    for form in &forms {
        for method in ["GET", "DELETE"] {
            let (status, body) =
                ask(sidecar.page, method, &[b"/api/profiles/", &form[..]].concat(), "X-Oomwatch: 1\r\n");
            let shown = String::from_utf8_lossy(form);
            let expected = if is_target(form) { 404 } else { 400 };
            assert_eq!(status, expected, "{method} {shown}");
            assert!(!body.windows(10).any(|it| it == b"the secret") && !body.starts_with(b"\x1f\x8b"), "{shown}");
        }
    }
    // The file of a listed profile becomes a link: it is opened without following.
    let file = dir.path().join(format!("{id}.heap.pb.gz"));
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink(&secret, &file).unwrap();
    assert_eq!(ask(sidecar.page, "GET", format!("/api/profiles/{id}").as_bytes(), "").0, 404);
    let forget = format!("/api/profiles/{id}");
    assert_eq!(ask(sidecar.page, "DELETE", forget.as_bytes(), "").0, 403, "without the header");
    assert_eq!(ask(sidecar.page, "DELETE", forget.as_bytes(), "X-Oomwatch: 1\r\n").0, 204);
    assert_eq!(std::fs::read(&secret).unwrap(), b"the secret", "the link went, not what it leads to");
}

/// The count of the long form (`dev/soak profiles`), or a tenth of it; in a debug build a hundredth.
fn mutations() -> u64 {
    let short = if cfg!(debug_assertions) { 10_000 } else { 100_000 };
    std::env::var("OOMWATCH_HOSTILE_PROFILES").map_or(short, |text| text.parse().unwrap())
}

/// Changes, flips, puts in, cuts off or repeats a few bytes.
fn mutate(bytes: &mut Vec<u8>, mut random: impl FnMut(usize) -> usize) {
    for _ in 0..=random(4) {
        let at = random(bytes.len());
        match random(8) {
            0 | 1 => bytes[at] = u8::try_from(random(256)).unwrap(),
            2 | 3 => bytes[at] ^= 1 << random(8),
            4 => bytes.insert(at, 0xff),
            5 if random(4) == 0 => bytes.truncate(at.max(1)),
            _ => {
                let end = (at + random(40)).min(bytes.len());
                bytes.extend_from_within(at..end);
            }
        }
    }
}

#[test]
fn mutated_profiles_are_read_or_refused_and_named_without_a_panic() {
    let mut state = 0x5eed_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let seeds = [
        message(["inuse_space", "bytes"], &[(&[1, 2, 3], 100), (&[2, 3], 7)]),
        message(["goroutine", "count"], &[(&[1, 2, 3], 100), (&[3], 120)]),
    ];
    let base = read(&seeds[0], MAX_INFLATED).unwrap();
    let earlier = Look::of(Duration::ZERO, 1, &base, Some(&base));
    let (mut read_anyway, mut bytes, all) = (0_u64, Vec::new(), mutations());
    for n in 0..all {
        bytes.clone_from(&seeds[random(seeds.len())]);
        mutate(&mut bytes, &mut random);
        if n % 64 == 0 {
            bytes = gzipped(&bytes);
        }
        let Ok(now) = read(&bytes, MAX_INFLATED) else { continue };
        read_anyway += 1;
        let goroutines = Some((Some(&base), &now));
        let look = Look::of(Duration::from_secs(1), 1, &now, Some(&now));
        let looks = Looks { now: Some(&look), earlier: std::slice::from_ref(&earlier) };
        let of_heaps = Input::of_heaps(Some(&base), &now, 1.0);
        let input = Input { goroutines, leaked: Some(&now), rss_growth_bytes: Some(1), looks, ..of_heaps };
        let naming = name(&input);
        assert!(naming.culprits.len() <= 10 && naming.sentence.len() < 8_000);
    }
    println!("{all} mutated profiles, {read_anyway} read all the same");
    assert!(read_anyway > all / 50, "only {read_anyway} were read: the mutations are too rough to test naming");
}

/// `oomwatch profile pull` with these arguments, in a folder of its own.
fn by_hand(dir: &Path, arguments: &[&str]) -> (Option<i32>, Vec<u8>, String) {
    let mut command = Command::new(OOMWATCH);
    let output = command.args(["profile", "pull"]).args(arguments).current_dir(dir).env_clear().output().unwrap();
    (output.status.code(), output.stdout, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_profile_is_pulled_by_hand_into_a_file_that_is_not_lost() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::start(Act::Answer(answer("200 OK", &profile())));
    let url = endpoint.url();
    let (code, out, errors) = by_hand(dir.path(), &["--url", &url, "heap"]);
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(std::fs::read(dir.path().join("heap.pb.gz")).unwrap(), profile());
    assert!(String::from_utf8_lossy(&out).contains("bytes in heap.pb.gz"));
    let (code, _, errors) = by_hand(dir.path(), &["--url", &url]);
    assert!(code == Some(2) && errors.contains("heap.pb.gz is there already"), "{errors}");
    let (code, out, _) = by_hand(dir.path(), &["--url", &url, "goroutine", "-o", "-"]);
    assert_eq!((code, out), (Some(0), profile()));
    endpoint.now(Act::Answer(answer("404 Not Found", b"")));
    let (code, _, errors) = by_hand(dir.path(), &["--url", &url, "-o", "x"]);
    assert!(code == Some(2) && errors.contains("import net/http/pprof"), "{errors}");
    assert!(!dir.path().join("x").exists());
    let (code, _, errors) = by_hand(dir.path(), &["--url", "http://169.254.169.254/latest"]);
    assert!(code == Some(2) && errors.contains("never asked"), "{errors}");
}

const TOKEN: &str = "t0ken-of-the-port";

#[test]
fn the_token_of_a_file_opens_the_port_and_goes_nowhere_else() {
    let (elsewhere, dir, keys) =
        (TcpListener::bind("127.0.0.1:0").unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    elsewhere.set_nonblocking(true).unwrap();
    let file = keys.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let endpoint = Endpoint::start(Act::Guarded(TOKEN, answer("200 OK", &profile())));
    let settings = format!("{}bearer_file = \"{}\"\n", watching(&endpoint, dir.path()), file.display());
    let sidecar = Sidecar::start(&settings, &[]);
    let stored = || std::fs::read_dir(dir.path()).unwrap().count();
    wait_for(Duration::from_secs(20), "the first profile", || (stored() == 1).then_some(()));
    pull_now(&sidecar);
    wait_for(Duration::from_secs(20), "a round", || (stored() >= 3).then_some(()));
    let away = format!("307 Away\r\nLocation: http://{}/debug/pprof/heap", elsewhere.local_addr().unwrap());
    endpoint.now(Act::Answer(answer(&away, b"")));
    pull_now(&sidecar);
    told(&sidecar, "redirects are not followed");
    assert!(elsewhere.accept().is_err(), "somebody took the token elsewhere");
    let shown = [sidecar.log(), sidecar.summary.clone(), sidecar.metrics(), sidecar.api("/api/status").to_string()];
    assert!(shown.iter().all(|text| !text.contains(TOKEN)), "{shown:?}");
    // By hand: to the address of the settings, and to no other that is named.
    endpoint.now(Act::Guarded(TOKEN, answer("200 OK", &profile())));
    let settings = sidecar.file.to_str().unwrap();
    let (code, out, errors) = by_hand(dir.path(), &["--config", settings, "heap", "-o", "-"]);
    assert_eq!((code, out), (Some(0), profile()), "{errors}");
    let (code, _, errors) = by_hand(dir.path(), &["--config", settings, "--url", &endpoint.url(), "heap", "-o", "-"]);
    assert!(code == Some(2) && errors.contains("set profile.bearer_file") && !errors.contains(TOKEN), "{errors}");
}

#[test]
fn the_endpoint_sees_two_at_once_however_long_they_last() {
    let endpoint = Endpoint::start(Act::Silence);
    let _pulls = [1, 2].map(|_| {
        let mut stream = TcpStream::connect(endpoint.address).unwrap();
        stream.write_all(b"GET /debug/pprof/heap HTTP/1.1\r\n\r\n").unwrap();
        std::thread::sleep(Duration::from_millis(200));
        stream
    });
    wait_for(Duration::from_secs(20), "both to be seen", || {
        (endpoint.at_once.load(Ordering::SeqCst) == 2).then_some(())
    });
}
