//! What a replica counts: of itself, of its calls of etcd, and, while it leads, of the cluster.
//!
//! Names and meaning for operators are in `docs/observability.md`.

mod cluster;

use std::{
    sync::atomic::{AtomicI64, AtomicU64},
    time::Duration,
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

pub use cluster::{Cluster, ClusterCounts};

/// All names of a control plane begin so.
const PREFIX: &str = "gantry_server";

fn durations() -> Histogram {
    Histogram::new(exponential_buckets(0.000_5, 2.0, 14))
}

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
    /// Since when the mirror has not been up to date, in seconds.
    pub mirror_lag: Gauge<f64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            sessions: Gauge::default(),
            hellos_refused: Counter::default(),
            pushes: Counter::default(),
            statuses: Counter::default(),
            commits: Counter::default(),
            commits_refused: Counter::default(),
            commit_seconds: durations(),
            leader: Gauge::default(),
            plan_runs: Counter::default(),
            plan_seconds: durations(),
            actions: Counter::default(),
            action_conflicts: Counter::default(),
            mirror_lag: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Makes the figures readable under `gantry_server_...`.
    pub fn register(&self, registry: &mut Registry) {
        let r = registry.sub_registry_with_prefix(PREFIX);
        r.register("leader", "1 while this replica leads", self.leader.clone());
        r.register(
            "sessions",
            "Agents that are connected to this replica",
            self.sessions.clone(),
        );
        r.register(
            "hellos_refused",
            "Hellos of agents that were refused",
            self.hellos_refused.clone(),
        );
        r.register(
            "pushes",
            "Assignments pushed to agents, full sets and changes",
            self.pushes.clone(),
        );
        r.register("statuses", "Task states stored", self.statuses.clone());
        r.register("commits", "Commits of tasks stored", self.commits.clone());
        r.register(
            "commits_refused",
            "Commits of tasks refused: fenced, in conflict or malformed",
            self.commits_refused.clone(),
        );
        r.register_with_unit(
            "commit_duration",
            "From the arrival of commits to their answer",
            Unit::Seconds,
            self.commit_seconds.clone(),
        );
        r.register("plan_runs", "Runs of the planner", self.plan_runs.clone());
        r.register_with_unit(
            "plan_duration",
            "Time of a run of the planner, without its writes",
            Unit::Seconds,
            self.plan_seconds.clone(),
        );
        r.register(
            "actions",
            "Actions of the planner carried out",
            self.actions.clone(),
        );
        r.register(
            "action_conflicts",
            "Actions that came too late: what they rested on had changed",
            self.action_conflicts.clone(),
        );
        r.register_with_unit(
            "mirror_lag",
            "How long ago this replica's copy of the store was up to date",
            Unit::Seconds,
            self.mirror_lag.clone(),
        );
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StoreCall {
    kind: &'static str,
    outcome: &'static str,
}

/// Calls of etcd. Clones count together.
#[derive(Clone, Debug)]
pub struct StoreMetrics {
    seconds: Family<StoreCall, Histogram>,
}

impl Default for StoreMetrics {
    fn default() -> Self {
        Self {
            seconds: Family::new_with_constructor(durations),
        }
    }
}

impl StoreMetrics {
    /// Takes the time of one call. `reads`: it has no effect.
    pub fn called(&self, reads: bool, ok: bool, took: Duration) {
        let call = StoreCall {
            kind: if reads { "read" } else { "write" },
            outcome: if ok { "ok" } else { "error" },
        };
        self.seconds.get_or_create(&call).observe(took.as_secs_f64());
    }

    /// Makes the figures readable under `gantry_server_...`.
    pub fn register(&self, registry: &mut Registry) {
        registry.sub_registry_with_prefix(PREFIX).register_with_unit(
            "etcd_request_duration",
            "Time of reads and writes of etcd, each attempt for itself",
            Unit::Seconds,
            self.seconds.clone(),
        );
    }
}
