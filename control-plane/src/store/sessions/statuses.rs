//! Statuses: many tasks in one transaction, each guarded by its fence and by the status that it replaces.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// Most statuses in one transaction: two compares each, of etcd's 128.
pub const MAX_STATUSES: usize = 60;
/// Most bytes of statuses in one transaction.
const MAX_BYTES: usize = 1 << 20;

/// One task's status to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct StatusWrite {
    /// The task.
    pub task: TaskId,
    /// Fence under which the agent reports.
    pub fence: i64,
    /// mod_revision of the status that this one replaces; 0: there is none.
    pub seen: i64,
    /// The status.
    pub status: stored::Status,
}

/// What became of one task's status.
#[derive(Debug, Clone, PartialEq)]
pub enum StatusOutcome {
    /// Stored at this revision, which is the next `seen`.
    Stored(i64),
    /// The grant is another one, or gone.
    Fenced,
    /// The stored status is not the one that was seen; this is it.
    Conflict(Option<Versioned<stored::Status>>),
    /// Not known, or not now: send it again.
    Retry(StoreError),
}

/// A task that has stopped for good under `fence`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// The task.
    pub task: TaskId,
    /// Fence under which it ran.
    pub fence: i64,
}

impl Store {
    /// Writes statuses, in as few transactions as possible; one that is refused takes no other with it.
    /// Returns one outcome for each, in order. No task may be named twice: the second one is answered
    /// `Retry`.
    pub async fn write_statuses(&self, writes: &[StatusWrite]) -> Vec<StatusOutcome> {
        let mut outcomes = vec![None; writes.len()];
        let mut seen = BTreeSet::new();
        let mut batch = Vec::new();
        let mut bytes = 0;
        for (index, write) in writes.iter().enumerate() {
            // An expected revision of 0 means "no such key", which would let a status without a right pass.
            if write.fence <= 0 {
                outcomes[index] = Some(StatusOutcome::Fenced);
                continue;
            }
            if !seen.insert(&write.task) {
                outcomes[index] = Some(StatusOutcome::Retry(twice(&write.task)));
                continue;
            }
            let size = write.status.encoded_len();
            if batch.len() == MAX_STATUSES || bytes + size > MAX_BYTES {
                self.write_batch(writes, std::mem::take(&mut batch), &mut outcomes)
                    .await;
                bytes = 0;
            }
            batch.push(index);
            bytes += size;
        }
        self.write_batch(writes, batch, &mut outcomes).await;
        let missing = || StatusOutcome::Retry(StoreError::unknown("the status was not written"));
        outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap_or_else(missing))
            .collect()
    }

    /// Writes STOPPED for tasks that an agent names in its goodbye, whatever their last status was. Returns
    /// one outcome for each; `Conflict` does not occur.
    pub async fn write_stopped(
        &self,
        agent: &str,
        instance_uid: &str,
        time: pbjson_types::Timestamp,
        statuses: &BTreeMap<TaskId, Versioned<stored::Status>>,
        stopped: &[Stopped],
    ) -> Vec<StatusOutcome> {
        let write = |stopped: &Stopped, last: Option<&Versioned<stored::Status>>| StatusWrite {
            task: stopped.task.clone(),
            fence: stopped.fence,
            seen: last.map_or(0, |last| last.mod_revision),
            status: stored::Status {
                format: FORMAT,
                agent: agent.to_owned(),
                instance_uid: instance_uid.to_owned(),
                fence: stopped.fence,
                state: State::Stopped.into(),
                state_time: Some(time),
                restart_nonce: last.map(|last| last.restart_nonce.clone()).unwrap_or_default(),
                ..stored::Status::default()
            },
        };
        let first: Vec<_> = stopped
            .iter()
            .map(|task| write(task, statuses.get(&task.task)))
            .collect();
        let mut outcomes = self.write_statuses(&first).await;
        for _ in 0..TRIES {
            let again: Vec<(usize, StatusWrite)> = outcomes
                .iter()
                .enumerate()
                .filter_map(|(index, outcome)| match outcome {
                    StatusOutcome::Conflict(last) => Some((index, write(&stopped[index], last.as_ref()))),
                    _ => None,
                })
                .collect();
            if again.is_empty() {
                break;
            }
            let (indices, writes): (Vec<_>, Vec<_>) = again.into_iter().unzip();
            for (index, outcome) in indices.into_iter().zip(self.write_statuses(&writes).await) {
                outcomes[index] = outcome;
            }
        }
        let changing = || StatusOutcome::Retry(StoreError::unknown("the status keeps changing"));
        outcomes
            .into_iter()
            .map(|outcome| {
                if matches!(outcome, StatusOutcome::Conflict(_)) {
                    changing()
                } else {
                    outcome
                }
            })
            .collect()
    }

    /// Writes `batch` in one transaction; whatever is at fault when it is refused is answered, the rest tried
    /// again.
    async fn write_batch(
        &self,
        writes: &[StatusWrite],
        mut batch: Vec<usize>,
        outcomes: &mut [Option<StatusOutcome>],
    ) {
        let mut lost = 0;
        while !batch.is_empty() {
            let present = match self.statuses_txn(writes, &batch).run().await {
                Ok(outcome) if outcome.applied => {
                    for index in batch {
                        outcomes[index] = Some(StatusOutcome::Stored(outcome.revision));
                    }
                    return;
                }
                Ok(outcome) => outcome,
                Err(error) if error.may_have_been_written() && lost < TRIES => {
                    lost += 1;
                    match self.read_statuses(writes, &batch).await {
                        Ok(outcome) => outcome,
                        Err(error) => return all_retry(&batch, &error, outcomes),
                    }
                }
                Err(error) => return all_retry(&batch, &error, outcomes),
            };
            batch = batch
                .iter()
                .copied()
                .enumerate()
                .filter_map(|(place, index)| {
                    let grant = present.read(2 * place);
                    let status = present.read(2 * place + 1);
                    outcomes[index] = judge(&writes[index], grant, status);
                    outcomes[index].is_none().then_some(index)
                })
                .collect();
        }
    }

    fn statuses_txn(&self, writes: &[StatusWrite], batch: &[usize]) -> Guarded {
        batch.iter().fold(self.guarded(), |txn, index| {
            let write = &writes[*index];
            let (grant, status) = (Key::Grant(write.task.clone()), Key::Status(write.task.clone()));
            txn.expect(&Expect::ModRevision(grant.clone(), write.fence))
                .expect(&Expect::ModRevision(status.clone(), write.seen))
                .put(&status, &write.status)
                .or_read(&grant)
                .or_read(&status)
        })
    }

    async fn read_statuses(
        &self,
        writes: &[StatusWrite],
        batch: &[usize],
    ) -> Result<crate::store::TxnOutcome, StoreError> {
        let txn = batch.iter().fold(self.guarded(), |txn, index| {
            let task = &writes[*index].task;
            txn.read(&Key::Grant(task.clone()))
                .read(&Key::Status(task.clone()))
        });
        txn.run().await
    }
}

/// What is wrong with one write, given what is stored; None: nothing.
fn judge(write: &StatusWrite, grant: Option<&Raw>, status: Option<&Raw>) -> Option<StatusOutcome> {
    let stored: Option<Versioned<stored::Status>> = match status.map(Raw::decode).transpose() {
        Ok(stored) => stored,
        Err(error) => return Some(StatusOutcome::Retry(error)),
    };
    if let Some(stored) = &stored {
        // The answer to an earlier try was lost.
        if stored.mod_revision > write.seen && codec::same(&*stored.value, &write.status) {
            return Some(StatusOutcome::Stored(stored.mod_revision));
        }
        if let Err(error) = rewritable(&Key::Status(write.task.clone()), &*stored.value) {
            return Some(StatusOutcome::Retry(error));
        }
    }
    if grant.map_or(0, |grant| grant.mod_revision) != write.fence {
        return Some(StatusOutcome::Fenced);
    }
    if stored.as_ref().map_or(0, |stored| stored.mod_revision) != write.seen {
        return Some(StatusOutcome::Conflict(stored));
    }
    None
}

fn all_retry(batch: &[usize], error: &StoreError, outcomes: &mut [Option<StatusOutcome>]) {
    for index in batch {
        outcomes[*index] = Some(StatusOutcome::Retry(error.clone()));
    }
}

fn twice(task: &TaskId) -> StoreError {
    StoreError::Invalid {
        message: format!("two statuses of task {task} at once"),
    }
}
