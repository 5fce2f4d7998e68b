//! The calls of [`Bus`].

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use cheetah_string::CheetahString;
use gantry_rocketmq_session::unique_id;
use tokio::time::Instant;

use super::{
    answer::{Answer, code as answered},
    batch,
    calls::{ANSWER_TIMEOUT, Calls, What, code, field, request},
    client::Request,
    ids::Ids,
    messages,
    mirror::Mirror,
    topics::{self, Topics},
};
use crate::{Bounds, Bus, BusError, BusErrorKind, Endpoint, OutMessage, PullRequest, Pulled, Queue, check};

/// The group that reads. It keeps no offsets and takes part in no rebalancing; brokers only ask that it exists.
const READERS: &str = "gantry";
/// How much later than asked a broker may end a long poll: Apache RocketMQ looks every 5 s.
const LATE: Duration = Duration::from_secs(10);
/// Pause before the caller pulls again when a broker neither waits nor gives anything.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Flags of a pull: the broker may wait, and the subscription comes with the request.
const MAY_SUSPEND: i32 = 2;
const HAS_SUBSCRIPTION: i32 = 4;

/// A RocketMQ cluster. Nothing is connected before the first call.
///
/// Its connections and the tasks that watch them live on the tokio runtime of the call that makes them.
pub struct RocketmqBus {
    calls: Arc<Calls>,
    topics: Arc<Topics>,
    mirror: Mirror,
}

impl RocketmqBus {
    /// The bus of the cluster that these name servers know.
    pub fn new(endpoint: &Endpoint) -> Self {
        let namesrv = topics::name_servers(endpoint);
        let calls = Arc::new(Calls::new(namesrv.join(";").into()));
        let topics = Arc::new(Topics::new(calls.clone(), namesrv));
        let mirror = Mirror::new(calls.clone(), topics.clone());
        Self {
            calls,
            topics,
            mirror,
        }
    }

    /// The offset up to which a consumer group has consumed the queue according to the broker; `None` if it has not. For
    /// an explicit import of another consumer's position; Gantry does not read its own offsets here.
    pub async fn consumer_offset(&self, group: &str, queue: &Queue) -> Result<Option<u64>, BusError> {
        self.mirror.read(group, queue).await
    }

    /// Asks the queue's broker. Any answer is fine; `address` is who gave it.
    async fn ask(
        &self,
        what: What<'_>,
        queue: &Queue,
        request: Request<'_>,
        timeout: Duration,
    ) -> Result<(Answer, Arc<str>), BusError> {
        let address = self.topics.address(queue).await?;
        match self.calls.call(what, &address, request, timeout).await {
            Ok(answer) => Ok((answer, address)),
            Err(error) => {
                if self.calls.is_out_of_reach(&address) {
                    self.topics.look_up_again(&queue.topic);
                }
                Err(error)
            }
        }
    }

    /// One of the offsets a broker tells about a queue.
    async fn ask_offset(&self, what: What<'_>, queue: &Queue, request: Request<'_>) -> Result<u64, BusError> {
        let (answer, address) = self.ask(what, queue, request, ANSWER_TIMEOUT).await?;
        if answer.code != answered::SUCCESS {
            return Err(answer.error(&what.to_string(), &address));
        }
        answer
            .offset("offset")
            .ok_or_else(|| unreadable(what, &address, "no offset"))
    }

    async fn pull_once(&self, wanted: &PullRequest) -> Result<(Answer, Arc<str>), BusError> {
        let PullRequest {
            queue,
            offset,
            max_messages,
            wait,
        } = wanted;
        let suspend = if wait.is_zero() { 0 } else { MAY_SUSPEND };
        let fields = [
            ("consumerGroup", CheetahString::from_static_str(READERS)),
            ("topic", field(&queue.topic)),
            ("queueId", field(queue.id)),
            ("queueOffset", field(offset)),
            ("maxMsgNums", field((*max_messages).clamp(1, i32::MAX as u32))),
            ("sysFlag", field(HAS_SUBSCRIPTION | suspend)),
            ("commitOffset", field(0)),
            ("suspendTimeoutMillis", field(wait.as_millis())),
            ("subscription", CheetahString::from_static_str("*")),
            ("subVersion", field(0)),
            ("expressionType", CheetahString::from_static_str("TAG")),
        ];
        let request = request(code::PULL_MESSAGE, fields, Bytes::new());
        self.ask(What("pull from", queue), queue, request, *wait + LATE)
            .await
    }
}

#[async_trait]
impl Bus for RocketmqBus {
    async fn route(&self, topic: &str) -> Result<Vec<Queue>, BusError> {
        Ok(self.topics.route(topic).await?.to_vec())
    }

    async fn create_topic(&self, topic: &str, queues: u32) -> Result<(), BusError> {
        self.topics.create(topic, queues).await
    }

    async fn send(&self, queue: &Queue, batch: Vec<OutMessage>) -> Result<u64, BusError> {
        let body = batch::encode(queue, &batch, |count| Ids::reserve(count, unique_id()))?;
        drop(batch);
        self.topics.require_topic(&queue.topic).await?;
        let what = What("send to", queue);
        let request = Request::Messages(queue, body);
        let (answer, address) = self.ask(what, queue, request, ANSWER_TIMEOUT).await?;
        if answer.code != answered::SUCCESS {
            return Err(answer.error(&what.to_string(), &address));
        }
        answer
            .offset("queueOffset")
            .ok_or_else(|| unreadable(what, &address, "no offset"))
    }

    async fn pull(&self, wanted: PullRequest) -> Result<Pulled, BusError> {
        let start = Instant::now();
        let (mut answer, mut address) = self.pull_once(&wanted).await?;
        if answer.code == answered::SUBSCRIPTION_GROUP_NOT_EXIST {
            self.mirror.ensure(READERS, &address).await?;
            (answer, address) = self.pull_once(&wanted).await?;
        }
        let asked_again = answer.code != answered::PULL_NOT_FOUND;
        let pulled = read_pull(What("pull from", &wanted.queue), &wanted, answer, &address)?;
        let no_way_forward = pulled.messages.is_empty() && pulled.next_offset == wanted.offset;
        let did_not_wait = !wanted.wait.is_zero() && start.elapsed() < RETRY_PAUSE;
        if no_way_forward && (asked_again || did_not_wait) {
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        Ok(pulled)
    }

    async fn bounds(&self, queue: &Queue) -> Result<Bounds, BusError> {
        self.topics.require(queue).await?;
        let fields = || [("topic", field(&queue.topic)), ("queueId", field(queue.id))];
        let min = request(code::GET_MIN_OFFSET, fields(), Bytes::new());
        let max = request(code::GET_MAX_OFFSET, fields(), Bytes::new());
        let min = self
            .ask_offset(What("minimum offset of", queue), queue, min)
            .await?;
        let max = self
            .ask_offset(What("maximum offset of", queue), queue, max)
            .await?;
        Ok(Bounds {
            min,
            max: max.max(min),
        })
    }

    async fn offset_at(&self, queue: &Queue, time_ms: i64) -> Result<u64, BusError> {
        self.topics.require(queue).await?;
        let fields = [
            ("topic", field(&queue.topic)),
            ("queueId", field(queue.id)),
            ("timestamp", field(time_ms)),
            ("boundaryType", CheetahString::from_static_str("LOWER")),
        ];
        let request = request(code::SEARCH_OFFSET_BY_TIMESTAMP, fields, Bytes::new());
        self.ask_offset(What("offset by time of", queue), queue, request)
            .await
    }

    async fn mirror_offset(&self, group: &str, queue: &Queue, offset: u64) -> Result<(), BusError> {
        self.mirror.write(group, queue, offset).await
    }

    fn max_batch_bytes(&self) -> usize {
        check::MAX_BATCH_WEIGHT
    }

    async fn shutdown(&self) {
        self.calls.shutdown().await;
    }
}

/// What the answer to a pull says.
fn read_pull(
    what: What<'_>,
    wanted: &PullRequest,
    answer: Answer,
    address: &str,
) -> Result<Pulled, BusError> {
    let offset = wanted.offset;
    let bounds = Bounds {
        min: answer.offset("minOffset").unwrap_or_default(),
        max: answer.offset("maxOffset").unwrap_or_default(),
    };
    let next = answer.offset("nextBeginOffset").unwrap_or(offset);
    let nothing = |next_offset| Pulled {
        messages: Vec::new(),
        next_offset,
        bounds,
    };
    match answer.code {
        answered::SUCCESS => {
            let mut messages = messages::decode(answer.body).map_err(|why| {
                BusError::new(
                    BusErrorKind::Denied,
                    format!("{what}: the answer of {address} cannot be read: {why}"),
                )
            })?;
            messages.retain(|message| message.offset >= offset);
            let after = messages.last().map_or(offset, |message| message.offset + 1);
            Ok(Pulled {
                messages,
                next_offset: next.max(after),
                bounds,
            })
        }
        answered::PULL_NOT_FOUND => Ok(nothing(offset)),
        answered::PULL_RETRY_IMMEDIATELY => Ok(nothing(next.max(offset))),
        // Brokers say so for an offset within the bounds too while they are starting.
        answered::PULL_OFFSET_MOVED if (bounds.min..=bounds.max).contains(&offset) => Ok(nothing(offset)),
        answered::PULL_OFFSET_MOVED => Err(BusError::new(
            BusErrorKind::OffsetOutOfRange,
            format!(
                "{what}: offset {offset} is outside of {} to {} at {address}",
                bounds.min, bounds.max
            ),
        )),
        _ => Err(answer.error(&what.to_string(), address)),
    }
}

fn unreadable(what: What<'_>, address: &str, why: &str) -> BusError {
    BusError::new(
        BusErrorKind::Unavailable,
        format!("{what}: the answer of {address} cannot be read: {why}"),
    )
}
