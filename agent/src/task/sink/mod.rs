//! A sink task: one reader per queue, write, flush, commit; reading and committing overlap with writing.

mod batch;
mod hook;
mod pipeline;
mod queue;
mod reader;
mod route;
mod start;
#[cfg(test)]
mod tests;

use gantry_connector::{Sink, SinkContext};
use tokio::sync::mpsc;

use self::{
    hook::{Hook, Order, Report},
    pipeline::Pipeline,
    queue::QueueState,
};
use super::{
    How, RunContext, RunEnd, RunEvent,
    held::Held,
    hooked::Hooked,
    prepare::{Prepared, opened},
};
use crate::problem::{Cause, Failure};

type Thread = Hooked<Order, Report>;

/// Runs the sink until it ends.
pub(super) async fn run(mut ctx: RunContext, mut prepared: Prepared, sink: Box<dyn Sink>) -> RunEnd {
    let (queues, absent) = match start::starts(&mut ctx, &prepared).await {
        Ok(starts) => starts,
        Err(how) => return how.into(),
    };
    let mut thread = match spawn(&ctx, &prepared, &queues, sink) {
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
    let waiting: u64 = queues.iter().map(QueueState::lag).sum();
    let stalls = || (waiting > 0 || thread.held.since().is_some()).then_some(waiting);
    let how = match opened(&mut ctx, &mut thread.reports, &mut prepared.permit, stalls).await {
        Err(how) => how,
        Ok(Some(Report::Opened(Ok(())))) => {
            prepared.permit.take();
            ctx.tell(RunEvent::Opened).await;
            return Pipeline::new(ctx, &prepared.read, queues, absent, thread)
                .run()
                .await;
        }
        Ok(Some(Report::Opened(Err(e)))) => How::Failed(Failure::connector("open", &e)),
        Ok(_) => How::Failed(Failure::new(
            Cause::Task,
            "THREAD_ENDED",
            "the connector's thread ended",
        )),
    };
    let leaked = thread
        .close(Order::Close, ctx.limits.hooks.close, |r| not_closed(&ctx, r))
        .await;
    RunEnd { how, leaked }
}

fn spawn(
    ctx: &RunContext,
    prepared: &Prepared,
    queues: &[QueueState],
    sink: Box<dyn Sink>,
) -> std::io::Result<Thread> {
    let (orders, orders_out) = mpsc::channel(2);
    let (reports_in, reports) = mpsc::channel(2);
    let context = SinkContext {
        config: prepared.config.clone(),
        partitions: queues.iter().map(QueueState::partition).collect(),
        total_partitions: ctx.spec.total_queues,
        task: ctx.key.task,
        tasks: ctx.spec.tasks,
        env: ctx.env.clone(),
    };
    let held = Held::default();
    let hook = Hook {
        sink,
        orders: orders_out,
        reports: reports_in,
        lease: ctx.lease.clone(),
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

fn not_closed(ctx: &RunContext, report: Report) {
    if let Report::NotClosed(e) = report {
        tracing::warn!(
            error = ctx.scrubber.scrub(&e.chain()),
            "close failed; it changes nothing"
        );
    }
}
