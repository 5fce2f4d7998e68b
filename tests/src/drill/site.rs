//! Everything that runs in a drill.

mod account;
mod strike;
mod wait;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result};
use gantry_client::{Client, Options};
use gantry_control_plane::domain::TaskId;
use tokio::time::Instant;

pub use self::strike::Struck;

use super::flow::{Flow, Kind, Standing};
use super::history::{Held, History, View};
use super::proxy::Proxy;
use super::report::Report;
use super::rolling::{self, Rolling};
use super::schedule::{Fault, Pace, Round, schedule, seed};
use crate::wait::eventually;
use crate::{Cluster, Etcd, RocketMq, WorkDir, run};

/// For what takes moments.
const SOON: Duration = Duration::from_secs(60);
/// For what may have to wait for leases, back-off and a busy machine.
const LONG: Duration = Duration::from_secs(120);

/// What a drill needs.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Path of the test.
    pub drill: &'static str,
    /// How many replicas of the control plane.
    pub replicas: usize,
    /// How many members of etcd.
    pub etcd: usize,
    /// The agents.
    pub agents: &'static [&'static str],
    /// A lease is three of them.
    pub heartbeat: Duration,
    /// The flows.
    pub flows: &'static [Kind],
    /// Records that are written to each flow in a second; a fourth of it where each is a file.
    pub rate: u32,
    /// Each replica reaches etcd through a proxy.
    pub proxied: bool,
}

impl Setup {
    /// One replica, one member of etcd, one agent, all flows.
    pub fn new(drill: &'static str) -> Self {
        Self {
            drill,
            replicas: 1,
            etcd: 1,
            agents: &["one"],
            heartbeat: Duration::from_secs(3),
            flows: &Kind::ALL,
            rate: 800,
            proxied: false,
        }
    }

    /// An agent that nothing is heard of for so long is gone.
    pub fn lease(&self) -> Duration {
        self.heartbeat * 3
    }
}

/// Runs a drill: starts the site, plays `play` with the rounds of the schedule, and closes the account.
#[track_caller]
pub fn drill(
    setup: Setup,
    faults: &[Fault],
    pace: &Pace,
    play: impl AsyncFnOnce(&mut Site<'_>, &[Round]) -> Result<()>,
) {
    let rounds = schedule(seed(), setup.drill, faults, pace);
    let report = Report::new(setup.drill, pace.rounds);
    let longest = Duration::from_secs(180) + (LONG + *pace.hold.end()) * pace.rounds;
    run(longest, async |work| {
        let played = async {
            let mut site = Site::start(work, setup, report).await?;
            let played = async {
                play(&mut site, &rounds).await?;
                site.close().await
            };
            let played = played.await;
            // Kept with the logs, if it failed.
            let listing = site.history.view().listing(site.begun);
            std::fs::write(work.path().join("history.log"), listing)?;
            played
        };
        played.await.with_context(|| format!("with seed {}", seed()))
    });
}

/// Everything that runs.
#[derive(Debug)]
pub struct Site<'a> {
    /// What is said.
    pub report: Report,
    /// What it was made from.
    pub setup: Setup,
    /// Every write to the store.
    pub history: History,
    /// The records.
    pub flows: Vec<Flow>,
    /// etcd, replicas, agents.
    pub cluster: Cluster<'a>,
    /// The broker.
    pub rocketmq: RocketMq,
    rolling: Rolling,
    /// For each replica, one to each member of etcd.
    proxies: Vec<Vec<Proxy>>,
    begun: Instant,
    /// By flow: how many records had been written and were not committed when its agent was killed or frozen.
    at_kills: BTreeMap<&'static str, u64>,
    /// By flow: how many records may have been on their way to a broker that was killed.
    unknown: BTreeMap<&'static str, u64>,
    frozen: BTreeSet<String>,
    revived: u32,
    strikes: u32,
    counted: u32,
    in_flight: u64,
}

impl<'a> Site<'a> {
    async fn start(work: &'a WorkDir, setup: Setup, report: Report) -> Result<Self> {
        let (rocketmq, etcd) = tokio::try_join!(
            RocketMq::start(work, "rocketmq"),
            Etcd::cluster(work, "etcd", setup.etcd)
        )?;
        let history = History::follow(etcd.endpoints()).await?;
        let mut proxies = Vec::new();
        let mut stores = vec![etcd.endpoints().join(","); setup.replicas];
        if setup.proxied {
            for store in &mut stores {
                let mut own = Vec::new();
                for endpoint in etcd.endpoints() {
                    own.push(Proxy::start(endpoint.trim_start_matches("http://")).await?);
                }
                let addresses: Vec<String> = own
                    .iter()
                    .map(|proxy| format!("http://{}", proxy.address()))
                    .collect();
                *store = addresses.join(",");
                proxies.push(own);
            }
        }
        rocketmq.create_topic(rolling::TOPIC, 2).await?;
        let namesrv = rocketmq.namesrv();
        let mut cluster = Cluster::replicated(work, &namesrv, etcd, &stores, setup.heartbeat).await?;
        for agent in setup.agents {
            cluster.start_agent(agent).await?;
        }
        let client = cluster.client()?;
        let mut flows = Vec::new();
        for kind in setup.flows {
            let flow = Flow::start(*kind, setup.rate, cluster.files(), &rocketmq, &client, &history);
            flows.push(flow.await?);
        }
        let mut site = Self {
            rolling: Rolling::start(cluster.endpoints(), seed()),
            report,
            setup,
            history,
            flows,
            cluster,
            rocketmq,
            proxies,
            begun: Instant::now(),
            at_kills: BTreeMap::new(),
            unknown: BTreeMap::new(),
            frozen: BTreeSet::new(),
            revived: 0,
            strikes: 0,
            counted: 0,
            in_flight: 0,
        };
        site.all_run(SOON).await?;
        Ok(site)
    }

    /// A client of a replica that runs.
    pub async fn client(&self) -> Result<Client> {
        let endpoints = self.cluster.endpoints();
        eventually(SOON, "a replica answers", async || {
            let mut last = None;
            for endpoint in &endpoints {
                let options = Options {
                    retries: 0,
                    call_timeout: Duration::from_secs(5),
                    ..Options::default()
                };
                let client = Client::connect_lazy(endpoint, options)?;
                match client.agents().await {
                    Ok(_) => return anyhow::Ok(client),
                    Err(error) => last = Some(error),
                }
            }
            Err(last.context("there is no replica")?.into())
        })
        .await
    }

    /// The tasks of all flows that somebody may run.
    pub fn tasks(&self, view: &View) -> Result<BTreeMap<TaskId, Held>> {
        let mut tasks = BTreeMap::new();
        for flow in &self.flows {
            for uid in flow.uids() {
                tasks.extend(view.held(uid)?);
            }
        }
        Ok(tasks)
    }

    /// How far all flows are.
    pub fn standing(&self) -> Result<BTreeMap<&'static str, Standing>> {
        let view = self.history.view();
        self.flows
            .iter()
            .map(|flow| Ok((flow.name(), flow.standing(&view)?)))
            .collect()
    }

    /// The replicas that have agents.
    fn serving(&self) -> Result<BTreeSet<String>> {
        let view = self.history.view();
        let mut serving = BTreeSet::new();
        for agent in self.setup.agents {
            serving.extend(view.session(agent)?.map(|session| session.replica));
        }
        Ok(serving)
    }

    /// The replica that leads.
    pub async fn leader(&self) -> Result<usize> {
        let (names, running) = (self.cluster.replica_names(), self.cluster.running_replicas());
        self.history
            .wait(LONG, "a replica leads that runs", |view| {
                let leader = view.leader()?.context("none does")?;
                let mut running = running.iter().copied();
                running.find(|index| names[*index] == leader).context(leader)
            })
            .await
    }
}
