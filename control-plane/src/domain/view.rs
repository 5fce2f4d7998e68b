//! What users see: resources put together from a snapshot.

mod connector;
mod task;

use std::{collections::HashMap, sync::Arc};

use gantry_proto::v1::{self, agent::State};

pub use self::{
    connector::{connector_view, etag, row},
    task::task_views,
};
use super::{Snapshot, catalog::Catalog};

/// Names of all agents that are or were connected, or of which people said something, in order.
fn agent_names(snapshot: &Snapshot) -> Vec<Arc<str>> {
    let mut names: Vec<_> = snapshot
        .instances
        .keys()
        .chain(snapshot.sessions.keys())
        .chain(snapshot.agents.keys())
        .cloned()
        .collect();
    names.sort();
    names.dedup();
    names
}

/// An agent that is or was connected, or of which people said something.
pub fn agent_view(snapshot: &Snapshot, agent: &str) -> Option<v1::Agent> {
    let tasks = snapshot
        .grants
        .values()
        .filter(|g| g.value.agent == agent)
        .count();
    one_agent(snapshot, agent, tasks)
}

/// All agents by name, in that order: cheaper than one by one.
pub fn agent_views(snapshot: &Snapshot) -> Vec<(Arc<str>, v1::Agent)> {
    let mut tasks: HashMap<&str, usize> = HashMap::new();
    for grant in snapshot.grants.values() {
        *tasks.entry(&grant.value.agent).or_default() += 1;
    }
    let count = |name: &str| tasks.get(name).copied().unwrap_or(0);
    agent_names(snapshot)
        .into_iter()
        .filter_map(|name| {
            let view = one_agent(snapshot, &name, count(&name))?;
            Some((name, view))
        })
        .collect()
}

fn one_agent(snapshot: &Snapshot, agent: &str, tasks: usize) -> Option<v1::Agent> {
    let session = snapshot.sessions.get(agent);
    let settings = snapshot.agents.get(agent);
    let instance = snapshot.instances.get(agent);
    if session.is_none() && settings.is_none() && instance.is_none() {
        return None;
    }
    let state = match session {
        Some(s) if s.silent => State::Silent,
        Some(_) => State::Ready,
        None => State::Gone,
    };
    let mut view = v1::Agent {
        name: format!("agents/{agent}"),
        instance_uid: instance.map(|i| i.instance_uid.clone()).unwrap_or_default(),
        state: state.into(),
        tasks: i32::try_from(tasks).unwrap_or(i32::MAX),
        ..Default::default()
    };
    if let Some(s) = session {
        view.instance_uid.clone_from(&s.instance_uid);
        view.version.clone_from(&s.version);
        view.host.clone_from(&s.host);
        view.labels.clone_from(&s.labels);
        view.capacity = s.capacity;
        view.plugins.clone_from(&s.plugins);
        view.replica.clone_from(&s.replica);
        view.connect_time = s.connect_time;
    }
    if let Some(s) = settings {
        view.labels
            .extend(s.labels.iter().map(|(k, v)| (k.clone(), v.clone())));
        view.cordoned = s.cordoned || s.draining;
        view.draining = s.draining;
    }
    Some(view)
}

/// A plugin in that version; empty: the highest.
pub fn plugin_view(catalog: &Catalog, plugin: &str, version: &str) -> Option<v1::Plugin> {
    let versions: Vec<String> = catalog.versions(plugin).into_iter().map(str::to_owned).collect();
    let version = if version.is_empty() {
        versions.first()?.as_str()
    } else {
        version
    };
    let entry = catalog.get(plugin, version)?;
    Some(v1::Plugin {
        name: format!("plugins/{plugin}"),
        version: version.to_owned(),
        agents: entry.agents.iter().map(|a| format!("agents/{a}")).collect(),
        versions: versions.clone(),
        ..entry.plugin.clone()
    })
}
