//! Input exists and nothing moves: decided from what a pipeline counts anyhow. Pure.

use std::time::Duration;

use tokio::time::Instant;

use crate::problem::{Cause, Failure};

/// What keeps a task from moving, as it was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// The bus does not take records, or does not give those that it has.
    Bus,
    /// The outside system does not take records.
    Target,
    /// The connector's code has not returned.
    Code,
    /// Positions are not stored: that the right to go on still exists is not confirmed.
    Grant,
    /// Records wait, for the sake of their order, behind one that is not taken.
    Order,
}

impl Obstacle {
    fn reason(self) -> &'static str {
        match self {
            Self::Bus => "BUS_REFUSES",
            Self::Target => "TARGET_REFUSES",
            Self::Code => "CODE_DOES_NOT_RETURN",
            Self::Grant => "NO_GRANT",
            Self::Order => "BLOCKED_BY_ORDER",
        }
    }

    fn cause(self) -> Cause {
        match self {
            Self::Bus | Self::Target | Self::Order => Cause::External,
            Self::Code => Cause::Task,
            Self::Grant => Cause::System,
        }
    }

    fn fix(self) -> &'static str {
        match self {
            Self::Bus => {
                "see that RocketMQ runs and takes messages of the topic; it is tried again by itself"
            }
            Self::Target => {
                "see that the outside system is reachable and takes data; it is tried again by itself"
            }
            Self::Code => {
                "look for a call that blocks or is very slow in the connector; past its time limit the task is restarted"
            }
            Self::Grant => "see that the control plane and etcd are well; it is tried again by itself",
            Self::Order => "see why that queue takes nothing; the others go on as soon as it does",
        }
    }

    /// As it is reported: `waiting` records, and why they wait.
    pub(crate) fn failure(self, waiting: u64, after: Duration, why: &str) -> Failure {
        let input = match waiting {
            0 => String::new(),
            1 => " although a record waits".to_owned(),
            n => format!(" although {n} records wait"),
        };
        let message = format!("nothing has moved for {} s{input}: {why}", after.as_secs());
        Failure::new(self.cause(), self.reason(), message).fix(self.fix())
    }
}

/// Watches whether what waits moves.
pub(crate) struct Stall {
    after: Duration,
    waiting: bool,
    moved: u64,
    /// Since when the same has waited and nothing has moved.
    since: Instant,
}

impl Stall {
    /// It stalls when nothing has moved for so long.
    pub(crate) fn new(after: Duration, now: Instant) -> Self {
        Self {
            after,
            waiting: false,
            moved: 0,
            since: now,
        }
    }

    /// How long nothing may move.
    pub(crate) fn after(&self) -> Duration {
        self.after
    }

    /// Whether it stalls. `waiting`: something is known to wait; `moved`: grows with everything that moves.
    pub(crate) fn look(&mut self, waiting: bool, moved: u64, now: Instant) -> bool {
        if !waiting || !self.waiting || moved != self.moved {
            self.since = now;
        }
        (self.waiting, self.moved) = (waiting, moved);
        waiting && self.since + self.after <= now
    }

    /// When to look again at the latest.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        let due = self.since + self.after;
        (self.waiting && due > now).then_some(due)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AFTER: Duration = Duration::from_secs(8);

    #[tokio::test(start_paused = true)]
    async fn only_what_waits_and_does_not_move_stalls() {
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let mut stall = Stall::new(AFTER, start);
        // Nothing has waited for an hour: what comes then has its whole time.
        assert!(!stall.look(false, 0, at(0)));
        assert!(!stall.look(true, 0, at(3_600)));
        assert_eq!(stall.due(at(3_600)), Some(at(3_608)));
        assert!(!stall.look(true, 0, at(3_607)));
        assert!(stall.look(true, 0, at(3_608)));
        assert_eq!(stall.due(at(3_608)), None);
        assert!(!stall.look(true, 1, at(3_609)), "it has moved");
        assert!(stall.look(true, 1, at(3_617)));
        assert!(!stall.look(false, 1, at(3_618)), "nothing waits");
    }

    proptest! {
        /// It stalls exactly when all looks of the last eight seconds, and one before, saw something wait and nothing move.
        #[test]
        fn it_stalls_when_nothing_has_moved_for_its_time(looks in proptest::collection::vec((0..5u64, any::<bool>(), 0..4u8), 1..60)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            let _in = runtime.enter();
            let start = Instant::now();
            let (mut stall, mut now, mut moved) = (Stall::new(AFTER, start), start, 0);
            let mut blocked_since: Option<Instant> = None;
            for (passed, waiting, moves) in looks {
                now += Duration::from_secs(passed);
                let moves = moves == 0;
                moved += u64::from(moves);
                blocked_since = match blocked_since {
                    _ if !waiting => None,
                    Some(since) if !moves => Some(since),
                    _ => Some(now),
                };
                let expected = blocked_since.is_some_and(|since| now - since >= AFTER);
                prop_assert_eq!(stall.look(waiting, moved, now), expected);
            }
        }
    }
}
