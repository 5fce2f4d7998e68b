//! Leads while the election says so.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{Parts, Reconciler, Report, Role, Settings, driver::Driver, retention};
use crate::store::{Compactor, Election, LeaderStore, Leadership};

type Releases = mpsc::Receiver<oneshot::Sender<bool>>;

struct Task {
    parts: Parts,
    election: Election,
    settings: Settings,
    role: watch::Sender<Role>,
    report: watch::Sender<Arc<Report>>,
    releases: Releases,
}

pub(super) fn spawn(
    parts: Parts,
    election: Election,
    settings: Settings,
    stop: CancellationToken,
) -> Reconciler {
    let (role, role_seen) = watch::channel(Role::Follower);
    let (report, report_seen) = watch::channel(Arc::default());
    let (asked, releases) = mpsc::channel(4);
    let task = Task {
        parts,
        election,
        settings,
        role,
        report,
        releases,
    };
    tokio::spawn(async move {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = task.run() => {}
        }
    });
    Reconciler {
        role: role_seen,
        report: report_seen,
        releases: asked,
    }
}

impl Task {
    async fn run(mut self) {
        let mut leadership = self.election.watch();
        loop {
            let now = leadership.borrow_and_update().clone();
            match now {
                Some(now) if !now.lost.is_cancelled() => self.lead(now).await,
                _ => {
                    tokio::select! {
                        biased;
                        changed = leadership.changed() => {
                            if changed.is_err() {
                                return;
                            }
                        }
                        // Nobody to release anything: the answer is dropped.
                        Some(_) = self.releases.recv() => {}
                    }
                }
            }
        }
    }

    /// Leads until it is lost; what is then under way is dropped with its future.
    async fn lead(&mut self, leadership: Leadership) {
        let term = leadership.term;
        self.role.send_replace(Role::Leader { term });
        self.parts.metrics.leader.set(1);
        let store = LeaderStore::new(self.parts.store.clone(), self.parts.mirror.clone(), term);
        let driver = Driver::new(
            self.parts.clone(),
            self.settings.clone(),
            store.clone(),
            self.report.clone(),
        );
        let compactor = Compactor::new(self.parts.store.clone());
        let leading = async {
            tokio::join!(
                driver.run(&mut self.releases),
                compactor.run(leadership.lost.clone()),
                raise_format(&self.parts, &store),
                Box::pin(retention::sweep(&self.parts))
            );
        };
        tokio::select! {
            biased;
            () = leadership.lost.cancelled() => {}
            () = leading.instrument(tracing::info_span!("leader", term)) => {}
        }
        self.parts.metrics.leader.set(0);
        self.role.send_replace(Role::Follower);
    }
}

/// Raises the format when every live replica reads a higher one.
async fn raise_format(parts: &Parts, store: &LeaderStore) {
    let mut seen = None;
    let mut revisions = parts.mirror.subscribe();
    loop {
        let reads = parts.mirror.read(|s| s.replicas.values().map(|r| r.reads).min());
        if reads != seen {
            match store.raise_format().await {
                Ok(_) => seen = reads,
                Err(error) => tracing::debug!(%error, "the format could not be raised"),
            }
        }
        if revisions.changed().await.is_err() {
            return;
        }
    }
}
