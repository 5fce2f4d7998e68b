//! Leases: what is alive until when, and which keys go with it. Pure; the caller says what time it is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use tonic::Status;

use crate::status;

/// Shortest lease in seconds; shorter requests are raised to it.
pub(crate) const MIN_TTL: i64 = 1;
/// etcd's bound, in seconds.
const MAX_TTL: i64 = 9_000_000_000;

#[derive(Debug)]
pub(crate) struct Lease {
    /// Seconds.
    pub(crate) ttl: i64,
    deadline: Instant,
    pub(crate) keys: BTreeSet<Vec<u8>>,
}

impl Lease {
    /// Whole seconds left.
    pub(crate) fn remaining(&self, now: Instant) -> i64 {
        let left = self.deadline.saturating_duration_since(now).as_secs();
        i64::try_from(left).unwrap_or(i64::MAX)
    }
}

#[derive(Debug)]
pub(crate) struct Leases {
    by_id: BTreeMap<i64, Lease>,
    by_deadline: BTreeSet<(Instant, i64)>,
    next_id: i64,
}

impl Leases {
    /// `boot` counts the starts of this store, so that an id given out before a restart never comes again.
    pub(crate) fn new(boot: i64) -> Self {
        Self {
            by_id: BTreeMap::new(),
            by_deadline: BTreeSet::new(),
            next_id: (boot << 32) + 1,
        }
    }

    pub(crate) fn get(&self, id: i64) -> Option<&Lease> {
        self.by_id.get(&id)
    }

    /// Ids, the first to expire first.
    pub(crate) fn ids(&self) -> impl Iterator<Item = i64> {
        self.by_deadline.iter().map(|(_, id)| *id)
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.by_deadline.first().map(|(deadline, _)| *deadline)
    }

    /// Leases that ended at `now`, at most `limit`.
    pub(crate) fn due(&self, now: Instant, limit: usize) -> Vec<i64> {
        self.by_deadline
            .iter()
            .take_while(|(deadline, _)| *deadline <= now)
            .map(|(_, id)| *id)
            .take(limit)
            .collect()
    }

    /// Adds a lease of `ttl` seconds; id 0 lets the store choose. Returns the id and the ttl it really has.
    pub(crate) fn grant(&mut self, id: i64, ttl: i64, now: Instant) -> Result<(i64, i64), Status> {
        if ttl > MAX_TTL {
            return Err(status::lease_ttl_too_large());
        }
        if self.by_id.contains_key(&id) {
            return Err(status::lease_exists());
        }
        let id = if id == 0 { self.unused_id() } else { id };
        let ttl = ttl.max(MIN_TTL);
        self.insert(id, ttl, now);
        Ok((id, ttl))
    }

    /// Puts a lease back that a file held, with its full ttl.
    pub(crate) fn insert(&mut self, id: i64, ttl: i64, now: Instant) {
        let deadline = deadline(ttl, now);
        self.by_deadline.insert((deadline, id));
        self.by_id.insert(
            id,
            Lease {
                ttl,
                deadline,
                keys: BTreeSet::new(),
            },
        );
    }

    fn unused_id(&mut self) -> i64 {
        while self.by_id.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// Starts the ttl anew and returns it; None when the lease does not exist or has ended.
    pub(crate) fn renew(&mut self, id: i64, now: Instant) -> Option<i64> {
        let lease = self.by_id.get_mut(&id)?;
        if lease.deadline <= now {
            return None;
        }
        self.by_deadline.remove(&(lease.deadline, id));
        lease.deadline = deadline(lease.ttl, now);
        self.by_deadline.insert((lease.deadline, id));
        Some(lease.ttl)
    }

    /// Removes a lease and returns its keys, in order. The keys themselves are the caller's to delete.
    pub(crate) fn remove(&mut self, id: i64) -> Option<BTreeSet<Vec<u8>>> {
        let lease = self.by_id.remove(&id)?;
        self.by_deadline.remove(&(lease.deadline, id));
        Some(lease.keys)
    }

    /// Moves `key` from one lease to another; 0 is no lease.
    pub(crate) fn attach(&mut self, key: &[u8], from: i64, to: i64) {
        if from == to {
            return;
        }
        if let Some(lease) = self.by_id.get_mut(&from) {
            lease.keys.remove(key);
        }
        if let Some(lease) = self.by_id.get_mut(&to) {
            lease.keys.insert(key.to_vec());
        }
    }
}

fn deadline(ttl: i64, now: Instant) -> Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
    let ttl = Duration::from_secs(ttl.unsigned_abs()).min(FAR);
    now + ttl
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_ttl_is_raised_and_a_huge_one_refused() {
        let now = Instant::now();
        let mut leases = Leases::new(1);
        assert_eq!(leases.grant(5, -3, now).expect("granted"), (5, MIN_TTL));
        let refused = leases.grant(6, MAX_TTL + 1, now).expect_err("too large");
        assert_eq!(refused.message(), "etcdserver: too large lease TTL");
        let again = leases.grant(5, 10, now).expect_err("exists");
        assert_eq!(again.message(), "etcdserver: lease already exists");
    }

    #[test]
    fn chosen_ids_differ_between_starts_and_skip_taken_ones() {
        let now = Instant::now();
        let mut first = Leases::new(1);
        let (a, _) = first.grant(0, 10, now).expect("granted");
        first.grant(a + 1, 10, now).expect("granted");
        let (b, _) = first.grant(0, 10, now).expect("granted");
        assert_eq!(b, a + 2);
        let (c, _) = Leases::new(2).grant(0, 10, now).expect("granted");
        assert!(c > b);
    }

    #[test]
    fn renewing_moves_the_deadline_and_ended_leases_stay_ended() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut leases = Leases::new(1);
        leases.grant(1, 10, now).expect("granted");
        assert_eq!(leases.renew(1, now + second * 9), Some(10));
        assert!(leases.due(now + second * 18, 10).is_empty());
        assert_eq!(leases.due(now + second * 19, 10), [1]);
        assert_eq!(leases.renew(1, now + second * 19), None);
        assert_eq!(leases.renew(2, now), None);
    }
}
