//! It listens before the app speaks, whatever is missing: no intake, no name service, no key file.

use std::time::Duration;

use tokio::time::Instant;

use super::KEY;
use super::support::{Sidecar, http_get};

/// `./dev/soak starts` asks for a hundred, and then the promise is held to the millisecond.
fn starts() -> (usize, bool) {
    let asked = std::env::var("OOMWATCH_STARTS").ok().and_then(|count| count.parse().ok());
    (asked.unwrap_or(20), asked.is_some())
}

/// How long until the sockets are bound, and until it says that it is ready.
fn start(settings: &str, env: &[(&str, &str)]) -> (Duration, Duration) {
    let began = Instant::now();
    let sidecar = Sidecar::start(settings, env);
    let bound = began.elapsed();
    assert_eq!(http_get(sidecar.health, "/readyz").0, 200);
    (bound, began.elapsed())
}

#[test]
fn it_is_bound_and_ready_at_once_whatever_is_missing() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let no_intake = format!("[datadog]\nurl = \"http://{nobody}\"\nhostname = \"pod-1\"\n");
    let no_name = "[datadog]\nurl = \"https://intake.invalid\"\nhostname = \"pod-1\"\n";
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("not-there-yet");
    let no_key = format!("{no_name}api_key_file = \"{}\"\n", file.display());
    let kinds: [(&str, &[(&str, &str)]); 4] =
        [("[datadog]\noutput = \"none\"\n", &[]), (&no_intake, &[KEY]), (no_name, &[KEY]), (&no_key, &[])];
    let (count, strict) = starts();
    let mut times: Vec<_> = (0..count).map(|n| start(kinds[n % kinds.len()].0, kinds[n % kinds.len()].1)).collect();
    times.sort_by_key(|(_, ready)| *ready);
    let slowest_bound = times.iter().map(|(bound, _)| *bound).max().unwrap();
    let (median, slowest) = (times[count / 2].1, times[count - 1].1);
    println!("{count} starts: bound after {slowest_bound:?} at most; ready after {median:?}, {slowest:?} at most");
    if strict {
        let milliseconds = Duration::from_millis;
        assert!(slowest_bound <= milliseconds(100) && slowest <= milliseconds(300), "{times:?}");
    } else {
        // Other tests run beside this one: half the starts keep the promise, and none is far from it.
        assert!(median <= Duration::from_millis(300), "{times:?}");
        assert!(slowest <= Duration::from_secs(5), "{times:?}");
    }
}
