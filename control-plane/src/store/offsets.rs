//! Offsets: reading where a task starts, committing how far it is, listing for people.

mod batch;
mod committer;
mod history;
mod judge;

pub use committer::{Committer, CommitterSettings};
pub(crate) use history::fit;

use gantry_proto::agent::v1::{StoredOffset, TaskCommit};
use prost::Message;

use super::{Expect, Key, Partition, Prefix, Raw, Store, StoreError, read::prefix_end};
use crate::domain::{TaskId, Uid, Versioned, stored};

/// Most partitions in one commit of a task. A task with more that moved sends several commits, each complete
/// in itself.
pub const MAX_PARTITIONS_PER_COMMIT: usize = 100;
/// Largest state that a sink keeps with a position, in bytes.
pub const MAX_SINK_STATE: usize = 4 << 10;
/// Largest offset record in bytes, with its history.
pub(crate) const MAX_RECORD: usize = 64 << 10;
/// Records read within the transaction that compares the fence; more are read at its revision.
const FIRST_PAGE: i64 = 500;
/// Tries until the epoch that was guessed is the present one. It changes only while a connector is stopped.
const EPOCH_TRIES: u32 = 5;

/// What a task starts from.
#[derive(Debug, Clone, PartialEq)]
pub enum ReadOffsets {
    /// The fence held when this was read.
    Read {
        /// Epoch of the offsets; 0: they were never altered.
        epoch: i64,
        /// Revision of the head, for commits; 0: there is none.
        head_revision: i64,
        /// Every partition of the connector.
        offsets: Vec<StoredOffset>,
        /// Revision of the read.
        revision: i64,
    },
    /// The right has ended.
    Fenced,
}

/// The committed positions of a connector, for people.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ListedOffsets {
    /// The head; None: epoch 0.
    pub head: Option<Versioned<stored::OffsetsHead>>,
    /// The present epoch's records, in a fixed order.
    pub records: Vec<ListedOffset>,
    /// Revision of the read.
    pub revision: i64,
}

/// One record of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedOffset {
    /// The record, with its history and the time of its last commit.
    pub record: Versioned<stored::OffsetRecord>,
    /// Size of the stored value in bytes; the limit is 64 KiB.
    pub size: usize,
}

impl ListedOffsets {
    /// The present epoch.
    pub fn epoch(&self) -> i64 {
        self.head.as_ref().map_or(0, |head| head.epoch)
    }

    /// Revision of the head, for a guard; 0: there is none.
    pub fn head_revision(&self) -> i64 {
        self.head.as_ref().map_or(0, |head| head.mod_revision)
    }
}

impl Store {
    /// Reads where a task starts, in one linearizable transaction that compares its fence.
    ///
    /// # Errors
    /// As of any read; `Unknown` if the epoch keeps changing.
    pub async fn read_offsets(&self, task: &TaskId, fence: i64) -> Result<ReadOffsets, StoreError> {
        if fence <= 0 {
            return Ok(ReadOffsets::Fenced);
        }
        let (grant, head) = (Key::Grant(task.clone()), Key::OffsetsHead(task.uid.clone()));
        // Most offsets were never altered, so one round trip is enough.
        let (mut epoch, mut head_revision) = (0, 0);
        for _ in 0..EPOCH_TRIES {
            let outcome = self
                .guarded()
                .expect(&Expect::ModRevision(grant.clone(), fence))
                .expect(&Expect::ModRevision(head.clone(), head_revision))
                .read_under(&Prefix::OffsetsEpoch(task.uid.clone(), epoch), FIRST_PAGE)
                .or_read(&grant)
                .or_read(&head)
                .run()
                .await?;
            if outcome.applied {
                let revision = outcome.revision;
                let first = outcome.reads.into_iter().next().unwrap_or_default();
                let records = self.rest_of(&task.uid, epoch, first, revision).await?;
                let offsets = records.iter().map(stored_offset).collect::<Result<_, _>>()?;
                return Ok(ReadOffsets::Read {
                    epoch,
                    head_revision,
                    offsets,
                    revision,
                });
            }
            if outcome.read(0).map_or(0, |grant| grant.mod_revision) != fence {
                return Ok(ReadOffsets::Fenced);
            }
            (epoch, head_revision) = head_of(outcome.read(1))?;
        }
        Err(StoreError::unknown("the epoch of the offsets keeps changing"))
    }

    /// The present epoch's offsets of a connector, at one revision.
    ///
    /// # Errors
    /// As of any read.
    pub async fn list_offsets(&self, uid: &Uid) -> Result<ListedOffsets, StoreError> {
        let (head, revision) = self
            .get::<stored::OffsetsHead>(&Key::OffsetsHead(uid.clone()))
            .await?;
        let epoch = head.as_ref().map_or(0, |head| head.epoch);
        let page = self.range_of(uid, epoch, None, revision).await?;
        let record = |raw: &Raw| {
            Ok(ListedOffset {
                record: raw.decode()?,
                size: raw.value.len(),
            })
        };
        let records = page.iter().map(record).collect::<Result<_, StoreError>>()?;
        Ok(ListedOffsets {
            head,
            records,
            revision,
        })
    }

    async fn rest_of(
        &self,
        uid: &Uid,
        epoch: i64,
        first: Vec<Raw>,
        revision: i64,
    ) -> Result<Vec<Raw>, StoreError> {
        if first.len() < usize::try_from(FIRST_PAGE).unwrap_or(usize::MAX) {
            return Ok(first);
        }
        let mut all = first;
        let rest = self.range_of(uid, epoch, all.last(), revision).await?;
        all.extend(rest);
        Ok(all)
    }

    /// Records of an epoch after `after`, at `revision`.
    async fn range_of(
        &self,
        uid: &Uid,
        epoch: i64,
        after: Option<&Raw>,
        revision: i64,
    ) -> Result<Vec<Raw>, StoreError> {
        let prefix = self
            .keys()
            .prefix(&Prefix::OffsetsEpoch(uid.clone(), epoch))
            .into_bytes();
        let to = prefix_end(&prefix);
        let from = match after.and_then(|after| after.key.as_ref()) {
            Some(key) => [self.keys().path(key).as_bytes(), &[0]].concat(),
            None => prefix,
        };
        Ok(self.list_range(from, to, revision).await?.values)
    }
}

/// Epoch and revision of a head; 0 and 0 without one.
fn head_of(head: Option<&Raw>) -> Result<(i64, i64), StoreError> {
    let Some(head) = head else { return Ok((0, 0)) };
    let value = head.decode::<stored::OffsetsHead>()?;
    Ok((value.epoch, value.mod_revision))
}

/// A record as agents see it.
fn stored_offset(raw: &Raw) -> Result<StoredOffset, StoreError> {
    let record = raw.decode::<stored::OffsetRecord>()?;
    Ok(StoredOffset {
        partition: record.partition.clone(),
        position: record.position.clone(),
        sink_state: record.sink_state.clone(),
        counts: record.counts,
        revision: record.mod_revision,
    })
}

/// Why a commit can never be stored; None: it can.
fn refusal(commit: &TaskCommit) -> Option<String> {
    if commit.connector_uid.is_empty() {
        return Some("connector_uid is empty".to_owned());
    }
    if commit.partitions.is_empty() {
        return Some("partitions is empty".to_owned());
    }
    if commit.partitions.len() > MAX_PARTITIONS_PER_COMMIT {
        let given = commit.partitions.len();
        return Some(format!(
            "{given} partitions in one commit, at most {MAX_PARTITIONS_PER_COMMIT} are allowed"
        ));
    }
    let size = commit.encoded_len();
    if size > batch::MAX_BYTES {
        return Some(format!(
            "the commit has {size} bytes, at most {} are allowed",
            batch::MAX_BYTES
        ));
    }
    for (index, partition) in commit.partitions.iter().enumerate() {
        let state = partition.sink_state.len();
        if state > MAX_SINK_STATE {
            return Some(format!(
                "partitions[{index}].sink_state has {state} bytes, at most {MAX_SINK_STATE} are allowed"
            ));
        }
        let size = partition.encoded_len();
        // The record adds a format, a time and the lengths of its parts.
        if size > MAX_RECORD - 256 {
            return Some(format!(
                "partitions[{index}] has {size} bytes, at most {} are allowed",
                MAX_RECORD - 256
            ));
        }
        let same = |other: &gantry_proto::agent::v1::PartitionCommit| other.partition == partition.partition;
        if commit.partitions[..index].iter().any(same) {
            return Some(format!("partitions[{index}] is named twice"));
        }
    }
    None
}

fn task_id(commit: &TaskCommit) -> TaskId {
    TaskId {
        uid: Uid(commit.connector_uid.as_str().into()),
        n: commit.task,
    }
}

/// Key of one partition's record.
fn record_key(uid: &Uid, epoch: i64, partition: &Partition) -> Key {
    Key::Offset(uid.clone(), epoch, super::partition_key(partition))
}
