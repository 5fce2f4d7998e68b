//! Owns the tasks: starts, drains, restarts and drops them, and says what has become of them.

mod actor;
pub(crate) mod admit;
pub(crate) mod reports;
mod slot;
mod state;

use std::{collections::BTreeMap, sync::Arc};

use gantry_bus::BusFactory;
use gantry_connector::Env;
use gantry_proto::agent::v1::{RunningTask, StoppedTask};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    backoff::Jitter,
    config::{Hooks, Limits},
    key::TaskKey,
    lease::Lease,
    metrics::Metrics,
    secrets::Secrets,
    task::{offsets::OffsetStore, thread::Place},
};
use admit::Admitted;
use reports::Reports;

/// All tasks that are wanted of this agent.
pub(crate) type Wanted = BTreeMap<TaskKey, Arc<Admitted>>;

/// What all runs share.
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn OffsetStore>,
    pub(crate) bus: Arc<dyn BusFactory>,
    pub(crate) lease: Arc<Lease>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) hooks: Hooks,
    pub(crate) place: Place,
    pub(crate) secrets: Arc<Secrets>,
    pub(crate) env: Env,
    pub(crate) jitter: Jitter,
    pub(crate) metrics: Metrics,
    pub(crate) reports: Arc<Reports>,
}

enum Msg {
    HoldStarts,
    Settle,
    Apply(Wanted, oneshot::Sender<()>),
    Fenced(TaskKey, i64),
    CutOff,
    LeaseEnded,
    ForgetAll,
    Inventory(oneshot::Sender<Vec<RunningTask>>),
    Drain(oneshot::Sender<()>),
    Stopped(oneshot::Sender<Vec<StoppedTask>>),
    /// The pause of a task is over, if the run that failed was this one.
    Due(TaskKey, u64),
    /// A thread that was given up has ended.
    ThreadGone(TaskKey, u64),
    /// A stop takes too long, if the want is still this one.
    StopOverdue(TaskKey, i64),
}

/// A handle to the supervisor. It ends when all handles are gone.
#[derive(Clone)]
pub(crate) struct Supervisor {
    to: mpsc::Sender<Msg>,
    held: watch::Receiver<bool>,
}

impl Supervisor {
    /// Starts it on the present runtime.
    pub(crate) fn spawn(shared: Shared) -> Self {
        let (to, messages) = mpsc::channel(64);
        let (holds, held) = watch::channel(true);
        tokio::spawn(actor::Actor::new(shared, to.downgrade(), holds).run(messages));
        Self { to, held }
    }

    /// Whether nothing is started until the next [`Supervisor::apply`].
    pub(crate) fn is_held(&self) -> bool {
        *self.held.borrow()
    }

    /// Starts nothing until the next [`Supervisor::apply`].
    pub(crate) async fn hold_starts(&self) {
        self.send(Msg::HoldStarts).await;
    }

    /// These tasks are wanted, and no others. Returns when that is known.
    pub(crate) async fn apply(&self, wanted: Wanted) {
        self.ask(|done| Msg::Apply(wanted, done))
            .await
            .unwrap_or_default()
    }

    /// The lease is open again: what waited for that may start.
    pub(crate) async fn settle(&self) {
        self.send(Msg::Settle).await;
    }

    /// The right under that fence has ended.
    pub(crate) async fn fenced(&self, key: TaskKey, fence: i64) {
        self.send(Msg::Fenced(key, fence)).await;
    }

    /// Two thirds of the lease are over: everything ends, nothing starts.
    pub(crate) async fn cut_off(&self) {
        self.send(Msg::CutOff).await;
    }

    /// The lease is over: whatever has not ended is ended with the process.
    pub(crate) async fn lease_ended(&self) {
        self.send(Msg::LeaseEnded).await;
    }

    /// Ends everything without committing and forgets it. What is wanted afterwards waits until it has ended.
    pub(crate) async fn forget_all(&self) {
        self.send(Msg::ForgetAll).await;
    }

    /// What it runs.
    pub(crate) async fn inventory(&self) -> Vec<RunningTask> {
        self.ask(Msg::Inventory).await.unwrap_or_default()
    }

    /// Drains everything for good; returns when nothing runs.
    pub(crate) async fn drain(&self) {
        self.ask(Msg::Drain).await.unwrap_or_default();
    }

    /// Tasks that have stopped after [`Supervisor::drain`].
    pub(crate) async fn stopped(&self) -> Vec<StoppedTask> {
        self.ask(Msg::Stopped).await.unwrap_or_default()
    }

    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Msg) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.send(question(answer)).await;
        answered.await.ok()
    }

    async fn send(&self, message: Msg) {
        // It is gone only when the runtime ends.
        let _ = self.to.send(message).await;
    }
}
