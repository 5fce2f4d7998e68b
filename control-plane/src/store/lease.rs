use std::{sync::Arc, time::Duration};

use etcd_client::{LeaseKeepAliveStream, LeaseKeeper};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{BootClock, Store, StoreError};

/// Pause before a lease is granted, or a broken stream of keepalives opened, anew.
const RETRY: Duration = Duration::from_millis(100);

/// The lease as last known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeaseState {
    /// The present lease; None: there is none, and what hung on the last one is gone or will be.
    pub id: Option<i64>,
    /// When the last grant or keepalive that etcd answered was *sent*. The lease lives at least its length
    /// from then.
    pub confirmed_at: Option<Instant>,
    /// The same on the clock that counts suspend.
    pub confirmed_boot: Option<Duration>,
}

/// The one etcd lease of this replica: `leader`, `replicas/` and `sessions/` keys hang on it.
///
/// It is kept alive by a task of its own. When it was lost (the replica was cut off, or etcd forgot it) a new
/// one with another id is granted: whatever has to hang on it is then written again by whoever wrote it.
#[derive(Clone)]
pub struct Lease {
    length: Duration,
    clock: BootClock,
    state: watch::Receiver<LeaseState>,
    check: Arc<Notify>,
}

impl Lease {
    /// Starts a lease of `length`, in whole seconds, measured on tokio's clock, which stands still while the
    /// machine is suspended: for tests. It is revoked when `stop` is cancelled.
    pub fn spawn(store: Store, length: Duration, stop: CancellationToken) -> Self {
        let start = Instant::now();
        Self::spawn_on(Arc::new(move || start.elapsed()), store, length, stop)
    }

    /// As [`spawn`](Self::spawn), measured on a clock that counts suspend.
    pub fn spawn_on(clock: BootClock, store: Store, length: Duration, stop: CancellationToken) -> Self {
        let (sender, state) = watch::channel(LeaseState::default());
        let check = Arc::new(Notify::new());
        let task = Task {
            store,
            length,
            clock: clock.clone(),
            state: sender,
            check: check.clone(),
        };
        tokio::spawn(task.run(stop));
        Self {
            length,
            clock,
            state,
            check,
        }
    }

    /// Length of the lease.
    pub fn length(&self) -> Duration {
        self.length
    }

    /// The lease as last known.
    pub fn state(&self) -> LeaseState {
        *self.state.borrow()
    }

    /// Every change of it; `changed()` fails once the task has ended. Each confirmation is a change: compare
    /// `id`.
    pub fn watch(&self) -> watch::Receiver<LeaseState> {
        self.state.clone()
    }

    /// The present lease's id.
    pub fn id(&self) -> Option<i64> {
        self.state().id
    }

    /// See [`LeaseState::confirmed_at`].
    pub fn confirmed_at(&self) -> Option<Instant> {
        self.state().confirmed_at
    }

    /// Until then (two thirds of its length after the last confirmation) what hangs on the lease may be acted
    /// on.
    pub fn fresh_until(&self) -> Option<Instant> {
        Some(Instant::now() + self.fresh_for()?)
    }

    /// What hangs on the lease may be acted on now.
    pub fn is_fresh(&self) -> bool {
        self.fresh_for().is_some()
    }

    fn fresh_for(&self) -> Option<Duration> {
        let state = self.state();
        state.id?;
        let age = (self.clock)().saturating_sub(state.confirmed_boot?);
        (self.length * 2 / 3)
            .checked_sub(age)
            .filter(|left| !left.is_zero())
    }

    /// Looks at once whether the lease still lives: for whoever was told [`StoreError::LeaseGone`].
    pub fn check(&self) {
        self.check.notify_one();
    }

    /// Waits for a lease and returns its id; None: the task has ended.
    pub async fn granted(&self) -> Option<i64> {
        let mut state = self.watch();
        state
            .wait_for(|state| state.id.is_some())
            .await
            .ok()
            .and_then(|state| state.id)
    }

    /// Waits until the task has ended, after `stop`: the lease is revoked, as far as etcd could be reached.
    pub async fn ended(&self) {
        let mut state = self.watch();
        while state.changed().await.is_ok() {}
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease")
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

/// When a request was sent, on both clocks.
#[derive(Clone, Copy)]
struct Sent(Instant, Duration);

struct Task {
    store: Store,
    length: Duration,
    clock: BootClock,
    state: watch::Sender<LeaseState>,
    check: Arc<Notify>,
}

impl Task {
    async fn run(self, stop: CancellationToken) {
        let mut granted = None;
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.keep_one(&mut granted) => {}
        }
        if let Some(id) = granted {
            let mut lease = self.store.lease_client();
            // Not reachable: the lease ends by itself.
            let _ = timeout(self.patience(), lease.revoke(id)).await;
        }
        self.state.send_replace(LeaseState::default());
    }

    /// Always has one lease, or tries to. `granted` is the one to revoke at the end.
    async fn keep_one(&self, granted: &mut Option<i64>) {
        loop {
            let sent = self.sent();
            match self.grant().await {
                Ok(id) => {
                    *granted = Some(id);
                    self.confirmed(id, sent);
                    self.keep_alive(id).await;
                    *granted = None;
                    tracing::warn!(lease = id, "the lease of this replica has ended");
                    self.state.send_replace(LeaseState::default());
                }
                Err(error) => {
                    tracing::warn!(%error, "no lease could be granted");
                    sleep(RETRY).await;
                }
            }
        }
    }

    async fn grant(&self) -> Result<i64, StoreError> {
        let seconds = i64::try_from(self.length.as_secs().max(1)).unwrap_or(i64::MAX);
        let mut lease = self.store.lease_client();
        match timeout(self.patience(), lease.grant(seconds, None)).await {
            Ok(answer) => Ok(answer?.id()),
            Err(_) => Err(StoreError::unknown("no answer to a lease grant")),
        }
    }

    /// Returns when etcd says that the lease is gone.
    async fn keep_alive(&self, id: i64) {
        loop {
            let Err(error) = self.keep_alive_on_one_stream(id).await;
            if error == StoreError::LeaseGone {
                return;
            }
            tracing::debug!(%error, "keepalives are interrupted");
            sleep(RETRY).await;
        }
    }

    async fn keep_alive_on_one_stream(&self, id: i64) -> Result<std::convert::Infallible, StoreError> {
        let silent = || StoreError::unknown("no answer to a keepalive");
        let mut client = self.store.lease_client();
        let sent = self.sent();
        let opened = timeout(self.patience(), client.keep_alive(id))
            .await
            .map_err(|_| silent())?;
        let (mut keeper, mut answers) = opened?;
        self.confirmed(id, sent);
        loop {
            tokio::select! {
                biased;
                () = self.check.notified() => {}
                () = sleep(self.length / 4) => {}
            }
            let sent = self.sent();
            timeout(self.patience(), one_keepalive(&mut keeper, &mut answers))
                .await
                .map_err(|_| silent())??;
            self.confirmed(id, sent);
        }
    }

    fn sent(&self) -> Sent {
        Sent(Instant::now(), (self.clock)())
    }

    fn confirmed(&self, id: i64, Sent(at, boot): Sent) {
        self.state.send_replace(LeaseState {
            id: Some(id),
            confirmed_at: Some(at),
            confirmed_boot: Some(boot),
        });
    }

    /// Short enough for two tries between a missed keepalive and two thirds of the lease.
    fn patience(&self) -> Duration {
        self.length / 6
    }
}

async fn one_keepalive(
    keeper: &mut LeaseKeeper,
    answers: &mut LeaseKeepAliveStream,
) -> Result<(), StoreError> {
    keeper.keep_alive().await?;
    match answers.message().await? {
        Some(answer) if answer.ttl() > 0 => Ok(()),
        Some(_) => Err(StoreError::LeaseGone),
        None => Err(StoreError::unknown("etcd closed the stream of keepalives")),
    }
}
