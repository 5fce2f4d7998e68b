//! Changes of a snapshot: what a key holds, or that it is gone.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    domain::{Snapshot, TaskId, Versioned},
    store::{Key, Raw, codec::Stored},
};

/// Sets what `key` holds; None: it is gone. Keys that are not mirrored are left out.
pub(super) fn set(snapshot: &mut Snapshot, key: &Key, raw: Option<&Raw>) {
    let two = |a: &Arc<str>, b: &Arc<str>| (a.clone(), b.clone());
    match key {
        Key::StoreId => snapshot.store_id = decode(key, raw),
        Key::Format => snapshot.format = decode(key, raw),
        Key::Leader => snapshot.leader = decode(key, raw),
        Key::Replica(replica) => put(&mut snapshot.replicas, replica.clone(), key, raw),
        Key::Agent(agent) => put(&mut snapshot.agents, agent.clone(), key, raw),
        Key::Instance(agent) => put(&mut snapshot.instances, agent.clone(), key, raw),
        Key::Session(agent) => put(&mut snapshot.sessions, agent.clone(), key, raw),
        Key::Plugin(plugin, version) => put(&mut snapshot.plugins, two(plugin, version), key, raw),
        Key::Connector(name) => set_connector(snapshot, name, key, raw),
        Key::PlanPointer(uid) => put(&mut snapshot.pointers, uid.clone(), key, raw),
        Key::PlannedTask(uid, g, n) => put(&mut snapshot.plans, (uid.clone(), *g, *n), key, raw),
        Key::Grant(task) => put(&mut snapshot.grants, task.clone(), key, raw),
        Key::Want(task) => put(&mut snapshot.wants, task.clone(), key, raw),
        Key::Status(task) => put(&mut snapshot.statuses, task.clone(), key, raw),
        Key::Ask(agent, id) => put(&mut snapshot.asks, two(agent, id), key, raw),
        Key::Answer(id) => put(&mut snapshot.answers, id.clone(), key, raw),
        Key::Revision(..)
        | Key::OffsetsHead(_)
        | Key::Offset(..)
        | Key::Retained(_)
        | Key::Event(..)
        | Key::Request(..) => {}
    }
}

/// Keys that hold something else in `after`, or that are only in one of the two.
pub(super) fn difference(before: &Snapshot, after: &Snapshot) -> Vec<Key> {
    let before = keys(before);
    let after = keys(after);
    let mut changed: Vec<Key> = after
        .iter()
        .filter(|(key, at)| before.get(*key) != Some(*at))
        .map(|(key, _)| key.clone())
        .collect();
    changed.extend(before.into_keys().filter(|key| !after.contains_key(key)));
    changed
}

fn set_connector(snapshot: &mut Snapshot, name: &Arc<str>, key: &Key, raw: Option<&Raw>) {
    if let Some(old) = snapshot.connectors.get(name) {
        snapshot.names.remove(&uid(old));
    }
    put(&mut snapshot.connectors, name.clone(), key, raw);
    if let Some(new) = snapshot.connectors.get(name) {
        snapshot.names.insert(uid(new), name.clone());
    }
}

fn uid(connector: &crate::domain::stored::Connector) -> crate::domain::Uid {
    crate::domain::Uid(connector.uid.as_str().into())
}

fn put<K: Ord, T: Stored>(map: &mut BTreeMap<K, Versioned<T>>, id: K, key: &Key, raw: Option<&Raw>) {
    match decode(key, raw) {
        Some(value) => map.insert(id, value),
        None => map.remove(&id),
    };
}

/// What cannot be decoded counts as absent: no guard on it will hold, so nothing rests on it.
fn decode<T: Stored>(key: &Key, raw: Option<&Raw>) -> Option<Versioned<T>> {
    match raw?.decode() {
        Ok(value) => Some(value),
        Err(error) => {
            tracing::error!(%error, %key, "a stored value is left out");
            None
        }
    }
}

fn keys(snapshot: &Snapshot) -> BTreeMap<Key, i64> {
    let mut keys = BTreeMap::new();
    let one = |at: Option<i64>, key: Key, keys: &mut BTreeMap<Key, i64>| {
        if let Some(at) = at {
            keys.insert(key, at);
        }
    };
    one(
        snapshot.store_id.as_ref().map(|v| v.mod_revision),
        Key::StoreId,
        &mut keys,
    );
    one(
        snapshot.format.as_ref().map(|v| v.mod_revision),
        Key::Format,
        &mut keys,
    );
    one(
        snapshot.leader.as_ref().map(|v| v.mod_revision),
        Key::Leader,
        &mut keys,
    );
    let name = |id: &Arc<str>| id.clone();
    let task = |id: &TaskId| id.clone();
    add(&mut keys, &snapshot.replicas, |id| Key::Replica(name(id)));
    add(&mut keys, &snapshot.agents, |id| Key::Agent(name(id)));
    add(&mut keys, &snapshot.instances, |id| Key::Instance(name(id)));
    add(&mut keys, &snapshot.sessions, |id| Key::Session(name(id)));
    add(&mut keys, &snapshot.plugins, |(plugin, version)| {
        Key::Plugin(name(plugin), name(version))
    });
    add(&mut keys, &snapshot.connectors, |id| Key::Connector(name(id)));
    add(&mut keys, &snapshot.pointers, |uid| Key::PlanPointer(uid.clone()));
    add(&mut keys, &snapshot.plans, |(uid, g, n)| {
        Key::PlannedTask(uid.clone(), *g, *n)
    });
    add(&mut keys, &snapshot.grants, |id| Key::Grant(task(id)));
    add(&mut keys, &snapshot.wants, |id| Key::Want(task(id)));
    add(&mut keys, &snapshot.statuses, |id| Key::Status(task(id)));
    add(&mut keys, &snapshot.asks, |(agent, id)| {
        Key::Ask(name(agent), name(id))
    });
    add(&mut keys, &snapshot.answers, |id| Key::Answer(name(id)));
    keys
}

fn add<K, T>(keys: &mut BTreeMap<Key, i64>, map: &BTreeMap<K, Versioned<T>>, key: impl Fn(&K) -> Key) {
    keys.extend(map.iter().map(|(id, value)| (key(id), value.mod_revision)));
}
