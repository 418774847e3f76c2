//! One bounded HTTP GET over a connection of its own: no proxy, no redirect, no second try.
//!
//! hyper's connection future must be polled beside the request; it runs in the same task, so nothing outlives the call: when
//! a bound is reached everything is dropped and the connection closes.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::pipeline::PullFailed;

/// What a pull may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// From the start to the first byte of the answer, connecting included. The heap of a large app after a forced collection
    /// takes 0.8 s.
    pub first_byte: Duration,
    /// From the start to the last byte.
    pub whole: Duration,
    /// Body bytes on the wire, of which fewer may be kept. The profile of a large app has 2 MiB.
    pub bytes: usize,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { first_byte: Duration::from_secs(5), whole: Duration::from_secs(15), bytes: 16 << 20 }
    }
}

/// Where profiles are asked for, in parts.
pub struct Origin {
    /// Without the brackets of an IPv6 address.
    pub host: String,
    pub port: u16,
    /// The path before `/heap`, without a slash at its end.
    pub base: String,
    /// `host:port` as it goes into the Host header.
    authority: HeaderValue,
    authorization: Option<HeaderValue>,
}

impl std::fmt::Debug for Origin {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The token is left out.
        write!(out, "Origin({}:{}{})", self.host, self.port, self.base)
    }
}

impl Origin {
    /// # Errors
    /// A sentence about what is wrong with the address or the token.
    pub fn new(url: &str, bearer: Option<&str>) -> Result<Origin, String> {
        let expected = "expected an address such as http://127.0.0.1:6060/debug/pprof";
        let uri: Uri = url.parse().map_err(|error| format!("profile.url = {url:?}: {error}; {expected}"))?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http"));
        let authority = authority.ok_or_else(|| format!("profile.url = {url:?}: {expected}; only http is spoken"))?;
        if authority.as_str().contains('@') || uri.query().is_some() {
            return Err(format!(
                "profile.url: {expected}, without user and query; a token goes into profile.bearer_file"
            ));
        }
        let authorization = bearer.map(|token| {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
                .map_err(|_| "profile.bearer_file: the token is no header value")?;
            value.set_sensitive(true);
            Ok::<_, String>(value)
        });
        Ok(Origin {
            host: authority.host().trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: authority.port_u16().unwrap_or(80),
            base: uri.path().trim_end_matches('/').to_owned(),
            authority: HeaderValue::from_str(authority.as_str())
                .map_err(|_| format!("profile.url = {url:?}: {expected}"))?,
            authorization: authorization.transpose()?,
        })
    }

    fn request(&self, path: &str) -> Result<Request<Empty<Bytes>>, PullFailed> {
        let mut request = Request::get(format!("{}{path}", self.base))
            .header(header::HOST, &self.authority)
            .header(header::USER_AGENT, "oomwatch")
            // A profile is gzipped in itself; a second layer from a middleware would only be in the way.
            .header(header::ACCEPT_ENCODING, "identity")
            .header(header::CONNECTION, "close");
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        request.body(Empty::new()).map_err(|error| failed("unreachable", format!("make the request: {error}")))
    }
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer<K> {
    pub status: StatusCode,
    pub content_type: String,
    pub location: String,
    /// As it began, unless the status is 200.
    pub body: K,
}

/// Takes the pieces of a body as they come, and keeps of them what is wanted.
pub trait Keep: Sized {
    /// # Errors
    /// When no more of the body is wanted.
    fn take(self, piece: Bytes) -> impl Future<Output = Result<Self, PullFailed>> + Send;
}

pub(super) fn failed(reason: &'static str, words: String) -> PullFailed {
    PullFailed { reason, words }
}

/// Gets `path` below the origin's base.
///
/// # Errors
/// With the reasons `unreachable`, `timeout`, `too_large` and `truncated`, and with those of `body`, which may end it.
pub async fn get<K: Keep>(origin: &Origin, path: &str, bounds: Bounds, body: K) -> Result<Answer<K>, PullFailed> {
    let slow = |bound: Duration| {
        failed("timeout", format!("{}{path} did not answer within {} s", origin.base, bound.as_secs_f32()))
    };
    timeout(bounds.whole, async {
        let (response, connection) =
            timeout(bounds.first_byte, open(origin, path)).await.map_err(|_| slow(bounds.first_byte))??;
        beside(connection, read(response, bounds.bytes, body)).await
    })
    .await
    .map_err(|_| slow(bounds.whole))?
}

type Connection = std::pin::Pin<Box<hyper::client::conn::http1::Connection<TokioIo<TcpStream>, Empty<Bytes>>>>;

async fn open(origin: &Origin, path: &str) -> Result<(Response<Incoming>, Connection), PullFailed> {
    let request = origin.request(path)?;
    let unreachable =
        |error: &dyn std::fmt::Display| failed("unreachable", format!("{}:{}: {error}", origin.host, origin.port));
    let stream = connect(origin).await?;
    let handshake =
        hyper::client::conn::http1::Builder::new().max_buf_size(64 * 1024).handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| unreachable(&error))?;
    let mut connection = Box::pin(connection);
    let response = beside(&mut connection, sender.send_request(request)).await.map_err(|error| unreachable(&error))?;
    Ok((response, connection))
}

/// Polls the connection while `work` needs it. Its own end, or fault, reaches `work` through hyper.
async fn beside<T>(connection: impl Future, work: impl Future<Output = T>) -> T {
    let driven = async {
        connection.await;
        std::future::pending().await
    };
    tokio::select! {
        done = work => done,
        never = driven => never,
    }
}

async fn connect(origin: &Origin) -> Result<TcpStream, PullFailed> {
    let Origin { host, port, .. } = origin;
    let advice = "is the app running, and does it serve net/http/pprof there? Else set profile.url";
    let unreachable = |error: std::io::Error| failed("unreachable", format!("{host}:{port}: {error}; {advice}"));
    let addresses: Vec<SocketAddr> =
        tokio::net::lookup_host((host.as_str(), *port)).await.map_err(unreachable)?.collect();
    // A name may lead anywhere, and elsewhere at each look.
    if addresses.iter().any(|address| {
        is_forbidden(address.ip()) || (host.eq_ignore_ascii_case("localhost") && !address.ip().is_loopback())
    }) {
        return Err(failed(
            "unreachable",
            format!("{host} leads to an address that is never asked: name another host in profile.url"),
        ));
    }
    TcpStream::connect(addresses.as_slice()).await.map_err(unreachable)
}

/// Link-local ranges (where clouds keep their metadata), AWS's IPv6 metadata address, and what is no host at all.
pub fn is_forbidden(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast(),
        IpAddr::V6(ip) => {
            let aws = std::net::Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
            ip.is_unicast_link_local() || ip.is_unspecified() || ip.is_multicast() || ip == aws
        }
    }
}

/// Reads the body of a 200; what else came with another status is not wanted.
async fn read<K: Keep>(response: Response<Incoming>, max: usize, kept: K) -> Result<Answer<K>, PullFailed> {
    let (head, body) = response.into_parts();
    let wanted = head.status == StatusCode::OK;
    Ok(Answer {
        status: head.status,
        content_type: word(&head.headers, &header::CONTENT_TYPE),
        location: word(&head.headers, &header::LOCATION),
        body: if wanted { collect(body, max, kept).await? } else { kept },
    })
}

async fn collect<K: Keep>(mut body: Incoming, max: usize, mut kept: K) -> Result<K, PullFailed> {
    let mut came = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| failed("truncated", format!("the answer ends in the middle: {error}")))?;
        let Ok(piece) = frame.into_data() else { continue };
        came += piece.len();
        if came > max {
            return Err(failed("too_large", format!("the answer has more than {max} bytes: is it the app's pprof?")));
        }
        kept = kept.take(piece).await?;
    }
    Ok(kept)
}

/// A header for people to read: at most 120 printable characters.
fn word(headers: &HeaderMap, name: &HeaderName) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().chars().take(120).collect()
}
