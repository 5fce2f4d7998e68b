//! Makes what is so what is wanted: the leader plans on a snapshot and carries the plan out.
//!
//! - `leader`: leads or follows; losing the lead drops everything that leading does.
//! - `driver`: woken, never told; one run at a time: snapshot, what was measured, plan, actions.
//! - `executor`: each action in its guarded transaction. A conflict is normal: it is planned anew.
//! - `splits`: plans that need an agent's answer first.
//! - `events`: what people are told about afterwards.

mod driver;
pub mod events;
mod executor;
mod leader;
mod measure;
mod retention;
mod splits;

use std::{sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    metrics::Metrics,
    plan::{BrakeState, Defaults, Reason},
    sessions::asker::Asker,
    store::{Election, Mirror, Store},
};

/// What this replica is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Another one leads, or none.
    Follower,
    /// This one leads.
    Leader {
        /// Its term.
        term: i64,
    },
}

/// How the leader works.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Lease of agents.
    pub lease: Duration,
    /// What definitions that say nothing get.
    pub defaults: Defaults,
    /// Most tasks that are on the move at once.
    pub max_moves: usize,
    /// A run waits for this long without a further change.
    pub debounce: Duration,
    /// But no longer than this after the first change.
    pub debounce_max: Duration,
    /// Actions at a time.
    pub concurrency: usize,
}

/// What the leader works with.
#[derive(Clone)]
pub struct Parts {
    /// The store.
    pub store: Store,
    /// Its mirror.
    pub mirror: Mirror,
    /// Asks agents.
    pub asker: Asker,
    /// Clock that counts suspension, and time of day.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub metrics: Metrics,
}

/// What the last run came to.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Revision of the snapshot; 0: this replica has not planned yet.
    pub revision: i64,
    /// Actions of the plan.
    pub actions: usize,
    /// Why tasks are not where they should be.
    pub reasons: Vec<Reason>,
    /// Many agents were lost at once.
    pub brake: Option<BrakeState>,
}

/// Handle of a replica's reconciler.
#[derive(Clone)]
pub struct Reconciler {
    role: watch::Receiver<Role>,
    report: watch::Receiver<Arc<Report>>,
    releases: mpsc::Sender<oneshot::Sender<bool>>,
}

impl Reconciler {
    /// Follows the election and leads when it is won, until `stop` is cancelled.
    pub fn spawn(parts: Parts, election: Election, settings: Settings, stop: CancellationToken) -> Self {
        leader::spawn(parts, election, settings, stop)
    }

    /// What this replica is now.
    pub fn role(&self) -> Role {
        *self.role.borrow()
    }

    /// Every change of it.
    pub fn watch_role(&self) -> watch::Receiver<Role> {
        self.role.clone()
    }

    /// What the last run of this replica came to.
    pub fn report(&self) -> Arc<Report> {
        self.report.borrow().clone()
    }

    /// Lets the brake go. None: this replica does not lead. False: it was not on.
    pub async fn release_brake(&self) -> Option<bool> {
        let (answer, released) = oneshot::channel();
        self.releases.send(answer).await.ok()?;
        released.await.ok()
    }
}
