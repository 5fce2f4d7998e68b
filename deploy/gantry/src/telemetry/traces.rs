//! Traces, sent by OTLP over gRPC.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_otlp::{WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    propagation::TraceContextPropagator,
    trace::{SdkTracer, SdkTracerProvider, SpanData, SpanExporter},
};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tracing::{Level, Metadata};

use crate::failure::Failure;

/// How long the collector may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the end of the process waits for what is left to be sent.
const FAREWELL: Duration = Duration::from_secs(2);
/// Spans that are context for log lines: they last as long as a session or a task, and are no part of a trace.
const LASTING: [&str; 3] = ["session", "leader", "task"];

/// Code of connectors, which may log secrets: the log is redacted, traces are not.
const CONNECTORS: &str = "gantry_agent::connectors";

/// Our own spans down to INFO, and what happens in them.
pub(super) fn is_traced(meta: &Metadata<'_>) -> bool {
    meta.target().starts_with("gantry")
        && !meta.target().starts_with(CONNECTORS)
        && *meta.level() <= Level::INFO
        && !(meta.is_span() && LASTING.contains(&meta.name()))
}

/// Sends spans in batches until it is dropped.
pub(super) struct Traces(SdkTracerProvider);

impl Traces {
    /// Sends to `endpoint`, which need not be there yet.
    pub(super) fn start(
        endpoint: &str,
        ca: Option<&Path>,
        service: &'static str,
        instance: &str,
    ) -> Result<Self, Failure> {
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_channel(channel(endpoint, ca)?)
            .with_timeout(PATIENCE)
            .build()
            .map_err(|e| Failure::usage(format!("cannot export traces: {e}")).at(endpoint))?;
        let exporter = Told {
            exporter,
            endpoint: endpoint.to_owned(),
            failing: AtomicBool::new(false),
        };
        let resource = Resource::builder()
            .with_service_name(service)
            .with_attributes([
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("service.instance.id", instance.to_owned()),
            ])
            .build();
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_batch_exporter(exporter)
            .build();
        opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
        Ok(Self(provider))
    }

    pub(super) fn tracer(&self, service: &'static str) -> SdkTracer {
        self.0.tracer(service)
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        // Nobody is left who could do something about it.
        let _ = self.0.shutdown_with_timeout(FAREWELL);
    }
}

fn channel(endpoint: &str, ca: Option<&Path>) -> Result<Channel, Failure> {
    let bad = |what: String| {
        Failure::usage(format!("cannot export traces: {what}"))
            .at(endpoint)
            .fix("give --otlp-endpoint http://HOST:4317, or https:// with --otlp-ca")
    };
    let tls = endpoint.starts_with("https://");
    if !tls && !endpoint.starts_with("http://") {
        return Err(bad("the endpoint must begin with http:// or https://".into()));
    }
    let mut target = Endpoint::from_shared(endpoint.to_owned())
        .map_err(|e| bad(e.to_string()))?
        .connect_timeout(PATIENCE)
        .timeout(PATIENCE);
    if tls {
        let Some(ca) = ca else {
            return Err(bad("no CA is given for an https endpoint".into()));
        };
        let pem = std::fs::read(ca).map_err(|e| bad(format!("{}: {e}", ca.display())))?;
        let config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
        target = target.tls_config(config).map_err(|e| bad(e.to_string()))?;
    }
    Ok(target.connect_lazy())
}

/// Says once that spans cannot be sent, and once that they can be again.
#[derive(Debug)]
struct Told<E> {
    exporter: E,
    endpoint: String,
    failing: AtomicBool,
}

impl<E: SpanExporter> SpanExporter for Told<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let sent = self.exporter.export(batch).await;
        let failed_before = self.failing.swap(sent.is_err(), Ordering::Relaxed);
        match &sent {
            Err(error) if !failed_before => tracing::warn!(
                endpoint = self.endpoint,
                %error,
                "traces cannot be sent; they are dropped until the collector answers"
            ),
            Ok(()) if failed_before => tracing::info!(endpoint = self.endpoint, "traces are sent again"),
            _ => {}
        }
        // Whoever is told of a failure logs it, every time.
        Ok(())
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_that_cannot_be_used_are_refused_with_what_to_do() {
        for (endpoint, says) in [
            ("collector:4317", "http://"),
            ("http://", "cannot export traces"),
            ("https://collector:4317", "no CA"),
        ] {
            let said = channel(endpoint, None)
                .err()
                .map(|f| f.to_string())
                .unwrap_or_default();
            assert!(
                said.contains(says) && said.contains("--otlp-endpoint"),
                "{endpoint}: {said}"
            );
        }
    }
}
