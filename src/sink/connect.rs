//! The way to Datadog: TLS with the roots that we carry, through a proxy where the environment names one.
//!
//! Plain HTTP is for loopback only, so that a key never crosses a network in the clear; there is no switch that skips the
//! check of certificates, a CA file serves the need.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::tunnel::Tunnel;
use crate::secret::Secret;

/// Time to a TCP connection; the request's own limit covers the rest.
const CONNECT: Duration = Duration::from_secs(10);

/// Which proxy leads to HTTPS hosts, and which hosts are reached without it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxy {
    /// `http://[user:password@]host:port`; `None` goes straight.
    pub https: Option<Secret>,
    /// Hosts, domains and networks, separated by commas.
    pub no: String,
}

impl Proxy {
    /// The proxy for this address, if there is one.
    fn towards(&self, address: &Uri) -> Result<Option<Intercept>, String> {
        let Some(https) = &self.https else {
            return Ok(None);
        };
        let matcher = Matcher::builder().https(https.expose()).no(self.no.as_str()).build();
        match matcher.intercept(address) {
            Some(proxy) if proxy.uri().scheme_str() != Some("http") => {
                Err("the HTTPS proxy must be given as http://host:port (it carries a tunnel; TLS to the proxy is not supported)".to_owned())
            }
            proxy => Ok(proxy),
        }
    }
}

/// A connector, straight or through a tunnel.
pub(super) enum Connector {
    Direct(HttpsConnector<HttpConnector>),
    /// With the proxy's host and port.
    Tunnel(HttpsConnector<Tunnel>, String),
}

/// # Errors
/// An address that is neither HTTPS nor loopback, a CA file that cannot be read, a proxy that cannot be used.
pub(super) fn connector(base: &Uri, ca_file: Option<&Path>, proxy: &Proxy) -> Result<Connector, String> {
    check(base)?;
    let tls = tls(ca_file)?;
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(CONNECT));
    let builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
    Ok(match proxy.towards(base)? {
        None => Connector::Direct(builder.wrap_connector(http)),
        Some(proxy) => {
            let tunnel = Tunnel::new(proxy.uri().clone(), proxy.basic_auth().cloned(), http);
            let name = tunnel.name();
            Connector::Tunnel(builder.wrap_connector(tunnel), name)
        }
    })
}

fn check(base: &Uri) -> Result<(), String> {
    let host = base.host().unwrap_or_default();
    match base.scheme_str() {
        Some("https") if !host.is_empty() => Ok(()),
        Some("http") if is_loopback(host) => Ok(()),
        Some("http") => {
            Err(format!("{base}: expected https:// (http:// is for loopback only, the key would travel in the clear)"))
        }
        _ => Err(format!("{base}: expected an address such as https://api.datadoghq.com")),
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The provider is named here and nowhere else: with two of them built in, rustls panics on its default.
fn tls(ca_file: Option<&Path>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(path) = ca_file {
        let broken = |error: &dyn std::fmt::Display| format!("datadog.ca_file {}: {error}", path.display());
        let mut found = 0;
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| broken(&error))? {
            roots.add(certificate.map_err(|error| broken(&error))?).map_err(|error| broken(&error))?;
            found += 1;
        }
        if found == 0 {
            return Err(broken(&"no certificate in it, expected PEM"));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("set up TLS: {error}"))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(https: &str, no: &str) -> Proxy {
        Proxy { https: Some(Secret::new(https)), no: no.to_owned() }
    }

    #[test]
    fn https_or_loopback_and_nothing_else() {
        for good in ["https://api.datadoghq.com", "http://127.0.0.1:9", "http://[::1]:9", "http://localhost:1"] {
            assert_eq!(check(&good.parse().unwrap()), Ok(()), "{good}");
        }
        for bad in ["http://api.datadoghq.com", "http://127.0.0.1.evil.example", "ftp://x", "/path", "http://10.0.0.1"]
        {
            assert!(check(&bad.parse().unwrap()).is_err(), "{bad}");
        }
    }

    #[test]
    fn hosts_of_no_proxy_go_straight_and_tls_to_a_proxy_is_refused() {
        let to = |proxy: &Proxy, address: &str| proxy.towards(&address.parse().unwrap()).map(|it| it.is_some());
        let plain = proxy("http://p:1", "datadoghq.eu");
        assert_eq!(to(&plain, "https://api.datadoghq.com"), Ok(true));
        assert_eq!(to(&plain, "https://api.datadoghq.eu"), Ok(false));
        assert_eq!(to(&plain, "http://127.0.0.1:1"), Ok(false));
        assert!(to(&proxy("https://p:1", ""), "https://api.datadoghq.com").is_err());
    }

    #[test]
    fn a_proxys_password_is_not_shown() {
        assert!(!format!("{:?}", proxy("http://u:secret@p:1", "")).contains("secret"));
    }

    #[test]
    fn a_ca_file_without_a_certificate_is_refused_by_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = tls(Some(file.path())).unwrap_err();
        assert!(error.starts_with("datadog.ca_file ") && error.contains("no certificate"), "{error}");
    }
}
