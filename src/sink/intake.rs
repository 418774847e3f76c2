//! The sink to Datadog's intake: takes what the pipeline hands over, keeps it in memory or on disk, sends it over HTTPS.
//!
//! Glue between a dispatch, which knows what may go, a client, which knows how, and a disk, which is worked on by one blocking
//! job at a time. It takes the next window before it thinks of the network, so a slow intake never holds up the pipeline. When
//! its input closes it goes on for [`Settings::drain`], or until all that cannot be sent is on disk.

mod disk;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::{error, info};

use disk::DiskReply;

use super::client::Client;
use super::connect::Proxy;
use super::dispatch::{Dispatch, DispatchSettings};
use super::key::{Key, header};
use super::ledger::Now;
use super::outcome::Outcome;
use super::spool::disk::Disk;
use super::storage::{Opener, opener};
use crate::datadog::{Answer, Encoder, EncoderSettings, Policy};
use crate::pipeline::{Outgoing, StopTime, WallClock, wall_clock};
use crate::secret::Secret;
use crate::snapshot::{DegradedView, OutputPart};

const VALIDATE: &str = "/api/v1/validate";

/// Messages taken from the pipeline at once.
const BATCH: usize = 64;
/// How long an intake that fails is tried at the end, once all that waits is on disk.
const LAST_TRIES: Duration = Duration::from_millis(1_500);

/// How the intake sink works. [`Settings::new`] gives the defaults.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `https://api.<site>`, or what replaces it. Plain HTTP for loopback only.
    pub base_url: String,
    /// May be empty where a file is named: everything is held until a key appears there.
    pub api_key: Secret,
    /// Read again every [`Settings::key_poll`], and when a key is refused. It wins over `api_key`.
    pub api_key_file: Option<PathBuf>,
    /// The host of series that name none.
    pub hostname: Option<String>,
    /// PEM, added to the roots that we carry.
    pub ca_file: Option<PathBuf>,
    pub proxy: Proxy,
    /// Bytes of bodies that wait in memory or are under way; over it the oldest go, to disk where there is one. Default 4 MiB.
    pub max_memory: u64,
    /// Folder for what cannot be sent at once (`spool.dir`); `None` keeps it in memory alone.
    pub spool_dir: Option<PathBuf>,
    /// Bytes of that folder, in whole blocks. Default 64 MiB.
    pub max_size: u64,
    /// Series are kept and sent whatever their age (`datadog.historical`).
    pub historical: bool,
    /// Waits between tries, and the age (55 min) at which points are given up.
    pub policy: Policy,
    /// For one exchange, from the request to the end of the answer.
    pub timeout: Duration,
    /// Requests at once. One more is kept for urgent events, so that they never wait for a slow answer.
    pub concurrency: usize,
    /// How long after the stop was told, or after its input closed, the sink may go on trying.
    pub drain: Duration,
    pub stopped: StopTime,
    pub key_poll: Duration,
    /// Between two questions whether the key is good; the first is asked at the start. The Agent asks as often.
    pub key_check: Duration,
    /// Between two tries with a key that was refused.
    pub key_hold: Duration,
    pub wall_clock: WallClock,
}

impl Settings {
    pub fn new(base_url: &str, api_key: Secret) -> Settings {
        Settings {
            base_url: base_url.to_owned(),
            api_key,
            api_key_file: None,
            hostname: None,
            ca_file: None,
            proxy: Proxy::default(),
            max_memory: 4 << 20,
            spool_dir: None,
            max_size: 64 << 20,
            historical: false,
            policy: Policy::default(),
            timeout: Duration::from_secs(20),
            concurrency: 2,
            drain: Duration::from_secs(5),
            stopped: StopTime::default(),
            key_poll: Duration::from_secs(10),
            key_check: Duration::from_secs(3_600),
            key_hold: Duration::from_secs(30),
            wall_clock,
        }
    }
}

/// An item under way, and the generation of the key it went with.
#[derive(Clone, Copy, Debug)]
struct Carried {
    item: u64,
    key: u64,
}

/// The sink, before it runs.
pub struct Intake {
    client: Client,
    key: Key,
    dispatch: Dispatch,
    /// Items whose requests are under way, by the task that carries each. At most `concurrency` and one.
    carried: HashMap<Id, Carried>,
    flights: JoinSet<Outcome>,
    /// The question whether the key is good: at most one.
    question: JoinSet<Outcome>,
    /// The reading of the key file: at most one.
    key_read: JoinSet<Option<Secret>>,
    /// How the spool's folder is opened; taken by the first job.
    opener: Option<Opener>,
    /// While no job has it.
    disk: Option<Disk>,
    /// The job that is being done: at most one.
    disk_job: JoinSet<DiskReply>,
    concurrency: usize,
    drain: Duration,
    stopped: StopTime,
    key_poll: Duration,
    key_check: Duration,
    wall_clock: WallClock,
}

impl std::fmt::Debug for Intake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intake").field("client", &self.client).field("dispatch", &self.dispatch).finish_non_exhaustive()
    }
}

impl Intake {
    /// # Errors
    /// With advice: an address that is not HTTPS, a CA file or a proxy that cannot be used, a key that cannot be sent.
    pub fn new(settings: Settings) -> Result<Intake, String> {
        if settings.api_key.is_empty() && settings.api_key_file.is_none() {
            return Err("an API key is needed: set datadog.api_key_file or DD_API_KEY".to_owned());
        }
        if !settings.api_key.is_empty() && header(&settings.api_key).is_none() {
            return Err("the API key holds characters that cannot be sent: expected letters and digits".to_owned());
        }
        let concurrency = settings.concurrency.max(1);
        let client = Client::new(
            &settings.base_url,
            settings.ca_file.as_deref(),
            &settings.proxy,
            settings.timeout,
            // One for urgent events, one for the question whether the key is good.
            concurrency + 2,
        )?;
        let encoder = Encoder::new(EncoderSettings {
            hostname: settings.hostname.clone(),
            historical: settings.historical,
            ..EncoderSettings::default()
        })?;
        let dispatch = Dispatch::new(DispatchSettings {
            encoder,
            hostname: settings.hostname,
            historical: settings.historical,
            policy: settings.policy,
            max_memory: settings.max_memory,
            has_spool: settings.spool_dir.is_some(),
            max_size: settings.max_size,
            hold: settings.key_hold,
        });
        Ok(Intake {
            client,
            key: Key::new(settings.api_key, settings.api_key_file),
            dispatch,
            carried: HashMap::new(),
            flights: JoinSet::new(),
            question: JoinSet::new(),
            key_read: JoinSet::new(),
            opener: settings.spool_dir.map(opener),
            disk: None,
            disk_job: JoinSet::new(),
            concurrency,
            drain: settings.drain,
            stopped: settings.stopped.clone(),
            key_poll: settings.key_poll,
            key_check: settings.key_check,
            wall_clock: settings.wall_clock,
        })
    }

    /// Asks whether the key is good, for `doctor`.
    ///
    /// # Errors
    /// What stands in the way, and what to check.
    pub async fn validate(&self) -> Result<(), DegradedView> {
        let outcome = self.client.clone().get(VALIDATE, self.key.header()).await;
        outcome.trouble.map_or(Ok(()), |trouble| Err(trouble.view()))
    }

    /// Runs until the input closes and the rest is sent, on disk, or given up.
    pub async fn run(mut self, mut input: mpsc::Receiver<Outgoing>, status: watch::Sender<Arc<OutputPart>>) {
        let mut second = every(Duration::from_secs(1));
        let mut poll = every(self.key_poll);
        let mut check = every(self.key_check);
        let mut batch = Vec::with_capacity(BATCH);
        self.open_disk();
        loop {
            self.launch();
            self.work_on_disk();
            self.publish(&status);
            let wake = self.wake();
            tokio::select! {
                n = input.recv_many(&mut batch, BATCH), if self.dispatch.has_room(self.now()) => {
                    if n == 0 { break } else { self.accept(&mut batch) }
                }
                Some(done) = self.flights.join_next_with_id() => self.settle(done),
                Some(done) = self.disk_job.join_next() => self.disk_returns(done),
                () = sleep_until(wake) => {}
                _ = second.tick() => self.dispatch.expire(self.now()),
                _ = poll.tick() => self.refresh_key(),
                Some(read) = self.key_read.join_next() => self.take_key(read),
                _ = check.tick() => self.ask(),
                Some(Ok(outcome)) = self.question.join_next() => self.hear(&outcome),
            }
        }
        self.finish(&status).await;
    }

    /// The last seconds: what waited for its turn is tried at once, what cannot be sent goes to disk, and what is left in the
    /// end is counted.
    async fn finish(mut self, status: &watch::Sender<Arc<OutputPart>>) {
        let end = self.stopped.get().copied().unwrap_or_else(Instant::now) + self.drain;
        let tries_end = Instant::now() + LAST_TRIES;
        self.dispatch.drain(self.now());
        let mut tick = every(Duration::from_millis(100));
        while Instant::now() < end {
            self.launch();
            self.work_on_disk();
            self.publish(status);
            if self.flights.is_empty() && self.disk_job.is_empty() && self.may_leave(tries_end) {
                break;
            }
            let wake = self.wake().min(end);
            tokio::select! {
                Some(done) = self.flights.join_next_with_id() => self.settle(done),
                Some(read) = self.key_read.join_next() => self.take_key(read),
                Some(done) = self.disk_job.join_next() => self.disk_returns(done),
                () = sleep_until(wake) => {}
                _ = tick.tick() => {}
            }
        }
        self.flights.abort_all();
        let now = self.now();
        for (_, carried) in self.carried.drain() {
            self.dispatch.come_back(carried.item, now);
        }
        self.await_disk().await;
        self.dispatch.abandon(now);
        self.publish(status);
    }

    fn may_leave(&self, tries_end: Instant) -> bool {
        self.dispatch.is_empty() || self.dispatch.may_leave(tries_end, self.now())
    }

    fn accept(&mut self, batch: &mut Vec<Outgoing>) {
        let now = self.now();
        for outgoing in batch.drain(..) {
            self.dispatch.accept(outgoing, now);
        }
    }

    /// Sends what may go.
    fn launch(&mut self) {
        let now = self.now();
        while self.flights.len() <= self.concurrency {
            let pressing_only = self.flights.len() == self.concurrency;
            let Some((item, payload)) = self.dispatch.next(pressing_only, now) else {
                return;
            };
            let task = self.flights.spawn(self.client.clone().send(payload, self.key.header()));
            self.carried.insert(task.id(), Carried { item, key: self.key.generation() });
        }
    }

    fn settle(&mut self, done: Result<(Id, Outcome), JoinError>) {
        let now = self.now();
        let (id, outcome) = match done {
            Ok((id, outcome)) => (id, Some(outcome)),
            Err(broken) => (broken.id(), None),
        };
        let Some(Carried { item, key }) = self.carried.remove(&id) else {
            return;
        };
        let Some(outcome) = outcome else {
            error!("a request to the intake broke off by a defect of oomwatch; its points are sent again");
            return self.dispatch.broke(item, now);
        };
        let refused = matches!(outcome.answer, Answer::Status { code: 401 | 403, .. });
        if refused && key != self.key.generation() {
            return self.dispatch.come_back(item, now);
        }
        if self.dispatch.settle(item, &outcome, now) {
            self.refresh_key();
        }
    }

    /// Asks whether the key is good, beside everything else that goes on.
    fn ask(&mut self) {
        if self.question.is_empty() {
            let (client, key) = (self.client.clone(), self.key.header());
            self.question.spawn(async move { client.get(VALIDATE, key).await });
        }
    }

    /// A wrong key or a wrong site is told before there is anything to send. Nothing is held for it: the answer to a payload
    /// decides that, and an intake that cannot be asked is no reason to call the key bad.
    fn hear(&mut self, outcome: &Outcome) {
        match &outcome.trouble {
            Some(trouble) => self.dispatch.complain(trouble, self.now()),
            None => info!("the intake calls the API key good"),
        }
    }

    /// Has the key file read, beside everything else: its volume may hang.
    fn refresh_key(&mut self) {
        if self.key_read.is_empty()
            && let Some(read) = self.key.reader()
        {
            self.key_read.spawn_blocking(read);
        }
    }

    fn take_key(&mut self, read: Result<Option<Secret>, JoinError>) {
        if self.key.take(read.ok().flatten()) {
            self.dispatch.key_changed();
            self.ask();
        }
    }

    fn publish(&self, status: &watch::Sender<Arc<OutputPart>>) {
        status.send_replace(Arc::new(self.dispatch.publish(self.now())));
    }

    /// The next time at which something may go, or an hour from now.
    fn wake(&self) -> Instant {
        let now = self.now();
        self.dispatch.wakes_at(now).unwrap_or(now.tick + Duration::from_secs(3_600))
    }

    fn now(&self) -> Now {
        Now { tick: Instant::now(), wall: (self.wall_clock)() }
    }
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
