use std::time::Duration;

use super::{
    node::{Node, NodeConfig},
    signals,
};
use crate::{
    args::{Dev, Global},
    failure::Failure,
    render::out,
    telemetry,
};

/// The demo's process as a service: data survives a restart.
pub(crate) async fn dev(global: &Global, dev: Dev) -> Result<(), Failure> {
    let telemetry = telemetry::start(global, "gantry-dev", "dev", "info")?;
    let stop = signals::shutdown()?;
    let config = NodeConfig {
        data_dir: dev.data_dir,
        listen: dev.listen,
        namesrv: dev.namesrv,
        agents: dev.agents,
        etcd_listen: dev.embedded_etcd_listen,
        metrics_listen: dev.metrics_listen,
        agent_metrics_listen: dev.agent_metrics_listen,
        insecure: dev.insecure,
        redactor: telemetry.redactor(),
        begins_anew: true,
    };
    // A broker with much data may take long to start.
    let node = tokio::select! {
        node = Node::start(config, stop.clone()) => node?,
        () = stop.cancelled() => return Ok(()),
    };
    if let Some(address) = node.etcd_endpoint() {
        out(&format!("store for etcdctl on http://{address}"))?;
    }
    for (who, address) in node.metrics() {
        out(&format!("metrics of {who} on http://{address}/metrics"))?;
    }
    out(&format!("ready on {}", node.endpoint()))?;
    stop.cancelled().await;
    node.stopped(Duration::from_secs(60)).await;
    Ok(())
}
