use std::{fmt, sync::Arc};

use gantry_proto::agent::v1::TaskRef;

/// Names a task.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TaskKey {
    /// Uid of the connector.
    pub(crate) uid: Arc<str>,
    /// Number of the task.
    pub(crate) task: u32,
}

impl TaskKey {
    pub(crate) fn new(uid: &str, task: u32) -> Self {
        Self {
            uid: uid.into(),
            task,
        }
    }

    /// As it is on the wire.
    pub(crate) fn to_ref(&self) -> TaskRef {
        TaskRef {
            connector_uid: self.uid.to_string(),
            task: self.task,
        }
    }
}

impl From<&TaskRef> for TaskKey {
    fn from(task: &TaskRef) -> Self {
        Self::new(&task.connector_uid, task.task)
    }
}

impl fmt::Display for TaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.uid, self.task)
    }
}
