//! A collector of traces: takes what processes send by OTLP over gRPC, and keeps it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

use crate::certs;

/// A collector that runs. It ends when it is dropped.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    scheme: &'static str,
    spans: Spans,
    serving: JoinHandle<()>,
}

type Spans = Arc<Mutex<Vec<Span>>>;

/// A span as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// `service.name` of the process.
    pub service: String,
    /// `service.instance.id` of the process.
    pub instance: String,
    /// What was done.
    pub name: String,
    /// Trace, in hex.
    pub trace: String,
    /// The span itself, in hex.
    pub id: String,
    /// What it follows from, in hex; empty: it is the first of its trace.
    pub parent: String,
    /// Attributes that are texts or numbers.
    pub attributes: BTreeMap<String, String>,
}

impl Collector {
    /// Listens on a free port.
    pub async fn start() -> Result<Self> {
        Self::start_on("127.0.0.1:0").await
    }

    /// Listens there.
    pub async fn start_on(address: &str) -> Result<Self> {
        Self::serve(address, Server::builder(), "http").await
    }

    /// Listens on a free port, with TLS.
    pub async fn start_tls(identity: &certs::Identity) -> Result<Self> {
        // The program of the tests has two providers of cryptography; whichever was chosen before is right.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (cert, key) = (std::fs::read(&identity.cert)?, std::fs::read(&identity.key)?);
        let tls = ServerTlsConfig::new().identity(Identity::from_pem(cert, key));
        Self::serve("127.0.0.1:0", Server::builder().tls_config(tls)?, "https").await
    }

    async fn serve(address: &str, mut server: Server, scheme: &'static str) -> Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let (address, spans) = (listener.local_addr()?, Spans::default());
        let service = TraceServiceServer::new(Keeper(spans.clone()));
        let serving = tokio::spawn(async move {
            let served = server
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener));
            if let Err(error) = served.await {
                eprintln!("the collector ended: {error:#}");
            }
        });
        Ok(Self {
            address,
            scheme,
            spans,
            serving,
        })
    }

    /// Stops to listen. When this returns, its address is free.
    pub async fn stop(mut self) {
        self.serving.abort();
        let _ = (&mut self.serving).await;
    }

    /// For `--otlp-endpoint`.
    pub fn endpoint(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// All spans that were received.
    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().expect("no holder of the lock panics").clone()
    }

    /// Spans of that name, of all traces.
    pub fn named(&self, name: &str) -> Vec<Span> {
        self.spans().into_iter().filter(|s| s.name == name).collect()
    }

    /// All spans of a trace.
    pub fn trace(&self, trace: &str) -> Vec<Span> {
        self.spans().into_iter().filter(|s| s.trace == trace).collect()
    }

    /// The one span of that name in a trace.
    pub fn only(&self, trace: &str, name: &str) -> Result<Span> {
        let mut found = self.trace(trace);
        found.retain(|s| s.name == name);
        ensure!(
            found.len() == 1,
            "{} spans {name:?} are in {:#?}",
            found.len(),
            self.trace(trace)
        );
        found.pop().context("there is one")
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

struct Keeper(Spans);

#[tonic::async_trait]
impl TraceService for Keeper {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut received = Vec::new();
        for resource in request.into_inner().resource_spans {
            let about = resource
                .resource
                .map(|r| attributes(r.attributes))
                .unwrap_or_default();
            let of = |key: &str| about.get(key).cloned().unwrap_or_default();
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                received.push(Span {
                    service: of("service.name"),
                    instance: of("service.instance.id"),
                    name: span.name,
                    trace: hex(&span.trace_id),
                    id: hex(&span.span_id),
                    parent: hex(&span.parent_span_id),
                    attributes: attributes(span.attributes),
                });
            }
        }
        self.0
            .lock()
            .expect("no holder of the lock panics")
            .extend(received);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn attributes(given: Vec<KeyValue>) -> BTreeMap<String, String> {
    given
        .into_iter()
        .filter_map(|pair| Some((pair.key, text(pair.value?)?)))
        .collect()
}

fn text(value: AnyValue) -> Option<String> {
    match value.value? {
        Value::StringValue(text) => Some(text),
        Value::IntValue(number) => Some(number.to_string()),
        Value::DoubleValue(number) => Some(number.to_string()),
        Value::BoolValue(yes) => Some(yes.to_string()),
        _ => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
