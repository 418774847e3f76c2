//! Binds every listener before anything is spawned, and tells all that is taken at once, each with what to do.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;

use crate::config::Config;
use crate::page::{HealthServer, PageServer};
use crate::source::udp::UdpSource;

use super::settings;

/// Everything that listens, bound and not yet reading.
#[derive(Debug)]
pub(super) struct Bound {
    pub statsd: Vec<UdpSource>,
    pub page: PageServer,
    pub health: HealthServer,
    /// IPv6 addresses that this machine does not have: said, not refused, as long as another address was bound.
    pub missing: Vec<SocketAddr>,
}

impl Bound {
    pub async fn bind(config: &Config) -> Result<Bound, Vec<String>> {
        let (mut faults, mut missing, mut statsd) = (Vec::new(), Vec::new(), Vec::new());
        for address in &config.statsd.listen {
            let size = config.statsd.receive_buffer.0 as usize;
            match UdpSource::bind(*address, size, config.statsd.max_datagram.0 as usize) {
                Ok(source) => statsd.push(source),
                Err(fault) if address.is_ipv6() && is_without_ipv6(&fault) => missing.push(*address),
                Err(fault) => faults.push(refused("statsd.listen", address, &fault)),
            }
        }
        if statsd.is_empty() && faults.is_empty() {
            faults.push(
                "statsd.listen: none of its addresses exists here: expected one such as \"127.0.0.1:8125\"".to_owned(),
            );
        }
        let health = HealthServer::bind(config.health.listen).await;
        let page = PageServer::bind(settings::page(config)).await;
        faults.extend(health.as_ref().err().map(|fault| refused("health.listen", &config.health.listen, fault)));
        faults.extend(page.as_ref().err().map(|fault| refused("page.listen", &config.page.listen, fault)));
        match (health, page) {
            (Ok(health), Ok(page)) if faults.is_empty() => Ok(Bound { statsd, page, health, missing }),
            _ => Err(faults),
        }
    }
}

/// A pod without IPv6 has no ::1, a node with `ipv6.disable=1` not even the sockets, and the default listens on both.
fn is_without_ipv6(fault: &io::Error) -> bool {
    fault.kind() == io::ErrorKind::AddrNotAvailable
        || fault.raw_os_error() == Some(nix::errno::Errno::EAFNOSUPPORT as i32)
}

fn refused(key: &str, address: &impl Display, fault: &io::Error) -> String {
    let advice = match fault.kind() {
        io::ErrorKind::AddrInUse => {
            "the port is in use, perhaps by a Datadog Agent beside the app: stop that, or take another port and point the app at it"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need rights that a sidecar should not have: take one above"
        }
        io::ErrorKind::AddrNotAvailable => "this machine has no such address: take 127.0.0.1",
        _ => "expected an address that can be listened on",
    };
    format!("{key} = \"{address}\": {fault}; {advice}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_ipv6_is_no_fault() {
        assert!(is_without_ipv6(&io::Error::from_raw_os_error(nix::errno::Errno::EAFNOSUPPORT as i32)));
        assert!(is_without_ipv6(&io::Error::from_raw_os_error(nix::errno::Errno::EADDRNOTAVAIL as i32)));
        assert!(!is_without_ipv6(&io::Error::from(io::ErrorKind::AddrInUse)));
    }

    #[test]
    fn a_taken_port_names_its_key_and_the_way_out() {
        let fault = io::Error::from(io::ErrorKind::AddrInUse);
        let words = refused("page.listen", &"127.0.0.1:7070", &fault);
        assert!(words.starts_with("page.listen = \"127.0.0.1:7070\": "), "{words}");
        assert!(words.contains("take another port"), "{words}");
    }
}
