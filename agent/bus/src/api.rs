use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

use crate::BusError;

/// Where a RocketMQ cluster is and how to reach it. Two tasks with equal endpoints share one set of clients.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Name servers as `host:port`, several separated by `;`, as RocketMQ writes them.
    pub namesrv: String,
}

/// One queue of a topic. Ordered by topic, broker name, then queue id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Queue {
    /// Topic name.
    pub topic: Arc<str>,
    /// Name (not address) of the broker set that holds the queue.
    pub broker: Arc<str>,
    /// Queue id within that broker.
    pub id: u32,
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.broker, self.id)
    }
}

/// A message to send. The body must not be empty: RocketMQ refuses empty bodies (see [`properties::VALUE`]).
#[derive(Clone, Debug, Default)]
pub struct OutMessage {
    /// RocketMQ's KEYS property, by which its tools find the message.
    pub key: Option<Box<str>>,
    /// RocketMQ's TAGS property.
    pub tag: Option<Box<str>>,
    /// User properties, in order. Names reserved by RocketMQ are `MessageRejected`.
    pub properties: Vec<(Box<str>, Box<str>)>,
    /// The body, sent as it is.
    pub body: Bytes,
}

impl OutMessage {
    /// Bytes this message counts for in a memory budget: body, key, tag, properties and 64 for the rest.
    pub fn weight(&self) -> usize {
        let text = |s: &Option<Box<str>>| s.as_ref().map_or(0, |s| s.len());
        self.body.len()
            + text(&self.key)
            + text(&self.tag)
            + self
                .properties
                .iter()
                .map(|(k, v)| k.len() + v.len() + 2)
                .sum::<usize>()
            + 64
    }
}

/// A message as it was read from a queue.
#[derive(Clone, Debug)]
pub struct InMessage {
    /// Offset in its queue. The next position to read is this plus one.
    pub offset: u64,
    /// RocketMQ's KEYS property.
    pub key: Option<Box<str>>,
    /// RocketMQ's TAGS property.
    pub tag: Option<Box<str>>,
    /// User properties; what RocketMQ itself adds (UNIQ_KEY, MIN_OFFSET, ...) is left out.
    pub properties: Vec<(Box<str>, Box<str>)>,
    /// The body, decompressed.
    pub body: Bytes,
    /// When the producer made it, in milliseconds since 1970.
    pub born_time_ms: i64,
    /// When the broker stored it, in milliseconds since 1970.
    pub store_time_ms: i64,
}

/// What to read.
#[derive(Clone, Debug)]
pub struct PullRequest {
    /// The queue.
    pub queue: Queue,
    /// First offset wanted.
    pub offset: u64,
    /// At most so many messages; the broker may give fewer.
    pub max_messages: u32,
    /// How long the broker may hold the request while there is nothing to give. Zero: answer at once. Apache RocketMQ
    /// may take up to 5 s longer.
    pub wait: Duration,
}

/// Answer to a pull.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// In offset order, each at or after the offset asked for. Empty when there was nothing within `wait`.
    pub messages: Vec<InMessage>,
    /// Where to go on; greater than the last message's offset when something was filtered on the broker.
    pub next_offset: u64,
    /// The queue's bounds when the broker answered.
    pub bounds: Bounds,
}

/// The offsets a queue holds: `min` is the first that can be read, `max` the one the next message will get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// First readable offset.
    pub min: u64,
    /// One past the last message.
    pub max: u64,
}

/// A RocketMQ cluster. Cheap to clone behind `Arc`, shared by all tasks of an agent that use the same endpoint.
///
/// Every method may be dropped while pending. A dropped or failed [`Bus::send`] may have taken effect.
/// Implementations bring the connection back by themselves and return `Unavailable` promptly (within seconds) meanwhile;
/// callers try again with back-off and need not rebuild anything.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// The topic's queues, sorted, or `TopicMissing`. Asks the name server anew at every call.
    async fn route(&self, topic: &str) -> Result<Vec<Queue>, BusError>;

    /// Creates the topic with so many queues if it has no route; an existing topic is left as it is.
    /// Returns once the topic has a route.
    async fn create_topic(&self, topic: &str, queues: u32) -> Result<(), BusError>;

    /// Sends the batch to the queue as one request, in order, and returns the offset of its first message once the
    /// broker has stored all of it; the others follow without a gap. A batch over the broker's limit is
    /// split by the caller ([`Bus::max_batch_bytes`]). All or nothing per call, but see `Unavailable`. Of an empty batch, and
    /// of one in which any message is refused, nothing is stored and the call is `MessageRejected`, naming the message.
    async fn send(&self, queue: &Queue, batch: Vec<OutMessage>) -> Result<u64, BusError>;

    /// Reads from one queue.
    async fn pull(&self, request: PullRequest) -> Result<Pulled, BusError>;

    /// The queue's bounds, asked of the broker. It may take some milliseconds until it counts a message it acknowledged.
    async fn bounds(&self, queue: &Queue) -> Result<Bounds, BusError>;

    /// Offset of the first message stored at or after the time (milliseconds since 1970).
    async fn offset_at(&self, queue: &Queue, time_ms: i64) -> Result<u64, BusError>;

    /// Shows the committed position as ordinary consumer offset of `group`, so that RocketMQ's own tools show the lag.
    /// Never read back by Gantry. A broker may refuse to go back to a lower offset, as the embedded one does silently.
    async fn mirror_offset(&self, group: &str, queue: &Queue, offset: u64) -> Result<(), BusError>;

    /// Bytes (by [`OutMessage::weight`]) that one [`Bus::send`] of several messages may carry. A single message may
    /// weigh more and is then sent alone; only over the broker's own limit (4 MiB by default) is it `MessageRejected`.
    fn max_batch_bytes(&self) -> usize {
        3_500_000
    }

    /// Lets go of all connections, within seconds.
    async fn shutdown(&self);
}

/// Makes buses; one per agent process. Returns the shared bus of an endpoint, connecting lazily.
pub trait BusFactory: Send + Sync + 'static {
    /// The bus for the endpoint. Never blocks and never fails: an unreachable cluster shows in the calls.
    fn bus(&self, endpoint: &Endpoint) -> Arc<dyn Bus>;
}

/// Names of the message properties that Gantry writes and reads.
pub mod properties {
    /// Stable identity of a record: `{connector uid}-{partition hash}-{position}`.
    pub const ID: &str = "gantry-id";
    /// `empty` or `null` when the one-byte body stands for an empty or a null value.
    pub const VALUE: &str = "gantry-value";
}
