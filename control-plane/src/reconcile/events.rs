//! What is told about afterwards: notable changes, written best effort.

use std::collections::BTreeMap;

use gantry_proto::v1::{Event, task::State};
use pbjson_types::Timestamp;
use tokio::task::JoinSet;

use crate::{
    domain::{Snapshot, TaskId, Uid},
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

/// Writes events in the background, and none twice for the same state.
pub struct Journal {
    store: Store,
    states: Option<BTreeMap<TaskId, State>>,
    writes: JoinSet<()>,
}

impl Journal {
    /// What is so at the first look is no event.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            states: None,
            writes: JoinSet::new(),
        }
    }

    /// Writes what has changed in the tasks' states since the last look.
    pub fn observe(&mut self, snapshot: &Snapshot, now: Timestamp) {
        let states: BTreeMap<TaskId, State> = snapshot
            .statuses
            .iter()
            .map(|(task, status)| (task.clone(), status.state()))
            .collect();
        let before = self.states.replace(states.clone());
        let Some(before) = before else { return };
        for (task, after) in states {
            let earlier = before.get(&task).copied().unwrap_or(State::Unspecified);
            if earlier != after {
                self.append(of_state(snapshot, &task, earlier, after, now));
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
