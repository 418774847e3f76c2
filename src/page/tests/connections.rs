//! Clients that hold connections without using them.

use super::*;

#[tokio::test]
async fn headers_beyond_their_size_are_refused() {
    let rig = Rig::start().await;
    let request = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    assert_eq!(rig.send(&request).await.status, 431);
}

#[tokio::test]
async fn a_client_that_never_ends_its_headers_is_closed_in_time() {
    let rig = Rig::start().await;
    let begun = Instant::now();
    let mut stream = rig.open().await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: loc").await.expect("write");
    // Kept alive after an answer, and silent since.
    let mut idle = rig.open().await;
    idle.write_all(b"GET /api/nothing HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("write");
    let mut rest = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut rest)).await.expect("closed in time").ok();
    timeout(DEADLINE, idle.read_to_end(&mut rest)).await.expect("closed in time").ok();
    let took = begun.elapsed();
    assert!(
        took >= HEADER_TIME - Duration::from_millis(100) && took < HEADER_TIME + Duration::from_secs(2),
        "{took:?}"
    );
}

#[tokio::test]
async fn silent_clients_give_up_their_place_and_the_oldest_goes_first() {
    let rig = Rig::start().await;
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS {
        silent.push(rig.open().await);
    }
    let begun = Instant::now();
    assert_eq!(rig.json("/api/status").await["version"], "1.2.3");
    assert!(begun.elapsed() < HEADER_TIME / 2, "answered only after the silent ones timed out");
    let mut rest = Vec::new();
    timeout(HEADER_TIME / 2, silent[0].read_to_end(&mut rest)).await.expect("the oldest is closed").ok();
    let youngest = timeout(Duration::from_millis(50), silent[CONNECTIONS - 1].read_to_end(&mut rest)).await;
    assert!(youngest.is_err(), "the youngest is closed as well");
}

#[tokio::test]
async fn when_every_place_is_answering_one_more_is_closed_at_once() {
    let rig = Rig::start().await;
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = rig.open().await;
        stream.write_all(b"GET /api/stream HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("write");
        read_until(&mut stream, "event: reading").await;
        streams.push(stream);
    }
    let mut extra = rig.open().await;
    let mut rest = Vec::new();
    timeout(HEADER_TIME / 2, extra.read_to_end(&mut rest)).await.expect("closed at once").ok();
    assert_eq!(rest, b"");
}
