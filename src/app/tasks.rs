//! The tasks of this process: those that end it when they end, and those that are begun again.
//!
//! What carries the app's metrics or an incident's story is never begun again by itself: half of its state would be gone, and
//! a whole new process is worth more than a sidecar that listens and passes nothing on. The page, the health listener, the
//! sampler, the puller, the uploader and the reload hold nothing that others cannot do without for a moment, so they are.

use std::any::Any;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::telemetry;

/// Before a task is begun again: at first, and at most. It doubles in between.
const REST: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// A task that ran for so long has earned the short rest again.
const WELL: Duration = Duration::from_secs(60);

/// A task that may be begun again: what outlives a fault (a listener, a queue's end) is kept by whoever implements it.
pub(super) trait Restart: Send + 'static {
    /// Runs until the stop, or until a fault.
    fn run(&mut self) -> impl Future<Output = ()> + Send;
}

/// Every task of this process, by name.
#[derive(Default)]
pub(super) struct Tasks {
    set: JoinSet<&'static str>,
    names: HashMap<Id, &'static str>,
    handles: Vec<(&'static str, AbortHandle)>,
    #[cfg(test)]
    pub fault: Option<super::tests::Fault>,
}

impl Tasks {
    /// A task whose end, before the stop, is the end of the process.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        #[cfg(test)]
        let task = super::tests::breakable(self.fault.clone(), name, task);
        self.adopt(name, task);
    }

    /// A task that is begun again when it ends before the stop.
    pub fn keep(&mut self, name: &'static str, stop: CancellationToken, task: impl Restart) {
        #[cfg(test)]
        let task = super::tests::Breakable { fault: self.fault.clone(), name, task };
        self.adopt(name, keep(name, stop, task));
    }

    fn adopt(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.set.spawn(async move {
            task.await;
            name
        });
        self.names.insert(handle.id(), name);
        self.handles.push((name, handle));
    }

    /// Handles of the tasks whose name begins so.
    pub fn abort_handles(&self, name: &str) -> Vec<AbortHandle> {
        self.handles.iter().filter(|it| it.0.starts_with(name)).map(|it| it.1.clone()).collect()
    }

    /// The name of the next task to end, be it by a panic.
    pub async fn ended(&mut self) -> &'static str {
        match self.set.join_next().await {
            Some(Ok(name)) => name,
            Some(Err(fault)) => {
                let name = self.names.get(&fault.id()).copied().unwrap_or("unknown");
                if fault.is_panic() {
                    error!(task = name, "a task panicked: {fault}");
                }
                name
            }
            None => "none",
        }
    }

    /// Returns when all have ended.
    pub async fn all(&mut self) {
        while !self.set.is_empty() {
            self.ended().await;
        }
    }
}

/// Runs a task over and over until the stop, with a longer rest after each fault.
async fn keep(name: &'static str, stop: CancellationToken, mut task: impl Restart) {
    let restarts = telemetry::count(&telemetry::TASK_RESTARTS, Some(name));
    // The row is there before the first fault.
    restarts.increment(0);
    let mut rest = REST.0;
    loop {
        let began = Instant::now();
        let ended = caught(task.run()).await;
        if stop.is_cancelled() {
            return;
        }
        let why = ended.err().unwrap_or_else(|| "it ended by itself".to_owned());
        if began.elapsed() >= WELL {
            rest = REST.0;
        }
        error!(task = name, "a task is begun again in {rest:?}: {why}");
        restarts.increment(1);
        tokio::select! {
            () = sleep(rest) => {}
            () = stop.cancelled() => return,
        }
        rest = (rest * 2).min(REST.1);
    }
}

/// Runs a future to its end or to its panic, whose words come back.
async fn caught(task: impl Future<Output = ()>) -> Result<(), String> {
    let mut task = pin!(task);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(context))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(())) => Poll::Ready(Ok(())),
        Err(panic) => Poll::Ready(Err(words(panic.as_ref()))),
    })
    .await
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("it panicked: {}", text.unwrap_or("without words"))
}
