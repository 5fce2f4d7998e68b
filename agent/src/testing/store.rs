//! A store of offsets in memory with the rules of the real one, and faults.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use gantry_connector::Fields;
use gantry_proto::{
    agent::v1::{
        ReadOffsetsResponse, StoredOffset, TaskCommit, TaskCommitResult, task_commit_result::Outcome,
    },
    v1::RecordCounts,
};
use parking_lot::Mutex;

use crate::{
    key::TaskKey,
    problem::{Cause, Failure},
    task::offsets::{OffsetStore, ReadError},
    wire,
};

/// What happens to the next commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommitFault {
    /// Stored, and the agent is not told: it has to send it again.
    AnswerLost,
    /// Not stored.
    Retry,
    /// Answered after this time.
    Late(Duration),
}

#[derive(Default)]
pub(crate) struct MemoryStore(Mutex<State>);

struct State {
    offsets: BTreeMap<Fields, StoredOffset>,
    revision: i64,
    epoch: i64,
    fence: i64,
    faults: Vec<CommitFault>,
    unavailable: bool,
    commits: usize,
}

impl Default for State {
    fn default() -> Self {
        let offsets = BTreeMap::new();
        Self {
            offsets,
            revision: 10,
            epoch: 1,
            fence: 1,
            faults: vec![],
            unavailable: false,
            commits: 0,
        }
    }
}

impl MemoryStore {
    pub(crate) fn set_fence(&self, fence: i64) {
        self.0.lock().fence = fence;
    }

    pub(crate) fn unavailable(&self, unavailable: bool) {
        self.0.lock().unavailable = unavailable;
    }

    pub(crate) fn fault(&self, faults: impl IntoIterator<Item = CommitFault>) {
        self.0.lock().faults.extend(faults);
    }

    /// As an operator or another run would.
    pub(crate) fn put(&self, partition: &Fields, position: Fields) {
        let mut s = self.0.lock();
        s.revision += 1;
        let stored = StoredOffset {
            partition: wire::fields_out(partition),
            position: wire::fields_out(&position),
            revision: s.revision,
            ..Default::default()
        };
        s.offsets.insert(partition.clone(), stored);
    }

    pub(crate) fn position(&self, partition: &Fields) -> Option<Fields> {
        self.0
            .lock()
            .offsets
            .get(partition)
            .map(|o| wire::fields_in(&o.position))
    }

    pub(crate) fn counts(&self, partition: &Fields) -> RecordCounts {
        self.0
            .lock()
            .offsets
            .get(partition)
            .and_then(|o| o.counts)
            .unwrap_or_default()
    }

    pub(crate) fn commits(&self) -> usize {
        self.0.lock().commits
    }

    fn try_commit(&self, commit: &TaskCommit) -> TaskCommitResult {
        let mut s = self.0.lock();
        let (epoch, head_revision) = (s.epoch, 1);
        let answer = |outcome: Outcome, revision| TaskCommitResult {
            outcome: outcome as i32,
            revision,
            epoch,
            head_revision,
            ..Default::default()
        };
        if commit.fence != s.fence {
            return answer(Outcome::Fenced, 0);
        }
        let seen = |p: &Fields, s: &State| s.offsets.get(p).map_or(0, |o| o.revision);
        let fits = commit
            .partitions
            .iter()
            .all(|p| seen(&wire::fields_in(&p.partition), &s) == p.seen_revision);
        if !fits || commit.epoch != s.epoch {
            let stored = commit
                .partitions
                .iter()
                .filter_map(|p| s.offsets.get(&wire::fields_in(&p.partition)).cloned());
            return TaskCommitResult {
                stored: stored.collect(),
                ..answer(Outcome::Conflict, 0)
            };
        }
        s.revision += 1;
        s.commits += 1;
        let revision = s.revision;
        for p in &commit.partitions {
            let stored = StoredOffset {
                partition: p.partition.clone(),
                position: p.position.clone(),
                sink_state: p.sink_state.clone(),
                counts: p.counts,
                revision,
            };
            s.offsets.insert(wire::fields_in(&p.partition), stored);
        }
        answer(Outcome::Stored, revision)
    }
}

#[async_trait]
impl OffsetStore for MemoryStore {
    async fn read(&self, _: &TaskKey, fence: i64) -> Result<ReadOffsetsResponse, ReadError> {
        let s = self.0.lock();
        if s.unavailable {
            return Err(ReadError::Unavailable(Failure::new(
                Cause::External,
                "STORE_UNAVAILABLE",
                "no store",
            )));
        }
        if fence != s.fence {
            return Err(ReadError::Fenced);
        }
        Ok(ReadOffsetsResponse {
            epoch: s.epoch,
            head_revision: 1,
            offsets: s.offsets.values().cloned().collect(),
        })
    }

    async fn commit(&self, commit: TaskCommit) -> TaskCommitResult {
        let retry = TaskCommitResult {
            outcome: Outcome::Retry as i32,
            ..Default::default()
        };
        let fault = {
            let mut s = self.0.lock();
            if s.unavailable {
                Some(CommitFault::Retry)
            } else if s.faults.is_empty() {
                None
            } else {
                Some(s.faults.remove(0))
            }
        };
        match fault {
            None => self.try_commit(&commit),
            Some(CommitFault::AnswerLost) => {
                self.try_commit(&commit);
                retry
            }
            Some(CommitFault::Retry) => retry,
            Some(CommitFault::Late(time)) => {
                tokio::time::sleep(time).await;
                self.try_commit(&commit)
            }
        }
    }
}
