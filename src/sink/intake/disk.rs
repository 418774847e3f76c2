//! Has the spool's jobs done on a thread for blocking work, one at a time, and tells the dispatch what came of each.

use std::time::Duration;

use tokio::task::JoinError;
use tokio::time::timeout;
use tracing::error;

use super::Intake;
use crate::sink::spool::disk::{Disk, Done, Found};

/// How long the last job is waited for when all other time is over: what it has written is kept, and not to be counted lost.
const LAST_JOB: Duration = Duration::from_millis(200);

/// What came back from the thread that works on the disk.
#[derive(Debug)]
pub(super) enum DiskReply {
    Opened(Result<(Disk, Found), String>),
    Did(Disk, Done),
}

impl Intake {
    /// Starts the one job that may be open: reading what is in the folder, on a thread for blocking work.
    pub(super) fn open_disk(&mut self) {
        if let Some(opener) = self.opener.take() {
            self.disk_job
                .spawn_blocking(move || DiskReply::Opened(Disk::open(opener).map_err(|fault| fault.to_string())));
        }
    }

    pub(super) fn work_on_disk(&mut self) {
        let Some(mut disk) = self.disk.take() else { return };
        match self.dispatch.job(self.now()) {
            Some(job) => {
                self.disk_job.spawn_blocking(move || {
                    let done = disk.perform(job);
                    DiskReply::Did(disk, done)
                });
            }
            None => self.disk = Some(disk),
        }
    }

    pub(super) fn disk_returns(&mut self, reply: Result<DiskReply, JoinError>) {
        let now = self.now();
        match reply {
            Ok(DiskReply::Opened(Ok((disk, found)))) => {
                self.disk = Some(disk);
                self.dispatch.opened(Ok(found), now);
            }
            Ok(DiskReply::Opened(Err(why))) => self.dispatch.opened(Err(why), now),
            Ok(DiskReply::Did(disk, done)) => {
                self.disk = Some(disk);
                self.dispatch.job_done(done, now);
            }
            Err(broken) => {
                error!("the work on the spool broke off by a defect of oomwatch: {broken}");
                self.dispatch.lost_the_disk();
            }
        }
    }

    pub(super) async fn await_disk(&mut self) {
        if let Ok(Some(done)) = timeout(LAST_JOB, self.disk_job.join_next()).await {
            self.disk_returns(done);
        }
    }
}

#[cfg(test)]
mod tests;
