//! What is told about afterwards: notable changes, written best effort.

use std::collections::BTreeMap;

use gantry_proto::{
    agent::v1::Gap,
    v1::{Event, task::State},
};
use pbjson_types::Timestamp;
use tokio::task::JoinSet;

use crate::{
    domain::{Snapshot, TaskId, Uid, Versioned, stored},
    plan::{Action, Ended},
    store::Store,
};

/// Events that are being written at a time; what comes on top is left out.
const AT_ONCE: usize = 64;

/// An event and the connector that it belongs to.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Name of the connector.
    pub connector: String,
    /// `create_revision` of its key.
    pub created: i64,
    /// Its uid.
    pub uid: Uid,
    /// The event.
    pub event: Event,
}

/// What an action that was carried out is told as. None: it is not notable.
pub fn of_action(action: &Action, snapshot: &Snapshot, now: Timestamp) -> Option<Entry> {
    let (task, kind, message, agent) = match action {
        Action::Grant { task, grant, .. } => {
            let message = format!("task {} was placed on agent '{}'", task.n, grant.agent);
            (task, "TASK_PLACED", message, grant.agent.clone())
        }
        Action::EndGrant { task, why, .. } => {
            let agent = snapshot
                .grants
                .get(task)
                .map(|g| g.agent.clone())
                .unwrap_or_default();
            let why = match why {
                Ended::Confirmed => return None,
                Ended::Goodbye => "it left",
                Ended::Silent | Ended::Absent => "it is no longer heard",
                Ended::Replaced => "it was started again",
                Ended::Refused => "it refused it",
            };
            (
                task,
                "TASK_TAKEN_BACK",
                format!("task {} was taken from agent '{agent}': {why}", task.n),
                agent,
            )
        }
        Action::SetPointer { uid, value, .. } => {
            let problem = value.problem.clone()?;
            let message = format!("the connector cannot be split into tasks: {}", problem.message);
            let event = Event {
                problem: Some(problem),
                ..event("PLAN_FAILED", message, now)
            };
            return entry(snapshot, uid, event);
        }
        _ => return None,
    };
    let event = Event {
        task: task_name(snapshot, task),
        agent,
        ..event(kind, message, now)
    };
    entry(snapshot, &task.uid, event)
}

/// What a task's new state is told as, given the one before. None: it is not notable.
fn of_state(
    snapshot: &Snapshot,
    task: &TaskId,
    before: State,
    after: State,
    now: Timestamp,
) -> Option<Entry> {
    let status = snapshot.statuses.get(task)?;
    let (kind, what) = match (before, after) {
        (State::Failed, State::Running) => ("TASK_RECOVERED", "runs again"),
        (_, State::Failed) => ("TASK_FAILED", "has failed"),
        (State::Running, State::BackingOff) => ("TASK_RESTARTING", "is tried again"),
        (_, State::Stalled) => ("TASK_STALLED", "has input and does not move"),
        _ => return None,
    };
    let cause = status
        .problem
        .as_ref()
        .map(|p| format!(": {}", p.message))
        .unwrap_or_default();
    let event = Event {
        task: task_name(snapshot, task),
        agent: status.agent.clone(),
        problem: status.problem.clone(),
        ..event(kind, format!("task {} {what}{cause}", task.n), now)
    };
    entry(snapshot, &task.uid, event)
}

/// What a task's new status tells, given what was seen of it before. Nothing is told twice.
fn of_status(
    snapshot: &Snapshot,
    task: &TaskId,
    before: Option<Seen>,
    status: &stored::Status,
    now: Timestamp,
) -> Vec<Entry> {
    let earlier = before.map_or(State::Unspecified, |b| b.state);
    let state = (earlier != status.state())
        .then(|| of_state(snapshot, task, earlier, status.state(), now))
        .flatten();
    // They count from 1 under each right.
    let told = before.filter(|b| b.fence == status.fence).map_or(0, |b| b.gap);
    let new = status.gaps.iter().filter(|gap| gap.number > told);
    let gaps = new.filter_map(|gap| of_gap(snapshot, task, status, gap, now));
    state.into_iter().chain(gaps).collect()
}

/// Data that is gone for good.
fn of_gap(
    snapshot: &Snapshot,
    task: &TaskId,
    status: &stored::Status,
    gap: &Gap,
    now: Timestamp,
) -> Option<Entry> {
    let what = gap
        .problem
        .as_ref()
        .map(|p| p.message.as_str())
        .unwrap_or_default();
    let event = Event {
        task: task_name(snapshot, task),
        agent: status.agent.clone(),
        problem: gap.problem.clone(),
        ..event("DATA_GAP", format!("task {}: {what}", task.n), now)
    };
    entry(snapshot, &task.uid, event)
}

/// What was seen of a task's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    state: State,
    fence: i64,
    /// Number of the last gap.
    gap: u64,
}

impl Seen {
    fn of(status: &stored::Status) -> Self {
        Self {
            state: status.state(),
            fence: status.fence,
            gap: status.gaps.iter().map(|g| g.number).max().unwrap_or(0),
        }
    }
}

/// Writes events in the background, and none twice for the same state.
pub struct Journal {
    store: Store,
    seen: Option<BTreeMap<TaskId, Seen>>,
    writes: JoinSet<()>,
}

impl Journal {
    /// What is so at the first look is no event.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            seen: None,
            writes: JoinSet::new(),
        }
    }

    /// Writes what has changed in the tasks' states since the last look.
    pub fn observe(&mut self, snapshot: &Snapshot, now: Timestamp) {
        let seen = |(task, status): (&TaskId, &Versioned<stored::Status>)| (task.clone(), Seen::of(status));
        let before = self.seen.replace(snapshot.statuses.iter().map(seen).collect());
        let Some(before) = before else { return };
        for (task, status) in &snapshot.statuses {
            for entry in of_status(snapshot, task, before.get(task).copied(), status, now) {
                self.append(Some(entry));
            }
        }
    }

    /// Writes one, unless too many are being written.
    pub fn append(&mut self, entry: Option<Entry>) {
        while self.writes.try_join_next().is_some() {}
        let Some(entry) = entry else { return };
        if self.writes.len() >= AT_ONCE {
            tracing::debug!(
                connector = entry.connector,
                kind = entry.event.r#type,
                "an event was left out"
            );
            return;
        }
        let store = self.store.clone();
        self.writes.spawn(async move {
            let written = store
                .append_event(&entry.connector, entry.created, &entry.uid, &entry.event)
                .await;
            if let Err(error) = written {
                tracing::debug!(connector = entry.connector, %error, "an event could not be written");
            }
        });
    }
}

fn entry(snapshot: &Snapshot, uid: &Uid, event: Event) -> Option<Entry> {
    let name = snapshot.names.get(uid)?;
    let created = snapshot.connectors.get(name)?.create_revision;
    Some(Entry {
        connector: name.to_string(),
        created,
        uid: uid.clone(),
        event,
    })
}

fn event(kind: &str, message: String, now: Timestamp) -> Event {
    Event {
        r#type: kind.to_owned(),
        message,
        time: Some(now),
        ..Event::default()
    }
}

fn task_name(snapshot: &Snapshot, task: &TaskId) -> String {
    let connector = snapshot.names.get(&task.uid).map(|n| &**n).unwrap_or_default();
    format!("connectors/{connector}/tasks/{}", task.n)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gantry_proto::v1::Problem;

    use super::*;

    fn versioned<T>(value: T) -> Versioned<T> {
        Versioned {
            mod_revision: 1,
            create_revision: 1,
            value: Arc::new(value),
        }
    }

    fn gap(number: u64) -> Gap {
        Gap {
            number,
            amount: 20,
            unit: "messages".into(),
            problem: Some(Problem {
                message: format!("gap {number}"),
                ..Problem::default()
            }),
        }
    }

    #[test]
    fn a_state_and_a_gap_are_told_once() {
        let mut snapshot = Snapshot::default();
        let uid = Uid("u".into());
        snapshot.names.insert(uid.clone(), "orders".into());
        let connector = stored::Connector::default();
        snapshot.connectors.insert("orders".into(), versioned(connector));
        let task = TaskId { uid, n: 0 };
        let mut told = |before: Option<Seen>, state: State, fence, gaps: &[u64]| {
            let status = stored::Status {
                fence,
                state: state.into(),
                gaps: gaps.iter().copied().map(gap).collect(),
                problem: Some(Problem {
                    message: "the bus refuses".into(),
                    ..Problem::default()
                }),
                ..stored::Status::default()
            };
            snapshot.statuses.insert(task.clone(), versioned(status.clone()));
            let entries = of_status(&snapshot, &task, before, &status, Timestamp::default());
            let events: Vec<_> = entries
                .into_iter()
                .map(|e| (e.event.r#type, e.event.message))
                .collect();
            (events, Some(Seen::of(&status)))
        };
        let line = |kind: &str, message: &str| (kind.to_owned(), message.to_owned());
        let (events, seen) = told(None, State::Running, 5, &[1]);
        assert_eq!(events, [line("DATA_GAP", "task 0: gap 1")]);
        let (events, seen) = told(seen, State::Running, 5, &[1]);
        assert_eq!(events, []);
        let (events, seen) = told(seen, State::Stalled, 5, &[1, 2, 3]);
        let stalled = "task 0 has input and does not move: the bus refuses";
        assert_eq!(
            events,
            [
                line("TASK_STALLED", stalled),
                line("DATA_GAP", "task 0: gap 2"),
                line("DATA_GAP", "task 0: gap 3"),
            ]
        );
        // Under another right they count anew.
        let (events, _) = told(seen, State::Stalled, 9, &[1]);
        assert_eq!(events, [line("DATA_GAP", "task 0: gap 1")]);
    }
}
