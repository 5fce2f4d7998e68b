//! From the records to the queues, and what becomes of those that do not get there.

use super::*;

impl Pipeline {
    /// Sends to every queue that is free.
    pub(super) fn dispatch(&mut self) {
        if self.ending.as_ref().is_some_and(|e| e.deadline <= Instant::now()) {
            return;
        }
        while let Some((lane, queue, batch)) = self.outbox.next(Instant::now()) {
            let intake = &self.intake;
            let message = |r: &Outgoing<Ticket>| {
                let (_, position, nth) = intake.acks.position(r.ticket)?;
                Some(convert::to_message(r, intake.prefix(r.ticket), position, nth))
            };
            let messages = batch.iter().filter_map(message).collect();
            let (bus, queue) = (self.ctx.bus.clone(), queue.clone());
            self.sending
                .push(async move { (lane, bus.send(&queue, messages).await) }.boxed());
        }
    }

    /// Asks for the topic's route from time to time.
    pub(super) fn look_at_route(&mut self) {
        let now = Instant::now();
        if self.routing.is_none() && self.next_route <= now && self.ending.is_none() {
            self.next_route = now + self.ctx.limits.route_interval;
            let (bus, topic) = (self.ctx.bus.clone(), self.ctx.spec.topic.clone());
            self.routing = Some(async move { bus.route(&topic).await }.boxed());
        }
    }

    pub(super) async fn routed(&mut self, result: Result<Vec<Queue>, BusError>) {
        let Ok(queues) = result else { return };
        let is_new = |queue: &Queue| !self.outbox.queues().any(|known| known == queue);
        if queues.iter().any(is_new) || self.denied.iter().any(|denied| is_dropped(denied, &queues)) {
            tracing::info!(queues = queues.len(), "the topic has other queues: starting anew");
            let deadline = Instant::now() + self.ctx.drain_timeout();
            self.end(How::Again, deadline, None).await;
        }
    }

    pub(super) async fn not_sent(&mut self, lane: usize, error: &BusError) {
        match error.kind() {
            BusErrorKind::MessageRejected => {
                if let Some(record) = self.outbox.refused(lane) {
                    self.impossible(record, "send", "MESSAGE_REJECTED", error.to_string())
                        .await;
                }
            }
            BusErrorKind::Denied => self.fail(Failure::bus(error)).await,
            BusErrorKind::QueueMissing => {
                self.denied.extend(self.outbox.queues().nth(lane).cloned());
                self.outbox.failed(lane, Instant::now());
                self.troubles
                    .failed(Spot::Queue(lane), Failure::bus(error), Instant::now());
                self.next_route = self.next_route.min(Instant::now() + Duration::from_secs(1));
            }
            BusErrorKind::Unavailable | BusErrorKind::TopicMissing | BusErrorKind::OffsetOutOfRange => {
                self.outbox.failed(lane, Instant::now());
                self.troubles
                    .failed(Spot::Queue(lane), Failure::bus(error), Instant::now());
            }
        }
    }

    /// A record that can never pass: what the error policy says.
    pub(super) async fn impossible(
        &mut self,
        record: Outgoing<Ticket>,
        stage: &'static str,
        reason: &'static str,
        error: String,
    ) {
        let Some((partition, position, _)) = self.intake.acks.position(record.ticket) else {
            return;
        };
        let (partition, position) = (partition.to_string(), position.to_string());
        let policy = self
            .ctx
            .spec
            .error_policy
            .as_ref()
            .map(|p| p.on_record_error())
            .unwrap_or_default();
        match policy {
            OnRecordError::Unspecified | OnRecordError::Fail => {
                let message = format!("record at {partition} before {position}: {error}");
                let failure = Failure::new(Cause::Record, reason, message)
                    .fix("correct the source, or set error_policy.on_record_error to SKIP or DEAD_LETTER");
                self.fail(failure).await;
            }
            OnRecordError::Skip => {
                self.ctx.metrics.skipped(1);
                self.done(record.ticket, record.weight, Outcome::Skipped);
            }
            OnRecordError::DeadLetter => {
                self.ctx.metrics.dead_lettered(1);
                let cause = dead_letter::Cause {
                    error: self.ctx.scrubber.scrub(&error),
                    stage,
                    connector: self.ctx.spec.connector.clone(),
                    task: self.ctx.key.task,
                    partition,
                    position,
                };
                let letter = dead_letter::message(
                    &cause,
                    record.key.as_deref(),
                    record.tag.as_deref(),
                    record.value.as_ref(),
                );
                let letters = self.letters.clone();
                let store = async move { (record.ticket, record.weight, letters.store(letter).await) };
                self.burying.push(store.boxed());
            }
        }
    }

    pub(super) fn done(&mut self, ticket: Ticket, weight: usize, outcome: Outcome) {
        self.moved += 1;
        self.intake.acks.done(ticket, outcome);
        self.budget.free(weight);
    }
}

/// Whether a queue that its broker denied to have is gone for good. One that is only missing from the route may come back:
/// its broker may be away.
fn is_dropped(denied: &Queue, route: &[Queue]) -> bool {
    let has_broker = route
        .iter()
        .any(|queue| queue.topic == denied.topic && queue.broker == denied.broker);
    has_broker && !route.contains(denied)
}
