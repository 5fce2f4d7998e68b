//! A real etcd of one member or more.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use etcd_client::Client;

use crate::env;
use crate::ports::Ports;
use crate::process::{Process, Signal};
use crate::wait::eventually;
use crate::work::WorkDir;

const START: Duration = Duration::from_secs(30);

/// An etcd that runs. Its members are counted from 0.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    name: String,
    dir: PathBuf,
    ports: Ports,
    cluster: String,
    options: Vec<String>,
    process: Option<Process>,
}

impl Etcd {
    /// Starts an etcd of one member. Several in one test differ by `name`.
    pub async fn start(work: &WorkDir, name: &str) -> Result<Self> {
        Self::cluster(work, name, 1).await
    }

    /// Starts an etcd of `size` members.
    pub async fn cluster(work: &WorkDir, name: &str, size: usize) -> Result<Self> {
        Self::cluster_with(work, name, size, &[]).await
    }

    /// Starts an etcd of `size` members with more options.
    pub async fn cluster_with(work: &WorkDir, name: &str, size: usize, options: &[&str]) -> Result<Self> {
        let mut members = Vec::new();
        for index in 0..size {
            let name = format!("{name}-{index}");
            let dir = work.dir(&name)?;
            members.push(Member {
                name,
                dir,
                ports: Ports::reserve(2)?,
                cluster: String::new(),
                options: options.iter().map(|option| (*option).to_owned()).collect(),
                process: None,
            });
        }
        let peers: Vec<String> = members
            .iter()
            .map(|member| format!("{}={}", member.name, member.peer()))
            .collect();
        for member in &mut members {
            member.cluster = peers.join(",");
            member.launch()?;
        }
        let etcd = Self { members };
        for index in 0..size {
            etcd.ready(index).await?;
        }
        Ok(etcd)
    }

    /// Where the members serve: `http://127.0.0.1:PORT`.
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(Member::endpoint).collect()
    }

    /// A client of all members.
    pub async fn client(&self) -> Result<Client> {
        Ok(Client::connect(self.endpoints(), None).await?)
    }

    /// The member that leads the others. All must run.
    pub async fn leader(&self) -> Result<usize> {
        for (index, endpoint) in self.endpoints().iter().enumerate() {
            let status = Client::connect([endpoint], None).await?.status().await?;
            if status
                .header()
                .is_some_and(|header| header.member_id() == status.leader())
            {
                return Ok(index);
            }
        }
        bail!("no member says that it leads")
    }

    /// Kills a member as `kill -9` does. What it has acknowledged is on its disk.
    pub fn kill(&mut self, member: usize) -> Result<()> {
        self.process(member)?.kill()?;
        self.members[member].process = None;
        Ok(())
    }

    /// Starts a member that was killed, on its old data and ports, and waits until it serves.
    pub async fn restart(&mut self, member: usize) -> Result<()> {
        if self.members[member].process.is_some() {
            self.kill(member)?;
        }
        self.members[member].launch()?;
        self.ready(member).await
    }

    /// Suspends a member: it keeps its connections and says nothing.
    pub fn pause(&mut self, member: usize) -> Result<()> {
        self.process(member)?.signal(Signal::Stop)
    }

    /// Lets a suspended member go on.
    pub fn resume(&mut self, member: usize) -> Result<()> {
        self.process(member)?.signal(Signal::Continue)
    }

    fn process(&mut self, member: usize) -> Result<&mut Process> {
        let member = &mut self.members[member];
        member
            .process
            .as_mut()
            .with_context(|| format!("{} does not run", member.name))
    }

    /// Waits until a member answers a read that the whole cluster agrees to.
    async fn ready(&self, member: usize) -> Result<()> {
        let member = &self.members[member];
        let process = member
            .process
            .as_ref()
            .context("a member that is waited for was started")?;
        eventually(START, &format!("{} serves", member.name), async || {
            let mut client = Client::connect([member.endpoint()], None).await?;
            client.get("ready", None).await?;
            anyhow::Ok(())
        })
        .await
        .with_context(|| process.tail())
    }
}

impl Member {
    fn endpoint(&self) -> String {
        format!("http://{}", self.ports.address(0))
    }

    fn peer(&self) -> String {
        format!("http://{}", self.ports.address(1))
    }

    fn launch(&mut self) -> Result<()> {
        let mut command = Command::new(env::tool(env::ETCD_BIN)?);
        command
            .args(["--name", &self.name, "--initial-cluster", &self.cluster])
            .args([
                "--listen-client-urls",
                &self.endpoint(),
                "--advertise-client-urls",
                &self.endpoint(),
            ])
            .args([
                "--listen-peer-urls",
                &self.peer(),
                "--initial-advertise-peer-urls",
                &self.peer(),
            ])
            .args(["--log-level", "warn", "--logger", "zap"])
            // Processes are killed here, never the machine: what was written is read again without it.
            .arg("--unsafe-no-fsync")
            .arg("--data-dir")
            .arg(self.dir.join("data"))
            .args(&self.options);
        self.process = Some(Process::start(&self.name, &self.dir, command)?);
        Ok(())
    }
}
