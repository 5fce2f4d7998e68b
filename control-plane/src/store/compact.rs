use std::{collections::VecDeque, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Store, StoreError};

/// How often the leader compacts.
const EVERY: Duration = Duration::from_secs(60);
/// History that is kept.
const KEEP: Duration = Duration::from_secs(5 * 60);
/// How often the size is looked at.
const LOOK: Duration = Duration::from_secs(30);

/// Forgets the history of more than five minutes ago, so that the store does not fill up.
#[derive(Debug)]
pub struct Compactor {
    store: Store,
    /// Revisions of the store and when they were read, oldest first.
    seen: VecDeque<(Instant, i64)>,
}

impl Compactor {
    /// Knows no history yet: the first compaction comes after five minutes.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            seen: VecDeque::new(),
        }
    }

    /// Compacts every minute until `stop` is cancelled: for the leader, with its `lost`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut minute = interval(EVERY);
        minute.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let compacting = async {
            loop {
                minute.tick().await;
                if let Err(error) = self.step().await {
                    tracing::warn!(%error, "the store could not be compacted");
                }
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = compacting => {}
        }
    }

    /// Notes the present revision, and compacts to the newest one that is at least five minutes old. Returns
    /// that one.
    ///
    /// # Errors
    /// As of any read; the next step tries again.
    pub async fn step(&mut self) -> Result<Option<i64>, StoreError> {
        let (_, revision) = self.store.get_raw(&super::Key::StoreId).await?;
        let now = Instant::now();
        self.seen.push_back((now, revision));
        let mut target = None;
        while let Some((at, revision)) = self.seen.front().copied()
            && now.duration_since(at) >= KEEP
        {
            target = Some(revision);
            self.seen.pop_front();
        }
        let Some(target) = target else { return Ok(None) };
        let compacted = self
            .store
            .read(|| {
                let mut kv = self.store.kv_client();
                async move { kv.compact(target, None).await }
            })
            .await;
        match compacted {
            // Somebody else, or etcd itself, has compacted further.
            Ok(_) | Err(StoreError::Compacted) => Ok(Some(target)),
            Err(error) => Err(error),
        }
    }
}

/// How full the store is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum QuotaLevel {
    /// Below 60 %, or not known.
    #[default]
    Ok,
    /// Somebody has to act soon.
    Alarm,
    /// 80 % and more: what is not needed to keep connectors running is refused.
    Refuse,
}

impl From<QuotaLevel> for u8 {
    fn from(level: QuotaLevel) -> Self {
        match level {
            QuotaLevel::Ok => 0,
            QuotaLevel::Alarm => 1,
            QuotaLevel::Refuse => 2,
        }
    }
}

impl From<u8> for QuotaLevel {
    fn from(level: u8) -> Self {
        match level {
            0 => Self::Ok,
            1 => Self::Alarm,
            _ => Self::Refuse,
        }
    }
}

/// Size of the store as etcd reports it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    /// Bytes in use.
    pub used: u64,
    /// Bytes allowed; None: not known.
    pub limit: Option<u64>,
}

impl Quota {
    /// How full that is.
    pub fn level(self) -> QuotaLevel {
        let Some(limit) = self.limit.filter(|limit| *limit > 0) else {
            return QuotaLevel::Ok;
        };
        let percent = u128::from(self.used) * 100 / u128::from(limit);
        match percent {
            0..60 => QuotaLevel::Ok,
            60..80 => QuotaLevel::Alarm,
            _ => QuotaLevel::Refuse,
        }
    }
}

/// Looks at the size of the store every 30 s: every replica for itself.
#[derive(Debug, Clone)]
pub struct QuotaWatch {
    quota: watch::Receiver<Quota>,
}

impl QuotaWatch {
    /// Starts looking, until `stop` is cancelled. Sets [`Store::quota`]. `limit` is used where etcd (before
    /// 3.6) does not say what its quota is; None: the level is then always `Ok`.
    pub fn spawn(store: Store, limit: Option<u64>, stop: CancellationToken) -> Self {
        let (sender, quota) = watch::channel(Quota::default());
        let looking = async move {
            let mut ticks = interval(LOOK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                // Not available: the last figure stands.
                let Some(quota) = look(&store, limit).await else {
                    continue;
                };
                let level = quota.level();
                if level > store.quota() {
                    tracing::warn!(?quota, ?level, "the store is filling up");
                }
                store.set_quota(level);
                sender.send_replace(quota);
            }
        };
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = looking => {}
            }
        });
        Self { quota }
    }

    /// As last seen.
    pub fn quota(&self) -> Quota {
        *self.quota.borrow()
    }

    /// Every time it was looked at.
    pub fn watch(&self) -> watch::Receiver<Quota> {
        self.quota.clone()
    }
}

async fn look(store: &Store, limit: Option<u64>) -> Option<Quota> {
    let mut maintenance = store.maintenance_client();
    let status = timeout(store.settings().call_timeout, maintenance.status())
        .await
        .ok()?
        .ok()?;
    let known = u64::try_from(status.db_size_quota())
        .ok()
        .filter(|quota| *quota > 0);
    Some(Quota {
        used: u64::try_from(status.raft_used_db_size()).unwrap_or(0),
        limit: known.or(limit),
    })
}
