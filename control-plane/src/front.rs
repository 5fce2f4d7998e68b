//! What a replica shows: the services for users and for agents, each with health, the users' with reflection.

use std::sync::Arc;

use gantry_proto::FILE_DESCRIPTOR_SET;
use parking_lot::RwLock;
use prometheus_client::registry::Registry;
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::ServingStatus;

use crate::{
    api::Api,
    metrics::Cluster,
    reconcile::Role,
    replica::ControlPlane,
    server::{CallMetrics, Calls},
};

/// The services of one replica.
pub struct Front {
    /// For users.
    pub users: Routes,
    /// For agents.
    pub agents: Routes,
    /// What both listeners count.
    pub calls: Calls,
    /// All figures of the replica.
    pub registry: Arc<RwLock<Registry>>,
}

/// The descriptors that are served by reflection cannot be used: a fault of the build.
#[derive(Debug, Error)]
#[error("reflection cannot be served")]
pub struct ReflectionError(#[from] tonic_reflection::server::Error);

const SERVICES: &[&str] = &[
    "gantry.v1.ConnectorService",
    "gantry.v1.PluginService",
    "gantry.v1.AgentService",
];

impl Front {
    /// Puts the services together. Watches end, and health says NOT_SERVING, with `shutdown`.
    ///
    /// # Errors
    /// [`ReflectionError`].
    pub async fn new(control: &ControlPlane, shutdown: CancellationToken) -> Result<Self, ReflectionError> {
        let api = Api::start(control.clone(), shutdown.clone());
        let (reporter, health) = tonic_health::server::health_reporter();
        for service in SERVICES {
            reporter
                .set_service_status(*service, ServingStatus::Serving)
                .await;
        }
        tokio::spawn(async move {
            shutdown.cancelled().await;
            for service in SERVICES.iter().copied().chain([""]) {
                reporter
                    .set_service_status(service, ServingStatus::NotServing)
                    .await;
            }
        });
        // The descriptors also hold what agents speak: users are not told of it.
        let reflection = || {
            let advertised = SERVICES.iter().chain(&["grpc.health.v1.Health"]);
            let builder = tonic_reflection::server::Builder::configure();
            advertised
                .fold(builder, |builder, service| builder.with_service_name(*service))
                .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let users = Routes::new(api.connectors())
            .add_service(api.plugins())
            .add_service(api.agents())
            .add_service(health.clone())
            .add_service(reflection().build_v1()?)
            .add_service(reflection().build_v1alpha()?);
        let agents = Routes::new(control.agent_service().into_server()).add_service(health);
        let mut registry = Registry::default();
        control.register_metrics(&mut registry);
        let (reconciler, quota) = (control.reconciler().clone(), control.quota().clone());
        let counts = move || match reconciler.role() {
            Role::Leader { .. } => Some(api.counts()),
            Role::Follower => None,
        };
        registry.register_collector(Box::new(Cluster::new(counts, move || quota.quota())));
        let calls = Calls::new(CallMetrics::register(&mut registry));
        Ok(Self {
            users,
            agents,
            calls,
            registry: Arc::new(RwLock::new(registry)),
        })
    }
}
