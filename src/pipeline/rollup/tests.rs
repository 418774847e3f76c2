//! The task over its channels, with tokio's clock held still.

use std::cell::Cell;

use tokio::task::JoinSet;
use tokio::time::{advance, timeout};

use super::*;
use crate::aggregate::{Form, Settings, Window};
use crate::pipeline::Datagram;

const T0: f64 = 1_700_000_000.0;

thread_local! {
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Wall time that goes with tokio's paused clock, three seconds into a bucket at the start.
fn wall() -> f64 {
    BEGAN.with(|began| {
        let at = began.get().unwrap_or_else(Instant::now);
        began.set(Some(at));
        T0 + 3.0 + at.elapsed().as_secs_f64()
    })
}

struct Bench {
    batches: mpsc::Sender<Batch>,
    own: mpsc::Sender<Vec<OwnMetric>>,
    out: mpsc::Receiver<Outgoing>,
    snapshot: watch::Receiver<Arc<StatsdPart>>,
    tasks: JoinSet<()>,
}

fn start(own_metrics: bool, queue: usize) -> Bench {
    wall();
    let (batches, batches_in) = mpsc::channel(64);
    let (own, own_in) = mpsc::channel(16);
    let (out, out_from) = mpsc::channel(queue);
    let (snapshot, snapshot_from) = watch::channel(Arc::new(StatsdPart::default()));
    let rollup = Rollup {
        aggregator: Aggregator::new(Settings::default()),
        batches: batches_in,
        own: own_in,
        out,
        snapshot,
        output: watch::channel(Arc::new(OutputPart { dropped: [("queue_full", 7)].into(), ..OutputPart::default() })).1,
        settings: watch::channel(Settings::default()).1,
        wall_clock: wall,
        flush_every: Duration::from_secs(10),
        own_metrics,
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(rollup.run());
    Bench { batches, own, out: out_from, snapshot: snapshot_from, tasks }
}

fn batch(datagrams: &[(&str, bool)]) -> Batch {
    let mut batch = Batch::default();
    for (text, truncated) in datagrams {
        batch.bytes.extend_from_slice(text.as_bytes());
        batch.datagrams.push(Datagram { end: batch.bytes.len() as u32, truncated: *truncated, port: 1 });
    }
    batch
}

impl Bench {
    async fn send(&self, datagrams: &[(&str, bool)]) {
        self.batches.send(batch(datagrams)).await.unwrap();
    }

    async fn next(&mut self) -> Outgoing {
        timeout(Duration::from_secs(60), self.out.recv()).await.expect("in time").expect("open")
    }

    async fn window(&mut self) -> Vec<(String, i64, f64)> {
        let Outgoing::Window(Window { points, .. }) = self.next().await else { panic!("no window") };
        points.iter().map(|p| (p.context.name().to_owned(), p.timestamp - T0 as i64, p.value)).collect()
    }

    /// Lets the sources end and takes everything that is left; also the last snapshot.
    async fn end(mut self) -> (Vec<Outgoing>, Arc<StatsdPart>) {
        drop(self.batches);
        let mut rest = Vec::new();
        while let Some(outgoing) = self.out.recv().await {
            rest.push(outgoing);
        }
        self.tasks.join_next().await.unwrap().unwrap();
        let part = self.snapshot.borrow().clone();
        (rest, part)
    }
}

#[tokio::test(start_paused = true)]
async fn a_bucket_is_flushed_shortly_after_it_ends() {
    let mut bench = start(false, 16);
    bench.send(&[("a:1|c\na:2|c", false)]).await;
    assert_eq!(bench.window().await, [("a".to_owned(), 0, 0.3)]);
    assert!((10.0..10.2).contains(&(wall() - T0)), "{}", wall() - T0);
    assert_eq!(bench.window().await, [("a".to_owned(), 10, 0.0)]);
}

#[tokio::test(start_paused = true)]
async fn the_end_flushes_the_open_bucket_under_its_own_second() {
    let bench = start(true, 16);
    bench.send(&[("a:1|c", false)]).await;
    bench.own.send(vec![OwnMetric { name: "oomwatch.self.rss", value: 7.0, count: false, tag: None }]).await.unwrap();
    advance(Duration::from_secs(4)).await;
    let (rest, part) = bench.end().await;
    let [Outgoing::Window(window)] = &rest[..] else { panic!("{rest:?}") };
    let mut found: Vec<_> =
        window.points.iter().map(|p| (p.context.name(), p.timestamp - T0 as i64, p.value)).collect();
    found.retain(|(name, ..)| ["a", "oomwatch.self.rss"].contains(name));
    found.sort_by_key(|(name, ..)| *name);
    assert_eq!(found, [("a", 7, 0.1), ("oomwatch.self.rss", 7, 7.0)]);
    assert_eq!(part.identities, BTreeMap::from([("I2", 0), ("I3", 0)]));
    assert_eq!((part.datagrams, part.samples), (1, 1));
    assert_eq!(part.top.names.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_own_metrics_only_the_apps_go_out() {
    let bench = start(false, 16);
    bench.send(&[("a:1|c\nbad", false)]).await;
    bench.own.send(vec![OwnMetric { name: "oomwatch.self.rss", value: 7.0, count: false, tag: None }]).await.unwrap();
    let (rest, _) = bench.end().await;
    let [Outgoing::Window(window)] = &rest[..] else { panic!("{rest:?}") };
    assert_eq!(window.points.iter().map(|p| p.context.name()).collect::<Vec<_>>(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_cut_datagram_keeps_its_whole_lines() {
    let bench = start(false, 16);
    bench.send(&[("a:1|c\na:1|c|#ta", true), ("b:1|c|#wor", true), ("a:1|c", false)]).await;
    let (rest, part) = bench.end().await;
    let [Outgoing::Window(window)] = &rest[..] else { panic!("{rest:?}") };
    assert_eq!((window.points.len(), window.points[0].value), (1, 0.2));
    assert_eq!(part.dropped, BTreeMap::from([("truncated", 2)]));
}

#[tokio::test(start_paused = true)]
async fn events_and_checks_leave_at_once() {
    let mut bench = start(false, 16);
    bench.send(&[("_e{5,4}:title|text\n_sc|x|2\n_sc|x", false)]).await;
    assert!(matches!(bench.next().await, Outgoing::Event(event) if event.title == "title"));
    assert!(matches!(bench.next().await, Outgoing::Check(check) if check.name == "x"));
    let (_, part) = bench.end().await;
    assert_eq!(part.dropped, BTreeMap::from([("parse_check", 1)]));
    assert_eq!(part.identities["I2"], 0);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_costs_the_newest_and_is_counted() {
    let bench = start(false, 1);
    bench.send(&[("_e{5,4}:title|text\n_sc|x|2\na:1|c\nb:1|g", false)]).await;
    let mut snapshot = bench.snapshot.clone();
    let full = |part: &Arc<StatsdPart>| part.dropped.contains_key("queue_full");
    timeout(Duration::from_secs(60), snapshot.wait_for(full)).await.expect("in time").unwrap();
    let expected = BTreeMap::from([("events_queue_full", 1), ("queue_full", 2)]);
    assert_eq!(snapshot.borrow().dropped, expected);
    drop(bench.out);
    drop(bench.batches);
    let mut tasks = bench.tasks;
    tasks.join_next().await.unwrap().unwrap();
    assert_eq!(snapshot.borrow().dropped.get("shutdown"), None, "an idle counter's partial window is empty");
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_is_gone_is_counted_as_shutdown() {
    let bench = start(false, 1);
    bench.send(&[("a:1|c", false)]).await;
    drop(bench.out);
    drop(bench.batches);
    let mut tasks = bench.tasks;
    tasks.join_next().await.unwrap().unwrap();
    assert_eq!(bench.snapshot.borrow().dropped, BTreeMap::from([("shutdown", 1)]));
}

#[tokio::test(start_paused = true)]
async fn our_own_totals_go_through_the_windows() {
    let mut bench = start(true, 16);
    bench.send(&[("a:1:nan|c\nbad", false), ("a:1|c", false)]).await;
    let mut sums = BTreeMap::new();
    for _ in 0..2 {
        let Outgoing::Window(window) = bench.next().await else { panic!("no window") };
        for point in window.points.iter().filter(|point| point.form == Form::Count) {
            *sums.entry(format!("{} {}", point.context.name(), point.context.joined_tags())).or_insert(0.0) +=
                point.value;
        }
    }
    let expected = [
        ("oomwatch.dropped reason:nan", 1.0),
        ("oomwatch.dropped reason:parse_type", 1.0),
        ("oomwatch.dropped reason:queue_full", 7.0),
        ("oomwatch.statsd.datagrams ", 2.0),
        ("oomwatch.statsd.new_senders ", 1.0),
        ("oomwatch.statsd.samples ", 3.0),
    ];
    assert_eq!(sums, expected.into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
}

#[tokio::test(start_paused = true)]
async fn what_clients_say_of_themselves_is_no_load() {
    let bench = start(false, 16);
    bench.send(&[("a:1|c\ndatadog.dogstatsd.client.metrics:1|c\nb:1:2|h", false)]).await;
    let (_, part) = bench.end().await;
    assert_eq!((part.samples, part.app_samples), (4, 3));
}

#[tokio::test(start_paused = true)]
async fn the_snapshot_is_renewed_each_second() {
    let mut bench = start(false, 16);
    bench.snapshot.mark_unchanged();
    bench.send(&[("a:1|c", false)]).await;
    timeout(Duration::from_millis(1100), bench.snapshot.changed()).await.expect("in time").unwrap();
    assert_eq!(bench.snapshot.borrow().samples, 1);
}

#[tokio::test(start_paused = true)]
async fn clients_are_counted_over_ten_seconds_and_their_drops_are_told() {
    let mut bench = start(true, 16);
    let report = "datadog.dogstatsd.client.metrics:4|c|#client:go\ndatadog.dogstatsd.client.packets_dropped:2|c\n\
                  datadog.dogstatsd.client.metric_dropped_on_receive:3|c";
    let mut batch = batch(&[(report, false), (report, false), ("a:1|c", false), ("a:1|c", false)]);
    batch.datagrams[3].port = 2;
    bench.batches.send(batch).await.unwrap();
    let mut snapshot = bench.snapshot.clone();
    let counted = |part: &Arc<StatsdPart>| (part.senders, part.reporting_clients) == (2, 2);
    timeout(Duration::from_secs(11), snapshot.wait_for(counted)).await.expect("in time").unwrap();
    let mut told = BTreeMap::new();
    for _ in 0..2 {
        let Outgoing::Window(window) = bench.next().await else { panic!("no window") };
        for point in window.points.iter().filter(|point| point.context.name().starts_with("oomwatch.statsd.")) {
            *told.entry(format!("{} {}", point.context.name(), point.context.joined_tags())).or_insert(0.0) +=
                point.value;
        }
    }
    assert_eq!(told.get("oomwatch.statsd.client_reported_drops unit:packets"), Some(&4.0));
    assert_eq!(told.get("oomwatch.statsd.client_reported_drops unit:metrics"), Some(&6.0));
    assert_eq!(told.get("oomwatch.statsd.client_reported_drops unit:bytes"), None);
    assert_eq!(told.get("oomwatch.statsd.senders "), Some(&2.0));
    let part = bench.snapshot.borrow().clone();
    let expected = BTreeMap::from([("client_reported", 4), ("client_reported_metrics", 6)]);
    assert_eq!((&part.dropped, part.identities["I2"]), (&expected, 0));
}
