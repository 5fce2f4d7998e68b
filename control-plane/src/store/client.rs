use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use etcd_client::{
    Client, ConnectOptions, GetOptions, KeyValue, KvClient, LeaseClient, MaintenanceClient, TxnResponse,
    WatchClient,
};
use tokio::time::{Instant, sleep, timeout};

use super::{
    Guarded, Key, Keys, Prefix, QuotaLevel, StoreError,
    codec::{self, Stored},
    shared_lease::SharedLeases,
};
use crate::domain::Versioned;

/// Largest message taken from etcd. tonic's own limit of 4 MiB is less than a list of large values.
const MAX_ANSWER: usize = 64 << 20;
/// Values that one page of a list holds at first. A page that turns out too large is asked for again in halves.
const PAGE: i64 = 1000;

/// How patient calls are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Longest wait for one answer.
    pub call_timeout: Duration,
    /// What was surely not sent is sent again for so long.
    pub retry_for: Duration,
    /// Pause before the first retry; doubles up to `retry_max`.
    pub retry_min: Duration,
    /// Longest pause between retries.
    pub retry_max: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            call_timeout: Duration::from_secs(2),
            retry_for: Duration::from_secs(4),
            retry_min: Duration::from_millis(5),
            retry_max: Duration::from_millis(200),
        }
    }
}

/// Options for a real etcd: dead peers are noticed within 4 s, and a member without a leader refuses instead of hanging.
///
/// Credentials and TLS are added by the caller. No timeout may be added: it would cut watches as well.
pub fn connect_options() -> ConnectOptions {
    ConnectOptions::new()
        .with_keep_alive(Duration::from_secs(2), Duration::from_secs(2))
        .with_keep_alive_while_idle(true)
        .with_connect_timeout(Duration::from_millis(500))
        .with_require_leader(true)
        .with_auto_token_refresh(true)
}

/// The keys of one cluster in etcd. Clones share everything.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    kv: KvClient,
    watch: WatchClient,
    lease: LeaseClient,
    maintenance: MaintenanceClient,
    keys: Keys,
    settings: Settings,
    shared_leases: SharedLeases,
    quota: AtomicU8,
    /// The key or prefix whose expectation tests leave out, to see that it is needed.
    #[cfg(test)]
    left_out: parking_lot::Mutex<Option<String>>,
}

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
    /// The keys of `cluster` in the etcd that `client` is connected to.
    pub fn new(client: &Client, cluster: &str) -> Self {
        Self::with_settings(client, cluster, Settings::default())
    }

    /// As [`Store::new`], with another patience.
    pub fn with_settings(client: &Client, cluster: &str, settings: Settings) -> Self {
        Self {
            inner: Arc::new(Inner {
                kv: client.kv_client().max_decoding_message_size(MAX_ANSWER),
                watch: client.watch_client().max_decoding_message_size(MAX_ANSWER),
                lease: client.lease_client(),
                maintenance: client.maintenance_client(),
                keys: Keys::new(cluster),
                settings,
                shared_leases: SharedLeases::default(),
                quota: AtomicU8::new(QuotaLevel::Ok.into()),
                #[cfg(test)]
                left_out: parking_lot::Mutex::new(None),
            }),
        }
    }

    /// Turns keys into bytes and back.
    pub fn keys(&self) -> &Keys {
        &self.inner.keys
    }

    /// How patient calls are.
    pub fn settings(&self) -> Settings {
        self.inner.settings
    }

    /// How full the store was when [`QuotaWatch`](super::QuotaWatch) last looked.
    pub fn quota(&self) -> QuotaLevel {
        self.inner.quota.load(Ordering::Relaxed).into()
    }

    pub(crate) fn set_quota(&self, level: QuotaLevel) {
        self.inner.quota.store(level.into(), Ordering::Relaxed);
    }

    /// Refuses what is not needed to keep connectors running while the store is nearly full.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`] at 80 % of the quota and above.
    pub fn check_room(&self) -> Result<(), StoreError> {
        if self.quota() == QuotaLevel::Refuse {
            Err(StoreError::NoSpace)
        } else {
            Ok(())
        }
    }

    /// A transaction with expectations.
    pub fn guarded(&self) -> Guarded {
        Guarded::new(self.clone())
    }

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
                let (mut kv, path) = (self.inner.kv.clone(), path.clone());
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
                    let (mut kv, next, to) = (self.inner.kv.clone(), next.clone(), to.clone());
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
                let (mut kv, path) = (self.inner.kv.clone(), path.clone());
                let options = GetOptions::new()
                    .with_prefix()
                    .with_limit(1)
                    .with_sort(etcd_client::SortTarget::Key, etcd_client::SortOrder::Descend);
                async move { kv.get(path, Some(options)).await }
            })
            .await?;
        Ok(answer.take_kvs().pop().map(|kv| self.raw(kv)))
    }

    pub(crate) async fn txn(
        &self,
        txn: etcd_client::Txn,
        only_reads: bool,
    ) -> Result<TxnResponse, StoreError> {
        let call = || {
            let (mut kv, txn) = (self.inner.kv.clone(), txn.clone());
            async move { kv.txn(txn).await }
        };
        if only_reads {
            self.read(call).await
        } else {
            self.write(call).await
        }
    }

    /// A call without effect: it is repeated after a lost answer as well.
    pub(crate) async fn read<T, F, Fut>(&self, call: F) -> Result<T, StoreError>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, etcd_client::Error>>,
    {
        self.call(call, |error| {
            matches!(error, StoreError::NotSent { .. } | StoreError::Unknown { .. })
        })
        .await
    }

    /// A call with an effect: it is repeated only if it was surely not sent.
    pub(crate) async fn write<T, F, Fut>(&self, call: F) -> Result<T, StoreError>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, etcd_client::Error>>,
    {
        self.call(call, |error| matches!(error, StoreError::NotSent { .. }))
            .await
    }

    async fn call<T, F, Fut>(&self, mut call: F, again: fn(&StoreError) -> bool) -> Result<T, StoreError>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, etcd_client::Error>>,
    {
        let settings = self.inner.settings;
        let give_up = Instant::now() + settings.retry_for;
        let mut pause = settings.retry_min;
        loop {
            let error = match timeout(settings.call_timeout, call()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => StoreError::from(error),
                Err(_) => StoreError::unknown(format!("no answer within {:?}", settings.call_timeout)),
            };
            if !again(&error) || Instant::now() + pause >= give_up {
                return Err(error);
            }
            sleep(pause).await;
            pause = (pause * 2).min(settings.retry_max);
        }
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

    /// From now on expectations of this key or prefix are left out.
    #[cfg(test)]
    pub(crate) fn leave_out(&self, target: &str) {
        *self.inner.left_out.lock() = Some(target.to_owned());
    }

    #[cfg(test)]
    pub(crate) fn leaves_out(&self, target: &str) -> bool {
        self.inner.left_out.lock().as_deref() == Some(target)
    }

    pub(crate) fn kv_client(&self) -> KvClient {
        self.inner.kv.clone()
    }

    pub(crate) fn watch_client(&self) -> WatchClient {
        self.inner.watch.clone()
    }

    pub(crate) fn lease_client(&self) -> LeaseClient {
        self.inner.lease.clone()
    }

    pub(crate) fn maintenance_client(&self) -> MaintenanceClient {
        self.inner.maintenance.clone()
    }

    pub(crate) fn shared_leases(&self) -> &SharedLeases {
        &self.inner.shared_leases
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("keys", self.keys())
            .finish_non_exhaustive()
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
