//! The end comes while a job is being done.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::*;
use crate::pipeline::Outgoing;
use crate::secret::Secret;
use crate::sink::intake::Settings;
use crate::statsd::Event;

#[tokio::test]
async fn what_the_last_job_has_written_is_kept_and_not_counted_lost() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings::new("http://127.0.0.1:9", Secret::new("0123456789abcdef0123456789abcdef"));
    // All is over before it begins, and so little memory that an item is written at once.
    let settings =
        Settings { spool_dir: Some(dir.path().to_owned()), max_memory: 1, drain: Duration::ZERO, ..settings };
    let mut intake = Intake::new(settings).unwrap();
    intake.open_disk();
    let opened = intake.disk_job.join_next().await.unwrap();
    intake.disk_returns(opened);
    intake.accept(&mut vec![Outgoing::Event(Event::default())]);
    intake.work_on_disk();
    let deadline = Instant::now() + Duration::from_secs(20);
    let payloads = || std::fs::read_dir(dir.path()).unwrap().flatten().filter(|file| is_whole(&file.path())).count();
    while payloads() == 0 {
        assert!(Instant::now() < deadline, "the job is done in time");
        sleep(Duration::from_millis(5)).await;
    }
    let (status, seen) = watch::channel(Arc::default());
    intake.finish(&status).await;
    assert_eq!((payloads(), &seen.borrow().dropped), (1, &Default::default()));
}

fn is_whole(file: &std::path::Path) -> bool {
    file.extension().is_some_and(|ending| ending == "payload")
}
