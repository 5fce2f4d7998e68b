//! Whether it is well, and what keeps it if not.

use super::*;

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

    /// What keeps it, if something waits and nothing moves. While it ends its time limits count instead.
    fn stalled(&mut self, now: Instant) -> Option<Obstacle> {
        let idle = matches!(self.stage, Stage::Idle) && self.chunks.is_empty();
        let committed = self.ledger.is_clean() && self.committing.is_none();
        let behind = self.queues.iter().any(|q| q.lag() > 0);
        let waiting = self.ending.is_none() && (!idle || !committed || behind);
        if !self.stall.look(waiting, self.moved, now) {
            return None;
        }
        let fails = |such: fn(&Spot) -> bool| self.troubles.at(such).is_some();
        // What fails again and again is the cause, whatever it waits for at this very moment.
        Some(match &self.stage {
            _ if fails(|spot| *spot == Spot::Write) => Obstacle::Target,
            Stage::Writing(..) | Stage::Flushing(_) => Obstacle::Code,
            Stage::Fetching(_) | Stage::Burying(..) => Obstacle::Bus,
            Stage::WriteAgain(..) | Stage::FlushAgain(_) => Obstacle::Target,
            Stage::Idle if fails(|spot| matches!(spot, Spot::Queue(_))) => Obstacle::Bus,
            Stage::Idle if !committed => Obstacle::Grant,
            Stage::Idle => Obstacle::Bus,
        })
    }

    fn stall_failure(&self, obstacle: Obstacle) -> Failure {
        let failing = |such: fn(&Spot) -> bool| self.troubles.at(such).map(|(_, f)| f.message.clone());
        let waiting = self.queues.iter().map(QueueState::lag).sum();
        let why = match obstacle {
            Obstacle::Code => {
                let hook = match self.stage {
                    Stage::Flushing(_) => "flush",
                    _ => "write",
                };
                format!("{hook} has not returned")
            }
            Obstacle::Grant => "the control plane has not stored the positions".to_owned(),
            Obstacle::Target => failing(|spot| *spot == Spot::Write).unwrap_or_default(),
            Obstacle::Bus | Obstacle::Order => {
                let cause = failing(|spot| matches!(spot, Spot::Queue(_) | Spot::DeadLetter));
                cause.unwrap_or_else(|| "the bus does not give what it has".to_owned())
            }
        };
        obstacle.failure(waiting, self.stall.after(), &why)
    }
}
