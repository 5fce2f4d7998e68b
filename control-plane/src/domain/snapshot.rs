use std::{collections::BTreeMap, fmt, sync::Arc};

use super::stored;

/// Uid of a connector: 16 hex digits, never used again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uid(pub Arc<str>);

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A task: its connector's uid and its number.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId {
    /// The connector.
    pub uid: Uid,
    /// The number, from 0.
    pub n: u32,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.uid, self.n)
    }
}

/// A stored value with its revisions.
#[derive(Clone, Debug, PartialEq)]
pub struct Versioned<T> {
    /// Revision of its last write: what a guard compares.
    pub mod_revision: i64,
    /// Revision of its creation.
    pub create_revision: i64,
    /// The value.
    pub value: Arc<T>,
}

impl<T> std::ops::Deref for Versioned<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

/// All that a decision may rest on, as it was at one revision. Offsets, requests, revisions and events are not in it.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Everything up to this revision has been seen.
    pub revision: i64,
    /// cluster/store_id
    pub store_id: Option<Versioned<stored::StoreId>>,
    /// cluster/format
    pub format: Option<Versioned<stored::ClusterFormat>>,
    /// leader; its `create_revision` is the term.
    pub leader: Option<Versioned<stored::Leader>>,
    /// replicas/{replica}
    pub replicas: BTreeMap<Arc<str>, Versioned<stored::Replica>>,
    /// agents/{agent}
    pub agents: BTreeMap<Arc<str>, Versioned<stored::AgentSettings>>,
    /// instances/{agent}
    pub instances: BTreeMap<Arc<str>, Versioned<stored::Instance>>,
    /// sessions/{agent}
    pub sessions: BTreeMap<Arc<str>, Versioned<stored::Session>>,
    /// plugins/{plugin}/{version}
    pub plugins: BTreeMap<(Arc<str>, Arc<str>), Versioned<stored::PluginRecord>>,
    /// connectors/{name}
    pub connectors: BTreeMap<Arc<str>, Versioned<stored::Connector>>,
    /// Names by uid, derived from `connectors`.
    pub names: BTreeMap<Uid, Arc<str>>,
    /// plans/{uid}/current
    pub pointers: BTreeMap<Uid, Versioned<stored::PlanPointer>>,
    /// plans/{uid}/{g}/{n}
    pub plans: BTreeMap<(Uid, i64, u32), Versioned<stored::PlannedTask>>,
    /// grants/{uid}/{n}
    pub grants: BTreeMap<TaskId, Versioned<stored::Grant>>,
    /// wants/{uid}/{n}
    pub wants: BTreeMap<TaskId, Versioned<stored::Want>>,
    /// statuses/{uid}/{n}
    pub statuses: BTreeMap<TaskId, Versioned<stored::Status>>,
    /// asks/{agent}/{id}
    pub asks: BTreeMap<(Arc<str>, Arc<str>), Versioned<stored::AskRecord>>,
    /// answers/{id}
    pub answers: BTreeMap<Arc<str>, Versioned<stored::AnswerRecord>>,
}

impl Snapshot {
    /// Tasks of a connector that have a value in `map`, in order of number.
    pub fn tasks_of<'a, T>(
        map: &'a BTreeMap<TaskId, Versioned<T>>,
        uid: &Uid,
    ) -> impl Iterator<Item = (&'a TaskId, &'a Versioned<T>)> {
        let from = TaskId {
            uid: uid.clone(),
            n: 0,
        };
        let to = TaskId {
            uid: uid.clone(),
            n: u32::MAX,
        };
        map.range(from..=to)
    }
}
