//! Why a task is not well, from whatever failed.

use std::{error::Error, time::Duration};

use gantry_bus::{BusError, BusErrorKind};
use gantry_connector::{ConnectorError, Domain};
use gantry_proto::v1::{self, problem};

use crate::{secrets::Scrubber, wire};

/// Who has to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Something outside is unavailable: tried again without limit.
    External,
    /// A record that can never pass, with the policy to fail.
    Record,
    /// The code failed: restarted with back-off.
    Task,
    /// Configuration or permissions: not tried again.
    User,
    /// Gantry itself.
    System,
}

/// What ended or troubles a task. It leaves the task only [`Failure::scrubbed`].
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// Who has to act.
    pub(crate) cause: Cause,
    /// Stable, for programs.
    pub(crate) reason: &'static str,
    /// For people, with its chain of causes.
    pub(crate) message: String,
    /// What to do.
    pub(crate) fix: String,
}

impl Failure {
    pub(crate) fn new(cause: Cause, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            cause,
            reason,
            message: message.into(),
            fix: String::new(),
        }
    }

    pub(crate) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = fix.into();
        self
    }

    /// An error of a connector's hook.
    pub(crate) fn connector(hook: &str, error: &ConnectorError) -> Self {
        let (cause, reason) = match error.domain() {
            Domain::Environment => (Cause::External, "CONNECTOR_UNAVAILABLE"),
            Domain::Record => (Cause::Record, "RECORD_ERROR"),
            Domain::Task => (Cause::Task, "CONNECTOR_ERROR"),
            Domain::User => (Cause::User, "CONNECTOR_REFUSED"),
        };
        Self::new(cause, reason, format!("{hook}: {}", error.chain()))
            .fix(error.fix_text().unwrap_or_default())
    }

    /// An error of the bus.
    pub(crate) fn bus(error: &BusError) -> Self {
        let (cause, reason) = match error.kind() {
            BusErrorKind::Unavailable => (Cause::External, "BUS_UNAVAILABLE"),
            BusErrorKind::TopicMissing => (Cause::External, "TOPIC_MISSING"),
            BusErrorKind::QueueMissing => (Cause::External, "QUEUE_MISSING"),
            BusErrorKind::MessageRejected => (Cause::Record, "MESSAGE_REJECTED"),
            BusErrorKind::OffsetOutOfRange => (Cause::User, "OFFSET_OUT_OF_RANGE"),
            BusErrorKind::Denied => (Cause::User, "BUS_DENIED"),
        };
        let fix = match error.kind() {
            BusErrorKind::Unavailable => {
                "see that RocketMQ runs at that address, or change namesrv; it is tried again by itself"
            }
            BusErrorKind::TopicMissing => {
                "create the topic, or have it created: topic_create: {queues: 4} in the definition"
            }
            BusErrorKind::QueueMissing => {
                "see that the topic has its queues again; it is tried again by itself"
            }
            BusErrorKind::MessageRejected => "set error_policy.on_record_error to SKIP or DEAD_LETTER",
            BusErrorKind::OffsetOutOfRange => "set on_offset_out_of_range, or reset the offsets",
            BusErrorKind::Denied => "give the agent credentials that RocketMQ accepts for this topic",
        };
        Self::new(cause, reason, chain(error)).fix(fix)
    }

    /// Without secrets: nothing else may leave the task.
    pub(crate) fn scrubbed(self, scrubber: &Scrubber) -> Self {
        Self {
            message: scrubber.scrub(&self.message),
            fix: scrubber.scrub(&self.fix),
            ..self
        }
    }

    /// As on the wire, with at most 2 KiB of text each.
    pub(crate) fn problem(&self, wall: Duration) -> v1::Problem {
        let domain = match self.cause {
            Cause::External => problem::Domain::External,
            Cause::Record => problem::Domain::Record,
            Cause::Task => problem::Domain::Task,
            Cause::User => problem::Domain::User,
            Cause::System => problem::Domain::System,
        };
        v1::Problem {
            domain: domain as i32,
            reason: self.reason.into(),
            message: shorten(self.message.clone()),
            fix: shorten(self.fix.clone()),
            time: Some(wire::timestamp(wall)),
        }
    }
}

/// The error's message with its causes.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        let line = e.to_string();
        if !text.ends_with(&line) {
            text.push_str(": ");
            text.push_str(&line);
        }
        cause = e.source();
    }
    text
}

fn shorten(mut text: String) -> String {
    const MOST: usize = 2048;
    if text.len() > MOST {
        let mut end = MOST;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_short_and_hold_no_secret() {
        let scrubber = Scrubber::new(["hunter2".to_owned()]);
        let error = ConnectorError::environment("login")
            .because(format!("bad password hunter2 {}", "é".repeat(3000)));
        let problem = Failure::connector("open", &error)
            .scrubbed(&scrubber)
            .problem(Duration::from_secs(1));
        assert!(
            problem.message.starts_with("open: login: bad password *** "),
            "{}",
            problem.message
        );
        assert!(problem.message.len() < 2100);
        assert_eq!(problem.domain, problem::Domain::External as i32);
    }
}
