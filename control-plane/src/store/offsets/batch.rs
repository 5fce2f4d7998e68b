//! Commits of many tasks in one transaction.

use std::collections::{BTreeMap, BTreeSet};

use gantry_proto::agent::v1::{TaskCommit, TaskCommitResult};
use parking_lot::Mutex;
use pbjson_types::Timestamp;
use prost::Message;

use super::{
    MAX_RECORD, head_of, history,
    judge::{Job, Stored, invalid, retry, stored_result},
    record_key, task_id,
};
use crate::{
    domain::{Uid, Versioned, stored},
    store::{
        Expect, Key, Raw, Store, StoreError,
        codec::{FORMAT, rewritable},
    },
};

/// Most tasks, compares and bytes of one transaction. etcd takes 128 operations and 1.5 MiB.
pub(super) const MAX_TASKS: usize = 60;
pub(super) const MAX_COMPARES: usize = 120;
pub(super) const MAX_BYTES: usize = 1 << 20;
/// Tries of a transaction whose outcome is not known, each after a read.
const TRIES: u32 = 3;
/// Bytes of records that are remembered, twice over.
const REMEMBERED: usize = 16 << 20;

/// What is stored, as far as this replica wrote or read it. Saves the read of the last record, whose position
/// joins the history of the next one. What is wrong in it is found by the transaction's compares.
#[derive(Debug, Default)]
pub(super) struct Memory {
    parts: Mutex<Parts>,
}

#[derive(Debug, Default)]
struct Parts {
    records: BTreeMap<Key, Versioned<stored::OffsetRecord>>,
    /// Those before `records` was last found full; thrown away the next time.
    older: BTreeMap<Key, Versioned<stored::OffsetRecord>>,
    bytes: usize,
    /// Epoch by uid and revision of the head.
    heads: BTreeMap<(Uid, i64), i64>,
}

impl Memory {
    fn record(&self, key: &Key, revision: i64) -> Option<Versioned<stored::OffsetRecord>> {
        let parts = self.parts.lock();
        let known = parts.records.get(key).or_else(|| parts.older.get(key))?;
        (known.mod_revision == revision).then(|| known.clone())
    }

    fn remember(&self, key: &Key, record: Versioned<stored::OffsetRecord>) {
        let mut parts = self.parts.lock();
        parts.bytes += record.encoded_len() + 200;
        parts.records.insert(key.clone(), record);
        if parts.bytes > REMEMBERED {
            parts.older = std::mem::take(&mut parts.records);
            parts.heads.clear();
            parts.bytes = 0;
        }
    }

    fn epoch(&self, uid: &Uid, head: i64) -> Option<i64> {
        if head == 0 {
            Some(0)
        } else {
            self.parts.lock().heads.get(&(uid.clone(), head)).copied()
        }
    }

    /// Remembers what a read has shown. What cannot be decoded shows again when it is judged.
    fn learn(&self, stored: &Stored) {
        for (key, raw) in stored {
            match key {
                Key::OffsetsHead(uid) => {
                    if let Ok((epoch, revision)) = head_of(Some(raw)) {
                        self.parts.lock().heads.insert((uid.clone(), revision), epoch);
                    }
                }
                Key::Offset(..) => {
                    if let Ok(record) = raw.decode() {
                        self.remember(key, record);
                    }
                }
                _ => {}
            }
        }
    }
}

/// Commits of different tasks that are made together.
pub(super) struct Batch<'a> {
    pub(super) store: &'a Store,
    pub(super) memory: &'a Memory,
    pub(super) now: Timestamp,
}

impl Batch<'_> {
    /// Stores the commits, which [`refusal`](super::refusal) has let through. Returns their results in order.
    pub(super) async fn run(&self, commits: Vec<TaskCommit>) -> Vec<TaskCommitResult> {
        let unknown = StoreError::unknown("the commit was not made");
        let mut results: Vec<TaskCommitResult> =
            commits.iter().map(|commit| retry(commit, &unknown)).collect();
        if let Err(error) = self.read_what_is_not_known(&commits).await {
            return commits.iter().map(|commit| retry(commit, &error)).collect();
        }
        let mut part: Vec<(usize, Job)> = Vec::new();
        let mut bytes = 0;
        for (index, commit) in commits.into_iter().enumerate() {
            let job = match self.job(commit) {
                Ok(job) => job,
                Err(result) => {
                    results[index] = *result;
                    continue;
                }
            };
            let size: usize = job.records.iter().map(|(_, record)| record.encoded_len()).sum();
            if !part.is_empty() && bytes + size > MAX_BYTES {
                self.commit(std::mem::take(&mut part), &mut results).await;
                bytes = 0;
            }
            bytes += size;
            part.push((index, job));
        }
        self.commit(part, &mut results).await;
        results
    }

    /// Sees to it that the last record of every partition and the epoch of every connector is remembered, if
    /// it is still the one that the commit has seen.
    async fn read_what_is_not_known(&self, commits: &[TaskCommit]) -> Result<(), StoreError> {
        let mut missing = BTreeSet::new();
        for commit in commits {
            let uid = task_id(commit).uid;
            if self.memory.epoch(&uid, commit.head_revision).is_none() {
                missing.insert(Key::OffsetsHead(uid.clone()));
            }
            for partition in &commit.partitions {
                let key = record_key(&uid, commit.epoch, &partition.partition);
                if partition.seen_revision != 0 && self.memory.record(&key, partition.seen_revision).is_none()
                {
                    missing.insert(key);
                }
            }
        }
        let missing: Vec<Key> = missing.into_iter().collect();
        for keys in missing.chunks(MAX_COMPARES) {
            self.memory.learn(&self.read(keys).await?);
        }
        Ok(())
    }

    /// Builds the records of a commit; boxed: its result, if it cannot be made.
    fn job(&self, commit: TaskCommit) -> Result<Job, Box<TaskCommitResult>> {
        let task = task_id(&commit);
        if self
            .memory
            .epoch(&task.uid, commit.head_revision)
            .is_some_and(|epoch| epoch != commit.epoch)
        {
            let message = format!(
                "epoch {} does not belong to head_revision {}",
                commit.epoch, commit.head_revision
            );
            return Err(Box::new(invalid(&commit, message)));
        }
        let mut records = Vec::with_capacity(commit.partitions.len());
        for partition in &commit.partitions {
            let key = record_key(&task.uid, commit.epoch, &partition.partition);
            let last = self.memory.record(&key, partition.seen_revision);
            if let Some(last) = &last {
                if last.partition != partition.partition {
                    let message = "two partitions have the same key; one of them has to be named otherwise";
                    return Err(Box::new(invalid(&commit, message.to_owned())));
                }
                rewritable(&key, &*last.value).map_err(|error| Box::new(retry(&commit, &error)))?;
            }
            let record = stored::OffsetRecord {
                format: FORMAT,
                partition: partition.partition.clone(),
                position: partition.position.clone(),
                sink_state: partition.sink_state.clone(),
                counts: partition.counts,
                time: Some(self.now),
                history: Vec::new(),
            };
            if record.encoded_len() > MAX_RECORD {
                let size = record.encoded_len();
                let message = format!("a record has {size} bytes, at most {MAX_RECORD} are allowed");
                return Err(Box::new(invalid(&commit, message)));
            }
            records.push((key, history::with_history(record, last.as_deref())));
        }
        let total: usize = records.iter().map(|(_, record)| record.encoded_len()).sum();
        if total > MAX_BYTES {
            // All of a task or nothing: its positions count more than their history.
            records.iter_mut().for_each(|(_, record)| record.history.clear());
        }
        Ok(Job {
            task,
            commit,
            records,
        })
    }

    /// Makes the commits in one transaction; whatever is at fault when it is refused is answered, the rest
    /// tried again.
    async fn commit(&self, mut jobs: Vec<(usize, Job)>, results: &mut [TaskCommitResult]) {
        let mut lost = 0;
        while !jobs.is_empty() {
            let keys: BTreeMap<Key, i64> = jobs.iter().flat_map(|(_, job)| job.expected()).collect();
            let mut txn = self.store.guarded();
            for (key, revision) in &keys {
                txn = txn
                    .expect(&Expect::ModRevision(key.clone(), *revision))
                    .or_read(key);
            }
            for (key, record) in jobs.iter().flat_map(|(_, job)| &job.records) {
                txn = txn.put(key, record);
            }
            let read = match txn.run().await {
                Ok(outcome) if outcome.applied => return self.stored(jobs, outcome.revision, results),
                Ok(outcome) => Ok(by_key(outcome.reads)),
                Err(error) if error.may_have_been_written() && lost < TRIES => {
                    lost += 1;
                    let keys: Vec<Key> = keys.into_keys().collect();
                    self.read(&keys).await
                }
                Err(error) => Err(error),
            };
            let stored = match read {
                Ok(stored) => stored,
                Err(error) => {
                    jobs.iter()
                        .for_each(|(index, job)| results[*index] = retry(&job.commit, &error));
                    return;
                }
            };
            self.memory.learn(&stored);
            jobs.retain(|(index, job)| match job.judge(&stored) {
                Some(result) => {
                    results[*index] = result;
                    false
                }
                None => true,
            });
        }
    }

    fn stored(&self, jobs: Vec<(usize, Job)>, revision: i64, results: &mut [TaskCommitResult]) {
        for (index, job) in jobs {
            results[index] = stored_result(&job.commit, revision);
            for (key, record) in job.records {
                let record = Versioned {
                    mod_revision: revision,
                    create_revision: 0,
                    value: std::sync::Arc::new(record),
                };
                self.memory.remember(&key, record);
            }
        }
    }

    /// Reads at most 128 keys at one revision.
    async fn read(&self, keys: &[Key]) -> Result<Stored, StoreError> {
        let txn = keys.iter().fold(self.store.guarded(), |txn, key| txn.read(key));
        Ok(by_key(txn.run().await?.reads))
    }
}

fn by_key(reads: Vec<Vec<Raw>>) -> Stored {
    reads
        .into_iter()
        .flatten()
        .filter_map(|raw| Some((raw.key.clone()?, raw)))
        .collect()
}
