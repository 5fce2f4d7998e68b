//! Positions: to the store, then back to the source.

use super::*;

impl Pipeline {
    /// Commits what may be committed, if it is time.
    pub(super) fn commit(&mut self) {
        if self.committing.is_some() || self.commit_due() > Instant::now() {
            return;
        }
        for ready in self.intake.acks.take_ready() {
            let mark = Mark {
                position: ready.position,
                counts: ready.counts,
                state: Bytes::new(),
            };
            self.ledger.put(ready.partition, mark);
        }
        if let Some(request) = self.ledger.request() {
            let store = self.ctx.store.clone();
            self.committing = Some(async move { store.commit(request).await }.boxed());
            self.next_commit = Instant::now() + self.ctx.limits.commit_interval;
        }
    }

    pub(super) fn commit_due(&self) -> Instant {
        match self.ending {
            Some(_) => self.commit_rests_until,
            None => self.next_commit.max(self.commit_rests_until),
        }
    }

    /// Tells the source what is stored, if it has taken what it was told before.
    pub(super) fn tell_source(&mut self) {
        // Room is left for the orders that end it.
        if !self.telling && self.thread.orders.capacity() > ORDERS - 1 {
            self.tell_now();
        }
    }

    fn tell_now(&mut self) {
        if self.untold.is_empty() {
            return;
        }
        let order = Order::Committed(std::mem::take(&mut self.untold));
        if self.thread.orders.try_send(order).is_ok() {
            self.telling = true;
        }
    }

    pub(super) async fn committed(&mut self, result: TaskCommitResult) -> Result<(), How> {
        match self.ledger.settle(&result) {
            Verdict::Stored(told) => {
                self.moved += 1;
                if self.ledger.has_more() {
                    self.next_commit = Instant::now();
                }
                self.ctx.metrics.committed(self.ctx.lease.clock().wall());
                let told_again = |p: &Arc<Fields>| told.iter().any(|(q, _)| q == p);
                self.untold.retain(|(p, _)| !told_again(p));
                self.untold.extend(told);
                if self.ending.is_some() {
                    // The last chance to tell it; it is ordered to close right after.
                    self.tell_now();
                }
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
