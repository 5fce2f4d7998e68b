//! Task states and their roll-up: what is shown of what the system last knew.

use gantry_proto::{
    agent::v1::task_assignment::Want,
    v1::{
        connector::{State, TargetState},
        task::State as Task,
    },
};

use super::{Snapshot, TaskId, Uid, Versioned, stored};

/// Tasks of a connector that some agent holds: what a stop or an alteration of offsets waits for.
pub fn held(snapshot: &Snapshot, uid: &Uid) -> Vec<u32> {
    Snapshot::tasks_of(&snapshot.grants, uid)
        .map(|(id, _)| id.n)
        .collect()
}

/// Changes when the connector or the task is restarted: the nonce that the task's want carries.
pub fn restart_nonce(connector: &stored::Connector, n: u32) -> String {
    match connector.task_restart_nonces.get(&n) {
        Some(task) if !task.is_empty() => format!("{}/{task}", connector.restart_nonce),
        _ => connector.restart_nonce.clone(),
    }
}

/// No task of the connector shall exist.
pub fn ends(connector: &stored::Connector) -> bool {
    let target = connector.definition.as_ref().map(|d| d.target_state());
    connector.delete_time.is_some() || target == Some(TargetState::Stopped)
}

/// Has the instance that holds a grant a session in which it is heard?
pub fn is_live(snapshot: &Snapshot, grant: &stored::Grant) -> bool {
    let session = snapshot.sessions.get(grant.agent.as_str());
    session.is_some_and(|s| !s.silent && s.instance_uid == grant.instance_uid)
}

/// Why a connector's present generation is not planned, if that is known. A problem counts until the user writes the
/// connector again.
pub fn plan_problem<'s>(
    connector: &Versioned<stored::Connector>,
    pointer: Option<&'s Versioned<stored::PlanPointer>>,
) -> Option<&'s stored::PlanPointer> {
    let pointer = pointer.filter(|p| p.mod_revision > connector.mod_revision)?;
    (pointer.problem.is_some() && pointer.problem_generation == connector.generation)
        .then_some(&*pointer.value)
}

/// The status of a task under its present grant.
pub fn present_status<'s>(
    snapshot: &'s Snapshot,
    id: &TaskId,
    grant: &Versioned<stored::Grant>,
) -> Option<&'s Versioned<stored::Status>> {
    snapshot
        .statuses
        .get(id)
        .filter(|s| s.fence == grant.mod_revision)
}

/// What a task is doing. `refused`: no agent holds it because all have refused it.
pub fn task_state(snapshot: &Snapshot, id: &TaskId, refused: bool) -> Task {
    let Some(grant) = snapshot.grants.get(id) else {
        return if refused { Task::Failed } else { Task::Pending };
    };
    if !is_live(snapshot, grant) {
        return Task::Unknown;
    }
    match present_status(snapshot, id, grant) {
        Some(status) if status.refusal.is_some() => Task::Pending,
        Some(status) if status.state() != Task::Unspecified => status.state(),
        _ if snapshot.wants.get(id).is_some_and(|w| w.want() == Want::Stop) => Task::Stopping,
        _ => Task::Starting,
    }
}

/// Has a connector a plan?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planned {
    /// A plan counts, perhaps one for an older generation.
    Yes,
    /// None yet.
    NotYet,
    /// None, and none will come by itself.
    Never,
}

/// State of a connector from the states of its tasks: of those that are held while it is stopping, else of all in its plan.
/// First match wins.
pub fn roll_up(deleting: bool, target: TargetState, planned: Planned, tasks: &[Task]) -> State {
    let any = |states: &[Task]| tasks.iter().any(|t| states.contains(t));
    let stopping = target == TargetState::Stopped;
    if deleting {
        return State::Deleting;
    }
    if stopping && tasks.is_empty() {
        return State::Stopped;
    }
    match planned {
        Planned::Never => return State::Failed,
        Planned::NotYet => return State::Pending,
        Planned::Yes => {}
    }
    if !tasks.is_empty() && tasks.iter().all(|t| *t == Task::Failed) {
        return State::Failed;
    }
    if any(&[Task::Failed, Task::Stalled, Task::Unknown, Task::BackingOff]) {
        return match any(&[Task::Unknown]) && !any(&[Task::Running, Task::Paused]) {
            true => State::Unknown,
            false => State::Degraded,
        };
    }
    if tasks.is_empty() || any(&[Task::Pending, Task::Starting]) {
        return State::Pending;
    }
    // A task that leaves its agent while the connector shall go on is on its way to another one.
    if !stopping && any(&[Task::Stopping, Task::Stopped, Task::Unspecified]) {
        return State::Pending;
    }
    if target != TargetState::Running && tasks.iter().all(|t| *t == Task::Paused) {
        return State::Paused;
    }
    State::Running
}

/// Is there still something to do before the tasks match the definition? Not: does every task run.
pub fn is_reconciling(
    snapshot: &Snapshot,
    connector: &Versioned<stored::Connector>,
    pointer: Option<&Versioned<stored::PlanPointer>>,
    tasks: &[(TaskId, Task)],
) -> bool {
    if ends(connector) {
        return connector.delete_time.is_some() || !tasks.is_empty();
    }
    let Some(pointer) = pointer.filter(|p| p.plan_generation > 0 && p.generation == connector.generation)
    else {
        return true;
    };
    let target = connector
        .definition
        .as_ref()
        .map_or(TargetState::Running, |d| d.target_state());
    tasks.iter().any(|(id, state)| {
        let Some(grant) = snapshot.grants.get(id) else {
            return *state != Task::Failed;
        };
        let wanted = if target == TargetState::Paused {
            Want::Pause
        } else {
            Want::Run
        };
        let nonce = restart_nonce(connector, id.n);
        if grant.plan_generation != pointer.plan_generation
            || snapshot
                .wants
                .get(id)
                .is_none_or(|w| w.want() != wanted || w.restart_nonce != nonce)
        {
            return true;
        }
        if present_status(snapshot, id, grant).is_some_and(|s| s.restart_nonce != nonce) {
            return true;
        }
        match state {
            Task::Failed | Task::Unknown => false,
            Task::Running | Task::BackingOff | Task::Stalled => wanted == Want::Pause,
            Task::Paused => wanted == Want::Run,
            _ => true,
        }
    })
}

#[cfg(test)]
mod tests;
