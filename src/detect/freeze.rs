//! The freeze at the limit: the app hangs for minutes, and the kernel does not kill it.
//!
//! When a program's own pages are charged to its container, the kernel can always take some of them back, so it never runs
//! out and never kills; the program spends its life having them read in again. Seen from outside: usage stands at the limit,
//! reclaim runs, pages are read from disk without end, the time goes to the kernel, and what the app used to say (StatsD, pprof)
//! has stopped. An app that only copies files stands at its limit as well, with reclaim running; but it reads no pages of
//! its own in again, and goes on speaking. No single figure tells the two apart, so all that can be read must agree.
//!
//! Silence alone is weak: an app whose job is done is silent, and beside it something may read all over a mapped file. An open
//! question to pprof is not. So who is only silent must have little page cache left to read in, pay for each page as a freeze does,
//! and wait for memory where the kernel tells that; else nothing is said. What cannot be told apart: an idle app that fills three
//! quarters of its limit, beside a scan from front to end, which the kernel reads ahead for.
//!
//! Missing: the processor time of the app's children, and whose StatsD it is where several containers of a pod send some.

mod voice;

use std::collections::VecDeque;
use std::time::Duration;

use super::reading::{Alert, AlertKind, Change, Reading, Severity};
use super::standing::Standing;
use super::words;
use voice::Voice;

const RULE: &str = "freeze";
/// Usage at this share of the limit is at it: the kernel charges ahead by up to 256 KiB a processor.
const FULL: f64 = 0.985;
/// The same for unreclaimable memory, where usage cannot be read.
const FULL_ANONYMOUS: f64 = 0.8;
/// Without an open question to pprof, only an app whose memory is mostly its own is believed to be frozen: one that reads all
/// over a mapped file that is larger than its limit looks the same and is fine.
const OWN_SHARE: f64 = 0.75;
/// Seconds of the kernel's time. A page that comes in for less is easy to have: 45 µs were measured where a mapped file is read here
/// and there, and 8 ms for each page of a freeze.
const EASY: f64 = 0.000_5;
/// That is known of a process that spends so much of a core in the kernel; of one that spends less, a child may do the work.
const OWN_WORK: f64 = 0.2;
/// Percent of the time in which all of the cgroup waits for memory. Some of it waited for 38 of a freeze, and five seconds after
/// the onset the kernel's mean over ten shows four tenths of the truth.
const CALM_PRESSURE: f64 = 2.0;
/// Tries to reclaim a second. 300 were measured with version 2, and 60,000 to 130,000 with version 1.
const RECLAIMS: f64 = 50.0;
/// Pages read in again a second: 100 to 200 were measured, and a slow disk gives fewer.
const FAULTS: f64 = 20.0;
/// How long all of it must have held: with what the app said, and without.
const HOLD: Duration = Duration::from_secs(5);
const HOLD_UNHEARD: Duration = Duration::from_secs(8);
/// How long it must hold for the pprof port to be asked more often.
const SUSPECT: Duration = Duration::from_secs(2);
/// A question to pprof that is open for so long is not answered; an answer this young says that the app runs.
const UNANSWERED: Duration = Duration::from_secs(3);
const ANSWERED: Duration = Duration::from_secs(4);
/// How long the app must be well again for the all-clear.
const WELL: Duration = Duration::from_secs(10);
/// Readings are kept for so long, and so many of them: at their fastest they come each 250 ms.
const KEPT: Duration = Duration::from_secs(16);
const SAMPLES: usize = 80;

/// What one reading says of it; `None` as in the reading.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Duration,
    full: bool,
    reclaims: Option<u64>,
    faults: Option<u64>,
    user: Option<Duration>,
    system: Option<Duration>,
    datagrams: Option<u64>,
}

/// What the readings of a while agree on.
#[derive(Clone, Copy, Debug)]
struct Strain {
    faults: f64,
    reclaims: Option<f64>,
    /// Cores in the app's own code and in the kernel.
    user: Option<f64>,
    system: Option<f64>,
}

impl Strain {
    /// What holds of a freeze and not of a file that is read beside an app that has nothing to say.
    fn is_dear(self, reading: &Reading) -> bool {
        let easy = self.system.is_some_and(|system| system >= OWN_WORK && system < EASY * self.faults);
        let calm = reading.pressure.is_some_and(|share| share < CALM_PRESSURE);
        is_own(reading) && !easy && !calm
    }
}

/// Most of the limit is memory that cannot be read in again.
fn is_own(reading: &Reading) -> bool {
    let both = reading.memory_bytes.zip(reading.limit_bytes);
    both.is_some_and(|(memory, limit)| memory as f64 >= OWN_SHARE * limit as f64)
}

/// The rule for one process. Under 10 KiB.
#[derive(Clone, Debug)]
pub struct Freeze {
    samples: VecDeque<Sample>,
    voice: Voice,
    standing: Standing,
    since: Option<Duration>,
    well_since: Option<Duration>,
    is_suspect: bool,
}

impl Default for Freeze {
    fn default() -> Freeze {
        Freeze {
            samples: VecDeque::with_capacity(SAMPLES),
            voice: Voice::default(),
            standing: Standing::none(AlertKind::Freeze),
            since: None,
            well_since: None,
            is_suspect: false,
        }
    }
}

impl Freeze {
    pub fn observe(&mut self, reading: &Reading) -> Option<Change> {
        self.keep(reading);
        let suspicion = self.strain(SUSPECT);
        self.is_suspect = suspicion.is_some();
        self.voice.listen(reading.at, reading.datagrams, !self.is_suspect);
        let silent = self.voice.is_silent(reading.at, &self.samples);
        let speaks = speaks(reading, suspicion, silent);
        self.since = suspicion.map(|_| self.since.unwrap_or(reading.at.saturating_sub(SUSPECT)));
        match self.verdict(reading, speaks, silent) {
            Some((severity, strain)) => self.tell(reading, severity, strain),
            None => self.look_for_the_end(reading.at, speaks),
        }
    }

    pub fn severity(&self) -> Option<Severity> {
        self.standing.severity()
    }

    /// It has the looks of one for the last two seconds: worth asking the app whether it answers.
    pub fn is_suspect(&self) -> bool {
        self.is_suspect
    }

    pub fn end(&mut self, at: Duration) -> Option<Change> {
        self.standing.clear(at)
    }

    /// What stood when another sidecar watched goes on, until the app has been well for as long as ever.
    pub fn restore(&mut self, severity: Option<Severity>) {
        self.standing.restore(severity);
    }

    fn keep(&mut self, reading: &Reading) {
        let Some(limit) = reading.limit_bytes.filter(|limit| *limit > 0) else { return self.samples.clear() };
        let share = |bytes: Option<u64>, least: f64| bytes.is_some_and(|bytes| bytes as f64 >= least * limit as f64);
        let full = match reading.usage_bytes {
            Some(usage) => share(Some(usage), FULL),
            None => share(reading.memory_bytes, FULL_ANONYMOUS),
        };
        let old = |sample: &Sample| reading.at.saturating_sub(sample.at) > KEPT;
        while self.samples.len() >= SAMPLES || self.samples.front().is_some_and(old) {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample {
            at: reading.at,
            full,
            reclaims: reading.reclaims,
            faults: reading.major_faults,
            user: reading.user_time,
            system: reading.system_time,
            datagrams: reading.datagrams,
        });
    }

    /// What was seen over the last `hold`, if all of it looks like a freeze. A jump of one counter does not: both halves must.
    fn strain(&self, hold: Duration) -> Option<Strain> {
        let last = self.samples.back()?;
        let begin = self.samples.iter().rposition(|sample| last.at.saturating_sub(sample.at) >= hold)?;
        let held = self.samples.range(begin..);
        let middle = self.samples.get(begin + held.len() / 2)?;
        let first = self.samples.get(begin)?;
        let even = per_second(first, middle, |it| it.faults)? >= FAULTS / 2.0
            && per_second(middle, last, |it| it.faults)? >= FAULTS / 2.0;
        let seconds = |of: fn(&Sample) -> Option<Duration>| {
            per_second(first, last, |it| of(it).map(|time| time.as_millis() as u64)).map(|share| share / 1_000.0)
        };
        let strain = Strain {
            faults: per_second(first, last, |it| it.faults)?,
            reclaims: per_second(first, last, |it| it.reclaims),
            user: seconds(|it| it.user),
            system: seconds(|it| it.system),
        };
        let reclaims = strain.reclaims.is_none_or(|rate| rate >= RECLAIMS);
        let full = self.samples.range(begin..).all(|sample| sample.full);
        (full && even && reclaims && strain.faults >= FAULTS).then_some(strain)
    }

    fn verdict(&self, reading: &Reading, speaks: bool, silent: Option<bool>) -> Option<(Severity, Strain)> {
        if speaks {
            return None;
        }
        let strain = self.strain(HOLD)?;
        let kernel_busy = strain.system.is_some_and(|share| share >= 0.5) && strain.user.is_some_and(|it| it < 0.1);
        let unanswered = reading.pprof_silent.is_some_and(|time| time >= UNANSWERED);
        if unanswered || silent == Some(true) && strain.is_dear(reading) {
            // What the cgroup does not tell, the processor's time must.
            return (strain.reclaims.is_some() || kernel_busy).then_some((Severity::Crit, strain));
        }
        let never_heard = silent.is_none() && reading.pprof_answered.is_none();
        let own = is_own(reading) && reading.usage_bytes.is_some() && strain.reclaims.is_some();
        let strain = self.strain(HOLD_UNHEARD)?;
        (never_heard && own && kernel_busy).then_some((Severity::Warn, strain))
    }

    fn tell(&mut self, reading: &Reading, severity: Severity, strain: Strain) -> Option<Change> {
        self.well_since = None;
        let alert = Alert {
            kind: AlertKind::Freeze,
            severity,
            rule: RULE,
            at: reading.at,
            per_second: 0.0,
            time_to_limit: None,
            evidence: self.evidence(reading, strain),
        };
        self.standing.raise(alert, false)
    }

    /// Only what could be read is said.
    fn evidence(&self, reading: &Reading, strain: Strain) -> String {
        let frozen = reading.at.saturating_sub(self.since.unwrap_or(reading.at));
        let limit = words::size(reading.limit_bytes.unwrap_or(0) as f64);
        let span = |time: Duration| words::span(time.as_secs_f64());
        let full = match reading.usage_bytes {
            Some(usage) => format!("usage {} at the limit of {limit} for {}", words::size(usage as f64), span(frozen)),
            None => format!(
                "memory {} of {limit} for {}",
                words::size(reading.memory_bytes.unwrap_or(0) as f64),
                span(frozen)
            ),
        };
        let parts = [
            Some(full),
            Some(format!("{:.0} pages a second read in from disk again", strain.faults)),
            strain.reclaims.map(|rate| format!("{rate:.0} reclaims a second")),
            strain.system.zip(strain.user).map(|(system, user)| {
                format!("{:.0} % of a core in the kernel and {:.0} % in the app", system * 100.0, user * 100.0)
            }),
            reading.pressure.map(|share| format!("all of it waits for memory {share:.0} % of the time")),
            self.voice.told(reading.at, &self.samples),
            reading
                .pprof_silent
                .filter(|time| *time >= UNANSWERED)
                .map(|time| format!("pprof silent for {}", span(time))),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    fn look_for_the_end(&mut self, at: Duration, speaks: bool) -> Option<Change> {
        // Still strained, only not surely: no sign of health.
        if self.since.is_some() && !speaks {
            self.well_since = None;
            return None;
        }
        let since = *self.well_since.get_or_insert(at);
        if at.saturating_sub(since) < WELL { None } else { self.standing.clear(at) }
    }
}

/// Anything that a frozen app cannot do.
fn speaks(reading: &Reading, strain: Option<Strain>, silent: Option<bool>) -> bool {
    let computes = strain.is_some_and(|it| match (it.user, it.system) {
        (Some(user), Some(system)) => user >= 0.2 && user >= 0.5 * system,
        _ => false,
    });
    computes || silent == Some(false) || reading.pprof_answered.is_some_and(|ago| ago <= ANSWERED)
}

fn per_second(first: &Sample, last: &Sample, of: impl Fn(&Sample) -> Option<u64>) -> Option<f64> {
    let seconds = last.at.saturating_sub(first.at).as_secs_f64();
    let rise = of(last)?.saturating_sub(of(first)?) as f64;
    (seconds > 0.0).then(|| rise / seconds)
}

#[cfg(test)]
mod tests;
