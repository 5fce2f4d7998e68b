//! The traces of users' requests, from the store to the agent.

use std::collections::BTreeMap;

use gantry_proto::agent::v1::TaskAssignment;
use tracing::Span;

use super::push::Push;
use crate::trace;

/// Traces that one push goes on with; tasks of more keep the context that is stored.
const TRACES: usize = 64;

/// One span for each trace that the push goes on with. The tasks are given their span as context, so that what the agent does
/// follows from the push. A full set says again what was pushed before: it belongs to no trace.
pub(super) fn go_on(push: &Push, agent: &str, tasks: &mut [TaskAssignment]) -> Vec<Span> {
    if push.base_revision == 0 {
        return Vec::new();
    }
    let mut spans: BTreeMap<String, (Span, String)> = BTreeMap::new();
    for task in tasks.iter_mut().filter(|t| !t.traceparent.is_empty()) {
        if spans.len() >= TRACES && !spans.contains_key(&task.traceparent) {
            continue;
        }
        let (_, context) = spans.entry(task.traceparent.clone()).or_insert_with(|| {
            let span = tracing::info_span!(parent: None, "push", agent, revision = push.revision);
            trace::follow(&span, &task.traceparent);
            let context = trace::traceparent(&span);
            (span, context)
        });
        // Without a tracer here, the agent goes on with what the user sent.
        if !context.is_empty() {
            task.traceparent.clone_from(context);
        }
    }
    spans.into_values().map(|(span, _)| span).collect()
}
