//! The API on a real etcd: pages, filters, conditional and repeated writes, the table of actions, watches, agents.

mod actions;
mod agents;
mod lists;
mod watches;
mod writes;

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use gantry_client::v1::Connector;
use gantry_client::v1::connector_service_client::ConnectorServiceClient;
use gantry_client::{Client, Error};
use gantry_proto::error::Reason;
use gantry_tests::connectors::definition;
use gantry_tests::{Cluster, Ports, RocketMq, WorkDir};
use serde_json::{Value, json};
use tonic::Status;
use tonic::transport::Channel;
use tonic_types::StatusExt;

const TEST: Duration = Duration::from_secs(150);
const SOON: Duration = Duration::from_secs(45);

/// A control plane with agents.
struct Site<'a> {
    cluster: Cluster<'a>,
    client: Client,
    raw: ConnectorServiceClient<Channel>,
    /// Where RocketMQ would be, for tests in which no connector has to run.
    _no_broker: Option<Ports>,
    _rocketmq: Option<RocketMq>,
}

impl<'a> Site<'a> {
    /// Without a broker: no connector can be split into tasks.
    async fn start(work: &'a WorkDir, agents: &[&str]) -> Result<Self> {
        let no_broker = Ports::reserve(1)?;
        let site = Self::start_on(work, agents, &no_broker.address(0)).await?;
        Ok(Self {
            _no_broker: Some(no_broker),
            ..site
        })
    }

    /// With a broker that has the topic.
    async fn start_with_broker(work: &'a WorkDir, agents: &[&str]) -> Result<Self> {
        let rocketmq = RocketMq::start(work, "rocketmq").await?;
        rocketmq.create_topic("lines", 1).await?;
        let site = Self::start_on(work, agents, &rocketmq.namesrv()).await?;
        Ok(Self {
            _rocketmq: Some(rocketmq),
            ..site
        })
    }

    async fn start_on(work: &'a WorkDir, agents: &[&str], namesrv: &str) -> Result<Self> {
        let mut cluster = Cluster::start(work, namesrv).await?;
        for agent in agents {
            cluster.start_agent(agent).await?;
        }
        let raw = ConnectorServiceClient::connect(cluster.endpoint()).await?;
        Ok(Self {
            client: cluster.client()?,
            cluster,
            raw,
            _no_broker: None,
            _rocketmq: None,
        })
    }

    /// A source of files that the agents may read, and do not find.
    fn source(&self, name: &str, more: &Value) -> Result<Connector> {
        let pattern = self
            .cluster
            .files()
            .join(name)
            .join("*.log")
            .display()
            .to_string();
        definition(name, "file-source", "lines", &json!({ "paths": [pattern] }), more)
    }

    async fn create(&self, name: &str, more: &Value) -> Result<Connector> {
        Ok(self.client.create(self.source(name, more)?, false).await?)
    }
}

fn stopped() -> Value {
    json!({ "target_state": "TARGET_STATE_STOPPED" })
}

/// The reason of a refusal, which also has to carry the code that belongs to it.
fn reason<T>(result: Result<T, Status>) -> Result<Reason> {
    let Err(status) = result else {
        bail!("it was not refused")
    };
    let info = status
        .get_details_error_info()
        .with_context(|| format!("without ErrorInfo: {status:?}"))?;
    let reason =
        Reason::parse(&info.reason).with_context(|| format!("an unknown reason: {}", info.reason))?;
    ensure!(
        status.code() == reason.code() && info.domain == "gantry",
        "{status:?}"
    );
    Ok(reason)
}

/// The reason of a refusal through the client.
fn why<T>(result: Result<T, Error>) -> Result<Reason> {
    match result {
        Ok(_) => bail!("it was not refused"),
        Err(error) => error
            .reason()
            .with_context(|| format!("a refusal without a reason: {error}")),
    }
}
