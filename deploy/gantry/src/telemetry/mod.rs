//! Logs to stderr, traces by OTLP when asked for.

mod redacted;
mod traces;

use std::io::IsTerminal;

use gantry_agent::Redactor;
use tracing_subscriber::{
    EnvFilter, Layer, filter::filter_fn, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use self::traces::Traces;
use crate::{
    args::{Global, LogFormat},
    failure::Failure,
};

/// Crates whose own messages are about their inside. What matters of the broker's reaches the bus as errors; that traces cannot
/// be sent is said by [`traces`], once.
const QUIET: &str = ",rocketmq_client_rust=error,rocketmq_transport=off,rocketmq_broker=error,rocketmq_namesrv=error,\
    rocketmq_store=error,rocketmq_store_local=error,rocketmq_protocol=error,rocketmq_runtime=error,\
    rocketmq_auth=error,h2=warn,hyper=warn,tonic=warn,tower=warn,opentelemetry=off,opentelemetry_sdk=off";

/// Sends what is left when it is dropped.
pub(crate) struct Telemetry {
    _traces: Option<Traces>,
    redactor: Redactor,
}

impl Telemetry {
    /// For the agents of this process: what they tell it is left out of the log.
    pub(crate) fn redactor(&self) -> Redactor {
        self.redactor.clone()
    }
}

/// Starts logging for a role. `instance` tells its processes apart in traces; `default` is the filter of the log when none is given.
pub(crate) fn start(
    global: &Global,
    service: &'static str,
    instance: &str,
    default: &str,
) -> Result<Telemetry, Failure> {
    let text = match &global.log {
        Some(filter) => filter.clone(),
        None => format!("{default}{QUIET}"),
    };
    let filter = EnvFilter::try_new(&text).map_err(|e| {
        Failure::usage(format!("the log filter cannot be read: {e}"))
            .at(text.clone())
            .fix("write it as in `info,gantry=debug`")
    })?;
    let json = global.log_format == LogFormat::Json;
    let ansi = std::io::stderr().is_terminal() && !global.no_color;
    let redactor = Redactor::default();
    let lines = tracing_subscriber::fmt::layer().with_writer(redacted::Stderr(redactor.clone()));
    let lines = if json {
        lines.json().flatten_event(true).boxed()
    } else {
        lines.with_ansi(ansi).with_target(false).boxed()
    };
    let traces = match &global.otlp_endpoint {
        None => None,
        Some(endpoint) => Some(Traces::start(
            endpoint,
            global.otlp_ca.as_deref(),
            service,
            instance,
        )?),
    };
    // What is logged and what is traced are two questions: neither filter touches the other.
    let spans = traces.as_ref().map(|t| {
        tracing_opentelemetry::layer()
            .with_tracer(t.tracer(service))
            .with_filter(filter_fn(traces::is_traced))
    });
    let started = tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(spans)
        .try_init();
    started.map_err(|e| Failure::usage(format!("cannot start logging: {e}")))?;
    redacted::tell_panics(redactor.clone());
    Ok(Telemetry {
        _traces: traces,
        redactor,
    })
}
