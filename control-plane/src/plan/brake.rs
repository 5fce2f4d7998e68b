use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use gantry_proto::v1::task::State;

use crate::domain::Snapshot;

/// How far back the agents that were present are looked at, and how quickly they have to be lost.
const WINDOW_MS: u64 = 60_000;
const FEWEST: usize = 3;
const PERCENT: usize = 30;

/// Many agents were lost at once: rights are not ended for absence while this lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrakeState {
    /// Agents that are missing.
    pub lost: usize,
    /// Agents that were present a minute before it went on, and those that came back or are new since.
    pub of: usize,
}

/// Watches for the loss of many agents at once. It goes on when at least 3 agents and more than 30 % of those present a
/// minute ago were lost within 60 s, and lifts when no more than 30 % of them are missing, or when it is released.
///
/// Made new at an election. `now_ms`: a clock that never goes back and counts suspension.
#[derive(Debug, Clone, Default)]
pub struct Brake {
    /// By agent: when it was last present, and since when.
    seen: BTreeMap<Arc<str>, Seen>,
    state: Option<BrakeState>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    last_ms: u64,
    present: bool,
    /// It said goodbye: not lost.
    left: bool,
}

impl Brake {
    /// Nothing seen yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks at a snapshot.
    pub fn observe(&mut self, snapshot: &Snapshot, now_ms: u64) -> Option<&BrakeState> {
        let present = snapshot
            .sessions
            .iter()
            .filter(|(_, s)| !s.silent)
            .map(|(name, _)| name.clone());
        let left = goodbyes(snapshot);
        self.observe_agents(present, &left, now_ms);
        self.state.as_ref()
    }

    fn observe_agents(
        &mut self,
        present: impl Iterator<Item = Arc<str>>,
        left: &BTreeSet<&str>,
        now_ms: u64,
    ) {
        for seen in self.seen.values_mut() {
            seen.present = false;
        }
        for agent in present {
            self.seen.insert(
                agent,
                Seen {
                    last_ms: now_ms,
                    present: true,
                    left: false,
                },
            );
        }
        for (agent, seen) in &mut self.seen {
            seen.left |= !seen.present && left.contains(&**agent);
        }
        if self.state.is_none() {
            // While it is on, those that are missing are remembered; else only for a minute.
            self.seen
                .retain(|_, s| s.present || now_ms.saturating_sub(s.last_ms) <= WINDOW_MS);
        }
        let counted = || self.seen.values().filter(|s| !s.left);
        let lost = counted().filter(|s| !s.present).count();
        let of = counted().count();
        let many = lost * 100 > of * PERCENT;
        self.state = match self.state {
            None if lost >= FEWEST && many => Some(BrakeState { lost, of }),
            Some(_) if many => Some(BrakeState { lost, of }),
            _ => None,
        };
    }

    /// Lets go: what is missing now counts as gone for good. False: it was not on.
    pub fn release(&mut self) -> bool {
        self.seen.retain(|_, s| s.present);
        self.state.take().is_some()
    }
}

/// Agents of which every task was stopped by a goodbye. They leave on purpose.
fn goodbyes(snapshot: &Snapshot) -> BTreeSet<&str> {
    let mut said = BTreeSet::new();
    let mut not_said = BTreeSet::new();
    for (task, grant) in &snapshot.grants {
        let goodbye = snapshot.statuses.get(task).is_some_and(|s| {
            s.fence == grant.mod_revision
                && s.state() == State::Stopped
                && s.want_revision == 0
                && s.refusal.is_none()
        });
        if goodbye { &mut said } else { &mut not_said }.insert(grant.value.agent.as_str());
    }
    said.difference(&not_said).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agents(range: std::ops::Range<u32>) -> impl Iterator<Item = Arc<str>> {
        range.map(|i| format!("agent-{i}").into())
    }

    fn on(brake: &mut Brake, present: std::ops::Range<u32>, now_ms: u64) -> Option<(usize, usize)> {
        brake.observe_agents(agents(present), &BTreeSet::new(), now_ms);
        brake.state.as_ref().map(|s| (s.lost, s.of))
    }

    #[test]
    fn three_agents_and_more_than_thirty_percent() {
        let mut brake = Brake::new();
        assert_eq!(on(&mut brake, 0..10, 0), None);
        assert_eq!(
            on(&mut brake, 0..7, 1_000),
            None,
            "3 of 10 are not more than 30 %"
        );
        assert_eq!(on(&mut brake, 0..6, 2_000), Some((4, 10)));
        let mut brake = Brake::new();
        assert_eq!(on(&mut brake, 0..4, 0), None);
        assert_eq!(on(&mut brake, 0..2, 1_000), None, "2 agents are too few");
        assert_eq!(on(&mut brake, 0..1, 2_000), Some((3, 4)));
    }

    #[test]
    fn slow_losses_do_not_count() {
        let mut brake = Brake::new();
        for i in 0..10 {
            assert_eq!(
                on(&mut brake, 0..10 - u32::try_from(i).unwrap(), i * 40_000),
                None
            );
        }
    }

    #[test]
    fn it_stays_until_enough_are_back_or_it_is_released() {
        let mut brake = Brake::new();
        on(&mut brake, 0..10, 0);
        assert!(on(&mut brake, 0..4, 10_000).is_some());
        assert_eq!(
            on(&mut brake, 0..4, 500_000),
            Some((6, 10)),
            "time does not lift it"
        );
        assert_eq!(on(&mut brake, 0..6, 510_000), Some((4, 10)));
        assert_eq!(on(&mut brake, 0..7, 520_000), None);

        on(&mut brake, 0..10, 530_000);
        assert!(on(&mut brake, 0..4, 540_000).is_some());
        assert!(brake.release());
        assert!(!brake.release());
        assert_eq!(on(&mut brake, 0..4, 541_000), None);
    }

    #[test]
    fn who_says_goodbye_is_not_lost() {
        let mut brake = Brake::new();
        brake.observe_agents(agents(0..10), &BTreeSet::new(), 0);
        let left = ["agent-6", "agent-7", "agent-8", "agent-9"].into();
        brake.observe_agents(agents(0..6), &left, 1_000);
        assert_eq!(brake.state, None);
        assert_eq!(on(&mut brake, 0..6, 2_000), None, "it is remembered");
        assert_eq!(on(&mut brake, 0..3, 3_000), Some((3, 6)));
    }
}
