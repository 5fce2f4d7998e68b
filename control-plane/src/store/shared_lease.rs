use std::{collections::BTreeMap, time::Duration};

use tokio::{sync::Mutex, time::Instant};

use super::{Store, StoreError};

/// Leases that many keys share: each is used for puts during the first half of its life, so that a key lives
/// at least as long as asked for and at most twice as long, and etcd has few leases to look after.
#[derive(Debug, Default)]
pub(crate) struct SharedLeases {
    by_life: Mutex<BTreeMap<Duration, Shared>>,
}

#[derive(Debug, Clone, Copy)]
struct Shared {
    id: i64,
    granted_at: Instant,
}

impl Store {
    /// A lease that lives for at least `life` from now, in whole seconds.
    pub(crate) async fn shared_lease(&self, life: Duration) -> Result<i64, StoreError> {
        let mut by_life = self.shared_leases().by_life.lock().await;
        if let Some(shared) = by_life.get(&life)
            && shared.granted_at.elapsed() < life
        {
            return Ok(shared.id);
        }
        let ttl = i64::try_from(life.as_secs().max(1))
            .unwrap_or(i64::MAX)
            .saturating_mul(2);
        let granted_at = Instant::now();
        // A grant whose answer is lost leaves a lease without keys, which ends by itself: it may be repeated.
        let granted = self
            .read(|| {
                let mut lease = self.lease_client();
                async move { lease.grant(ttl, None).await }
            })
            .await?;
        by_life.insert(
            life,
            Shared {
                id: granted.id(),
                granted_at,
            },
        );
        Ok(granted.id())
    }

    /// Forgets a shared lease that etcd no longer knows.
    pub(crate) async fn forget_shared_lease(&self, life: Duration) {
        self.shared_leases().by_life.lock().await.remove(&life);
    }
}
