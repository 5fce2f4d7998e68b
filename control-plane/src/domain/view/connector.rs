use gantry_proto::v1::{
    self, Problem,
    connector::{Kind, State, TargetState},
    task::State as Task,
};

use super::task;
use crate::domain::{
    Reason, Reasons, Snapshot, Uid, Versioned, code,
    lifecycle::{self, Row},
    status::{self, Planned},
    stored,
};

/// The etag of a connector's specification: a status write never changes it.
pub fn etag(connector: &Versioned<stored::Connector>) -> String {
    connector.mod_revision.to_string()
}

/// A connector in full. `reasons`: why tasks wait, from the planner, once for a snapshot.
pub fn connector_view(snapshot: &Snapshot, reasons: &Reasons, name: &str) -> Option<v1::Connector> {
    let stored = snapshot.connectors.get(name)?;
    let uid = Uid(stored.uid.as_str().into());
    let pointer = snapshot.pointers.get(&uid);
    let tasks: Vec<_> = task::task_ids(snapshot, name, &uid)
        .into_iter()
        .map(|id| {
            let state = status::task_state(snapshot, &id, task::is_refused(reasons, name, id.n));
            (id, state)
        })
        .collect();
    let states: Vec<_> = tasks.iter().map(|(_, state)| *state).collect();

    let mut view = stored.definition.clone().unwrap_or_default();
    let (deleting, target) = (stored.delete_time.is_some(), view.target_state());
    let problem = status::plan_problem(stored, pointer);
    let planned = match pointer {
        Some(p) if p.plan_generation > 0 => Planned::Yes,
        _ if problem.is_some_and(|p| p.problem_final) => Planned::Never,
        _ => Planned::NotYet,
    };
    let state = status::roll_up(deleting, target, planned, &states);
    let held = Snapshot::tasks_of(&snapshot.grants, &uid).next().is_some();

    view.name = format!("connectors/{name}");
    view.uid.clone_from(&stored.uid);
    view.etag = etag(stored);
    view.kind = kind(snapshot, &view.plugin).into();
    view.generation = stored.generation;
    view.observed_generation = match pointer {
        // Nothing has to be planned for a connector without tasks.
        _ if !deleting && target == TargetState::Stopped && !held => stored.generation,
        pointer => pointer.map_or(0, |p| p.generation),
    };
    view.reconciling = status::is_reconciling(snapshot, stored, pointer, &tasks);
    view.set_state(state);
    if !status::ends(stored) {
        let waiting = view.observed_generation < view.generation;
        let reason = || own_reason(reasons, name).filter(|_| waiting).map(task::problem);
        view.plan_error = problem.and_then(|p| p.problem.clone()).or_else(reason);
    }
    view.error = match state {
        State::Failed if planned == Planned::Never => view.plan_error.clone(),
        // What an agent said of the split tells more than that it has to be made again.
        State::Pending if planned == Planned::NotYet && view.plan_error.is_some() => view.plan_error.clone(),
        State::Failed | State::Degraded | State::Unknown | State::Pending => {
            first_cause(snapshot, reasons, name, &uid)
        }
        _ => None,
    };
    view.allowed_actions = lifecycle::allowed_actions(Row::of(deleting, target, state, held))
        .into_iter()
        .map(Into::into)
        .collect();
    view.task_counts = Some(counts(&states));
    view.create_time = stored.create_time;
    view.update_time = stored.update_time;
    view.delete_time = stored.delete_time;
    Some(view)
}

/// The connector's row in the table of actions, and the tasks that agents still hold. `present`: as it is stored, which may be
/// newer than the snapshot has it.
pub fn row(
    snapshot: &Snapshot,
    reasons: &Reasons,
    name: &str,
    present: &stored::Connector,
) -> (Row, Vec<u32>) {
    let state = connector_view(snapshot, reasons, name).map_or(State::Pending, |c| c.state());
    let held = status::held(snapshot, &Uid(present.uid.as_str().into()));
    let target = present
        .definition
        .as_ref()
        .map_or(TargetState::Running, |d| d.target_state());
    let row = Row::of(present.delete_time.is_some(), target, state, !held.is_empty());
    (row, held)
}

/// The plugin's direction, the same in all its versions.
fn kind(snapshot: &Snapshot, plugin: &str) -> Kind {
    let first = snapshot.plugins.range((plugin.into(), "".into())..).next();
    let record = first
        .filter(|((id, _), _)| **id == *plugin)
        .and_then(|(_, record)| record.plugin.as_ref());
    record.map_or(Kind::Unspecified, |p| p.kind())
}

fn counts(states: &[Task]) -> v1::TaskCounts {
    let count = |state| i32::try_from(states.iter().filter(|s| **s == state).count()).unwrap_or(i32::MAX);
    v1::TaskCounts {
        total: i32::try_from(states.len()).unwrap_or(i32::MAX),
        running: count(Task::Running),
        paused: count(Task::Paused),
        failed: count(Task::Failed),
    }
}

/// The problem of the task that is worst off; of several the one with the lowest number.
fn first_cause(snapshot: &Snapshot, reasons: &Reasons, name: &str, uid: &Uid) -> Option<Problem> {
    const WORST_FIRST: [Task; 8] = [
        Task::Failed,
        Task::Stalled,
        Task::Unknown,
        Task::BackingOff,
        Task::Pending,
        Task::Starting,
        Task::Stopping,
        Task::Stopped,
    ];
    let tasks = task::task_views(snapshot, reasons, uid);
    let rank = |t: &v1::Task| WORST_FIRST.iter().position(|s| *s == t.state());
    let worst = tasks
        .iter()
        .filter(|t| t.problem.is_some())
        .filter_map(|t| rank(t).map(|r| (r, t)));
    let found = worst.min_by_key(|(r, _)| *r).and_then(|(_, t)| t.problem.clone());
    found.or_else(|| own_reason(reasons, name).map(task::problem))
}

/// The planner's reason, unless it only repeats a problem that is stored: reasons may be of another revision than the snapshot,
/// and the stored problem says who has to act and what to do.
fn own_reason<'a>(reasons: &'a Reasons, name: &str) -> Option<&'a Reason> {
    reasons.connector(name).filter(|r| r.code != code::PLAN_FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_plan_problem_does_not_stand_for_the_stored_one() {
        let stored = crate::domain::stored::Connector {
            uid: "u".into(),
            generation: 1,
            ..Default::default()
        };
        let mut snapshot = Snapshot::default();
        let stored = crate::domain::Versioned {
            mod_revision: 1,
            create_revision: 1,
            value: std::sync::Arc::new(stored),
        };
        snapshot.connectors.insert("a".into(), stored);
        let reason = |code| Reason {
            connector: "a".into(),
            task: None,
            code,
            text: "t".into(),
        };
        let shown = |code| {
            let view = connector_view(&snapshot, &[reason(code)].into_iter().collect(), "a").unwrap();
            (view.plan_error.is_some(), view.error.is_some())
        };
        assert_eq!(shown(code::PLANNING), (true, true));
        assert_eq!(shown(code::PLAN_FAILED), (false, false));
    }
}
