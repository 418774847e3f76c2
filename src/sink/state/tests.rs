//! The state file on a real disk: whole or not there, damaged or of another time, on a folder that cannot be used.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::*;
use crate::detect::{AlertKind, Detector, Detectors, Reading, Settings, Severity};
use crate::pipeline::saved::SavedTarget;

const MIB: u64 = 1 << 20;

fn view(id: u64) -> IncidentView {
    IncidentView {
        id: format!("{id:x}"),
        kind: "memory_growth",
        severity: "warn",
        state: "named",
        verdict: "worker leaks".into(),
        ..IncidentView::default()
    }
}

/// The state of rules that have seen a leak and told it.
fn rules() -> crate::detect::Saved {
    let mut detectors = Detectors::new(Settings::default());
    detectors.watching("worker 1.0");
    for t in 0..400 {
        detectors.observe(&Reading {
            at: Duration::from_secs(t),
            incarnation: 9,
            memory_bytes: Some((40 + t.saturating_sub(200)) * MIB),
            limit_bytes: Some(256 * MIB),
            ..Reading::default()
        });
    }
    detectors.save()
}

fn saved(incidents: u64) -> Saved {
    let incidents = (0..incidents).map(|id| SavedIncident::from(&view(id))).collect();
    Saved {
        saved_at: 1e9,
        target: Some(SavedTarget { pid: 7, incarnation: 9, kills: None }),
        rules: rules(),
        incidents,
    }
}

fn found(dir: &Path) -> Result<Saved, &'static str> {
    match find(dir) {
        Found::State(saved) => Ok(*saved),
        Found::Nothing => Err("nothing"),
        Found::Unusable { reason, .. } => Err(reason),
    }
}

#[test]
fn what_was_written_is_read_and_is_for_us_alone() {
    let outer = tempfile::tempdir().unwrap();
    let dir = outer.path().join("state");
    assert_eq!(found(&dir), Err("nothing"));
    assert_eq!(check(&dir), None);
    let written = saved(50);
    write(&dir, &encode(&mut written.clone())).unwrap();
    write(&dir, &encode(&mut written.clone())).unwrap();
    let read = found(&dir).unwrap();
    assert_eq!((read.target, &read.incidents), (written.target, &written.incidents));
    assert_eq!(
        (read.rules.standing(), read.rules.incarnation()),
        (vec![(AlertKind::MemoryGrowth, Severity::Crit)], Some(9))
    );
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&dir), mode(&dir.join(NAME))), (0o700, 0o600));
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "nothing unfinished stays");
}

#[test]
fn a_file_that_is_not_ours_starts_everything_anew() {
    let dir = tempfile::tempdir().unwrap();
    let good = encode(&mut saved(2));
    let other = String::from_utf8(good.clone()).unwrap().replacen("oomwatch-state 1 ", "oomwatch-state 2 ", 1);
    for (bytes, reason) in [
        (b"".to_vec(), "damaged"),
        (b"oomwatch-state 1".to_vec(), "damaged"),
        (vec![0xff; 300], "damaged"),
        (good[..good.len() - 1].to_vec(), "damaged"),
        (other.into_bytes(), "version"),
        (vec![b'x'; MAX_BYTES + 1], "read"),
    ] {
        fs::write(dir.path().join(NAME), bytes).unwrap();
        assert_eq!(found(dir.path()), Err(reason));
        assert!(load(dir.path()).is_none());
    }
}

#[test]
fn a_symlink_is_neither_read_nor_written_through() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    fs::write(&secret, b"secret").unwrap();
    std::os::unix::fs::symlink(&secret, dir.path().join(NAME)).unwrap();
    std::os::unix::fs::symlink(&secret, dir.path().join(UNFINISHED)).unwrap();
    assert_eq!(found(dir.path()), Err("read"));
    write(dir.path(), &encode(&mut saved(1))).unwrap();
    assert_eq!(fs::read(&secret).unwrap(), b"secret");
    assert!(found(dir.path()).is_ok());
}

#[test]
fn a_folder_that_cannot_be_made_is_said_with_what_mends_it() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), b"").unwrap();
    let view = check(&dir.path().join("file/state")).expect("degraded");
    assert!(view.why.starts_with("state.dir cannot be used") && view.fix.contains("emptyDir"), "{view:?}");
}

#[test]
fn what_grows_too_long_leaves_the_oldest_incidents_out() {
    let mut long = saved(3);
    let views: Vec<_> = (0..3).map(|id| IncidentView { verdict: "x".repeat(400_000), ..view(id) }).collect();
    long.incidents = views.iter().map(SavedIncident::from).collect();
    let bytes = encode(&mut long);
    assert!(bytes.len() <= MAX_BYTES);
    let kept: Vec<_> =
        decode(&bytes).unwrap().incidents.iter().filter_map(SavedIncident::view).map(|it| it.id).collect();
    assert_eq!(kept, ["0", "1"]);
}

#[tokio::test(start_paused = true)]
async fn it_writes_at_most_every_half_minute_and_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let (rules_now, rules_in) = watch::channel(Arc::new(SavedWatch::default()));
    let (incidents, incidents_in) = watch::channel(Arc::new(Vec::new()));
    let (status, _status) = watch::channel(Arc::default());
    let file =
        StateFile { dir: dir.path().to_owned(), clock: || 1_000.0, rules: rules_in, incidents: incidents_in, status };
    let mut task = tokio::task::JoinSet::new();
    task.spawn(file.run());
    let publish = |id| incidents.send_replace(Arc::new(vec![view(id)]));
    let on_disk = || found(dir.path()).map(|saved| saved.incidents[0].view().unwrap().id);
    publish(1);
    let began = Instant::now();
    while on_disk() != Ok("1".to_owned()) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(began.elapsed() < Duration::from_secs(20), "the first news is written at once");
    }
    publish(2);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(on_disk(), Ok("1".to_owned()));
    drop(rules_now);
    drop(incidents);
    task.join_next().await.unwrap().unwrap();
    assert_eq!(on_disk(), Ok("2".to_owned()), "what was published last is there at the end");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_file_with_bytes_changed_is_never_taken(at in 0..100_000_usize, byte in any::<u8>()) {
        let mut bytes = encode(&mut saved(1));
        let at = at % bytes.len();
        prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        prop_assert!(decode(&bytes).is_err());
    }
}
