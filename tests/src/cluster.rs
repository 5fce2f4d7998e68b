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
const HEARTBEAT: Duration = Duration::from_secs(3);

/// An etcd, one `gantry server` or several, and as many `gantry agent` as a test starts.
#[derive(Debug)]
pub struct Cluster<'a> {
    work: &'a WorkDir,
    files: PathBuf,
    namesrv: String,
    heartbeat: Duration,
    // Agents end before the replicas, and these before their store.
    agents: BTreeMap<String, Process>,
    replicas: Vec<Replica>,
    /// The store.
    pub etcd: Etcd,
}

/// A `gantry server`, whether it runs or not.
#[derive(Debug)]
struct Replica {
    name: String,
    /// For users and for agents.
    ports: Ports,
    /// What it takes for etcd.
    store: String,
    process: Option<Gantry>,
}

impl<'a> Cluster<'a> {
    /// Starts etcd and the server; `namesrv` is RocketMQ's name server, which need not be there.
    pub async fn start(work: &'a WorkDir, namesrv: &str) -> Result<Self> {
        let etcd = Etcd::start(work, "etcd").await?;
        let stores = [etcd.endpoints().join(",")];
        Self::replicated(work, namesrv, etcd, &stores, HEARTBEAT).await
    }

    /// Starts a replica for each of `stores`: the addresses at which it finds etcd, with commas between.
    pub async fn replicated(
        work: &'a WorkDir,
        namesrv: &str,
        etcd: Etcd,
        stores: &[String],
        heartbeat: Duration,
    ) -> Result<Self> {
        let mut replicas = Vec::new();
        for (index, store) in stores.iter().enumerate() {
            replicas.push(Replica {
                name: if index == 0 {
                    "server".to_owned()
                } else {
                    format!("server-{index}")
                },
                ports: Ports::reserve(2)?,
                store: store.clone(),
                process: None,
            });
        }
        let mut cluster = Self {
            work,
            // Agents allow only what this leads to.
            files: work.dir("files")?.canonicalize()?,
            namesrv: namesrv.to_owned(),
            heartbeat,
            agents: BTreeMap::new(),
            replicas,
            etcd,
        };
        for index in 0..stores.len() {
            cluster.start_replica(index).await?;
        }
        Ok(cluster)
    }

    /// The directory below which agents may work.
    pub fn files(&self) -> &Path {
        &self.files
    }

    /// Starts the server, on the same addresses each time, and waits until it serves.
    pub async fn start_server(&mut self) -> Result<()> {
        self.start_replica(0).await
    }

    /// Starts a replica, on the same addresses each time, and waits until it serves.
    pub async fn start_replica(&mut self, index: usize) -> Result<()> {
        let replica = &self.replicas[index];
        let started = Gantry::start(self.work, &replica.name, &self.replica_args(index)).await?;
        self.replicas[index].process = Some(started);
        Ok(())
    }

    /// Starts replicas at the same time and waits until all serve.
    pub async fn start_replicas(&mut self, indices: &[usize]) -> Result<()> {
        let spawn =
            |index: usize| Gantry::spawn(self.work, &self.replicas[index].name, &self.replica_args(index));
        let spawned: Vec<Process> = indices.iter().map(|index| spawn(*index)).collect::<Result<_>>()?;
        for (index, process) in indices.iter().zip(spawned) {
            self.replicas[*index].process = Some(Gantry::ready(process).await?);
        }
        Ok(())
    }

    /// Starts the server and waits for nothing.
    pub fn spawn_server(&self) -> Result<Process> {
        Gantry::spawn(self.work, &self.replicas[0].name, &self.replica_args(0))
    }

    fn replica_args(&self, index: usize) -> Vec<String> {
        let replica = &self.replicas[index];
        [
            "server",
            "--etcd",
            &replica.store,
            "--replica",
            &replica.name,
            "--listen",
            &replica.ports.address(0),
            "--agent-listen",
            &replica.ports.address(1),
            "--namesrv",
            &self.namesrv,
            "--heartbeat",
            &format!("{}ms", self.heartbeat.as_millis()),
        ]
        .map(str::to_owned)
        .into()
    }

    /// Ends the server in order.
    pub async fn stop_server(&mut self) -> Result<ExitStatus> {
        let server = self.replicas[0].process.take();
        let mut server = server.context("the server does not run")?;
        server.process().terminate(SOON).await
    }

    /// Kills a replica as `kill -9` does.
    pub fn kill_replica(&mut self, index: usize) -> Result<()> {
        let replica = &mut self.replicas[index];
        let process = replica.process.take();
        let mut process = process.with_context(|| format!("{} does not run", replica.name))?;
        let process = process.process();
        ensure!(
            process.is_running(),
            "{} has ended by itself\n{}",
            replica.name,
            process.tail()
        );
        process.kill()?;
        Ok(())
    }

    /// The replicas that have not been ended by the test.
    pub fn running_replicas(&self) -> Vec<usize> {
        let all = self.replicas.iter().enumerate();
        all.filter(|(_, replica)| replica.process.is_some())
            .map(|(index, _)| index)
            .collect()
    }

    /// The names of the replicas, as they are in the store.
    pub fn replica_names(&self) -> Vec<String> {
        self.replicas.iter().map(|replica| replica.name.clone()).collect()
    }

    /// Where users find the API.
    pub fn endpoint(&self) -> String {
        self.endpoints().remove(0)
    }

    /// Where users find the API of each replica.
    pub fn endpoints(&self) -> Vec<String> {
        let ports = self.replicas.iter().map(|replica| &replica.ports);
        ports
            .map(|ports| format!("http://{}", ports.address(0)))
            .collect()
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
        self.spawn_agent_with(name, "locks", &format!("agent-{name}"))
    }

    /// Starts an agent whose lock file is in a directory of its own, as on another host.
    pub fn spawn_stranger(&self, name: &str) -> Result<Process> {
        self.spawn_agent_with(name, "other-locks", &format!("agent-{name}-stranger"))
    }

    fn spawn_agent_with(&self, name: &str, locks: &str, log: &str) -> Result<Process> {
        let ports = self.replicas.iter().map(|replica| &replica.ports);
        let servers: Vec<String> = ports
            .map(|ports| format!("http://{}", ports.address(1)))
            .collect();
        let (server, locks) = (servers.join(","), self.work.dir(locks)?);
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
        Gantry::spawn(self.work, log, &args)
    }

    /// The names of the agents that were started and not ended by the test.
    pub fn agents(&self) -> Vec<String> {
        self.agents.keys().cloned().collect()
    }

    /// The process of an agent, to be signalled.
    pub fn agent(&self, name: &str) -> Result<&Process> {
        self.agents
            .get(name)
            .with_context(|| format!("agent {name} does not run"))
    }

    /// Gives the place of an agent to another process of its name; the one before is killed.
    pub fn adopt_agent(&mut self, name: &str, process: Process) {
        self.agents.insert(name.to_owned(), process);
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
