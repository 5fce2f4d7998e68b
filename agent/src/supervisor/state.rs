//! What becomes of a task: one enum, one total function. No I/O.
//!
//! ```text
//!              Start              Opened
//! Waiting -----------> Starting ---------> Running <----> Troubled, Stalled
//!  ^ ^ |                  |  failed           | failed       |
//!  | | +--> Paused        +--------------+----+--------------+
//!  | | +--> Stopped                      v
//!  | +----- due ------------------- BackingOff, or Failed
//!  +--- ended --- Draining (pause, stop, restart), Dropping (fenced, cut off), Hung (its thread does not end)
//! ```

use crate::desired::Wish;

/// Where a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// Nothing runs; it may start as soon as starts are allowed.
    Waiting,
    /// Its connector is being opened.
    Starting,
    /// Moves records.
    Running,
    /// Runs, but something outside is unavailable and is tried again.
    Troubled,
    /// Runs, but nothing moves although there is input.
    Stalled,
    /// Finishes what is in flight.
    Draining,
    /// Ends without committing.
    Dropping,
    /// Given up on a thread that does not end; nothing new is started beside it.
    Hung,
    /// Nothing runs; it is started again after a pause.
    BackingOff,
    /// Nothing runs, as wanted.
    Paused,
    /// Nothing runs: it has failed for good.
    Failed,
    /// Nothing runs, as wanted, for good.
    Stopped,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Ended {
    /// As told, everything committed that was done.
    Drained,
    /// By itself, to start anew at once.
    Again,
    /// Without committing.
    Dropped,
    /// With an error after which it is started again.
    Failed,
    /// With an error after which it is not.
    FailedForGood,
    /// Its thread does not end.
    Hung,
}

/// What happens to a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    /// The wish, or whether starts are allowed, may have changed.
    Settle,
    /// A restart is wanted, or another specification.
    Restart,
    /// Its connector is open.
    Opened,
    /// Something outside has been unavailable for a while.
    Trouble,
    /// Input exists and nothing moves.
    Stalled,
    /// It moves again.
    Recovered,
    /// The run ended.
    Ended(Ended),
    /// Its pause is over.
    Due,
    /// Its right is gone, a newer one came, or the agent is cut off.
    Drop,
    /// The thread that was given up has ended after all.
    ThreadGone,
}

/// What the supervisor has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// Nothing.
    None,
    /// Start a run.
    Start,
    /// Tell the run to finish.
    Drain,
    /// Tell the run to end without committing.
    Drop,
    /// Wait before the next start.
    Pause,
}

impl Phase {
    /// The next phase and what to do. `may_start`: starts are allowed now.
    pub(crate) fn next(self, event: Event, wish: Wish, may_start: bool) -> (Phase, Action) {
        use Ended as E;
        use Phase::*;
        let settle = |phase: Phase| phase.settle(wish, may_start);
        match (self, event) {
            (_, Event::Settle) => settle(self),

            (Waiting | Paused | Stopped, Event::Restart) => settle(self),
            (BackingOff | Failed, Event::Restart | Event::Drop) => settle(Waiting),
            (Starting | Running | Troubled | Stalled, Event::Restart) => (Draining, Action::Drain),
            (Draining | Dropping | Hung, Event::Restart) => (self, Action::None),

            (Starting | Troubled | Stalled, Event::Opened) => (Running, Action::None),
            (Troubled | Stalled, Event::Recovered) => (Running, Action::None),
            (Starting | Running | Troubled | Stalled, Event::Trouble) => (Troubled, Action::None),
            (Starting | Running | Troubled | Stalled, Event::Stalled) => (Stalled, Action::None),

            (_, Event::Ended(E::Hung)) => (Hung, Action::None),
            (Dropping, Event::Ended(_)) => settle(Waiting),
            // While it is being paused or stopped an error changes nothing: it has ended, as wanted.
            (Draining, Event::Ended(E::Failed | E::FailedForGood)) if wish != Wish::Run => settle(Waiting),
            (_, Event::Ended(E::Drained | E::Again | E::Dropped)) => settle(Waiting),
            (_, Event::Ended(E::Failed)) => (BackingOff, Action::Pause),
            (_, Event::Ended(E::FailedForGood)) => (Failed, Action::None),

            (BackingOff, Event::Due) => settle(Waiting),
            (Starting | Running | Troubled | Stalled | Draining | Dropping, Event::Drop) => {
                (Dropping, Action::Drop)
            }
            (Waiting | Paused | Stopped, Event::Drop) => settle(Waiting),
            (Hung, Event::ThreadGone) => settle(Waiting),

            (
                _,
                Event::Opened
                | Event::Trouble
                | Event::Stalled
                | Event::Recovered
                | Event::Due
                | Event::ThreadGone,
            )
            | (Hung, Event::Drop) => (self, Action::None),
        }
    }

    fn settle(self, wish: Wish, may_start: bool) -> (Phase, Action) {
        use Phase::*;
        match (self, wish) {
            (Waiting | Paused | Stopped, Wish::Run) if may_start => (Starting, Action::Start),
            (Waiting | Paused | Stopped, Wish::Run) => (Waiting, Action::None),
            (Waiting | BackingOff | Paused | Stopped, Wish::Pause) => (Paused, Action::None),
            (Waiting | BackingOff | Paused | Failed | Stopped, Wish::Stop) => (Stopped, Action::None),
            (Starting | Running | Troubled | Stalled, Wish::Pause | Wish::Stop) => (Draining, Action::Drain),
            (phase, _) => (phase, Action::None),
        }
    }

    /// Whether a run exists, or a thread of one.
    pub(crate) fn runs(self) -> bool {
        use Phase::*;
        match self {
            Starting | Running | Troubled | Stalled | Draining | Dropping | Hung => true,
            Waiting | BackingOff | Paused | Failed | Stopped => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EVENTS: [Event; 15] = [
        Event::Settle,
        Event::Restart,
        Event::Opened,
        Event::Trouble,
        Event::Stalled,
        Event::Recovered,
        Event::Ended(Ended::Drained),
        Event::Ended(Ended::Again),
        Event::Ended(Ended::Dropped),
        Event::Ended(Ended::Failed),
        Event::Ended(Ended::FailedForGood),
        Event::Ended(Ended::Hung),
        Event::Due,
        Event::Drop,
        Event::ThreadGone,
    ];

    fn wish() -> impl Strategy<Value = Wish> {
        prop_oneof![Just(Wish::Run), Just(Wish::Pause), Just(Wish::Stop)]
    }

    proptest! {
        /// A run begins only when none exists, ends only by an `Ended` event, and starts only when that is allowed.
        #[test]
        fn there_is_never_a_second_run(steps in proptest::collection::vec((0..EVENTS.len(), wish(), any::<bool>()), 0..60)) {
            let (mut phase, mut run) = (Phase::Waiting, false);
            for (event, wish, may_start) in steps {
                let event = EVENTS[event];
                let ends = matches!(event, Event::Ended(_));
                if ends && (!run || phase == Phase::Hung) {
                    continue;
                }
                if event == Event::ThreadGone && phase != Phase::Hung {
                    continue;
                }
                if ends && event != Event::Ended(Ended::Hung) || event == Event::ThreadGone {
                    run = false;
                }
                let (next, action) = phase.next(event, wish, may_start);
                if action == Action::Start {
                    prop_assert!(!run && may_start && wish == Wish::Run, "{phase:?} {event:?}");
                    run = true;
                }
                if matches!(action, Action::Drain | Action::Drop) {
                    prop_assert!(run, "{phase:?} {event:?}");
                }
                prop_assert_eq!(next.runs(), run, "{:?} {:?} -> {:?}", phase, event, next);
                phase = next;
            }
        }

        /// Whatever happened before: once the run has ended, pause and stop are reached.
        #[test]
        fn pause_and_stop_are_always_reached(steps in proptest::collection::vec((0..EVENTS.len(), wish()), 0..40), stop in any::<bool>()) {
            let mut phase = Phase::Waiting;
            for (event, wish) in steps {
                phase = phase.next(EVENTS[event], wish, true).0;
            }
            let wish = if stop { Wish::Stop } else { Wish::Pause };
            phase = phase.next(Event::Settle, wish, true).0;
            if phase == Phase::Hung {
                phase = phase.next(Event::ThreadGone, wish, true).0;
            } else if phase.runs() {
                phase = phase.next(Event::Ended(Ended::FailedForGood), wish, true).0;
            }
            let allowed: &[Phase] = if stop { &[Phase::Stopped] } else { &[Phase::Paused, Phase::Failed] };
            prop_assert!(allowed.contains(&phase), "{:?}", phase);
        }
    }

    #[test]
    fn failed_tasks_restart_only_when_told() {
        let settle = Phase::Failed.next(Event::Settle, Wish::Run, true);
        assert_eq!(settle, (Phase::Failed, Action::None));
        assert_eq!(
            Phase::Failed.next(Event::Restart, Wish::Run, true),
            (Phase::Starting, Action::Start)
        );
        assert_eq!(
            Phase::Failed.next(Event::Restart, Wish::Pause, true),
            (Phase::Paused, Action::None)
        );
        assert_eq!(
            Phase::Failed.next(Event::Settle, Wish::Stop, true),
            (Phase::Stopped, Action::None)
        );
    }

    #[test]
    fn nothing_starts_while_starts_are_held() {
        for phase in [Phase::Waiting, Phase::Paused, Phase::Stopped] {
            assert_eq!(
                phase.next(Event::Settle, Wish::Run, false),
                (Phase::Waiting, Action::None)
            );
        }
        assert_eq!(
            Phase::BackingOff.next(Event::Due, Wish::Run, false),
            (Phase::Waiting, Action::None)
        );
    }
}
