//! What every run does before its connector is opened.

use std::future::Future;

use gantry_bus::{Bus, BusError, BusErrorKind, Queue};
use gantry_connector::{Config, Plugin};
use gantry_proto::agent::v1::ReadOffsetsResponse;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, watch},
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    Control, How, OUTSIDE, RunContext, RunEvent, hung,
    offsets::ReadError,
    stall::Obstacle,
    trouble::{Spot, Tell, Troubles},
};
use crate::{
    backoff::Backoff,
    problem::{Cause, Failure},
};

/// What a run starts with.
pub(super) struct Prepared {
    /// Checked, secrets resolved.
    pub(super) config: Config,
    /// What is committed for the connector.
    pub(super) read: ReadOffsetsResponse,
    /// Held until the connector is open.
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

pub(super) async fn prepare(ctx: &mut RunContext) -> Result<Prepared, How> {
    let starts = ctx.starts.clone();
    let permit = until_told(&mut ctx.control, starts.acquire_owned()).await?.ok();
    if !ctx.may_run() {
        return Err(How::Dropped);
    }
    let spec = match &ctx.plugin {
        Plugin::Source(p) => p.info().spec,
        Plugin::Sink(p) => p.info().spec,
    };
    let (config, scrubber) = ctx
        .secrets
        .resolve(&spec, &ctx.config)
        .map_err(|unresolved| How::Failed(unresolved.failure))?;
    ctx.scrubber = scrubber;
    let read = read_offsets(ctx).await?;
    Ok(Prepared { config, read, permit })
}

async fn read_offsets(ctx: &mut RunContext) -> Result<ReadOffsetsResponse, How> {
    let (store, key, fence) = (ctx.store.clone(), ctx.key.clone(), ctx.fence);
    let read = retry(ctx, || {
        let (store, key) = (store.clone(), key.clone());
        async move { store.read(&key, fence).await }
    });
    match read.await? {
        Ok(read) => Ok(read),
        Err(ReadError::Fenced) => Err(How::Fenced),
        Err(ReadError::Unavailable(failure)) => Err(How::Failed(failure)),
    }
}

/// The topic's queues; creates the topic if that is wanted. Tried until it works.
pub(super) async fn route(ctx: &mut RunContext, topic: &str) -> Result<Vec<Queue>, How> {
    let (bus, create) = (ctx.bus.clone(), ctx.spec.create_queues);
    let route = retry(ctx, || {
        let (bus, topic) = (bus.clone(), topic.to_owned());
        async move { route_or_create(&*bus, &topic, create).await }
    });
    route.await?.map_err(|e| How::Failed(Failure::bus(&e)))
}

/// The topic's queues; creates the topic with so many queues if it is missing and `create` is not 0.
pub(crate) async fn route_or_create(bus: &dyn Bus, topic: &str, create: u32) -> Result<Vec<Queue>, BusError> {
    match bus.route(topic).await {
        Err(e) if e.kind() == BusErrorKind::TopicMissing && create > 0 => {
            bus.create_topic(topic, create).await?;
            bus.route(topic).await
        }
        Ok(route) if route.is_empty() => Err(BusError::new(
            BusErrorKind::TopicMissing,
            format!("topic {topic} has no queue"),
        )),
        route => route,
    }
}

/// An error that may be worth another try.
pub(super) trait MayPass {
    /// What to show meanwhile; None: trying again does not help.
    fn passing(&self) -> Option<Failure>;
}

impl MayPass for BusError {
    fn passing(&self) -> Option<Failure> {
        Some(Failure::bus(self)).filter(|f| f.cause == Cause::External)
    }
}

impl MayPass for ReadError {
    fn passing(&self) -> Option<Failure> {
        match self {
            Self::Fenced => None,
            Self::Unavailable(failure) => Some(failure.clone()),
        }
    }
}

/// Tries until it works, or trying does not help, or the run is told to end.
pub(super) async fn retry<T, E: MayPass, F: Future<Output = Result<T, E>>>(
    ctx: &mut RunContext,
    mut attempt: impl FnMut() -> F,
) -> Result<Result<T, E>, How> {
    let mut backoff = Backoff::new(OUTSIDE, ctx.jitter.clone());
    let mut troubles = Troubles::default();
    loop {
        if !ctx.may_run() {
            return Err(How::Dropped);
        }
        let result = until_told(&mut ctx.control, attempt()).await?;
        let Some(failure) = result.as_ref().err().and_then(MayPass::passing) else {
            return Ok(result);
        };
        troubles.failed(Spot::Poll, failure, Instant::now());
        if let Some(Tell::Trouble(failure)) = troubles.tell(Instant::now(), None) {
            ctx.tell(RunEvent::Trouble(failure)).await;
        }
        until_told(&mut ctx.control, sleep(backoff.fail())).await?;
    }
}

/// Waits for the connector's first report: what `open` came to. `stalls`: whether a connector that is not open yet stalls, and
/// if so, how many messages are known to wait for it. One that takes long does not keep others from starting.
pub(super) async fn opened<R>(
    ctx: &mut RunContext,
    reports: &mut mpsc::Receiver<R>,
    permit: &mut Option<OwnedSemaphorePermit>,
    stalls: impl Fn() -> Option<u64>,
) -> Result<Option<R>, How> {
    let (limit, after) = (ctx.limits.hooks.open, ctx.limits.stalled_after);
    let deadline = Instant::now() + limit;
    if after < limit {
        match timeout(after, until_told(&mut ctx.control, reports.recv())).await {
            Ok(report) => return report,
            Err(_) => {
                permit.take();
                if let Some(waiting) = stalls() {
                    let stalled = Obstacle::Code.failure(waiting, after, "open has not returned");
                    ctx.tell(RunEvent::Stalled(stalled)).await;
                }
            }
        }
    }
    timeout_at(deadline, until_told(&mut ctx.control, reports.recv()))
        .await
        .unwrap_or_else(|_| Err(How::Failed(hung("open", limit))))
}

/// The work, unless the run is told to end before it is done.
pub(super) async fn until_told<T>(
    control: &mut watch::Receiver<Control>,
    work: impl Future<Output = T>,
) -> Result<T, How> {
    tokio::select! {
        biased;
        told = control.wait_for(|c| *c != Control::Run) => match told.as_deref() {
            Ok(Control::Drain) => Err(How::Drained),
            _ => Err(How::Dropped),
        },
        done = work => Ok(done),
    }
}
