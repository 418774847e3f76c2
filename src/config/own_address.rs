//! Whether the Agent to send to is one of our own listeners, as far as the settings tell.
//!
//! Names that must be looked up, and paths that lead to the same socket, are compared once the listeners are bound: see
//! `app::own_address`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Config;
use super::datadog_env::set;
use super::layers::Layers;
use super::types::{AgentAddress, is_loopback};

/// Refuses an Agent that is ourselves: what we send would come back to us, for ever.
pub(super) fn check(config: &Config, address: &AgentAddress, layers: &mut Layers, env: &BTreeMap<String, String>) {
    let ourselves = match address {
        AgentAddress::Unix(path) => {
            [&config.statsd.socket, &config.statsd.stream_socket].into_iter().flatten().any(|ours| ours == path)
        }
        AgentAddress::Udp(host, port) => {
            let own = set(env, "POD_IP").is_some_and(|ip| ip == host);
            config.statsd.listen.iter().any(|listen| listen.port() == *port && reaches(host, listen.ip(), own))
        }
    };
    if ourselves {
        let expected = "the real Agent's address, such as \"udp://$(HOST_IP):8125\": this is our own listener \
                        (statsd.listen), and we would send to ourselves; set OOMWATCH_DATADOG__AGENT__DOGSTATSD";
        layers.refuse("datadog.agent.dogstatsd", expected);
    }
}

/// Whether a datagram to `host` arrives at a socket bound to `listen`; `own` says that the host is the pod's own address.
fn reaches(host: &str, listen: IpAddr, own: bool) -> bool {
    let listen = listen.to_canonical();
    if host.eq_ignore_ascii_case("localhost") {
        return listen.is_loopback() || listen.is_unspecified();
    }
    let Ok(host_ip) = host.parse::<IpAddr>().map(|ip| ip.to_canonical()) else { return false };
    // A datagram to the unspecified address goes to loopback.
    let to_loopback = is_loopback(&host_ip.to_string()) || host_ip.is_unspecified();
    host_ip == listen
        || (listen.is_unspecified() && (to_loopback || own))
        || (host_ip.is_unspecified() && listen.is_loopback())
}
