//! Topics and queues in memory, and the rules of offsets. No waiting, no faults.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use tokio::sync::Notify;

use crate::{Bounds, BusError, BusErrorKind, InMessage, OutMessage, Queue};

/// Broker name of every queue.
pub(super) const BROKER: &str = "memory";

#[derive(Default)]
pub(super) struct Topics {
    topics: BTreeMap<Arc<str>, Vec<QueueLog>>,
    pub(super) mirrored: HashMap<(Box<str>, Queue), u64>,
}

#[derive(Default)]
pub(super) struct QueueLog {
    min: u64,
    messages: Vec<InMessage>,
    pub(super) changed: Arc<Notify>,
}

impl QueueLog {
    pub(super) fn bounds(&self) -> Bounds {
        Bounds {
            min: self.min,
            max: self.min + self.messages.len() as u64,
        }
    }

    pub(super) fn append(&mut self, batch: Vec<OutMessage>, now_ms: i64) -> u64 {
        let first = self.bounds().max;
        self.messages
            .extend(batch.into_iter().zip(first..).map(|(message, offset)| InMessage {
                offset,
                key: message.key,
                tag: message.tag,
                properties: message.properties,
                body: message.body,
                born_time_ms: now_ms,
                store_time_ms: now_ms,
            }));
        self.changed.notify_waiters();
        first
    }

    /// Messages from the offset on; empty at the end of the queue, `None` outside of the bounds.
    pub(super) fn read(&self, offset: u64, at_most: usize) -> Option<Vec<InMessage>> {
        let bounds = self.bounds();
        if offset < bounds.min || offset > bounds.max {
            return None;
        }
        let from = (offset - self.min) as usize;
        Some(self.messages[from..].iter().take(at_most).cloned().collect())
    }

    pub(super) fn offset_at(&self, time_ms: i64) -> u64 {
        self.min + self.messages.partition_point(|m| m.store_time_ms < time_ms) as u64
    }

    pub(super) fn trim(&mut self, min: u64) {
        let bounds = self.bounds();
        let min = min.clamp(bounds.min, bounds.max);
        self.messages.drain(..(min - bounds.min) as usize);
        self.min = min;
        self.changed.notify_waiters();
    }

    pub(super) fn messages(&self) -> &[InMessage] {
        &self.messages
    }
}

impl Topics {
    /// Adds queues up to the count; never takes any away.
    pub(super) fn create(&mut self, topic: &str, queues: u32) {
        let logs = self.topics.entry(topic.into()).or_default();
        let count = logs.len().max(queues as usize);
        logs.resize_with(count, QueueLog::default);
    }

    pub(super) fn delete(&mut self, topic: &str) {
        let Some(logs) = self.topics.remove(topic) else {
            return;
        };
        self.mirrored.retain(|(_, queue), _| &*queue.topic != topic);
        for log in logs {
            log.changed.notify_waiters();
        }
    }

    pub(super) fn route(&self, topic: &str) -> Result<Vec<Queue>, BusError> {
        let (topic, logs) = self
            .topics
            .get_key_value(topic)
            .ok_or_else(|| topic_missing(topic))?;
        let queue = |id| Queue {
            topic: topic.clone(),
            broker: BROKER.into(),
            id,
        };
        Ok((0..logs.len() as u32).map(queue).collect())
    }

    pub(super) fn log(&self, queue: &Queue) -> Result<&QueueLog, BusError> {
        let logs = self
            .topics
            .get(&*queue.topic)
            .ok_or_else(|| topic_missing(&queue.topic))?;
        logs.get(queue.id as usize)
            .filter(|_| &*queue.broker == BROKER)
            .ok_or_else(|| queue_missing(queue))
    }

    pub(super) fn log_mut(&mut self, queue: &Queue) -> Result<&mut QueueLog, BusError> {
        let logs = self
            .topics
            .get_mut(&*queue.topic)
            .ok_or_else(|| topic_missing(&queue.topic))?;
        logs.get_mut(queue.id as usize)
            .filter(|_| &*queue.broker == BROKER)
            .ok_or_else(|| queue_missing(queue))
    }

    /// Wakes every pull that waits, so that it looks again.
    pub(super) fn wake_all(&self) {
        for log in self.topics.values().flatten() {
            log.changed.notify_waiters();
        }
    }
}

fn topic_missing(topic: &str) -> BusError {
    BusError::new(
        BusErrorKind::TopicMissing,
        format!("topic {topic:?} does not exist"),
    )
}

fn queue_missing(queue: &Queue) -> BusError {
    BusError::new(
        BusErrorKind::QueueMissing,
        format!("queue {queue} is not in the topic's route"),
    )
}
