//! Which agents a change of the mirror concerns: one feed for the replica, fanned out in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::desired::{self, Tasks};
use crate::{
    domain::{Snapshot, TaskId},
    store::{Change, Key, Mirror},
};

/// Tasks by agent, kept up with the mirror's feed, and who wants to know.
#[derive(Clone)]
pub struct Fanout {
    mirror: Mirror,
    index: Arc<Mutex<Index>>,
}

#[derive(Default)]
struct Index {
    /// Every change up to it is in `tasks`.
    revision: i64,
    tasks: BTreeMap<Arc<str>, BTreeSet<TaskId>>,
    holders: BTreeMap<TaskId, Arc<str>>,
    wakers: BTreeMap<Arc<str>, watch::Sender<()>>,
}

impl Fanout {
    /// An empty one: everything counts as changed once.
    pub fn new(mirror: Mirror) -> Self {
        Self {
            mirror,
            index: Arc::default(),
        }
    }

    /// Wakes whoever holds the receiver when something of the agent has changed.
    pub fn subscribe(&self, agent: &str) -> watch::Receiver<()> {
        let mut index = self.index.lock();
        index.wakers.retain(|_, waker| waker.receiver_count() > 0);
        let waker = index
            .wakers
            .entry(agent.into())
            .or_insert_with(|| watch::Sender::new(()));
        let mut receiver = waker.subscribe();
        receiver.mark_changed();
        receiver
    }

    /// Takes a change of the feed.
    pub fn apply(&self, change: &Change) {
        let mut index = self.index.lock();
        match change {
            Change::Keys { revision, keys } => {
                self.mirror
                    .read(|snapshot| keys.iter().for_each(|key| index.update(snapshot, key)));
                // What was read anew may be ahead of changes that are still queued.
                index.revision = index.revision.max(*revision);
            }
            Change::Lagged | Change::Replaced => {
                self.mirror.read(|snapshot| index.rebuild(snapshot));
                for waker in index.wakers.values() {
                    waker.send_replace(());
                }
            }
        }
    }

    /// Builds the index from what the mirror has now.
    pub fn reload(&self) {
        self.apply(&Change::Lagged);
    }

    /// What an instance should do, and a revision up to which every change is in it. Newer ones may be, too.
    pub fn desired(&self, agent: &str, instance_uid: &str) -> (i64, Tasks) {
        let index = self.index.lock();
        let tasks = index.tasks.get(agent).into_iter().flatten();
        let tasks = self
            .mirror
            .read(|snapshot| desired::marks(snapshot, agent, instance_uid, tasks));
        (index.revision, tasks)
    }
}

impl Index {
    fn update(&mut self, snapshot: &Snapshot, key: &Key) {
        match key {
            Key::Grant(task) => {
                let before = self.holders.remove(task);
                let now: Option<Arc<str>> =
                    snapshot.grants.get(task).map(|grant| grant.agent.as_str().into());
                if let Some(before) = before {
                    if let Some(tasks) = self.tasks.get_mut(&before) {
                        tasks.remove(task);
                    }
                    self.wake(&before);
                }
                if let Some(now) = now {
                    self.tasks.entry(now.clone()).or_default().insert(task.clone());
                    self.wake(&now);
                    self.holders.insert(task.clone(), now);
                }
            }
            Key::Want(task) => {
                if let Some(holder) = self.holders.get(task) {
                    self.wake(holder);
                }
            }
            // The session itself: its revision has been passed.
            Key::Session(agent) | Key::Ask(agent, _) => self.wake(agent),
            _ => {}
        }
    }

    fn rebuild(&mut self, snapshot: &Snapshot) {
        self.tasks.clear();
        self.holders.clear();
        for (task, grant) in &snapshot.grants {
            let agent: Arc<str> = grant.agent.as_str().into();
            self.tasks.entry(agent.clone()).or_default().insert(task.clone());
            self.holders.insert(task.clone(), agent);
        }
        self.revision = snapshot.revision;
    }

    fn wake(&self, agent: &Arc<str>) {
        if let Some(waker) = self.wakers.get(agent) {
            waker.send_replace(());
        }
    }
}
