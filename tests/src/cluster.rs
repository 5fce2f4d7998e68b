//! A control plane on a real etcd, and agents: each a process of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gantry_client::v1::agent::State;
use gantry_client::{Client, Options};

use crate::cli::Cli;
use crate::gantry::Gantry;
use crate::ports::Ports;
use crate::process::Process;
use crate::servers::etcd::Etcd;
use crate::wait::eventually;
use crate::work::WorkDir;

const SOON: Duration = Duration::from_secs(60);

/// An etcd, one `gantry server`, and as many `gantry agent` as a test starts.
#[derive(Debug)]
pub struct Cluster<'a> {
    work: &'a WorkDir,
    files: PathBuf,
    ports: Ports,
    namesrv: String,
    // Agents end before the server, and the server before its store.
    agents: BTreeMap<String, Process>,
    server: Option<Gantry>,
    /// The store.
    pub etcd: Etcd,
}

impl<'a> Cluster<'a> {
    /// Starts etcd and the server; `namesrv` is RocketMQ's name server, which need not be there.
    pub async fn start(work: &'a WorkDir, namesrv: &str) -> Result<Self> {
        let mut cluster = Self {
            work,
            // Agents allow only what this leads to.
            files: work.dir("files")?.canonicalize()?,
            ports: Ports::reserve(2)?,
            namesrv: namesrv.to_owned(),
            agents: BTreeMap::new(),
            server: None,
            etcd: Etcd::start(work, "etcd").await?,
        };
        cluster.start_server().await?;
        Ok(cluster)
    }

    /// The directory below which agents may work.
    pub fn files(&self) -> &Path {
        &self.files
    }

    /// Starts the server, on the same addresses each time, and waits until it serves.
    pub async fn start_server(&mut self) -> Result<()> {
        self.server = Some(Gantry::start(self.work, "server", &self.server_args()).await?);
        Ok(())
    }

    /// Starts the server and waits for nothing.
    pub fn spawn_server(&self) -> Result<Process> {
        Gantry::spawn(self.work, "server", &self.server_args())
    }

    fn server_args(&self) -> Vec<String> {
        let etcd = self.etcd.endpoints().join(",");
        let (listen, agent_listen) = (self.ports.address(0), self.ports.address(1));
        [
            "server",
            "--etcd",
            &etcd,
            "--listen",
            &listen,
            "--agent-listen",
            &agent_listen,
            "--namesrv",
            &self.namesrv,
        ]
        .map(str::to_owned)
        .into()
    }

    /// Ends the server in order.
    pub async fn stop_server(&mut self) -> Result<ExitStatus> {
        let mut server = self.server.take().context("the server does not run")?;
        server.process().terminate(SOON).await
    }

    /// Where users find the API.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.ports.address(0))
    }

    /// Client commands against the server.
    pub fn cli(&self) -> Cli {
        Cli::new(&self.endpoint(), self.work)
    }

    /// A client of the server that bridges a restart of it.
    pub fn client(&self) -> Result<Client> {
        let options = Options {
            retries: 60,
            ..Options::default()
        };
        Ok(Client::connect_lazy(&self.endpoint(), options)?)
    }

    /// Starts an agent and waits until the control plane lists this very process.
    pub async fn start_agent(&mut self, name: &str) -> Result<()> {
        let client = self.client()?;
        let before = client
            .agent(name)
            .await
            .map(|agent| agent.instance_uid)
            .unwrap_or_default();
        self.spawn_agent(name)?;
        let process = &self.agents[name];
        eventually(SOON, &format!("the agent {name} is ready"), async || {
            ensure!(process.is_running(), "it has ended");
            let agent = client.agent(name).await?;
            let new = agent.instance_uid != before;
            ensure!(
                new && agent.state() == State::Ready,
                "it is {}",
                agent.state().as_str_name()
            );
            Ok(())
        })
        .await
        .with_context(|| process.tail())
    }

    /// Starts an agent and waits for nothing. Kills the one of that name before, if it runs.
    pub fn spawn_agent(&mut self, name: &str) -> Result<()> {
        self.agents.remove(name);
        let process = self.spawn_twin(name)?;
        self.agents.insert(name.to_owned(), process);
        Ok(())
    }

    /// Starts an agent, even if one of that name runs.
    pub fn spawn_twin(&self, name: &str) -> Result<Process> {
        let (server, locks) = (
            format!("http://{}", self.ports.address(1)),
            self.work.dir("locks")?,
        );
        let args: [&std::ffi::OsStr; 9] = [
            "agent".as_ref(),
            "--server".as_ref(),
            server.as_ref(),
            "--name".as_ref(),
            name.as_ref(),
            "--allow-path".as_ref(),
            self.files.as_os_str(),
            "--lock-dir".as_ref(),
            locks.as_os_str(),
        ];
        Gantry::spawn(self.work, &format!("agent-{name}"), &args)
    }

    /// Kills an agent as `kill -9` does.
    pub fn kill_agent(&mut self, name: &str) -> Result<()> {
        let mut agent = self
            .agents
            .remove(name)
            .with_context(|| format!("agent {name} does not run"))?;
        ensure!(
            agent.is_running(),
            "agent {name} has ended by itself\n{}",
            agent.tail()
        );
        agent.kill()?;
        Ok(())
    }

    /// Ends an agent in order.
    pub async fn stop_agent(&mut self, name: &str) -> Result<ExitStatus> {
        let mut agent = self
            .agents
            .remove(name)
            .with_context(|| format!("agent {name} does not run"))?;
        agent.terminate(SOON).await
    }
}
