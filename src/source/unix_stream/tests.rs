//! The source over real sockets.

use super::*;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream as Client;
use std::time::Duration;

struct Bench {
    path: std::path::PathBuf,
    batches: mpsc::Receiver<Batch>,
    open: watch::Receiver<u64>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    _dir: tempfile::TempDir,
}

fn start(max_frame: usize, queue: usize) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let source = UnixStreamSource::bind(&dir.path().join("s"), max_frame).unwrap();
    let (out, batches) = mpsc::channel(queue);
    let (path, open, stop) = (source.path().to_owned(), source.clients(), CancellationToken::new());
    let mut tasks = JoinSet::new();
    tasks.spawn(source.run(out, stop.clone()));
    Bench { path, batches, open, stop, tasks, _dir: dir }
}

fn frame(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_le_bytes(), bytes].concat()
}

/// What has come so far, added up.
#[derive(Debug, Default, PartialEq, Eq)]
struct Got {
    frames: Vec<Vec<u8>>,
    truncated: usize,
    refused: Refused,
}

impl Bench {
    fn connect(&self) -> Client {
        Client::connect(&self.path).unwrap()
    }

    /// Takes batches until `enough`, or panics after ten seconds.
    async fn until(&mut self, enough: impl Fn(&Got) -> bool) -> Got {
        let mut got = Got::default();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !enough(&got) {
            let batch = timeout_at(deadline, self.batches.recv()).await.expect("in time").expect("open");
            for (datagram, bytes) in batch.iter() {
                got.frames.push(bytes.to_vec());
                got.truncated += usize::from(datagram.truncated);
            }
            got.refused.frames_too_long += batch.refused.frames_too_long;
            got.refused.connections += batch.refused.connections;
        }
        got
    }

    async fn open_is(&mut self, wanted: u64) {
        let reached = self.open.wait_for(|open| *open == wanted);
        timeout_at(Instant::now() + Duration::from_secs(10), reached).await.expect("in time").expect("open");
    }
}

#[tokio::test]
async fn frames_of_several_clients_arrive_and_clients_are_counted() {
    let mut bench = start(8192, 64);
    let mut clients: Vec<_> = (0..3).map(|_| bench.connect()).collect();
    bench.open_is(3).await;
    for (n, client) in clients.iter_mut().enumerate() {
        client.write_all(&[frame(format!("a:{n}|c").as_bytes()), frame(b"b:1|g\nc:1|g")].concat()).unwrap();
    }
    let mut got = bench.until(|got| got.frames.len() == 6).await;
    got.frames.sort();
    assert_eq!(got.frames[..3], [b"a:0|c", b"a:1|c", b"a:2|c"]);
    drop(clients);
    bench.open_is(0).await;
}

#[tokio::test]
async fn a_frame_too_long_is_counted_and_its_connection_kept() {
    let mut bench = start(100, 64);
    let mut client = bench.connect();
    client.write_all(&[frame(&[b'x'; 50_000]), frame(b"after:1|c")].concat()).unwrap();
    let got = bench.until(|got| got.frames.len() == 1).await;
    assert_eq!((got.frames, got.refused.frames_too_long), (vec![b"after:1|c".to_vec()], 1));
}

#[tokio::test]
async fn a_client_that_goes_in_the_middle_of_a_frame_leaves_it_as_cut() {
    let mut bench = start(8192, 64);
    let mut client = bench.connect();
    client.write_all(&frame(b"whole:1|c\nhalf:1|c")[..20]).unwrap();
    drop(client);
    let got = bench.until(|got| got.truncated == 1).await;
    assert_eq!(got.frames, [b"whole:1|c\nhalf:1"]);
    bench.open_is(0).await;
}

#[tokio::test]
async fn connections_past_the_most_are_closed_and_counted_and_the_others_live() {
    let mut bench = start(8192, 64);
    let mut clients: Vec<_> = (0..MOST).map(|_| bench.connect()).collect();
    bench.open_is(MOST as u64).await;
    for _ in 0..5 {
        let mut refused = bench.connect();
        refused.set_nonblocking(true).unwrap();
        let closed = |stream: &mut Client| matches!(stream.read(&mut [0]), Ok(0));
        let deadline = Instant::now() + Duration::from_secs(10);
        while !closed(&mut refused) {
            assert!(Instant::now() < deadline, "it stays open");
            tokio::task::yield_now().await;
        }
    }
    clients[0].write_all(&frame(b"a:1|c")).unwrap();
    let got = bench.until(|got| got.refused.connections == 5 && got.frames.len() == 1).await;
    assert_eq!(got.frames, [b"a:1|c"]);
    clients.pop();
    bench.open_is(MOST as u64 - 1).await;
    let _place = bench.connect();
    bench.open_is(MOST as u64).await;
}

#[tokio::test]
async fn a_full_channel_makes_the_client_wait_and_loses_nothing() {
    let mut bench = start(8192, 1);
    let mut client = bench.connect();
    client.set_nonblocking(true).unwrap();
    let one = frame(&[b'x'; 1_000]);
    let (mut sent, mut full) = (0, 0);
    while full < 1_000 {
        match client.write(&one[sent % one.len()..]) {
            Ok(length) => (sent, full) = (sent + length, 0),
            Err(_) => full += 1,
        }
        tokio::task::yield_now().await;
    }
    assert!(sent > 10_000, "{sent}");
    let whole = sent / one.len();
    assert_eq!(bench.until(|got| got.frames.len() == whole).await.frames, vec![vec![b'x'; 1_000]; whole]);
}

#[tokio::test]
async fn after_the_stop_it_reads_until_it_is_quiet_also_from_new_clients() {
    let mut bench = start(8192, 64);
    let mut early = bench.connect();
    bench.open_is(1).await;
    bench.stop.cancel();
    let began = Instant::now();
    for n in 0..8 {
        early.write_all(&frame(format!("early:{n}|g").as_bytes())).unwrap();
        bench.connect().write_all(&frame(format!("late:{n}|g").as_bytes())).unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(bench.until(|got| got.frames.len() == 16).await.truncated, 0);
    bench.tasks.join_next().await.unwrap().unwrap();
    assert!(began.elapsed() >= Duration::from_millis(1200), "quiet for half a second after the last");
    assert!(bench.batches.recv().await.is_none());
    assert!(!bench.path.exists());
}

#[tokio::test]
async fn a_client_that_never_falls_silent_holds_it_for_five_seconds_at_most_and_its_cut_frame_counts() {
    let mut bench = start(8192, 64);
    let mut client = bench.connect();
    bench.open_is(1).await;
    bench.stop.cancel();
    let began = Instant::now();
    let (mut sent, mut received, mut truncated) = (0, 0, 0);
    // Half a frame more each time, so that there is always one unfinished.
    client.write_all(&frame(b"a:1|c\n")[..7]).unwrap();
    while bench.tasks.try_join_next().is_none() {
        let piece = [&b"|c\n"[..], &frame(b"a:1|c\n")[..7]].concat();
        sent += usize::from(client.write_all(&piece).is_ok());
        while let Ok(batch) = bench.batches.try_recv() {
            received += batch.datagrams.len();
            truncated += batch.datagrams.iter().filter(|datagram| datagram.truncated).count();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(began.elapsed() < Duration::from_secs(9));
    }
    while let Ok(batch) = bench.batches.try_recv() {
        received += batch.datagrams.len();
        truncated += batch.datagrams.iter().filter(|datagram| datagram.truncated).count();
    }
    assert!(began.elapsed() >= Duration::from_secs(5));
    assert_eq!(truncated, 1);
    assert!(sent > 100 && received > 100, "{sent} {received}");
}
