//! The puller against a server that follows a script: each fault has its reason, and the next good pull works.

use std::io::Write;
use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::*;

/// A profile with one sample type and a comment's worth of text, as far as the check looks.
fn message() -> Vec<u8> {
    let mut message = vec![0x0a, 0x04, 0x08, 0x01, 0x10, 0x02];
    message.extend([0x32, 0x05]);
    message.extend(b"inuse");
    message.extend([0x48, 0x96, 0x01]);
    message
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn answer(head: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// What the server does with one connection after it read the request.
enum Act {
    Send(Vec<u8>),
    /// Accepts, reads, says nothing until the other side leaves.
    Silence,
    /// A head, then a byte at a time for ever.
    Drip,
    /// Sends a head and this many bytes, in pieces.
    Flood(usize),
}

impl Act {
    async fn perform(self, stream: &mut TcpStream) {
        let mut rest = Vec::new();
        match self {
            Act::Send(bytes) => stream.write_all(&bytes).await.unwrap_or_default(),
            Act::Silence => drop(stream.read_to_end(&mut rest).await),
            Act::Drip => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                while stream.write_all(b"\x0a").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            Act::Flood(bytes) => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                for _ in 0..bytes / 65536 {
                    if stream.write_all(&[0x0a; 65536]).await.is_err() {
                        break;
                    }
                }
            }
        }
    }
}

/// Serves the acts, one connection each, and hands back the requests' heads.
struct Server {
    url: String,
    heads: mpsc::Receiver<String>,
    tasks: JoinSet<()>,
}

async fn serve(acts: Vec<Act>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/debug/pprof/", listener.local_addr().unwrap());
    let (heads_in, heads) = mpsc::channel(16);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        for act in acts {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            heads_in.send(String::from_utf8(head).unwrap()).await.unwrap();
            act.perform(&mut stream).await;
        }
    });
    Server { url, heads, tasks }
}

fn settings(url: &str) -> Settings {
    Settings { url: url.to_owned(), bearer: Some("s3cret\n".to_owned()), ..Settings::default() }
}

fn bounds() -> Bounds {
    Bounds { first_byte: Duration::from_millis(250), whole: Duration::from_millis(700), bytes: 1 << 20 }
}

fn start(url: &str, tasks: &mut JoinSet<()>) -> mpsc::Sender<PullRequest> {
    let (requests, mut queue) = mpsc::channel(1);
    let puller = Puller::new(&settings(url)).unwrap().within(bounds());
    tasks.spawn(async move { puller.run(&mut queue).await });
    requests
}

async fn ask(requests: &mpsc::Sender<PullRequest>, kind: ProfileKind) -> PullReply {
    let (reply, answer) = oneshot::channel();
    requests.send(PullRequest { kind, reply }).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), answer).await.unwrap().unwrap()
}

/// Pulls through the fault, then a good profile from the same puller.
async fn check(act: Act, reason: &str, words: &str) {
    let good = gzipped(&message());
    let mut server = serve(vec![act, Act::Send(answer("200 OK", &good))]).await;
    let requests = start(&server.url, &mut server.tasks);
    let reply = ask(&requests, ProfileKind::Heap).await;
    let failed = reply.outcome.unwrap_err();
    assert_eq!(failed.reason, reason, "{}", failed.words);
    assert!(failed.words.contains(words), "{}", failed.words);
    assert!(reply.took < Duration::from_secs(5), "{:?}", reply.took);
    match ask(&requests, ProfileKind::Heap).await.outcome.unwrap() {
        Pulled::Profile(bytes) => assert_eq!(bytes, good),
        Pulled::Index(_) | Pulled::Dump(_) => panic!("a profile was asked for"),
    }
}

#[tokio::test]
async fn each_kind_asks_for_its_path_with_the_token_and_no_more() {
    let page = b"<table>\n<tr><td>19</td><td><a href='goroutine?debug=1'>goroutine</a></td></tr>\
        <tr><td>2</td><td><a href='goroutineleak?debug=1'>goroutineleak</a></td></tr>";
    let page = Act::Send(answer("200 OK\r\nContent-Type: text/html", page));
    let dump = b"goroutine 1 [running]:\nmain.main()\n\t/app/main.go:9 +0x1d\n";
    let dump = Act::Send(answer("200 OK\r\nContent-Type: text/plain; charset=utf-8", dump));
    let profile = || Act::Send(answer("200 OK\r\nContent-Type: application/octet-stream", &gzipped(&message())));
    let mut server = serve(vec![profile(), profile(), profile(), profile(), page, dump]).await;
    let requests = start(&server.url, &mut server.tasks);
    let paths = [
        (ProfileKind::Heap, "/debug/pprof/heap"),
        (ProfileKind::HeapAfterGc, "/debug/pprof/heap?gc=1"),
        (ProfileKind::Goroutine, "/debug/pprof/goroutine"),
        (ProfileKind::GoroutineLeak, "/debug/pprof/goroutineleak"),
        (ProfileKind::Index, "/debug/pprof/"),
        (ProfileKind::GoroutineDump, "/debug/pprof/goroutine?debug=2"),
    ];
    for (kind, path) in paths {
        let reply = ask(&requests, kind).await;
        assert_eq!(reply.kind, kind);
        match reply.outcome.unwrap() {
            Pulled::Index(index) => assert_eq!(index, Index { goroutines: Some(19), leak_profile: true }),
            Pulled::Dump(text) => assert!(text.starts_with(b"goroutine 1")),
            Pulled::Profile(bytes) => assert_eq!(bytes, gzipped(&message())),
        }
        let head = server.heads.recv().await.unwrap();
        assert!(head.starts_with(&format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1:")), "{head}");
        assert!(head.contains("authorization: Bearer s3cret\r\n"), "{head}");
    }
}

#[tokio::test]
async fn silence_ends_at_the_first_bound() {
    check(Act::Silence, "timeout", "did not answer within 0.25 s").await;
    let server = serve(vec![Act::Silence]).await;
    let patient = Bounds { whole: Duration::from_secs(60), ..bounds() };
    let puller = Puller::new(&settings(&server.url)).unwrap().within(patient);
    let pull = tokio::time::timeout(Duration::from_secs(20), puller.pull(ProfileKind::Heap));
    assert_eq!(pull.await.expect("the first bound ends it").unwrap_err().reason, "timeout");
}

#[tokio::test]
async fn a_drip_ends_at_the_whole_bound() {
    check(Act::Drip, "timeout", "within 0.7 s").await;
}

#[tokio::test]
async fn a_missing_handler_is_told_with_the_import_to_add() {
    check(
        Act::Send(answer("404 Not Found", b"404 page not found")),
        "status",
        "404 at /debug/pprof/heap: import net/http/pprof",
    )
    .await;
}

#[tokio::test]
async fn a_wanted_token_is_told_with_the_setting() {
    check(Act::Send(answer("401 Unauthorized", b"")), "status", "set profile.bearer_file").await;
}

#[tokio::test]
async fn a_page_is_not_a_profile() {
    let page = b"<html><body>hello</body></html>";
    check(
        Act::Send(answer("200 OK\r\nContent-Type: text/html", page)),
        "not_a_profile",
        "answers text/html that is no profile",
    )
    .await;
    check(Act::Send(answer("200 OK", b"heap profile: 1: 2 [3: 4]")), "not_a_profile", "answers something").await;
    check(Act::Send(answer("200 OK", &gzipped(b"<html>"))), "not_a_profile", "no profile").await;
}

#[tokio::test]
async fn half_a_profile_is_truncated_however_its_length_is_told() {
    let good = gzipped(&message().repeat(1000));
    let half = &good[..good.len() / 2];
    let mut cut = answer("200 OK", &good);
    cut.truncate(cut.len() - good.len() / 2);
    check(Act::Send(cut), "truncated", "in the middle").await;
    check(Act::Send(answer("200 OK", half)), "truncated", "in the middle").await;
    check(Act::Send([b"HTTP/1.1 200 OK\r\n\r\n", half].concat()), "truncated", "in the middle").await;
    check(Act::Send(answer("200 OK", b"")), "truncated", "in the middle").await;
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = elsewhere.local_addr().unwrap();
    check(
        Act::Send(answer(&format!("302 Found\r\nLocation: http://{place}/heap"), b"")),
        "redirect",
        &format!("leads to http://{place}/heap"),
    )
    .await;
    assert!(tokio::time::timeout(Duration::from_millis(50), elsewhere.accept()).await.is_err(), "somebody came");
}

#[tokio::test]
async fn a_body_without_end_is_cut_at_the_bound() {
    check(Act::Flood(64 << 20), "too_large", "more than 1048576 bytes").await;
}

#[tokio::test]
async fn a_bomb_ends_while_it_comes() {
    let member = gzipped(&vec![0; 16 << 20]);
    // Each kilobyte of it is a megabyte: the bound on the wire would let through far more.
    let bomb = member.repeat(5);
    assert!(bomb.len() < bounds().bytes);
    check(Act::Send(answer("200 OK", &bomb)), "too_large", "inflates to more than 64 MiB").await;
}

#[tokio::test]
async fn what_is_no_http_at_all_is_unreachable() {
    check(Act::Send(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()), "unreachable", "127.0.0.1:").await;
    check(Act::Send(Vec::new()), "unreachable", "127.0.0.1:").await;
}

#[tokio::test]
async fn a_closed_port_is_unreachable_and_says_what_to_look_at() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    let requests = start(&format!("http://127.0.0.1:{port}/debug/pprof"), &mut tasks);
    let failed = ask(&requests, ProfileKind::Heap).await.outcome.unwrap_err();
    assert_eq!(failed.reason, "unreachable");
    assert!(failed.words.contains("does it serve net/http/pprof there"), "{}", failed.words);
    drop(requests);
    tasks.join_next().await.unwrap().unwrap();
}

#[test]
fn addresses_off_the_loopback_are_refused_unless_allowed_and_some_always() {
    let new = |url: &str, allow: &[&str]| {
        let allow_hosts = allow.iter().map(|&host| host.to_owned()).collect();
        Puller::new(&Settings { url: url.to_owned(), allow_hosts, bearer: None })
    };
    for url in [
        "http://127.0.0.1:6060/debug/pprof",
        "http://127.9.9.9",
        "http://[::1]:6060/debug/pprof/",
        "http://localhost:6060/x",
        "http://LOCALHOST",
    ] {
        assert!(new(url, &[]).is_ok(), "{url}");
    }
    assert!(new("http://app:6060/debug/pprof", &["App"]).is_ok());
    let refused = [
        ("http://10.0.0.1:6060", &[][..], "not on the loopback"),
        ("http://app:6060", &["api"], "not on the loopback"),
        ("http://169.254.169.254/latest", &["169.254.169.254"], "never asked"),
        ("http://[::ffff:169.254.169.254]/", &["::ffff:169.254.169.254"], "never asked"),
        ("http://[fe80::1]/", &["fe80::1"], "never asked"),
        ("http://[fd00:ec2::254]/", &["fd00:ec2::254"], "never asked"),
        ("http://0.0.0.0:6060", &["0.0.0.0"], "never asked"),
        ("https://127.0.0.1:6060", &[], "only http"),
        ("http://user:word@127.0.0.1:6060", &[], "without user"),
        ("http://127.0.0.1:6060/debug/pprof?x=1", &[], "without user and query"),
        ("127.0.0.1:6060", &[], "only http"),
        ("", &[], "expected an address"),
    ];
    for (url, allow, words) in refused {
        let error = new(url, allow).unwrap_err();
        assert!(error.contains(words), "{url}: {error}");
    }
}

#[test]
fn the_token_stays_out_of_debug_output() {
    let settings = settings("http://127.0.0.1:6060/debug/pprof");
    let shown = format!("{settings:?} {:?}", Puller::new(&settings).unwrap());
    assert!(!shown.contains("s3cret"), "{shown}");
    assert_eq!(Puller::new(&settings).unwrap().local_port(), Some(6060));
}

#[test]
fn the_goroutine_count_is_read_from_any_layout_of_the_index_or_not_at_all() {
    let cases = [
        ("<tr><td>19</td><td><a href='goroutine?debug=1'>goroutine</a></td></tr>", Some(19)),
        ("<td>7</td><td><a href=\"/debug/pprof/goroutine?debug=1\">goroutine</a>", Some(7)),
        ("<tr><td align=right>40001<td>\n <a href=goroutine?debug=1>goroutine</a>", Some(40001)),
        ("<td>3</td><td><a href='goroutineleak?debug=1'>l</a></td><td>9</td><td><a href='goroutine?debug=1'>", Some(9)),
        (
            "<td>5</td><td><a href='block?debug=1'>block</a></td></tr><tr><td></td><td><a href='goroutine?debug=1'>",
            None,
        ),
        ("<a href=\"goroutine?debug=2\">full goroutine stack dump</a>", None),
        ("goroutine?debug=1", None),
        ("99999999999999999999999</td><td><a href='goroutine?debug=1'>", None),
        ("", None),
    ];
    for (html, expected) in cases {
        assert_eq!(goroutines(html.as_bytes()), expected, "{html}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_judged_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), zipped in any::<bool>()) {
        let body = if zipped { gzipped(&bytes) } else { bytes };
        let _ = (check_body(&body), goroutines(&body));
    }

    #[test]
    fn every_proper_part_of_a_profile_is_truncated(repeat in 1usize..200, cut in 0.0f64..1.0) {
        let good = gzipped(&message().repeat(repeat));
        prop_assert_eq!(check_body(&good), Ok(()));
        let part = &good[..(good.len() as f64 * cut) as usize];
        prop_assert!(part.len() < 2 || check_body(part) == Err(Fault::Truncated));
    }
}

/// As it would be kept, whatever the pieces it comes in.
fn check_body(bytes: &[u8]) -> Result<(), Fault> {
    let mut body = Body::default();
    for piece in bytes.chunks(7) {
        body = body.add(piece).unwrap();
    }
    let (kept, came_plain) = body.finish().unwrap();
    super::check(&kept, came_plain)
}

/// Were it to go on, the next request would wait for an answer that nobody wants, and the drain would too.
#[tokio::test]
async fn a_pull_whose_asker_is_gone_is_dropped_at_once() {
    let whole = answer("200 OK", &gzipped(&message()));
    let mut server = serve(vec![Act::Silence, Act::Send(whole)]).await;
    let long = Duration::from_secs(600);
    let patient = Bounds { whole: long, first_byte: long, ..bounds() };
    let puller = Puller::new(&settings(&server.url)).unwrap().within(patient);
    let (requests, mut queue) = mpsc::channel(1);
    server.tasks.spawn(async move { puller.run(&mut queue).await });
    let (reply, gone) = oneshot::channel();
    requests.send(PullRequest { kind: ProfileKind::Heap, reply }).await.unwrap();
    server.heads.recv().await.expect("the pull is under way");
    drop(gone);
    let next = tokio::time::timeout(Duration::from_secs(20), ask(&requests, ProfileKind::Heap)).await;
    assert!(next.expect("it does not wait for the first").outcome.is_ok());
}
