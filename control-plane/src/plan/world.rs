//! A snapshot as the planner looks at it: agents by number, who offers what, how loaded each is.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap, HashSet},
    rc::Rc,
};

use gantry_proto::agent::v1::task_assignment::Want;

use super::{Ended, Facts};
use crate::domain::{Snapshot, Versioned, stored};

/// An agent with a session that is not silent.
pub(super) struct Agent<'a> {
    pub(super) name: &'a str,
    pub(super) session: &'a stored::Session,
    /// What people said of it.
    settings: Option<&'a stored::AgentSettings>,
    /// Grants that name it, its earlier instances included.
    pub(super) tasks: usize,
    /// What they weigh.
    pub(super) load: u32,
}

impl Agent<'_> {
    pub(super) fn cordoned(&self) -> bool {
        self.settings.is_some_and(|s| s.cordoned || s.draining)
    }

    pub(super) fn draining(&self) -> bool {
        self.settings.is_some_and(|s| s.draining)
    }

    pub(super) fn full(&self) -> bool {
        usize::try_from(self.session.capacity).is_ok_and(|capacity| capacity > 0 && self.tasks >= capacity)
    }

    /// Its own labels with those given by people over them.
    fn label(&self, key: &str) -> Option<&str> {
        let given = self.settings.and_then(|s| s.labels.get(key));
        given.or_else(|| self.session.labels.get(key)).map(String::as_str)
    }

    pub(super) fn matches(&self, selector: &BTreeMap<String, String>) -> bool {
        selector.iter().all(|(key, value)| self.label(key) == Some(value))
    }
}

/// Agents that offer a plugin and match a selector.
#[derive(Default)]
pub(super) struct Offers {
    /// By version, in order of name.
    pub(super) by_version: BTreeMap<String, Vec<usize>>,
    /// Agents that have the plugin, whatever their labels.
    pub(super) any_labels: usize,
}

impl Offers {
    pub(super) fn with(&self, version: &str) -> &[usize] {
        self.by_version.get(version).map_or(&[], Vec::as_slice)
    }
}

type Selection<'a> = (&'a str, &'a BTreeMap<String, String>);

pub(super) struct World<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) facts: &'a Facts,
    pub(super) now_ms: i64,
    pub(super) agents: Vec<Agent<'a>>,
    numbers: HashMap<&'a str, usize>,
    /// Plugin to agents and versions.
    plugins: HashMap<&'a str, Vec<(usize, &'a str)>>,
    gone: HashSet<&'a str>,
    offers: RefCell<HashMap<Selection<'a>, Rc<Offers>>>,
}

impl<'a> World<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, facts: &'a Facts, now_ms: i64) -> Self {
        let mut world = Self {
            snapshot,
            facts,
            now_ms,
            agents: Vec::new(),
            numbers: HashMap::new(),
            plugins: HashMap::new(),
            gone: HashSet::new(),
            offers: RefCell::default(),
        };
        for (name, session) in &snapshot.sessions {
            world.gone.extend(session.gone.iter().map(String::as_str));
            if session.silent {
                continue;
            }
            let number = world.agents.len();
            let settings = snapshot.agents.get(name).map(|s| &*s.value);
            world.agents.push(Agent {
                name,
                session: &session.value,
                settings,
                tasks: 0,
                load: 0,
            });
            world.numbers.insert(name, number);
            for plugin in &session.plugins {
                if let Some((plugin, version)) = plugin.split_once('@') {
                    world.plugins.entry(plugin).or_default().push((number, version));
                }
            }
        }
        world.gone.extend(facts.replaced.iter().map(|uid| &**uid));
        let mut wants = snapshot.wants.iter().peekable();
        for (task, grant) in &snapshot.grants {
            while wants.next_if(|(other, _)| *other < task).is_some() {}
            let want = wants.next_if(|(other, _)| *other == task).map(|(_, w)| w.want());
            world.add(&grant.agent, weight(want.unwrap_or(Want::Run)));
        }
        world
    }

    pub(super) fn number(&self, agent: &str) -> Option<usize> {
        self.numbers.get(agent).copied()
    }

    pub(super) fn add(&mut self, agent: &str, weight: u32) {
        if let Some(agent) = self.number(agent).map(|i| &mut self.agents[i]) {
            agent.tasks += 1;
            agent.load += weight;
        }
    }

    pub(super) fn remove(&mut self, agent: &str, weight: u32) {
        if let Some(agent) = self.number(agent).map(|i| &mut self.agents[i]) {
            agent.tasks = agent.tasks.saturating_sub(1);
            agent.load = agent.load.saturating_sub(weight);
        }
    }

    /// Who offers a plugin; worked out once for each plugin and selector.
    pub(super) fn offers(&self, plugin: &'a str, selector: &'a BTreeMap<String, String>) -> Rc<Offers> {
        if let Some(known) = self.offers.borrow().get(&(plugin, selector)) {
            return known.clone();
        }
        let mut offers = Offers::default();
        let mut counted = None;
        for (number, version) in self.plugins.get(plugin).into_iter().flatten() {
            if counted != Some(*number) {
                offers.any_labels += 1;
                counted = Some(*number);
            }
            if self.agents[*number].matches(selector) {
                offers
                    .by_version
                    .entry((*version).to_owned())
                    .or_default()
                    .push(*number);
            }
        }
        let offers = Rc::new(offers);
        self.offers
            .borrow_mut()
            .insert((plugin, selector), offers.clone());
        offers
    }

    /// Whether, and why, a right has surely ended. None: it may still be used. `live`: its holder is connected and heard.
    pub(super) fn ended(
        &self,
        grant: &Versioned<stored::Grant>,
        live: bool,
        want: Option<&Versioned<stored::Want>>,
        status: Option<&Versioned<stored::Status>>,
    ) -> Option<Ended> {
        use gantry_proto::v1::task::State;
        if let Some(status) = status.filter(|s| s.fence == grant.mod_revision) {
            // STOPPED that answers no want is written by a goodbye alone.
            if status.state() == State::Stopped && status.want_revision == 0 && status.refusal.is_none() {
                return Some(Ended::Goodbye);
            }
            let answers = |w: &&Versioned<stored::Want>| {
                w.want() == Want::Stop && status.want_revision == w.mod_revision
            };
            if status.state() == State::Stopped && want.as_ref().is_some_and(answers) {
                return Some(Ended::Confirmed);
            }
            if status.refusal.is_some() {
                return Some(Ended::Refused);
            }
        }
        if self.gone.contains(grant.instance_uid.as_str()) {
            return Some(Ended::Replaced);
        }
        if live {
            return None;
        }
        let named = self
            .snapshot
            .sessions
            .get(grant.agent.as_str())
            .filter(|s| s.instance_uid == grant.instance_uid);
        match named {
            Some(session) => session.silent.then_some(Ended::Silent),
            None => (self.absent_ms(grant) >= Some(self.facts.lease_ms)).then_some(Ended::Absent),
        }
    }

    /// For how long the leader has seen no session of the holder. None: not measured.
    pub(super) fn absent_ms(&self, grant: &stored::Grant) -> Option<u64> {
        self.facts.absent_ms.get(grant.instance_uid.as_str()).copied()
    }
}

/// A paused task costs its agent little, yet may run again at any time.
pub(super) fn weight(want: Want) -> u32 {
    if want == Want::Run { 2 } else { 1 }
}
