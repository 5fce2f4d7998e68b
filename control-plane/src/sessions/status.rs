//! From what agents report to what is stored. Pure.

use gantry_proto::{
    agent::v1::{Gap, TaskAck, TaskRef, TaskStatus},
    v1::{Problem, problem::Domain, task::State},
};
use pbjson_types::Timestamp;
use tonic::Code;

use crate::{
    domain::{TaskId, Uid, stored},
    store::codec::FORMAT,
};

/// Bytes of a text that an agent reports.
const TEXT: usize = 4096;
/// Gaps that an agent reports of a task.
const GAPS: usize = 8;

/// The task that a message names; None: it names none.
pub(super) fn task_id(uid: &str, n: u32) -> Option<TaskId> {
    let plain = (1..=64).contains(&uid.len()) && uid.bytes().all(|b| b.is_ascii_alphanumeric());
    plain.then(|| TaskId {
        uid: Uid(uid.into()),
        n,
    })
}

/// The task that a reference names.
pub(super) fn task_of(task: Option<&TaskRef>) -> Option<TaskId> {
    task.and_then(|t| task_id(&t.connector_uid, t.task))
}

/// A reported state as it is stored.
pub(super) fn stored_status(agent: &str, instance_uid: &str, reported: TaskStatus) -> stored::Status {
    let state = match reported.state() {
        // STOPPED without a want is what a goodbye alone says, and it ends the right.
        State::Stopped if reported.want_revision == 0 => State::Stopping,
        State::Unspecified => State::Pending,
        state => state,
    };
    stored::Status {
        format: FORMAT,
        agent: agent.to_owned(),
        instance_uid: instance_uid.to_owned(),
        fence: reported.fence,
        want_revision: reported.want_revision,
        state: state.into(),
        problem: reported.problem.map(bounded),
        next_attempt_time: reported.next_attempt_time,
        restarts: reported.restarts,
        state_time: reported.state_time,
        restart_nonce: reported.restart_nonce,
        replan_wanted: reported.replan_wanted,
        refusal: None,
        gaps: reported.gaps.into_iter().take(GAPS).map(bounded_gap).collect(),
    }
}

/// A refusal of a task as it is stored.
pub(super) fn refused_status(
    agent: &str,
    instance_uid: &str,
    spec_hash: &str,
    ack: TaskAck,
    now: Timestamp,
) -> stored::Status {
    let error = ack.error.unwrap_or_default();
    let message = if error.message.is_empty() {
        "the agent cannot run it".to_owned()
    } else {
        cut(error.message.clone())
    };
    let problem = Problem {
        domain: domain(error.code).into(),
        reason: "REFUSED".to_owned(),
        message: message.clone(),
        fix: String::new(),
        time: Some(now),
    };
    stored::Status {
        format: FORMAT,
        agent: agent.to_owned(),
        instance_uid: instance_uid.to_owned(),
        fence: ack.fence,
        state: State::Pending.into(),
        problem: Some(problem),
        state_time: Some(now),
        refusal: Some(stored::Refusal {
            agent: agent.to_owned(),
            message,
            spec_hash: spec_hash.to_owned(),
            ..stored::Refusal::default()
        }),
        ..stored::Status::default()
    }
}

fn domain(code: i32) -> Domain {
    match Code::from(code) {
        Code::InvalidArgument | Code::FailedPrecondition | Code::PermissionDenied => Domain::User,
        Code::Unavailable | Code::DeadlineExceeded => Domain::External,
        _ => Domain::System,
    }
}

fn bounded(problem: Problem) -> Problem {
    Problem {
        message: cut(problem.message),
        fix: cut(problem.fix),
        reason: cut(problem.reason),
        ..problem
    }
}

fn bounded_gap(gap: Gap) -> Gap {
    Gap {
        unit: cut(gap.unit),
        problem: gap.problem.map(bounded),
        ..gap
    }
}

fn cut(mut text: String) -> String {
    if text.len() > TEXT {
        let end = (0..=TEXT).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_goodbye_says_stopped_without_a_want() {
        let report = |want_revision| TaskStatus {
            state: State::Stopped as i32,
            want_revision,
            ..Default::default()
        };
        assert_eq!(stored_status("a", "i", report(0)).state(), State::Stopping);
        assert_eq!(stored_status("a", "i", report(7)).state(), State::Stopped);
    }

    #[test]
    fn texts_are_bounded() {
        let problem = Problem {
            message: "ü".repeat(TEXT),
            ..Default::default()
        };
        assert_eq!(bounded(problem).message.len(), TEXT);
    }

    #[test]
    fn a_task_id_never_reaches_into_another_key() {
        assert!(task_id("0123456789abcdef", 1).is_some());
        assert!(task_id("a/b", 1).is_none());
        assert!(task_id("", 1).is_none());
    }
}
