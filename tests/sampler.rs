//! The sampler on a real process in a real memory cgroup, killed by the real kernel.
//!
//! Needs root and a cgroup tree that it may write to; where these are missing it prints SKIPPED and why.

mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use oomwatch::pipeline::{Gone, Observation, Pace};
use oomwatch::source::sampler::{Sampler, Settings};
use support::cgroup::Cgroup;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

const MIB: u64 = 1 << 20;
const LIMIT: u64 = 96 * MIB;

/// Returns as soon as the kernel has counted a kill there.
async fn first_kill(cgroup: &Cgroup) -> Instant {
    while !cgroup.has_killed() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Instant::now()
}

/// Starts a process below the limit: the shell enters the cgroup and becomes the program.
fn start(cgroup: &Cgroup, script: &str) -> Child {
    let enter = format!("echo $$ > '{}'; {script}", cgroup.procs().display());
    Command::new("sh")
        .args(["-c", &enter])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("sh can be started")
}

/// The sampler on one pid, and what it has seen.
struct Watching {
    observations: mpsc::Receiver<Observation>,
    _pace: watch::Sender<Pace>,
    stop: CancellationToken,
    _tasks: tokio::task::JoinSet<()>,
}

impl Watching {
    fn begin(pid: u32, interval: Duration) -> Watching {
        let pid = Some(i32::try_from(pid).expect("a pid is positive"));
        Watching::begin_with(Settings { pid, interval, ..Settings::default() })
    }

    fn begin_with(settings: Settings) -> Watching {
        let (out, observations) = mpsc::channel(4);
        let (pace, pace_seen) = watch::channel(settings.interval);
        let stop = CancellationToken::new();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(Sampler::new(settings).run(out, pace_seen, stop.clone()));
        Watching { observations, _pace: pace, stop, _tasks: tasks }
    }

    /// The first observation that `wanted` takes, within 20 s.
    async fn until(&mut self, what: &str, wanted: impl Fn(&Observation) -> bool) -> Observation {
        let search = async {
            loop {
                let seen = self.observations.recv().await.expect("the sampler runs");
                if wanted(&seen) {
                    return seen;
                }
            }
        };
        timeout(Duration::from_secs(20), search).await.unwrap_or_else(|_| panic!("not seen within 20 s: {what}"))
    }
}

fn missing_python() -> Option<String> {
    let found =
        Command::new("python3").arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    (!found).then(|| "python3 is not installed".to_owned())
}

/// Makes the cgroup, or says why this machine cannot.
fn cgroup_or_skip(name: &str) -> Option<Cgroup> {
    let made = match missing_python() {
        Some(why) => Err(why),
        None => Cgroup::new(name, LIMIT),
    };
    made.inspect_err(|why| eprintln!("SKIPPED {name}: {why}")).ok()
}

/// Takes a MiB for every line on its input.
const HOG: &str = "exec python3 -c '
import sys
hoard = []
for line in sys.stdin: hoard.extend(bytearray(b\"x\" * (1 << 20)) for _ in range(int(line)))'";

fn feed(child: &mut Child, mebibytes: u64) {
    use std::io::Write;
    writeln!(child.stdin.as_mut().expect("stdin is piped"), "{mebibytes}").expect("the hog reads");
}

fn kills(seen: &Observation) -> Option<u64> {
    seen.oom_kills.map(|kills| kills.count)
}

#[tokio::test]
async fn a_real_hog_grows_is_killed_and_its_end_is_told_within_two_seconds() {
    let Some(cgroup) = cgroup_or_skip("hog") else { return };
    let mut hog = start(&cgroup, HOG);
    let mut watching = Watching::begin(hog.id(), Duration::from_millis(100));

    let first = watching.until("its limit", |seen| seen.reading.limit_bytes == Some(LIMIT)).await;
    assert!(first.limit_source.ends_with("of the app's cgroup"), "{}", first.limit_source);
    assert_eq!(kills(&first), Some(0));
    assert!(first.reading.threads >= Some(1));

    feed(&mut hog, 40);
    let is_python = |seen: &Observation| seen.target.as_ref().is_some_and(|target| target.name.starts_with("python3"));
    let grown =
        watching.until("40 MiB of growth", |seen| seen.reading.memory_bytes > Some(40 * MIB) && is_python(seen)).await;
    let (memory, rss) = (grown.reading.memory_bytes.unwrap(), grown.rss_bytes.unwrap());
    assert!(memory < LIMIT && rss > 40 * MIB && grown.working_set_bytes.unwrap() >= memory, "{memory} {rss}");
    assert!(grown.reading.at > first.reading.at);

    feed(&mut hog, 400);
    // The hog stays a zombie until we wait for it, so its true end is when the kernel counts the kill.
    let killed = first_kill(&cgroup);
    let death = watching.until("its end", |seen| seen.gone.is_some());
    let (killed, (death, told)) = tokio::join!(killed, async { (death.await, Instant::now()) });
    assert_eq!(death.gone, Some(Gone::OomKilled));
    assert!(told.saturating_duration_since(killed) < Duration::from_secs(2), "{:?}", told - killed);
    assert_eq!(kills(&death), Some(1));
    watching.stop.cancel();
    assert!(!hog.wait().expect("the hog is ours").success());
}

#[tokio::test]
async fn an_ordinary_end_in_the_same_place_is_no_kill() {
    let Some(cgroup) = cgroup_or_skip("quiet") else { return };
    let mut quiet = start(&cgroup, HOG);
    // A minute between looks: the end is told because the process is waited for, not because its turn came.
    let mut watching = Watching::begin(quiet.id(), Duration::from_secs(60));
    watching.until("it", |seen| seen.target.is_some()).await;
    drop(quiet.stdin.take());
    let end = watching.until("its end", |seen| seen.gone.is_some()).await;
    assert_eq!(end.gone, Some(Gone::Ended));
    assert!(quiet.wait().expect("it is ours").success());
}

/// Runs a script in the can; `$1` is the can's script, `$2` this test program where every user may run it. `None` when this
/// machine cannot.
fn in_can(script: &str) -> Option<String> {
    let can = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/can/in-can.sh");
    let own = std::env::current_exe().expect("it runs");
    let ours = std::env::temp_dir().join(format!("oomwatch-can-test-{}", std::process::id()));
    std::fs::copy(own, &ours).expect("the temporary folder has room");
    let mut command = Command::new(&can);
    command.args(["--memory", &LIMIT.to_string(), "--uid", "10001", "--", "bash", "-c", script, "script"]);
    let output = command.arg(&can).arg(&ours).output().expect("bash runs");
    std::fs::remove_file(&ours).expect("it was copied there");
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.code() == Some(77) {
        eprintln!("SKIPPED: {errors}");
        return None;
    }
    assert!(output.status.success(), "{said}{errors}");
    Some(said.into_owned())
}

/// The app waits for the sidecar to have a look at it, and then takes all memory at once. The kernel kills it; the sidecar, run
/// as each identity in turn, must have told what that identity may know.
#[test]
fn in_the_can_each_identity_sees_what_it_may() {
    let script = "for ids in 10001:10001 10001:0 65532:65532; do
            $1 app bash -c 'sleep 1; exec tail /dev/zero' & app=$!
            until [ \"$(awk '/^Uid/ {print $2}' /proc/$app/status)\" = 10001 ]; do :; done
            echo; IDS=$ids $1 sidecar $ids $2 --exact inside_the_can --nocapture || exit 1
            wait $app; echo code $?
        done 2>&1";
    let Some(said) = in_can(script) else { return };
    assert_eq!((said.matches("code 137\n").count(), said.matches("1 passed").count()), (3, 3), "{said}");
}

/// The other half of the test above, which runs it inside the can; by itself it does nothing.
#[tokio::test]
async fn inside_the_can() {
    let Ok(ids) = std::env::var("IDS") else { return };
    let settings =
        Settings { interval: Duration::from_millis(100), app_memory_limit: Some(LIMIT + 1), ..Settings::default() };
    let mut watching = Watching::begin_with(settings);
    let seen = watching.until("the app", |seen| seen.target.is_some()).await;
    let reading = seen.reading;
    assert_eq!(seen.target.unwrap().rule, "the only process tree besides the sidecar's");
    assert!(
        seen.rss_bytes > Some(MIB)
            && reading.threads >= Some(1)
            && reading.fds >= Some(3)
            && reading.fd_limit.is_some()
    );
    let death = watching.until("its end", |seen| seen.gone.is_some()).await;
    if ids == "10001:10001" {
        assert_eq!((reading.limit_bytes, seen.degraded.len()), (Some(LIMIT), 0), "{:?}", seen.degraded);
        assert!(
            seen.limit_source.ends_with("of the app's cgroup") && seen.working_set_bytes.is_some(),
            "{}",
            seen.limit_source
        );
        assert_eq!((death.gone, kills(&death)), (Some(Gone::OomKilled), Some(1)));
    } else {
        assert_eq!(
            (reading.limit_bytes, seen.limit_source),
            (Some(LIMIT + 1), "APP_MEMORY_LIMIT from the downward API")
        );
        assert!(reading.memory_bytes > Some(0) && seen.oom_kills.is_none());
        let fix = "on the oomwatch container: securityContext: {runAsUser: 10001, runAsGroup: 10001}";
        assert_eq!(seen.degraded.iter().map(|missing| missing.fix.as_str()).collect::<Vec<_>>(), [fix]);
        // The machine counted a kill; it is taken for this one when the last reading before it stood near the limit.
        assert!(matches!(death.gone, Some(Gone::OomKilled | Gone::Unknown)), "{:?}", death.gone);
    }
}
