use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use tokio::time::Instant;
use tonic::body::Body;
use tower::{Layer, Service};
use tracing::Instrument as _;

use super::trace;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    method: String,
    code: String,
}

/// Counts and times of calls, by method and code.
#[derive(Clone)]
pub struct CallMetrics {
    calls: Family<Labels, Counter>,
    seconds: Family<Labels, Histogram>,
}

impl CallMetrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            calls: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.0005, 2.0, 16))),
        };
        registry.register(
            "gantry_rpc_calls",
            "Calls answered, or streams begun",
            metrics.calls.clone(),
        );
        registry.register(
            "gantry_rpc_seconds",
            "Time to the answer, or to the begin of a stream",
            metrics.seconds.clone(),
        );
        metrics
    }
}

/// What every call gets: a request id, a span that continues the caller's trace, and a place in the metrics.
#[derive(Clone)]
pub struct Calls {
    metrics: Arc<CallMetrics>,
}

impl Calls {
    /// Counts in `metrics`.
    pub fn new(metrics: CallMetrics) -> Self {
        Self {
            metrics: Arc::new(metrics),
        }
    }

    /// As a layer around services.
    pub fn layer(&self) -> CallsLayer {
        CallsLayer(self.clone())
    }
}

/// See [`Calls::layer`].
#[derive(Clone)]
pub struct CallsLayer(Calls);

impl<S> Layer<S> for CallsLayer {
    type Service = Called<S>;
    fn layer(&self, inner: S) -> Self::Service {
        Called {
            inner,
            calls: self.0.clone(),
        }
    }
}

/// A service whose calls are traced and counted.
#[derive(Clone)]
pub struct Called<S> {
    inner: S,
    calls: Calls,
}

const REQUEST_ID: &str = "x-request-id";

impl<S> Service<Request<Body>> for Called<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Send,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let method = request.uri().path().trim_start_matches('/').to_owned();
        let given = request
            .headers()
            .get(REQUEST_ID)
            .and_then(|v| v.to_str().ok())
            .filter(|v| v.len() <= 64);
        let id = given.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned);
        let span = tracing::info_span!("rpc", otel.name = %method, method = %method, request_id = %id, code = tracing::field::Empty);
        trace::continue_trace(&span, request.headers());
        let started = Instant::now();
        let metrics = self.calls.metrics.clone();
        let answer = {
            let _entered = span.enter();
            self.inner.call(request)
        };
        let recorded = span.clone();
        Box::pin(
            async move {
                let mut response = answer.await?;
                // Without the header the call is a stream, or a unary answer whose status comes as trailer: it was OK so far.
                let code = response
                    .headers()
                    .get("grpc-status")
                    .and_then(|v| v.to_str().ok())
                    .unwrap_or("0")
                    .to_owned();
                recorded.record("code", &code);
                if let Ok(value) = HeaderValue::from_str(&id) {
                    response.headers_mut().insert(REQUEST_ID, value);
                }
                let labels = Labels { method, code };
                metrics.calls.get_or_create(&labels).inc();
                metrics
                    .seconds
                    .get_or_create(&labels)
                    .observe(started.elapsed().as_secs_f64());
                Ok(response)
            }
            .instrument(span),
        )
    }
}
