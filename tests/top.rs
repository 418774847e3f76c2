//! `oomwatch top` against the real sidecar's page: with and without a token, and when nobody is there.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::SocketAddr;
use std::process::{Command, Output};
use std::time::Duration;

use support::{OOMWATCH, Sidecar, sender, wait_for};

fn top(page: SocketAddr, env: &[(&str, &str)], args: &[&str]) -> Output {
    let mut command = Command::new(OOMWATCH);
    command.arg("top").args(args).env_clear().env("OOMWATCH_PAGE__LISTEN", page.to_string()).envs(env.iter().copied());
    command.current_dir(std::env::temp_dir()).output().unwrap()
}

fn said(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned())
}

#[test]
fn the_busiest_names_are_shown_once_or_as_json() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "s3cret-token\n").unwrap();
    let env = [("OOMWATCH_PAGE__TOKEN_FILE", token.to_str().unwrap())];
    let sidecar = Sidecar::start("[aggregate]\ninterval = \"1s\"\n", &env);
    sender(sidecar.statsd[0]).send(b"top.busy:1:2:3|c\ntop.many:1|g|#a\ntop.many:1|g|#b\nbad").unwrap();
    let table = wait_for(Duration::from_secs(10), "the names on the page", || {
        let (code, table) = said(&top(sidecar.page, &env, &["--once"]));
        assert_eq!(code, Some(0), "{table}");
        table.contains("top.busy").then_some(table)
    });
    for words in ["1 datagrams, 5 samples", "parse_type 1", "           3          1  top.busy", "  2  top.many"] {
        assert!(table.contains(words), "{words:?} is missing in {table}");
    }
    let (code, json) = said(&top(sidecar.page, &env, &["--json", "-n", "1"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &json["names"].as_array().unwrap().len()), (Some(0), &1));
    assert_eq!((&json["names"][0]["name"], &json["most_contexts"][0]["contexts"]), (&"top.busy".into(), &2.into()));

    let (code, words) = said(&top(sidecar.page, &[], &["--once"]));
    assert!(code == Some(1) && words.contains("page.token_file"), "{words}");
}

#[test]
fn nobody_there_is_said() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (code, words) = said(&top(free, &[], &[]));
    assert!(code == Some(1) && words.contains("is the sidecar running?"), "{words}");
    let (code, words) = said(&top("127.0.0.1:0".parse().unwrap(), &[], &["--json"]));
    assert!(code == Some(1) && words.contains("OOMWATCH_PAGE__LISTEN"), "{words}");
}
