//! Listeners for users and for agents, and what every call passes through on its way in.

mod auth;
mod calls;
mod config;
mod methods;
mod metrics_endpoint;
mod tls;

use std::{future::Future, time::Duration};

use thiserror::Error;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{service::Routes, transport::Server};
use tonic_web::GrpcWebLayer;
use tower::util::option_layer;

pub use auth::Authenticator;
pub use calls::{CallMetrics, Calls};
pub use config::{ConfigError, ListenerConfig};
pub use metrics_endpoint::serve_metrics;
pub use tls::Tls;

pub(crate) use crate::trace::current_traceparent;

/// A unary call that takes longer is ended with DEADLINE_EXCEEDED; streams only have to begin in time.
const CALL_DEADLINE: Duration = Duration::from_secs(30);
/// Calls of one connection that may be in progress; more are refused at once.
const CALLS_PER_CONNECTION: usize = 512;

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callers {
    /// People and their programs, by gRPC and by gRPC-Web.
    Users,
    /// Agents, by gRPC.
    Agents,
}

/// Why a listener ended.
#[derive(Debug, Error)]
pub enum ServeError {
    /// A certificate or key cannot be used.
    #[error("the certificate or key cannot be used")]
    Tls(#[source] tonic::transport::Error),
    /// The connection machinery failed.
    #[error("the listener failed")]
    Transport(#[source] tonic::transport::Error),
}

/// Serves `routes` until `shutdown`, with TLS, authentication, deadlines, load shedding and metrics as configured.
///
/// # Errors
/// [`ServeError`].
pub async fn serve(
    listener: TcpListener,
    callers: Callers,
    config: &ListenerConfig,
    routes: Routes,
    calls: Calls,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let web = callers == Callers::Users;
    let mut server = Server::builder()
        .timeout(CALL_DEADLINE)
        .concurrency_limit_per_connection(CALLS_PER_CONNECTION)
        .load_shed(true)
        .accept_http1(web)
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)))
        .tcp_nodelay(true);
    if let Some(tls) = &config.tls {
        server = tls.server(server).map_err(ServeError::Tls)?;
    }
    let authenticator = Authenticator::new(config);
    let incoming = TcpListenerStream::new(listener);
    let incoming = tokio_stream::StreamExt::map(incoming, |stream| {
        stream.inspect(|s| {
            // Answers are small: waiting to fill a packet would cost 40 ms each.
            let _ = s.set_nodelay(true);
        })
    });
    server
        // Outermost, so that refusals of the others are translated as well.
        .layer(option_layer(web.then(GrpcWebLayer::new)))
        .layer(calls.layer())
        .layer(authenticator.layer())
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, shutdown)
        .await
        .map_err(ServeError::Transport)
}
