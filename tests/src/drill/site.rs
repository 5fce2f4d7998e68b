//! Everything that runs in a drill, how it is struck and mended, and the account at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gantry_client::{Client, Options};
use gantry_control_plane::domain::TaskId;
use gantry_proto::v1::task::State;
use tokio::time::Instant;

use super::audit::audit;
use super::flow::{Flow, Kind, Standing};
use super::history::{Held, History, View};
use super::proxy::Proxy;
use super::report::Report;
use super::rolling::{self, Rolling};
use super::schedule::{Fault, Pace, Round, schedule, seed};
use crate::process::Signal;
use crate::wait::eventually;
use crate::{Cluster, Etcd, RocketMq, WorkDir, run};

/// For what takes moments.
const SOON: Duration = Duration::from_secs(60);
/// For what may have to wait for leases, back-off and a busy machine.
const LONG: Duration = Duration::from_secs(120);
/// How often a supervisor looks after its processes.
const REVIVE: Duration = Duration::from_secs(2);

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

/// What was done to whom, to be mended.
#[derive(Debug)]
pub struct Struck {
    /// What.
    pub fault: Fault,
    /// Whom.
    pub whom: String,
    /// When.
    pub at: Instant,
    /// The tasks that the agent held; all of the flows' tasks if it was no agent.
    pub tasks: BTreeMap<TaskId, Held>,
    /// The revision of the store that had been seen.
    pub revision: i64,
    /// How far each flow was: what was committed before, and what was written after.
    pub standing: BTreeMap<&'static str, Standing>,
    indices: Vec<usize>,
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

    /// Waits until every task of every flow runs, and gives them.
    pub async fn all_run(&mut self, limit: Duration) -> Result<BTreeMap<TaskId, Held>> {
        self.watched(limit, "all tasks of the flows run", |site, view| {
            let mut tasks = BTreeMap::new();
            for flow in &site.flows {
                for uid in flow.uids() {
                    tasks.extend(view.running(uid).with_context(|| format!("of {}", flow.name()))?);
                }
            }
            Ok(tasks)
        })
        .await
    }

    /// How far all flows are.
    pub fn standing(&self) -> Result<BTreeMap<&'static str, Standing>> {
        let view = self.history.view();
        self.flows
            .iter()
            .map(|flow| Ok((flow.name(), flow.standing(&view)?)))
            .collect()
    }

    /// Waits until every flow has committed more than this; with `written`, all that was written.
    async fn committed_beyond(
        &mut self,
        standing: &BTreeMap<&'static str, Standing>,
        written: bool,
    ) -> Result<()> {
        self.watched(LONG, "all flows have committed more", |site, view| {
            for flow in &site.flows {
                let now = flow.standing(view)?;
                let before = standing.get(flow.name()).copied().unwrap_or_default();
                let goal = if written {
                    before.written
                } else {
                    before.committed + 1
                };
                ensure!(
                    now.committed >= goal,
                    "{} is at {now:?}, which is not {goal}: {:?}",
                    flow.name(),
                    flow.uids().map(|uid| view.held(uid))
                );
            }
            Ok(())
        })
        .await
    }

    /// Waits until all is well, and then until so many records have been written as the round wants.
    pub async fn until(&mut self, round: &Round) -> Result<()> {
        self.all_run(LONG).await?;
        self.committed_beyond(&self.standing()?, false).await?;
        if let Some(flow) = self.flows.first() {
            flow.feeder().more(round.after, SOON).await?;
        }
        Ok(())
    }

    /// Does it, to whom `pick` says.
    pub async fn strike(&mut self, fault: Fault, pick: usize) -> Result<Struck> {
        let before = self.standing()?;
        let (mut tasks, revision, sinks) = {
            let view = self.history.view();
            (self.tasks(&view)?, view.revision(), self.behind(&view)?)
        };
        let at = Instant::now();
        let (whom, indices) = match fault {
            Fault::AgentKilled | Fault::AgentFrozen => {
                let busy: BTreeSet<String> = tasks.values().map(|task| task.agent.clone()).collect();
                let mut names = self.cluster.agents();
                names.retain(|name| !self.frozen.contains(name));
                // One that has tasks, as long as there is one.
                if names.iter().any(|name| busy.contains(name)) {
                    names.retain(|name| busy.contains(name));
                }
                ensure!(!names.is_empty(), "there is nobody for '{fault}'");
                let name = names.swap_remove(pick % names.len());
                if fault == Fault::AgentKilled {
                    self.cluster.kill_agent(&name)?;
                } else {
                    self.cluster.agent(&name)?.signal(Signal::Stop)?;
                    self.frozen.insert(name.clone());
                }
                tasks.retain(|_, task| task.agent == name);
                (name, Vec::new())
            }
            Fault::LeaderKilled | Fault::FollowerKilled => {
                let mut candidates = self.cluster.running_replicas();
                let leader = self.leader().await?;
                candidates.retain(|index| (*index == leader) == (fault == Fault::LeaderKilled));
                ensure!(!candidates.is_empty(), "there is nobody for '{fault}'");
                let index = candidates[pick % candidates.len()];
                self.cluster.kill_replica(index)?;
                (self.cluster.replica_names().swap_remove(index), vec![index])
            }
            Fault::ReplicasKilled => {
                let running = self.cluster.running_replicas();
                for index in &running {
                    self.cluster.kill_replica(*index)?;
                }
                (format!("{} replicas", running.len()), running)
            }
            Fault::ReplicaCutOff => {
                // One that has agents, as long as there is one.
                let names = self.cluster.replica_names();
                let mut candidates = self.cluster.running_replicas();
                let serving = self.serving()?;
                if candidates.iter().any(|index| serving.contains(&names[*index])) {
                    candidates.retain(|index| serving.contains(&names[*index]));
                }
                let index = candidates[pick % candidates.len()];
                self.proxies[index].iter().for_each(Proxy::cut);
                (self.cluster.replica_names().swap_remove(index), vec![index])
            }
            Fault::EtcdKilled | Fault::EtcdFrozen => {
                let index = pick % self.setup.etcd;
                if fault == Fault::EtcdKilled {
                    self.cluster.etcd.kill(index)?;
                } else {
                    self.cluster.etcd.pause(index)?;
                }
                (format!("etcd-{index}"), vec![index])
            }
            Fault::BrokerKilled => {
                self.rocketmq.kill_broker()?;
                ("broker".to_owned(), Vec::new())
            }
        };
        let mut standing = self.standing()?;
        let mut in_flight = 0;
        for flow in &self.flows {
            let now = standing.entry(flow.name()).or_default();
            now.committed = before[flow.name()].committed;
            let [source, sink] = flow.uids();
            if tasks.keys().any(|id| id.uid == *source) {
                in_flight += now.written - now.committed;
            }
            if tasks.keys().any(|id| id.uid == *sink) {
                in_flight += sinks[flow.name()];
            }
        }
        self.strikes += 1;
        self.counted += u32::from(in_flight > 0);
        self.in_flight += in_flight;
        self.report.say(format_args!(
            "{fault}: {whom}, {:.1} s after the start, {in_flight} records in flight",
            (at - self.begun).as_secs_f64()
        ));
        let struck = Struck {
            fault,
            whom,
            at,
            tasks,
            revision,
            standing,
            indices,
        };
        // Whoever is killed or suspended reads no more.
        if matches!(fault, Fault::AgentKilled | Fault::AgentFrozen) {
            for flow in &self.flows {
                let [source, _] = flow.uids();
                if struck.tasks.keys().any(|id| id.uid == *source) {
                    let standing = struck.standing[flow.name()];
                    *self.at_kills.entry(flow.name()).or_default() += standing.written - standing.committed;
                }
            }
        }
        Ok(struck)
    }

    /// By flow: how many records are in the topic for sure that the sink has not committed.
    fn behind(&self, view: &View) -> Result<BTreeMap<&'static str, u64>> {
        let of = |flow: &Flow| {
            let sent = flow.standing(view)?.committed;
            Ok((flow.name(), sent.saturating_sub(flow.stored(view)?)))
        };
        self.flows.iter().map(of).collect()
    }

    /// Undoes it and waits until what was ended serves again.
    pub async fn mend(&mut self, struck: &Struck) -> Result<()> {
        match struck.fault {
            Fault::AgentKilled => self.cluster.spawn_agent(&struck.whom)?,
            Fault::AgentFrozen => {
                self.cluster.agent(&struck.whom)?.signal(Signal::Continue)?;
                self.frozen.remove(&struck.whom);
            }
            Fault::LeaderKilled | Fault::FollowerKilled | Fault::ReplicasKilled => {
                self.cluster.start_replicas(&struck.indices).await?;
            }
            Fault::ReplicaCutOff => {
                for index in &struck.indices {
                    self.proxies[*index].iter().for_each(Proxy::heal);
                }
            }
            Fault::EtcdKilled => {
                for index in &struck.indices {
                    self.cluster.etcd.restart(*index).await?;
                }
            }
            Fault::EtcdFrozen => {
                for index in &struck.indices {
                    self.cluster.etcd.resume(*index)?;
                }
            }
            Fault::BrokerKilled => self.rocketmq.restart_broker().await?,
        }
        Ok(())
    }

    /// Waits until all tasks run and everything is committed that had been written when it struck.
    pub async fn recovered(&mut self, struck: &Struck) -> Result<()> {
        self.all_run(LONG).await?;
        self.committed_beyond(&struck.standing, true).await?;
        // What was on its way to the broker is sent again, without any task starting anew.
        if struck.fault == Fault::BrokerKilled {
            let now = self.standing()?;
            for (name, before) in &struck.standing {
                *self.unknown.entry(name).or_default() += now[name].written - before.committed;
            }
        }
        Ok(())
    }

    /// Starts agents anew that have ended by themselves, as a supervisor of processes does: an agent whose tasks do not end with
    /// its lease ends itself.
    fn revive(&mut self) -> Result<()> {
        for name in self.cluster.agents() {
            if !self.frozen.contains(&name) && !self.cluster.agent(&name)?.is_running() {
                self.revived += 1;
                self.report
                    .say(format_args!("{name} has ended by itself and is started anew"));
                self.cluster.spawn_agent(&name)?;
            }
        }
        Ok(())
    }

    /// Waits for something to be so in the store, and meanwhile starts anew what has ended by itself.
    async fn watched<T>(
        &mut self,
        limit: Duration,
        what: &str,
        check: impl Fn(&Self, &View) -> Result<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let wait = self
                .history
                .wait(left.min(REVIVE), what, |view| check(self, view));
            match wait.await {
                Ok(found) => return Ok(found),
                Err(error) if Instant::now() >= deadline => {
                    return Err(error).with_context(|| format!("waited {limit:?} in all"));
                }
                Err(_) => self.revive()?,
            }
        }
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

    /// For each of these tasks, how long after `since` it ran again under another right.
    pub async fn run_again(
        &self,
        tasks: &BTreeMap<TaskId, Held>,
        since: Instant,
        limit: Duration,
    ) -> Result<Vec<Duration>> {
        self.history
            .wait(limit, "the tasks run under another right", |view| {
                let now = self.tasks(view)?;
                let mut took = Vec::new();
                for (id, before) in tasks {
                    let task = now.get(id).with_context(|| format!("nobody has {id}"))?;
                    ensure!(
                        task.fence != before.fence && task.state == Some(State::Running),
                        "{id} is {task:?}"
                    );
                    let at = first_run(view, id, task.fence)?.with_context(|| format!("{id} did not run"))?;
                    took.push(at.saturating_duration_since(since));
                }
                Ok(took)
            })
            .await
    }

    /// Checks that nothing happened to the flows' tasks after `revision`: no right was given or ended, none was anything but running.
    pub async fn none_restarted(&self, revision: i64) -> Result<()> {
        self.history.catch_up(SOON).await?;
        let view = self.history.view();
        let ids: BTreeSet<TaskId> = self.tasks(&view)?.into_keys().collect();
        for change in view.changes().iter().filter(|change| change.revision > revision) {
            match &change.key {
                gantry_control_plane::store::Key::Grant(id) if ids.contains(id) => {
                    anyhow::bail!("the right to {id} was written at revision {}", change.revision)
                }
                gantry_control_plane::store::Key::Status(id) if ids.contains(id) => {
                    let status = change.decoded::<gantry_control_plane::domain::stored::Status>()?;
                    let status = status.with_context(|| format!("the status of {id} was removed"))?;
                    ensure!(
                        status.state() == State::Running && status.restarts == 0,
                        "{id} was {} at revision {}: {status:?}",
                        status.state().as_str_name(),
                        change.revision
                    );
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Ends the feeders, waits until everything has arrived, and checks all that must hold.
    async fn close(&mut self) -> Result<()> {
        let rolled = self.rolling.finish(&self.history, LONG).await;
        let rolled = rolled.context("the rolling series")?;
        for index in 0..self.flows.len() {
            let account = self.flows[index]
                .finish(&self.rocketmq, &self.history, LONG)
                .await?;
            let flow = &self.flows[index];
            let name = flow.name();
            let (restarts, again) = flow.restarts(self.history.view().changes())?;
            let bound = again + self.unknown.get(name).copied().unwrap_or(0);
            let at_kills = self.at_kills.get(name).copied().unwrap_or(0);
            self.report.say(format_args!(
                "{name}: {} written, 0 missing, {} repeated; {at_kills} were written and not committed when agents were struck, \
                 {bound} when the source's tasks started anew ({restarts} times); {} steps back",
                account.written, account.repeated, account.steps_back
            ));
            ensure!(
                account.repeated <= bound,
                "{name} has {} records more than once, and at most {bound} had been read and not committed",
                account.repeated
            );
            // The one before ends, and what it still sends after the next one has begun is at most one operation.
            ensure!(
                account.steps_back <= 2 * restarts + bound.min(1),
                "the records of {name} step back {} times, and its source has started anew only {restarts} times",
                account.steps_back
            );
        }
        self.history.catch_up(SOON).await?;
        let audited = audit(self.history.view().changes(), self.setup.lease())?;
        self.report.say(format_args!(
            "{} faults, {} of them met records in flight ({}); {} agents ended by themselves; {} commits, none went back; \
             {} rights given; {rolled}; {:.0} s",
            self.strikes,
            self.counted,
            self.in_flight,
            self.revived,
            audited.commits,
            audited.grants,
            self.begun.elapsed().as_secs_f64()
        ));
        ensure!(
            self.strikes == 0 || self.counted > 0,
            "no fault met records in flight: nothing was shown"
        );
        Ok(())
    }
}

/// When a task was first reported to run under a right.
fn first_run(view: &View, id: &TaskId, fence: i64) -> Result<Option<Instant>> {
    use gantry_control_plane::domain::stored::Status;
    use gantry_control_plane::store::Key;
    for change in view.changes() {
        if matches!(&change.key, Key::Status(of) if of == id)
            && let Some(status) = change.decoded::<Status>()?
            && status.fence == fence
            && status.state() == State::Running
        {
            return Ok(Some(change.at));
        }
    }
    Ok(None)
}
