//! Who the agent is and what it runs, as the first messages say it.

use std::{collections::BTreeMap, sync::Arc};

use gantry_proto::{
    agent::v1::{Hello, Inventory, LockIdentity, RunningTask},
    digest,
    v1::Plugin,
};
use prost::Message;

/// Most bytes of tasks in a chunk; a little below 1 MiB for what is around them.
const CHUNK: usize = 1_000_000;

/// Who the agent is.
pub(crate) struct Identity {
    pub(crate) agent: Arc<str>,
    pub(crate) instance_uid: Arc<str>,
    pub(crate) lock: LockIdentity,
    pub(crate) start_counter: u64,
    pub(crate) dial_counter: u64,
    pub(crate) host: String,
    pub(crate) host_id: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) capacity: u32,
    pub(crate) plugins: Vec<Plugin>,
}

impl Identity {
    /// The next hello; each has a greater dial counter.
    pub(crate) fn hello(&mut self, store_id: &str, revision: i64, inventory_chunks: usize) -> Hello {
        self.dial_counter += 1;
        Hello {
            agent: self.agent.to_string(),
            instance_uid: self.instance_uid.to_string(),
            lock: Some(self.lock.clone()),
            start_counter: self.start_counter,
            dial_counter: self.dial_counter,
            version: env!("CARGO_PKG_VERSION").into(),
            host: self.host.clone(),
            host_id: self.host_id.clone(),
            labels: self.labels.clone(),
            capacity: i32::try_from(self.capacity).unwrap_or(i32::MAX),
            plugins: self.plugins.clone(),
            store_id: store_id.into(),
            revision,
            inventory_chunks: inventory_chunks as i32,
        }
    }
}

/// What it runs, cut into chunks; at least one, the last with the digest.
pub(crate) fn inventory(tasks: Vec<RunningTask>) -> Vec<Inventory> {
    let digest = digest::of_inventory(&tasks);
    let (mut chunks, mut bytes) = (vec![Inventory::default()], 0);
    for task in tasks {
        let size = task.encoded_len() + 8;
        if bytes + size > CHUNK && bytes > 0 {
            chunks.push(Inventory::default());
            bytes = 0;
        }
        bytes += size;
        if let Some(chunk) = chunks.last_mut() {
            chunk.tasks.push(task);
        }
    }
    if let Some(last) = chunks.last_mut() {
        last.digest = digest;
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inventories_are_cut_and_closed_by_a_digest() {
        assert_eq!(inventory(vec![]).len(), 1);
        let task = |n| RunningTask {
            connector_uid: "c".repeat(1000),
            task: n,
            ..Default::default()
        };
        let tasks: Vec<_> = (0..2500).map(task).collect();
        let chunks = inventory(tasks.clone());
        assert!(chunks.len() == 3 && chunks.iter().all(|c| c.encoded_len() <= 1 << 20));
        assert_eq!(
            chunks.iter().flat_map(|c| c.tasks.clone()).collect::<Vec<_>>(),
            tasks
        );
        assert_eq!(chunks[2].digest, digest::of_inventory(&tasks));
        assert!(chunks[0].digest.is_empty());
    }
}
