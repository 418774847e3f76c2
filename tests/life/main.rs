//! The life of the process: how soon it listens, what a reload changes and does not lose, what a slow intake costs, and how it
//! ends.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod drain;
mod reload;
mod slow;
mod starts;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::Instant;

use support::intake::FakeIntake;
use support::sender;

const KEY: (&str, &str) = ("DD_API_KEY", "0123456789abcdef0123456789abcdef");

fn settings(intake: &FakeIntake) -> String {
    format!(
        "[datadog]\nurl = \"{}\"\nhostname = \"pod-1\"\n[aggregate]\ninterval = \"1s\"\n[watch]\npid = {}\n",
        intake.url(),
        std::process::id()
    )
}

/// An app that sends 5,000 samples a second, ten lines a datagram, until it is told to stop.
struct App {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Said>,
}

/// What it sent of the counter `load`, when it was done, and its longest pause: a sender that is not scheduled looks like one
/// that has fallen quiet.
struct Said {
    load: u64,
    ended: Instant,
    pause: Duration,
}

impl App {
    fn start(to: SocketAddr) -> App {
        let stop = Arc::new(AtomicBool::new(false));
        let until = stop.clone();
        App { stop, thread: std::thread::spawn(move || talk(to, &until)) }
    }

    fn stop(self) -> Said {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn talk(to: SocketAddr, until: &AtomicBool) -> Said {
    let socket = sender(to);
    let datagram = format!("{}noise:1|c", "load:1|c\n".repeat(9));
    let (began, mut sent, mut last, mut pause) = (Instant::now(), 0_u64, Instant::now(), Duration::ZERO);
    while !until.load(Ordering::Relaxed) {
        // Refused once the sidecar is gone: that is what some tests look for.
        if socket.send(datagram.as_bytes()).is_ok() {
            sent += 1;
        }
        let due = Duration::from_millis(2 * sent);
        if let Some(early) = due.checked_sub(began.elapsed()) {
            std::thread::sleep(early);
        }
        (pause, last) = (pause.max(last.elapsed()), Instant::now());
    }
    Said { load: sent * 9, ended: Instant::now(), pause }
}
