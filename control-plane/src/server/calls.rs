use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};
use tokio::time::Instant;
use tonic::{Code, body::Body};
use tower::{Layer, Service};
use tracing::{Instrument as _, Span, field::Empty};

use super::methods::Methods;
use crate::trace;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    method: String,
    code: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabels {
    method: String,
}

/// Counts by method and code, times by method. There are only so many of both: unknown methods count as one.
#[derive(Clone)]
pub struct CallMetrics {
    calls: Family<CallLabels, Counter>,
    seconds: Family<MethodLabels, Histogram>,
}

impl CallMetrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            calls: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.0005, 2.0, 16))),
        };
        let r = registry.sub_registry_with_prefix("gantry_server");
        r.register(
            "rpcs",
            "Calls answered and streams begun, by method and gRPC code",
            metrics.calls.clone(),
        );
        r.register_with_unit(
            "rpc_duration",
            "Time to the answer, or to the begin of a stream",
            Unit::Seconds,
            metrics.seconds.clone(),
        );
        metrics
    }
}

/// What every call gets: a request id, a span that continues the caller's trace, and a place in the metrics.
#[derive(Clone)]
pub struct Calls {
    metrics: CallMetrics,
    methods: Arc<Methods>,
}

impl Calls {
    /// Counts in `metrics`.
    pub fn new(metrics: CallMetrics) -> Self {
        Self {
            metrics,
            methods: Arc::new(Methods::served()),
        }
    }

    /// As a layer around services.
    pub fn layer(&self) -> CallsLayer {
        CallsLayer(self.clone())
    }

    fn span(&self, method: &str, request_id: &str, headers: &HeaderMap) -> Span {
        // Who probes every few seconds fills logs and traces with nothing.
        if method.starts_with("grpc.") {
            return Span::none();
        }
        let span = tracing::info_span!(
            "rpc",
            otel.name = method,
            otel.kind = "server",
            otel.status_code = Empty,
            request_id,
            code = Empty
        );
        trace::follow_headers(&span, headers);
        span
    }

    fn answered(&self, span: &Span, method: String, code: Code, began: Instant) {
        let code_name = format!("{code:?}");
        span.record("code", &code_name);
        if is_fault(code) {
            span.record("otel.status_code", "ERROR");
        }
        let seconds = began.elapsed().as_secs_f64();
        let by_method = MethodLabels {
            method: method.clone(),
        };
        self.metrics.seconds.get_or_create(&by_method).observe(seconds);
        let labels = CallLabels {
            method,
            code: code_name,
        };
        self.metrics.calls.get_or_create(&labels).inc();
    }
}

/// Whether the server has to be looked at: what callers do wrong is no fault of the call.
fn is_fault(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

/// Without the header the call is a stream, or a unary answer whose status comes as trailer: it was OK so far.
fn code_of(headers: &HeaderMap) -> Code {
    headers
        .get("grpc-status")
        .map_or(Code::Ok, |v| Code::from_bytes(v.as_bytes()))
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
        let method = self.calls.methods.name(request.uri().path()).to_owned();
        let given = request
            .headers()
            .get(REQUEST_ID)
            .and_then(|v| v.to_str().ok())
            .filter(|v| v.len() <= 64);
        let id = given.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned);
        let span = self.calls.span(&method, &id, request.headers());
        let began = Instant::now();
        let calls = self.calls.clone();
        let answer = {
            let _entered = span.enter();
            self.inner.call(request)
        };
        let recorded = span.clone();
        Box::pin(
            async move {
                let mut response = answer.await?;
                calls.answered(&recorded, method, code_of(response.headers()), began);
                if let Ok(value) = HeaderValue::from_str(&id) {
                    response.headers_mut().insert(REQUEST_ID, value);
                }
                Ok(response)
            }
            .instrument(span),
        )
    }
}
