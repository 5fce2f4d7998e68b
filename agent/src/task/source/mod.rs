//! A source task: poll, send, acknowledge, commit; all of it overlaps, and memory is bounded by bytes.

mod hook;
mod intake;
mod outbox;
mod pipeline;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use gantry_connector::{Source, SourceContext, StartPosition};
use tokio::sync::mpsc;

use self::{
    hook::{Hook, Order, Report},
    pipeline::Pipeline,
};
use super::{
    How, RunContext, RunEnd, RunEvent,
    budget::Budget,
    held::Held,
    hooked::Hooked,
    prepare::{Prepared, opened, route},
};
use crate::{
    problem::{Cause, Failure},
    wire,
};

/// Reports that may wait for the pipeline.
const REPORTS: usize = 4;
/// Orders that may wait for the connector.
const ORDERS: usize = 4;

type Thread = Hooked<Order, Report>;

/// Runs the source until it ends.
pub(super) async fn run(mut ctx: RunContext, mut prepared: Prepared, source: Box<dyn Source>) -> RunEnd {
    let topic = ctx.spec.topic.clone();
    let queues = match route(&mut ctx, &topic).await {
        Ok(queues) => queues,
        Err(how) => return how.into(),
    };
    let budget = Arc::new(Budget::new(ctx.limits.source_memory));
    let mut thread = match start(&ctx, &prepared, source, budget.clone()) {
        Ok(thread) => thread,
        Err(e) => {
            return How::Failed(Failure::new(
                Cause::System,
                "NO_THREAD",
                format!("no thread: {e}"),
            ))
            .into();
        }
    };
    // What waits for a source is not known before it polls.
    let stalls = || thread.held.since().map(|_| 0);
    let how = match opened(&mut ctx, &mut thread.reports, &mut prepared.permit, stalls).await {
        Err(how) => how,
        Ok(Some(Report::Opened)) => {
            ctx.tell(RunEvent::Opened).await;
            drop(prepared.permit);
            return Pipeline::new(ctx, &prepared.read, queues, thread, budget)
                .run()
                .await;
        }
        Ok(Some(Report::Failed(hook, e))) => How::Failed(Failure::connector(hook, &e)),
        Ok(_) => How::Failed(Failure::new(
            Cause::Task,
            "THREAD_ENDED",
            "the connector's thread ended",
        )),
    };
    let leaked = thread
        .close(Order::Close, ctx.limits.hooks.close, |r| ignored(&ctx, r))
        .await;
    RunEnd { how, leaked }
}

fn start(
    ctx: &RunContext,
    prepared: &Prepared,
    source: Box<dyn Source>,
    budget: Arc<Budget>,
) -> std::io::Result<Thread> {
    let held = Held::default();
    let (orders, orders_out) = mpsc::channel(ORDERS);
    let (reports_in, reports) = mpsc::channel(REPORTS);
    let position = |o: &gantry_proto::agent::v1::StoredOffset| StartPosition {
        partition: wire::fields_in(&o.partition),
        position: wire::fields_in(&o.position),
    };
    let context = SourceContext {
        config: prepared.config.clone(),
        positions: prepared
            .read
            .offsets
            .iter()
            .filter(|o| !o.position.is_empty())
            .map(position)
            .collect(),
        task: ctx.key.task,
        tasks: ctx.spec.tasks,
        env: ctx.env.clone(),
    };
    let hook = Hook {
        source,
        orders: orders_out,
        reports: reports_in,
        budget,
        lease: ctx.lease.clone(),
        jitter: ctx.jitter.clone(),
        held: held.clone(),
    };
    let gone = ctx.place.spawn(ctx.thread_name(), hook.run(context))?;
    Ok(Hooked {
        orders,
        reports,
        gone,
        held,
    })
}

/// Logs what only the log needs to know.
fn ignored(ctx: &RunContext, report: Report) {
    if let Report::Ignored(hook, e) | Report::Failed(hook, e) = report {
        tracing::warn!(
            hook,
            error = ctx.scrubber.scrub(&e.chain()),
            "a hook failed; it changes nothing"
        );
    }
}
