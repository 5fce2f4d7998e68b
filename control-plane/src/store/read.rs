use std::sync::Arc;

use etcd_client::{GetOptions, KeyValue};

use super::{
    Key, Prefix, Store, StoreError,
    codec::{self, Stored},
};
use crate::domain::Versioned;

/// Values that one page of a list holds at first. A page that turns out too large is asked for again in
/// halves.
const PAGE: i64 = 1000;

/// A stored value with its revisions and its lease, not decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw {
    /// The key; None: not one of the table.
    pub key: Option<Key>,
    /// The value.
    pub value: Vec<u8>,
    /// Revision of its last write.
    pub mod_revision: i64,
    /// Revision of its creation.
    pub create_revision: i64,
    /// Lease that it hangs on; 0: none.
    pub lease: i64,
}

impl Raw {
    /// Decodes the value.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`].
    pub fn decode<T: Stored>(&self) -> Result<Versioned<T>, StoreError> {
        let unknown = Key::Answer("a key of another version".into());
        let value = codec::decode(self.key.as_ref().unwrap_or(&unknown), &self.value)?;
        Ok(Versioned {
            mod_revision: self.mod_revision,
            create_revision: self.create_revision,
            value: Arc::new(value),
        })
    }
}

/// What was under a prefix at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The revision.
    pub revision: i64,
    /// In order of key.
    pub values: Vec<Raw>,
}

impl Store {
    /// Reads a key, linearizable. Returns the value, if there is one, and the store's revision.
    ///
    /// # Errors
    /// As of any read; [`StoreError::Corrupt`] if it cannot be decoded.
    pub async fn get<T: Stored>(&self, key: &Key) -> Result<(Option<Versioned<T>>, i64), StoreError> {
        let (raw, revision) = self.get_raw(key).await?;
        Ok((raw.map(|raw| raw.decode()).transpose()?, revision))
    }

    /// As [`Store::get`], not decoded.
    ///
    /// # Errors
    /// As of any read.
    pub async fn get_raw(&self, key: &Key) -> Result<(Option<Raw>, i64), StoreError> {
        let path = self.keys().path(key);
        let mut answer = self
            .read(|| {
                let (mut kv, path) = (self.kv_client(), path.clone());
                async move { kv.get(path, None).await }
            })
            .await?;
        let revision = header_revision(answer.header());
        Ok((answer.take_kvs().pop().map(|kv| self.raw(kv)), revision))
    }

    /// Everything under a prefix at one revision, in pages, linearizable.
    ///
    /// # Errors
    /// As of any read; [`StoreError::Compacted`] if the pages took too long.
    pub async fn list(&self, prefix: &Prefix) -> Result<Page, StoreError> {
        let from = self.keys().prefix(prefix).into_bytes();
        let to = prefix_end(&from);
        self.list_range(from, to, 0).await
    }

    /// Everything in `[from, to)` at `revision`, or at the newest with 0.
    pub(crate) async fn list_range(
        &self,
        from: Vec<u8>,
        to: Vec<u8>,
        revision: i64,
    ) -> Result<Page, StoreError> {
        let mut page = Page {
            revision,
            values: Vec::new(),
        };
        let mut next = from;
        let mut limit = PAGE;
        loop {
            let at = page.revision;
            let answer = self
                .read(|| {
                    let (mut kv, next, to) = (self.kv_client(), next.clone(), to.clone());
                    let options = GetOptions::new()
                        .with_range(to)
                        .with_limit(limit)
                        .with_revision(at);
                    async move { kv.get(next, Some(options)).await }
                })
                .await;
            let mut answer = match answer {
                Err(StoreError::AnswerTooLarge) if limit > 1 => {
                    limit /= 2;
                    continue;
                }
                answer => answer?,
            };
            if page.revision == 0 {
                page.revision = header_revision(answer.header());
            }
            let more = answer.more();
            let kvs = answer.take_kvs();
            if let Some(last) = kvs.last() {
                next = [last.key(), &[0]].concat();
            }
            let empty = kvs.is_empty();
            page.values.extend(kvs.into_iter().map(|kv| self.raw(kv)));
            if !more || empty {
                return Ok(page);
            }
        }
    }

    /// The last value under a prefix in order of key.
    pub(crate) async fn last_under(&self, prefix: &Prefix) -> Result<Option<Raw>, StoreError> {
        let path = self.keys().prefix(prefix);
        let mut answer = self
            .read(|| {
                let (mut kv, path) = (self.kv_client(), path.clone());
                let options = GetOptions::new()
                    .with_prefix()
                    .with_limit(1)
                    .with_sort(etcd_client::SortTarget::Key, etcd_client::SortOrder::Descend);
                async move { kv.get(path, Some(options)).await }
            })
            .await?;
        Ok(answer.take_kvs().pop().map(|kv| self.raw(kv)))
    }

    pub(crate) fn raw(&self, kv: KeyValue) -> Raw {
        let key = self.keys().parse(kv.key());
        let (mod_revision, create_revision, lease) = (kv.mod_revision(), kv.create_revision(), kv.lease());
        let (_, value) = kv.into_key_value();
        Raw {
            key,
            value,
            mod_revision,
            create_revision,
            lease,
        }
    }
}

/// The revision in an answer's header; 0 without one, which etcd never sends.
pub(crate) fn header_revision(header: Option<&etcd_client::ResponseHeader>) -> i64 {
    header.map_or(0, etcd_client::ResponseHeader::revision)
}

/// The first key after all that begin with `prefix`, which ends with `/`.
pub(crate) fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}
