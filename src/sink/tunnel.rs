//! A connection through a forward proxy: CONNECT, and then whatever TLS makes of it.
//!
//! Our own and not hyper-util's, because whoever has a proxy in the way needs to be told what it said: its status, that it
//! wants a password, that it sent a page. Credentials go to the proxy and nowhere else, and no message holds them.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::Uri;
use hyper::header::HeaderValue;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower::{BoxError, Service};

/// Bytes of the proxy's head that are read. Squid's longest refusals have about 500.
const MAX_HEAD: usize = 8_192;

/// Connects to a proxy and asks it for a tunnel to the address that is called.
#[derive(Clone, Debug)]
pub(super) struct Tunnel {
    http: HttpConnector,
    proxy: Uri,
    auth: Option<HeaderValue>,
}

/// Why there is no tunnel. The words name the proxy by host and port.
#[derive(Debug, thiserror::Error)]
#[error("the proxy {proxy} {}", .fault.words())]
pub(super) struct NoTunnel {
    pub proxy: String,
    pub fault: Fault,
}

#[derive(Debug)]
pub(super) enum Fault {
    Unreachable(BoxError),
    Closed,
    /// It wants a user and a password, or others than it got.
    Password,
    /// Another status than 200.
    Status {
        code: u16,
        target: String,
    },
    /// What came is no head of HTTP, or has something behind it before the tunnel was used.
    Foreign,
}

impl Fault {
    fn words(&self) -> String {
        match self {
            Fault::Unreachable(why) => format!("cannot be reached: {}", super::outcome::chain(why.as_ref())),
            Fault::Closed => "closed the connection instead of opening a tunnel".to_owned(),
            Fault::Password => "wants a user name and a password, or refused those it got (407)".to_owned(),
            Fault::Status { code, target } => format!("answered {code} when asked for a tunnel to {target}"),
            Fault::Foreign => "sent something else than a tunnel, perhaps a page".to_owned(),
        }
    }

    pub fn fix(&self) -> &'static str {
        match self {
            Fault::Unreachable(_) | Fault::Closed => {
                "check that it runs, that egress to it is allowed, and its address in HTTPS_PROXY (or DD_PROXY_HTTPS)"
            }
            Fault::Password => "put them into HTTPS_PROXY: http://user:password@host:port",
            Fault::Status { .. } => {
                "have it allow CONNECT to that host and port, or name the host in NO_PROXY to go without it"
            }
            Fault::Foreign => "check that HTTPS_PROXY (or DD_PROXY_HTTPS) names a forward proxy that speaks CONNECT",
        }
    }
}

impl Tunnel {
    pub fn new(proxy: Uri, auth: Option<HeaderValue>, http: HttpConnector) -> Tunnel {
        Tunnel { http, proxy, auth }
    }

    /// Host and port of the proxy, without its password.
    pub fn name(&self) -> String {
        let port = self.proxy.port_u16().unwrap_or(80);
        format!("{}:{port}", self.proxy.host().unwrap_or_default())
    }

    fn fail(&self, fault: Fault) -> NoTunnel {
        NoTunnel { proxy: self.name(), fault }
    }

    fn head(&self, target: &str) -> Vec<u8> {
        let mut head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes();
        if let Some(auth) = &self.auth {
            head.extend_from_slice(b"Proxy-Authorization: ");
            head.extend_from_slice(auth.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        head
    }

    async fn open(mut self, to: Uri) -> Result<TokioIo<TcpStream>, NoTunnel> {
        let target = format!("{}:{}", to.host().unwrap_or_default(), to.port_u16().unwrap_or(443));
        let connected = match std::future::poll_fn(|cx| self.http.poll_ready(cx)).await {
            Ok(()) => self.http.call(self.proxy.clone()).await,
            Err(error) => Err(error),
        };
        let mut stream = connected.map_err(|error| self.fail(Fault::Unreachable(error.into())))?.into_inner();
        let closed = |_| self.fail(Fault::Closed);
        stream.write_all(&self.head(&target)).await.map_err(closed)?;
        let mut answer = Vec::with_capacity(512);
        while end_of_head(&answer).is_none() {
            if answer.len() > MAX_HEAD {
                return Err(self.fail(Fault::Foreign));
            }
            if stream.read_buf(&mut answer).await.map_err(closed)? == 0 {
                return Err(self.fail(if answer.is_empty() { Fault::Closed } else { Fault::Foreign }));
            }
        }
        match judge(&answer, target) {
            None => Ok(TokioIo::new(stream)),
            Some(fault) => Err(self.fail(fault)),
        }
    }
}

/// Where the body begins.
fn end_of_head(answer: &[u8]) -> Option<usize> {
    answer.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

fn judge(answer: &[u8], target: String) -> Option<Fault> {
    let status = || {
        let line = answer.split(|byte| *byte == b'\r').next()?;
        let rest = line.strip_prefix(b"HTTP/1.1 ").or_else(|| line.strip_prefix(b"HTTP/1.0 "))?;
        std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok()
    };
    match status() {
        Some(200..=299) if end_of_head(answer) == Some(answer.len()) => None,
        Some(407) => Some(Fault::Password),
        None | Some(200..=299) => Some(Fault::Foreign),
        Some(code) => Some(Fault::Status { code, target }),
    }
}

impl Service<Uri> for Tunnel {
    type Response = TokioIo<TcpStream>;
    type Error = NoTunnel;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<TcpStream>, NoTunnel>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NoTunnel>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        Box::pin(self.clone().open(to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(answer: &str) -> Option<String> {
        judge(answer.as_bytes(), "api.x:443".to_owned()).map(|fault| fault.words())
    }

    #[test]
    fn what_a_proxy_says_is_put_into_words() {
        assert_eq!(words("HTTP/1.1 200 Connection established\r\n\r\n"), None);
        assert_eq!(words("HTTP/1.0 200 OK\r\nvia: x\r\n\r\n"), None);
        let refused = words("HTTP/1.1 403 Filtered\r\ncontent-type: text/html\r\n\r\n<html>");
        assert_eq!(refused.as_deref(), Some("answered 403 when asked for a tunnel to api.x:443"));
        assert!(words("HTTP/1.1 407 x\r\n\r\n").is_some_and(|it| it.contains("password")));
        for foreign in ["HTTP/1.1 200 OK\r\n\r\n<html>", "220 mail\r\n\r\n", "\r\n\r\n", "HTTP/1.1 2\r\n\r\n"] {
            assert!(words(foreign).is_some_and(|it| it.contains("page")), "{foreign:?}");
        }
    }

    #[test]
    fn the_password_stands_in_the_head_and_nowhere_else() {
        let auth = HeaderValue::from_static("Basic c2VjcmV0");
        let tunnel =
            Tunnel::new("http://user:secret@p.example:3128".parse().unwrap(), Some(auth), HttpConnector::new());
        assert!(String::from_utf8(tunnel.head("a:1")).unwrap().contains("Proxy-Authorization: Basic c2VjcmV0\r\n"));
        assert_eq!(tunnel.fail(Fault::Closed).proxy, "p.example:3128");
        assert!(!tunnel.fail(Fault::Closed).to_string().contains("secret"));
    }
}
