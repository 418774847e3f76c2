//! The tasks that own state, and every message that passes between tasks, with the size of every queue.
//!
//! ```text
//! source::udp ──Batch──▶ rollup ──Outgoing──▶ sink
//!                          ▲                   ▲
//!                          │ Vec<OwnMetric>     │ Outgoing::Event
//!                        watch ──Finding──▶ investigate
//! ```

use crate::aggregate::Window;
use crate::statsd::{Event, ServiceCheck};

/// Batches between a socket and the rollup. Full: the socket waits, the kernel buffers, and what the kernel drops is read
/// back from `/proc/net/udp` and counted as `kernel_rcvbuf`.
pub const BATCHES: usize = 64;

/// Windows, events and checks on their way to the sink, which never waits for the network before taking the next: it moves
/// them to its own byte-bounded queue. Full: the newest is dropped and its points counted as `queue_full`.
pub const OUTGOING: usize = 256;

/// Raw datagrams as they came, back to back. Parsing happens in the rollup.
#[derive(Debug, Default)]
pub struct Batch {
    pub bytes: Vec<u8>,
    /// Where each datagram ends in `bytes`, and what is known of it.
    pub datagrams: Vec<Datagram>,
}

#[derive(Clone, Copy, Debug)]
pub struct Datagram {
    pub end: u32,
    /// Longer than `statsd.max_datagram`: the cut last line is dropped and counted.
    pub truncated: bool,
    /// The sender's source port; 0 on a Unix socket.
    pub port: u16,
}

/// What leaves for Datadog.
#[derive(Debug)]
pub enum Outgoing {
    Window(Window),
    Event(Event),
    /// An incident's event: ahead of every backlog, tried at once.
    Urgent(Event),
    Check(ServiceCheck),
}

/// One of our own gauges or counts, on its way through the same windows as the app's metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnMetric {
    pub name: &'static str,
    pub value: f64,
    pub count: bool,
    /// `key:value`, from enums only.
    pub tag: Option<String>,
}
