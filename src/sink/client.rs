//! One HTTP exchange with the intake: a request goes out, and what came back is boiled down to an [`Outcome`].
//!
//! Knows no queue. A reply is read to [`MAX_REPLY`] bytes and no further, redirects are never followed (they would carry the
//! key elsewhere), and a tower stack bounds time and concurrency. Long retries are the dispatch's; here only an exchange that
//! broke after it was connected (a kept connection that the other side had closed) is tried once more at once.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response, Uri};
use hyper_util::client::legacy::connect::Connect;
use hyper_util::client::legacy::{Client as HyperClient, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower::retry::Policy;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};

use super::connect::{Connector, Proxy, connector};
use super::outcome::{Outcome, Reply, judge, judge_fault, no_key};
use crate::datadog::{Answer, Payload};
use crate::telemetry;

/// Bytes of a reply that are read: Datadog's own are under 200.
const MAX_REPLY: usize = 4_096;
/// From the head of a reply to its end: the status has told what matters, and a body that drips must not make a delivery into
/// a timeout, which would send it again.
const BODY_TIME: Duration = Duration::from_secs(5);
/// Bytes that hyper may buffer of a head; with more the reply is none.
const MAX_HEAD: usize = 32 * 1_024;
const AGENT: &str = concat!("oomwatch/", env!("CARGO_PKG_VERSION"));

/// Cheap to clone; clones share connections and the concurrency limit.
#[derive(Clone)]
pub(super) struct Client {
    base: Uri,
    /// Host and port of the proxy in between.
    proxy: Option<String>,
    service: BoxCloneSyncService<Request<Full<Bytes>>, Reply, BoxError>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("base", &self.base).finish_non_exhaustive()
    }
}

impl Client {
    pub fn new(
        base_url: &str,
        ca_file: Option<&Path>,
        proxy: &Proxy,
        timeout: Duration,
        concurrency: usize,
    ) -> Result<Client, String> {
        let base: Uri = base_url.trim_end_matches('/').parse().map_err(|error| format!("{base_url}: {error}"))?;
        let (service, proxy) = match connector(&base, ca_file, proxy)? {
            Connector::Direct(connector) => (stack(connector, timeout, concurrency), None),
            Connector::Tunnel(connector, proxy) => (stack(connector, timeout, concurrency), Some(proxy)),
        };
        Ok(Client { base, proxy, service })
    }

    /// Sends a payload. Without a key in hand nothing is sent, and it is as if the key had been refused.
    pub async fn send(self, payload: Payload, key: Option<HeaderValue>) -> Outcome {
        let endpoint = payload.endpoint;
        let request = self.request(Method::POST, endpoint.path(), key, payload.body).map(|mut request| {
            let headers = request.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(endpoint.content_type()));
            if let Some(encoding) = endpoint.content_encoding() {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
            }
            request
        });
        self.exchange(request).await
    }

    /// `GET` of a path, for the check of the key.
    pub async fn get(self, path: &str, key: Option<HeaderValue>) -> Outcome {
        let request = self.request(Method::GET, path, key, Bytes::new());
        self.exchange(request).await
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        key: Option<HeaderValue>,
        body: Bytes,
    ) -> Option<Request<Full<Bytes>>> {
        let uri = format!("{}{path}", self.base.to_string().trim_end_matches('/'));
        let request = Request::builder().method(method).uri(uri).header(USER_AGENT, AGENT).header("dd-api-key", key?);
        request.body(Full::new(body)).ok()
    }

    async fn exchange(mut self, request: Option<Request<Full<Bytes>>>) -> Outcome {
        let outcome = match request {
            None => Outcome { answer: Answer::status(403), trouble: Some(no_key()) },
            Some(request) => {
                let reply = match self.service.ready().await {
                    Ok(service) => service.call(request).await,
                    Err(error) => Err(error),
                };
                reply.map_or_else(|error| judge_fault(&error), |reply| judge(&reply))
            }
        };
        self.remark(outcome)
    }

    /// Counts what is wrong, and names the proxy where one may be the cause.
    fn remark(&self, mut outcome: Outcome) -> Outcome {
        if let Some(trouble) = &mut outcome.trouble {
            telemetry::count(&telemetry::OUTPUT_FAILURES, Some(trouble.reason)).increment(1);
            if let Some(proxy) = self.proxy.as_ref().filter(|_| trouble.may_be_the_proxys()) {
                trouble.why = format!("{} (through the proxy {proxy})", trouble.why);
            }
        }
        outcome
    }
}

/// Outermost first: the time limit holds for both tries together, and waiting for a permit does not count against it.
fn stack<C>(
    connector: C,
    timeout: Duration,
    concurrency: usize,
) -> BoxCloneSyncService<Request<Full<Bytes>>, Reply, BoxError>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let client: HyperClient<C, Full<Bytes>> = HyperClient::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(60))
        .pool_max_idle_per_host(concurrency)
        .http1_max_buf_size(MAX_HEAD)
        .build(connector);
    let service = ServiceBuilder::new()
        .timeout(timeout)
        .concurrency_limit(concurrency)
        .retry(OnceMore { left: 1 })
        .service_fn(move |request| exchange(client.clone(), request));
    BoxCloneSyncService::new(service)
}

async fn exchange<C>(client: HyperClient<C, Full<Bytes>>, request: Request<Full<Bytes>>) -> Result<Reply, BoxError>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let response = client.request(request).await?;
    read(response).await
}

/// A body that ends too early, or too late, is no fault: the status has told what there is to know.
async fn read(response: Response<impl Body<Data = Bytes> + Unpin>) -> Result<Reply, BoxError> {
    let (head, incoming) = response.into_parts();
    let mut body = Vec::new();
    let _late = tokio::time::timeout(BODY_TIME, fill(&mut body, incoming)).await;
    Ok(Reply { status: head.status.as_u16(), headers: head.headers, body: body.into() })
}

async fn fill(body: &mut Vec<u8>, mut incoming: impl Body<Data = Bytes> + Unpin) {
    while body.len() < MAX_REPLY
        && let Some(Ok(frame)) = incoming.frame().await
    {
        let Some(data) = frame.data_ref() else { continue };
        let room = MAX_REPLY - body.len();
        body.extend_from_slice(&data[..data.len().min(room)]);
    }
}

/// Tries an exchange once more that broke after it was connected. A connection that is refused waits for the dispatch.
#[derive(Clone, Debug)]
struct OnceMore {
    left: u8,
}

impl Policy<Request<Full<Bytes>>, Reply, BoxError> for OnceMore {
    type Future = std::future::Ready<()>;

    fn retry(&mut self, _: &mut Request<Full<Bytes>>, result: &mut Result<Reply, BoxError>) -> Option<Self::Future> {
        let error = result.as_ref().err()?.downcast_ref::<ClientError>()?;
        if error.is_connect() || self.left == 0 {
            return None;
        }
        self.left -= 1;
        Some(std::future::ready(()))
    }

    fn clone_request(&mut self, request: &Request<Full<Bytes>>) -> Option<Request<Full<Bytes>>> {
        Some(request.clone())
    }
}

#[cfg(test)]
mod tests {
    use hyper::body::Frame;

    use super::*;

    /// An endless body, a kibibyte a frame, that counts what is asked of it.
    fn endless(asked: &std::cell::Cell<usize>) -> impl Body<Data = Bytes> + Unpin {
        let frames = std::iter::repeat_with(move || {
            asked.set(asked.get() + 1);
            Ok::<_, BoxError>(Frame::data(Bytes::from_static(&[b'x'; 1_024])))
        });
        http_body_util::StreamBody::new(futures_util::stream::iter(frames))
    }

    #[tokio::test]
    async fn four_kibibytes_of_an_answer_are_read_and_no_frame_more() {
        let asked = std::cell::Cell::new(0);
        let reply = read(Response::new(endless(&asked))).await.unwrap();
        assert_eq!((reply.body.len(), asked.get()), (MAX_REPLY, 4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_comes_leaves_the_status() {
        let never = futures_util::stream::pending::<Result<Frame<Bytes>, BoxError>>();
        let mut response = Response::new(http_body_util::StreamBody::new(never));
        *response.status_mut() = hyper::StatusCode::ACCEPTED;
        let begun = tokio::time::Instant::now();
        assert_eq!(read(response).await.unwrap().status, 202);
        assert_eq!(begun.elapsed(), BODY_TIME);
    }
}
