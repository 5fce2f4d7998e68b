//! Random operations.

use etcd_client::{Compare, CompareOp, SortOrder, SortTarget};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::ops::{Delete, Get, Keys, Op, Put, Transaction};

/// etcd sorts longer lists in no particular order among equals.
pub(crate) const KEYS: usize = 12;
/// Ids of leases, from 1.
pub(crate) const LEASES: i64 = 6;

/// Makes operations around the newest revision.
pub(crate) struct Generator {
    random: StdRng,
    pub(crate) revision: i64,
}

impl Generator {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            revision: 1,
        }
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.random.random_range(0..n) == 0
    }

    pub(crate) fn key_number(index: usize) -> String {
        format!("{}/{}", ["a", "ab", "b"][index % 3], index / 3)
    }

    fn key(&mut self) -> String {
        Self::key_number(self.random.random_range(0..KEYS))
    }

    fn prefix(&mut self) -> String {
        ["a", "ab", "b", "a/", "ab/", "c"][self.random.random_range(0..6)].to_owned()
    }

    fn keys(&mut self) -> Keys {
        match self.random.random_range(0..10) {
            0..=4 => Keys::One(self.key()),
            5..=7 => Keys::Prefix(self.prefix()),
            8 => Keys::From(self.key()),
            // Half of these are empty: the end lies before the start.
            _ => Keys::Between(self.key(), self.key()),
        }
    }

    /// A revision around the newest one, so that some are compacted and some in the future.
    fn revision(&mut self, back: i64) -> i64 {
        self.revision - self.random.random_range(0..back) + 2
    }

    fn maybe_revision(&mut self) -> i64 {
        if self.one_in(6) { self.revision(40) } else { 0 }
    }

    fn lease(&mut self) -> i64 {
        self.random.random_range(1..=LEASES)
    }

    fn put(&mut self) -> Put {
        let ignore_value = self.one_in(12);
        let ignore_lease = self.one_in(12);
        Put {
            key: self.key(),
            // Rarely both are given, which is an error.
            value: if ignore_value && !self.one_in(5) {
                String::new()
            } else {
                self.random.random_range(0..100).to_string()
            },
            lease: if self.one_in(4) && (!ignore_lease || self.one_in(5)) {
                self.lease()
            } else {
                0
            },
            prev_key: self.one_in(2),
            ignore_value,
            ignore_lease,
        }
    }

    fn get(&mut self) -> Get {
        let target = [
            SortTarget::Key,
            SortTarget::Version,
            SortTarget::Create,
            SortTarget::Mod,
            SortTarget::Value,
        ][self.random.random_range(0..5)];
        let order = [SortOrder::None, SortOrder::Ascend, SortOrder::Descend][self.random.random_range(0..3)];
        Get {
            keys: self.keys(),
            revision: if self.one_in(3) { self.revision(12) } else { 0 },
            limit: if self.one_in(3) {
                self.random.random_range(0..4)
            } else {
                0
            },
            sort: (target, order),
            keys_only: self.one_in(5),
            count_only: self.one_in(6),
            mod_revisions: (self.maybe_revision(), self.maybe_revision()),
            create_revisions: (self.maybe_revision(), self.maybe_revision()),
        }
    }

    fn delete(&mut self) -> Delete {
        Delete {
            keys: self.keys(),
            prev_key: self.one_in(2),
        }
    }

    fn compare(&mut self) -> Compare {
        let key = self.key();
        let op = [
            CompareOp::Equal,
            CompareOp::Greater,
            CompareOp::Less,
            CompareOp::NotEqual,
        ][self.random.random_range(0..4)];
        let revision = if self.one_in(4) { 0 } else { self.revision(8) };
        let compare = match self.random.random_range(0..5) {
            0 => Compare::version(key, op, revision % 4),
            1 => Compare::create_revision(key, op, revision),
            2 => Compare::mod_revision(key, op, revision),
            3 => Compare::lease(key, op, self.lease()),
            _ => Compare::value(key, op, self.random.random_range(0..100).to_string()),
        };
        if self.one_in(4) {
            compare.with_prefix()
        } else {
            compare
        }
    }

    fn in_transaction(&mut self, depth: u32) -> Op {
        match self.random.random_range(0..10) {
            0..=3 => Op::Put(self.put()),
            4..=6 => Op::Get(self.get()),
            7 | 8 => {
                let mut delete = self.delete();
                // etcd takes "from this key on" for no overlap with any put, and then stops for good at a put that
                // ignores the value of the key that it has just deleted.
                while matches!(delete.keys, Keys::From(_)) {
                    delete = self.delete();
                }
                Op::Delete(delete)
            }
            _ if depth < 2 => Op::Txn(self.transaction(depth + 1)),
            _ => Op::Put(self.put()),
        }
    }

    fn transaction(&mut self, depth: u32) -> Transaction {
        let compares = (0..self.random.random_range(0..3))
            .map(|_| self.compare())
            .collect();
        let mut branch = || -> Vec<Op> {
            (0..self.random.random_range(0..4))
                .map(|_| self.in_transaction(depth))
                .collect()
        };
        Transaction {
            compares,
            success: branch(),
            failure: branch(),
        }
    }

    pub(crate) fn next(&mut self) -> Op {
        match self.random.random_range(0..100) {
            0..=24 => Op::Put(self.put()),
            25..=44 => Op::Get(self.get()),
            45..=54 => Op::Delete(self.delete()),
            55..=84 => Op::Txn(self.transaction(0)),
            85 | 86 => Op::Compact(self.revision(20)),
            87..=90 => Op::Grant {
                id: self.lease(),
                ttl: self.random.random_range(1_000..2_000),
            },
            91 | 92 => Op::Revoke(self.lease()),
            93..=97 => Op::TimeToLive(self.lease()),
            _ => Op::Leases,
        }
    }
}
