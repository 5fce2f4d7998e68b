//! A control plane and agents whose settings a test chooses itself. Where all shall be as usual, [`Cluster`](crate::Cluster) is
//! simpler.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gantry_client::Client;
use gantry_client::v1::agent::State;
use gantry_embedded_rocketmq::{EmbeddedRocketmq, Options};

use crate::gantry::Gantry;
use crate::ports::Ports;
use crate::process::Process;
use crate::servers::etcd::Etcd;
use crate::wait::eventually;
use crate::work::WorkDir;

const SOON: Duration = Duration::from_secs(60);

/// A store, a broker within the test, addresses, and the arguments that go with them.
#[derive(Debug)]
pub struct Parts<'a> {
    work: &'a WorkDir,
    ports: Ports,
    files: PathBuf,
    locks: PathBuf,
    broker: Option<EmbeddedRocketmq>,
    /// The store.
    pub etcd: Etcd,
}

impl<'a> Parts<'a> {
    /// Starts the store; no task can be started.
    pub async fn start(work: &'a WorkDir) -> Result<Self> {
        Ok(Self {
            work,
            ports: Ports::reserve(4)?,
            // Agents allow only what this leads to.
            files: work.dir("files")?.canonicalize()?,
            locks: work.dir("locks")?,
            broker: None,
            etcd: Etcd::start(work, "etcd").await?,
        })
    }

    /// Starts the store and a broker.
    pub async fn with_broker(work: &'a WorkDir) -> Result<Self> {
        let dir = work.dir("rocketmq")?;
        let broker = EmbeddedRocketmq::start(&dir, Options::default()).await?;
        Ok(Self {
            broker: Some(broker),
            ..Self::start(work).await?
        })
    }

    /// The broker's name server.
    pub fn namesrv(&self) -> String {
        self.broker
            .as_ref()
            .map_or_else(|| "127.0.0.1:9".to_owned(), EmbeddedRocketmq::namesrv_addr)
    }

    /// Stops the broker in order.
    pub async fn stop(mut self) {
        if let Some(broker) = self.broker.take() {
            broker.stop().await;
        }
    }

    /// The directory below which agents may work.
    pub fn files(&self) -> &std::path::Path {
        &self.files
    }

    /// Where users are served, as `HOST:PORT`.
    pub fn users(&self) -> String {
        self.ports.address(0)
    }

    /// Where agents are served.
    pub fn agents(&self) -> String {
        self.ports.address(1)
    }

    /// Where the server's metrics are served, if it is told to.
    pub fn server_metrics(&self) -> String {
        self.ports.address(2)
    }

    /// Where the metrics of one agent are served, if it is told to.
    pub fn agent_metrics(&self) -> String {
        self.ports.address(3)
    }

    /// Starts the server, on the same addresses each time, and waits until it serves.
    pub async fn server(&self, more: &[&str]) -> Result<Gantry> {
        Gantry::start(self.work, "server", &self.server_args(more)).await
    }

    /// Arguments of the server.
    pub fn server_args(&self, more: &[&str]) -> Vec<String> {
        let (etcd, namesrv) = (self.etcd.endpoints().join(","), self.namesrv());
        let (users, agents) = (self.users(), self.agents());
        let mut args = vec![
            "server",
            "--etcd",
            &etcd,
            "--listen",
            &users,
            "--agent-listen",
            &agents,
            "--namesrv",
            &namesrv,
            "--topic-create-queues",
            "2",
        ];
        args.extend(more);
        args.into_iter().map(str::to_owned).collect()
    }

    /// Starts an agent and waits for nothing. `scheme`: how it shall dial.
    pub fn agent(&self, name: &str, scheme: &str, more: &[&str]) -> Result<Process> {
        let server = format!("{scheme}://{}", self.agents());
        let (files, locks) = (self.files.display().to_string(), self.locks.display().to_string());
        let mut args = vec![
            "agent",
            "--server",
            &server,
            "--name",
            name,
            "--allow-path",
            &files,
            "--lock-dir",
            &locks,
        ];
        args.extend(more);
        Gantry::spawn(self.work, &format!("agent-{name}"), &args)
    }
}

/// Waits until the control plane lists an agent as ready, with this process as its latest.
pub async fn ready(client: &Client, name: &str, process: &Process, before: &str) -> Result<String> {
    eventually(SOON, &format!("the agent {name} is ready"), async || {
        ensure!(process.is_running(), "it has ended");
        let agent = client.agent(name).await?;
        ensure!(
            agent.state() == State::Ready && agent.instance_uid != before,
            "it is {}",
            agent.state().as_str_name()
        );
        Ok(agent.instance_uid)
    })
    .await
    .with_context(|| process.tail())
}
