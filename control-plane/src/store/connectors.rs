//! What the API writes: connectors with their revisions and the records of requests, each in one transaction.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use gantry_proto::v1::connector::TargetState;
use prost::Message;

use super::{
    Expect, Guarded, Key, Prefix, Raw, Store, StoreError,
    codec::{self, FORMAT, rewritable},
};
use crate::domain::{Uid, Versioned, stored};

/// Records of requests live at least so long.
pub const REQUEST_LIFE: Duration = Duration::from_secs(3600);
/// Largest definition in bytes.
pub const MAX_DEFINITION: usize = 256 << 10;
/// Most revisions kept of a connector, and most bytes of them.
pub const MAX_REVISIONS: usize = 50;
/// See [`MAX_REVISIONS`].
pub const MAX_REVISION_BYTES: usize = 1 << 20;
/// Tries of a write whose outcome is not known, each after a read.
const TRIES: u32 = 3;

/// Names a request, so that the same one sent again has its effect once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Name of the method.
    pub method: Arc<str>,
    /// Who asked.
    pub principal: Arc<str>,
    /// The id that the client gave.
    pub id: Arc<str>,
    /// SHA-256 of the request without its id.
    pub hash: [u8; 32],
}

impl Request {
    /// Where its record is.
    pub fn key(&self) -> Key {
        Key::Request(self.method.clone(), self.principal.clone(), self.id.clone())
    }
}

/// One write of a connector: created, changed by its user or by a verb, or marked as deleted.
#[derive(Debug, Clone, PartialEq)]
pub struct ConnectorWrite {
    /// Id of the connector.
    pub name: Arc<str>,
    /// mod_revision of what is replaced, as read; 0: it must not exist.
    pub seen: i64,
    /// The new value.
    pub value: stored::Connector,
    /// The new revision, if the definition has changed; it is stored under the number `value.revision` and
    /// without target state.
    pub revision: Option<stored::Revision>,
    /// The request, if it has an id.
    pub request: Option<Request>,
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub enum ConnectorOutcome {
    /// Written, by this call or by an earlier one of the same request (`replayed`).
    Done {
        /// The connector as it was written, or with `replayed` as it is now; None: it has been removed since.
        connector: Option<Versioned<stored::Connector>>,
        /// What the first call answered.
        changed: bool,
        /// An earlier call of the same request had the effect.
        replayed: bool,
    },
    /// The connector is not what was seen; this is it now.
    Conflict(Option<Versioned<stored::Connector>>),
    /// The request id was used for another request. Nothing was written.
    Reused,
}

impl Store {
    /// Reads a connector, linearizable. Returns it, if it exists, and the store's revision.
    ///
    /// # Errors
    /// As of any read.
    pub async fn read_connector(
        &self,
        name: &str,
    ) -> Result<(Option<Versioned<stored::Connector>>, i64), StoreError> {
        self.get(&Key::Connector(name.into())).await
    }

    /// Looks whether a request was carried out before. None: it was not.
    ///
    /// # Errors
    /// As of any read.
    pub async fn replayed(
        &self,
        request: &Request,
        name: &str,
    ) -> Result<Option<ConnectorOutcome>, StoreError> {
        let outcome = self
            .guarded()
            .read(&request.key())
            .read(&Key::Connector(name.into()))
            .run()
            .await?;
        replay(Some(request), outcome.read(0), outcome.read(1))
    }

    /// Writes a connector with its revision and the record of its request in one transaction. Drops the
    /// oldest revisions beyond 50 or 1 MiB. A lost answer is resolved by reading.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] for a definition over 256 KiB. [`StoreError::NoSpace`] while the store is
    /// nearly full. `Unknown` only if reading did not help either: the same request id sent again tells.
    pub async fn write_connector(&self, write: &ConnectorWrite) -> Result<ConnectorOutcome, StoreError> {
        self.write_connector_with(write, |txn| txn).await
    }

    /// As [`write_connector`](Self::write_connector), in one transaction with something that comes with it.
    pub(super) async fn write_connector_with(
        &self,
        write: &ConnectorWrite,
        more: impl Fn(Guarded) -> Guarded,
    ) -> Result<ConnectorOutcome, StoreError> {
        // What stops, pauses or deletes is how room is made.
        if write.revision.is_some() {
            self.check_room()?;
        }
        let size = write.value.definition.as_ref().map_or(0, Message::encoded_len);
        if size > MAX_DEFINITION {
            let what = "the definition in bytes".to_owned();
            return Err(StoreError::TooLarge {
                what,
                size,
                limit: MAX_DEFINITION,
            });
        }
        let dropped = match &write.revision {
            Some(revision) if write.seen != 0 => self.revisions_to_drop(write, revision).await?,
            _ => Vec::new(),
        };
        let key = Key::Connector(write.name.clone());
        let effect = |txn: Guarded| {
            let uid = || Uid(write.value.uid.as_str().into());
            let mut txn = more(txn)
                .expect(&Expect::ModRevision(key.clone(), write.seen))
                .put(&key, &write.value)
                .or_read(&key);
            if let Some(revision) = &write.revision {
                txn = txn.put(
                    &Key::Revision(uid(), write.value.revision),
                    &without_target(revision),
                );
            }
            dropped
                .iter()
                .fold(txn, |txn, r| txn.delete(&Key::Revision(uid(), *r)))
        };
        let resource = format!("connectors/{}", write.name);
        match self.write_once(write.request.as_ref(), &resource, effect).await? {
            Once::Written(revision) => Ok(ConnectorOutcome::Done {
                connector: Some(Versioned {
                    mod_revision: revision,
                    create_revision: if write.seen == 0 {
                        revision
                    } else {
                        self.created(&key, revision).await?
                    },
                    value: Arc::new(stored::Connector {
                        format: FORMAT,
                        ..write.value.clone()
                    }),
                }),
                changed: true,
                replayed: false,
            }),
            Once::NotWritten { request, present } => {
                let present = present.as_ref();
                // Seen by the transaction that was refused, or after one whose answer was lost.
                if let Some(outcome) = replay(write.request.as_ref(), request.as_ref(), present)? {
                    return Ok(outcome);
                }
                let present: Option<Versioned<stored::Connector>> = present.map(Raw::decode).transpose()?;
                if let Some(found) = &present {
                    rewritable(&key, &*found.value)?;
                    let own = codec::same(&*found.value, &write.value);
                    if own && found.mod_revision > write.seen {
                        return Ok(ConnectorOutcome::Done {
                            connector: present,
                            changed: true,
                            replayed: false,
                        });
                    }
                }
                Ok(ConnectorOutcome::Conflict(present))
            }
        }
    }

    /// Revisions of a connector by number.
    ///
    /// # Errors
    /// As of any read.
    pub async fn list_revisions(
        &self,
        uid: &Uid,
    ) -> Result<BTreeMap<i64, Versioned<stored::Revision>>, StoreError> {
        let page = self.list(&Prefix::Revisions(uid.clone())).await?;
        let mut revisions = BTreeMap::new();
        for raw in &page.values {
            if let Some(Key::Revision(_, r)) = raw.key {
                revisions.insert(r, raw.decode()?);
            }
        }
        Ok(revisions)
    }

    async fn created(&self, key: &Key, written: i64) -> Result<i64, StoreError> {
        // Only for the answer: the write is done, and an error here must not hide that.
        match self.get_raw(key).await {
            Ok((Some(raw), _)) => Ok(raw.create_revision),
            Ok((None, _)) | Err(_) => Ok(written),
        }
    }

    async fn revisions_to_drop(
        &self,
        write: &ConnectorWrite,
        new: &stored::Revision,
    ) -> Result<Vec<i64>, StoreError> {
        let page = self
            .list(&Prefix::Revisions(Uid(write.value.uid.as_str().into())))
            .await?;
        let mut sizes: BTreeMap<i64, usize> = BTreeMap::new();
        for raw in &page.values {
            if let Some(Key::Revision(_, r)) = raw.key
                && r != write.value.revision
            {
                sizes.insert(r, raw.value.len());
            }
        }
        let (mut count, mut bytes) = (1, new.encoded_len());
        let mut drop = Vec::new();
        for (r, size) in sizes.into_iter().rev() {
            count += 1;
            bytes += size;
            if count > MAX_REVISIONS || bytes > MAX_REVISION_BYTES {
                drop.push(r);
            }
        }
        // The rest goes with the next revision.
        drop.truncate(100);
        Ok(drop)
    }

    /// Runs a transaction that has its effect once for each request. The transaction's own reads of failure
    /// must be of one key.
    pub(crate) async fn write_once(
        &self,
        request: Option<&Request>,
        resource: &str,
        effect: impl Fn(Guarded) -> Guarded,
    ) -> Result<Once, StoreError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let mut txn = self.guarded();
            if let Some(request) = request {
                let key = request.key();
                let lease = self.shared_lease(REQUEST_LIFE).await?;
                let record = stored::RequestRecord {
                    format: FORMAT,
                    hash: request.hash.to_vec(),
                    resource: resource.to_owned(),
                    changed: true,
                };
                txn = txn
                    .expect(&Expect::Absent(key.clone()))
                    .put_leased(&key, &record, lease)
                    .or_read(&key);
            }
            let outcome = match effect(txn).run().await {
                Err(StoreError::LeaseGone) if tries < TRIES => {
                    self.forget_shared_lease(REQUEST_LIFE).await;
                    continue;
                }
                // Again with the same expectations: if it has happened after all, they fail and show what is
                // there.
                Err(error) if error.may_have_been_written() && tries < TRIES => continue,
                outcome => outcome?,
            };
            if outcome.applied {
                return Ok(Once::Written(outcome.revision));
            }
            let at = usize::from(request.is_some());
            return Ok(Once::NotWritten {
                request: request.and_then(|_| outcome.read(0).cloned()),
                present: outcome.read(at).cloned(),
            });
        }
    }
}

/// What became of a transaction that has its effect once.
pub(crate) enum Once {
    /// Written at this revision.
    Written(i64),
    /// An expectation did not hold, or it was written by an earlier try.
    NotWritten {
        /// The record of the request.
        request: Option<Raw>,
        /// What the effect's own read of failure found.
        present: Option<Raw>,
    },
}

/// The answer to a request whose record is there; None: it is not.
pub(crate) fn replay(
    request: Option<&Request>,
    record: Option<&Raw>,
    connector: Option<&Raw>,
) -> Result<Option<ConnectorOutcome>, StoreError> {
    let (Some(request), Some(record)) = (request, record) else {
        return Ok(None);
    };
    let record = record.decode::<stored::RequestRecord>()?;
    if record.hash != request.hash {
        return Ok(Some(ConnectorOutcome::Reused));
    }
    let connector = connector.map(Raw::decode).transpose()?;
    Ok(Some(ConnectorOutcome::Done {
        connector,
        changed: record.changed,
        replayed: true,
    }))
}

fn without_target(revision: &stored::Revision) -> stored::Revision {
    let mut revision = revision.clone();
    if let Some(definition) = &mut revision.definition {
        definition.target_state = TargetState::Unspecified.into();
    }
    revision
}
