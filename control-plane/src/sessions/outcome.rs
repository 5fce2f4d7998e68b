//! What writes of the store come to, as the session and the agent are told.

use std::time::Duration;

use gantry_proto::{
    agent::v1::{AskAnswer, TaskStatusAck, ask_answer::Answer},
    v1::{Problem, problem::Domain},
};
use tokio::time::Instant;

use super::{
    Sessions, push,
    reports::{Outcome, Report},
};
use crate::{
    domain::{TaskId, stored},
    store::{StoreError, codec::FORMAT, sessions::StatusOutcome},
};

/// What is to be made of the outcome of a write.
pub(super) async fn settle(sessions: &Sessions, outcome: StatusOutcome) -> Outcome {
    match outcome {
        StatusOutcome::Stored(revision) => Outcome::Stored(revision),
        StatusOutcome::Fenced => Outcome::Fenced,
        StatusOutcome::Conflict(present) => {
            // The next try compares what the mirror has; if another replica wrote it, this session is closed first.
            let revision = present.map_or(0, |p| p.mod_revision);
            let _ = sessions
                .mirror()
                .wait_revision(revision, Instant::now() + Duration::from_secs(2))
                .await;
            Outcome::Later
        }
        StatusOutcome::Retry(error) => {
            tracing::debug!(%error, "a status could not be written");
            Outcome::Later
        }
    }
}

/// The ack of a report; None: nobody waits for one, or it is written later.
pub(super) fn status_ack(id: &TaskId, report: &Report, outcome: Outcome) -> Option<TaskStatusAck> {
    let sequence = report.sequence?;
    let ack = TaskStatusAck {
        task: Some(push::task_ref(id)),
        fence: report.status.fence,
        sequence,
        ..Default::default()
    };
    match outcome {
        Outcome::Stored(_) => Some(TaskStatusAck { stored: true, ..ack }),
        Outcome::Fenced => Some(TaskStatusAck { fenced: true, ..ack }),
        Outcome::Later => None,
    }
}

pub(super) fn too_large(id: &str, error: &StoreError) -> stored::AnswerRecord {
    let problem = Problem {
        domain: Domain::Task.into(),
        reason: "ANSWER_TOO_LARGE".to_owned(),
        message: error.to_string(),
        ..Problem::default()
    };
    let answer = AskAnswer {
        id: id.to_owned(),
        answer: Some(Answer::Problem(problem)),
    };
    stored::AnswerRecord {
        format: FORMAT,
        answer: Some(answer),
    }
}
