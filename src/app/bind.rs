//! Binds every listener before anything is spawned, and tells all that is taken at once, each with what to do.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::page::{HealthServer, PageServer};
use crate::sink::state;
use crate::snapshot::DegradedView;
use crate::source::{udp::UdpSource, unix::UnixgramSource, unix_stream::UnixStreamSource};

use super::{own_address, settings};

/// Everything that listens, bound and not yet reading, and the folder of the state, tried.
#[derive(Debug)]
pub(super) struct Bound {
    pub statsd: Vec<UdpSource>,
    pub unixgram: Option<UnixgramSource>,
    pub unixstream: Option<UnixStreamSource>,
    pub page: PageServer,
    pub health: HealthServer,
    /// IPv6 addresses that this machine does not have: said, not refused, as long as another address was bound.
    pub missing: Vec<SocketAddr>,
    /// What is wrong with `state.dir`; its owner says so from then on.
    pub unusable_state: Option<DegradedView>,
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
        let max = config.statsd.max_datagram.0 as usize;
        let at = &config.statsd;
        let unixgram = bind_path("statsd.socket", &at.socket, |path| UnixgramSource::bind(path, max), &mut faults);
        let unixstream =
            bind_path("statsd.stream_socket", &at.stream_socket, |path| UnixStreamSource::bind(path, max), &mut faults);
        if statsd.is_empty() && unixgram.is_none() && unixstream.is_none() && faults.is_empty() {
            faults.push(
                "statsd.listen: none of its addresses exists here: expected one such as \"127.0.0.1:8125\"".to_owned(),
            );
        }
        let health = HealthServer::bind(config.health.listen).await;
        let page = PageServer::bind(settings::page(config)).await;
        faults.extend(health.as_ref().err().map(|fault| refused("health.listen", &config.health.listen, fault)));
        faults.extend(page.as_ref().err().map(|fault| refused("page.listen", &config.page.listen, fault)));
        match (health, page) {
            (Ok(health), Ok(page)) if faults.is_empty() => {
                let unusable_state = config.state.dir.as_deref().and_then(state::check);
                let bound = Bound { statsd, unixgram, unixstream, page, health, missing, unusable_state };
                own_address::fault(config, &bound).await.map_or(Ok(bound), |fault| Err(vec![fault]))
            }
            _ => Err(faults),
        }
    }
}

/// A pod without IPv6 has no ::1, a node with `ipv6.disable=1` not even the sockets, and the default listens on both.
pub(super) fn is_without_ipv6(fault: &io::Error) -> bool {
    fault.kind() == io::ErrorKind::AddrNotAvailable
        || fault.raw_os_error() == Some(nix::errno::Errno::EAFNOSUPPORT as i32)
}

/// Binds a Unix socket where one is wanted; a fault is noted.
fn bind_path<T>(
    key: &str,
    path: &Option<PathBuf>,
    bind: impl FnOnce(&Path) -> io::Result<T>,
    faults: &mut Vec<String>,
) -> Option<T> {
    let path = path.as_ref()?;
    bind(path).map_err(|fault| faults.push(refused_path(key, path, &fault))).ok()
}

fn refused_path(key: &str, path: &Path, fault: &io::Error) -> String {
    let advice = match fault.kind() {
        io::ErrorKind::AlreadyExists => {
            "it is not replaced, because it may be data: remove it, or take the path of a file that does not exist"
        }
        io::ErrorKind::AddrInUse => {
            "a process receives there, perhaps a Datadog Agent of this node: take another path, in a directory of this pod"
        }
        io::ErrorKind::NotFound => "its directory must exist: mount an emptyDir there, in the app's container as well",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "its directory must be writable for the user of this container: mount an emptyDir there"
        }
        _ => "expected a path at which a Unix socket can be made",
    };
    format!("{key} = \"{}\": {fault}; {advice}", path.display())
}

pub(super) fn refused(key: &str, address: &impl Display, fault: &io::Error) -> String {
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
    fn a_path_that_cannot_be_bound_names_its_key_and_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        for (name, advice) in [("file", "remove it"), ("no/dir/s", "emptyDir")] {
            let mut faults = Vec::new();
            let path = Some(dir.path().join(name));
            let bound =
                bind_path("statsd.socket", &path, |path| std::os::unix::net::UnixDatagram::bind(path), &mut faults);
            assert!(bound.is_none());
            assert!(faults[0].starts_with("statsd.socket = \"/"), "{faults:?}");
            let kind = if name == "file" { io::ErrorKind::AlreadyExists } else { io::ErrorKind::NotFound };
            assert!(refused_path("statsd.socket", dir.path(), &kind.into()).contains(advice));
        }
    }

    #[test]
    fn a_taken_port_names_its_key_and_the_way_out() {
        let fault = io::Error::from(io::ErrorKind::AddrInUse);
        let words = refused("page.listen", &"127.0.0.1:7070", &fault);
        assert!(words.starts_with("page.listen = \"127.0.0.1:7070\": "), "{words}");
        assert!(words.contains("take another port"), "{words}");
    }
}
