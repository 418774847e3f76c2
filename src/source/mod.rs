//! I/O in: what the sidecar sees of the app. Each file hands over values of `pipeline`; none imports another I/O folder.
//!
//! * [`sampler`]: one observation a tick; owns everything that is held of the target between ticks
//! * [`find`]: which process is the app, by rules that are told in words
//! * [`process`]: figures of one process and its children from `/proc`
//! * [`cgroup`]: the app's memory cgroup, v1, v2 or both: usage and limit
//! * [`strain`]: what a freeze at the limit looks like: reclaim, faults, processor time
//! * [`kill`]: how the target ended
//! * [`census`]: live StatsD clients and kernel drops from `/proc/net/{udp,udp6,unix}`
//! * [`udp`], `datagrams`, [`unix`], [`unix_stream`]: raw datagrams, or frames of a stream, in batches
//! * [`socket_file`]: the file of a Unix socket, from the bind to the removal
//! * [`puller`], [`fetch`]: one profile at a time from the app's pprof endpoint

pub mod census;
pub mod cgroup;
mod datagrams;
pub mod fetch;
pub mod find;
#[cfg(test)]
mod fixture;
mod frames;
pub mod kill;
pub mod process;
pub mod puller;
pub mod sampler;
pub mod socket_file;
pub mod strain;
pub mod udp;
pub mod unix;
pub mod unix_stream;
