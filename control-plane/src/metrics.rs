//! What a replica counts of itself.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::{
    metrics::{
        counter::Counter,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

/// Figures of one replica. Clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Agents' sessions with an open stream.
    pub sessions: Gauge<i64, AtomicI64>,
    /// Hellos that were refused.
    pub hellos_refused: Counter<u64, AtomicU64>,
    /// Pushes of assignments, full sets and deltas.
    pub pushes: Counter<u64, AtomicU64>,
    /// Status writes that were stored.
    pub statuses: Counter<u64, AtomicU64>,
    /// Commits of tasks that were stored.
    pub commits: Counter<u64, AtomicU64>,
    /// Commits of tasks that were refused: fenced, in conflict or malformed.
    pub commits_refused: Counter<u64, AtomicU64>,
    /// Time from a commit's arrival to its answer, in seconds.
    pub commit_seconds: Histogram,
    /// This replica leads.
    pub leader: Gauge<i64, AtomicI64>,
    /// Runs of the planner.
    pub plan_runs: Counter<u64, AtomicU64>,
    /// Time of a plan run without its writes, in seconds.
    pub plan_seconds: Histogram,
    /// Actions that were carried out.
    pub actions: Counter<u64, AtomicU64>,
    /// Actions that came too late: what they rested on had changed.
    pub action_conflicts: Counter<u64, AtomicU64>,
    /// Age of the mirror, in seconds; -1: it is cut off.
    pub mirror_lag: Gauge<f64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.000_5, 2.0, 14));
        Self {
            sessions: Gauge::default(),
            hellos_refused: Counter::default(),
            pushes: Counter::default(),
            statuses: Counter::default(),
            commits: Counter::default(),
            commits_refused: Counter::default(),
            commit_seconds: seconds(),
            leader: Gauge::default(),
            plan_runs: Counter::default(),
            plan_seconds: seconds(),
            actions: Counter::default(),
            action_conflicts: Counter::default(),
            mirror_lag: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Makes the figures readable under `gantry_...`.
    pub fn register(&self, registry: &mut Registry) {
        let r = registry.sub_registry_with_prefix("gantry");
        r.register(
            "sessions",
            "Agents' sessions with an open stream",
            self.sessions.clone(),
        );
        r.register(
            "hellos_refused",
            "Hellos that were refused",
            self.hellos_refused.clone(),
        );
        r.register("pushes", "Pushes of assignments", self.pushes.clone());
        r.register("statuses", "Task states stored", self.statuses.clone());
        r.register("commits", "Commits of tasks stored", self.commits.clone());
        r.register(
            "commits_refused",
            "Commits of tasks refused",
            self.commits_refused.clone(),
        );
        r.register(
            "commit_seconds",
            "From a commit's arrival to its answer",
            self.commit_seconds.clone(),
        );
        r.register("leader", "This replica leads", self.leader.clone());
        r.register("plan_runs", "Runs of the planner", self.plan_runs.clone());
        r.register("plan_seconds", "Time of a plan run", self.plan_seconds.clone());
        r.register("actions", "Actions carried out", self.actions.clone());
        r.register(
            "action_conflicts",
            "Actions that came too late",
            self.action_conflicts.clone(),
        );
        r.register(
            "mirror_lag_seconds",
            "Age of the mirror; -1: cut off",
            self.mirror_lag.clone(),
        );
    }
}
