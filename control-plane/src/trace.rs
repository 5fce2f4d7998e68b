//! Spans that belong to the trace of a user's request, by W3C trace context.

use std::collections::HashMap;

use http::HeaderMap;
use opentelemetry::{
    global::get_text_map_propagator,
    propagation::{Extractor, Injector},
    trace::TraceContextExt as _,
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

const TRACEPARENT: &str = "traceparent";

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|v| v.to_str().ok())
    }
    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

#[derive(Default)]
struct Traceparent(String);

impl Injector for Traceparent {
    fn set(&mut self, key: &str, value: String) {
        if key == TRACEPARENT {
            self.0 = value;
        }
    }
}

/// Makes the span a child of the trace that the caller sent, if it sent one.
pub(crate) fn follow_headers(span: &Span, headers: &HeaderMap) {
    follow_from(span, &Headers(headers));
}

/// Makes the span a child of what `traceparent` names. Nothing happens if that is empty or malformed.
pub(crate) fn follow(span: &Span, traceparent: &str) {
    if !traceparent.is_empty() {
        let carrier = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
        follow_from(span, &carrier);
    }
}

fn follow_from(span: &Span, carrier: &dyn Extractor) {
    let parent = get_text_map_propagator(|p| p.extract(carrier));
    if parent.span().span_context().is_valid() {
        // Without a tracer there is no trace to join.
        let _ = span.set_parent(parent);
    }
}

/// The present span as `traceparent`; empty when nothing is traced.
pub(crate) fn current_traceparent() -> String {
    traceparent(&Span::current())
}

/// A span as `traceparent`; empty when nothing is traced.
pub(crate) fn traceparent(span: &Span) -> String {
    let mut carrier = Traceparent::default();
    get_text_map_propagator(|p| p.inject_context(&span.context(), &mut carrier));
    carrier.0
}
