//! One run of a task: from reading where it starts to its end. Every run is new: nothing is carried over.

pub(crate) mod acks;
mod budget;
pub(crate) mod commit;
mod convert;
mod dead_letter;
mod held;
mod hooked;
pub(crate) use hooked::Leaked;
mod ledger;
pub(crate) mod offsets;
mod prepare;
pub(crate) use prepare::route_or_create;
mod sink;
mod source;
#[cfg(test)]
mod speed;
mod stall;
pub(crate) mod thread;
mod trouble;

use std::{sync::Arc, time::Duration};

use gantry_bus::Bus;
use gantry_connector::{Config, Env, Plugin};
use gantry_proto::agent::v1::TaskSpec;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::{
    backoff::{Jitter, Pauses},
    config::Limits,
    key::TaskKey,
    lease::Lease,
    metrics::TaskMetrics,
    problem::{Cause, Failure},
    secrets::{Scrubber, Secrets},
    wire,
};
use offsets::OffsetStore;
use thread::Place;

/// What a run is told. It only ever becomes stricter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Control {
    /// Go on.
    Run,
    /// Finish what is in flight, commit, end.
    Drain,
    /// End without committing.
    Drop,
}

/// What a run tells while it lasts.
#[derive(Debug)]
pub(crate) enum RunEvent {
    /// Its connector is open.
    Opened,
    /// Something outside has been unavailable for a while.
    Trouble(Failure),
    /// Input exists and nothing moves.
    Stalled(Failure),
    /// It moves again.
    Recovered,
    /// Whether the tasks should be split anew.
    ReplanWanted(bool),
    /// Data was lost outside, or jumped over, and has been counted.
    Gap(Gap),
}

/// Data that is gone for good, or was jumped over.
#[derive(Clone, Debug)]
pub(crate) struct Gap {
    /// How much, in `unit`. 0: it cannot be known.
    pub(crate) amount: u64,
    /// `messages`, `records`, `bytes`.
    pub(crate) unit: &'static str,
    /// Where and why.
    pub(crate) why: Failure,
}

/// How a run ended.
pub(crate) struct RunEnd {
    /// In which way.
    pub(crate) how: How,
    /// The thread of the connector, if it does not end.
    pub(crate) leaked: Option<Leaked>,
}

/// In which way a run ended.
#[derive(Debug)]
pub(crate) enum How {
    /// As told; what was done is committed.
    Drained,
    /// To start anew at once.
    Again,
    /// Without committing.
    Dropped,
    /// Its right to commit has ended.
    Fenced,
    /// With an error.
    Failed(Failure),
}

impl From<How> for RunEnd {
    fn from(how: How) -> Self {
        Self { how, leaked: None }
    }
}

/// Tells the supervisor.
#[derive(Clone)]
pub(crate) struct Events {
    pub(crate) key: TaskKey,
    /// Tells this run from others of the task.
    pub(crate) run: u64,
    pub(crate) to: mpsc::Sender<(TaskKey, u64, RunEvent)>,
}

impl Events {
    pub(crate) async fn tell(&self, event: RunEvent) {
        // The supervisor is gone only when the agent ends.
        let _ = self.to.send((self.key.clone(), self.run, event)).await;
    }
}

/// All that a run needs.
pub(crate) struct RunContext {
    pub(crate) key: TaskKey,
    pub(crate) fence: i64,
    pub(crate) spec: Arc<TaskSpec>,
    pub(crate) plugin: Plugin,
    /// Checked; references to secrets unresolved.
    pub(crate) config: Config,
    pub(crate) store: Arc<dyn OffsetStore>,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) lease: Arc<Lease>,
    pub(crate) control: watch::Receiver<Control>,
    pub(crate) events: Events,
    pub(crate) limits: Arc<Limits>,
    pub(crate) place: Place,
    pub(crate) secrets: Arc<Secrets>,
    pub(crate) env: Env,
    pub(crate) jitter: Jitter,
    pub(crate) metrics: TaskMetrics,
    /// Bounds how many tasks start at once.
    pub(crate) starts: Arc<Semaphore>,
    /// Filled in when secrets are resolved.
    pub(crate) scrubber: Scrubber,
}

impl RunContext {
    /// Whether it may go on: the right to run has not run out, and it was not told to end.
    fn may_run(&self) -> bool {
        self.lease.is_open() && *self.control.borrow() != Control::Drop
    }

    fn drain_timeout(&self) -> Duration {
        wire::duration_in(self.spec.drain_timeout.as_ref(), Duration::from_secs(10))
    }

    fn max_record_bytes(&self) -> usize {
        match self.spec.max_record_bytes {
            0 => 4_000_000,
            n => n as usize,
        }
    }

    fn scrub(&self, failure: Failure) -> Failure {
        failure.scrubbed(&self.scrubber)
    }

    async fn tell(&self, event: RunEvent) {
        let event = match event {
            RunEvent::Trouble(f) => RunEvent::Trouble(self.scrub(f)),
            RunEvent::Stalled(f) => RunEvent::Stalled(self.scrub(f)),
            RunEvent::Gap(gap) => RunEvent::Gap(Gap {
                why: self.scrub(gap.why),
                ..gap
            }),
            other @ (RunEvent::Opened | RunEvent::Recovered | RunEvent::ReplanWanted(_)) => other,
        };
        self.events.tell(event).await;
    }

    /// Counts data that is gone, and says so.
    async fn gap(&self, gap: Gap) {
        self.metrics.gap(gap.amount, gap.unit);
        self.tell(RunEvent::Gap(gap)).await;
    }

    fn thread_name(&self) -> String {
        format!("{}/{}", self.spec.connector, self.key.task)
    }
}

/// Pauses between tries of something outside.
const OUTSIDE: Pauses = Pauses {
    first: Duration::from_millis(200),
    longest: Duration::from_secs(10),
};
/// Pauses between tries of a send or pull: the bus itself waits until it is worth trying.
const BUS: Pauses = Pauses {
    first: Duration::from_millis(100),
    longest: Duration::from_secs(2),
};
/// How long a failed run may try to commit what it had done.
const LAST_COMMIT: Duration = Duration::from_secs(5);

/// Runs the task until it ends.
pub(crate) async fn run(mut ctx: RunContext) -> RunEnd {
    let prepared = match prepare::prepare(&mut ctx).await {
        Ok(prepared) => prepared,
        Err(how) => return scrubbed(&ctx.scrubber, how.into()),
    };
    let scrubber = ctx.scrubber.clone();
    let plugin = ctx.plugin.clone();
    let (mut control, pause) = (ctx.control.clone(), ctx.jitter.up_to(Duration::from_millis(300)));
    let end = match plugin {
        Plugin::Source(plugin) => Box::pin(source::run(ctx, prepared, plugin.create())).await,
        Plugin::Sink(plugin) => Box::pin(sink::run(ctx, prepared, plugin.create())).await,
    };
    if matches!(end.how, How::Again) {
        // Whatever made it start anew may still be there.
        let _ = prepare::until_told(&mut control, tokio::time::sleep(pause)).await;
    }
    scrubbed(&scrubber, end)
}

fn scrubbed(scrubber: &Scrubber, end: RunEnd) -> RunEnd {
    match end.how {
        How::Failed(failure) => RunEnd {
            how: How::Failed(failure.scrubbed(scrubber)),
            ..end
        },
        how => RunEnd { how, ..end },
    }
}

/// A hook did not return in time.
fn hung(hook: &str, limit: Duration) -> Failure {
    Failure::new(
        Cause::Task,
        "HOOK_TIMED_OUT",
        format!("{hook} did not return within {} s", limit.as_secs()),
    )
    .fix("look for a call in the connector that blocks or waits for ever")
}
