//! The flame graph over HTTP: what it says, what is refused, and that one is read at a time.

use super::*;
use crate::pprof::testing::{encode, freed, goroutines, heap};

pub(super) const NOW: &str = "/api/profiles/f000000000000002/flame";
const UNKNOWN: &str = "00112233445566ab";

/// What the store has under an id: two heaps, goroutines, and under every other no profile at all.
pub(super) fn kept(id: &str) -> Bytes {
    let leak: &[&str] = &["github.com/DataDog/datadog-go/v5/statsd.newStatsdBuffer", "main.handleJob", "main.main"];
    let steady: &[&str] = &["main.cache</script>", "main.main"];
    match id {
        "f000000000000001" => encode(&heap(&[(leak, 4096), (steady, 65_536)])),
        "f000000000000002" => encode(&heap(&[(leak, 16_384), (steady, 65_536)])),
        "f000000000000004" => freed(&["main.freed", "main.main"], 4096),
        "f000000000000003" => encode(&goroutines(&[(leak, 3)])),
        _ => Bytes::from_static(PROFILE),
    }
}

#[tokio::test]
async fn a_profile_is_drawn_with_what_grew() {
    let rig = Rig::start().await;
    let drawn = rig.json(&format!("{NOW}?base=f000000000000001&value=inuse_space")).await;
    let types =
        [("alloc_objects", "count"), ("alloc_space", "bytes"), ("inuse_objects", "count"), ("inuse_space", "bytes")];
    let function = "github.com/DataDog/datadog-go/v5/statsd.newStatsdBuffer";
    let expected = json!({
        "value": "inuse_space",
        "unit": "bytes",
        "values": types.map(|(name, unit)| json!({"name": name, "unit": unit})),
        "compared": true,
        "cells": [
            {"parent": null, "name": "all", "value": 81_920, "grew": 12_288},
            {"parent": 0, "name": "main.main", "value": 81_920, "grew": 12_288},
            {"parent": 1, "name": "main.cache</script>", "value": 65_536, "grew": 0},
            {"parent": 1, "name": "main.handleJob", "value": 16_384, "grew": 12_288},
            {"parent": 3, "name": "statsd.newStatsdBuffer", "function": function, "value": 16_384, "grew": 12_288},
        ],
    });
    assert_eq!(drawn, expected);
    let ever = rig.json("/api/profiles/f000000000000004/flame?value=alloc_space").await;
    assert_eq!((&ever["cells"][0]["value"], &ever["cells"][2]["name"]), (&json!(4096), &json!("main.freed")));
    let alone = rig.json(&format!("{NOW}?value=inuse_objects")).await;
    assert_eq!((&alone["cells"][0]["value"], &alone["compared"]), (&json!(80), &json!(false)));
    assert_eq!(alone["cells"][0].get("grew"), None);
    let head = rig.send(&format!("HEAD {NOW} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")).await;
    assert_eq!((head.status, head.body.len(), head.header("content-type")), (200, 0, Some("application/json")));
}

async fn check(rig: &Rig, path: &str, status: u16, words: &str) {
    let answer = rig.get(path).await;
    let said = String::from_utf8_lossy(&answer.body).into_owned();
    assert_eq!(answer.status, status, "{path}: {said}");
    assert!(said.contains(words) && answer.header("x-content-type-options") == Some("nosniff"), "{path}: {said}");
}

#[tokio::test]
async fn what_cannot_be_drawn_is_refused_in_words() {
    let rig = Rig::start().await;
    for path in
        ["f00000000000000/flame", "F000000000000002/flame", "f000000000000002/flame/", "f000000000000002/flames"]
    {
        check(&rig, &format!("/api/profiles/{path}"), 404, "nothing here").await;
    }
    check(&rig, &format!("/api/profiles/{UNKNOWN}/flame"), 404, UNKNOWN).await;
    check(&rig, &format!("{NOW}?base={UNKNOWN}"), 404, UNKNOWN).await;
    for base in ["", "..%2f..", "F000000000000001", "f000000000000001%00"] {
        check(&rig, &format!("{NOW}?base={base}"), 400, "base: expected the id").await;
    }
    check(&rig, &format!("{NOW}?value=cpu"), 400, "value: expected one of alloc_objects, alloc_space, inuse_").await;
    check(&rig, &format!("{NOW}?base=f000000000000003"), 400, "base: it has no inuse_space, but goroutine").await;
    check(&rig, "/api/profiles/00112233445566aa/flame", 422, "cannot be drawn").await;
    check(&rig, &format!("{NOW}?base=00112233445566aa"), 422, "profile 00112233445566aa cannot be drawn").await;
    for (method, more, status) in [("POST", "", 405), ("DELETE", "", 403), ("DELETE", "X-Oomwatch: 1\r\n", 404)] {
        let request = format!("{method} {NOW} HTTP/1.1\r\nHost: localhost\r\n{more}Connection: close\r\n\r\n");
        assert_eq!(rig.send(&request).await.status, status, "{method}");
    }
    let foreign =
        format!("GET {NOW} HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\nConnection: close\r\n\r\n");
    assert_eq!(rig.send(&foreign).await.status, 403);
}

#[tokio::test]
async fn one_is_read_at_a_time_and_who_waits_too_long_is_told() {
    let rig = Rig::start().await;
    let place = rig.reading.take().await;
    // One that goes away while it waits leaves nothing behind.
    let mut gone = rig.open().await;
    let request = format!("GET {NOW} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    gone.write_all(request.as_bytes()).await.expect("write");
    let (refused, other) = tokio::join!(rig.get(NOW), rig.get("/api/status"));
    assert_eq!((refused.status, other.status), (503, 200));
    assert!(String::from_utf8_lossy(&refused.body).contains("another profile is being read"));
    drop((gone, place));
    let compared = format!("{NOW}?base=f000000000000001");
    let (one, another) = tokio::join!(rig.get(NOW), rig.get(&compared));
    assert_eq!((one.status, another.status), (200, 200));
    // After every answer, be it a refusal, the place is free.
    check(&rig, &format!("{NOW}?base={UNKNOWN}"), 404, UNKNOWN).await;
    check(&rig, &format!("{NOW}?value=cpu"), 400, "expected").await;
    drop(timeout(DEADLINE, rig.reading.take()).await.expect("nobody holds the place"));
}
