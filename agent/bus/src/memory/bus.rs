use std::{ops::ControlFlow, time::Duration};

use async_trait::async_trait;
use tokio::{
    sync::futures::OwnedNotified,
    time::{Instant, sleep, timeout_at},
};

use super::{
    MemoryBus, State,
    fault::{Call, Effect, Target},
};
use crate::{Bounds, Bus, BusError, BusErrorKind, OutMessage, PullRequest, Pulled, Queue, check};

/// What faults make of a send.
#[derive(Default)]
struct SendFate {
    answer_lost: bool,
    ack_delay: Duration,
}

impl State {
    /// Applies the faults of one call: the error of the first that fails it, or what they do to its answer.
    fn strike(&mut self, target: Target<'_>) -> Result<SendFate, BusError> {
        self.faults.retain(|fault| !fault.is_over());
        let mut fate = SendFate::default();
        for active in &self.faults {
            if !active.strikes(target) {
                continue;
            }
            match &active.fault.effect {
                Effect::Fail(_, kind) => return Err(injected(*kind, target)),
                Effect::Reject(_) => return Err(injected(BusErrorKind::MessageRejected, target)),
                Effect::AnswerLost => fate.answer_lost = true,
                Effect::AckDelay(delay) => fate.ack_delay += *delay,
            }
        }
        Ok(fate)
    }
}

fn injected(kind: BusErrorKind, target: Target<'_>) -> BusError {
    let queue = target.queue.map(|id| format!(" queue {id}")).unwrap_or_default();
    BusError::new(
        kind,
        format!(
            "{:?} of topic {}{queue}: injected fault",
            target.call, target.topic
        ),
    )
}

impl MemoryBus {
    fn apply(&self, target: Target<'_>) -> Result<SendFate, BusError> {
        self.0.state.lock().strike(target)
    }

    /// One look at the queue: an answer, or what to wait for (from this very look on).
    fn look(&self, request: &PullRequest) -> Result<ControlFlow<Pulled, OwnedNotified>, BusError> {
        let state = self.0.state.lock();
        let log = state.topics.log(&request.queue)?;
        let bounds = log.bounds();
        let messages = log
            .read(request.offset, request.max_messages.max(1) as usize)
            .ok_or_else(|| {
                BusError::new(
                    BusErrorKind::OffsetOutOfRange,
                    format!(
                        "pull from {}: offset {} is outside of {} to {}",
                        request.queue, request.offset, bounds.min, bounds.max
                    ),
                )
            })?;
        if messages.is_empty() {
            return Ok(ControlFlow::Continue(log.changed.clone().notified_owned()));
        }
        let next_offset = request.offset + messages.len() as u64;
        Ok(ControlFlow::Break(Pulled {
            messages,
            next_offset,
            bounds,
        }))
    }
}

#[async_trait]
impl Bus for MemoryBus {
    async fn route(&self, topic: &str) -> Result<Vec<Queue>, BusError> {
        self.apply(Target {
            call: Call::Route,
            topic,
            queue: None,
            batch: &[],
        })?;
        self.0.state.lock().topics.route(topic)
    }

    async fn create_topic(&self, topic: &str, queues: u32) -> Result<(), BusError> {
        self.apply(Target {
            call: Call::CreateTopic,
            topic,
            queue: None,
            batch: &[],
        })?;
        check::topic_name(topic)?;
        let mut state = self.0.state.lock();
        if state.topics.route(topic).is_err() {
            state.topics.create(topic, queues.max(1));
        }
        Ok(())
    }

    async fn send(&self, queue: &Queue, batch: Vec<OutMessage>) -> Result<u64, BusError> {
        check::batch(queue, &batch)?;
        let now_ms = self.now_ms();
        let (first, fate) = {
            let mut state = self.0.state.lock();
            let fate = state.strike(Target {
                batch: &batch,
                ..Target::of_queue(Call::Send, queue)
            })?;
            (state.topics.log_mut(queue)?.append(batch, now_ms), fate)
        };
        if !fate.ack_delay.is_zero() {
            sleep(fate.ack_delay).await;
        }
        if fate.answer_lost {
            return Err(BusError::new(
                BusErrorKind::Unavailable,
                format!("send to {queue}: injected fault: stored, answer lost"),
            ));
        }
        Ok(first)
    }

    async fn pull(&self, request: PullRequest) -> Result<Pulled, BusError> {
        let deadline = Instant::now() + request.wait;
        loop {
            self.apply(Target::of_queue(Call::Pull, &request.queue))?;
            let changed = match self.look(&request)? {
                ControlFlow::Break(pulled) => return Ok(pulled),
                ControlFlow::Continue(changed) => changed,
            };
            if request.wait.is_zero() || timeout_at(deadline, changed).await.is_err() {
                let bounds = self.0.state.lock().topics.log(&request.queue)?.bounds();
                return Ok(Pulled {
                    messages: Vec::new(),
                    next_offset: request.offset,
                    bounds,
                });
            }
        }
    }

    async fn bounds(&self, queue: &Queue) -> Result<Bounds, BusError> {
        self.apply(Target::of_queue(Call::Bounds, queue))?;
        Ok(self.0.state.lock().topics.log(queue)?.bounds())
    }

    async fn offset_at(&self, queue: &Queue, time_ms: i64) -> Result<u64, BusError> {
        self.apply(Target::of_queue(Call::OffsetAt, queue))?;
        Ok(self.0.state.lock().topics.log(queue)?.offset_at(time_ms))
    }

    async fn mirror_offset(&self, group: &str, queue: &Queue, offset: u64) -> Result<(), BusError> {
        self.apply(Target::of_queue(Call::MirrorOffset, queue))?;
        let mut state = self.0.state.lock();
        state.topics.log(queue)?;
        state
            .topics
            .mirrored
            .insert((group.into(), queue.clone()), offset);
        Ok(())
    }

    fn max_batch_bytes(&self) -> usize {
        check::MAX_BATCH_WEIGHT
    }

    async fn shutdown(&self) {}
}
