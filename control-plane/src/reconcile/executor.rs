//! Carries out a plan's actions: each stands alone, in its guarded transaction.

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tracing::{Instrument, Span};

use crate::{
    plan::Action,
    store::{LeaderStore, StoreError, Written},
    trace,
};

/// What became of a plan's actions.
#[derive(Debug, Default)]
pub(super) struct Executed {
    /// Indices of those that were carried out, in order.
    pub(super) applied: Vec<usize>,
    /// Highest revision of them.
    pub(super) revision: i64,
    /// Came too late.
    pub(super) conflicts: usize,
    /// May have been carried out, or could not be.
    pub(super) unknown: usize,
}

/// Makes one attempt at each.
pub(super) async fn carry_out(store: &LeaderStore, actions: &[Action], concurrency: usize) -> Executed {
    let mut waiting = actions.iter().enumerate();
    let mut attempts: FuturesUnordered<BoxFuture<'_, _>> = FuturesUnordered::new();
    let mut executed = Executed::default();
    loop {
        while attempts.len() < concurrency.max(1)
            && let Some((index, action)) = waiting.next()
        {
            let attempt = store.apply(action).instrument(span(action));
            attempts.push(async move { (index, action, attempt.await) }.boxed());
        }
        let Some((index, action, written)) = attempts.next().await else {
            break;
        };
        match written {
            Ok(Written::Applied(revision)) => {
                tracing::debug!(revision, ?action, "applied");
                executed.applied.push(index);
                executed.revision = executed.revision.max(revision);
            }
            Ok(Written::Conflict) => {
                tracing::debug!(?action, "came too late");
                executed.conflicts += 1;
            }
            Err(error) => {
                log(action, &error);
                executed.unknown += 1;
            }
        }
    }
    executed.applied.sort_unstable();
    executed
}

/// The action as part of the trace of the request that it follows from, if there is one.
fn span(action: &Action) -> Span {
    let (task, traceparent) = match action {
        Action::Grant { task, want, .. } | Action::SetWant { task, want, .. } => (task, &want.traceparent),
        _ => return Span::none(),
    };
    if traceparent.is_empty() {
        return Span::none();
    }
    let span = match action {
        Action::Grant { grant, .. } => {
            tracing::info_span!(parent: None, "grant", %task, agent = grant.agent)
        }
        _ => tracing::info_span!(parent: None, "want", %task),
    };
    trace::follow(&span, traceparent);
    span
}

fn log(action: &Action, error: &StoreError) {
    if error.is_temporary() {
        tracing::debug!(?action, %error, "not carried out");
    } else {
        tracing::error!(?action, %error, "an action cannot be carried out");
    }
}
