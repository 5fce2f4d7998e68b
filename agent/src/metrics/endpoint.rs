//! Where Prometheus asks.

use std::{net::SocketAddr, time::Duration};

use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Metrics;
use crate::AgentError;

/// Answers Prometheus until told to end.
pub(crate) struct Endpoint(TcpListener);

impl Endpoint {
    /// Listens there.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub(crate) async fn bind(address: SocketAddr) -> Result<Self, AgentError> {
        TcpListener::bind(address)
            .await
            .map(Self)
            .map_err(|source| AgentError::Metrics { address, source })
    }

    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.0.local_addr().ok()
    }

    pub(crate) async fn serve(self, metrics: Metrics, end: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                () = end.cancelled() => return,
                accepted = self.0.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let (metrics, end) = (metrics.clone(), end.clone());
            tokio::spawn(async move {
                let service = service_fn(|request| std::future::ready(answer(&metrics, &request)));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::select! {
                    // A client that goes away in the middle is its own business.
                    _ = connection => {}
                    () = end.cancelled() => {}
                }
            });
        }
    }
}

fn answer(
    metrics: &Metrics,
    request: &Request<Incoming>,
) -> Result<Response<Full<bytes::Bytes>>, http::Error> {
    let response = Response::builder();
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => response
            .header(
                header::CONTENT_TYPE,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            )
            .body(Full::from(metrics.text())),
        _ => response
            .status(StatusCode::NOT_FOUND)
            .body(Full::from("only GET /metrics\n")),
    }
}
