//! A connector as the planner looks at it.

use std::{iter::Peekable, rc::Rc};

use gantry_proto::v1::{self, connector::TargetState};
use pbjson_types::value::Kind;

use super::{
    Action, Ended, Reason, TaskGuard,
    placement::{self, Need, Nowhere},
    world::{Offers, World},
};
use crate::domain::{Snapshot, TaskId, Uid, Versioned, status, stored};

/// A task that has a grant.
pub(super) struct Holder<'a> {
    pub(super) task: TaskId,
    pub(super) grant: &'a Versioned<stored::Grant>,
    pub(super) want: Option<&'a Versioned<stored::Want>>,
    pub(super) status: Option<&'a Versioned<stored::Status>>,
    /// Number of the agent under whose name it is held, if that has a session which is heard.
    pub(super) agent: Option<usize>,
    /// That session is the holder's own.
    pub(super) live: bool,
    /// Why the right has surely ended.
    pub(super) ended: Option<Ended>,
}

/// The tasks of a connector that have a grant. Goes along all maps at once: looking each key up would take most of the
/// time that planning takes.
fn holders<'a>(world: &World<'a>, uid: &Uid) -> Vec<Holder<'a>> {
    let mut wants = Snapshot::tasks_of(&world.snapshot.wants, uid).peekable();
    let mut statuses = Snapshot::tasks_of(&world.snapshot.statuses, uid).peekable();
    let holder = |(task, grant): (&TaskId, &'a Versioned<stored::Grant>)| {
        let want = at(&mut wants, task.n);
        let status = at(&mut statuses, task.n);
        let agent = world.number(&grant.agent);
        let live = agent.is_some_and(|i| world.agents[i].session.instance_uid == grant.instance_uid);
        let ended = world.ended(grant, live, want, status);
        Holder {
            task: task.clone(),
            grant,
            want,
            status,
            agent,
            live,
            ended,
        }
    };
    Snapshot::tasks_of(&world.snapshot.grants, uid)
        .map(holder)
        .collect()
}

/// The value of task `n`, skipping those before it.
fn at<'a, T>(
    values: &mut Peekable<impl Iterator<Item = (&'a TaskId, &'a Versioned<T>)>>,
    n: u32,
) -> Option<&'a Versioned<T>> {
    while values.next_if(|(task, _)| task.n < n).is_some() {}
    values.next_if(|(task, _)| task.n == n).map(|(_, value)| value)
}

pub(super) struct Connector<'a> {
    pub(super) name: &'a str,
    pub(super) uid: Uid,
    pub(super) stored: &'a Versioned<stored::Connector>,
    pub(super) definition: &'a v1::Connector,
    pub(super) pointer: Option<&'a Versioned<stored::PlanPointer>>,
    /// Generation of the plan that counts; 0: none.
    pub(super) plan_generation: i64,
    pub(super) tasks: u32,
    /// The tasks of that plan.
    pub(super) planned: Vec<Option<&'a stored::PlannedTask>>,
    pub(super) holders: Vec<Holder<'a>>,
    pub(super) offers: Rc<Offers>,
    /// Version that a new plan would pin.
    pub(super) version: String,
    /// Its tasks stay on one host.
    pub(super) local: bool,
    /// That host, once a task was placed. All tasks of a connector are on the same one: its partitions are paths, and
    /// the same path on two hosts is not the same file.
    pub(super) home: Option<String>,
}

impl<'a> Connector<'a> {
    pub(super) fn new(
        world: &World<'a>,
        name: &'a str,
        stored: &'a Versioned<stored::Connector>,
        nothing: &'a v1::Connector,
    ) -> Self {
        let snapshot = world.snapshot;
        let definition = stored.value.definition.as_ref().unwrap_or(nothing);
        let uid = Uid(stored.uid.as_str().into());
        let pointer = snapshot.pointers.get(&uid);
        let plan_generation = pointer.map_or(0, |p| p.plan_generation);
        let tasks = pointer.map_or(0, |p| if plan_generation > 0 { p.tasks } else { 0 });
        let holders = holders(world, &uid);
        let mut planned = vec![None; tasks as usize];
        for ((_, _, n), task) in snapshot
            .plans
            .range((uid.clone(), plan_generation, 0)..(uid.clone(), plan_generation, tasks))
        {
            planned[*n as usize] = Some(&*task.value);
        }
        let mut connector = Self {
            name,
            stored,
            definition,
            pointer,
            plan_generation,
            tasks,
            planned,
            holders,
            offers: world.offers(&definition.plugin, &definition.agent_selector),
            version: String::new(),
            local: false,
            home: None,
            uid,
        };
        connector.version = connector.version_to_pin(world);
        connector.local = connector.is_local(snapshot);
        if connector.local {
            let wants = Snapshot::tasks_of(&snapshot.wants, &connector.uid).map(|(_, w)| &w.value.host_id);
            let grants = connector.holders.iter().map(|h| &h.grant.value.host_id);
            connector.home = wants.chain(grants).find(|host| !host.is_empty()).cloned();
        }
        connector
    }

    pub(super) fn target(&self) -> TargetState {
        self.definition.target_state()
    }

    /// No task shall exist.
    pub(super) fn ends(&self) -> bool {
        self.stored.delete_time.is_some() || self.target() == TargetState::Stopped
    }

    /// Version that the plan that counts pins.
    pub(super) fn planned_version(&self) -> &str {
        self.pointer.map_or("", |p| &p.plugin_version)
    }

    fn version_to_pin(&self, world: &World<'_>) -> String {
        if !self.definition.plugin_version.is_empty() {
            return self.definition.plugin_version.clone();
        }
        let counts = self
            .offers
            .by_version
            .iter()
            .map(|(version, agents)| (version.as_str(), agents.len()));
        let best = crate::domain::version::choose(counts);
        let present = self.planned_version();
        let Some(best) = best else {
            return present.to_owned();
        };
        // Who is left after a great loss does not decide what everybody runs.
        let calm = world.facts.brake.is_none();
        let higher = calm && crate::domain::version::compare(best, present).is_gt();
        // Back to a lower version only when nobody is left who might still run the present one.
        let deserted =
            calm && self.offers.with(present).is_empty() && self.holders.iter().all(|h| h.ended.is_some());
        if present.is_empty() || higher || deserted {
            best.to_owned()
        } else {
            present.to_owned()
        }
    }

    fn is_local(&self, snapshot: &Snapshot) -> bool {
        let version = if self.plan_generation > 0 {
            self.planned_version()
        } else {
            &self.version
        };
        let key = (self.definition.plugin.as_str().into(), version.into());
        let host_local = snapshot
            .plugins
            .get(&key)
            .and_then(|r| r.plugin.as_ref())
            .is_some_and(|p| p.host_local);
        let shared = self
            .definition
            .config
            .as_ref()
            .and_then(|c| c.fields.get("shared_storage"));
        let shared = shared.is_some_and(|v| match &v.kind {
            Some(Kind::BoolValue(b)) => *b,
            Some(Kind::StringValue(s)) => s == "true",
            _ => false,
        });
        host_local && !shared
    }

    pub(super) fn restart_nonce(&self, n: u32) -> String {
        status::restart_nonce(&self.stored.value, n)
    }

    /// All that a decision about a task rests on.
    pub(super) fn guard(&self, snapshot: &Snapshot, task: &TaskId) -> TaskGuard {
        TaskGuard {
            connector: self.name.to_owned(),
            spec: self.stored.mod_revision,
            pointer: self.pointer.map_or(0, |p| p.mod_revision),
            grant: snapshot.grants.get(task).map_or(0, |g| g.mod_revision),
            want: snapshot.wants.get(task).map_or(0, |w| w.mod_revision),
            instance: None,
            status: None,
        }
    }

    pub(super) fn reason(&self, task: Option<u32>, code: &'static str, text: impl Into<String>) -> Reason {
        Reason {
            connector: self.name.to_owned(),
            task,
            code,
            text: text.into(),
        }
    }

    pub(super) fn set_pointer(&self, value: stored::PlanPointer) -> Action {
        Action::SetPointer {
            connector: self.name.to_owned(),
            uid: self.uid.clone(),
            spec: self.stored.mod_revision,
            pointer: self.pointer.map_or(0, |p| p.mod_revision),
            value,
        }
    }

    /// Does the present plan's agent still suit a task: offers the version, has the labels, is not being drained?
    pub(super) fn suits(&self, world: &World<'_>, agent: Option<usize>) -> bool {
        agent.is_some_and(|number| {
            !world.agents[number].draining()
                && self
                    .offers
                    .with(self.planned_version())
                    .binary_search(&number)
                    .is_ok()
        })
    }

    /// An agent for one of its tasks.
    pub(super) fn choose(
        &self,
        world: &World<'_>,
        spec_hash: &str,
        before: Option<&str>,
        except: Option<&str>,
        refusals: &[stored::Refusal],
        own: &[u32],
    ) -> Result<usize, Nowhere> {
        let version = self.planned_version();
        let need = Need {
            plugin: &self.definition.plugin,
            version,
            offers: self.offers.with(version),
            have_plugin: self.offers.any_labels,
            selective: !self.definition.agent_selector.is_empty(),
            host: if self.local { self.home.as_deref() } else { None },
            before,
            except,
            refusals,
            spec_hash,
        };
        placement::choose(world, &need, own)
    }

    /// By agent number: tasks of this connector that it holds.
    pub(super) fn own(&self, world: &World<'_>) -> Vec<u32> {
        let mut own = vec![0; world.agents.len()];
        for number in self.holders.iter().filter_map(|h| h.agent) {
            own[number] += 1;
        }
        own
    }
}
