//! I/O: source.

mod udp;

pub use udp::UdpSource;
