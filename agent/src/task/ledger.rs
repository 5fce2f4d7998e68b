//! What a run has committed, and what of it is known to be stored. Pure.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use gantry_connector::Fields;
use gantry_proto::{
    agent::v1::{
        PartitionCommit, ReadOffsetsResponse, TaskCommit, TaskCommitResult, task_commit_result::Outcome,
    },
    v1::RecordCounts,
};

use crate::{key::TaskKey, wire};

/// Most partitions in one commit: the store compares each. The others follow in the next one.
const PARTITIONS: usize = 50;

/// A position on its way to the store.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Mark {
    /// The next position to read.
    pub(crate) position: Fields,
    /// Cumulative counts up to it.
    pub(crate) counts: RecordCounts,
    /// State of the sink at it.
    pub(crate) state: Bytes,
}

/// A stored position that is told to the outside.
pub(crate) type Told = Vec<(Arc<Fields>, Fields)>;

/// What an answer means.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Stored: these positions may be told upstream.
    Stored(Told),
    /// Not yet: send [`Ledger::request`] again.
    Again,
    /// The right has ended.
    Fenced,
    /// Somebody else moved the positions: start over from the stored ones.
    StartOver,
    /// It can never be stored.
    Invalid(String),
}

/// Positions of one run. At most one commit is outstanding; what comes meanwhile is coalesced, the last of each partition wins.
pub(crate) struct Ledger {
    key: TaskKey,
    fence: i64,
    epoch: i64,
    head_revision: i64,
    seen: HashMap<Fields, i64>,
    dirty: BTreeMap<Fields, (Arc<Fields>, Mark)>,
    outstanding: BTreeMap<Fields, (Arc<Fields>, Mark)>,
}

impl Ledger {
    /// From what was read at the start of the run.
    pub(crate) fn new(key: TaskKey, fence: i64, read: &ReadOffsetsResponse) -> Self {
        let seen = read
            .offsets
            .iter()
            .map(|o| (wire::fields_in(&o.partition), o.revision))
            .collect();
        Self {
            key,
            fence,
            epoch: read.epoch,
            head_revision: read.head_revision,
            seen,
            dirty: BTreeMap::new(),
            outstanding: BTreeMap::new(),
        }
    }

    /// The partition has come this far.
    pub(crate) fn put(&mut self, partition: Arc<Fields>, mark: Mark) {
        self.dirty.insert((*partition).clone(), (partition, mark));
    }

    /// Whether everything put is stored.
    pub(crate) fn is_clean(&self) -> bool {
        self.dirty.is_empty() && self.outstanding.is_empty()
    }

    /// Whether there was more than one commit can take.
    pub(crate) fn has_more(&self) -> bool {
        !self.dirty.is_empty() && self.outstanding.is_empty()
    }

    /// The commit to send: the one that is outstanding, else what was put since. None if there is nothing.
    pub(crate) fn request(&mut self) -> Option<TaskCommit> {
        if self.outstanding.is_empty() {
            let rest = self.dirty.keys().nth(PARTITIONS).cloned();
            let rest = rest.map(|first| self.dirty.split_off(&first)).unwrap_or_default();
            self.outstanding = std::mem::replace(&mut self.dirty, rest);
        }
        if self.outstanding.is_empty() {
            return None;
        }
        let partitions = self
            .outstanding
            .iter()
            .map(|(partition, (_, mark))| PartitionCommit {
                partition: wire::fields_out(partition),
                position: wire::fields_out(&mark.position),
                sink_state: mark.state.to_vec(),
                counts: Some(mark.counts),
                seen_revision: self.seen.get(partition).copied().unwrap_or(0),
            });
        Some(TaskCommit {
            connector_uid: self.key.uid.to_string(),
            task: self.key.task,
            fence: self.fence,
            epoch: self.epoch,
            head_revision: self.head_revision,
            partitions: partitions.collect(),
        })
    }

    /// Takes the answer to the outstanding commit.
    pub(crate) fn settle(&mut self, result: &TaskCommitResult) -> Verdict {
        match result.outcome() {
            Outcome::Stored => {
                self.head_revision = result.head_revision;
                self.stored(result.revision)
            }
            Outcome::Fenced => Verdict::Fenced,
            Outcome::Conflict => self.conflict(result),
            Outcome::Invalid => Verdict::Invalid(result.message.clone()),
            Outcome::Retry | Outcome::Unspecified => Verdict::Again,
        }
    }

    fn stored(&mut self, revision: i64) -> Verdict {
        let stored = std::mem::take(&mut self.outstanding);
        let told = stored.into_iter().map(|(partition, (shared, mark))| {
            self.seen.insert(partition, revision);
            (shared, mark.position)
        });
        Verdict::Stored(told.collect())
    }

    /// An earlier copy of this commit may have been stored although its answer was lost; then the stored positions are exactly
    /// those of the outstanding commit. Anything else was not written by this run.
    fn conflict(&mut self, result: &TaskCommitResult) -> Verdict {
        if result.epoch != self.epoch {
            return Verdict::StartOver;
        }
        let stored: HashMap<_, _> = result
            .stored
            .iter()
            .map(|s| {
                (
                    wire::fields_in(&s.partition),
                    (wire::fields_in(&s.position), s.revision),
                )
            })
            .collect();
        let mut told = Told::new();
        for (partition, (shared, mark)) in &self.outstanding {
            let seen = self.seen.get(partition).copied().unwrap_or(0);
            match stored.get(partition) {
                Some((position, revision)) if *position == mark.position => {
                    self.seen.insert(partition.clone(), *revision);
                    told.push((shared.clone(), position.clone()));
                }
                Some((_, revision)) if *revision == seen => {}
                None if seen == 0 => {}
                _ => return Verdict::StartOver,
            }
        }
        self.head_revision = result.head_revision;
        // A commit is stored whole or not at all.
        if told.len() < self.outstanding.len() {
            return Verdict::Again;
        }
        self.outstanding.clear();
        Verdict::Stored(told)
    }
}

#[cfg(test)]
mod tests {
    use gantry_proto::agent::v1::StoredOffset;

    use super::*;

    fn part(name: &str) -> Arc<Fields> {
        Arc::new(Fields::new().with("file", name))
    }

    fn mark(byte: u64) -> Mark {
        Mark {
            position: Fields::new().with("byte", byte),
            counts: RecordCounts {
                r#in: byte,
                ..Default::default()
            },
            state: Bytes::new(),
        }
    }

    fn stored(name: &str, byte: u64, revision: i64) -> StoredOffset {
        StoredOffset {
            partition: wire::fields_out(&part(name)),
            position: wire::fields_out(&mark(byte).position),
            revision,
            ..Default::default()
        }
    }

    fn ledger() -> Ledger {
        let read = ReadOffsetsResponse {
            epoch: 1,
            head_revision: 5,
            offsets: vec![stored("a", 10, 7)],
        };
        Ledger::new(TaskKey::new("c", 0), 3, &read)
    }

    fn answer(outcome: Outcome) -> TaskCommitResult {
        TaskCommitResult {
            outcome: outcome as i32,
            revision: 20,
            head_revision: 20,
            epoch: 1,
            ..Default::default()
        }
    }

    #[test]
    fn the_last_position_wins_and_one_commit_is_outstanding() {
        let mut l = ledger();
        l.put(part("a"), mark(11));
        l.put(part("a"), mark(12));
        l.put(part("b"), mark(1));
        let first = l.request().unwrap();
        assert_eq!(
            first
                .partitions
                .iter()
                .map(|p| p.seen_revision)
                .collect::<Vec<_>>(),
            [7, 0]
        );
        l.put(part("a"), mark(13));
        assert_eq!(l.request().unwrap(), first);
        let told = vec![(part("a"), mark(12).position), (part("b"), mark(1).position)];
        assert_eq!(l.settle(&answer(Outcome::Stored)), Verdict::Stored(told));
        let next = l.request().unwrap();
        assert_eq!(
            (
                next.partitions.len(),
                next.partitions[0].seen_revision,
                next.head_revision
            ),
            (1, 20, 20)
        );
    }

    #[test]
    fn a_conflict_with_our_own_lost_answer_is_taken_over() {
        let mut l = ledger();
        l.put(part("a"), mark(11));
        l.request().unwrap();
        let conflict = TaskCommitResult {
            stored: vec![stored("a", 11, 19)],
            ..answer(Outcome::Conflict)
        };
        assert_eq!(
            l.settle(&conflict),
            Verdict::Stored(vec![(part("a"), mark(11).position)])
        );
        l.put(part("a"), mark(12));
        assert_eq!(l.request().unwrap().partitions[0].seen_revision, 19);
    }

    #[test]
    fn a_conflict_with_somebody_else_starts_over() {
        let mut l = ledger();
        l.put(part("a"), mark(11));
        l.request().unwrap();
        let conflict = TaskCommitResult {
            stored: vec![stored("a", 3, 19)],
            ..answer(Outcome::Conflict)
        };
        assert_eq!(l.settle(&conflict), Verdict::StartOver);
        let reset = TaskCommitResult {
            epoch: 2,
            stored: vec![stored("a", 11, 19)],
            ..answer(Outcome::Conflict)
        };
        assert_eq!(l.settle(&reset), Verdict::StartOver);
        let removed = TaskCommitResult {
            stored: vec![],
            ..answer(Outcome::Conflict)
        };
        assert_eq!(l.settle(&removed), Verdict::StartOver);
    }

    #[test]
    fn a_head_that_another_task_wrote_is_taken_over() {
        let mut l = ledger();
        l.put(part("a"), mark(11));
        l.request().unwrap();
        let conflict = TaskCommitResult {
            head_revision: 9,
            stored: vec![stored("a", 10, 7)],
            ..answer(Outcome::Conflict)
        };
        assert_eq!(l.settle(&conflict), Verdict::Again);
        let again = l.request().unwrap();
        assert_eq!((again.head_revision, again.partitions[0].seen_revision), (9, 7));
    }
}
