//! What leaves: to Datadog's intake over HTTPS, to a Datadog Agent as DogStatsD, or nowhere; and the profile files.
//!
//! [`intake`] joins a client that knows HTTP and no queue with a dispatch that knows queues and no network. [`agent`] relays
//! windows through one client for life. [`none`] counts and forgets. [`store`] keeps profiles,
//! [`upload`] sends them. None of them imports another
//! I/O folder; what comes in are the types of [`crate::pipeline`].

pub mod agent;
mod agent_lines;
mod breaker;
mod client;
mod complaints;
mod connect;
mod datagram;
mod dispatch;
pub mod intake;
mod ledger;
pub mod none;
mod queue;
mod random;
mod secret;
pub mod store;
mod store_dir;
pub mod upload;

pub use connect::Proxy;
pub use secret::Secret;
