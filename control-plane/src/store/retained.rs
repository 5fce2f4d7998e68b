//! Offsets that stay when their connector is deleted: listed, taken over by a new connector, removed after 30 days.

use etcd_client::GetOptions;

use super::{
    Expect, Guarded, Key, Prefix, Store, StoreError,
    codec::FORMAT,
    connectors::{ConnectorOutcome, ConnectorWrite},
    offset_epochs::chunks,
    partition_key,
};
use crate::domain::{Uid, Versioned, stored};

/// How long they stay, in seconds.
pub const KEPT_FOR_S: i64 = 30 * 24 * 3600;
/// A copy that no connector has come to is what a call left behind that died.
const COPY_FOR_S: i64 = 3600;
/// The epoch in which a new connector has what it took over.
const ADOPTED_EPOCH: i64 = 1;

/// Offsets that a new connector takes over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adoption {
    /// Under which uid they are kept.
    pub from: Uid,
    /// mod_revision of `retained/{from}`, as read.
    pub seen: i64,
    /// Plugin that they are of.
    pub plugin: String,
}

impl Store {
    /// What is kept under a uid; None: nothing.
    ///
    /// # Errors
    /// As of any read.
    pub async fn read_retained(
        &self,
        uid: &Uid,
    ) -> Result<Option<Versioned<stored::RetainedOffsets>>, StoreError> {
        let (found, _) = self
            .get::<stored::RetainedOffsets>(&Key::Retained(uid.clone()))
            .await?;
        Ok(found.filter(|retained| !retained.copying))
    }

    /// All that is kept, in order of uid.
    ///
    /// # Errors
    /// As of any read.
    pub async fn list_retained(&self) -> Result<Vec<(Uid, stored::RetainedOffsets)>, StoreError> {
        let all = self.all_retained().await?;
        let kept = all.into_iter().filter(|(_, retained)| !retained.copying);
        Ok(kept
            .map(|(uid, retained)| (uid, (*retained.value).clone()))
            .collect())
    }

    /// How many partitions have a position in the present epoch.
    ///
    /// # Errors
    /// As of any read.
    pub async fn count_offsets(&self, uid: &Uid) -> Result<i64, StoreError> {
        let (head, revision) = self
            .get::<stored::OffsetsHead>(&Key::OffsetsHead(uid.clone()))
            .await?;
        let epoch = head.map_or(0, |head| head.epoch);
        let path = self.keys().prefix(&Prefix::OffsetsEpoch(uid.clone(), epoch));
        let answer = self
            .read(|| {
                let (mut kv, path) = (self.kv_client(), path.clone());
                let options = GetOptions::new()
                    .with_prefix()
                    .with_count_only()
                    .with_revision(revision);
                async move { kv.get(path, Some(options)).await }
            })
            .await?;
        Ok(answer.count())
    }

    /// Creates a connector that goes on where another one was left: its offsets are copied first and count from the moment
    /// the connector exists; those that were kept are gone then. All of it, or nothing that is seen.
    ///
    /// # Errors
    /// As of [`write_connector`](Self::write_connector). `Conflict` also means that somebody else has taken them over.
    pub async fn create_adopting(
        &self,
        write: &ConnectorWrite,
        adoption: &Adoption,
    ) -> Result<ConnectorOutcome, StoreError> {
        let uid = Uid(write.value.uid.as_str().into());
        let kept = Key::Retained(adoption.from.clone());
        let guard = |txn: Guarded| {
            txn.expect(&Expect::ModRevision(kept.clone(), adoption.seen))
                .expect(&Expect::Absent(Key::OffsetsHead(uid.clone())))
        };
        let records: Vec<stored::OffsetRecord> = self
            .list_offsets(&adoption.from)
            .await?
            .records
            .into_iter()
            .map(|listed| (*listed.record.value).clone())
            .collect();
        let copy = stored::RetainedOffsets {
            format: FORMAT,
            connector: write.name.to_string(),
            plugin: adoption.plugin.clone(),
            delete_time: write.value.create_time,
            copying: true,
        };
        let begun = guard(self.guarded())
            .expect(&Expect::Absent(Key::Connector(write.name.clone())))
            .put(&Key::Retained(uid.clone()), &copy)
            .delete_under(&Prefix::OffsetsEpoch(uid.clone(), ADOPTED_EPOCH))
            .or_read(&Key::Connector(write.name.clone()))
            .run()
            .await?;
        if !begun.applied {
            let replayed = match &write.request {
                Some(request) => self.replayed(request, &write.name).await?,
                None => None,
            };
            let present = begun.read(0).map(super::Raw::decode).transpose()?;
            return Ok(replayed.unwrap_or(ConnectorOutcome::Conflict(present)));
        }
        for chunk in chunks(&records) {
            let txn = chunk.iter().fold(guard(self.guarded()), |txn, record| {
                let partition = partition_key(&record.partition);
                txn.put(&Key::Offset(uid.clone(), ADOPTED_EPOCH, partition), *record)
            });
            if !txn.run().await?.applied {
                return Ok(ConnectorOutcome::Conflict(None));
            }
        }
        let head = stored::OffsetsHead {
            format: FORMAT,
            epoch: ADOPTED_EPOCH,
            history: vec![stored::Alteration {
                epoch: ADOPTED_EPOCH,
                time: write.value.create_time,
                principal: write
                    .revision
                    .as_ref()
                    .map(|r| r.principal.clone())
                    .unwrap_or_default(),
                kind: "ADOPT".to_owned(),
                request_id: String::new(),
            }],
        };
        self.write_connector_with(write, |txn| {
            guard(txn)
                .put(&Key::OffsetsHead(uid.clone()), &head)
                .delete(&Key::Retained(uid.clone()))
                .delete(&kept)
                .delete_under(&Prefix::Offsets(adoption.from.clone()))
        })
        .await
    }

    /// Removes what has been kept long enough. `now`: seconds since 1970; thirty days are the calendar's. Returns how many
    /// connectors' offsets were removed.
    ///
    /// # Errors
    /// As of any write; the next sweep goes on.
    pub async fn sweep_retained(&self, now: i64) -> Result<usize, StoreError> {
        let mut removed = 0;
        for (uid, retained) in self.all_retained().await? {
            let life = if retained.copying { COPY_FOR_S } else { KEPT_FOR_S };
            // Without a time it would stay for ever; it is never written so.
            let since = retained.delete_time.map_or(0, |time| time.seconds);
            if now - since < life {
                continue;
            }
            let key = Key::Retained(uid.clone());
            let outcome = self
                .guarded()
                .expect(&Expect::ModRevision(key.clone(), retained.mod_revision))
                .delete(&key)
                .delete_under(&Prefix::Offsets(uid))
                .run()
                .await?;
            removed += usize::from(outcome.applied);
        }
        Ok(removed)
    }

    async fn all_retained(&self) -> Result<Vec<(Uid, Versioned<stored::RetainedOffsets>)>, StoreError> {
        let page = self.list(&Prefix::Retained).await?;
        let mut all = Vec::with_capacity(page.values.len());
        for raw in &page.values {
            if let Some(Key::Retained(uid)) = &raw.key {
                all.push((uid.clone(), raw.decode()?));
            }
        }
        Ok(all)
    }
}
