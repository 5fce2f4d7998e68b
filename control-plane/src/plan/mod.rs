//! Decides. `plan(&Snapshot, ...) -> Plan { actions, report }`: pure, the same answer for the same input.
//!
//! `planner` goes through the connectors; for each, `pointer` says whether it has to be split anew, `tasks` and `moves`
//! what becomes of every task, `placement` which agent gets it. `world` judges whether a right has ended. `liveness` and `brake` keep what
//! a leader has measured; `split` turns an agent's answer into a plan.

mod brake;
mod connector;
mod facts;
mod inputs;
mod liveness;
mod moves;
mod placement;
mod planner;
mod pointer;
mod refusal;
mod render;
mod split;
mod tasks;
#[cfg(test)]
mod tests;
mod wants;
mod world;

pub use brake::{Brake, BrakeState};
pub use facts::{Defaults, Facts};
pub use liveness::Absence;
pub use render::render;
pub use split::{Split, failed_ask, present_route, split};

pub use crate::domain::{Reason, code};
use crate::domain::{Reasons, Snapshot, TaskId, Uid, stored};

/// What the leader should do, and why.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Plan {
    /// In order; each stands alone and names all it rests on.
    pub actions: Vec<Action>,
    /// For every task that is not where it should be: why.
    pub report: Vec<Reason>,
    /// Time alone changes this plan, first at this point (on the clock of `now_ms`).
    pub wake_at_ms: Option<i64>,
}

/// A mod_revision in the snapshot that was planned on; 0: the key did not exist.
pub type Rev = i64;

/// All that a decision about a task rests on, written or not. Compared by the transaction that carries it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskGuard {
    /// connectors/{name}
    pub connector: String,
    /// Its mod_revision.
    pub spec: Rev,
    /// plans/{uid}/current
    pub pointer: Rev,
    /// grants/{uid}/{n}
    pub grant: Rev,
    /// wants/{uid}/{n}
    pub want: Rev,
    /// instances/{agent}, when a right is ended because its holder is surely gone.
    pub instance: Option<(String, Rev)>,
    /// statuses/{uid}/{n}, when a right is ended because of a confirmation.
    pub status: Option<Rev>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Ask an agent to split the connector; then store what [`split`] or [`failed_ask`] makes of it. Part of every plan
    /// until that is stored: whoever carries it out asks once for each `spec` and `input_hash`.
    PlanTasks {
        /// Name of the connector.
        connector: String,
        /// Its uid.
        uid: Uid,
        /// mod_revision of its key.
        spec: Rev,
        /// mod_revision of the plan pointer.
        pointer: Rev,
        /// The new plan's generation.
        plan_generation: i64,
        /// Hash of all that the split depends on.
        input_hash: String,
        /// Version of the plugin that the plan pins.
        plugin_version: String,
        /// Agents that can answer, best first.
        agents: Vec<String>,
    },
    /// Store a plan pointer without a new split (the inputs are the same, or the problem has changed).
    SetPointer {
        /// Name of the connector.
        connector: String,
        /// Its uid.
        uid: Uid,
        /// mod_revision of its key.
        spec: Rev,
        /// mod_revision of the pointer.
        pointer: Rev,
        /// The pointer's new value.
        value: stored::PlanPointer,
    },
    /// Give the right to a task and say what to do with it, in one transaction.
    Grant {
        /// The task.
        task: TaskId,
        /// What is compared.
        guard: TaskGuard,
        /// The new grant.
        grant: stored::Grant,
        /// The new want.
        want: stored::Want,
        /// The task had a grant, which is rewritten: why that one has surely ended.
        ended: Option<Ended>,
    },
    /// Change what the holder should do. The fence stays.
    SetWant {
        /// The task.
        task: TaskId,
        /// What is compared.
        guard: TaskGuard,
        /// The new want.
        want: stored::Want,
    },
    /// End a right that has surely ended.
    EndGrant {
        /// The task.
        task: TaskId,
        /// What is compared.
        guard: TaskGuard,
        /// Why it has surely ended.
        why: Ended,
    },
    /// Remove want and status of a task number that no plan has any more.
    RemoveTask {
        /// The task.
        task: TaskId,
        /// What is compared.
        guard: TaskGuard,
    },
    /// Remove plans that no pointer and no grant refers to.
    RemovePlan {
        /// The connector.
        uid: Uid,
        /// mod_revision of the plan pointer.
        pointer: Rev,
        /// The plan's generation.
        plan_generation: i64,
    },
    /// Last transaction of a delete: compares that no grant is left under the uid.
    FinishDelete {
        /// Name of the connector.
        connector: String,
        /// Its uid.
        uid: Uid,
        /// mod_revision of its key.
        spec: Rev,
        /// Leave the offsets.
        keep_offsets: bool,
    },
}

/// Why a right has surely ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The holder confirmed the present want under its fence.
    Confirmed,
    /// The holder said goodbye and named the task.
    Goodbye,
    /// The serving replica heard nothing for a whole lease.
    Silent,
    /// No session named the instance for a whole lease.
    Absent,
    /// A later start under the same lock was accepted.
    Replaced,
    /// The holder refused the task and never ran it.
    Refused,
}

/// What the leader should do now. Pure: the same answer for the same input.
///
/// `now_ms` is wall time (milliseconds since 1970). It only decides when something that was refused or failed is tried
/// again; whether a right has ended never depends on it.
pub fn plan(snapshot: &Snapshot, facts: &Facts, now_ms: i64) -> Plan {
    let nothing = gantry_proto::v1::Connector::default();
    planner::Planner::new(world::World::new(snapshot, facts, now_ms)).run(&nothing)
}

/// Why tasks are not where they should be, as any replica can tell without being the leader. Work for a whole snapshot: once
/// for each revision that is shown, not once for each connector.
pub fn explain(snapshot: &Snapshot, facts: &Facts, now_ms: i64) -> Reasons {
    plan(snapshot, facts, now_ms).report.into_iter().collect()
}
