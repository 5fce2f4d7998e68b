//! What a run shows while it is not well: something outside is unavailable, once that has lasted; or nothing moves at all.
//! Pure.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::stall::Obstacle;
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
    /// Queues that could not be asked at the start.
    Absent,
    /// Dead letters.
    DeadLetter,
}

/// All troubles of a run.
#[derive(Default)]
pub(crate) struct Troubles {
    spots: BTreeMap<Spot, (Instant, Failure)>,
    told: Told,
}

/// What was told last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Told {
    #[default]
    Well,
    Troubled,
    Stalled(Obstacle),
}

/// What to tell.
#[derive(Debug)]
pub(crate) enum Tell {
    /// It is not well, for this reason.
    Trouble(Failure),
    /// Nothing moves, because of this.
    Stalled(Obstacle),
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

    /// The last failure at such a spot, if it has not worked since; that of the spot which has failed longest.
    pub(crate) fn at(&self, such: impl Fn(&Spot) -> bool) -> Option<(Spot, &Failure)> {
        let spots = self.spots.iter().filter(|(spot, _)| such(spot));
        let oldest = spots.min_by_key(|(_, (since, _))| *since)?;
        Some((*oldest.0, &oldest.1.1))
    }

    /// What has to be told now, once per change. `stalled`: nothing moves at all, because of this.
    pub(crate) fn tell(&mut self, now: Instant, stalled: Option<Obstacle>) -> Option<Tell> {
        let oldest = self.spots.values().min_by_key(|(since, _)| *since);
        let lasts = |since: Instant| self.told != Told::Well || since + SHOWN_AFTER <= now;
        let (next, tell) = match (stalled, oldest) {
            (Some(obstacle), _) => (Told::Stalled(obstacle), Tell::Stalled(obstacle)),
            (None, Some((since, failure))) if lasts(*since) => {
                (Told::Troubled, Tell::Trouble(failure.clone()))
            }
            (None, _) => (Told::Well, Tell::Recovered),
        };
        let changed = self.told != next;
        self.told = next;
        changed.then_some(tell)
    }

    /// When [`Troubles::tell`] has to be asked again at the latest.
    pub(crate) fn due(&self) -> Option<Instant> {
        let oldest = self.spots.values().map(|(since, _)| *since).min()?;
        (self.told == Told::Well).then(|| oldest + SHOWN_AFTER)
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
        assert!(troubles.tell(start + SHOWN_AFTER, None).is_none());
        troubles.failed(Spot::Queue(1), failure(), start);
        assert_eq!(troubles.due(), Some(start + SHOWN_AFTER));
        assert!(matches!(
            troubles.tell(start + SHOWN_AFTER, None),
            Some(Tell::Trouble(_))
        ));
        troubles.failed(Spot::Queue(1), failure(), start + SHOWN_AFTER);
        assert!(troubles.tell(start + SHOWN_AFTER * 2, None).is_none());
        troubles.worked(Spot::Queue(1));
        assert!(matches!(
            troubles.tell(start + SHOWN_AFTER * 3, None),
            Some(Tell::Recovered)
        ));
        assert!(troubles.tell(start + SHOWN_AFTER * 4, None).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_move_at_all_is_told_with_its_cause_before_anything_else() {
        let (mut troubles, now) = (Troubles::default(), Instant::now());
        let failure = || Failure::new(Cause::External, "X", "x");
        let tell = |t: &mut Troubles, stalled| t.tell(now + SHOWN_AFTER, stalled);
        troubles.failed(Spot::Queue(1), failure(), now);
        assert!(matches!(tell(&mut troubles, None), Some(Tell::Trouble(_))));
        let bus = Some(Obstacle::Bus);
        assert!(matches!(
            tell(&mut troubles, bus),
            Some(Tell::Stalled(Obstacle::Bus))
        ));
        assert!(tell(&mut troubles, bus).is_none());
        assert!(matches!(
            tell(&mut troubles, Some(Obstacle::Code)),
            Some(Tell::Stalled(Obstacle::Code))
        ));
        // It moves, and the queue still fails.
        assert!(matches!(tell(&mut troubles, None), Some(Tell::Trouble(_))));
        troubles.worked(Spot::Queue(1));
        assert!(matches!(tell(&mut troubles, None), Some(Tell::Recovered)));
        assert!(tell(&mut troubles, None).is_none());
    }
}
