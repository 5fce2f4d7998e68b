//! Agents that are connected: who may have a name, what each is told, what each reports and commits.
//!
//! - [`hello`], [`inventory`], [`desired`], [`push`], [`reports`], [`asks`]: the decisions, pure.
//! - `handshake` and `session`: one stream from its hello to its end. No sockets: streams are arguments.
//! - [`registry`] and `keeper`: what this replica wrote for which agent, and how it is kept true.
//! - [`fanout`]: one feed of the mirror for all sessions.
//! - [`service`]: the tonic service, which only translates.
//!
//! Every replica serves whoever dialled it; none of this knows who leads.

mod allowance;
pub mod asker;
pub mod asks;
mod commits;
pub mod desired;
pub mod fanout;
mod goodbye;
mod handshake;
pub mod hello;
pub mod inventory;
mod keeper;
mod limits;
mod outcome;
pub mod push;
pub mod registry;
pub mod reports;
pub mod service;
mod session;
mod status;
mod traces;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{fanout::Fanout, registry::Registry};
use crate::{
    clock::Clock,
    metrics::Metrics,
    store::{Committer, Lease, Mirror, Store},
};

pub use limits::default_max_sessions;

/// How sessions are served.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Id of this replica.
    pub replica: String,
    /// A heartbeat is due so often.
    pub heartbeat: Duration,
    /// Lease of agents; that of the replica has the same length.
    pub lease: Duration,
    /// Most open sessions.
    pub max_sessions: usize,
    /// An agent is asked to dial again after so long, give or take a quarter. Zero: never.
    pub max_age: Duration,
    /// Seed of the spread.
    pub seed: u64,
}

/// All sessions of a replica. Clones are handles.
#[derive(Clone)]
pub struct Sessions {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    store: Store,
    mirror: Mirror,
    lease: Lease,
    committer: Committer,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    fanout: Fanout,
    registry: Registry,
    serial: AtomicU64,
    stop: CancellationToken,
    streams: TaskTracker,
}

/// What sessions work with.
pub struct Parts {
    /// The store.
    pub store: Store,
    /// Its mirror.
    pub mirror: Mirror,
    /// The replica's lease.
    pub lease: Lease,
    /// Where commits go.
    pub committer: Committer,
    /// Time of day, for what people read.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub metrics: Metrics,
}

impl Sessions {
    /// Starts to serve until `stop` is cancelled.
    pub fn spawn(parts: Parts, settings: Settings, stop: CancellationToken) -> Self {
        let sessions = Self {
            inner: Arc::new(Inner {
                fanout: Fanout::new(parts.mirror.clone()),
                settings,
                store: parts.store,
                mirror: parts.mirror,
                lease: parts.lease,
                committer: parts.committer,
                clock: parts.clock,
                metrics: parts.metrics,
                registry: Registry::default(),
                serial: AtomicU64::new(1),
                stop: stop.clone(),
                streams: TaskTracker::new(),
            }),
        };
        for task in [
            Box::pin(keeper::follow(sessions.clone())) as futures::future::BoxFuture<'static, ()>,
            Box::pin(keeper::keep(sessions.clone())),
        ] {
            let stop = stop.clone();
            tokio::spawn(async move {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    () = task => {}
                }
            });
        }
        sessions
    }

    /// Waits until every stream has ended, after `stop`.
    pub async fn ended(&self) {
        self.inner.streams.close();
        self.inner.streams.wait().await;
    }

    /// How sessions are served.
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    fn store(&self) -> &Store {
        &self.inner.store
    }

    fn mirror(&self) -> &Mirror {
        &self.inner.mirror
    }

    fn lease(&self) -> &Lease {
        &self.inner.lease
    }

    fn committer(&self) -> &Committer {
        &self.inner.committer
    }

    fn clock(&self) -> &dyn Clock {
        &*self.inner.clock
    }

    fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    fn fanout(&self) -> &Fanout {
        &self.inner.fanout
    }

    fn registry(&self) -> &Registry {
        &self.inner.registry
    }

    fn stop(&self) -> &CancellationToken {
        &self.inner.stop
    }

    fn streams(&self) -> &TaskTracker {
        &self.inner.streams
    }

    fn next_serial(&self) -> u64 {
        self.inner.serial.fetch_add(1, Ordering::Relaxed)
    }
}
