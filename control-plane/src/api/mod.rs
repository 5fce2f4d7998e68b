//! The API for users: translate, call, answer. What is allowed and what is valid is decided in [`crate::domain`].

mod agents;
mod answers;
mod connectors;
mod handles;
mod paging;
mod plugins;
mod principal;
mod views;
mod watch;

use std::{sync::Arc, time::Duration};

use gantry_proto::{
    error::Refusal,
    v1::{
        agent_service_server::AgentServiceServer, connector_service_server::ConnectorServiceServer,
        plugin_service_server::PluginServiceServer,
    },
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use principal::Principal;
use views::Views;

use self::handles::Handles;
use crate::{domain::Snapshot, plan::Defaults, replica::ControlPlane, store::Key};

/// Largest message that is taken from a user. A definition has at most 256 KiB; the rest is room to say so.
const MAX_REQUEST: usize = 4 << 20;
/// How long an answer waits for this replica to see what was read or written.
const CATCH_UP: Duration = Duration::from_secs(2);

/// What the services share.
pub(crate) struct Shared {
    pub(crate) handles: Handles,
    pub(crate) views: Views,
}

impl Shared {
    /// A snapshot that has everything which was acknowledged before this call, by whichever replica.
    async fn current(&self) -> Result<Arc<Snapshot>, Refusal> {
        let read = self.handles.store.get_raw(&Key::StoreId).await;
        let (_, revision) = read.map_err(answers::store)?;
        self.seen(revision).await?;
        Ok(self.handles.mirror.snapshot())
    }

    /// Waits until this replica has seen that revision.
    async fn seen(&self, revision: i64) -> Result<(), Refusal> {
        let until = Instant::now() + CATCH_UP;
        let waited = self.handles.mirror.wait_revision(revision, until).await;
        waited.map_err(|_| answers::replica_behind())
    }
}

/// The services for users.
#[derive(Clone)]
pub struct Api {
    shared: Arc<Shared>,
}

impl Api {
    /// The services of a replica. Watches end with `shutdown`.
    pub fn start(control: ControlPlane, shutdown: CancellationToken) -> Self {
        let config = control.config();
        let defaults = Defaults {
            namesrv: config.default_namesrv.clone(),
            create_queues: config.default_topic_queues,
        };
        let views = Views::start(control.mirror().clone(), defaults, config.clock.clone(), shutdown);
        Self {
            shared: Arc::new(Shared {
                handles: Handles::new(control),
                views,
            }),
        }
    }

    /// How many resources are in which state.
    pub(crate) fn counts(&self) -> crate::metrics::ClusterCounts {
        let now = self.shared.views.now();
        crate::metrics::ClusterCounts::of(
            now.connectors.values().map(|c| &**c),
            now.tasks.values().map(|t| &**t),
            now.agents.values().map(|a| &**a),
        )
    }

    /// ConnectorService.
    pub fn connectors(&self) -> ConnectorServiceServer<connectors::Connectors> {
        ConnectorServiceServer::new(connectors::Connectors(self.shared.clone()))
            .max_decoding_message_size(MAX_REQUEST)
    }

    /// PluginService.
    pub fn plugins(&self) -> PluginServiceServer<plugins::Plugins> {
        PluginServiceServer::new(plugins::Plugins(self.shared.clone()))
    }

    /// AgentService.
    pub fn agents(&self) -> AgentServiceServer<agents::Agents> {
        AgentServiceServer::new(agents::Agents(self.shared.clone()))
    }
}
