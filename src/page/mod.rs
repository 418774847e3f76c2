//! The two HTTP listeners: the page with its API, and health with the scrape.
//!
//! Both answer from snapshots and hold no state of the pipeline, so a stuck pipeline cannot hang them. The page is meant for
//! loopback, where a browser may be steered by a foreign site: `guard` checks host, origin and token of every request.
//! The health listener may stand on the pod's address and therefore shows nothing but two probes and numbers.
//!
//! Only what concerns profiles asks a task, with a time limit: `profiles`, and `flame`, which reads them.

mod api;
mod assets;
mod flame;
mod guard;
pub mod health;
mod http;
mod openmetrics;
mod profiles;
mod server;
mod stream;
#[cfg(test)]
mod tests;
mod write_limit;

pub use health::HealthServer;
pub use profiles::Wires;
pub use server::{PageServer, Settings};
