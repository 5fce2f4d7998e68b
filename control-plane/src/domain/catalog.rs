//! The plugins that agents have brought.

use std::{collections::BTreeMap, sync::Arc};

use gantry_proto::v1;

use super::{Snapshot, version};

/// Plugins by id and version, and which agents that are connected have each.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    plugins: BTreeMap<String, BTreeMap<String, Entry>>,
}

/// A version of a plugin.
#[derive(Debug, Clone)]
pub struct Entry {
    /// As its agents described it.
    pub plugin: v1::Plugin,
    /// Agents that are connected and have it, in order of name.
    pub agents: Vec<Arc<str>>,
}

impl Catalog {
    /// All plugins that were ever brought.
    pub fn of(snapshot: &Snapshot) -> Self {
        let mut plugins: BTreeMap<String, BTreeMap<String, Entry>> = BTreeMap::new();
        for ((id, version), record) in &snapshot.plugins {
            let Some(plugin) = &record.plugin else { continue };
            let entry = Entry {
                plugin: plugin.clone(),
                agents: Vec::new(),
            };
            plugins
                .entry(id.to_string())
                .or_default()
                .insert(version.to_string(), entry);
        }
        for (agent, session) in snapshot.sessions.iter().filter(|(_, s)| !s.silent) {
            for offer in &session.plugins {
                let entry = offer
                    .split_once('@')
                    .and_then(|(id, version)| plugins.get_mut(id)?.get_mut(version));
                if let Some(entry) = entry {
                    entry.agents.push(agent.clone());
                }
            }
        }
        Self { plugins }
    }

    /// Ids of all plugins, in order.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.plugins.keys().map(String::as_str)
    }

    /// Versions of a plugin, highest first.
    pub fn versions(&self, plugin: &str) -> Vec<&str> {
        let mut versions: Vec<_> = self
            .plugins
            .get(plugin)
            .into_iter()
            .flatten()
            .map(|(v, _)| v.as_str())
            .collect();
        versions.sort_by(|a, b| version::compare(b, a));
        versions
    }

    /// A plugin in that version.
    pub fn get(&self, plugin: &str, version: &str) -> Option<&Entry> {
        self.plugins.get(plugin)?.get(version)
    }

    /// The version that a definition is validated with: the pinned one, else the one that a plan would pin.
    pub fn choose(&self, plugin: &str, pinned: &str) -> Option<&Entry> {
        let versions = self.plugins.get(plugin)?;
        if !pinned.is_empty() {
            return versions.get(pinned);
        }
        let offers = versions.iter().map(|(v, entry)| (v.as_str(), entry.agents.len()));
        versions.get(version::choose(offers)?)
    }
}
