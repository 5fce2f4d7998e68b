//! Altering offsets: a new epoch is written beside the present one, then the head is flipped to it.

use super::{
    Expect, Guarded, Key, Partition, Prefix, Store, StoreError,
    codec::FORMAT,
    connectors::{Once, Request},
    offsets::{MAX_SINK_STATE, fit},
    partition_key,
};
use crate::domain::{Uid, stored};
use prost::Message;

/// Records and bytes of one transaction of a new epoch.
const CHUNK_RECORDS: usize = 100;
const CHUNK_BYTES: usize = 1 << 20;
/// Alterations that the head remembers; the epochs of the last ones are kept, so that they can be undone.
const REMEMBERED: usize = 10;
/// Epochs kept beside the present one.
const KEPT_EPOCHS: i64 = 3;

/// A new epoch of a stopped connector's offsets: altered, reset (no records) or taken back.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEpoch {
    /// Id of the connector.
    pub connector: String,
    /// Its uid.
    pub uid: Uid,
    /// mod_revision of its key, as read with target state STOPPED.
    pub spec: i64,
    /// The head, as read, with its mod_revision; None: there is none.
    pub head: Option<(stored::OffsetsHead, i64)>,
    /// Every record of the new epoch, those that stay the same included.
    pub records: Vec<stored::OffsetRecord>,
    /// Who, when and what; its epoch is set here.
    pub alteration: stored::Alteration,
    /// The request, if it has an id.
    pub request: Option<Request>,
}

/// Whether the records of an epoch, as they were when it ended, are still there to go back to.
pub fn is_kept(present: i64, epoch: i64) -> bool {
    (0..present).contains(&epoch) && present - epoch <= KEPT_EPOCHS
}

/// What became of a new epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum EpochOutcome {
    /// The head names this epoch now.
    Done {
        /// The epoch.
        epoch: i64,
    },
    /// An earlier call of the same request had the effect.
    Replayed,
    /// The connector or the head has changed, or a task still has a grant. Nothing counts of what was
    /// written.
    Conflict,
    /// The request id was used for another request.
    Reused,
}

impl Store {
    /// Writes the records of a new epoch in as many transactions as needed, and flips the head in the last
    /// one: all of it or nothing. Each compares the connector, the head, and that no task has a grant.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] for a record over 64 KiB or a sink state over 4 KiB: nothing was written.
    pub async fn flip_epoch(&self, new: &NewEpoch) -> Result<EpochOutcome, StoreError> {
        if !new.records.is_empty() {
            self.check_room()?;
        }
        let head_key = Key::OffsetsHead(new.uid.clone());
        let (mut head, head_revision) = new.head.clone().unwrap_or_default();
        super::codec::rewritable(&head_key, &head)?;
        let epoch = head.epoch + 1;
        let records = new
            .records
            .iter()
            .map(|record| checked(record.clone()))
            .collect::<Result<Vec<_>, _>>()?;
        let guard = |txn: Guarded, head_revision: i64| {
            txn.expect(&Expect::ModRevision(
                Key::Connector(new.connector.as_str().into()),
                new.spec,
            ))
            .expect(&Expect::NoneUnder(Prefix::Grants(new.uid.clone())))
            .expect(&Expect::ModRevision(head_key.clone(), head_revision))
        };
        // What an earlier try has left behind must not join this epoch, nor what it may still write: the head is written
        // as it is, and whoever read it before this is refused from now on.
        head.format = FORMAT;
        let cleared = guard(self.guarded(), head_revision)
            .delete_under(&Prefix::OffsetsEpoch(new.uid.clone(), epoch))
            .put(&head_key, &head)
            .run()
            .await?;
        if !cleared.applied {
            return self.refused(new.request.as_ref()).await;
        }
        let claimed = cleared.revision;
        for chunk in chunks(&records) {
            let txn = chunk.iter().fold(guard(self.guarded(), claimed), |txn, record| {
                txn.put(
                    &Key::Offset(new.uid.clone(), epoch, partition_key(&record.partition)),
                    *record,
                )
            });
            if !txn.run().await?.applied {
                return self.refused(new.request.as_ref()).await;
            }
        }
        head.epoch = epoch;
        head.history.push(stored::Alteration {
            epoch,
            ..new.alteration.clone()
        });
        let forgotten = head.history.len().saturating_sub(REMEMBERED);
        head.history.drain(..forgotten);
        let effect = |txn: Guarded| {
            let txn = guard(txn, claimed).put(&head_key, &head).or_read(&head_key);
            let old = epoch - KEPT_EPOCHS - 1;
            if old >= 0 {
                txn.delete_under(&Prefix::OffsetsEpoch(new.uid.clone(), old))
            } else {
                txn
            }
        };
        let resource = format!("connectors/{}/offsets", new.connector);
        match self.write_once(new.request.as_ref(), &resource, effect).await? {
            Once::Written(_) => Ok(EpochOutcome::Done { epoch }),
            Once::NotWritten { request, present } => {
                if let (Some(request), Some(record)) = (&new.request, request) {
                    let record = record.decode::<stored::RequestRecord>()?;
                    return Ok(same_request(request, &record));
                }
                // Without a request id the head itself tells whether a try whose answer was lost has made it.
                let present = present
                    .map(|raw| raw.decode::<stored::OffsetsHead>())
                    .transpose()?;
                Ok(match present {
                    Some(present) if *present.value == head => EpochOutcome::Done { epoch },
                    _ => EpochOutcome::Conflict,
                })
            }
        }
    }

    /// The records of an epoch.
    ///
    /// # Errors
    /// As of any read.
    pub async fn list_epoch(&self, uid: &Uid, epoch: i64) -> Result<Vec<stored::OffsetRecord>, StoreError> {
        let page = self.list(&Prefix::OffsetsEpoch(uid.clone(), epoch)).await?;
        let record = |raw: &super::Raw| Ok((*raw.decode::<stored::OffsetRecord>()?.value).clone());
        page.values.iter().map(record).collect()
    }

    async fn refused(&self, request: Option<&Request>) -> Result<EpochOutcome, StoreError> {
        let Some(request) = request else {
            return Ok(EpochOutcome::Conflict);
        };
        let (record, _) = self.get::<stored::RequestRecord>(&request.key()).await?;
        Ok(record.map_or(EpochOutcome::Conflict, |record| same_request(request, &record)))
    }
}

fn same_request(request: &Request, record: &stored::RequestRecord) -> EpochOutcome {
    if record.hash == request.hash {
        EpochOutcome::Replayed
    } else {
        EpochOutcome::Reused
    }
}

fn checked(record: stored::OffsetRecord) -> Result<stored::OffsetRecord, StoreError> {
    let too_large = |what: &str, size, limit| StoreError::TooLarge {
        what: what.to_owned(),
        size,
        limit,
    };
    if record.sink_state.len() > MAX_SINK_STATE {
        return Err(too_large(
            "a sink state in bytes",
            record.sink_state.len(),
            MAX_SINK_STATE,
        ));
    }
    let record = fit(record);
    let (size, limit) = (record.encoded_len(), super::offsets::MAX_RECORD);
    if size > limit {
        return Err(too_large("an offset record in bytes", size, limit));
    }
    Ok(record)
}

/// Cuts records into parts that fit one transaction each, the last of a partition named twice winning.
pub(super) fn chunks(records: &[stored::OffsetRecord]) -> Vec<Vec<&stored::OffsetRecord>> {
    let by_partition: std::collections::BTreeMap<std::sync::Arc<str>, &stored::OffsetRecord> = records
        .iter()
        .map(|record| (partition_key(&record.partition as &Partition), record))
        .collect();
    let mut chunks: Vec<Vec<&stored::OffsetRecord>> = Vec::new();
    let mut bytes = 0;
    for record in by_partition.into_values() {
        let size = record.encoded_len();
        match chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK_RECORDS && bytes + size <= CHUNK_BYTES => chunk.push(record),
            _ => {
                chunks.push(vec![record]);
                bytes = 0;
            }
        }
        bytes += size;
    }
    chunks
}
