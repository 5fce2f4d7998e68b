//! Records that can never pass, kept in a topic of their own.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use gantry_bus::{Bus, BusError, BusErrorKind, OutMessage};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::RunContext;
use crate::{
    backoff::{Backoff, Jitter, Pauses},
    problem::Failure,
};

/// At most so much of the value is kept, in bytes.
const KEPT: usize = 1 << 20;
/// At most so much of a property, in bytes.
const PROPERTY: usize = 2048;

/// Why and where a record failed.
#[derive(Clone, Debug)]
pub(crate) struct Cause {
    /// What is wrong, without secrets.
    pub(crate) error: String,
    /// `send`, `size`, `write`.
    pub(crate) stage: &'static str,
    /// Id of the connector.
    pub(crate) connector: String,
    /// Number of the task.
    pub(crate) task: u32,
    /// The partition, for people.
    pub(crate) partition: String,
    /// The position, for people.
    pub(crate) position: String,
}

/// The message of a dead letter: the first 1 MiB of the value, its length and SHA-256, and the cause.
pub(crate) fn message(
    cause: &Cause,
    key: Option<&str>,
    tag: Option<&str>,
    value: Option<&Bytes>,
) -> OutMessage {
    let empty = Bytes::new();
    let bytes = value.unwrap_or(&empty);
    let hash: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    let mut properties: Vec<(Box<str>, Box<str>)> = Vec::new();
    let mut put = |name: &str, text: &str| {
        let text = clean(text);
        if !text.is_empty() {
            properties.push((name.into(), text.into()));
        }
    };
    put("gantry-error", &cause.error);
    put("gantry-stage", cause.stage);
    put("gantry-attempts", "1");
    put("gantry-connector", &cause.connector);
    put("gantry-task", &cause.task.to_string());
    put("gantry-partition", &cause.partition);
    put("gantry-position", &cause.position);
    put("gantry-length", &bytes.len().to_string());
    put("gantry-sha256", &hash);
    put("gantry-key", key.unwrap_or_default());
    put("gantry-tag", tag.unwrap_or_default());
    if bytes.is_empty() {
        put(
            gantry_bus::properties::VALUE,
            if value.is_some() { "empty" } else { "null" },
        );
    }
    let body = if bytes.is_empty() {
        Bytes::from_static(b"0")
    } else {
        bytes.slice(..bytes.len().min(KEPT))
    };
    OutMessage {
        key: None,
        tag: None,
        properties,
        body,
    }
}

/// RocketMQ separates properties by two control characters and has no way to escape them.
fn clean(text: &str) -> String {
    let mut end = text.len().min(PROPERTY);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end]
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// Stores dead letters.
#[derive(Clone)]
pub(crate) struct DeadLetters {
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) topic: String,
    /// How the topic is created if it is missing; 0: never.
    pub(crate) create_queues: u32,
    pub(crate) jitter: Jitter,
    /// Told of tries that failed; some are left out.
    pub(crate) failing: mpsc::Sender<Failure>,
}

impl DeadLetters {
    /// Those of a task, and where they tell of tries that failed.
    pub(super) fn of(ctx: &RunContext) -> (Self, mpsc::Receiver<Failure>) {
        let (failing, told) = mpsc::channel(1);
        let letters = Self {
            bus: ctx.bus.clone(),
            topic: ctx
                .spec
                .error_policy
                .as_ref()
                .map(|p| p.dead_letter_topic.clone())
                .unwrap_or_default(),
            create_queues: ctx.spec.create_queues,
            jitter: ctx.jitter.clone(),
            failing,
        };
        (letters, told)
    }

    /// Stores it, however long that takes.
    ///
    /// # Errors
    /// If it can never be stored.
    pub(crate) async fn store(&self, letter: OutMessage) -> Result<(), BusError> {
        let pauses = Pauses {
            first: Duration::from_millis(200),
            longest: Duration::from_secs(10),
        };
        let mut backoff = Backoff::new(pauses, self.jitter.clone());
        loop {
            match self.try_store(letter.clone()).await {
                Ok(()) => return Ok(()),
                Err(e) if matches!(e.kind(), BusErrorKind::MessageRejected | BusErrorKind::Denied) => {
                    return Err(e);
                }
                Err(e) => {
                    // One that waits to be seen is enough.
                    let _ = self.failing.try_send(Failure::bus(&e));
                }
            }
            tokio::time::sleep(backoff.fail()).await;
        }
    }

    async fn try_store(&self, letter: OutMessage) -> Result<(), BusError> {
        let route = match self.bus.route(&self.topic).await {
            Err(e) if e.kind() == BusErrorKind::TopicMissing && self.create_queues > 0 => {
                self.bus.create_topic(&self.topic, self.create_queues).await?;
                self.bus.route(&self.topic).await?
            }
            route => route?,
        };
        // Another queue at each try: one broker of several may be gone.
        let at = self
            .jitter
            .up_to(Duration::from_nanos(route.len() as u64))
            .as_nanos() as usize;
        let Some(queue) = route.get(at.min(route.len().saturating_sub(1))) else {
            return Err(BusError::new(
                BusErrorKind::TopicMissing,
                format!("topic {} has no queue", self.topic),
            ));
        };
        self.bus.send(queue, vec![letter]).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_value_is_cut_and_its_length_and_hash_are_kept() {
        let cause = Cause {
            error: "too\u{1} large\n".into(),
            stage: "size",
            connector: "c".into(),
            task: 0,
            partition: String::new(),
            position: "byte=1".into(),
        };
        let value = Bytes::from(vec![7; KEPT + 5]);
        let letter = message(&cause, Some("k"), None, Some(&value));
        let get = |name: &str| {
            letter
                .properties
                .iter()
                .find(|(n, _)| &**n == name)
                .map(|(_, v)| v.to_string())
        };
        assert_eq!(letter.body.len(), KEPT);
        assert_eq!(get("gantry-length"), Some((KEPT + 5).to_string()));
        assert_eq!(get("gantry-sha256").map(|h| h.len()), Some(64));
        assert_eq!(get("gantry-error"), Some("too  large ".into()));
        assert_eq!(
            (get("gantry-partition"), get("gantry-key")),
            (None, Some("k".into()))
        );
        assert_eq!(message(&cause, None, None, None).body.len(), 1);
    }
}
