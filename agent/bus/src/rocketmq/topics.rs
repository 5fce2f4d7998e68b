//! Routes and brokers' addresses, and making topics.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use cheetah_string::CheetahString;
use parking_lot::Mutex;
use rocketmq_protocol::protocol::{
    body::broker_body::cluster_info::ClusterInfo, route::topic_route_data::TopicRouteData,
};
use tokio::time::{Instant, sleep};

use super::{
    answer::{self, Answer},
    calls::{ANSWER_TIMEOUT, Calls, What, code, field, request},
    client::Request,
    route::{self, Route},
};
use crate::{BusError, BusErrorKind, Endpoint, Queue, check};

/// How long a new topic may take until the name server has its route. Some brokers tell it every 10 s only.
const ROUTE_TIMEOUT: Duration = Duration::from_secs(15);
const ROUTE_PAUSE: Duration = Duration::from_millis(50);
/// Patience with the other name servers once the first did not answer.
const NEXT_PATIENCE: Duration = Duration::from_millis(200);
/// A broker that is out of reach is looked up again at most this often: it may have moved.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(2);

/// What is known of topics and brokers, and whom to ask.
pub(super) struct Topics {
    calls: Arc<Calls>,
    namesrv: Vec<Arc<str>>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    addresses: HashMap<Arc<str>, Arc<str>>,
    queues: HashMap<Box<str>, Arc<[Queue]>>,
    looked_up: Option<Instant>,
}

/// The addresses of the endpoint's name servers.
pub(super) fn name_servers(endpoint: &Endpoint) -> Vec<Arc<str>> {
    let addresses = endpoint.namesrv.split([';', ',']).map(str::trim);
    addresses
        .filter(|address| !address.is_empty())
        .map(Arc::from)
        .collect()
}

impl Topics {
    pub(super) fn new(calls: Arc<Calls>, namesrv: Vec<Arc<str>>) -> Self {
        Self {
            calls,
            namesrv,
            known: Mutex::default(),
        }
    }

    /// The topic's queues, from the name server.
    pub(super) async fn route(&self, topic: &str) -> Result<Arc<[Queue]>, BusError> {
        check::topic_name(topic)?;
        match self.fetch(topic).await? {
            Some(route) => Ok(route.queues),
            None => {
                self.known.lock().queues.remove(topic);
                Err(missing(topic))
            }
        }
    }

    /// The address of the queue's broker, from the name server if it is not known yet.
    pub(super) async fn address(&self, queue: &Queue) -> Result<Arc<str>, BusError> {
        let known = |topics: &Self| topics.known.lock().addresses.get(&queue.broker).cloned();
        if let Some(address) = known(self) {
            return Ok(address);
        }
        self.route(&queue.topic).await?;
        known(self).ok_or_else(|| not_in_route(queue))
    }

    /// `TopicMissing` unless the topic has a route or had one: without, RocketMQ's producer does not know its brokers.
    pub(super) async fn require_topic(&self, topic: &str) -> Result<(), BusError> {
        if self.known.lock().queues.contains_key(topic) {
            return Ok(());
        }
        self.route(topic).await.map(drop)
    }

    /// `QueueMissing` unless the queue is in the topic's route: for calls that brokers answer for any number.
    pub(super) async fn require(&self, queue: &Queue) -> Result<(), BusError> {
        let known = self
            .known
            .lock()
            .queues
            .get(&*queue.topic)
            .is_some_and(|queues| queues.contains(queue));
        if known || self.route(&queue.topic).await?.contains(queue) {
            Ok(())
        } else {
            Err(not_in_route(queue))
        }
    }

    /// Looks the topic's brokers up again, in the background and not too often, as the address of one fails.
    pub(super) fn look_up_again(self: &Arc<Self>, topic: &Arc<str>) {
        {
            let mut known = self.known.lock();
            if known
                .looked_up
                .is_some_and(|last| last.elapsed() < LOOKUP_INTERVAL)
            {
                return;
            }
            known.looked_up = Some(Instant::now());
        }
        let (topics, topic) = (self.clone(), topic.clone());
        tokio::spawn(async move {
            if let Err(error) = topics.fetch(&topic).await {
                tracing::debug!(%error, %topic, "route could not be looked up again");
            }
        });
    }

    /// Makes the topic unless it has a route, and waits for its route.
    pub(super) async fn create(&self, topic: &str, queues: u32) -> Result<(), BusError> {
        check::topic_name(topic)?;
        if self.fetch(topic).await?.is_some() {
            return Ok(());
        }
        let queues = queues.max(1);
        let masters = self.masters(What("create topic", &topic)).await?;
        for ((_, address), count) in masters.iter().zip(route::spread(queues, masters.len() as u32)) {
            if count > 0 {
                self.create_on(address, topic, count).await?;
            }
        }
        self.wait_for_route(topic, queues).await
    }

    /// Makes the topic with so many queues on the broker at the address, or changes it to that.
    pub(super) async fn create_on(
        &self,
        address: &Arc<str>,
        topic: &str,
        queues: u32,
    ) -> Result<(), BusError> {
        let fields = [
            ("topic", field(topic)),
            ("defaultTopic", CheetahString::from_static_str("TBW102")),
            ("readQueueNums", field(queues)),
            ("writeQueueNums", field(queues)),
            ("perm", field(6)),
            ("topicFilterType", CheetahString::from_static_str("SINGLE_TAG")),
            ("topicSysFlag", field(0)),
            ("order", field(false)),
        ];
        let request = request(code::UPDATE_AND_CREATE_TOPIC, fields, Bytes::new());
        let what = What("create topic", &topic);
        let answer = self.calls.call(what, address, request, ANSWER_TIMEOUT).await?;
        if answer.code == answer::code::SUCCESS {
            Ok(())
        } else {
            Err(answer.error(&what.to_string(), address))
        }
    }

    /// Asks for the topic's route and remembers it. `None`: the topic has none; what is known stays, since a broker that
    /// has just started may not have told the name server yet.
    async fn fetch(&self, topic: &str) -> Result<Option<Route>, BusError> {
        let what = What("route of topic", &topic);
        let fields = [
            ("topic", field(topic)),
            ("acceptStandardJsonOnly", CheetahString::from_static_str("true")),
        ];
        let (answer, address) = self
            .ask(what, request(code::GET_ROUTE_BY_TOPIC, fields, Bytes::new()))
            .await?;
        if answer.code == answer::code::TOPIC_NOT_EXIST {
            return Ok(None);
        }
        let data = decoded(what, address, &answer, TopicRouteData::decode)?;
        let route = route::read(topic, &data);
        let mut known = self.known.lock();
        known.addresses.extend(route.brokers.iter().cloned());
        known.queues.insert(topic.into(), route.queues.clone());
        Ok(if route.queues.is_empty() {
            None
        } else {
            Some(route)
        })
    }

    async fn masters(&self, what: What<'_>) -> Result<Vec<route::Broker>, BusError> {
        let (answer, address) = self
            .ask(what, request(code::GET_CLUSTER_INFO, [], Bytes::new()))
            .await?;
        let masters = route::masters(&decoded(what, address, &answer, |body| {
            ClusterInfo::decode(body)
        })?);
        if masters.is_empty() {
            let text = format!("{what}: the name server {address} knows no broker that takes topics");
            return Err(BusError::new(BusErrorKind::Unavailable, text));
        }
        Ok(masters)
    }

    async fn wait_for_route(&self, topic: &str, queues: u32) -> Result<(), BusError> {
        let start = Instant::now();
        loop {
            let found = self
                .fetch(topic)
                .await?
                .map_or(0, |route| route.queues.len() as u32);
            if found >= queues {
                return Ok(());
            }
            if start.elapsed() > ROUTE_TIMEOUT {
                let text =
                    format!("create topic {topic}: the name server knows {found} of its {queues} queues yet");
                return Err(BusError::new(BusErrorKind::Unavailable, text));
            }
            sleep(ROUTE_PAUSE).await;
        }
    }

    /// Asks the first name server that answers.
    async fn ask(&self, what: What<'_>, request: Request<'_>) -> Result<(Answer, &str), BusError> {
        let mut last = None;
        for address in &self.namesrv {
            let answer = match &last {
                None => {
                    self.calls
                        .call(what, address, request.clone(), ANSWER_TIMEOUT)
                        .await
                }
                Some(_) => {
                    let call = self.calls.call_patiently(
                        what,
                        address,
                        request.clone(),
                        ANSWER_TIMEOUT,
                        NEXT_PATIENCE,
                    );
                    call.await
                }
            };
            match answer {
                Ok(answer) => return Ok((answer, address)),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| {
            BusError::new(
                BusErrorKind::Denied,
                format!("{what}: no name server address is configured"),
            )
        }))
    }
}

/// The answer's body, read; an answer that is no success or cannot be read is an error.
fn decoded<T, E: std::error::Error>(
    what: What<'_>,
    address: &str,
    answer: &Answer,
    decode: impl Fn(&[u8]) -> Result<T, E>,
) -> Result<T, BusError> {
    if answer.code != answer::code::SUCCESS {
        return Err(answer.error(&what.to_string(), address));
    }
    decode(&answer.body).map_err(|error| {
        let text = format!("{what}: the answer of {address} cannot be read: {error}");
        BusError::new(BusErrorKind::Unavailable, text)
    })
}

fn missing(topic: &str) -> BusError {
    BusError::new(
        BusErrorKind::TopicMissing,
        format!("topic {topic} has no route at the name server"),
    )
}

fn not_in_route(queue: &Queue) -> BusError {
    BusError::new(
        BusErrorKind::QueueMissing,
        format!("queue {queue} is not in the topic's route"),
    )
}
