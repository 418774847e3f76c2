//! The sink to a Datadog Agent: windows become DogStatsD lines, packed into datagrams, sent through one cadence sink for
//! life.
//!
//! cadence's queue is made bounded (its plain constructor is not) and holds whole datagrams. A window comes at once but the
//! Agent's socket holds a quarter of a megabyte, so its datagrams are spread over the first half of the next window.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use cadence::{MetricSink, QueuingMetricSink};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::warn;

use super::agent_lines::{self, Packer};
use super::complaints::Complaints;
use super::datagram::{Address, DatagramSink, Tally};
use super::ledger::{Ledger, Now, Waiting};
use crate::pipeline::{Outgoing, StopTime, WallClock, wall_clock};
use crate::snapshot::{DegradedView, OutputPart};

/// The Agent's `dogstatsd_buffer_size`: it reads no longer datagram.
const MAX_DATAGRAM: usize = 8_192;
/// Shortest and longest rest after a datagram. 200 µs are 7 MB/s, more than an Agent reads.
const SHORTEST: Duration = Duration::from_micros(200);
const LONGEST: Duration = Duration::from_millis(20);
const BATCH: usize = 64;

#[derive(Clone, Debug)]
pub struct Settings {
    /// `udp://host:port` or `unix:///path`.
    pub address: String,
    /// Bytes of datagrams that wait for the sending thread. Full: what comes is dropped as `agent_full`. Default 8 MiB.
    pub max_memory: u64,
    /// Over how long a window's datagrams are spread. Half the flush interval; default 5 s.
    pub spread: Duration,
    /// How long after the stop was told, or after its input closed, the sink may go on sending.
    pub drain: Duration,
    pub stopped: StopTime,
    pub wall_clock: WallClock,
}

impl Settings {
    pub fn new(address: &str) -> Settings {
        Settings {
            address: address.to_owned(),
            max_memory: 8 << 20,
            spread: Duration::from_secs(5),
            drain: Duration::from_secs(2),
            stopped: StopTime::default(),
            wall_clock,
        }
    }
}

/// The sink, before it runs. Accounts in lines: identity I7.
pub struct Agent {
    address: Address,
    queue: QueuingMetricSink,
    tally: Arc<Tally>,
    /// Of the tally, what stands in the ledger already: sent, unavailable, full.
    told: [u64; 3],
    ledger: Ledger,
    complaints: Complaints,
    /// Lines that were handed to the queue and are neither sent nor lost yet.
    waiting_lines: u64,
    settings: Settings,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Agent {
    /// Opens no socket: the Agent may come later.
    ///
    /// # Errors
    /// When the address is neither `udp://host:port` nor `unix:///path`.
    pub fn new(settings: Settings) -> Result<Agent, String> {
        let address = Address::parse(&settings.address)?;
        let tally = Arc::new(Tally::default());
        let capacity = (settings.max_memory as usize / address.pack()).max(16);
        let queue = QueuingMetricSink::with_capacity(DatagramSink::new(address.clone(), tally.clone()), capacity);
        Ok(Agent {
            address,
            queue,
            tally,
            told: [0; 3],
            ledger: Ledger::new("agent", "I7"),
            complaints: Complaints::default(),
            waiting_lines: 0,
            settings,
        })
    }

    /// Runs until the input closes and the rest is sent or given up.
    pub async fn run(mut self, mut input: mpsc::Receiver<Outgoing>, status: watch::Sender<Arc<OutputPart>>) {
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                n = input.recv_many(&mut batch, BATCH) => if n == 0 { break } else { self.accept(&mut batch) },
                _ = second.tick() => {}
            }
            self.publish(&status);
        }
        self.finish(&status).await;
    }

    async fn finish(mut self, status: &watch::Sender<Arc<OutputPart>>) {
        let end = self.settings.stopped.get().copied().unwrap_or_else(Instant::now) + self.settings.drain;
        self.pace(SHORTEST);
        self.publish(status);
        while self.waiting_lines > 0 && Instant::now() < end {
            sleep(Duration::from_millis(5)).await;
            self.publish(status);
        }
        let rest = std::mem::take(&mut self.waiting_lines);
        self.ledger.lose("shutdown", rest);
        self.publish(status);
    }

    fn accept(&mut self, batch: &mut Vec<Outgoing>) {
        let mut packer = Packer::new(self.address.pack(), MAX_DATAGRAM);
        let mut lines = 0;
        let mut urgent = false;
        for outgoing in batch.drain(..) {
            urgent |= matches!(outgoing, Outgoing::Urgent(_));
            agent_lines::write(&outgoing, self.address.pack(), MAX_DATAGRAM, &mut |line| {
                lines += 1;
                packer.push(line);
            });
        }
        self.ledger.take(lines);
        let (datagrams, too_long) = packer.finish();
        self.lose("too_long", too_long);
        self.set_pace(datagrams.len(), urgent);
        for datagram in datagrams {
            self.emit(&datagram);
        }
    }

    fn emit(&mut self, datagram: &str) {
        let lines = agent_lines::count(datagram);
        match self.queue.emit(datagram) {
            Ok(_) => self.waiting_lines += lines,
            Err(_) => self.lose("agent_full", lines),
        }
    }

    /// What waits already is spread with what came. Nothing urgent waits for a slow pace: what stands before it hurries.
    fn set_pace(&self, datagrams: usize, urgent: bool) {
        let all = u32::try_from(self.queue.queued() + datagrams as u64).unwrap_or(u32::MAX).max(1);
        let even = self.settings.spread / all;
        self.pace(if urgent { SHORTEST } else { even.clamp(SHORTEST, LONGEST) });
    }

    fn pace(&self, rest: Duration) {
        self.tally.delay.store(rest.as_micros() as u64, Relaxed);
    }

    /// Takes over from the sending thread what it has settled, and tells everybody.
    fn publish(&mut self, status: &watch::Sender<Arc<OutputPart>>) {
        let now = Now { tick: Instant::now(), wall: (self.settings.wall_clock)() };
        // A failed flush leaves the last datagram unsettled until the next one.
        let _ = self.queue.flush();
        let [sent, unavailable, full] = self.settled();
        self.waiting_lines = self.waiting_lines.saturating_sub(sent + unavailable + full);
        self.ledger.deliver(sent);
        if sent > 0 {
            self.ledger.succeed(now);
        }
        self.lose("agent_unavailable", unavailable);
        self.lose("agent_full", full);
        let bytes = self.queue.queued() * self.address.pack() as u64;
        let waiting = Waiting { points: self.waiting_lines, bytes, ..Waiting::default() };
        status.send_replace(Arc::new(self.ledger.publish(waiting, now)));
    }

    /// What the sending thread has settled since this was asked last, in lines: sent, unavailable, full.
    fn settled(&mut self) -> [u64; 3] {
        let tally = &self.tally;
        let now = [&tally.sent, &tally.unavailable, &tally.full].map(|sum| sum.load(Relaxed));
        let before = std::mem::replace(&mut self.told, now);
        std::array::from_fn(|n| now[n] - before[n])
    }

    fn lose(&mut self, reason: &'static str, lines: u64) {
        if lines == 0 {
            return;
        }
        self.ledger.lose(reason, lines);
        let (why, fix) = advice(reason);
        self.ledger.degrade(DegradedView {
            what: "Datadog Agent".to_owned(),
            why: why.to_owned(),
            fix: fix.to_owned(),
        });
        if let Some(sum) = self.complaints.add(reason, lines, Instant::now()) {
            warn!(dropped = sum, reason, "dropped {sum} lines on their way to the Agent: {why}; {fix}");
        }
    }
}

fn advice(reason: &str) -> (&'static str, &'static str) {
    match reason {
        "agent_unavailable" => {
            ("nobody takes datagrams there", "check datadog.agent.dogstatsd and that the Agent runs with DogStatsD on")
        }
        "agent_full" => (
            "the Agent takes them more slowly than they come",
            "lower the number of metrics, or send to the intake directly",
        ),
        _ => ("they are longer than any datagram that the Agent reads", "shorten names and tags"),
    }
}
