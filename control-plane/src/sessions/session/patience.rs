//! How long an agent may keep its session waiting. Pure.

use std::time::Duration;

use gantry_proto::error::{Reason, Refusal};
use tokio::time::Instant;

/// An agent that does not answer a push for so long is cut off.
const ACK: Duration = Duration::from_secs(30);
/// Messages that may wait for an agent that does not read.
const BACKLOG: usize = 4096;

/// What the session waits for.
#[derive(Debug)]
pub(super) struct Patience {
    /// An agent that reads nothing for so long is cut off.
    lease: Duration,
    /// When it last read a message, or none waited for it.
    read_at: Instant,
    /// When the push was made that it has not acknowledged.
    pushed_at: Option<Instant>,
}

impl Patience {
    pub(super) fn new(lease: Duration, now: Instant) -> Self {
        Self {
            lease,
            read_at: now,
            pushed_at: None,
        }
    }

    /// It has read a message.
    pub(super) fn read(&mut self, now: Instant) {
        self.read_at = now;
    }

    /// A push was made.
    pub(super) fn pushed(&mut self, now: Instant) {
        self.pushed_at = Some(now);
    }

    /// It has answered the push.
    pub(super) fn acked(&mut self) {
        self.pushed_at = None;
    }

    /// Is it at its end? `backlog`: messages that wait for the agent to read them.
    pub(super) fn judge(&mut self, backlog: usize, now: Instant) -> Result<(), Refusal> {
        if backlog == 0 {
            self.read_at = now;
        }
        if backlog > BACKLOG || now > self.read_at + self.lease {
            return Err(too_slow("the agent does not read its messages"));
        }
        if self.pushed_at.is_some_and(|at| now > at + ACK) {
            return Err(too_slow("the agent does not acknowledge its assignments"));
        }
        Ok(())
    }

    /// When it ends if nothing happens before. `backlog`: messages wait for the agent to read them.
    pub(super) fn ends_at(&self, backlog: bool) -> Option<Instant> {
        let unread = backlog.then(|| self.read_at + self.lease);
        let unacked = self.pushed_at.map(|at| at + ACK);
        let first = [unread, unacked].into_iter().flatten().min();
        first.map(|at| at + Duration::from_millis(1))
    }
}

fn too_slow(what: &str) -> Refusal {
    Refusal::new(Reason::Overloaded, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(9);

    #[test]
    fn an_agent_that_reads_may_be_as_slow_as_it_likes_one_that_does_not_has_a_lease() {
        let start = Instant::now();
        let mut patience = Patience::new(LEASE, start);
        assert_eq!(patience.ends_at(false), None);
        let mut now = start;
        for _ in 0..100 {
            now += LEASE / 2;
            patience.read(now);
            assert!(patience.judge(BACKLOG, now).is_ok());
        }
        let end = patience.ends_at(true).unwrap();
        assert!(patience.judge(1, end - Duration::from_millis(1)).is_ok());
        assert_eq!(patience.judge(1, end).unwrap_err().reason(), Reason::Overloaded);
        // Nothing waits for it: the time begins anew.
        assert!(patience.judge(0, end).is_ok());
        assert!(patience.judge(1, end + LEASE).is_ok());
        assert!(patience.judge(BACKLOG + 1, end + LEASE).is_err());
    }

    #[test]
    fn a_push_is_answered_in_time_or_the_session_ends() {
        let start = Instant::now();
        let mut patience = Patience::new(LEASE, start);
        patience.pushed(start);
        assert!(patience.judge(0, start + ACK).is_ok());
        let end = patience.ends_at(false).unwrap();
        assert!(patience.judge(0, end).is_err());
        patience.acked();
        assert!(patience.judge(0, end).is_ok());
        assert_eq!(patience.ends_at(false), None);
    }
}
