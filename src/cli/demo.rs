//! `oomwatch demo`: a real leak, named in under a minute, with no account and no cluster.
//!
//! It builds the leaking worker of `demo/worker`, starts a loopback intake in this process, the sidecar as a child, then the
//! worker as another, and prints the story as the page's API and the intake tell it. Nothing is recorded or staged; only
//! times are shorter than in a pod. There is no real memory limit around the worker, so the demo sets `watch.limit` and, when
//! the worker gets there, does what the kernel would do.

mod intake;
mod sidecar;
mod stage;
mod story;
mod worker;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use self::stage::Stage;
use self::story::Story;

/// A leak that is not named in this time, counted from the worker's start, has failed the demo.
const NAMED_WITHIN: Duration = Duration::from_secs(60);

/// How long the repaired worker must go without an incident.
const QUIET_FOR: Duration = Duration::from_secs(120);

/// Show a real leak being named: a Go worker that opens a `StatsD` client per job, this sidecar beside it, no account needed.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Demo {
    /// Run the repaired worker: one client, nothing leaks, nothing should be raised
    #[arg(long)]
    fixed: bool,
    /// End with 0 once the leak is named and its event has arrived, with 1 after 60 s; with --fixed: with 0 after 120 s without an incident
    #[arg(long)]
    exit_when_named: bool,
    /// Where to serve the page [default: 127.0.0.1:7070, or a free port where that is taken]
    #[arg(long, value_name = "ADDR")]
    page: Option<SocketAddr>,
}

/// Why the demo is over.
#[derive(Clone, Debug, PartialEq)]
enum End {
    Named,
    NotNamed,
    Quiet,
    Alarmed,
    Interrupted,
    /// A child ended by itself, or could not be started.
    Failed(String),
}

impl Demo {
    /// Runs the demo to its end. Exit code 0: named, or quiet with `--fixed`; 1: not.
    pub fn run(&self) -> ExitCode {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return failed(&format!("start the runtime: {error}")),
        };
        match runtime.block_on(self.perform()) {
            Ok(good) => ExitCode::from(u8::from(!good)),
            Err(words) => failed(&words),
        }
    }

    async fn perform(&self) -> Result<bool, String> {
        let mut stop = Stop::new().map_err(|error| format!("listen for signals: {error}"))?;
        let prepared = tokio::select! {
            prepared = Stage::prepare(self) => prepared?,
            () = stop.asked() => return Ok(false),
        };
        let (end, stage) = prepared.play(self, &mut stop).await;
        let (story, kept) = stage.close(|story| self.judge(&end, story).0).await;
        self.conclude(&end, &story, kept)
    }

    /// What the story so far means after this much time, or `None` to go on.
    fn end(&self, story: &Story, since_start: Duration) -> Option<End> {
        if !self.exit_when_named {
            return None;
        }
        match (self.fixed, story) {
            (false, story) if story.named() => Some(End::Named),
            (false, _) if since_start >= NAMED_WITHIN => Some(End::NotNamed),
            (true, story) if story.alarmed() => Some(End::Alarmed),
            (true, _) if since_start >= QUIET_FOR => Some(End::Quiet),
            _ => None,
        }
    }

    /// Prints what would have gone to Datadog and how it ended; says whether that is good.
    fn conclude(&self, end: &End, story: &Story, kept: Option<PathBuf>) -> Result<bool, String> {
        say(story.summary().trim_end());
        let (good, words) = self.judge(end, story);
        say(&words);
        if let Some(home) = kept {
            say(&format!("logs, settings and profiles of this run: {}", home.display()));
        }
        match end {
            End::Failed(words) => Err(words.clone()),
            _ => Ok(good),
        }
    }

    fn judge(&self, end: &End, story: &Story) -> (bool, String) {
        let (good, words) = match end {
            End::Named => (true, "named, and told to Datadog"),
            End::NotNamed => (false, "NOT named within 60 s"),
            End::Quiet => (true, "quiet for 120 s, as it should be"),
            End::Alarmed => (false, "ALARMED by a worker that does not leak"),
            End::Failed(_) => (false, "the demo could not go on"),
            End::Interrupted if self.fixed => (!story.alarmed(), "stopped"),
            End::Interrupted => (story.named(), "stopped"),
        };
        (good, words.to_owned())
    }
}

fn failed(words: &str) -> ExitCode {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "oomwatch demo: {words}");
    ExitCode::FAILURE
}

/// Prints a line. A reader that went away must not end the demo before its children.
fn say(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// The signals by which a terminal or a supervisor ends the demo.
#[derive(Debug)]
struct Stop([Signal; 3]);

impl Stop {
    fn new() -> std::io::Result<Stop> {
        Ok(Stop([signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?]))
    }

    async fn asked(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::story::tests::{named_story, noticed_story, warned_story};
    use super::*;

    #[test]
    fn the_end_comes_by_name_or_by_time_and_only_when_asked_for() {
        let (nothing, notice, warned, named) = (Story::default(), noticed_story(), warned_story(), named_story());
        let leaking = Demo { exit_when_named: true, ..Demo::default() };
        let fixed = Demo { fixed: true, ..leaking.clone() };
        for (demo, story, seconds, expected) in [
            (&leaking, &nothing, 59, None),
            (&leaking, &nothing, 60, Some(End::NotNamed)),
            (&leaking, &warned, 60, Some(End::NotNamed)),
            (&leaking, &named, 30, Some(End::Named)),
            (&fixed, &nothing, 119, None),
            (&fixed, &notice, 5, Some(End::Alarmed)),
            (&fixed, &nothing, 120, Some(End::Quiet)),
            (&fixed, &warned, 5, Some(End::Alarmed)),
            (&Demo::default(), &named, 1_000, None),
        ] {
            assert_eq!(demo.end(story, Duration::from_secs(seconds)), expected, "{demo:?} after {seconds} s");
        }
    }

    #[test]
    fn stopped_by_hand_is_good_only_when_the_demo_had_shown_its_point() {
        let (leaking, fixed) = (Demo::default(), Demo { fixed: true, ..Demo::default() });
        let good = |demo: &Demo, story: &Story| demo.judge(&End::Interrupted, story).0;
        assert!(good(&leaking, &named_story()));
        assert!(!good(&leaking, &warned_story()));
        assert!(good(&fixed, &Story::default()));
        assert!(!good(&fixed, &warned_story()));
    }
}
