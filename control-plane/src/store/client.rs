use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use etcd_client::{
    Client, ConnectOptions, KvClient, LeaseClient, MaintenanceClient, TxnResponse, WatchClient,
};
use tokio::time::{Instant, sleep, timeout};

use super::{Expect, Guarded, Key, Keys, QuotaLevel, StoreError, codec, shared_lease::SharedLeases};
use crate::{domain::stored, metrics::StoreMetrics};

/// Largest message taken from etcd. tonic's own limit of 4 MiB is less than a list of large values.
const MAX_ANSWER: usize = 64 << 20;

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

/// Options for a real etcd: dead peers are noticed within 4 s, and a member without a leader refuses instead
/// of hanging.
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
    metrics: StoreMetrics,
    /// The key or prefix whose expectation tests leave out, to see that it is needed.
    #[cfg(test)]
    left_out: parking_lot::Mutex<Option<String>>,
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
                metrics: StoreMetrics::default(),
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

    /// What its calls are counted in.
    pub fn metrics(&self) -> &StoreMetrics {
        &self.inner.metrics
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

    /// Gives the store another identity, after its data was restored from a backup: agents stop without
    /// committing, and whatever watches it starts over. Returns false if somebody else did so at the same
    /// time.
    ///
    /// # Errors
    /// As of any write; after `Unknown` it may be repeated.
    pub async fn rename(&self, new_store_id: &str) -> Result<bool, StoreError> {
        let (present, _) = self.get::<stored::StoreId>(&Key::StoreId).await?;
        if let Some(present) = &present {
            codec::rewritable(&Key::StoreId, &*present.value)?;
        }
        let seen = present.map_or(0, |present| present.mod_revision);
        let value = stored::StoreId {
            format: codec::FORMAT,
            id: new_store_id.to_owned(),
        };
        let txn = self
            .guarded()
            .expect(&Expect::ModRevision(Key::StoreId, seen))
            .put(&Key::StoreId, &value);
        Ok(txn.run().await?.applied)
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
        self.call(true, call, |error| {
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
        self.call(false, call, |error| matches!(error, StoreError::NotSent { .. }))
            .await
    }

    async fn call<T, F, Fut>(
        &self,
        reads: bool,
        mut call: F,
        again: fn(&StoreError) -> bool,
    ) -> Result<T, StoreError>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, etcd_client::Error>>,
    {
        let settings = self.inner.settings;
        let give_up = Instant::now() + settings.retry_for;
        let mut pause = settings.retry_min;
        loop {
            let began = Instant::now();
            let answer = timeout(settings.call_timeout, call()).await;
            let ok = matches!(answer, Ok(Ok(_)));
            self.inner.metrics.called(reads, ok, began.elapsed());
            let error = match answer {
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
