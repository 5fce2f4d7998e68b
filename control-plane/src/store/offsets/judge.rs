//! What is wrong with a commit, given what is stored.

use std::collections::BTreeMap;

use gantry_proto::agent::v1::{
    StoredOffset, TaskCommit, TaskCommitResult, TaskRef, task_commit_result::Outcome,
};

use super::{head_of, stored_offset};
use crate::{
    domain::{TaskId, stored::OffsetRecord},
    store::{Key, Raw, StoreError},
};

/// One task's commit, with the records that it writes.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) task: TaskId,
    pub(super) commit: TaskCommit,
    /// In the order of the commit's partitions.
    pub(super) records: Vec<(Key, OffsetRecord)>,
}

/// What was read at one revision, by key.
pub(super) type Stored = BTreeMap<Key, Raw>;

impl Job {
    /// Every key that the commit rests on, each with the revision that it has to have.
    pub(super) fn expected(&self) -> impl Iterator<Item = (Key, i64)> + '_ {
        let seen = self.records.iter().zip(&self.commit.partitions);
        [
            (Key::Grant(self.task.clone()), self.commit.fence),
            (Key::OffsetsHead(self.task.uid.clone()), self.commit.head_revision),
        ]
        .into_iter()
        .chain(seen.map(|((key, _), partition)| (key.clone(), partition.seen_revision)))
    }

    /// The answer to the commit if something is wrong with it, or if it turns out to be stored already; None:
    /// it may be sent (again).
    pub(super) fn judge(&self, stored: &Stored) -> Option<TaskCommitResult> {
        match self.try_judge(stored) {
            Ok(result) => result,
            Err(error) => Some(retry(&self.commit, &error)),
        }
    }

    fn try_judge(&self, stored: &Stored) -> Result<Option<TaskCommitResult>, StoreError> {
        let revision = |key: &Key| stored.get(key).map_or(0, |raw| raw.mod_revision);
        if let Some(at) = self.stored_at(stored)? {
            return Ok(Some(stored_result(&self.commit, at)));
        }
        if revision(&Key::Grant(self.task.clone())) != self.commit.fence {
            return Ok(Some(result(&self.commit, Outcome::Fenced)));
        }
        let (epoch, head_revision) = head_of(stored.get(&Key::OffsetsHead(self.task.uid.clone())))?;
        let conflict = |stored: Vec<StoredOffset>| {
            Some(TaskCommitResult {
                stored,
                epoch,
                head_revision,
                ..result(&self.commit, Outcome::Conflict)
            })
        };
        if head_revision != self.commit.head_revision {
            // What is stored under the epoch that the task knows is of no use to it: it reads all anew.
            return Ok(conflict(Vec::new()));
        }
        let mut seen = self.records.iter().zip(&self.commit.partitions);
        if seen.all(|((key, _), partition)| revision(key) == partition.seen_revision) {
            return Ok(None);
        }
        let found = self.records.iter().filter_map(|(key, _)| stored.get(key));
        Ok(conflict(found.map(stored_offset).collect::<Result<_, _>>()?))
    }

    /// The revision at which exactly this commit was stored: its answer was lost on the way.
    fn stored_at(&self, stored: &Stored) -> Result<Option<i64>, StoreError> {
        let mut at = None;
        for ((key, record), partition) in self.records.iter().zip(&self.commit.partitions) {
            let Some(raw) = stored.get(key) else {
                return Ok(None);
            };
            let found = raw.decode::<OffsetRecord>()?;
            let same = found.position == record.position
                && found.sink_state == record.sink_state
                && found.counts == record.counts
                && found.partition == record.partition;
            let one_write = at.is_none_or(|at| at == raw.mod_revision);
            if !same || !one_write || raw.mod_revision <= partition.seen_revision {
                return Ok(None);
            }
            at = Some(raw.mod_revision);
        }
        Ok(at)
    }
}

/// An answer with nothing but its outcome.
pub(super) fn result(commit: &TaskCommit, outcome: Outcome) -> TaskCommitResult {
    TaskCommitResult {
        task: Some(TaskRef {
            connector_uid: commit.connector_uid.clone(),
            task: commit.task,
        }),
        fence: commit.fence,
        outcome: outcome.into(),
        ..TaskCommitResult::default()
    }
}

pub(super) fn stored_result(commit: &TaskCommit, revision: i64) -> TaskCommitResult {
    let (epoch, head_revision) = (commit.epoch, commit.head_revision);
    TaskCommitResult {
        revision,
        epoch,
        head_revision,
        ..result(commit, Outcome::Stored)
    }
}

pub(super) fn invalid(commit: &TaskCommit, message: String) -> TaskCommitResult {
    TaskCommitResult {
        message,
        ..result(commit, Outcome::Invalid)
    }
}

pub(super) fn retry(commit: &TaskCommit, why: &StoreError) -> TaskCommitResult {
    TaskCommitResult {
        message: why.to_string(),
        ..result(commit, Outcome::Retry)
    }
}
