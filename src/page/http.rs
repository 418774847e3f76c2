//! What both listeners share: accepting, limits on a connection, and the headers of every answer.
//!
//! A client may be slow, silent or many; none of that may cost more than [`CONNECTIONS`] sockets or hold one for longer than
//! the limits below. When all places are taken, the connection that has been open the longest *without a request under way*
//! gives up its place, and only when every place is answering is the new one closed: two thousand silent clients must
//! not keep the kubelet's probe out.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Incoming};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::write_limit::WriteLimit;

/// Open connections of one listener.
pub(super) const CONNECTIONS: usize = 64;
/// From the first look at a connection, or the end of the answer before, to the end of the request's headers.
pub(super) const HEADER_TIME: Duration = Duration::from_secs(5);
/// Request line and headers together.
const HEADER_BYTES: usize = 16 * 1024;
/// What a request under way is given after the stop.
const GRACE: Duration = Duration::from_secs(1);
/// Pause after a failed accept: out of file descriptors is the usual cause, and it passes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Whether a method other than GET and HEAD is known at a path.
pub(super) type Takes = fn(&Method, &str) -> bool;

/// On every answer. Everything the page needs is embedded, so nothing may be loaded from elsewhere or inline.
const HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (header::CACHE_CONTROL, "no-store"),
];

/// An answer with a body of known length.
pub(super) fn answer(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let body = body.into();
    let length = HeaderValue::from(body.len());
    let mut response = with_body(status, kind, Full::new(body).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_LENGTH, length);
    response
}

/// An answer with any body.
pub(super) fn with_body(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// An answer that is only a status, with its words for a person.
pub(super) fn refusal(status: StatusCode, words: &'static str) -> Response<Body> {
    answer(status, "text/plain; charset=utf-8", words)
}

/// Serves until `stop`; then gives requests under way a moment, and drops the rest.
/// Methods other than GET and HEAD reach the handler where `takes` says so.
pub(super) async fn serve<H, F>(listener: &TcpListener, stop: CancellationToken, takes: Takes, handler: H)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let mut connections = Connections::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => connections.admit(stream, &stop, takes, &handler),
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
        }
    }
    connections.drain().await;
}

/// The open connections, oldest first. Written and read by the accept loop alone; at most [`CONNECTIONS`].
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    open: VecDeque<Connection>,
}

struct Connection {
    task: AbortHandle,
    /// A request is being answered. Set by the connection's own task.
    busy: Arc<AtomicBool>,
}

impl Connections {
    fn admit<H, F>(&mut self, stream: TcpStream, stop: &CancellationToken, takes: Takes, handler: &H)
    where
        H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        if !self.make_room() {
            return; // Dropping the stream closes it.
        }
        let busy = Arc::new(AtomicBool::new(false));
        let task = self.tasks.spawn(connection(stream, stop.clone(), takes, handler.clone(), busy.clone()));
        self.open.push_back(Connection { task, busy });
    }

    /// Whether there is a place, if need be that of the oldest connection that waits for a request.
    fn make_room(&mut self) -> bool {
        while self.tasks.try_join_next().is_some() {}
        self.open.retain(|connection| !connection.task.is_finished());
        if self.open.len() < CONNECTIONS {
            return true;
        }
        let idle = self.open.iter().position(|connection| !connection.busy.load(Ordering::Relaxed));
        let Some(idle) = idle.and_then(|index| self.open.remove(index)) else { return false };
        idle.task.abort();
        true
    }

    async fn drain(mut self) {
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        // What is left after the grace is aborted with the set.
        tokio::time::timeout(GRACE, ended).await.ok();
    }
}

async fn connection<H, F>(stream: TcpStream, stop: CancellationToken, takes: Takes, handler: H, busy: Arc<AtomicBool>)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let service = service_fn(move |request| answered(request, takes, handler.clone(), busy.clone()));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME).max_buf_size(HEADER_BYTES);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(WriteLimit::new(stream)), service));
    tokio::select! {
        // A client that breaks off is its own affair: there is nobody to tell.
        ended = connection.as_mut() => drop(ended),
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(GRACE, connection).await.ok();
        }
    }
}

/// Checks what holds for every route, lets the handler answer, and adds the headers of every answer.
async fn answered<H, F>(
    request: Request<Incoming>,
    takes: Takes,
    handler: H,
    busy: Arc<AtomicBool>,
) -> Result<Response<Body>, Infallible>
where
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<Body>>,
{
    let busy = Busy::new(busy);
    let mut response = match refused_form(&request, takes) {
        Some(refusal) => refusal,
        None => handler(request).await,
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    // The mark goes with the body, so a stream of events counts as busy for as long as it lasts.
    let held = move |frame| {
        let _busy = &busy;
        frame
    };
    Ok(response.map(|body| body.map_frame(held).boxed_unsync()))
}

/// GET and HEAD without a body are all that is spoken, but for what `takes` knows.
fn refused_form(request: &Request<Incoming>, takes: Takes) -> Option<Response<Body>> {
    let read = request.method() == Method::GET || request.method() == Method::HEAD;
    if !read && !takes(request.method(), request.uri().path()) {
        let mut refusal = refusal(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here\n");
        refusal.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        refusal.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        return Some(refusal);
    }
    if !request.body().is_end_stream() {
        let mut refusal = refusal(StatusCode::PAYLOAD_TOO_LARGE, "a request may not carry a body\n");
        refusal.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        return Some(refusal);
    }
    None
}

/// Marks a connection as busy while it lives.
struct Busy(Arc<AtomicBool>);

impl Busy {
    fn new(flag: Arc<AtomicBool>) -> Self {
        flag.store(true, Ordering::Relaxed);
        Self(flag)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}
