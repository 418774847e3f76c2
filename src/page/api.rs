//! The API's JSON, made from the snapshots: parts are merged here, nothing is computed anew.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use crate::snapshot::{
    About, DegradedView, IncidentView, MemoryView, OutputPart, ReadingPoint, Snapshots, StatsdPart, TargetView, TopName,
};

/// Rows of `/api/contexts` unless `top` says otherwise.
const TOP: usize = 20;

/// `/api/status`, and the `status` event of the stream.
#[derive(Serialize)]
struct Status<'a> {
    #[serde(flatten)]
    about: &'a About,
    target: &'a Option<TargetView>,
    output: &'a OutputPart,
    statsd: StatsdPart,
    memory: MemoryView,
    identities: BTreeMap<&'static str, i64>,
    degraded: Vec<&'a DegradedView>,
}

/// The state of everything, as JSON.
pub(super) fn status(parts: &Snapshots) -> Vec<u8> {
    let statsd = parts.statsd.borrow().clone();
    let output = parts.output.borrow().clone();
    let watch = parts.watch.borrow().clone();
    let about = parts.about.borrow().clone();
    let mut memory = watch.memory.clone();
    if memory.state.is_empty() {
        memory.state = "learning";
    }
    let mut degraded: Vec<&DegradedView> = Vec::new();
    let state = parts.state.borrow().clone();
    for view in about.degraded.iter().chain(&watch.degraded).chain(&output.degraded).chain(state.iter()) {
        if !degraded.contains(&view) {
            degraded.push(view);
        }
    }
    let kernel = BTreeMap::from([("kernel_rcvbuf", watch.kernel_drops)]);
    let mut dropped = sum(&sum(&statsd.dropped, &output.dropped), &kernel);
    dropped.retain(|_, count| *count > 0);
    json(&Status {
        about: &about,
        target: &watch.target,
        output: &output,
        statsd: StatsdPart { clients: watch.statsd_clients, dropped, ..StatsdPart::clone(&statsd) },
        memory,
        identities: sum(&sum(&statsd.identities, &output.identities), &watch.identities),
        degraded,
    })
}

/// Both maps in one; a key of both carries the sum.
fn sum<N: Copy + std::ops::AddAssign>(
    one: &BTreeMap<&'static str, N>,
    other: &BTreeMap<&'static str, N>,
) -> BTreeMap<&'static str, N> {
    let mut all = one.clone();
    for (key, value) in other {
        all.entry(key).and_modify(|sum| *sum += *value).or_insert(*value);
    }
    all
}

/// `/api/readings` as columns of equal length; `null` where a figure is not known.
#[derive(Default, Serialize)]
struct Columns {
    t: Vec<f64>,
    rss_bytes: Vec<Option<u64>>,
    working_set_bytes: Vec<Option<u64>>,
    heap_bytes: Vec<Option<u64>>,
    limit_bytes: Vec<Option<u64>>,
    threads: Vec<Option<u64>>,
    goroutines: Vec<Option<u64>>,
    fds: Vec<Option<u64>>,
    statsd_clients: Vec<Option<u64>>,
    incarnation: Vec<u64>,
}

impl Columns {
    fn push(&mut self, point: &ReadingPoint) {
        self.t.push(point.t);
        self.rss_bytes.push(point.rss_bytes);
        self.working_set_bytes.push(point.working_set_bytes);
        self.heap_bytes.push(point.heap_bytes);
        self.limit_bytes.push(point.limit_bytes);
        self.threads.push(point.threads);
        self.goroutines.push(point.goroutines);
        self.fds.push(point.fds);
        self.statsd_clients.push(point.statsd_clients);
        self.incarnation.push(point.incarnation);
    }
}

/// The readings after `since` (Unix seconds), as JSON columns.
pub(super) fn readings(points: &[ReadingPoint], since: f64) -> Vec<u8> {
    let mut columns = Columns::default();
    points.iter().filter(|point| point.t > since).for_each(|point| columns.push(point));
    json(&columns)
}

/// The readings after `since` in the form that `replay` reads; an unknown figure is an empty field.
pub(super) fn readings_csv(points: &[ReadingPoint], since: f64) -> String {
    let mut csv = String::from("t_s,rss_bytes,working_set_bytes,threads,limit_bytes,incarnation\n");
    for point in points.iter().filter(|point| point.t > since) {
        let field = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
        let (rss, working_set) = (field(point.rss_bytes), field(point.working_set_bytes));
        let (threads, limit) = (field(point.threads), field(point.limit_bytes));
        writeln!(csv, "{},{rss},{working_set},{threads},{limit},{}", point.t, point.incarnation)
            .expect("writing to a string cannot fail");
    }
    csv
}

/// One reading, under the names of the columns: the `reading` event of the stream.
pub(super) fn reading(point: &ReadingPoint) -> Vec<u8> {
    json(point)
}

/// `/api/contexts`: `names` are the busiest, `most_contexts` the most numerous.
pub(super) fn contexts(parts: &Snapshots, top: Option<usize>) -> Vec<u8> {
    #[derive(Serialize)]
    struct Contexts<'a> {
        names: &'a [TopName],
        most_contexts: &'a [TopName],
        folded: u64,
    }
    let statsd = parts.statsd.borrow().clone();
    let sorted = |key: fn(&TopName) -> u64| {
        let mut names = statsd.top.names.clone();
        names.sort_by_key(|name| std::cmp::Reverse(key(name)));
        names.truncate(top.unwrap_or(TOP));
        names
    };
    let (busiest, numerous) = (sorted(|name| name.samples), sorted(|name| name.contexts));
    json(&Contexts { names: &busiest, most_contexts: &numerous, folded: statsd.top.folded })
}

/// `/api/incidents`, newest first whatever the order they were published in.
pub(super) fn incidents(incidents: &[IncidentView]) -> Vec<u8> {
    let mut newest_first: Vec<&IncidentView> = incidents.iter().collect();
    // RFC 3339 in UTC sorts as text.
    newest_first.sort_by(|a, b| b.opened_at.cmp(&a.opened_at));
    json(&newest_first)
}

pub(super) fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("views are plain structs with text keys")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_has_the_header_of_replay_and_leaves_unknown_figures_empty() {
        let point = ReadingPoint { t: 1.5, rss_bytes: Some(7), threads: Some(3), incarnation: 2, ..Default::default() };
        let expected = "t_s,rss_bytes,working_set_bytes,threads,limit_bytes,incarnation\n1.5,7,,3,,2\n";
        assert_eq!(readings_csv(&[ReadingPoint::default(), point], 0.0), expected);
    }

    #[test]
    fn columns_have_one_entry_a_reading_after_since() {
        let points = [1.0, 2.0, 3.0].map(|t| ReadingPoint { t, fds: Some(t as u64), ..Default::default() });
        let columns: serde_json::Value = serde_json::from_slice(&readings(&points, 1.0)).expect("JSON");
        assert_eq!(columns["t"], serde_json::json!([2.0, 3.0]));
        assert_eq!(columns["fds"], serde_json::json!([2, 3]));
        let lengths: Vec<_> =
            columns.as_object().expect("an object").values().map(|c| c.as_array().map(Vec::len)).collect();
        assert_eq!(lengths, vec![Some(2); 10]);
    }

    #[test]
    fn a_reading_has_the_names_of_the_columns() {
        let keys = |bytes: &[u8]| -> Vec<String> {
            let value: serde_json::Value = serde_json::from_slice(bytes).expect("JSON");
            value.as_object().expect("an object").keys().cloned().collect()
        };
        assert_eq!(keys(&reading(&ReadingPoint::default())), keys(&readings(&[], 0.0)));
    }

    #[test]
    fn a_loss_of_two_parts_is_added_up() {
        let sum = sum(&BTreeMap::from([("a", 1u64), ("b", 2)]), &BTreeMap::from([("b", 3), ("c", 4)]));
        assert_eq!(sum, BTreeMap::from([("a", 1), ("b", 5), ("c", 4)]));
    }
}
