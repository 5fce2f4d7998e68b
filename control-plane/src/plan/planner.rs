//! Goes through all connectors and gathers what is to be done.

use std::rc::Rc;

use gantry_proto::v1;

use super::{Action, Plan, Reason, connector::Connector, moves::Move, pointer::planning, world::World};
use crate::domain::{Snapshot, TaskId};

pub(super) struct Planner<'a> {
    pub(super) world: World<'a>,
    pub(super) actions: Vec<Action>,
    pub(super) report: Vec<Reason>,
    pub(super) wake_at_ms: Option<i64>,
    pub(super) moves: Vec<Move<'a>>,
}

impl<'a> Planner<'a> {
    pub(super) fn new(world: World<'a>) -> Self {
        Self {
            world,
            actions: Vec::new(),
            report: Vec::new(),
            wake_at_ms: None,
            moves: Vec::new(),
        }
    }

    pub(super) fn run(mut self, nothing: &'a v1::Connector) -> Plan {
        let snapshot = self.world.snapshot;
        for (name, stored) in &snapshot.connectors {
            let connector = Connector::new(&self.world, name, stored, nothing);
            self.connector(connector);
        }
        self.moves();
        Plan {
            actions: self.actions,
            report: self.report,
            wake_at_ms: self.wake_at_ms,
        }
    }

    fn connector(&mut self, connector: Connector<'a>) {
        let planning = planning(&connector, &self.world);
        self.wake(planning.wake_at_ms);
        self.report.extend(planning.reason);
        let (ask, pointer) = match planning.action {
            Some(ask @ Action::PlanTasks { .. }) => (Some(ask), None),
            pointer => (None, pointer),
        };
        self.actions.extend(ask);
        let connector = self.tasks(connector, planning.fresh);
        self.clean_up(&connector);
        // Last, because every decision about a task of it compares the pointer.
        self.actions.extend(pointer);
    }

    /// What is left over: tasks that the plan has no more, plans that nobody runs, the connector itself.
    fn clean_up(&mut self, c: &Rc<Connector<'a>>) {
        let snapshot = self.world.snapshot;
        if c.stored.delete_time.is_some() {
            if c.holders.is_empty() {
                self.actions.push(Action::FinishDelete {
                    connector: c.name.to_owned(),
                    uid: c.uid.clone(),
                    spec: c.stored.mod_revision,
                    keep_offsets: c.stored.keep_offsets,
                });
            }
            return;
        }
        let Some(pointer) = c.pointer.filter(|_| c.plan_generation > 0) else {
            return;
        };
        let surplus = TaskId {
            uid: c.uid.clone(),
            n: c.tasks,
        }..=TaskId {
            uid: c.uid.clone(),
            n: u32::MAX,
        };
        let wants = snapshot.wants.range(surplus.clone()).map(|(task, _)| task);
        let statuses = snapshot.statuses.range(surplus).map(|(task, _)| task);
        let mut left_over: Vec<_> = wants
            .chain(statuses)
            .filter(|t| !snapshot.grants.contains_key(t))
            .collect();
        left_over.sort();
        left_over.dedup();
        for task in left_over {
            let mut guard = c.guard(snapshot, task);
            guard.status = Some(snapshot.statuses.get(task).map_or(0, |s| s.mod_revision));
            self.actions.push(Action::RemoveTask {
                task: task.clone(),
                guard,
            });
        }
        let mut from = i64::MIN;
        while let Some(((_, generation, _), _)) = snapshot
            .plans
            .range((c.uid.clone(), from, 0)..(c.uid.clone(), c.plan_generation, 0))
            .next()
        {
            if c.holders.iter().all(|h| h.grant.plan_generation != *generation) {
                self.actions.push(Action::RemovePlan {
                    uid: c.uid.clone(),
                    pointer: pointer.mod_revision,
                    plan_generation: *generation,
                });
            }
            from = generation + 1;
        }
    }

    pub(super) fn wake(&mut self, at: Option<i64>) {
        self.wake_at_ms = self.wake_at_ms.into_iter().chain(at).min();
    }

    pub(super) fn snapshot(&self) -> &'a Snapshot {
        self.world.snapshot
    }
}
