use std::sync::Arc;

use bytes::Bytes;
use gantry_bus::{Bounds, Queue};
use gantry_connector::{Fields, SinkPartition};
use gantry_proto::v1::RecordCounts;

use crate::{task::ledger::Mark, wire};

/// How far a queue has come.
pub(super) struct QueueState {
    pub(super) queue: Queue,
    /// The partition as it is stored.
    pub(super) fields: Arc<Fields>,
    /// Everything before it has been written.
    pub(super) written: u64,
    /// Cumulative counts up to `written`.
    pub(super) counts: RecordCounts,
    /// The sink's state of its last flush.
    pub(super) state: Option<Bytes>,
    /// Something changed since the last flush.
    pub(super) dirty: bool,
    /// What the queue held when it was last asked.
    pub(super) bounds: Bounds,
}

impl QueueState {
    /// `dirty`: the start itself has to be committed.
    pub(super) fn new(
        queue: Queue,
        start: u64,
        counts: RecordCounts,
        state: Option<Bytes>,
        dirty: bool,
        bounds: Bounds,
    ) -> Self {
        let fields = wire::queue_fields(&queue);
        Self {
            queue,
            fields,
            written: start,
            counts,
            state,
            dirty,
            bounds,
        }
    }

    /// As the sink sees it.
    pub(super) fn partition(&self) -> SinkPartition {
        SinkPartition {
            topic: self.queue.topic.clone(),
            queue: format!("{}-{}", self.queue.broker, self.queue.id).into(),
            fields: self.fields.clone(),
            state: self.state.clone(),
        }
    }

    /// What is committed for it now.
    pub(super) fn mark(&self) -> Mark {
        Mark {
            position: Fields::new().with("offset", self.written),
            counts: self.counts,
            state: self.state.clone().unwrap_or_default(),
        }
    }

    /// Messages that are not written yet.
    pub(super) fn lag(&self) -> u64 {
        self.bounds.max.saturating_sub(self.written)
    }
}
