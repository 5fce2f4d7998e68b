use std::{net::SocketAddr, sync::Arc};

use gantry_connector::{Env, PathPolicy};
use gantry_proto::name::Id;
use tokio::{sync::watch, task::AbortHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    AgentConfig, AgentError,
    backoff::Jitter,
    lease::Lease,
    lock::{self, AgentLock},
    metrics::{Endpoint, Metrics},
    secrets::Secrets,
    session::{
        Dialer, Identity, Pushes, Session,
        asks::{Asks, Calls},
        watch_lease,
    },
    supervisor::{Shared, Supervisor, admit::Registry, reports::Reports},
    task::{commit::CommitStream, thread::Place},
    wire,
};

/// An agent that is ready to run. Several may run in one process, each with a name of its own.
pub struct Agent {
    config: AgentConfig,
    dialer: Dialer,
    jitter: Jitter,
    metrics: Metrics,
    endpoint: Option<Endpoint>,
    lock: AgentLock,
}

impl Agent {
    /// Checks the configuration, takes the lock of the name and listens for metrics. Contacts nobody.
    ///
    /// # Errors
    /// If a setting is malformed, another process on this machine has the name, or the address for metrics is taken.
    pub async fn build(config: AgentConfig) -> Result<Self, AgentError> {
        Id::parse(&config.name).map_err(|e| AgentError::Config(format!("agent name {e}")))?;
        let jitter = Jitter::new(config.seed);
        let dialer = Dialer::new(
            &config.servers,
            config.tls.clone(),
            config.token.as_deref(),
            jitter.clone(),
            config.hooks.dial.clone(),
        )?;
        for plugin in &config.plugins {
            let info = plugin.info();
            let faults = info.spec.faults();
            if !faults.is_empty() {
                return Err(AgentError::Config(format!(
                    "plugin {}: {}",
                    info.name,
                    faults.join("; ")
                )));
            }
        }
        let lock = AgentLock::take(&config.lock_dir, &config.name, config.hooks.clock.wall())?;
        let endpoint = match config.metrics_listen {
            Some(address) => Some(Endpoint::bind(address).await?),
            None => None,
        };
        Ok(Self {
            config,
            dialer,
            jitter,
            metrics: Metrics::new(),
            endpoint,
            lock,
        })
    }

    /// Where Prometheus may ask for metrics.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.endpoint.as_ref().and_then(Endpoint::address)
    }

    /// Runs until `shutdown` is cancelled; then drains all tasks, commits, says goodbye and returns.
    ///
    /// # Errors
    /// If the control plane refuses the agent for good.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), AgentError> {
        let Self {
            config,
            dialer,
            jitter,
            metrics,
            endpoint,
            lock,
        } = self;
        let AgentConfig { hooks, limits, .. } = config.clone();
        let place = match hooks.inline_connectors {
            true => Place::Inline,
            false => Place::threads().map_err(AgentError::Threads)?,
        };
        let lease = Arc::new(Lease::new(hooks.clock.clone()));
        let (link, link_seen) = watch::channel(None);
        let (store, commits) = CommitStream::new(link_seen, lease.clone(), jitter.clone());
        let secrets = Arc::new(Secrets::new(config.secrets_paths.clone()).told_to(config.redactor.clone()));
        let env = Env {
            paths: PathPolicy::new(config.allow_paths.clone()),
        };
        let reports = Arc::new(Reports::default());
        let registry = Registry::new(config.plugins.clone());
        let supervisor = Supervisor::spawn(Shared {
            store: Arc::new(store),
            bus: config.bus.clone(),
            lease: lease.clone(),
            limits: Arc::new(limits.clone()),
            hooks: hooks.clone(),
            place: place.clone(),
            secrets: secrets.clone(),
            env: env.clone(),
            jitter: jitter.clone(),
            metrics: metrics.clone(),
            reports: reports.clone(),
        });
        let end = CancellationToken::new();
        let _commits = AbortOnDrop(tokio::spawn(commits.run()).abort_handle());
        let _watchdog =
            AbortOnDrop(tokio::spawn(watch_lease(lease.clone(), supervisor.clone())).abort_handle());
        let _endpoint =
            endpoint.map(|e| AbortOnDrop(tokio::spawn(e.serve(metrics.clone(), end.clone())).abort_handle()));
        let _end = end.drop_guard();
        let session = Session {
            identity: identity(&config, &lock, &registry),
            dialer,
            lease,
            supervisor,
            reports,
            pushes: Pushes::new(registry.clone()),
            asks: Asks {
                registry,
                secrets,
                env,
                bus: config.bus.clone(),
                limit: limits.hooks.ask,
                place,
                calls: Calls::new(limits.hooks.leaked_asks, metrics.clone()),
            },
            link,
            metrics,
            jitter,
            store_id: String::new(),
        };
        let result = session.run(shutdown).await;
        // Held to the very end: only now may another process have the name.
        drop(lock);
        result
    }
}

fn identity(config: &AgentConfig, lock: &AgentLock, registry: &Registry) -> Identity {
    let (host, host_id) = lock::host();
    Identity {
        agent: config.name.as_str().into(),
        instance_uid: uuid::Uuid::new_v4().to_string().into(),
        lock: lock.identity.clone(),
        start_counter: lock.start_counter,
        dial_counter: 0,
        host,
        host_id,
        labels: config.labels.clone(),
        capacity: config.capacity,
        plugins: registry.iter().map(|p| wire::plugin_out(&p.info())).collect(),
    }
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
