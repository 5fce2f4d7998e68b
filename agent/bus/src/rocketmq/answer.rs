//! What a broker's or name server's answer means. Pure.

use std::{collections::HashMap, str::FromStr};

use bytes::Bytes;
use cheetah_string::CheetahString;
use rocketmq_protocol::protocol::remoting_command::RemotingCommand;

use crate::{BusError, BusErrorKind};

/// Codes of answers that are told apart somewhere.
pub(super) mod code {
    pub(crate) const SUCCESS: i32 = 0;
    pub(crate) const SYSTEM_ERROR: i32 = 1;
    pub(crate) const MESSAGE_ILLEGAL: i32 = 13;
    pub(crate) const VERSION_NOT_SUPPORTED: i32 = 15;
    pub(crate) const NO_PERMISSION: i32 = 16;
    pub(crate) const TOPIC_NOT_EXIST: i32 = 17;
    pub(crate) const PULL_NOT_FOUND: i32 = 19;
    pub(crate) const PULL_RETRY_IMMEDIATELY: i32 = 20;
    pub(crate) const PULL_OFFSET_MOVED: i32 = 21;
    pub(crate) const QUERY_NOT_FOUND: i32 = 22;
    pub(crate) const SUBSCRIPTION_GROUP_NOT_EXIST: i32 = 26;
    pub(crate) const INVALID_PARAMETER: i32 = 29;
    pub(crate) const ILLEGAL_OPERATION: i32 = 604;
    pub(crate) const USER_NOT_EXIST: i32 = 3001;
    pub(crate) const POLICY_NOT_EXIST: i32 = 3002;
}

/// An answer: code, the remark in words that comes with most failures, header fields and body.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) code: i32,
    pub(super) remark: Box<str>,
    pub(super) fields: HashMap<CheetahString, CheetahString>,
    pub(super) body: Bytes,
}

impl From<RemotingCommand> for Answer {
    fn from(mut response: RemotingCommand) -> Self {
        Self {
            code: response.code(),
            remark: response
                .remark()
                .map(|remark| remark.as_str().into())
                .unwrap_or_default(),
            body: response.take_body().unwrap_or_default(),
            fields: response.ext_fields().cloned().unwrap_or_default(),
        }
    }
}

impl Answer {
    /// The header field as a number, if it is there and is one.
    pub(super) fn number<T: FromStr>(&self, name: &'static str) -> Option<T> {
        self.fields
            .get(&CheetahString::from_static_str(name))?
            .as_str()
            .parse()
            .ok()
    }

    /// The header field as an offset: RocketMQ's are signed, and -1 stands for "none yet".
    pub(super) fn offset(&self, name: &'static str) -> Option<u64> {
        self.number::<i64>(name).map(|offset| offset.max(0) as u64)
    }

    /// The answer as an error. `what` names the call and its object, `address` who answered.
    pub(super) fn error(&self, what: &str, address: &str) -> BusError {
        let Self { code, remark, .. } = self;
        let kind = kind(*code, remark);
        let remark = remark.trim();
        BusError::new(
            kind,
            format!("{what}: {address} answered {}{code}: {remark}", name(*code)),
        )
    }
}

/// What an answer that is not a success means to the caller.
fn kind(code: i32, remark: &str) -> BusErrorKind {
    let says = |text: &str| remark.to_ascii_lowercase().contains(text);
    match code {
        code::TOPIC_NOT_EXIST => BusErrorKind::TopicMissing,
        code::MESSAGE_ILLEGAL => BusErrorKind::MessageRejected,
        // A broker that was set to read-only says so with the code of missing permission.
        code::NO_PERMISSION if says("the broker[") && says("is forbidden") => BusErrorKind::Unavailable,
        code::NO_PERMISSION
        | code::VERSION_NOT_SUPPORTED
        | code::ILLEGAL_OPERATION
        | code::SUBSCRIPTION_GROUP_NOT_EXIST
        | code::USER_NOT_EXIST
        | code::POLICY_NOT_EXIST => BusErrorKind::Denied,
        code::SYSTEM_ERROR | code::INVALID_PARAMETER if says("queueid") && says("illegal") => {
            BusErrorKind::QueueMissing
        }
        code::INVALID_PARAMETER => BusErrorKind::Denied,
        code::PULL_OFFSET_MOVED => BusErrorKind::OffsetOutOfRange,
        _ => BusErrorKind::Unavailable,
    }
}

fn name(code: i32) -> &'static str {
    match code {
        1 => "SYSTEM_ERROR ",
        2 => "SYSTEM_BUSY ",
        10 => "FLUSH_DISK_TIMEOUT ",
        11 => "SLAVE_NOT_AVAILABLE ",
        12 => "FLUSH_SLAVE_TIMEOUT ",
        13 => "MESSAGE_ILLEGAL ",
        14 => "SERVICE_NOT_AVAILABLE ",
        16 => "NO_PERMISSION ",
        17 => "TOPIC_NOT_EXIST ",
        21 => "PULL_OFFSET_MOVED ",
        26 => "SUBSCRIPTION_GROUP_NOT_EXIST ",
        29 => "INVALID_PARAMETER ",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart_by_code_and_where_needed_by_remark() {
        use BusErrorKind as Kind;
        for (code, remark, expected) in [
            (1, "[PC_SYNCHRONIZED]broker busy", Kind::Unavailable),
            (
                1,
                "request queueId[9] is illegal, TopicConfig [..]",
                Kind::QueueMissing,
            ),
            (
                1,
                "queueId[9] is illegal, topic:[t] topicConfig.readQueueNums:[4]",
                Kind::QueueMissing,
            ),
            (
                2,
                "[REJECTREQUEST]system busy, start flow control for a while",
                Kind::Unavailable,
            ),
            (10, "", Kind::Unavailable),
            (
                13,
                "the message is illegal, maybe msg body or properties length not matched",
                Kind::MessageRejected,
            ),
            (
                14,
                "service not available now. It may be caused by: the broker's disk is full",
                Kind::Unavailable,
            ),
            (
                16,
                "the broker[10.0.0.1] sending message is forbidden",
                Kind::Unavailable,
            ),
            (16, "the topic[t] sending message is forbidden", Kind::Denied),
            (16, "Authentication credentials are invalid", Kind::Denied),
            (17, "topic[t] not exist, apply first please!", Kind::TopicMissing),
            (21, "", Kind::OffsetOutOfRange),
            (26, "subscription group [g] does not exist", Kind::Denied),
            (
                29,
                "request queueId[9] is illegal, TopicConfig [topicName=t]",
                Kind::QueueMissing,
            ),
            (501, "", Kind::Unavailable),
            (99_999, "", Kind::Unavailable),
        ] {
            assert_eq!(kind(code, remark), expected, "{code} {remark}");
        }
    }

    #[test]
    fn an_error_says_what_was_asked_of_whom_and_the_answer() {
        let answer = Answer {
            code: 17,
            remark: "topic[t] not exist".into(),
            ..Answer::default()
        };
        let error = answer.error("send to t/b/0", "10.0.0.1:10911");
        assert_eq!(
            error.to_string(),
            "send to t/b/0: 10.0.0.1:10911 answered TOPIC_NOT_EXIST 17: topic[t] not exist"
        );
    }

    #[test]
    fn fields_are_read_as_numbers() {
        let fields = [("a", "7"), ("b", "-1"), ("c", "x")]
            .map(|(k, v)| (k.into(), v.into()))
            .into();
        let answer = Answer {
            fields,
            ..Answer::default()
        };
        assert_eq!(
            (answer.offset("a"), answer.offset("b"), answer.offset("c")),
            (Some(7), Some(0), None)
        );
    }
}
