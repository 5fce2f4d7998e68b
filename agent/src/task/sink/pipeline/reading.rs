//! What the readers of the queues bring.

use super::*;

impl Pipeline {
    pub(super) fn fetched(&mut self, fetched: Fetched) {
        if self.ending.is_some() {
            return;
        }
        match fetched {
            Fetched::Chunk(chunk) => {
                self.troubles.worked(Spot::Queue(chunk.index));
                let q = &mut self.queues[chunk.index];
                q.bounds = chunk.bounds;
                let bytes = chunk.messages.iter().map(|m| m.body.len()).sum();
                self.ctx.metrics.r#in(chunk.messages.len() as u64, bytes);
                let is_idle = matches!(self.stage, Stage::Idle) && self.chunks.is_empty();
                self.moved += u64::from(is_idle && !chunk.messages.is_empty());
                self.ctx
                    .metrics
                    .lag(self.queues.iter().map(QueueState::lag).sum());
                let q = &self.queues[chunk.index];
                if !chunk.messages.is_empty() || chunk.next > q.written {
                    self.chunks.push_back(chunk);
                }
            }
            Fetched::Failed(index, e) => {
                if e.kind() == BusErrorKind::QueueMissing {
                    // It may have been dropped from the topic.
                    self.next_route = self.next_route.min(Instant::now() + Duration::from_secs(1));
                }
                self.troubles
                    .failed(Spot::Queue(index), Failure::bus(&e), Instant::now());
            }
            Fetched::Absent(queue, e) => {
                let mut failure = Failure::bus(&e);
                failure.message = format!("queue {queue} is not read: {}", failure.message);
                self.troubles.failed(Spot::Absent, failure, Instant::now());
            }
            Fetched::Back(queue) => {
                tracing::info!(%queue, "the queue can be read again: starting anew with it");
                self.end(How::Again, self.ctx.drain_timeout(), true);
            }
            Fetched::Lost(e) if e.kind() == BusErrorKind::OffsetOutOfRange => {
                // The start decides what to do about it, with what is written committed before.
                self.end(How::Again, self.ctx.drain_timeout(), true);
            }
            Fetched::Lost(e) => self.fail(Failure::bus(&e)),
        }
    }
}
