//! The routes that concern profiles, and who may change anything.

use super::*;

fn request(method: &str, path: &str, more: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: localhost:7070\r\n{more}Content-Length: 0\r\nConnection: close\r\n\r\n")
}

const OURS: &str = "X-Oomwatch: 1\r\n";

async fn check(rig: &Rig, method: &str, path: &str, more: &str, expected: u16) -> Answer {
    let answer = rig.send(&request(method, path, more)).await;
    assert_eq!(answer.status, expected, "{method} {path} {more:?}");
    answer
}

#[tokio::test]
async fn what_is_kept_is_listed() {
    let rig = Rig::start().await;
    let list = rig.json("/api/profiles").await;
    let one = json!({"id": "0123456789abcdef", "type": "heap", "reason": "baseline", "taken_at": "1970-01-01T00:01:00.000Z", "bytes": 9});
    assert_eq!(list, json!([one]));
}

#[tokio::test]
async fn a_pull_is_begun_or_the_reason_is_said() {
    let rig = Rig::start().await;
    let answer = check(&rig, "POST", "/api/profiles", OURS, 202).await;
    assert_eq!(answer.body, br#"{"state":"begun"}"#);
    for expected in [409, 429, 429] {
        check(&rig, "POST", "/api/profiles", OURS, expected).await;
    }
}

#[tokio::test]
async fn a_profile_is_forgotten_once_it_is_known() {
    let rig = Rig::start().await;
    check(&rig, "DELETE", "/api/profiles/0123456789abcdef", OURS, 204).await;
    check(&rig, "DELETE", "/api/profiles/00112233445566ab", OURS, 404).await;
    check(&rig, "DELETE", "/api/profiles/../../../etc/passwd", OURS, 404).await;
}

#[tokio::test]
async fn nobody_else_may_change_anything() {
    let rig = Rig::start_with(Some("secret")).await;
    let token = "Authorization: Bearer secret\r\n";
    let one = "/api/profiles/0123456789abcdef";
    for (method, path) in [("POST", "/api/profiles"), ("DELETE", one)] {
        check(&rig, method, path, OURS, 401).await;
        check(&rig, method, path, token, 403).await;
        check(&rig, method, path, &format!("{token}X-Oomwatch: 0\r\n"), 403).await;
        for foreign in
            ["Origin: http://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site"]
        {
            check(&rig, method, path, &format!("{token}{OURS}{foreign}\r\n"), 403).await;
        }
        let ours = format!("{token}{OURS}Origin: http://localhost:7070\r\nSec-Fetch-Site: same-origin\r\n");
        let answer = rig.send(&request(method, path, &ours)).await;
        assert!((200..300).contains(&answer.status), "{method} {path}: {}", answer.status);
    }
    for (method, path) in [
        ("POST", one),
        ("DELETE", "/api/profiles"),
        ("PUT", "/api/profiles"),
        ("POST", "/api/status"),
        ("OPTIONS", one),
    ] {
        check(&rig, method, path, &format!("{token}{OURS}"), 405).await;
    }
    let with_body =
        format!("POST /api/profiles HTTP/1.1\r\nHost: localhost\r\n{token}{OURS}Content-Length: 2\r\n\r\n{{}}");
    assert_eq!(rig.send(&with_body).await.status, 413);
}
