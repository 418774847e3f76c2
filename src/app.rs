//! Wiring: binds the sockets, builds every task, owns the JoinSet, drains. The only file that knows everybody.
//!
//! Binding comes first and tells all faults at once; nothing is spawned before everything stands. At SIGTERM only the sources
//! are told to stop: the rest ends as its input closes, having flushed, under the one deadline of `run.shutdown_timeout`.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
