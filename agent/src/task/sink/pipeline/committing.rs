//! Positions: to the store, and to where RocketMQ's own tools look.

use super::*;

impl Pipeline {
    pub(super) fn commit(&mut self) {
        if self.committing.is_some() || self.commit_due() > Instant::now() {
            return;
        }
        if let Some(request) = self.ledger.request() {
            let store = self.ctx.store.clone();
            self.committing = Some(async move { store.commit(request).await }.boxed());
            self.next_commit = Instant::now() + self.ctx.limits.commit_interval;
        }
    }

    pub(super) fn commit_due(&self) -> Instant {
        match self.ending.is_some() || !self.based {
            true => self.commit_rests_until,
            false => self.next_commit.max(self.commit_rests_until),
        }
    }

    /// Shows committed positions to RocketMQ's own tools. Nothing depends on it.
    pub(super) fn mirror(&mut self) {
        let (now, group) = (Instant::now(), &self.ctx.spec.consumer_group);
        if group.is_empty()
            || self.mirror.wanted.is_empty()
            || self.mirror.running.is_some()
            || self.mirror.next > now
        {
            return;
        }
        self.mirror.next = now + MIRROR_INTERVAL;
        let moved = std::mem::take(&mut self.mirror.wanted);
        let moved: Vec<_> = moved
            .into_iter()
            .map(|(at, offset)| (self.names[at].clone(), offset))
            .collect();
        let (bus, group) = (self.ctx.bus.clone(), group.clone());
        self.mirror.running = Some(
            async move {
                for (queue, offset) in moved {
                    if let Err(e) = bus.mirror_offset(&group, &queue, offset).await {
                        tracing::debug!(error = %e, "the position is not shown to RocketMQ's tools");
                    }
                }
            }
            .boxed(),
        );
    }

    pub(super) fn committed(&mut self, result: &TaskCommitResult) -> Result<(), How> {
        match self.ledger.settle(result) {
            Verdict::Stored(told) => {
                self.moved += 1;
                self.based |= self.ledger.is_clean();
                let shown = !self.ctx.spec.consumer_group.is_empty();
                for (fields, position) in told.into_iter().filter(|_| shown) {
                    let at = self.queues.iter().position(|q| Arc::ptr_eq(&q.fields, &fields));
                    self.mirror.wanted.extend(at.zip(position.uint("offset")));
                }
                if self.ledger.has_more() {
                    self.next_commit = Instant::now();
                }
                self.ctx.metrics.committed(self.ctx.lease.clock().wall());
                Ok(())
            }
            Verdict::Again => {
                self.commit_rests_until = Instant::now() + Duration::from_millis(100);
                Ok(())
            }
            Verdict::Fenced => Err(How::Fenced),
            Verdict::StartOver => {
                tracing::warn!("somebody else moved the positions: starting over from the stored ones");
                Err(How::Again)
            }
            Verdict::Invalid(message) => {
                Err(How::Failed(Failure::new(Cause::User, "COMMIT_INVALID", message)))
            }
        }
    }
}
