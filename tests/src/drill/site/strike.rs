//! How a site is struck and mended.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use gantry_control_plane::domain::TaskId;
use tokio::time::Instant;

use super::Site;
use crate::drill::flow::{Flow, Standing};
use crate::drill::history::{Held, View};
use crate::drill::proxy::Proxy;
use crate::drill::schedule::Fault;
use crate::process::Signal;

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

impl Site<'_> {
    /// Does it, to whom `pick` says.
    pub async fn strike(&mut self, fault: Fault, pick: usize) -> Result<Struck> {
        let before = self.standing()?;
        let (mut tasks, revision, behind) = {
            let view = self.history.view();
            (self.tasks(&view)?, view.revision(), self.behind(&view)?)
        };
        let at = Instant::now();
        let (whom, indices) = match fault {
            Fault::AgentKilled | Fault::AgentFrozen => {
                let name = self.agent_for(fault, pick, &tasks)?;
                if fault == Fault::AgentKilled {
                    self.cluster.kill_agent(&name)?;
                } else {
                    self.cluster.agent(&name)?.signal(Signal::Stop)?;
                    self.frozen.insert(name.clone());
                }
                tasks.retain(|_, task| task.agent == name);
                (name, Vec::new())
            }
            Fault::LeaderKilled | Fault::FollowerKilled | Fault::ReplicaCutOff => {
                let index = self.replica_for(fault, pick).await?;
                if fault == Fault::ReplicaCutOff {
                    self.proxies[index].iter().for_each(Proxy::cut);
                } else {
                    self.cluster.kill_replica(index)?;
                }
                (self.cluster.replica_names().swap_remove(index), vec![index])
            }
            Fault::ReplicasKilled => {
                let running = self.cluster.running_replicas();
                for index in &running {
                    self.cluster.kill_replica(*index)?;
                }
                (format!("{} replicas", running.len()), running)
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
        // What was committed before it, and what had been written after it.
        let mut standing = self.standing()?;
        for (name, now) in &mut standing {
            now.committed = before[name].committed;
        }
        let struck = Struck {
            fault,
            whom,
            at,
            tasks,
            revision,
            standing,
            indices,
        };
        self.count(&struck, &behind);
        Ok(struck)
    }

    fn agent_for(&self, fault: Fault, pick: usize, tasks: &BTreeMap<TaskId, Held>) -> Result<String> {
        let busy: BTreeSet<&String> = tasks.values().map(|task| &task.agent).collect();
        let mut names = self.cluster.agents();
        names.retain(|name| !self.frozen.contains(name));
        // One that has tasks, as long as there is one.
        if names.iter().any(|name| busy.contains(name)) {
            names.retain(|name| busy.contains(name));
        }
        ensure!(!names.is_empty(), "there is nobody for '{fault}'");
        Ok(names.swap_remove(pick % names.len()))
    }

    async fn replica_for(&self, fault: Fault, pick: usize) -> Result<usize> {
        let mut candidates = self.cluster.running_replicas();
        if fault == Fault::ReplicaCutOff {
            // One that has agents, as long as there is one.
            let (names, serving) = (self.cluster.replica_names(), self.serving()?);
            if candidates.iter().any(|index| serving.contains(&names[*index])) {
                candidates.retain(|index| serving.contains(&names[*index]));
            }
        } else {
            let leader = self.leader().await?;
            candidates.retain(|index| (*index == leader) == (fault == Fault::LeaderKilled));
        }
        ensure!(!candidates.is_empty(), "there is nobody for '{fault}'");
        Ok(candidates[pick % candidates.len()])
    }

    /// Counts what was in flight at those who were struck, and says it.
    fn count(&mut self, struck: &Struck, behind: &BTreeMap<&'static str, u64>) {
        let mut in_flight = 0;
        for flow in &self.flows {
            let name = flow.name();
            let [source, sink] = flow
                .uids()
                .map(|uid| struck.tasks.keys().any(|id| id.uid == *uid));
            let standing = struck.standing[name];
            let unsaved = standing.written - standing.committed;
            if source {
                in_flight += unsaved;
            }
            if sink {
                in_flight += behind[name];
            }
            // Whoever is killed or suspended reads no more.
            if source && matches!(struck.fault, Fault::AgentKilled | Fault::AgentFrozen) {
                *self.at_kills.entry(name).or_default() += unsaved;
            }
        }
        self.strikes += 1;
        self.counted += u32::from(in_flight > 0);
        self.in_flight += in_flight;
        self.report.say(format_args!(
            "{}: {}, {:.1} s after the start, {in_flight} records in flight",
            struck.fault,
            struck.whom,
            (struck.at - self.begun).as_secs_f64()
        ));
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
}
