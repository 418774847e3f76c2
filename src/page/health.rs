//! The health listener: `/livez`, `/readyz` and `/metrics`, and nothing else.
//!
//! Probes come to the pod's address, so this listener may stand on all interfaces; no name of the app, no profile and no
//! verdict is told here. Ready means listening, never "target found": a native sidecar starts before its app.

use std::io;
use std::net::SocketAddr;

use hyper::body::Incoming;
use hyper::header;
use hyper::{Request, Response, StatusCode};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::http::{Body, answer, refusal, serve};
use super::openmetrics;

const TEXT: &str = "text/plain; charset=utf-8";

/// Bound and not yet answering: connections wait in the kernel's backlog until [`HealthServer::run`].
#[derive(Debug)]
pub struct HealthServer {
    listener: TcpListener,
    address: SocketAddr,
}

impl HealthServer {
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self { address: listener.local_addr()?, listener })
    }

    /// Where it listens; port 0 has become a number.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop`. May be run again: the listener stays bound.
    pub async fn run(&self, metrics: PrometheusHandle, stop: CancellationToken) {
        let handler = move |request: Request<Incoming>| {
            let response = route(&request, &metrics);
            async move { response }
        };
        serve(&self.listener, stop, |_, _| false, handler).await;
    }
}

fn route(request: &Request<Incoming>, metrics: &PrometheusHandle) -> Response<Body> {
    match request.uri().path() {
        "/livez" | "/readyz" => answer(StatusCode::OK, TEXT, "ok\n"),
        "/metrics" => scrape(request, metrics),
        _ => refusal(StatusCode::NOT_FOUND, "here are /livez, /readyz and /metrics\n"),
    }
}

fn scrape(request: &Request<Incoming>, metrics: &PrometheusHandle) -> Response<Body> {
    let accept = request.headers().get_all(header::ACCEPT);
    let text = metrics.render();
    if accept.iter().any(|value| value.to_str().is_ok_and(openmetrics::is_wanted)) {
        return answer(StatusCode::OK, openmetrics::OPENMETRICS, openmetrics::from_prometheus(&text));
    }
    answer(StatusCode::OK, openmetrics::PROMETHEUS, text)
}
