//! What strikes whom, and when: a pure function of the seed.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::OnceLock;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::env;

/// The seed of this run: the one that was asked for, or a new one, the same for all drills.
pub fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| env::faults_seed().unwrap_or_else(|| rand::random_range(0..1_000_000)))
}

/// How many rounds a drill has: as many as were asked for, or else these in an ordinary and in a long run.
pub fn rounds(ordinary: u32, long: u32) -> u32 {
    let own = if env::long() { long } else { ordinary };
    let asked = env::faults_rounds().map(|rounds| u32::try_from(rounds).unwrap_or(u32::MAX));
    asked.unwrap_or(own).max(1)
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// An agent is killed (-9) and started again with the same lock file.
    AgentKilled,
    /// An agent is suspended for longer than its lease, and goes on.
    AgentFrozen,
    /// The replica that leads is killed (-9).
    LeaderKilled,
    /// A replica that does not lead is killed (-9).
    FollowerKilled,
    /// All replicas are killed (-9).
    ReplicasKilled,
    /// A replica reaches agents and users, but not etcd.
    ReplicaCutOff,
    /// A member of etcd is killed (-9).
    EtcdKilled,
    /// A member of etcd is suspended.
    EtcdFrozen,
    /// The broker is killed (-9).
    BrokerKilled,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AgentKilled => "agent killed",
            Self::AgentFrozen => "agent frozen",
            Self::LeaderKilled => "leader killed",
            Self::FollowerKilled => "follower killed",
            Self::ReplicasKilled => "all replicas killed",
            Self::ReplicaCutOff => "replica cut off from etcd",
            Self::EtcdKilled => "etcd killed",
            Self::EtcdFrozen => "etcd frozen",
            Self::BrokerKilled => "broker killed",
        })
    }
}

/// One time that something happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// Counted from 1.
    pub number: u32,
    /// So many records are written to the sources between the end of the round before and the fault.
    pub after: u64,
    /// Which fault, of those that the drill knows, and which second one where there are two.
    pub faults: [Fault; 2],
    /// Whom: the one at `pick` modulo how many there are, in the order of their names.
    pub pick: usize,
    /// How long it lasts.
    pub hold: Duration,
    /// How long after the first the second strikes.
    pub apart: Duration,
}

/// How often and for how long.
#[derive(Debug, Clone)]
pub struct Pace {
    /// How many rounds.
    pub rounds: u32,
    /// Bounds of [`Round::after`].
    pub after: RangeInclusive<u64>,
    /// Bounds of [`Round::hold`].
    pub hold: RangeInclusive<Duration>,
}

/// The rounds of a drill.
pub fn schedule(seed: u64, drill: &str, faults: &[Fault], pace: &Pace) -> Vec<Round> {
    // Another drill of the same seed draws other numbers.
    let name = drill.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    let mut random = StdRng::seed_from_u64(seed ^ name);
    let mut last = None;
    let mut round = |number| {
        let first = faults[random.random_range(0..faults.len())];
        // Two different ones where there are two to choose from; and not the same one in each of few rounds.
        let others: Vec<Fault> = faults.iter().copied().filter(|fault| *fault != first).collect();
        let second = match others.len() {
            0 => first,
            n => others[random.random_range(0..n)],
        };
        let pair = if last == Some(first) {
            [second, first]
        } else {
            [first, second]
        };
        last = Some(pair[0]);
        Round {
            number,
            after: random.random_range(pace.after.clone()),
            faults: pair,
            pick: random.random_range(0..1_000),
            hold: between(&mut random, &pace.hold),
            apart: between(&mut random, &(Duration::ZERO..=Duration::from_secs(3))),
        }
    };
    (1..=pace.rounds).map(&mut round).collect()
}

fn between(random: &mut StdRng, range: &RangeInclusive<Duration>) -> Duration {
    let (low, high) = (range.start().as_millis(), range.end().as_millis());
    let millis = random.random_range(low..=high);
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAULTS: [Fault; 3] = [Fault::AgentKilled, Fault::EtcdKilled, Fault::BrokerKilled];

    fn pace(rounds: u32) -> Pace {
        Pace {
            rounds,
            after: 100..=5_000,
            hold: Duration::ZERO..=Duration::from_secs(5),
        }
    }

    #[test]
    fn a_seed_always_gives_the_same_schedule() {
        let once = schedule(7, "a", &FAULTS, &pace(50));
        assert_eq!(once, schedule(7, "a", &FAULTS, &pace(50)));
        assert_ne!(once, schedule(8, "a", &FAULTS, &pace(50)));
        assert_ne!(once, schedule(7, "b", &FAULTS, &pace(50)));
        // More rounds begin with the same ones.
        assert_eq!(once[..20], schedule(7, "a", &FAULTS, &pace(20)));
    }

    #[test]
    fn rounds_keep_to_their_pace_and_draw_every_fault() {
        let rounds = schedule(3, "a", &FAULTS, &pace(200));
        for (n, round) in rounds.iter().enumerate() {
            assert_eq!(round.number as usize, n + 1);
            assert!((100..=5_000).contains(&round.after) && round.hold <= Duration::from_secs(5));
            assert_ne!(round.faults[0], round.faults[1]);
        }
        for fault in FAULTS {
            assert!(rounds.iter().filter(|round| round.faults[0] == fault).count() > 20);
        }
        let single = schedule(3, "a", &FAULTS[..1], &pace(5));
        assert!(single.iter().all(|round| round.faults == [Fault::AgentKilled; 2]));
    }
}
