//! Consumer offsets as RocketMQ keeps them, so that `mqadmin consumerProgress -g GROUP` and dashboards show the lag.

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{
    answer,
    calls::{ANSWER_TIMEOUT, Calls, What, code, field, request},
    topics::Topics,
};
use crate::{BusError, Queue, check};

/// Writes offsets of any group, without a consumer.
pub(super) struct Mirror {
    calls: Arc<Calls>,
    topics: Arc<Topics>,
    /// Groups made sure of, by broker address.
    groups: Mutex<HashSet<(Box<str>, Arc<str>)>>,
}

impl Mirror {
    pub(super) fn new(calls: Arc<Calls>, topics: Arc<Topics>) -> Self {
        Self {
            calls,
            topics,
            groups: Mutex::default(),
        }
    }

    pub(super) async fn write(&self, group: &str, queue: &Queue, offset: u64) -> Result<(), BusError> {
        check::topic_name(group)?;
        let address = self.topics.address(queue).await?;
        let known = (group.into(), address.clone());
        if !self.groups.lock().contains(&known) {
            self.ensure(group, &address).await?;
            self.groups.lock().insert(known);
        }
        let fields = [
            ("consumerGroup", field(group)),
            ("topic", field(&queue.topic)),
            ("queueId", field(queue.id)),
            ("commitOffset", field(offset)),
        ];
        let what = What("mirror offset of", queue);
        let request = request(code::UPDATE_CONSUMER_OFFSET, fields, Bytes::new());
        let answer = self.calls.call(what, &address, request, ANSWER_TIMEOUT).await?;
        if answer.code == answer::code::SUCCESS {
            Ok(())
        } else {
            Err(answer.error(&what.to_string(), &address))
        }
    }

    /// The offset the broker has for the group, if it has one.
    pub(super) async fn read(&self, group: &str, queue: &Queue) -> Result<Option<u64>, BusError> {
        let address = self.topics.address(queue).await?;
        let fields = [
            ("consumerGroup", field(group)),
            ("topic", field(&queue.topic)),
            ("queueId", field(queue.id)),
            ("setZeroIfNotFound", field(false)),
        ];
        let what = What("consumer offset of", queue);
        let request = request(code::QUERY_CONSUMER_OFFSET, fields, Bytes::new());
        let answer = self.calls.call(what, &address, request, ANSWER_TIMEOUT).await?;
        match answer.code {
            answer::code::SUCCESS => Ok(answer.offset("offset")),
            answer::code::QUERY_NOT_FOUND | answer::code::SUBSCRIPTION_GROUP_NOT_EXIST => Ok(None),
            _ => Err(answer.error(&what.to_string(), &address)),
        }
    }

    /// Makes the group if the broker does not have it, and its retry topic: without that RocketMQ's tools do not find the
    /// group. Existing ones are left as they are.
    pub(super) async fn ensure(&self, group: &str, address: &Arc<str>) -> Result<(), BusError> {
        let what = What("set up consumer group", &group);
        let ask = request(
            code::GET_SUBSCRIPTION_GROUP_CONFIG,
            [("group", field(group))],
            Bytes::new(),
        );
        let answer = self.calls.call(what, address, ask, ANSWER_TIMEOUT).await?;
        if answer.code != answer::code::SUCCESS {
            let make = request(
                code::UPDATE_AND_CREATE_SUBSCRIPTION_GROUP,
                [],
                group_config(group).into(),
            );
            let answer = self.calls.call(what, address, make, ANSWER_TIMEOUT).await?;
            if answer.code != answer::code::SUCCESS {
                return Err(answer.error(&what.to_string(), address));
            }
        }
        let retry_topic = format!("%RETRY%{group}");
        match self.topics.route(&retry_topic).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == crate::BusErrorKind::TopicMissing => {
                self.topics.create_on(address, &retry_topic, 1).await
            }
            Err(error) => Err(error),
        }
    }
}

/// RocketMQ's defaults for a group. The name has no character that JSON escapes.
fn group_config(group: &str) -> String {
    format!(
        r#"{{"groupName":"{group}","consumeEnable":true,"consumeFromMinEnable":true,"consumeBroadcastEnable":true,"retryQueueNums":1,"retryMaxTimes":16,"brokerId":0,"whichBrokerWhenConsumeSlowly":1,"notifyConsumerIdsChangedEnable":true,"groupSysFlag":0,"consumeTimeoutMinute":15}}"#
    )
}
