//! Whether it is well, and what keeps it if not.

use super::*;
use crate::task::source::outbox::Blocked;

impl Pipeline {
    /// Tells what has changed: trouble outside, nothing moves, or all is well again.
    pub(super) async fn tell_health(&mut self) {
        let now = Instant::now();
        let stalled = self.stalled(now);
        let event = match self.troubles.tell(now, stalled) {
            None => return,
            Some(Tell::Trouble(failure)) => RunEvent::Trouble(failure),
            Some(Tell::Stalled(obstacle)) => RunEvent::Stalled(self.stall_failure(obstacle)),
            Some(Tell::Recovered) => RunEvent::Recovered,
        };
        self.ctx.tell(event).await;
    }

    /// Takes back a wish for another split that was not repeated.
    pub(super) async fn tell_replan(&mut self) {
        if self.replan_until.is_some_and(|until| until <= Instant::now()) {
            self.replan_until = None;
            self.ctx.tell(RunEvent::ReplanWanted(false)).await;
        }
    }

    /// What keeps it, if something waits and nothing moves. While it ends its time limits count instead.
    fn stalled(&mut self, now: Instant) -> Option<Obstacle> {
        let uncommitted = self.intake.acks.has_ready() || !self.ledger.is_clean();
        let pending = self.intake.acks.pending() > 0;
        let waiting = self.ending.is_none() && (pending || uncommitted || self.telling);
        let stalls = self.stall.look(waiting, self.moved, now);
        if self.ending.is_none() && self.blocked_since().is_some_and(|at| at <= now) {
            return Some(Obstacle::Code);
        }
        stalls.then(|| match self.outbox.blocked() {
            _ if !pending && uncommitted => Obstacle::Grant,
            _ if !pending => Obstacle::Code,
            Some(Blocked { behind, .. }) if behind > 0 => Obstacle::Order,
            _ => Obstacle::Bus,
        })
    }

    /// When code that holds its thread now has held it for too long.
    fn blocked_since(&self) -> Option<Instant> {
        let (_, since) = self.thread.held.since()?;
        Some(since + self.stall.after())
    }

    /// When to look again: nobody tells when code begins to hold its thread.
    pub(super) fn stall_due(&self) -> Option<Instant> {
        let now = Instant::now();
        let held = match self.blocked_since() {
            _ if self.ending.is_some() => None,
            Some(due) if due > now => Some(due),
            // Nor when it goes on to wait as it should.
            _ => Some(now + self.stall.after()),
        };
        self.stall.due(now).into_iter().chain(held).min()
    }

    fn stall_failure(&self, obstacle: Obstacle) -> Failure {
        let failing = |such: fn(&Spot) -> bool| self.troubles.at(such).map(|(_, f)| f.message.clone());
        let waiting = self.intake.acks.pending() as u64;
        let why = match obstacle {
            Obstacle::Code => {
                let hook = self.thread.held.since().map_or("committed", |(hook, _)| hook);
                format!("{hook} has not returned")
            }
            Obstacle::Grant => "the control plane has not stored the positions".to_owned(),
            Obstacle::Order => {
                let blocked = self.outbox.blocked();
                let queue = blocked.as_ref().map_or(String::new(), |b| b.queue.to_string());
                let behind = blocked.map_or(0, |b| b.behind);
                let cause = failing(|spot| matches!(spot, Spot::Queue(_)));
                let cause = cause.unwrap_or_else(|| "it does not answer".to_owned());
                format!(
                    "{behind} of them have keys of queue {queue} and keep their order behind a batch that it has not taken: {cause}"
                )
            }
            Obstacle::Bus | Obstacle::Target => {
                let cause = failing(|spot| matches!(spot, Spot::Queue(_) | Spot::DeadLetter));
                cause.unwrap_or_else(|| "the bus does not answer".to_owned())
            }
        };
        obstacle.failure(waiting, self.stall.after(), &why)
    }

    /// The failure, if a hook takes too long.
    pub(super) fn overdue(&self) -> Option<Failure> {
        let (hook, limit, due) = self.limited()?;
        (due <= Instant::now()).then(|| hung(hook, limit))
    }

    /// The hook that was called, how long it may take, and when it has to have returned. While it ends, the time limit of
    /// `close` counts.
    pub(super) fn limited(&self) -> Option<(&'static str, Duration, Instant)> {
        if self.ending.is_some() {
            return None;
        }
        let limits = &self.ctx.limits.hooks;
        let (hook, limit, since) = match self.thread.held.called()? {
            ("committed", since) => ("committed", limits.committed, since),
            // It may wait for as long as there is nothing to read, but not keep the thread.
            ("poll", _) => ("poll", limits.poll, self.thread.held.since()?.1),
            _ => return None,
        };
        Some((hook, limit, since + limit))
    }
}
