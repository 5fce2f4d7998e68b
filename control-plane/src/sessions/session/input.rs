//! What the agent says.

use std::time::Duration;

use futures::FutureExt;
use gantry_proto::{
    agent::v1::{
        AskAnswer, AssignmentAck, HeartbeatAck, OpenSessionRequest, StatusAck, TaskStatus,
        open_session_request::Message as Request, open_session_response::Message as Response, task_ack,
    },
    error::{Reason, Refusal},
};
use tokio::time::{Instant, sleep};

use super::{Session, due::Done};
use crate::{
    clock::timestamp,
    domain::stored,
    sessions::{
        outcome::{status_ack, too_large},
        reports::{Outcome, Report},
        status::{refused_status, stored_status, task_id, task_of},
    },
    store::{StoreError, codec::FORMAT},
};

impl Session {
    /// Takes a message of the agent.
    pub(super) fn take(&mut self, message: OpenSessionRequest) -> Result<(), Refusal> {
        let (agent, serial) = (&self.accepted.agent, self.accepted.serial);
        self.sessions.registry().heard(agent, serial, Instant::now());
        match message.message {
            Some(Request::Heartbeat(heartbeat)) => {
                if !self
                    .sessions
                    .registry()
                    .may_answer(agent, serial, self.sessions.lease())
                {
                    return Err(Refusal::new(
                        Reason::StoreUnavailable,
                        "this replica is cut off from the store; dial another one",
                    ));
                }
                let ack = HeartbeatAck {
                    sequence: heartbeat.sequence,
                };
                self.outbox.push_front(Response::HeartbeatAck(ack));
                // The welcome is the first message, whatever came before it was read.
                if matches!(self.outbox.get(1), Some(Response::Welcome(_))) {
                    self.outbox.swap(0, 1);
                }
            }
            Some(Request::AssignmentAck(ack)) => self.acked(ack),
            Some(Request::StatusReport(report)) => {
                report.tasks.into_iter().for_each(|status| self.report(status))
            }
            Some(Request::AskAnswer(answer)) => self.answered(answer),
            Some(Request::Hello(_) | Request::Inventory(_)) => {
                return Err(Refusal::new(
                    Reason::InvalidField,
                    "a session has one hello and one inventory",
                ));
            }
            Some(Request::Goodbye(_)) | None => {}
        }
        Ok(())
    }

    fn acked(&mut self, ack: AssignmentAck) {
        if self.pusher.acked(ack.revision, ack.resync) {
            self.patience.acked();
            self.push_spans.clear();
            self.stale = true;
        }
        for task in ack.tasks {
            if task.outcome() != task_ack::Outcome::Refused {
                continue;
            }
            let Some(id) = task_of(task.task.as_ref()) else {
                continue;
            };
            let hash = self
                .sessions
                .mirror()
                .read(|s| s.wants.get(&id).map(|w| w.spec_hash.clone()));
            let now = timestamp(self.sessions.clock().wall());
            tracing::info!(task = %id, fence = task.fence, "the agent refuses a task");
            let (agent, instance) = (&self.accepted.agent, &self.accepted.instance_uid);
            let status = refused_status(agent, instance, &hash.unwrap_or_default(), task, now);
            self.reports.push(
                id,
                Report {
                    status,
                    sequence: None,
                },
                Instant::now(),
            );
        }
    }

    /// Takes a reported state: stored already, or to be written.
    pub(super) fn report(&mut self, reported: TaskStatus) {
        let sequence = reported.sequence;
        let Some(id) = task_id(&reported.connector_uid, reported.task) else {
            return;
        };
        let status = stored_status(&self.accepted.agent, &self.accepted.instance_uid, reported);
        let known = self.sessions.mirror().read(|s| {
            let fenced = s.revision >= status.fence
                && s.grants.get(&id).is_none_or(|g| g.mod_revision != status.fence);
            let mirrored = s.statuses.get(&id);
            !fenced && self.reports.known(&id, mirrored, s.revision).1 == Some(&status)
        });
        if known && !self.reports.is_busy(&id) {
            let ack = status_ack(
                &id,
                &Report {
                    status,
                    sequence: Some(sequence),
                },
                Outcome::Stored(0),
            );
            self.outbox.push_back(Response::StatusAck(StatusAck {
                tasks: ack.into_iter().collect(),
            }));
            return;
        }
        self.reports.push(
            id,
            Report {
                status,
                sequence: Some(sequence),
            },
            Instant::now(),
        );
    }

    fn answered(&mut self, answer: AskAnswer) {
        if !self.asks.answered(&answer.id) {
            return;
        }
        self.stale = true;
        let (store, agent, id) = (
            self.sessions.store().clone(),
            self.accepted.agent.clone(),
            answer.id.clone(),
        );
        self.jobs.push(
            async move {
                let record = stored::AnswerRecord {
                    format: FORMAT,
                    answer: Some(answer),
                };
                let result = match store.put_answer(&agent, &id, &record).await {
                    Err(error @ StoreError::TooLarge { .. }) => {
                        store.put_answer(&agent, &id, &too_large(&id, &error)).await
                    }
                    // Repeating it is harmless: the answer is the same.
                    Err(error) if error.is_temporary() => {
                        sleep(Duration::from_millis(200)).await;
                        store.put_answer(&agent, &id, &record).await
                    }
                    result => result,
                };
                Done::Answered { id, result }
            }
            .boxed(),
        );
    }
}
