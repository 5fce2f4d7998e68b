//! What really happens on agents, beside what the store knows of it: processes that run, stop, die, are cut off.

use std::collections::{BTreeMap, BTreeSet};

use gantry_proto::{
    agent::v1::task_assignment::Want,
    v1::{connector::TargetState, task::State},
};
use proptest::prelude::*;

use super::model::{Model, connector, plugin, session};
use crate::{
    domain::{TaskId, stored, time::timestamp},
    plan::{Action, BrakeState, Facts, plan},
};

const LEASE_MS: u64 = 9_000;

#[derive(Debug, Clone)]
pub(super) enum Op {
    Create(u8, u8),
    Target(u8, u8),
    Tasks(u8, u8),
    Restart(u8),
    Delete(u8),
    Start(u8),
    Kill(u8),
    Cut(u8),
    Heal(u8),
    Silence(u8),
    Goodbye(u8),
    Cordon(u8),
    Drain(u8),
    Uncordon(u8),
    Refuse(u8, u8),
    Replan(u8, u8),
    Brake(bool),
    /// A whole lease passes.
    Lease,
    /// A holder does what is wanted.
    Act(u8, u8),
    /// A holder says what it does.
    Report(u8, u8),
    /// All do what is wanted and say so.
    Obey,
    /// Plan, and carry out so many of the actions.
    Plan(u8),
}

/// Instead of the number of a task: all tasks of the connector.
const ALL: u8 = 3;

pub(super) fn ops(most: usize) -> impl Strategy<Value = Vec<Op>> {
    let (c, a, n) = (0..2_u8, 0..3_u8, 0..ALL + 1);
    let op = prop_oneof![
        1 => (c.clone(), 1..4_u8).prop_map(|(c, n)| Op::Create(c, n)),
        10 => (c.clone(), prop_oneof![3 => Just(0_u8), 1 => Just(1), 3 => Just(2)]).prop_map(|(c, t)| Op::Target(c, t)),
        2 => (c.clone(), 1..4_u8).prop_map(|(c, n)| Op::Tasks(c, n)),
        1 => c.clone().prop_map(Op::Restart),
        1 => c.clone().prop_map(Op::Delete),
        2 => a.clone().prop_map(Op::Start),
        1 => a.clone().prop_map(Op::Kill),
        2 => a.clone().prop_map(Op::Cut),
        2 => a.clone().prop_map(Op::Heal),
        1 => a.clone().prop_map(Op::Silence),
        1 => a.clone().prop_map(Op::Goodbye),
        1 => a.clone().prop_map(Op::Cordon),
        2 => a.clone().prop_map(Op::Drain),
        3 => a.prop_map(Op::Uncordon),
        1 => (c.clone(), n.clone()).prop_map(|(c, n)| Op::Refuse(c, n)),
        1 => (c.clone(), n.clone()).prop_map(|(c, n)| Op::Replan(c, n)),
        1 => any::<bool>().prop_map(Op::Brake),
        2 => Just(Op::Lease),
        8 => (c.clone(), n.clone()).prop_map(|(c, n)| Op::Act(c, n)),
        8 => (c, n).prop_map(|(c, n)| Op::Report(c, n)),
        3 => Just(Op::Obey),
        20 => prop_oneof![4 => Just(u8::MAX), 1 => 0..6_u8].prop_map(Op::Plan),
    ];
    // A user who cannot decide, and an agent whose reports are late: rare among all the rest.
    let hasty = (0..2_u8, prop::collection::vec(0..5_u8, 8..20)).prop_map(|(c, steps)| {
        let step = |s| match s {
            0 => Op::Target(c, 0),
            1 => Op::Target(c, 2),
            2 => Op::Act(c, ALL),
            3 => Op::Report(c, ALL),
            _ => Op::Plan(u8::MAX),
        };
        steps.into_iter().map(step).collect()
    });
    let part = prop_oneof![12 => op.prop_map(|op| vec![op]), 1 => hasty];
    prop::collection::vec(part, 1..most).prop_map(|parts: Vec<Vec<Op>>| parts.concat())
}

/// A task as a process has it.
#[derive(Debug, Clone)]
struct Run {
    instance: String,
    fence: i64,
    want: i64,
    nonce: String,
    state: State,
    refused: bool,
}

#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) model: Model,
    pub(super) facts: Facts,
    pub(super) now_ms: i64,
    runs: BTreeMap<TaskId, Run>,
    alive: BTreeSet<String>,
    starts: u32,
    seen: BTreeMap<String, Vec<String>>,
}

fn agent_name(a: u8) -> String {
    format!("agent-{a}")
}

fn connector_name(c: u8) -> String {
    format!("connector-{c}")
}

impl World {
    pub(super) fn new() -> Self {
        let mut world = Self {
            now_ms: 1_000_000,
            ..Self::default()
        };
        world.model.put_plugin(plugin("1.0.0"));
        world
    }

    pub(super) fn step(&mut self, op: &Op) {
        match *op {
            Op::Create(c, tasks) => {
                let name = connector_name(c);
                if !self.model.snapshot.connectors.contains_key(name.as_str()) {
                    let mut new = connector(&name, tasks.into());
                    self.starts += 1;
                    new.uid = format!("{name}-{}", self.starts);
                    self.model.put_connector(&name, new);
                }
            }
            Op::Target(c, target) => self.update(c, |d| {
                d.set_target_state(
                    [TargetState::Running, TargetState::Paused, TargetState::Stopped][usize::from(target)],
                );
            }),
            Op::Tasks(c, tasks) => self.update(c, |d| d.tasks_max = tasks.into()),
            Op::Restart(c) => {
                self.starts += 1;
                let nonce = format!("r{}", self.starts);
                self.edit(c, |c| c.restart_nonce = nonce);
            }
            Op::Delete(c) => self.edit(c, |c| c.delete_time = Some(timestamp(1))),
            Op::Start(a) => self.start(a),
            Op::Kill(a) => {
                if let Some(instance) = self.instance(a) {
                    self.alive.remove(&instance);
                    self.model.remove_session(&agent_name(a));
                }
            }
            Op::Cut(a) => {
                if self.instance(a).is_some() {
                    self.model.remove_session(&agent_name(a));
                }
            }
            Op::Heal(a) => self.heal(a),
            Op::Silence(a) => {
                if let Some(instance) = self.instance(a) {
                    self.halt(&instance);
                    let mut s = (*self.model.snapshot.sessions[agent_name(a).as_str()].value).clone();
                    s.silent = true;
                    self.model.put_session(&agent_name(a), s);
                }
            }
            Op::Goodbye(a) => self.goodbye(a),
            Op::Cordon(a) => self.model.put_settings(&agent_name(a), |s| s.cordoned = true),
            Op::Drain(a) => self.model.put_settings(&agent_name(a), |s| s.draining = true),
            Op::Uncordon(a) => self
                .model
                .put_settings(&agent_name(a), |s| *s = stored::AgentSettings::default()),
            Op::Refuse(c, n) => self.act(c, n, true),
            Op::Replan(c, n) => {
                if let Some(id) = self.task(c, n)
                    && let Some(status) = self.model.snapshot.statuses.get(&id)
                {
                    let status = stored::Status {
                        replan_wanted: true,
                        ..(*status.value).clone()
                    };
                    self.model.put_status(id, status);
                }
            }
            Op::Brake(on) => self.facts.brake = on.then_some(BrakeState { lost: 3, of: 4 }),
            Op::Lease => self.lease(),
            Op::Act(c, ALL) => (0..ALL).for_each(|n| self.act(c, n, false)),
            Op::Act(c, n) => self.act(c, n, false),
            Op::Report(c, ALL) => (0..ALL).for_each(|n| self.report(c, n)),
            Op::Report(c, n) => self.report(c, n),
            Op::Obey => self.obey(),
            Op::Plan(most) => {
                self.plan(usize::from(most));
            }
        }
        self.measure();
    }

    fn update(&mut self, c: u8, edit: impl FnOnce(&mut gantry_proto::v1::Connector)) {
        self.edit(c, |c| {
            c.generation += 1;
            edit(c.definition.get_or_insert_default());
        });
    }

    fn edit(&mut self, c: u8, edit: impl FnOnce(&mut stored::Connector)) {
        let name = connector_name(c);
        if self
            .model
            .snapshot
            .connectors
            .get(name.as_str())
            .is_some_and(|c| c.delete_time.is_none())
        {
            self.model.edit_connector(&name, edit);
        }
    }

    fn task(&self, c: u8, n: u8) -> Option<TaskId> {
        let connector = self.model.snapshot.connectors.get(connector_name(c).as_str())?;
        Some(TaskId {
            uid: crate::domain::Uid(connector.uid.as_str().into()),
            n: n.into(),
        })
    }

    /// The instance that has a session which is heard.
    fn instance(&self, a: u8) -> Option<String> {
        let session = self
            .model
            .snapshot
            .sessions
            .get(agent_name(a).as_str())
            .filter(|s| !s.silent)?;
        Some(session.instance_uid.clone())
    }

    /// The process under that name ends, if there is one, and another starts under the same lock.
    pub(super) fn start(&mut self, a: u8) {
        let name = agent_name(a);
        self.starts += 1;
        let instance = format!("{name}-{}", self.starts);
        let before = self.seen.entry(name.clone()).or_default();
        before.iter().for_each(|old| {
            self.alive.remove(old);
        });
        let mut new = session(&instance, &name);
        new.gone.clone_from(before);
        before.push(instance.clone());
        self.alive.insert(instance);
        self.model.put_session(&name, new);
    }

    /// A process that was cut off has a session again.
    fn heal(&mut self, a: u8) {
        let name = agent_name(a);
        let Some((last, before)) = self.seen.get(&name).and_then(|all| all.split_last()) else {
            return;
        };
        if self.alive.contains(last) {
            let mut again = session(last, &name);
            again.gone = before.to_vec();
            self.model.put_session(&name, again);
        }
    }

    fn goodbye(&mut self, a: u8) {
        let Some(instance) = self.instance(a) else { return };
        self.halt(&instance);
        for (id, grant) in self.model.snapshot.grants.clone() {
            if grant.instance_uid == instance {
                let fence = grant.mod_revision;
                let stopped = stored::Status {
                    fence,
                    state: State::Stopped.into(),
                    ..Default::default()
                };
                self.model.put_status(id, stopped);
            }
        }
        self.alive.remove(&instance);
        self.model.remove_session(&agent_name(a));
    }

    /// A whole lease passes: who is cut off has stopped its tasks.
    pub(super) fn lease(&mut self) {
        self.now_ms += LEASE_MS as i64;
        for (uid, ms) in &mut self.facts.absent_ms {
            *ms += LEASE_MS;
            for run in self.runs.values_mut().filter(|r| *r.instance == **uid) {
                run.state = State::Pending;
            }
        }
    }

    /// What the leader's own clock tells.
    fn measure(&mut self) {
        let s = &self.model.snapshot;
        let absent = s.grants.values().filter(|g| {
            s.sessions
                .get(g.agent.as_str())
                .is_none_or(|session| session.instance_uid != g.instance_uid)
        });
        let measured = |uid: &str| self.facts.absent_ms.get(uid).copied().unwrap_or(0);
        self.facts.absent_ms = absent
            .map(|g| (g.instance_uid.as_str().into(), measured(&g.instance_uid)))
            .collect();
    }

    fn halt(&mut self, instance: &str) {
        self.runs
            .values_mut()
            .filter(|r| r.instance == instance)
            .for_each(|r| r.state = State::Pending);
    }

    /// The holder of a task does what is wanted, if it is connected.
    fn act(&mut self, c: u8, n: u8, refuse: bool) {
        let Some(id) = self.task(c, n) else { return };
        let s = &self.model.snapshot;
        let (Some(grant), Some(want)) = (s.grants.get(&id), s.wants.get(&id)) else {
            return;
        };
        let connected = s
            .sessions
            .get(grant.agent.as_str())
            .is_some_and(|session| !session.silent && session.instance_uid == grant.instance_uid);
        let fence = grant.mod_revision;
        let known = self.runs.get(&id).is_some_and(|r| r.fence == fence);
        if !connected || !self.alive.contains(&grant.instance_uid) || (refuse && known) {
            return;
        }
        if self.runs.get(&id).is_some_and(|r| r.fence == fence && r.refused) && want.want() != Want::Stop {
            return;
        }
        let state = match want.want() {
            Want::Stop => State::Stopped,
            Want::Pause => State::Paused,
            _ if refuse => State::Pending,
            _ => State::Running,
        };
        let run = Run {
            instance: grant.instance_uid.clone(),
            fence,
            want: want.mod_revision,
            nonce: want.restart_nonce.clone(),
            state,
            refused: refuse && want.want() == Want::Run,
        };
        self.runs.insert(id, run);
    }

    fn report(&mut self, c: u8, n: u8) {
        let Some(id) = self.task(c, n) else { return };
        let Some(run) = self.runs.get(&id).cloned() else {
            return;
        };
        let fenced = self
            .model
            .snapshot
            .grants
            .get(&id)
            .is_none_or(|g| g.mod_revision != run.fence);
        if fenced || !self.alive.contains(&run.instance) {
            return;
        }
        let status = stored::Status {
            instance_uid: run.instance,
            fence: run.fence,
            want_revision: run.want,
            state: run.state.into(),
            restart_nonce: run.nonce,
            refusal: run.refused.then(|| stored::Refusal {
                message: "no".into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let before = self.model.snapshot.statuses.get(&id);
        if before.is_none_or(|s| *s.value != status) {
            self.model.put_status(id, status);
        }
    }

    /// Plans and carries out; returns how many actions there were.
    pub(super) fn plan(&mut self, most: usize) -> usize {
        self.model.now_ms = self.now_ms;
        let made = plan(&self.model.snapshot, &self.facts, self.now_ms);
        let again = plan(&self.model.snapshot, &self.facts, self.now_ms);
        assert_eq!(made, again, "the same answer for the same input");
        let tasks: Vec<_> = made.actions.iter().filter_map(task_of).collect();
        assert_eq!(
            tasks.len(),
            tasks.iter().collect::<BTreeSet<_>>().len(),
            "one decision for each task"
        );
        for action in made.actions.iter().take(most) {
            let before = self.model.snapshot.grants.clone();
            let one = crate::plan::Plan {
                actions: vec![action.clone()],
                ..Default::default()
            };
            self.model.apply(&one, &self.facts);
            for (id, old) in before {
                let present = self.model.snapshot.grants.get(&id).map_or(0, |g| g.mod_revision);
                if present != old.mod_revision {
                    self.must_have_ended(&id, &old.instance_uid, old.mod_revision);
                }
            }
        }
        self.measure();
        made.actions.len()
    }

    fn must_have_ended(&self, id: &TaskId, instance: &str, fence: i64) {
        let runs = self
            .runs
            .get(id)
            .filter(|r| r.fence == fence && r.instance == instance);
        let running = runs.is_some_and(|r| matches!(r.state, State::Running | State::Paused));
        assert!(
            !running || !self.alive.contains(instance),
            "the right of {id} ended while {instance} had it"
        );
    }

    /// Agents do all that is wanted and say so.
    pub(super) fn obey(&mut self) {
        for c in 0..2 {
            for n in 0..ALL {
                self.act(c, n, false);
                self.report(c, n);
            }
        }
    }

    /// All is well again, and everything settles in a bounded number of steps.
    pub(super) fn settle(&mut self) {
        self.facts.brake = None;
        for a in 0..3 {
            self.step(&Op::Uncordon(a));
            self.step(&Op::Start(a));
        }
        for _ in 0..40 {
            self.now_ms += 4_000_000;
            self.lease();
            self.measure();
            self.obey();
            if self.plan(usize::MAX) == 0 {
                return;
            }
            // What an answer about the split has overtaken is decided again at once, not when the next split is due.
            self.plan(usize::MAX);
        }
        panic!(
            "it does not settle: {:#?}",
            plan(&self.model.snapshot, &self.facts, self.now_ms)
        );
    }
}

fn task_of(action: &Action) -> Option<&TaskId> {
    match action {
        Action::Grant { task, .. }
        | Action::SetWant { task, .. }
        | Action::EndGrant { task, .. }
        | Action::RemoveTask { task, .. } => Some(task),
        _ => None,
    }
}
