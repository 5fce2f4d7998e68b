//! Runs the planner whenever something may have changed. It is woken, never told what changed: one path for the first
//! run, for a miss and for every day.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until, timeout},
};

use super::{
    Parts, Report, Settings,
    events::{self, Journal},
    executor::{self, Executed},
    measure::Measure,
    splits::Splits,
};
use crate::{
    clock::timestamp,
    domain::time::millis,
    plan::{Action, plan},
    store::{Key, LeaderStore},
};

/// Without a change it runs this often all the same.
const TICK: Duration = Duration::from_secs(10);
/// Pause after runs whose actions all came too late; doubles up to `CONFLICTS_MAX`.
const CONFLICTS: Duration = Duration::from_millis(20);
const CONFLICTS_MAX: Duration = Duration::from_secs(1);
/// The mirror catches up with own writes within this, or the next run plans on what there is.
const CATCH_UP: Duration = Duration::from_secs(2);

pub(super) struct Driver {
    parts: Parts,
    settings: Settings,
    store: LeaderStore,
    measure: Measure,
    splits: Splits,
    journal: Journal,
    report: watch::Sender<Arc<Report>>,
    pause: Duration,
}

impl Driver {
    pub(super) fn new(
        parts: Parts,
        settings: Settings,
        store: LeaderStore,
        report: watch::Sender<Arc<Report>>,
    ) -> Self {
        let measure = Measure::new(parts.clock.clone());
        let splits = Splits::new(parts.clone(), store.clone(), settings.defaults.clone());
        let journal = Journal::new(parts.store.clone());
        Self {
            parts,
            settings,
            store,
            measure,
            splits,
            journal,
            report,
            pause: CONFLICTS,
        }
    }

    /// Runs for as long as this replica leads.
    pub(super) async fn run(mut self, releases: &mut mpsc::Receiver<oneshot::Sender<bool>>) {
        let mut revisions = self.parts.mirror.subscribe();
        let mut connection = self.parts.mirror.watch_connection();
        let cuts = |c: &watch::Receiver<crate::store::Connection>| c.borrow().since;
        loop {
            revisions.mark_unchanged();
            let since = cuts(&connection);
            let wake_at = self.once().await;
            // Own writes have been seen: only others' count as news.
            tokio::select! {
                biased;
                changed = revisions.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                _ = connection.wait_for(|c| c.since != since) => {}
                () = self.splits.finished() => {}
                Some(answer) = releases.recv() => {
                    let _ = answer.send(self.measure.release_brake());
                }
                () = sleep_until(wake_at) => {}
            }
            self.settle(&mut revisions).await;
        }
    }

    /// Waits until nothing has changed for a moment, but not for long.
    async fn settle(&self, revisions: &mut watch::Receiver<i64>) {
        let latest = Instant::now() + self.settings.debounce_max;
        while Instant::now() < latest {
            match timeout(self.settings.debounce, revisions.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }

    /// One run. Returns when the next is due if nothing changes.
    async fn once(&mut self) -> Instant {
        let connection = self.parts.mirror.connection();
        let snapshot = self.parts.mirror.snapshot();
        let facts = self.measure.facts(&snapshot, connection, &self.settings);
        let now = millis(&timestamp(self.parts.clock.wall()));
        let started = Instant::now();
        let plan = plan(&snapshot, &facts, now);
        self.parts.metrics.plan_runs.inc();
        self.parts
            .metrics
            .plan_seconds
            .observe(started.elapsed().as_secs_f64());
        if !plan.actions.is_empty() {
            tracing::debug!(
                revision = snapshot.revision,
                actions = plan.actions.len(),
                "planned"
            );
        }
        self.report.send_replace(Arc::new(Report {
            revision: snapshot.revision,
            actions: plan.actions.len(),
            reasons: plan.report,
            brake: facts.brake.clone(),
        }));
        self.journal
            .observe(&snapshot, timestamp(self.parts.clock.wall()));

        let (asks, writes): (Vec<_>, Vec<_>) = plan
            .actions
            .into_iter()
            .partition(|action| matches!(action, Action::PlanTasks { .. }));
        self.splits.want(asks, &snapshot);
        let executed = executor::carry_out(&self.store, &writes, self.settings.concurrency).await;
        let metrics = &self.parts.metrics;
        metrics.actions.inc_by(executed.applied.len() as u64);
        metrics.action_conflicts.inc_by(executed.conflicts as u64);
        for index in &executed.applied {
            let event = events::of_action(&writes[*index], &snapshot, timestamp(self.parts.clock.wall()));
            self.journal.append(event);
        }
        drop(snapshot);
        let soon = self.catch_up(&executed).await;
        let now_ms = millis(&timestamp(self.parts.clock.wall()));
        let wake = plan
            .wake_at_ms
            .map(|at| Duration::from_millis(u64::try_from(at - now_ms).unwrap_or(0)));
        let wake = wake.map_or(TICK, |wake| wake.clamp(self.settings.debounce, TICK));
        Instant::now() + soon.unwrap_or(wake).min(wake)
    }

    /// Waits until the mirror has what was written, or what stood in the way. Some: run again so soon.
    async fn catch_up(&mut self, executed: &Executed) -> Option<Duration> {
        let deadline = Instant::now() + CATCH_UP;
        let mut target = executed.revision;
        let late = executed.conflicts + executed.unknown > 0;
        if late {
            // A read after an unknown outcome: what it does not show may still come, and the guards make it harmless.
            if let Ok((_, revision)) = self.parts.store.get_raw(&Key::Leader).await {
                target = target.max(revision);
            }
        }
        if target > 0 {
            let _ = self.parts.mirror.wait_revision(target, deadline).await;
        }
        let pause = self.pause;
        self.pause = if late {
            (pause * 2).min(CONFLICTS_MAX)
        } else {
            CONFLICTS
        };
        match (late, executed.applied.is_empty()) {
            (true, _) => Some(pause),
            (false, false) => Some(Duration::ZERO),
            (false, true) => None,
        }
    }
}
