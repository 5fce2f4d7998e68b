//! Something outside is unavailable: shown only once it has lasted, and until it moves again. Pure.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use crate::problem::Failure;

/// Shorter troubles are not worth a state.
const SHOWN_AFTER: Duration = Duration::from_secs(3);

/// Where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Spot {
    /// Reading from the outside system.
    Poll,
    /// Writing to the outside system.
    Write,
    /// A queue, by index.
    Queue(usize),
    /// Dead letters.
    DeadLetter,
}

/// All troubles of a run.
#[derive(Default)]
pub(crate) struct Troubles {
    spots: BTreeMap<Spot, (Instant, Failure)>,
    shown: bool,
}

/// What to tell.
#[derive(Debug)]
pub(crate) enum Tell {
    /// It is not well, for this reason.
    Trouble(Failure),
    /// It moves again.
    Recovered,
}

impl Troubles {
    /// A try failed there.
    pub(crate) fn failed(&mut self, spot: Spot, failure: Failure, now: Instant) {
        self.spots
            .entry(spot)
            .and_modify(|(_, f)| *f = failure.clone())
            .or_insert((now, failure));
    }

    /// A try worked there.
    pub(crate) fn worked(&mut self, spot: Spot) {
        self.spots.remove(&spot);
    }

    /// What has to be told now, once per change.
    pub(crate) fn tell(&mut self, now: Instant) -> Option<Tell> {
        if self.shown && self.spots.is_empty() {
            self.shown = false;
            return Some(Tell::Recovered);
        }
        let oldest = self.spots.values().min_by_key(|(since, _)| *since)?;
        if self.shown || now < oldest.0 + SHOWN_AFTER {
            return None;
        }
        self.shown = true;
        Some(Tell::Trouble(oldest.1.clone()))
    }

    /// When [`Troubles::tell`] has to be asked again at the latest.
    pub(crate) fn due(&self) -> Option<Instant> {
        let oldest = self.spots.values().map(|(since, _)| *since).min()?;
        (!self.shown).then(|| oldest + SHOWN_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Cause;

    #[tokio::test(start_paused = true)]
    async fn only_what_lasts_is_shown_and_recovery_is_told_once() {
        let failure = || Failure::new(Cause::External, "X", "x");
        let (mut troubles, start) = (Troubles::default(), Instant::now());
        troubles.failed(Spot::Poll, failure(), start);
        troubles.worked(Spot::Poll);
        assert!(troubles.tell(start + SHOWN_AFTER).is_none());
        troubles.failed(Spot::Queue(1), failure(), start);
        assert_eq!(troubles.due(), Some(start + SHOWN_AFTER));
        assert!(matches!(
            troubles.tell(start + SHOWN_AFTER),
            Some(Tell::Trouble(_))
        ));
        troubles.failed(Spot::Queue(1), failure(), start + SHOWN_AFTER);
        assert!(troubles.tell(start + SHOWN_AFTER * 2).is_none());
        troubles.worked(Spot::Queue(1));
        assert!(matches!(
            troubles.tell(start + SHOWN_AFTER * 3),
            Some(Tell::Recovered)
        ));
        assert!(troubles.tell(start + SHOWN_AFTER * 4).is_none());
    }
}
