//! A store that carries plans out, and agents that do what they are told.

use std::{collections::BTreeMap, sync::Arc};

use gantry_proto::{
    agent::v1::{PlanTasksAnswer, PlannedTask, task_assignment::Want},
    v1::{self, connector::Kind, task::State},
};

use crate::{
    domain::{Snapshot, TaskId, Uid, Versioned, stored},
    plan::{Action, Facts, Plan, TaskGuard, split},
};

#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    pub(super) snapshot: Snapshot,
    /// Every grant that ever was: revision to holder.
    pub(super) fences: BTreeMap<TaskId, i64>,
    /// When answers of agents are stored.
    pub(super) now_ms: i64,
}

fn put<K: Ord, T>(revision: &mut i64, map: &mut BTreeMap<K, Versioned<T>>, key: K, value: T) {
    *revision += 1;
    let create_revision = map.get(&key).map_or(*revision, |old| old.create_revision);
    map.insert(
        key,
        Versioned {
            mod_revision: *revision,
            create_revision,
            value: Arc::new(value),
        },
    );
}

pub(super) fn uid(connector: &str) -> Uid {
    Uid(format!("uid-{connector}").into())
}

pub(super) fn task(connector: &str, n: u32) -> TaskId {
    TaskId {
        uid: uid(connector),
        n,
    }
}

impl Model {
    pub(super) fn put_connector(&mut self, name: &str, value: stored::Connector) {
        let s = &mut self.snapshot;
        s.names.insert(Uid(value.uid.as_str().into()), name.into());
        put(&mut s.revision, &mut s.connectors, name.into(), value);
    }

    pub(super) fn edit_connector(&mut self, name: &str, edit: impl FnOnce(&mut stored::Connector)) {
        let mut value = (*self.snapshot.connectors[name].value).clone();
        edit(&mut value);
        self.put_connector(name, value);
    }

    pub(super) fn put_session(&mut self, agent: &str, session: stored::Session) {
        let s = &mut self.snapshot;
        let instance = stored::Instance {
            instance_uid: session.instance_uid.clone(),
            lock: session.lock.clone(),
            start_counter: session.start_counter,
            ..Default::default()
        };
        put(&mut s.revision, &mut s.sessions, agent.into(), session);
        put(&mut s.revision, &mut s.instances, agent.into(), instance);
    }

    pub(super) fn remove_session(&mut self, agent: &str) {
        self.snapshot.revision += 1;
        self.snapshot.sessions.remove(agent);
    }

    pub(super) fn put_settings(&mut self, agent: &str, edit: impl FnOnce(&mut stored::AgentSettings)) {
        let s = &mut self.snapshot;
        let mut value = s
            .agents
            .get(agent)
            .map(|a| (*a.value).clone())
            .unwrap_or_default();
        edit(&mut value);
        put(&mut s.revision, &mut s.agents, agent.into(), value);
    }

    pub(super) fn put_plugin(&mut self, plugin: v1::Plugin) {
        let s = &mut self.snapshot;
        let id = plugin.name.trim_start_matches("plugins/").to_owned();
        let key = (id.as_str().into(), plugin.version.as_str().into());
        put(
            &mut s.revision,
            &mut s.plugins,
            key,
            stored::PluginRecord {
                plugin: Some(plugin),
                ..Default::default()
            },
        );
    }

    pub(super) fn put_status(&mut self, task: TaskId, status: stored::Status) {
        let s = &mut self.snapshot;
        put(&mut s.revision, &mut s.statuses, task, status);
    }

    pub(super) fn put_pointer(&mut self, connector: &str, value: stored::PlanPointer) {
        let s = &mut self.snapshot;
        put(&mut s.revision, &mut s.pointers, uid(connector), value);
    }

    pub(super) fn put_planned(
        &mut self,
        connector: &str,
        generation: i64,
        n: u32,
        task: stored::PlannedTask,
    ) {
        let s = &mut self.snapshot;
        put(
            &mut s.revision,
            &mut s.plans,
            (uid(connector), generation, n),
            task,
        );
    }

    /// Does what the leader's executor does. Returns how many actions were applied.
    pub(super) fn apply(&mut self, plan: &Plan, facts: &Facts) -> usize {
        let planned_on = self.snapshot.clone();
        plan.actions
            .iter()
            .filter(|action| self.carry_out(action, &planned_on, facts))
            .count()
    }

    fn carry_out(&mut self, action: &Action, planned_on: &Snapshot, facts: &Facts) -> bool {
        match action {
            Action::PlanTasks {
                connector,
                uid,
                spec,
                pointer,
                plan_generation,
                input_hash,
                plugin_version,
                ..
            } => {
                if !self.pointer_guard(connector, uid, *spec, *pointer) {
                    return false;
                }
                let answer = self.answer(connector);
                let made = split(
                    planned_on,
                    connector,
                    *plan_generation,
                    input_hash,
                    plugin_version,
                    &answer,
                    &facts.defaults,
                    self.now_ms,
                );
                let made = made.expect("the model's answers are sound");
                let s = &mut self.snapshot;
                for (n, planned) in (0..).zip(made.tasks) {
                    put(
                        &mut s.revision,
                        &mut s.plans,
                        (uid.clone(), *plan_generation, n),
                        planned,
                    );
                }
                put(&mut s.revision, &mut s.pointers, uid.clone(), made.pointer);
            }
            Action::SetPointer {
                connector,
                uid,
                spec,
                pointer,
                value,
            } => {
                if !self.pointer_guard(connector, uid, *spec, *pointer) {
                    return false;
                }
                let s = &mut self.snapshot;
                put(&mut s.revision, &mut s.pointers, uid.clone(), value.clone());
            }
            Action::Grant {
                task,
                guard,
                grant,
                want,
                ended,
            } => {
                if !self.task_guard(task, guard) {
                    return false;
                }
                assert_eq!(
                    guard.grant > 0,
                    ended.is_some(),
                    "a right is rewritten only when it has ended"
                );
                assert!(ended.is_none() || guard.instance.is_some() || guard.status.is_some());
                let others = Snapshot::tasks_of(&self.snapshot.grants, &task.uid).filter(|(t, _)| *t != task);
                for (other, held) in others {
                    assert_eq!(
                        held.plan_generation, grant.plan_generation,
                        "barrier: {other} is of another plan"
                    );
                }
                let s = &mut self.snapshot;
                put(&mut s.revision, &mut s.grants, task.clone(), grant.clone());
                // One transaction has one revision.
                s.revision -= 1;
                put(&mut s.revision, &mut s.wants, task.clone(), want.clone());
                let fence = self.fences.insert(task.clone(), s.revision).unwrap_or(0);
                assert!(fence < s.revision);
            }
            Action::SetWant { task, guard, want } => {
                if !self.task_guard(task, guard) {
                    return false;
                }
                assert!(guard.grant > 0, "a want without a holder");
                let s = &mut self.snapshot;
                put(&mut s.revision, &mut s.wants, task.clone(), want.clone());
            }
            Action::EndGrant { task, guard, .. } => {
                if !self.task_guard(task, guard) {
                    return false;
                }
                assert!(
                    guard.instance.is_some() || guard.status.is_some(),
                    "a right ends for a reason"
                );
                self.snapshot.revision += 1;
                self.snapshot.grants.remove(task);
            }
            Action::RemoveTask { task, guard } => {
                if !self.task_guard(task, guard) {
                    return false;
                }
                assert_eq!(guard.grant, 0);
                self.snapshot.revision += 1;
                self.snapshot.wants.remove(task);
                self.snapshot.statuses.remove(task);
            }
            Action::RemovePlan {
                uid,
                pointer,
                plan_generation,
            } => {
                let s = &mut self.snapshot;
                if s.pointers.get(uid).map_or(0, |p| p.mod_revision) != *pointer {
                    return false;
                }
                assert!(
                    Snapshot::tasks_of(&s.grants, uid).all(|(_, g)| g.plan_generation != *plan_generation)
                );
                s.revision += 1;
                s.plans.retain(|(u, g, _), _| u != uid || g != plan_generation);
            }
            Action::FinishDelete {
                connector, uid, spec, ..
            } => {
                let s = &mut self.snapshot;
                if s.connectors.get(connector.as_str()).map_or(0, |c| c.mod_revision) != *spec
                    || Snapshot::tasks_of(&s.grants, uid).next().is_some()
                {
                    return false;
                }
                s.revision += 1;
                s.connectors.remove(connector.as_str());
                s.names.remove(uid);
                s.pointers.remove(uid);
                s.plans.retain(|(u, ..), _| u != uid);
                s.wants.retain(|t, _| t.uid != *uid);
                s.statuses.retain(|t, _| t.uid != *uid);
            }
        }
        true
    }

    fn pointer_guard(&self, connector: &str, uid: &Uid, spec: i64, pointer: i64) -> bool {
        self.snapshot
            .connectors
            .get(connector)
            .map_or(0, |c| c.mod_revision)
            == spec
            && self.snapshot.pointers.get(uid).map_or(0, |p| p.mod_revision) == pointer
    }

    fn task_guard(&self, task: &TaskId, guard: &TaskGuard) -> bool {
        let s = &self.snapshot;
        self.pointer_guard(&guard.connector, &task.uid, guard.spec, guard.pointer)
            && s.grants.get(task).map_or(0, |g| g.mod_revision) == guard.grant
            && s.wants.get(task).map_or(0, |w| w.mod_revision) == guard.want
            && guard.instance.as_ref().is_none_or(|(agent, revision)| {
                s.instances.get(agent.as_str()).map_or(0, |i| i.mod_revision) == *revision
            })
            && guard
                .status
                .is_none_or(|revision| s.statuses.get(task).map_or(0, |s| s.mod_revision) == revision)
    }

    /// Every plugin of the model splits a connector into as many tasks as it may.
    fn answer(&self, connector: &str) -> PlanTasksAnswer {
        let d = self.snapshot.connectors[connector]
            .definition
            .clone()
            .unwrap_or_default();
        let task = PlannedTask {
            config: d.config,
            queues: Vec::new(),
        };
        PlanTasksAnswer {
            tasks: vec![task; d.tasks_max.max(1) as usize],
            total_queues: 0,
        }
    }

    /// All agents that are connected do what is wanted of them and say so.
    pub(super) fn obey(&mut self) {
        for (task, grant) in self.snapshot.grants.clone() {
            self.obey_one(&task, &grant);
        }
    }

    pub(super) fn obey_one(&mut self, task: &TaskId, grant: &Versioned<stored::Grant>) {
        let session = self.snapshot.sessions.get(grant.agent.as_str());
        if session.is_none_or(|s| s.silent || s.instance_uid != grant.instance_uid) {
            return;
        }
        let Some(want) = self.snapshot.wants.get(task) else {
            return;
        };
        let state = match want.want() {
            Want::Stop => State::Stopped,
            Want::Pause => State::Paused,
            Want::Run | Want::Unspecified => State::Running,
        };
        let status = stored::Status {
            agent: grant.agent.clone(),
            instance_uid: grant.instance_uid.clone(),
            fence: grant.mod_revision,
            want_revision: want.mod_revision,
            state: state.into(),
            restart_nonce: want.restart_nonce.clone(),
            ..Default::default()
        };
        if self
            .snapshot
            .statuses
            .get(task)
            .is_none_or(|s| *s.value != status)
        {
            self.put_status(task.clone(), status);
        }
    }
}

/// A connector of a plugin `p`, version 1.0.0, with that many tasks.
pub(super) fn connector(name: &str, tasks_max: i32) -> stored::Connector {
    stored::Connector {
        uid: uid(name).to_string(),
        definition: Some(v1::Connector {
            plugin: "p".into(),
            topic: "t".into(),
            tasks_max,
            target_state: v1::connector::TargetState::Running.into(),
            ..Default::default()
        }),
        generation: 1,
        ..Default::default()
    }
}

pub(super) fn session(instance: &str, host: &str) -> stored::Session {
    stored::Session {
        instance_uid: instance.into(),
        host_id: host.into(),
        plugins: vec!["p@1.0.0".into()],
        ..Default::default()
    }
}

pub(super) fn plugin(version: &str) -> v1::Plugin {
    v1::Plugin {
        name: "plugins/p".into(),
        version: version.into(),
        kind: Kind::Source.into(),
        ..Default::default()
    }
}
