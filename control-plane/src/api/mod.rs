//! The API for users: translate, call, answer. What is allowed and what is valid is decided in [`crate::domain`].

mod agents;
mod answers;
mod connectors;
mod connectors_service;
mod handles;
mod paging;
mod plugins;
mod principal;
mod views;
mod watch;

use std::sync::Arc;

use gantry_proto::v1::{
    agent_service_server::AgentServiceServer, connector_service_server::ConnectorServiceServer,
    plugin_service_server::PluginServiceServer,
};
use tokio_util::sync::CancellationToken;

pub use principal::Principal;
use views::Views;

use self::handles::Handles;
use crate::{plan::Defaults, replica::ControlPlane};

/// Largest message that is taken from a user. A definition has at most 256 KiB; the rest is room to say so.
const MAX_REQUEST: usize = 4 << 20;

/// What the services share.
pub(crate) struct Shared {
    pub(crate) handles: Handles,
    pub(crate) views: Views,
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

    /// ConnectorService.
    pub fn connectors(&self) -> ConnectorServiceServer<connectors_service::Connectors> {
        ConnectorServiceServer::new(connectors_service::Connectors(self.shared.clone()))
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
