//! Whether the Agent to send to is ourselves, once our listeners are bound: what the settings alone do not show. A path may lead
//! to our socket by a link or a second mount, and a name may be that of this pod.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use super::bind::Bound;
use crate::config::{AgentAddress, Config, Output};

/// A name server that does not answer must not hold the start back: nothing is read from the sockets meanwhile.
const LOOK_UP: Duration = Duration::from_millis(100);

/// The fault to end with, if what we send would come back to us.
pub(super) async fn fault(config: &Config, bound: &Bound) -> Option<String> {
    let Output::Agent(address) = &config.output else { return None };
    let ours: Vec<SocketAddr> = bound.statsd.iter().map(|source| source.local_addr()).collect();
    let ourselves = match address {
        AgentAddress::Udp(host, port) => {
            ours.iter().any(|own| own.port() == *port) && leads_here(host.clone(), *port, ours).await
        }
        AgentAddress::Unix(path) => {
            let sockets = [&config.statsd.socket, &config.statsd.stream_socket];
            sockets.into_iter().flatten().any(|own| is_same_file(own, path))
        }
    };
    ourselves.then(|| {
        format!(
            "datadog.agent.dogstatsd = \"{address}\": this is our own listener, and we would send to ourselves: expected the \
             real Agent's address, such as \"udp://$(HOST_IP):8125\""
        )
    })
}

/// [`leads_to`] on a thread for blocking work, for as long as a start may wait.
async fn leads_here(host: String, port: u16, ours: Vec<SocketAddr>) -> bool {
    let looked_up = tokio::task::spawn_blocking(move || leads_to(&host, port, &ours));
    matches!(tokio::time::timeout(LOOK_UP, looked_up).await, Ok(Ok(true)))
}

/// A name that cannot be looked up now is nobody's.
fn leads_to(host: &str, port: u16, ours: &[SocketAddr]) -> bool {
    let Ok(peers) = (host, port).to_socket_addrs() else { return false };
    let peers: Vec<IpAddr> = peers.map(|peer| peer.ip().to_canonical()).collect();
    ours.iter()
        .filter(|own| own.port() == port)
        .any(|own| peers.iter().any(|peer| reaches(*peer, own.ip().to_canonical())))
}

/// Whether a datagram to `peer` arrives at a socket bound to `own`.
fn reaches(peer: IpAddr, own: IpAddr) -> bool {
    // A datagram to the unspecified address goes to loopback; what binds here is an address of this machine.
    peer == own
        || (peer.is_unspecified() && own.is_loopback())
        || (own.is_unspecified() && UdpSocket::bind((peer, 0)).is_ok())
}

fn is_same_file(own: &Path, other: &Path) -> bool {
    let id = |path: &Path| std::fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    id(own).is_some_and(|own| id(other) == Some(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_this_machine_leads_to_a_socket_on_every_address() {
        let at = |text: &str| -> Vec<SocketAddr> { vec![text.parse().unwrap()] };
        for (host, own, expected) in [
            ("localhost", "127.0.0.1:8125", true),
            ("127.0.0.1", "127.0.0.1:8125", true),
            ("127.0.0.2", "127.0.0.1:8125", false),
            ("127.0.0.2", "0.0.0.0:8125", true),
            ("0.0.0.0", "127.0.0.1:8125", true),
            ("::ffff:127.0.0.1", "127.0.0.1:8125", true),
            ("192.0.2.1", "0.0.0.0:8125", false),
            ("127.0.0.1", "127.0.0.1:9125", false),
            ("no such name", "127.0.0.1:8125", false),
        ] {
            assert_eq!(leads_to(host, 8125, &at(own)), expected, "{host} to {own}");
        }
    }

    #[test]
    fn a_link_is_the_same_socket() {
        let dir = tempfile::tempdir().unwrap();
        let (own, link, other) = (dir.path().join("own"), dir.path().join("link"), dir.path().join("other"));
        let bound = [&own, &other].map(|path| std::os::unix::net::UnixDatagram::bind(path).unwrap());
        std::os::unix::fs::symlink(&own, &link).unwrap();
        assert!(is_same_file(&own, &link));
        assert!(!is_same_file(&own, &other) && !is_same_file(&own, &dir.path().join("none")));
        drop(bound);
    }
}
