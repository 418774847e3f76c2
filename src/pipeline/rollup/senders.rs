//! Who sends, as the stream itself tells it: source ports, and what the clients report of themselves.
//!
//! A client that was opened and never closed keeps sending telemetry from a port of its own, so both numbers grow with the
//! leak. Counted over windows of ten seconds, which is how often a client reports, whatever the flush interval is. Source
//! ports tell nothing on a Unix socket; reports come on every transport.

use crate::aggregate::Kind;
use crate::statsd::{self, Message};

/// How often Datadog's clients send their telemetry.
const WINDOW_SECONDS: f64 = 10.0;

const CLIENT: &[u8] = b"datadog.dogstatsd.client.";

/// One bit a port; fixed at 8 KiB, whatever is sent.
type Ports = [u64; 1024];

/// Owned by the rollup.
pub(super) struct Senders {
    ports: Box<Ports>,
    distinct: u64,
    /// Ports of this minute and of the one before, and how many were in neither when they came.
    known: [Box<Ports>; 2],
    minute: i64,
    pub(super) new: u64,
    reports: u64,
    /// The window that is open, as a number of windows since 1970.
    window: i64,
    /// What the last whole window said.
    pub(super) last: Counted,
    pub(super) drops: ReportedDrops,
    /// Lines in which clients spoke of themselves, since the start: no work of the app's.
    pub(super) telemetry: u64,
}

/// What one window said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// Distinct source ports.
    pub(super) senders: u64,
    /// Reports of clients on themselves: one a live client with telemetry.
    pub(super) reporting: u64,
}

/// What the clients say that they dropped before it reached us, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ReportedDrops {
    /// Datagrams: what identity I1 wants. `packets_dropped` is the sum of `_queue` and `_writer`, which are not read.
    pub(super) packets: u64,
    /// Metrics that never got into a datagram.
    pub(super) metrics: u64,
    pub(super) bytes: u64,
}

impl ReportedDrops {
    pub(super) fn by_unit(self) -> [(&'static str, u64); 3] {
        [("packets", self.packets), ("metrics", self.metrics), ("bytes", self.bytes)]
    }
}

impl Senders {
    pub(super) fn new() -> Senders {
        Senders {
            ports: Box::new([0; 1024]),
            distinct: 0,
            known: [Box::new([0; 1024]), Box::new([0; 1024])],
            minute: 0,
            new: 0,
            reports: 0,
            window: 0,
            last: Counted::default(),
            drops: ReportedDrops::default(),
            telemetry: 0,
        }
    }

    /// A datagram came from `port`; 0 is a Unix socket's.
    pub(super) fn datagram(&mut self, port: u16) {
        let (place, bit) = (usize::from(port >> 6), 1 << (port & 63));
        if self.ports[place] & bit != 0 || port == 0 {
            return;
        }
        self.ports[place] |= bit;
        self.distinct += 1;
        let [now, before] = &mut self.known;
        self.new += u64::from((now[place] | before[place]) & bit == 0);
        now[place] |= bit;
    }

    /// A line came: of interest only where a client speaks of itself.
    pub(super) fn line(&mut self, line: &[u8]) {
        if line.starts_with(CLIENT) {
            self.telemetry += 1;
            self.report(line);
        }
    }

    fn report(&mut self, line: &[u8]) {
        let Ok(Message::Metric(metric)) = statsd::parse(line) else { return };
        let mut numbers = Vec::new();
        if metric.kind != Kind::Counter || metric.numbers(&mut numbers).is_err() {
            return;
        }
        // A cast saturates: neither a negative nor an absurd number upsets a total.
        let said = numbers.into_iter().sum::<f64>() as u64;
        let (total, count) = match &metric.name[CLIENT.len()..] {
            b"metrics" => (&mut self.reports, 1),
            b"packets_dropped" => (&mut self.drops.packets, said),
            b"metric_dropped_on_receive" => (&mut self.drops.metrics, said),
            b"bytes_dropped" => (&mut self.drops.bytes, said),
            _ => return,
        };
        *total = total.saturating_add(count);
    }

    /// Closes the window that has ended by `now`.
    pub(super) fn tick(&mut self, now: f64) {
        let minute = (now / 60.0).floor() as i64;
        if minute != std::mem::replace(&mut self.minute, minute) {
            self.known.swap(0, 1);
            self.known[0].fill(0);
        }
        let window = (now / WINDOW_SECONDS).floor() as i64;
        if window == self.window {
            return;
        }
        self.window = window;
        self.last = Counted { senders: self.distinct, reporting: self.reports };
        self.ports.fill(0);
        (self.distinct, self.reports) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_counts_distinct_ports_and_reports() {
        let mut senders = Senders::new();
        senders.tick(1000.0);
        for port in [5, 7, 5, 65_535, 0, 0, 64] {
            senders.datagram(port);
        }
        for client in 0..3 {
            senders.line(format!("datadog.dogstatsd.client.metrics:{client}|c|#client:go").as_bytes());
            senders.line(b"datadog.dogstatsd.client.metrics_by_type:9|c|#client:go");
        }
        senders.line(b"a:1|c");
        senders.tick(1009.9);
        assert_eq!(senders.last, Counted::default(), "the window is open");
        senders.tick(1010.0);
        assert_eq!(senders.last, Counted { senders: 4, reporting: 3 });
        senders.datagram(5);
        senders.tick(1020.0);
        assert_eq!(senders.last, Counted { senders: 1, reporting: 0 });
    }

    #[test]
    fn a_port_is_new_when_it_was_silent_for_a_minute() {
        let mut senders = Senders::new();
        let mut hear = |second: f64, ports: &[u16]| {
            senders.tick(second);
            ports.iter().for_each(|port| senders.datagram(*port));
            senders.new
        };
        assert_eq!(hear(600.0, &[5, 6, 5, 0]), 2);
        assert_eq!(hear(611.0, &[5, 7]), 3, "another window, the same minute");
        assert_eq!(hear(671.0, &[5, 7, 8]), 4, "the minute after");
        assert_eq!(hear(731.0, &[5]), 4);
        assert_eq!(hear(792.0, &[5, 7]), 5, "7 was away for two minutes");
    }

    #[test]
    fn reported_drops_add_up_without_their_parts() {
        let mut senders = Senders::new();
        for line in [
            "packets_dropped:5|c|#client:go",
            "packets_dropped_queue:3|c",
            "packets_dropped_writer:2|c",
            "packets_dropped:1:1|c",
            "metric_dropped_on_receive:7|c",
            "bytes_dropped:1000|c",
            "bytes_dropped_queue:1000|c",
            "packets_dropped:-1|c",
            "packets_dropped:nan|c",
            "packets_dropped:9|g",
            "packets_dropped:x|c",
            "packets_dropped",
        ] {
            senders.line(format!("datadog.dogstatsd.client.{line}").as_bytes());
        }
        assert_eq!(senders.drops, ReportedDrops { packets: 7, metrics: 7, bytes: 1000 });
        senders.line(b"datadog.dogstatsd.client.packets_dropped:1e300|c");
        assert_eq!(senders.drops.packets, u64::MAX);
    }
}
