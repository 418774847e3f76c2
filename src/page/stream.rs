//! `/api/stream`: Server-Sent Events `status`, `reading` and `incident`, from the watch channels.
//!
//! A slow reader never makes a queue: what it has not taken is replaced by something newer. Readings are the exception, so
//! that the chart has no holes, and [`BURST`] bounds them. A part whose owner has ended simply stays as it is.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::unfold;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::api;
use super::http::Body;
use crate::snapshot::Snapshots;

/// Readings sent at once; with more behind, the newest.
const BURST: usize = 64;
/// Between two looks at the parts: several change within one second, and a person reads one page.
const GAP: Duration = Duration::from_millis(400);
/// A comment when nothing happens, so that both ends notice a dead connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The events of one connection, until `stop`.
pub(super) fn events(parts: Snapshots, stop: CancellationToken) -> Body {
    let feed = Feed::new(parts, stop);
    let frames = unfold(feed, |mut feed| async move {
        let bytes = feed.next().await?;
        Some((Ok::<_, Infallible>(Frame::data(bytes)), feed))
    });
    StreamBody::new(frames).boxed_unsync()
}

/// What one connection has been told.
struct Feed {
    parts: Snapshots,
    stop: CancellationToken,
    /// Made and not yet taken: at most a status, [`BURST`] readings and the incidents that changed.
    waiting: VecDeque<Bytes>,
    /// Time of the latest reading that was sent.
    latest: f64,
    /// Incidents as they were last sent. The client asks for the list when the stream opens.
    incidents: BTreeMap<String, Vec<u8>>,
    /// No look at the parts before this.
    rested: Instant,
}

impl Feed {
    /// Begins with the status and the latest reading.
    fn new(mut parts: Snapshots, stop: CancellationToken) -> Self {
        let latest = parts.watch.borrow_and_update().readings.iter().rev().nth(1).map_or(0.0, |point| point.t);
        let incidents = rendered(&mut parts);
        let mut feed = Self { parts, stop, waiting: VecDeque::new(), latest, incidents, rested: Instant::now() };
        feed.tell_status();
        feed
    }

    /// The next bytes for the wire, or `None` after the stop.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.waiting.pop_front() {
                return Some(bytes);
            }
            tokio::select! {
                () = self.stop.cancelled() => return None,
                () = tokio::time::sleep_until(self.rested) => {}
            }
            tokio::select! {
                () = self.stop.cancelled() => return None,
                () = changed(&mut self.parts.statsd) => self.tell_status(),
                () = changed(&mut self.parts.output) => self.tell_status(),
                () = changed(&mut self.parts.watch) => self.tell_status(),
                () = changed(&mut self.parts.incidents) => self.tell_incidents(),
                () = tokio::time::sleep(KEEP_ALIVE) => self.waiting.push_back(Bytes::from_static(b": still here\n\n")),
            }
        }
    }

    /// The status and the readings since the last time.
    fn tell_status(&mut self) {
        self.rested = Instant::now() + GAP;
        self.parts.statsd.mark_unchanged();
        self.parts.output.mark_unchanged();
        let readings = self.parts.watch.borrow_and_update().readings.clone();
        self.waiting.push_back(event("status", &api::status(&self.parts)));
        let fresh = readings.iter().rev().take(BURST).take_while(|point| point.t > self.latest).count();
        for point in &readings[readings.len() - fresh..] {
            self.waiting.push_back(event("reading", &api::reading(point)));
            self.latest = point.t;
        }
    }

    /// The incidents that are new or differ.
    fn tell_incidents(&mut self) {
        let now = rendered(&mut self.parts);
        for (id, json) in &now {
            if self.incidents.get(id) != Some(json) {
                self.waiting.push_back(event("incident", json));
            }
        }
        self.incidents = now;
    }
}

fn rendered(parts: &mut Snapshots) -> BTreeMap<String, Vec<u8>> {
    let incidents = parts.incidents.borrow_and_update().clone();
    incidents.iter().map(|incident| (incident.id.clone(), api::json(incident))).collect()
}

/// Ready at the next change; never once the owner has ended.
async fn changed<T>(part: &mut watch::Receiver<T>) {
    if part.changed().await.is_err() {
        pending::<()>().await;
    }
}

/// JSON has no line breaks, so one `data:` line carries it.
fn event(name: &str, json: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(name.len() + json.len() + 16);
    bytes.extend_from_slice(b"event: ");
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(b"\ndata: ");
    bytes.extend_from_slice(json);
    bytes.extend_from_slice(b"\n\n");
    Bytes::from(bytes)
}
