//! Random faults and commands: no task ever runs twice, and all is well again afterwards.

use std::{collections::BTreeMap, time::Duration};

use gantry_control_plane::domain::{TaskId, Uid};
use gantry_proto::{agent::v1::task_commit_result::Outcome, v1::connector::TargetState, v1::task::State};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep};

use crate::support::{Agent, World};

const REPLICAS: usize = 3;
const AGENTS: usize = 4;
const CONNECTORS: usize = 3;
const TASKS: u32 = 2;

struct Chaos {
    random: SmallRng,
    world: World,
    agents: Vec<Agent>,
    uids: Vec<Uid>,
    nonce: u32,
    started: Instant,
    /// Every start of a task by every process there ever was: tells runs apart.
    trace: Sha256,
    /// Highest position that was acknowledged as stored, by task.
    stored: BTreeMap<TaskId, i64>,
    commits: usize,
}

impl Chaos {
    async fn new(seed: u64) -> Self {
        let world = World::new(REPLICAS).await;
        let agents = (0..AGENTS).map(|n| world.agent(&format!("a{n}"), n)).collect();
        let mut uids = Vec::new();
        for n in 0..CONNECTORS {
            uids.push(world.create(&format!("c{n}"), TASKS.try_into().unwrap()).await);
        }
        Self {
            random: SmallRng::seed_from_u64(seed),
            world,
            agents,
            uids,
            nonce: 0,
            started: Instant::now(),
            trace: Sha256::new(),
            stored: BTreeMap::new(),
            commits: 0,
        }
    }

    async fn step(&mut self) {
        let (replica, agent) = (
            self.random.random_range(0..REPLICAS),
            self.random.random_range(0..AGENTS),
        );
        let name = format!("c{}", self.random.random_range(0..CONNECTORS));
        match self.random.random_range(0..16) {
            0 => self.world.cuts[replica].cut(),
            1 | 2 => self.world.cuts[replica].heal(),
            3 => self.world.kill(replica).await,
            4 => self.world.stop(replica).await,
            5 | 6 if self.world.replicas[replica].is_none() => self.world.start(replica).await,
            7 => self.agents[agent].freeze().await,
            8 | 9 => self.agents[agent].thaw().await,
            10 => {
                self.note(agent);
                self.agents[agent] = self.agents[agent].restarted();
            }
            11 => self.agents[agent].redial(replica).await,
            12 => self.world.want(&name, TargetState::Paused).await,
            13 => self.world.want(&name, TargetState::Stopped).await,
            14 => self.world.want(&name, TargetState::Running).await,
            15 => {
                self.nonce += 1;
                self.world.restart(&name, &self.nonce.to_string()).await;
            }
            _ => {}
        }
    }

    /// No task runs twice, not for a moment.
    fn check(&self) {
        let mut running: BTreeMap<TaskId, Vec<&str>> = BTreeMap::new();
        for agent in &self.agents {
            for task in agent.running() {
                running.entry(task).or_default().push(&agent.name);
            }
        }
        for (task, agents) in running {
            assert_eq!(
                agents.len(),
                1,
                "{task} runs on {agents:?} after {:?}",
                self.started.elapsed()
            );
        }
    }

    /// Whoever runs a task commits under its fence; a position that was stored never goes back.
    async fn commit(&mut self) {
        if self.world.services.lock()[0].is_none() || self.world.services.lock().iter().flatten().count() < 2
        {
            return;
        }
        let agent = self.random.random_range(0..AGENTS);
        let Some(task) = self.agents[agent].running().into_iter().next() else {
            return;
        };
        let Some(fence) = self.agents[agent].seen.lock().tasks.get(&task).map(|t| t.fence) else {
            return;
        };
        let line = self.stored.get(&task).copied().unwrap_or(0) + 1;
        let outcome = self.agents[agent].try_commit(&task, fence, line).await;
        if outcome == Some(Outcome::Stored) {
            self.stored.insert(task, line);
            self.commits += 1;
        }
    }

    fn note(&mut self, agent: usize) {
        let seen = self.agents[agent].seen.lock();
        for (task, at) in &seen.starts {
            self.trace
                .update(format!("{agent} {task} {:?};", *at - self.started));
        }
    }

    async fn calm(&mut self) {
        for replica in 0..REPLICAS {
            self.world.cuts[replica].heal();
            if self.world.replicas[replica].is_none() {
                self.world.start(replica).await;
            }
        }
        for agent in &self.agents {
            agent.thaw().await;
        }
        for n in 0..CONNECTORS {
            self.world.want(&format!("c{n}"), TargetState::Running).await;
        }
        // Long enough for a lease to end, and for agents that were lost at once to come back.
        for _ in 0..60 {
            sleep(Duration::from_secs(1)).await;
            self.check();
        }
        for uid in self.uids.clone() {
            self.world.tasks_are(&uid, TASKS, State::Running).await;
        }
        self.check();
        let running: usize = self.agents.iter().map(|a| a.running().len()).sum();
        assert_eq!(running, CONNECTORS * TASKS as usize);
    }
}

async fn run(seed: u64, seconds: u64) -> (String, usize) {
    let mut chaos = Chaos::new(seed).await;
    while chaos.started.elapsed() < Duration::from_secs(seconds) {
        chaos.step().await;
        for _ in 0..chaos.random.random_range(1..40) {
            sleep(Duration::from_millis(50)).await;
            chaos.check();
        }
        chaos.commit().await;
    }
    chaos.calm().await;
    (0..AGENTS).for_each(|agent| chaos.note(agent));
    let trace = chaos
        .trace
        .finalize()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    (trace, chaos.commits)
}

#[tokio::test(start_paused = true)]
async fn no_task_runs_twice_whatever_happens() {
    for seed in 1..=3 {
        let (_, commits) = run(seed, 200).await;
        assert!(commits > 0, "seed {seed}: {commits} commits");
    }
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let once = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(run(11, 100))
    };
    assert_eq!(once(), once());
}
