//! Who may ask the page: the checks of host, origin and token.
//!
//! Loopback alone protects nobody: a foreign site can make the browser ask 127.0.0.1, and by DNS rebinding can even read the
//! answer, because the peer address is local then. What it cannot forge is `Host`, `Origin` and `Sec-Fetch-Site`.

use std::hint::black_box;

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::uri::Authority;
use hyper::{Response, StatusCode, Uri};

use super::http::{Body, refusal};

const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// The rules of one listener.
#[derive(Clone)]
pub(super) struct Guard {
    /// Allowed beside the local names, in lower case, without port.
    hosts: Vec<String>,
    token: Option<String>,
}

impl Guard {
    pub(super) fn new(hosts: Vec<String>, token: Option<String>) -> Self {
        Self { hosts: hosts.into_iter().map(|host| host.to_ascii_lowercase()).collect(), token }
    }

    /// The answer to a request that may not pass, or `None`.
    pub(super) fn refuses(&self, uri: &Uri, headers: &HeaderMap) -> Option<Response<Body>> {
        if !self.host_is_ours(uri, headers) {
            let words = "this host name is not allowed: add it to page.hosts\n";
            return Some(refusal(StatusCode::MISDIRECTED_REQUEST, words));
        }
        if self.comes_from_elsewhere(uri, headers) {
            return Some(refusal(StatusCode::FORBIDDEN, "requests of other sites are not answered\n"));
        }
        if holds_data(uri) && !self.token_fits(headers) {
            let mut refusal =
                refusal(StatusCode::UNAUTHORIZED, "the page's token is needed: Authorization: Bearer …\n");
            refusal.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return Some(refusal);
        }
        None
    }

    fn host_is_ours(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let mut hosts = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
        let in_header = host.to_str().ok().and_then(|host| host.parse().ok()).is_some_and(|host| self.allows(&host));
        in_header && uri.authority().is_none_or(|authority| self.allows(authority))
    }

    fn allows(&self, authority: &Authority) -> bool {
        let host = authority.host().to_ascii_lowercase();
        // "user@localhost" is no host name that a browser sends.
        !authority.as_str().contains('@') && (LOCAL.contains(&host.as_str()) || self.hosts.contains(&host))
    }

    fn comes_from_elsewhere(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let origin = headers.get(header::ORIGIN);
        let foreign_origin = origin.is_some_and(|origin| {
            let origin = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok());
            !origin.as_ref().and_then(Uri::authority).is_some_and(|authority| self.allows(authority))
        });
        let site = headers.get(SITE);
        let foreign_site = site.is_some_and(|site| site != "same-origin" && site != "none");
        foreign_origin || (foreign_site && !is_followed_link(uri, headers))
    }

    fn token_fits(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return true };
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        given.is_some_and(|given| same(given, token.as_bytes()))
    }
}

/// A person who follows the link of a Datadog event comes from another site; the page itself holds no data.
fn is_followed_link(uri: &Uri, headers: &HeaderMap) -> bool {
    let is = |name: HeaderName, value: &str| headers.get(name).is_some_and(|given| given == value);
    uri.path() == "/" && is(MODE, "navigate") && is(DEST, "document")
}

/// The page and its assets are the same everywhere, and a browser cannot send a token when it opens them: the page asks for
/// the token and sends it with each request to the API.
fn holds_data(uri: &Uri) -> bool {
    uri.path() != "/" && !uri.path().starts_with("/assets/")
}

/// Compares without telling by its time where the first difference is. The length is no secret.
fn same(given: &[u8], token: &[u8]) -> bool {
    if given.len() != token.len() {
        return false;
    }
    let difference = given.iter().zip(token).fold(0u8, |difference, (a, b)| black_box(difference | (a ^ b)));
    difference == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(uri: &str, headers: &[(&str, &str)], token: Option<&str>, expected: Option<u16>) {
        let guard = Guard::new(vec!["Leaks.example".to_owned()], token.map(str::to_owned));
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).expect("a header name"),
                HeaderValue::from_str(value).expect("a header value"),
            );
        }
        let refused = guard.refuses(&uri.parse().expect("a URI"), &map).map(|refusal| refusal.status().as_u16());
        assert_eq!(refused, expected, "{uri} {headers:?}");
    }

    #[test]
    fn only_known_host_names_are_answered() {
        for host in
            ["localhost", "localhost:7070", "127.0.0.1:1", "[::1]", "[::1]:7070", "leaks.example:80", "LOCALHOST"]
        {
            check("/", &[("host", host)], None, None);
        }
        for host in ["evil.example", "127.0.0.1.evil.example", "localhost.evil", "a@localhost", "", "10.0.0.1", "[::2]"]
        {
            check("/", &[("host", host)], None, Some(421));
        }
        check("/", &[], None, Some(421));
        check("/", &[("host", "localhost"), ("host", "evil.example")], None, Some(421));
        check("http://evil.example/", &[("host", "localhost")], None, Some(421));
    }

    #[test]
    fn other_sites_are_refused_but_a_followed_link_opens_the_page() {
        let local = ("host", "localhost:7070");
        check("/api/status", &[local, ("sec-fetch-site", "same-origin")], None, None);
        check("/api/status", &[local, ("sec-fetch-site", "none")], None, None);
        check("/api/status", &[local, ("sec-fetch-site", "cross-site")], None, Some(403));
        check("/api/status", &[local, ("sec-fetch-site", "same-site")], None, Some(403));
        check("/api/status", &[local, ("origin", "http://localhost:7070")], None, None);
        check("/api/status", &[local, ("origin", "http://evil.example")], None, Some(403));
        check("/api/status", &[local, ("origin", "null")], None, Some(403));
        let link =
            |dest| [local, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", dest)];
        check("/", &link("document"), None, None);
        check("/", &link("iframe"), None, Some(403));
        check("/api/status", &link("document"), None, Some(403));
    }

    #[test]
    fn data_needs_the_token_and_the_page_itself_does_not() {
        let local = ("host", "localhost");
        check("/api/status", &[local], Some("secret"), Some(401));
        check("/api/status", &[local, ("authorization", "Bearer secret")], Some("secret"), None);
        check("/api/status", &[local, ("authorization", "Bearer secreT")], Some("secret"), Some(401));
        check("/api/status", &[local, ("authorization", "Bearer secret2")], Some("secret"), Some(401));
        check("/api/status", &[local, ("authorization", "Basic secret")], Some("secret"), Some(401));
        check("/", &[local], Some("secret"), None);
        check("/assets/app.js", &[local], Some("secret"), None);
    }
}
