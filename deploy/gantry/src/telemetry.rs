//! Logs to stderr, traces by OTLP when asked for.

use std::io::IsTerminal;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::{
    args::{Global, LogFormat},
    failure::Failure,
};

/// Flushes what is left to export when it is dropped.
pub(crate) struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

/// Starts logging for a role. `default` is the filter when none is given.
pub(crate) fn start(global: &Global, service: &'static str, default: &str) -> Result<Telemetry, Failure> {
    // The broker's own crates are chatty; what matters of them reaches the bus as errors.
    let quiet = ",rocketmq_client_rust=error,rocketmq_transport=off,rocketmq_broker=error,rocketmq_namesrv=error,\
                 rocketmq_store=error,rocketmq_store_local=error,rocketmq_protocol=error,rocketmq_runtime=error,\
                 rocketmq_auth=error,h2=warn,hyper=warn,tonic=warn,tower=warn";
    let text = match &global.log {
        Some(filter) => filter.clone(),
        None => format!("{default}{quiet}"),
    };
    let filter = EnvFilter::try_new(&text).map_err(|e| {
        Failure::usage(format!("the log filter cannot be read: {e}"))
            .at(text.clone())
            .fix("write it as in `info,gantry=debug`")
    })?;
    let json = global.log_format == LogFormat::Json;
    let ansi = std::io::stderr().is_terminal() && !global.no_color;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = if json {
        lines.json().flatten_event(true).boxed()
    } else {
        lines.with_ansi(ansi).with_target(false).boxed()
    };
    let traces = match &global.otlp_endpoint {
        None => None,
        Some(endpoint) => {
            let exporter = opentelemetry_otlp::SpanExporter::builder()
                .with_tonic()
                .with_endpoint(endpoint.clone())
                .build()
                .map_err(|e| Failure::usage(format!("cannot export traces: {e}")).at(endpoint.clone()))?;
            let resource = opentelemetry_sdk::Resource::builder()
                .with_service_name(service)
                .build();
            Some(
                SdkTracerProvider::builder()
                    .with_resource(resource)
                    .with_batch_exporter(exporter)
                    .build(),
            )
        }
    };
    opentelemetry::global::set_text_map_propagator(
        opentelemetry_sdk::propagation::TraceContextPropagator::new(),
    );
    let spans = traces
        .as_ref()
        .map(|p| tracing_opentelemetry::layer().with_tracer(p.tracer(service)));
    let started = tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .with(spans)
        .try_init();
    started.map_err(|e| Failure::usage(format!("cannot start logging: {e}")))?;
    Ok(Telemetry { traces })
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(traces) = self.traces.take() {
            let _ = traces.shutdown();
        }
    }
}
