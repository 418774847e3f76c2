//! oomwatch: a sidecar that carries an app's StatsD to Datadog, watches its memory, and names the leak before the kill.
//!
//! This file is the map. Pure folders take values and give values, with time as an argument; they import `std`, small data
//! crates and one another, never an I/O folder:
//!
//! * [`statsd`]: the DogStatsD language, bytes to messages and back
//! * [`aggregate`]: contexts, windows and sketches (imports `statsd`)
//! * [`detect`]: readings to alerts: trend, time to limit, the life of an alert
//! * [`pprof`]: profile bytes to profile to what grew and who made it
//! * [`datadog`]: payloads on Datadog's wire, size limits, what to do with an answer (imports `aggregate`, `statsd`)
//!
//! I/O folders touch the world and never import one another:
//!
//! * [`source`]: UDP and Unix sockets, `/proc` and cgroup readings, the census of StatsD clients, the pull of profiles
//! * [`sink`]: queue and retry to the intake, the Agent through one client, profile files
//! * [`page`]: the page and its API; the health listener
//!
//! [`pipeline`] holds the tasks that own state, and every message between them. [`app`] is the only file that knows everybody.
//! [`config`] turns file and environment into checked settings; [`telemetry`] is the catalogue of our own metrics;
//! [`snapshot`] is what the page and the API may see; [`secret`] is what nobody may; [`sys`] tells the allocator to give memory back.

pub mod aggregate;
pub mod app;
pub mod cli;
pub mod config;
pub mod datadog;
pub mod detect;
pub mod page;
pub mod pipeline;
pub mod pprof;
pub mod secret;
pub mod sink;
pub mod snapshot;
pub mod source;
pub mod statsd;
pub mod sys;
pub mod telemetry;
