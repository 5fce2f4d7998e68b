//! How long this agent may run tasks, counted from the send time of its last answered heartbeat.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;

use crate::clock::Clock;

/// The agent's right to run tasks. Everything that acts on the outside looks at it first.
pub(crate) struct Lease {
    clock: Arc<dyn Clock>,
    term: Mutex<Term>,
}

#[derive(Clone, Copy, Default)]
struct Term {
    renewed: Option<Duration>,
    length: Duration,
}

/// What is left of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Tasks may run.
    Open,
    /// Less than a third is left: tasks have to end.
    CutOff,
    /// Somebody else may run the tasks.
    Ended,
}

impl Term {
    fn standing(self, now: Duration) -> Standing {
        match self.renewed {
            Some(at) if now < at + self.length * 2 / 3 => Standing::Open,
            Some(at) if now < at + self.length => Standing::CutOff,
            _ => Standing::Ended,
        }
    }
}

impl Lease {
    /// Not held yet.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            term: Mutex::default(),
        }
    }

    /// The clock that it is measured on.
    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Sets its length. Extends nothing that has run.
    pub(crate) fn set_length(&self, length: Duration) {
        self.term.lock().length = length;
    }

    /// Its length; zero before the first welcome.
    pub(crate) fn length(&self) -> Duration {
        self.term.lock().length
    }

    /// A heartbeat that was sent then has been answered.
    pub(crate) fn renew(&self, sent: Duration) {
        let mut term = self.term.lock();
        term.renewed = Some(term.renewed.map_or(sent, |at| at.max(sent)));
    }

    /// When the last heartbeat was sent that has been answered; None: none ever was.
    pub(crate) fn renewed(&self) -> Option<Duration> {
        self.term.lock().renewed
    }

    /// Whether tasks may run.
    pub(crate) fn is_open(&self) -> bool {
        self.standing() == Standing::Open
    }

    /// What is left.
    pub(crate) fn standing(&self) -> Standing {
        let now = self.clock.now();
        self.term.lock().standing(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_from_when_the_answered_heartbeat_was_sent() {
        let s = Duration::from_secs;
        let term = Term {
            renewed: Some(s(10)),
            length: s(9),
        };
        for (now, standing) in [
            (10, Standing::Open),
            (15, Standing::Open),
            (16, Standing::CutOff),
            (18, Standing::CutOff),
            (19, Standing::Ended),
        ] {
            assert_eq!(term.standing(s(now)), standing, "{now}");
        }
        assert_eq!(Term::default().standing(s(0)), Standing::Ended);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_comes_late_does_not_shorten_it() {
        let lease = Lease::new(Arc::new(crate::clock::TokioClock::default()));
        lease.set_length(Duration::from_secs(9));
        assert!(!lease.is_open());
        lease.renew(Duration::from_secs(5));
        lease.renew(Duration::from_secs(2));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(lease.is_open());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(lease.standing(), Standing::CutOff);
    }
}
