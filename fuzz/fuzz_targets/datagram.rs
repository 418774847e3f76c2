//! Datagrams of any bytes at any time: parsed, recorded, flushed, and written on for an Agent.
//!
//! An input is a byte of settings, then datagrams that are divided by NUL; the byte after a NUL says how many seconds pass
//! before the next, and its highest bit whether a flush comes in between. So real traffic is a seed as it is.
#![no_main]

#[path = "../../src/aggregate/mod.rs"]
#[allow(dead_code, unused_imports)]
mod aggregate;
#[path = "../../src/statsd/mod.rs"]
#[allow(dead_code, unused_imports)]
mod statsd;

use std::collections::HashSet;

use aggregate::{Aggregate, Aggregator, Counters, Form, Mode, Percentile, Settings, Taken, Window};
use libfuzzer_sys::fuzz_target;
use statsd::{Message, format};

/// The names that the aggregator may hold beyond `max_contexts`: overflow contexts, one a name up to 256 and one a type.
const MOST_OVERFLOW: u64 = 256 + 6;

fuzz_target!(|input: &[u8]| {
    let Some((&choice, traffic)) = input.split_first() else { return };
    let mut run = Run::new(choice);
    run.datagrams(traffic);
    let window = run.aggregator.flush_all(run.now);
    run.check(&window);
    run.check_totals();
});

struct Run {
    aggregator: Aggregator,
    now: f64,
    flushed: u64,
    /// The clock never went back and no sample chose its own second: then no series has two points of one second.
    orderly: bool,
}

impl Run {
    fn new(choice: u8) -> Run {
        let bit = |n: u8| choice >> n & 1 == 1;
        let mut settings = Settings {
            mode: if bit(0) { Mode::Agent } else { Mode::Intake },
            counters: if bit(1) { Counters::Count } else { Counters::Rate },
            historical: bit(5),
            ..Settings::default()
        };
        if bit(2) {
            (settings.max_contexts, settings.max_bytes) = (3, 5_000);
        }
        if bit(3) {
            settings.namespace = "app".into();
            settings.tags = vec!["env:prod".into(), "pod_name:p".into()];
        }
        if bit(4) {
            let all = ["min", "max", "median", "avg", "sum", "count"];
            settings.histogram_aggregates = all.into_iter().filter_map(Aggregate::from_name).collect();
            settings.histogram_percentiles =
                [0.01, 0.5, 1.0].into_iter().filter_map(Percentile::from_fraction).collect();
        }
        if bit(6) {
            settings.interval_seconds = 1;
        }
        Run { aggregator: Aggregator::new(settings), now: 1_700_000_000.0, flushed: 0, orderly: true }
    }

    fn datagrams(&mut self, traffic: &[u8]) {
        let mut rest = traffic;
        loop {
            let end = memchr::memchr(0, rest).unwrap_or(rest.len());
            self.datagram(&rest[..end]);
            let Some((&pause, after)) = rest[end..].split_first().and_then(|(_, after)| after.split_first()) else {
                return;
            };
            self.pause(pause);
            rest = after;
        }
    }

    fn datagram(&mut self, bytes: &[u8]) {
        for line in statsd::lines(bytes) {
            self.orderly &= memchr::memmem::find(line, b"|T").is_none();
            match self.aggregator.record_line(self.now, line) {
                Taken::Event(event) => {
                    let mut text = String::new();
                    format::event(&mut text, &event, usize::MAX);
                    one_line(&text, |message| matches!(message, Message::Event(_)));
                }
                Taken::Check(check) => {
                    let mut text = String::new();
                    format::check(&mut text, &check);
                    one_line(&text, |message| matches!(message, Message::Check(_)));
                }
                Taken::Blank | Taken::Metric(_) | Taken::Bad(_) => {}
            }
        }
        self.check_totals();
    }

    fn pause(&mut self, pause: u8) {
        // 0 steps the clock back, beyond what the aggregator takes for a small step.
        let seconds = f64::from(pause & 0x7f);
        self.orderly &= seconds > 0.0;
        self.now += if seconds > 0.0 { seconds } else { -1_000.0 };
        if pause & 0x80 != 0 {
            let window = self.aggregator.flush(self.now);
            self.check(&window);
        }
    }

    /// I2 and I3, what is held against its bounds, and that each point was handed out once.
    fn check_totals(&self) {
        let (stats, settings) = (self.aggregator.stats(), self.aggregator.settings());
        assert_eq!((stats.line_error(), stats.sample_error()), (0, 0), "{stats:?}");
        assert_eq!(stats.points_flushed, self.flushed);
        assert!(stats.contexts <= settings.max_contexts as u64 + MOST_OVERFLOW, "{stats:?}");
    }

    fn check(&mut self, window: &Window) {
        self.flushed += aggregate::points_in(window);
        for point in &window.points {
            assert!(point.value.is_finite(), "{point:?}");
        }
        for point in &window.sketches {
            let sketch = &point.sketch;
            assert!([sketch.min, sketch.max, sketch.sum, sketch.avg].iter().all(|it| it.is_finite()), "{sketch:?}");
            assert_eq!(sketch.bins.iter().map(|bin| u64::from(bin.n)).sum::<u64>(), sketch.count, "{sketch:?}");
            assert!(sketch.bins.is_sorted_by_key(|bin| bin.key), "{sketch:?}");
        }
        if self.aggregator.settings().mode == Mode::Agent {
            lines_read_back(window);
            return;
        }
        assert!(window.raw.is_empty());
        if self.orderly {
            one_point_a_second(window);
        }
    }
}

/// What is written for an Agent is one line each, and is read back as the metric it was.
fn lines_read_back(window: &Window) {
    for point in &window.points {
        let mut text = String::new();
        aggregate::write_point(&mut text, point);
        let gauge = point.form == Form::Gauge;
        one_line(&text, |message| {
            let Message::Metric(line) = message else { return false };
            let mut numbers = Vec::new();
            let read = line.numbers(&mut numbers).is_ok();
            read && numbers == [point.value] && (line.kind == statsd::Kind::Gauge) == gauge
        });
    }
    for raw in &window.raw {
        let kind = raw.context.kind();
        aggregate::write_raw(raw, 1_432, &mut |text: &str| {
            one_line(text, |message| {
                let Message::Metric(line) = message else { return false };
                // One value that alone is longer is the caller's to drop.
                let alone = kind == statsd::Kind::Set || line.items().count() == 1;
                line.kind == kind && (alone || text.len() <= 1_432)
            });
        });
    }
}

fn one_line(text: &str, is_it: impl FnOnce(&Message<'_>) -> bool) {
    assert!(!text.contains('\n'), "{text:?}");
    let message = statsd::parse(text.as_bytes());
    assert!(message.as_ref().is_ok_and(is_it), "{text:?}: {message:?}");
}

/// Datadog keeps the last of two points of one series and second: two would be a loss.
fn one_point_a_second(window: &Window) {
    let mut seen = HashSet::new();
    for point in &window.points {
        let context = &point.context;
        let series = (context.kind(), context.name(), context.host(), context.joined_tags(), point.suffix.text());
        assert!(seen.insert((series, point.timestamp)), "twice: {point:?}");
    }
}
