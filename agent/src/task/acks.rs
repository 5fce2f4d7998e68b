//! Which positions of a source may be committed: in-order acknowledgement per partition. Pure.
//!
//! Records are acknowledged in any order; the committable position of a partition is that of the last record of an unbroken
//! run of records that are done. Counts are cumulative and belong to exactly that position.

use std::{collections::VecDeque, sync::Arc};

use gantry_connector::Fields;
use gantry_proto::v1::RecordCounts;

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Written.
    Out,
    /// Dropped by a transform's decision.
    #[allow(dead_code, reason = "the seam for transforms")]
    Filtered,
    /// Skipped by the error policy.
    Skipped,
    /// Its dead letter is stored.
    DeadLettered,
}

/// Names a record until it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// Index of the partition.
    pub(crate) partition: u32,
    seq: u64,
}

/// A position that may be committed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Committable {
    /// Index of the partition.
    pub(crate) index: u32,
    /// The partition.
    pub(crate) partition: Arc<Fields>,
    /// The next position to read.
    pub(crate) position: Fields,
    /// Cumulative counts up to exactly that position.
    pub(crate) counts: RecordCounts,
}

/// All partitions of a task.
#[derive(Default)]
pub(crate) struct Acks {
    partitions: Vec<Partition>,
}

struct Partition {
    fields: Arc<Fields>,
    /// Sequence number of the first entry.
    first: u64,
    entries: VecDeque<Entry>,
    /// Of everything that was taken from `entries`.
    counts: RecordCounts,
    /// What may be committed and was not taken yet.
    ready: Option<(Fields, RecordCounts)>,
}

struct Entry {
    position: Fields,
    /// How many records before it have the same position: together they are indivisible.
    nth: u32,
    done: Option<Outcome>,
}

impl Acks {
    /// Adds a partition with the counts that are committed for it; returns its index.
    pub(crate) fn add_partition(&mut self, fields: Arc<Fields>, counts: RecordCounts) -> u32 {
        self.partitions.push(Partition {
            fields,
            first: 0,
            entries: VecDeque::new(),
            counts,
            ready: None,
        });
        (self.partitions.len() - 1) as u32
    }

    /// Takes a record in; in order within a partition. Records of one position have to be taken in before any of them is
    /// done.
    pub(crate) fn push(&mut self, partition: u32, position: Fields) -> Ticket {
        let p = &mut self.partitions[partition as usize];
        let nth = p
            .entries
            .back()
            .filter(|last| last.position == position)
            .map_or(0, |last| last.nth + 1);
        p.entries.push_back(Entry {
            position,
            nth,
            done: None,
        });
        Ticket {
            partition,
            seq: p.first + p.entries.len() as u64 - 1,
        }
    }

    /// Position of a record that is not done, and how many before it have the same.
    pub(crate) fn position(&self, ticket: Ticket) -> Option<(&Arc<Fields>, &Fields, u32)> {
        let p = self.partitions.get(ticket.partition as usize)?;
        let entry = p
            .entries
            .get(usize::try_from(ticket.seq.checked_sub(p.first)?).ok()?)?;
        Some((&p.fields, &entry.position, entry.nth))
    }

    /// The record is done. Saying so again changes nothing.
    pub(crate) fn done(&mut self, ticket: Ticket, outcome: Outcome) {
        let p = &mut self.partitions[ticket.partition as usize];
        let Some(index) = ticket.seq.checked_sub(p.first) else {
            return;
        };
        let Some(entry) = p.entries.get_mut(index as usize) else {
            return;
        };
        entry.done.get_or_insert(outcome);
        if index == 0 {
            p.advance();
        }
    }

    /// Positions that may be committed and were not taken before; the latest of each partition.
    pub(crate) fn take_ready(&mut self) -> Vec<Committable> {
        let ready = self.partitions.iter_mut().zip(0u32..).filter_map(|(p, index)| {
            let (position, counts) = p.ready.take()?;
            Some(Committable {
                index,
                partition: p.fields.clone(),
                position,
                counts,
            })
        });
        ready.collect()
    }

    /// Whether something may be committed.
    pub(crate) fn has_ready(&self) -> bool {
        self.partitions.iter().any(|p| p.ready.is_some())
    }

    /// Records that are not done or wait for one before them.
    pub(crate) fn pending(&self) -> usize {
        self.partitions.iter().map(|p| p.entries.len()).sum()
    }
}

impl Partition {
    fn advance(&mut self) {
        while let Some(outcome) = self.entries.front().and_then(|e| e.done) {
            let Some(entry) = self.entries.pop_front() else {
                return;
            };
            self.first += 1;
            self.counts.r#in += 1;
            match outcome {
                Outcome::Out => self.counts.out += 1,
                Outcome::Filtered => self.counts.filtered += 1,
                Outcome::Skipped => self.counts.skipped += 1,
                Outcome::DeadLettered => self.counts.dead_lettered += 1,
            }
            let divided = self.entries.front().is_some_and(|next| next.nth > entry.nth);
            if !divided {
                self.ready = Some((entry.position, self.counts));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(n: u64) -> Fields {
        Fields::new().with("byte", n)
    }

    fn one() -> Acks {
        let mut acks = Acks::default();
        acks.add_partition(Arc::new(Fields::new()), RecordCounts::default());
        acks
    }

    #[test]
    fn nothing_passes_a_record_that_is_not_done() {
        let mut acks = one();
        let tickets: Vec<_> = (1..=3).map(|n| acks.push(0, at(n))).collect();
        acks.done(tickets[2], Outcome::Out);
        acks.done(tickets[1], Outcome::Skipped);
        assert!(!acks.has_ready());
        acks.done(tickets[0], Outcome::DeadLettered);
        let ready = acks.take_ready();
        assert_eq!(ready[0].position, at(3));
        let counts = RecordCounts {
            r#in: 3,
            out: 1,
            skipped: 1,
            dead_lettered: 1,
            filtered: 0,
        };
        assert_eq!(
            (&ready[0].counts, acks.pending(), acks.has_ready()),
            (&counts, 0, false)
        );
    }

    #[test]
    fn records_of_one_position_are_committed_together() {
        let mut acks = one();
        let tickets: Vec<_> = [1, 2, 2, 2, 3].map(|n| acks.push(0, at(n))).into();
        assert_eq!(acks.position(tickets[3]).map(|(_, _, nth)| nth), Some(2));
        for t in &tickets[..3] {
            acks.done(*t, Outcome::Out);
        }
        let ready = acks.take_ready();
        assert_eq!((&ready[0].position, ready[0].counts.out), (&at(1), 1));
        acks.done(tickets[3], Outcome::Out);
        assert_eq!(acks.take_ready()[0].position, at(2));
    }

    proptest! {
        /// Against a model: whatever the order of acknowledgement and of taking, each taken position is exactly the end of
        /// the done prefix, with exactly its counts, and in the end everything is committable.
        #[test]
        fn committable_is_the_done_prefix(count in 1usize..60, order in any::<u64>(), take in proptest::collection::vec(any::<bool>(), 60)) {
            let jitter = crate::backoff::Jitter::new(order);
            let mut acks = one();
            let tickets: Vec<_> = (1..=count as u64).map(|n| acks.push(0, at(n))).collect();
            let mut indices: Vec<_> = (0..count).collect();
            jitter.shuffle(&mut indices);
            let mut done = vec![false; count];
            let mut last = 0;
            for (step, i) in indices.into_iter().enumerate() {
                acks.done(tickets[i], if i % 3 == 0 { Outcome::Skipped } else { Outcome::Out });
                acks.done(tickets[i], Outcome::DeadLettered);
                done[i] = true;
                if take[step] || step + 1 == count {
                    let prefix = done.iter().take_while(|d| **d).count();
                    let ready = acks.take_ready();
                    prop_assert_eq!(ready.len(), usize::from(prefix > last));
                    if let Some(ready) = ready.first() {
                        prop_assert_eq!(&ready.position, &at(prefix as u64));
                        prop_assert_eq!(ready.counts.r#in, prefix as u64);
                        prop_assert_eq!(ready.counts.skipped, prefix.div_ceil(3) as u64);
                        prop_assert_eq!(ready.counts.out + ready.counts.skipped, prefix as u64);
                    }
                    last = prefix;
                }
            }
            prop_assert_eq!((last, acks.pending()), (count, 0));
        }
    }
}
