//! What leaves: to Datadog's intake over HTTPS, to a Datadog Agent as DogStatsD, or nowhere; and the profile files.
//!
//! [`intake`] joins a client that knows HTTP and no queue with a dispatch that knows queues and no network. [`agent`] relays
//! windows through one client for life. [`none`] counts and forgets. [`store`] keeps profiles, [`upload`] sends them, [`state`] keeps
//! what outlives a restart. None of them imports another I/O folder; what comes in are the types of [`crate::pipeline`].

pub mod agent;
mod agent_lines;
mod breaker;
mod client;
mod complaints;
mod connect;
mod datagram;
mod dispatch;
mod inflow;
pub mod intake;
mod key;
mod ledger;
pub mod none;
mod outcome;
mod queue;
mod random;
pub mod reach;
mod sealed;
mod spool;
pub mod state;
mod storage;
pub mod store;
mod store_dir;
mod tunnel;
pub mod upload;
mod whole;

pub use connect::Proxy;
pub use spool::last_partial;
