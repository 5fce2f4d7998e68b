//! The processes that are measured: a real etcd and a real broker, `gantry server`, `gantry agent`, the raw client.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gantry_client::v1::agent::State;
use gantry_client::{Client, v1::Connector};
use gantry_tests::connectors::{definition, records_out, shown};
use gantry_tests::wait::{eventually, promptly};
use gantry_tests::{Cluster, Process, RocketMq, WorkDir, env};
use serde_json::{Value, json};

use gantry_raw_client::usage::{self, Memory};

/// So many queues have the topics of the throughput rows; each side keeps one request in flight for each.
pub(crate) const QUEUES: u32 = 4;
const SOON: Duration = Duration::from_secs(120);
const AGENT: &str = "bench";

/// Everything but the agent, which each measurement starts anew: its memory is to be compared.
pub(crate) struct Site<'a> {
    work: &'a WorkDir,
    /// How many were started before; None: none runs.
    brokers: u32,
    rocketmq: Option<RocketMq>,
    cluster: Cluster<'a>,
    pub(crate) client: Client,
}

impl<'a> Site<'a> {
    /// Starts etcd and the control plane.
    pub(crate) async fn start(work: &'a WorkDir) -> Result<Self> {
        // Connectors name their broker themselves.
        let cluster = Cluster::start(work, "127.0.0.1:1").await?;
        Ok(Self {
            work,
            brokers: 0,
            rocketmq: None,
            client: cluster.client()?,
            cluster,
        })
    }

    /// Replaces the broker by a new one, and its data with it: gigabytes.
    pub(crate) async fn fresh_broker(&mut self) -> Result<()> {
        self.rocketmq = None;
        let name = |number| format!("rocketmq-{number}");
        let old = self.work.path().join(name(self.brokers));
        if old.exists() {
            std::fs::remove_dir_all(&old).with_context(|| format!("removing {}", old.display()))?;
        }
        self.brokers += 1;
        self.rocketmq = Some(RocketMq::start(self.work, &name(self.brokers)).await?);
        Ok(())
    }

    pub(crate) fn rocketmq(&self) -> Result<&RocketMq> {
        self.rocketmq.as_ref().context("no broker was started")
    }

    /// The broker's process id.
    pub(crate) fn broker(&mut self) -> Result<u32> {
        let rocketmq = self.rocketmq.as_mut().context("no broker was started")?;
        Ok(rocketmq.broker_process()?.id())
    }

    /// The directory below which agents may work.
    pub(crate) fn files(&self) -> &Path {
        self.cluster.files()
    }

    /// How many messages a topic has.
    pub(crate) async fn messages(&self, topic: &str, queues: u32) -> Result<u64> {
        let rocketmq = self.rocketmq()?;
        let mut total = 0;
        for queue in 0..queues {
            total += rocketmq.end_offset(topic, queue).await?;
        }
        Ok(total.try_into()?)
    }

    /// A definition on the present broker.
    pub(crate) fn definition(
        &self,
        name: &str,
        plugin: &str,
        topic: &str,
        tasks: u32,
        config: &Value,
    ) -> Result<Connector> {
        let more = json!({ "tasks_max": tasks, "namesrv": self.rocketmq()?.namesrv() });
        definition(name, plugin, topic, config, &more)
    }

    /// Waits until the committed offsets of a connector stand for so many records.
    pub(crate) async fn committed(&self, name: &str, records: u64) -> Result<()> {
        let what = format!("{name} has committed {records} records");
        eventually(SOON, &what, async || {
            let out = records_out(&self.client, name).await?;
            ensure!(out == records, "it has committed {out}");
            Ok(())
        })
        .await
    }

    /// What a connector and its tasks say of themselves, for failures.
    pub(crate) async fn state(&self, name: &str) -> String {
        let (connector, tasks) = (self.client.get(name).await, self.client.tasks(name).await);
        let tasks = tasks.unwrap_or_default();
        let problems = tasks.iter().filter_map(|task| task.problem.as_ref());
        let problems: Vec<&str> = problems.map(|problem| problem.message.as_str()).collect();
        match connector {
            Ok(connector) => format!("{} {problems:?}", shown(&connector)),
            Err(error) => format!("{name} cannot be asked: {error}"),
        }
    }

    /// Deletes a connector and waits until nothing of it is left.
    pub(crate) async fn delete(&self, name: &str) -> Result<()> {
        self.client.delete(name, true, false).await?;
        promptly(SOON, &format!("{name} is gone"), async || {
            match self.client.get(name).await {
                Err(error) if error.is_not_found() => Ok(()),
                Err(error) => Err(error.to_string()),
                Ok(_) => Err("it is there".into()),
            }
        })
        .await
    }

    /// Starts an agent and waits until the control plane lists this very process.
    pub(crate) async fn agent(&self) -> Result<Agent> {
        let known = self.client.agent(AGENT).await;
        let before = known.map(|agent| agent.instance_uid).unwrap_or_default();
        let process = self.cluster.spawn_twin(AGENT)?;
        promptly(SOON, "the agent is ready", async || {
            ensure!(process.is_running(), "it has ended");
            let agent = self.client.agent(AGENT).await?;
            ensure!(
                agent.instance_uid != before && agent.state() == State::Ready,
                "it is {}",
                agent.state().as_str_name()
            );
            Ok(())
        })
        .await
        .with_context(|| process.tail())?;
        let idle = usage::memory(process.id())?;
        Ok(Agent { process, idle })
    }

    /// Runs the raw client to its end; `meanwhile` is done while it runs. What it prints is the answer.
    pub(crate) async fn raw<T>(
        &self,
        command: &str,
        args: &[String],
        meanwhile: impl AsyncFnOnce() -> Result<T>,
    ) -> Result<(T, Value)> {
        let mut program = Command::new(env::built("gantry-raw-client")?);
        program.arg(command).args(args);
        program.args(["--namesrv", &self.rocketmq()?.namesrv()]);
        let mut process = Process::start(&format!("raw-{command}"), self.work.path(), program)?;
        let seen = tokio::select! {
            seen = meanwhile() => seen.with_context(|| process.tail())?,
            failed = failure(&process) => return Err(failed),
        };
        let status = process.ended(SOON).await?;
        ensure!(
            status.success(),
            "{command} ended with {status}\n{}",
            process.tail()
        );
        let printed = process.stdout()?;
        let took = serde_json::from_str(printed.trim());
        Ok((
            seen,
            took.with_context(|| format!("{command} printed {printed:?}"))?,
        ))
    }

    /// A directory that is not there yet.
    pub(crate) fn new_dir(&self, name: &str) -> Result<PathBuf> {
        let path = self.files().join(name);
        std::fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(path)
    }
}

/// Returns only if the process ends and is not well.
async fn failure(process: &Process) -> anyhow::Error {
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if !process.is_running() && process.stdout().is_ok_and(|printed| printed.is_empty()) {
            return anyhow::anyhow!("the raw client has failed\n{}", process.tail());
        }
    }
}

/// A `gantry agent`.
pub(crate) struct Agent {
    process: Process,
    /// Its memory when it was ready and had no task.
    pub(crate) idle: Memory,
}

impl Agent {
    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// It has not ended by itself.
    pub(crate) fn runs(&self) -> Result<()> {
        ensure!(
            self.process.is_running(),
            "the agent has ended\n{}",
            self.process.tail()
        );
        Ok(())
    }

    /// Ends it in order.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let status = self.process.terminate(SOON).await?;
        ensure!(
            status.success(),
            "the agent ended with {status}\n{}",
            self.process.tail()
        );
        Ok(())
    }
}
