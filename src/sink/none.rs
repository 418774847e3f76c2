//! The sink of mode `none`: takes everything, counts it as taken, and forgets it. The page still shows what it saw.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::ledger::{Ledger, Now, Waiting};
use crate::pipeline::{Outgoing, WallClock};
use crate::snapshot::OutputPart;

#[derive(Debug)]
pub struct Discard {
    wall_clock: WallClock,
}

impl Discard {
    pub fn new(wall_clock: WallClock) -> Discard {
        Discard { wall_clock }
    }

    /// Runs until the input closes. Nothing is "delivered": the points count under the reason `no_output`.
    pub async fn run(self, mut input: mpsc::Receiver<Outgoing>, status: watch::Sender<Arc<OutputPart>>) {
        let mut ledger = Ledger::new("none", "I4");
        loop {
            let now = Now { tick: Instant::now(), wall: (self.wall_clock)() };
            status.send_replace(Arc::new(ledger.publish(Waiting::default(), now)));
            let Some(outgoing) = input.recv().await else {
                return;
            };
            match outgoing {
                Outgoing::Window(window) => {
                    let points = (window.points.len() + window.sketches.len()) as u64;
                    ledger.take(points);
                    ledger.lose("no_output", points);
                }
                Outgoing::Event(_) | Outgoing::Urgent(_) => ledger.note("event_lost", 1),
                Outgoing::Check(_) => ledger.note("check_lost", 1),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statsd::Event;

    #[tokio::test]
    async fn everything_is_taken_and_counted() {
        let (send, input) = mpsc::channel(4);
        let (status, seen) = watch::channel(Arc::default());
        send.send(Outgoing::Window(crate::aggregate::Window::default())).await.unwrap();
        send.send(Outgoing::Urgent(Event::default())).await.unwrap();
        drop(send);
        Discard::new(|| 0.0).run(input, status).await;
        let part = seen.borrow();
        assert_eq!(
            (part.mode, part.dropped.get("event_lost"), part.identities.get("I4")),
            ("none", Some(&1), Some(&0))
        );
    }
}
