//! The series behind the page's chart: bounded in points, thinned by age, newest exact.

use std::sync::Arc;

use super::Observation;
use crate::snapshot::{MAX_READINGS, ReadingPoint};

/// Readings of this process's life, oldest first, at most [`MAX_READINGS`].
#[derive(Debug, Default)]
pub struct Chart {
    points: Vec<ReadingPoint>,
}

impl Chart {
    /// Adds a reading. A full chart is halved by leaving out every other point, but the last quarter stays as it is.
    pub fn push(&mut self, now: f64, seen: &Observation) {
        if self.points.len() >= MAX_READINGS {
            self.thin();
        }
        // The near-limit pace of 250 ms would fill the chart in four minutes: the newest point moves until it is a second
        // away from the one before it.
        if let [.., before, _] = self.points[..]
            && now - before.t < 0.9
        {
            self.points.pop();
        }
        self.points.push(point(now, seen));
    }

    fn thin(&mut self) {
        let keep_from = self.points.len() * 3 / 4;
        let mut index = 0;
        self.points.retain(|_| {
            index += 1;
            index > keep_from || index % 2 == 1
        });
    }

    pub fn points(&self) -> Arc<Vec<ReadingPoint>> {
        Arc::new(self.points.clone())
    }
}

fn point(now: f64, seen: &Observation) -> ReadingPoint {
    let reading = &seen.reading;
    ReadingPoint {
        t: now,
        rss_bytes: seen.rss_bytes,
        working_set_bytes: seen.working_set_bytes,
        heap_bytes: reading.live_heap_bytes,
        limit_bytes: reading.limit_bytes,
        threads: reading.threads,
        goroutines: reading.goroutines,
        fds: reading.fds,
        statsd_clients: reading.statsd_clients,
        incarnation: reading.incarnation,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_life_stays_bounded_and_keeps_its_beginning_and_its_end() {
        let mut chart = Chart::default();
        for second in 0..100_000 {
            chart.push(f64::from(second), &Observation::default());
        }
        let points = chart.points();
        assert!(points.len() <= MAX_READINGS);
        assert_eq!((points[0].t, points[points.len() - 1].t), (0.0, 99_999.0));
        assert!(points.windows(2).all(|pair| pair[0].t < pair[1].t));
    }

    #[test]
    fn a_faster_pace_replaces_the_newest_point() {
        let mut chart = Chart::default();
        for quarter in 0..8 {
            chart.push(f64::from(quarter) * 0.25, &Observation::default());
        }
        let times: Vec<_> = chart.points().iter().map(|point| point.t).collect();
        assert_eq!(times, [0.0, 0.75, 1.5, 1.75]);
    }
}
