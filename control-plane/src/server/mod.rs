//! Listeners for users and for agents, and what every call passes through on its way in.

mod auth;
mod calls;
mod config;
mod metrics_endpoint;
mod trace;

use std::{future::Future, time::Duration};

use thiserror::Error;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    service::Routes,
    transport::{Certificate, Identity, Server, ServerTlsConfig},
};

pub use auth::Authenticator;
pub use calls::{CallMetrics, Calls};
pub use config::{ConfigError, ListenerConfig, Tls};
pub use metrics_endpoint::serve_metrics;
pub(crate) use trace::current_traceparent;

/// A unary call that takes longer is ended with DEADLINE_EXCEEDED; streams only have to begin in time.
const CALL_DEADLINE: Duration = Duration::from_secs(30);
/// Calls of one connection that may be in progress; more are refused at once.
const CALLS_PER_CONNECTION: usize = 512;

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
    config: &ListenerConfig,
    routes: Routes,
    calls: Calls,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let mut server = Server::builder()
        .timeout(CALL_DEADLINE)
        .concurrency_limit_per_connection(CALLS_PER_CONNECTION)
        .load_shed(true)
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)))
        .tcp_nodelay(true);
    if let Some(tls) = &config.tls {
        let mut served = ServerTlsConfig::new().identity(Identity::from_pem(&tls.certificate, &tls.key));
        if let Some(ca) = &tls.client_ca {
            served = served.client_ca_root(Certificate::from_pem(ca));
        }
        server = server.tls_config(served).map_err(ServeError::Tls)?;
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
        .layer(calls.layer())
        .layer(authenticator.layer())
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, shutdown)
        .await
        .map_err(ServeError::Transport)
}
