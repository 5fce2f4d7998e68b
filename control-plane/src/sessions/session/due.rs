//! What is sent to the agent and written to the store, and when.

use futures::FutureExt;
use gantry_proto::{
    agent::v1::{Reconnect, StatusAck, open_session_response::Message as Response},
    error::Refusal,
};
use tokio::time::Instant;

use super::Session;
use crate::{
    domain::TaskId,
    sessions::{
        desired,
        outcome::{settle, status_ack},
        push,
        reports::{Outcome, Report},
        traces,
    },
    store::{
        StoreError,
        sessions::{MAX_STATUSES, StatusWrite},
    },
};

/// What a job of a session has come to.
pub(super) enum Done {
    /// Statuses were written, or were not.
    Statuses(Vec<(TaskId, Report, Outcome)>),
    /// An answer was stored, or was not.
    Answered {
        /// Of the ask.
        id: String,
        /// Its revision.
        result: Result<i64, StoreError>,
    },
}

impl Session {
    /// Does what is due.
    pub(super) fn act(&mut self) -> Result<(), Refusal> {
        let now = Instant::now();
        self.patience.judge(self.outbox.len(), now)?;
        if self.reconnect_at.is_some_and(|at| now >= at) {
            self.reconnect_at = None;
            let reason = "the session has reached its age".to_owned();
            self.outbox.push_back(Response::Reconnect(Reconnect { reason }));
        }
        if self.stale && self.outbox.is_empty() {
            self.push(now);
        }
        self.ask(now);
        self.write_due(now);
        Ok(())
    }

    /// Pushes what is new, unless a push is still unacknowledged or the agent has asked for too many full sets.
    fn push(&mut self, now: Instant) {
        if self.pusher.free_at(now).is_none_or(|at| at > now) {
            return;
        }
        let (agent, instance) = (&*self.accepted.agent, &*self.accepted.instance_uid);
        let (revision, tasks) = self.sessions.fanout().desired(agent, instance);
        if revision < self.accepted.keys.session {
            return;
        }
        self.stale = false;
        self.reports.retain(|id| tasks.contains_key(id));
        let Some(push) = self.pusher.next(revision, &tasks, now) else {
            return;
        };
        let mut assignments: Vec<_> = self.sessions.mirror().read(|snapshot| {
            let present = desired::marks(snapshot, agent, instance, &push.changed);
            present
                .keys()
                .filter_map(|id| desired::assignment(snapshot, id))
                .collect()
        });
        self.push_spans = traces::go_on(&push, agent, &mut assignments);
        tracing::debug!(
            revision,
            base = push.base_revision,
            changed = assignments.len(),
            removed = push.removed.len(),
            "push"
        );
        self.sessions.metrics().pushes.inc();
        self.patience.pushed(now);
        self.outbox.extend(
            push::chunks(&push, assignments)
                .into_iter()
                .map(Response::Assignment),
        );
    }

    fn ask(&mut self, now: Instant) {
        let (agent, instance) = (&self.accepted.agent, &self.accepted.instance_uid);
        let asks = &mut self.asks;
        let due = self.sessions.mirror().read(|snapshot| {
            let stored = snapshot
                .asks
                .range((agent.clone(), "".into())..)
                .take_while(|((a, _), _)| a == agent);
            asks.due(
                instance,
                stored.map(|((_, id), record)| (id, record.value.as_ref())),
                now,
            )
        });
        self.outbox.extend(due.into_iter().map(Response::Ask));
    }

    /// Starts to write the statuses that are due, with the revisions that they replace.
    fn write_due(&mut self, now: Instant) {
        let due = self.reports.due(now, MAX_STATUSES);
        if due.is_empty() {
            return;
        }
        let writes: Vec<StatusWrite> = self.sessions.mirror().read(|snapshot| {
            let write = |(id, report): &(TaskId, Report)| StatusWrite {
                task: id.clone(),
                fence: report.status.fence,
                seen: self
                    .reports
                    .known(id, snapshot.statuses.get(id), snapshot.revision)
                    .0,
                status: report.status.clone(),
            };
            due.iter().map(write).collect()
        });
        let sessions = self.sessions.clone();
        self.jobs.push(
            async move {
                let outcomes = sessions.store().write_statuses(&writes).await;
                let mut done = Vec::with_capacity(due.len());
                for ((id, report), outcome) in due.into_iter().zip(outcomes) {
                    done.push((id, report, settle(&sessions, outcome).await));
                }
                Done::Statuses(done)
            }
            .boxed(),
        );
    }

    /// Takes what a job has come to.
    pub(super) fn done(&mut self, done: Done) {
        match done {
            Done::Answered { id, result } => {
                if let Err(error) = result {
                    tracing::warn!(ask = id, %error, "an answer could not be stored");
                }
            }
            Done::Statuses(written) => {
                let now = Instant::now();
                let mut acks = Vec::new();
                for (id, report, outcome) in written {
                    if matches!(outcome, Outcome::Stored(_)) {
                        self.sessions.metrics().statuses.inc();
                    }
                    self.reports.done(&id, outcome, now);
                    acks.extend(status_ack(&id, &report, outcome));
                }
                if !acks.is_empty() {
                    self.outbox
                        .push_back(Response::StatusAck(StatusAck { tasks: acks }));
                }
            }
        }
    }

    pub(super) fn next_wake(&self) -> Option<Instant> {
        let now = Instant::now();
        let push = self.pusher.free_at(now).filter(|at| self.stale && *at > now);
        [
            self.reports.next_due(now),
            self.asks.next_due(now),
            self.reconnect_at,
            self.patience.ends_at(!self.outbox.is_empty()),
            push,
        ]
        .into_iter()
        .flatten()
        .min()
    }
}
