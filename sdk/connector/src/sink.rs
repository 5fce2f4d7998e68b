use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{Config, ConnectorError, Env, Fields, Headers, Payload};

/// Takes records to an outside system. One value is one task.
///
/// Gantry calls the methods from one thread that belongs to this task alone, never two at a time, in this order:
/// `open` once; then `write` and `flush` in any mixture; then `close` once, also after an error of any of them. A method that
/// blocks or spins harms only this task, which is shown as STALLED after some seconds; past its time limit the thread is given
/// up. A panic counts as an error of domain `Task`. No call is ever dropped while it is pending, except when the task's time to
/// stop has run out.
///
/// # What is done and what is not
/// `write` may buffer. Nothing counts as done before a `flush` that began after it has returned `Ok`: only then does
/// Gantry commit the records' positions. After a crash the records after the last commit are written again.
///
/// # Sink state
/// A sink that can tell how far a partition's data has durably come (a file's length, a transaction's number) returns
/// that from `flush` as opaque state of at most 4 KiB. It is stored **in the same transaction** as the position, and handed back at `open`:
/// the sink goes back to exactly that point (truncates, ignores what is newer) and so has every record once.
///
/// Right after `open`, before the first `write`, Gantry calls `flush` and commits the states it returns together with the positions
/// that the task starts from. A sink uses this to store where it begins: what is written and lost before the first real
/// commit can then be told from what was there before.
#[async_trait]
pub trait Sink: Send {
    /// Connects, and brings every assigned partition to the state that is committed for it.
    async fn open(&mut self, context: SinkContext) -> Result<(), ConnectorError>;

    /// Takes a batch, in order within each partition. Partitions are those of `SinkContext::partitions`.
    ///
    /// Records that can never pass are named in the report and all others of the batch are taken. An error means that
    /// nothing of the batch was taken, or that it is unknown: of domain `Environment` it is followed by the same batch
    /// after a back-off; else by `close`.
    async fn write(&mut self, batch: Vec<SinkRecord>) -> Result<WriteReport, ConnectorError>;

    /// Makes everything written so far durable (fsync, commit) and says how far each partition has come. Called when the flush
    /// interval or size is reached, and before pause and stop.
    async fn flush(&mut self) -> Result<Flushed, ConnectorError>;

    /// Lets go of connections, files and locks. What was not flushed is not committed. At most 10 s.
    async fn close(&mut self) -> Result<(), ConnectorError> {
        Ok(())
    }
}

/// What a sink task starts with.
#[derive(Clone, Debug)]
pub struct SinkContext {
    /// The task's configuration: checked, defaults filled in, secrets resolved.
    pub config: Config,
    /// Topic and queue of every partition this task reads; [`SinkRecord::partition`] is an index into it.
    pub partitions: Vec<SinkPartition>,
    /// Number of queues that the connector reads in all, over all tasks.
    pub total_partitions: u32,
    /// This task's number, from 0.
    pub task: u32,
    /// How many tasks the connector has now.
    pub tasks: u32,
    /// What the agent allows.
    pub env: Env,
}

/// A queue that a sink task reads.
#[derive(Clone, Debug)]
pub struct SinkPartition {
    /// Topic.
    pub topic: Arc<str>,
    /// Broker name and queue id joined by `-`: unique within the topic and fit for a file name.
    pub queue: Arc<str>,
    /// The partition as it is stored (fields `topic`, `broker`, `queue`).
    pub fields: Arc<Fields>,
    /// State returned by the flush whose position is committed. None: nothing was ever committed with state.
    pub state: Option<Bytes>,
}

/// A record on its way out of RocketMQ.
#[derive(Clone, Debug)]
pub struct SinkRecord {
    /// Index into [`SinkContext::partitions`].
    pub partition: u32,
    /// Offset in the queue.
    pub offset: u64,
    /// RocketMQ's KEYS.
    pub key: Option<Box<str>>,
    /// RocketMQ's TAGS.
    pub tag: Option<Box<str>>,
    /// The value.
    pub value: Payload,
    /// User properties.
    pub headers: Headers,
    /// When the producer made the message, milliseconds since 1970.
    pub timestamp_ms: i64,
}

/// Answer of [`Sink::write`].
#[derive(Debug, Default)]
pub struct WriteReport {
    /// Records that can never pass, by index in the batch, each with an error of domain `Record`.
    pub rejected: Vec<(usize, ConnectorError)>,
}

/// Answer of [`Sink::flush`].
#[derive(Debug, Default)]
pub struct Flushed {
    /// New state by index of the partition. A partition that is not named keeps the state it has.
    pub states: Vec<(u32, Bytes)>,
}
