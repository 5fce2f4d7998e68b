//! One replica of the control plane, put together. Several can run in one process.

use std::{sync::Arc, time::Duration};

use prometheus_client::registry::Registry;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::{Clock, SystemClock, wall_clock},
    domain::stored,
    metrics::Metrics,
    plan::Defaults,
    reconcile::{self, Reconciler},
    sessions::{self, Sessions, asker::Asker, service::AgentService},
    store::{
        Candidate, Committer, CommitterSettings, Election, Lease, Mirror, QuotaWatch,
        Settings as StoreSettings, Store, codec::FORMAT,
    },
};

/// How long a stop waits for each thing that has to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a replica is told.
#[derive(Clone)]
pub struct ControlPlaneConfig {
    /// Name of the cluster: everything is stored below it.
    pub cluster: String,
    /// Id of this replica.
    pub replica: String,
    /// Its address for users.
    pub address: String,
    /// Its address for agents.
    pub agent_address: String,
    /// Lease of agents and of the replica, in whole seconds.
    pub lease: Duration,
    /// A heartbeat is due so often.
    pub heartbeat: Duration,
    /// Name servers of connectors that name none.
    pub default_namesrv: String,
    /// Missing topics of connectors that say nothing are created with so many queues; 0: never.
    pub default_topic_queues: u32,
    /// Most open sessions of agents. None: what the limit of open files allows.
    pub max_sessions: Option<usize>,
    /// Agents are asked to dial again after so long; zero: never.
    pub session_max_age: Duration,
    /// Most tasks that are on the move at once.
    pub max_moves: usize,
    /// The store's quota in bytes, where etcd does not tell.
    pub quota: Option<u64>,
    /// How patient calls of the store are.
    pub store: StoreSettings,
    /// Random, another one at every start: incarnation, ids and spreads come from it.
    pub seed: u64,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

impl ControlPlaneConfig {
    /// The defaults for a replica.
    pub fn new(cluster: &str, replica: &str, seed: u64) -> Self {
        Self {
            cluster: cluster.to_owned(),
            replica: replica.to_owned(),
            address: String::new(),
            agent_address: String::new(),
            lease: Duration::from_secs(9),
            heartbeat: Duration::from_secs(3),
            default_namesrv: String::new(),
            default_topic_queues: 0,
            max_sessions: None,
            session_max_age: Duration::from_secs(30 * 60),
            max_moves: 32,
            quota: None,
            store: StoreSettings::default(),
            seed,
            clock: Arc::new(SystemClock),
        }
    }
}

/// A replica that runs. Clones are handles to the same.
#[derive(Clone)]
pub struct ControlPlane {
    inner: Arc<Inner>,
}

struct Inner {
    config: ControlPlaneConfig,
    store: Store,
    mirror: Mirror,
    lease: Lease,
    election: Election,
    quota: QuotaWatch,
    sessions: Sessions,
    asker: Asker,
    reconciler: Reconciler,
    metrics: Metrics,
    stops: Stops,
}

/// In the order in which things are stopped.
#[derive(Default)]
struct Stops {
    sessions: CancellationToken,
    election: CancellationToken,
    lease: CancellationToken,
    rest: CancellationToken,
}

impl ControlPlane {
    /// Starts a replica on the etcd that `client` is connected to. It serves and stands for election by itself once
    /// etcd can be reached.
    pub fn start(config: ControlPlaneConfig, client: &etcd_client::Client) -> Self {
        let stops = Stops::default();
        let metrics = Metrics::default();
        let ids = Ids::new(&config);
        let store = Store::with_settings(client, &config.cluster, config.store);
        let mirror = Mirror::spawn(store.clone(), stops.rest.clone());
        // Counts suspension: a replica that was asleep must not take its lease for fresh.
        let clock = config.clock.clone();
        let boot_clock = Arc::new(move || clock.now());
        let lease = Lease::spawn_on(boot_clock, store.clone(), config.lease, stops.lease.clone());
        let quota = QuotaWatch::spawn(store.clone(), config.quota, stops.rest.clone());
        let committer = Committer::spawn(
            store.clone(),
            wall_clock(config.clock.clone()),
            CommitterSettings::default(),
            stops.rest.clone(),
        );
        let candidate = Candidate {
            replica: config.replica.clone(),
            incarnation: ids.incarnation.clone(),
            address: config.address.clone(),
            new_store_id: ids.store_id,
        };
        let election = Election::spawn(
            store.clone(),
            mirror.clone(),
            lease.clone(),
            candidate,
            stops.election.clone(),
        );
        let record = stored::Replica {
            format: FORMAT,
            incarnation: ids.incarnation,
            address: config.address.clone(),
            agent_address: config.agent_address.clone(),
            reads: FORMAT,
        };
        spawn_until(
            &stops.rest,
            announce(store.clone(), lease.clone(), config.replica.clone(), record),
        );
        spawn_until(&stops.rest, measure_lag(mirror.clone(), metrics.clone()));
        let asker = Asker::new(store.clone(), mirror.clone(), ids.asks);
        let sessions = Sessions::spawn(
            sessions::Parts {
                store: store.clone(),
                mirror: mirror.clone(),
                lease: lease.clone(),
                committer,
                clock: config.clock.clone(),
                metrics: metrics.clone(),
            },
            sessions::Settings {
                replica: config.replica.clone(),
                heartbeat: config.heartbeat,
                lease: config.lease,
                max_sessions: config.max_sessions.unwrap_or_else(sessions::default_max_sessions),
                max_age: config.session_max_age,
                seed: ids.spread,
            },
            stops.sessions.clone(),
        );
        let reconciler = Reconciler::spawn(
            reconcile::Parts {
                store: store.clone(),
                mirror: mirror.clone(),
                asker: asker.clone(),
                clock: config.clock.clone(),
                metrics: metrics.clone(),
            },
            election.clone(),
            reconcile::Settings {
                lease: config.lease,
                defaults: Defaults {
                    namesrv: config.default_namesrv.clone(),
                    create_queues: config.default_topic_queues,
                },
                max_moves: config.max_moves,
                debounce: Duration::from_millis(20),
                debounce_max: Duration::from_millis(200),
                concurrency: 32,
            },
            stops.rest.clone(),
        );
        Self {
            inner: Arc::new(Inner {
                config,
                store,
                mirror,
                lease,
                election,
                quota,
                sessions,
                asker,
                reconciler,
                metrics,
                stops,
            }),
        }
    }

    /// What it was told.
    pub fn config(&self) -> &ControlPlaneConfig {
        &self.inner.config
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// The store in memory.
    pub fn mirror(&self) -> &Mirror {
        &self.inner.mirror
    }

    /// The replica's lease.
    pub fn lease(&self) -> &Lease {
        &self.inner.lease
    }

    /// How full the store is.
    pub fn quota(&self) -> &QuotaWatch {
        &self.inner.quota
    }

    /// Asks agents what only code can answer.
    pub fn asker(&self) -> &Asker {
        &self.inner.asker
    }

    /// Leads, or follows.
    pub fn reconciler(&self) -> &Reconciler {
        &self.inner.reconciler
    }

    /// The service for agents.
    pub fn agent_service(&self) -> AgentService {
        AgentService::new(self.inner.sessions.clone())
    }

    /// Figures.
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// Makes the figures readable.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.inner.metrics.register(registry);
        self.inner.store.metrics().register(registry);
    }

    /// Waits until everything was read from the store once.
    pub async fn ready(&self) {
        self.inner.mirror.ready().await;
    }

    /// Stops in order: agents are told to dial others, the lead is given back, the lease is revoked.
    pub async fn shutdown(&self) {
        let Inner {
            stops,
            sessions,
            election,
            lease,
            ..
        } = &*self.inner;
        stops.sessions.cancel();
        let _ = timeout(PATIENCE, sessions.ended()).await;
        stops.election.cancel();
        let _ = timeout(PATIENCE, election.ended()).await;
        stops.lease.cancel();
        let _ = timeout(PATIENCE, lease.ended()).await;
        stops.rest.cancel();
    }
}

/// What a replica makes of its seed: unlike those of another replica, or of another start.
struct Ids {
    incarnation: String,
    store_id: String,
    asks: u64,
    spread: u64,
}

impl Ids {
    fn new(config: &ControlPlaneConfig) -> Self {
        let mut hash = Sha256::new();
        hash.update(config.seed.to_be_bytes());
        hash.update(config.replica.as_bytes());
        let mut random = SmallRng::from_seed(hash.finalize().into());
        let mut id = || format!("{:032x}", random.random::<u128>());
        let (incarnation, store_id) = (id(), id());
        Self {
            incarnation,
            store_id,
            asks: random.random(),
            spread: random.random(),
        }
    }
}

/// Keeps the replica's own record on its present lease.
async fn announce(store: Store, lease: Lease, replica: String, record: stored::Replica) {
    let mut state = lease.watch();
    let mut written = None;
    loop {
        let id = state.borrow_and_update().id;
        if let Some(id) = id.filter(|id| written != Some(*id)) {
            match store.put_replica(&replica, &record, id).await {
                Ok(_) => written = Some(id),
                Err(error) => {
                    tracing::debug!(%error, "the replica's record could not be written");
                    lease.check();
                    sleep(Duration::from_millis(200)).await;
                    continue;
                }
            }
        }
        if state.changed().await.is_err() {
            return;
        }
    }
}

async fn measure_lag(mirror: Mirror, metrics: Metrics) {
    let mut ticks = interval(Duration::from_secs(1));
    // While it is cut off, what it last was grows older.
    let mut fresh_at = Instant::now();
    loop {
        ticks.tick().await;
        fresh_at = mirror.connection().fresh_at.unwrap_or(fresh_at);
        metrics.mirror_lag.set((Instant::now() - fresh_at).as_secs_f64());
    }
}

fn spawn_until(stop: &CancellationToken, task: impl Future<Output = ()> + Send + 'static) {
    let stop = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = task => {}
        }
    });
}
