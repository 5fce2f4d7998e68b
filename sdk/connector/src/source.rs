use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{Config, ConnectorError, Env, Fields, Headers, Payload};

/// Brings records from an outside system. One value is one task.
///
/// Gantry calls the methods from one thread that belongs to this task alone, never two at a time, in this order:
/// `open` once; then `poll` and `committed` in any mixture; then `close` once, also after an error of any of them.
/// A method that blocks or spins harms only this task, which is shown as STALLED after some seconds; past its time limit
/// the thread is given up, the task is reported as stuck and `close` is not called. A panic counts as an error of domain
/// `Task`, also one in a destructor.
///
/// # Positions
/// A *partition* is an independently ordered part of the source: a file, a table, a shard. A *position* is the **next**
/// place to read in it, as fields a person can read. Positions of one partition only go forward, and none comes twice; Gantry
/// goes by the order in which records are returned and never compares fields. It stores the position
/// of the last record of an unbroken run of acknowledged records, never anything beyond it, and hands it to `open` after a
/// restart, on this agent or another. Records after it are read again: at least once, always.
#[async_trait]
pub trait Source: Send {
    /// Connects and goes to where each partition was left. A partition that is not in `context.positions` starts
    /// where the configuration says. May be called with positions that an operator altered: refuse what cannot be
    /// (`User`), and never start silently somewhere else.
    async fn open(&mut self, context: SourceContext) -> Result<(), ConnectorError>;

    /// Waits for records (with `.await`, for as long as it takes: only so can Gantry tell a source that has nothing to do from
    /// one that hangs) and returns some: up to about `max_bytes`, at least one if there is any, fewer at once rather than
    /// more later. An empty answer is allowed (nothing within a while). `end` says that nothing will ever follow.
    ///
    /// Gantry drops the future when it pauses, stops or has a commit to tell, and calls `poll` again later: a record
    /// taken from the outside system must not be lost by that (no `.await` between taking and returning, or keep it in `self`).
    ///
    /// Called again at once after a non-empty answer; an error of domain `Environment` is followed by the same call after a
    /// back-off; `Task` and `User` by `close`.
    async fn poll(&mut self, max_bytes: usize) -> Result<Polled, ConnectorError>;

    /// These positions are durably stored: the outside system may be told (a broker's acknowledgement, a replication slot) and may
    /// delete what lies before them. Only the latest position of each partition is told. An error is logged, and the next
    /// commit is told all the same. At most 60 s. The default does nothing.
    async fn committed(&mut self, positions: &[(Arc<Fields>, Fields)]) -> Result<(), ConnectorError> {
        let _ = positions;
        Ok(())
    }

    /// Lets go of connections, files and locks. Everything that will be committed has been. At most 10 s.
    async fn close(&mut self) -> Result<(), ConnectorError> {
        Ok(())
    }
}

/// What a source task starts with.
#[derive(Clone, Debug)]
pub struct SourceContext {
    /// The task's configuration: checked, defaults filled in, secrets resolved.
    pub config: Config,
    /// Committed positions of every partition of the connector (not only of this task: partitions may have moved here).
    pub positions: Vec<StartPosition>,
    /// This task's number, from 0.
    pub task: u32,
    /// How many tasks the connector has now.
    pub tasks: u32,
    /// What the agent allows.
    pub env: Env,
}

/// Where a partition was left.
#[derive(Clone, Debug)]
pub struct StartPosition {
    /// The partition.
    pub partition: Fields,
    /// The next position to read.
    pub position: Fields,
}

/// A record on its way to RocketMQ.
#[derive(Clone, Debug)]
pub struct SourceRecord {
    /// Where it came from; one `Arc` for all records of a partition.
    pub partition: Arc<Fields>,
    /// The next position to read once this record is done. Strictly greater than that of the record before it in the
    /// partition, unless the two are indivisible (then only the last one's is ever committed).
    pub position: Fields,
    /// Routes the record: equal keys go to the same queue, in order. None: any queue of the task's choice.
    pub key: Option<Box<str>>,
    /// RocketMQ tag, to filter on.
    pub tag: Option<Box<str>>,
    /// The value.
    pub value: Payload,
    /// Becomes user properties.
    pub headers: Headers,
    /// When it happened in the outside system, milliseconds since 1970, if known.
    pub timestamp_ms: Option<i64>,
}

/// Answer of [`Source::poll`].
#[derive(Debug, Default)]
pub struct Polled {
    /// In order within each partition.
    pub records: Vec<SourceRecord>,
    /// Data that the outside system lost before it could be read; counted, shown, never silent.
    pub gaps: Vec<Gap>,
    /// Nothing will ever follow: the task idles and its connector stays RUNNING.
    pub end: bool,
    /// The tasks should be split anew (a new table, other shards). Say so with each answer for as long as it holds: it counts
    /// for a minute.
    pub replan_wanted: bool,
    /// With no records: do not call again before this has passed. None: call again at once (`poll` itself waited).
    pub idle_for: Option<Duration>,
}

/// A stretch of the source that is gone for good.
#[derive(Clone, Debug)]
pub struct Gap {
    /// Where.
    pub partition: Arc<Fields>,
    /// How much, in `unit`. 0: it cannot be known whether anything is gone.
    pub amount: u64,
    /// Unit of `amount`: `bytes`, `records`.
    pub unit: &'static str,
    /// Why, for a person.
    pub reason: String,
}
