//! One instance of RocketMQ's client, as it is built: its connections, its producer, and the handles by which calls
//! that no facade offers reach an address.

use std::{
    collections::HashMap,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use cheetah_string::CheetahString;
use parking_lot::Mutex;
use rocketmq_client_rust::{
    ClientConfig, ClientError, ClientInstanceHandle, ClientResult, ClientRpcHook, ClientRuntime,
    ClientRuntimeConfig, DefaultMQProducer, TelemetryHandle, client_config_for_managed_domain,
};
use rocketmq_model::common::message::{
    message_batch::MessageBatch, message_queue::MessageQueue, message_single::Message,
};
use rocketmq_protocol::protocol::remoting_command::RemotingCommand;
use rocketmq_runtime::{RuntimeContext, ShutdownDeadline};
use tokio::{sync::OnceCell, time::timeout};

use crate::{
    NoAnswer, Session, Target,
    hook::{self, Hook},
};

/// The group under which RocketMQ's tools list who sends (`producerConnection`).
const SENDERS: &str = "gantry";
/// A topic whose settings a broker may copy to make one that is missing. None has this name, so none is made.
const NO_TOPIC: &str = "GANTRY-DOES-NOT-MAKE-TOPICS-BY-SENDING";
/// The producer and the handles share the instance by using the same domain.
const DOMAIN: u64 = 0;
const MASTER: u64 = 0;
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);
/// How long brokers are given to hear that the producer goes.
const FAREWELL: Duration = Duration::from_millis(500);

pub(crate) struct Instance {
    config: ClientConfig,
    hook: Arc<ClientRpcHook>,
    runtime: Arc<ClientRuntime>,
    /// Each handle makes one call at a time; they share the connections.
    idle: Mutex<Vec<ClientInstanceHandle>>,
    producer: OnceCell<DefaultMQProducer>,
    /// Where the producer sends what is for a broker, by its name.
    sends_to: Mutex<HashMap<Arc<str>, Arc<str>>>,
    /// The tasks of the client live as long as this.
    _context: RuntimeContext,
}

impl Instance {
    /// An instance on the current tokio runtime. Connects to nothing.
    pub(crate) fn new(namesrv: &str) -> Result<Self, NoAnswer> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let context = RuntimeContext::try_from_current("gantry-bus").map_err(|error| {
            tracing::error!(%error, "rocketmq client cannot use this runtime");
            NoAnswer::unsent("the client needs a tokio runtime", None)
        })?;
        let build = || -> ClientResult<_> {
            let config = ClientConfig::builder()
                .namesrv_addr(namesrv)
                .instance_name(format!("gantry-{}-{number}", std::process::id()))
                .enable_vip_channel(false)
                .build()?;
            let service = context.service_context("rocketmq");
            let runtime =
                ClientRuntime::try_new(service, ClientRuntimeConfig::default(), TelemetryHandle::noop())?;
            Ok((config, runtime))
        };
        let (config, runtime) = build().map_err(cannot_build)?;
        Ok(Self {
            config,
            hook: Arc::new(Hook),
            runtime,
            idle: Mutex::default(),
            producer: OnceCell::new(),
            sends_to: Mutex::default(),
            _context: context,
        })
    }

    async fn start_producer(&self) -> ClientResult<DefaultMQProducer> {
        let mut producer = DefaultMQProducer::builder(self.runtime.clone())
            .client_config(client_config_for_managed_domain(DOMAIN, self.config.clone()))
            .rpc_hook(self.hook.clone())
            .producer_group(SENDERS)
            .create_topic_key(NO_TOPIC)
            .retry_times_when_send_failed(0)
            .build();
        producer.start().await?;
        Ok(producer)
    }

    /// Sees to it that the producer sends to the address, which may be newer than what it knows.
    async fn direct(&self, target: Target<'_>) -> Result<(), NoAnswer> {
        let Target { broker, address, .. } = target;
        if self.sends_to.lock().get(broker) == Some(address) {
            return Ok(());
        }
        let handle = self.handle()?;
        let name = CheetahString::from(&**broker);
        let sends_there = async || {
            let known = handle.find_subscribe_broker_addr(&name, MASTER, false).await;
            known.is_some_and(|known| *known.as_str() == **address)
        };
        if !sends_there().await {
            handle
                .refresh_topic_route(&CheetahString::from(target.topic))
                .await;
            if !sends_there().await {
                return Err(NoAnswer::unsent(
                    "the client does not know this address yet",
                    None,
                ));
            }
        }
        self.sends_to.lock().insert(broker.clone(), address.clone());
        Ok(())
    }

    fn handle(&self) -> Result<Handle<'_>, NoAnswer> {
        let idle = self.idle.lock().pop();
        let handle = match idle {
            Some(handle) => handle,
            None => {
                let hook = Some(self.hook.clone());
                ClientInstanceHandle::get_or_create(&self.runtime, DOMAIN, self.config.clone(), hook)
                    .map_err(cannot_build)?
            }
        };
        Ok(Handle {
            handle: Some(handle),
            home: self,
        })
    }
}

#[async_trait]
impl Session for Instance {
    async fn call(
        &self,
        address: &str,
        request: RemotingCommand,
        timeout: Duration,
    ) -> Result<RemotingCommand, NoAnswer> {
        let address = CheetahString::from(address);
        let call = self.handle()?;
        Ok(call.invoke_remoting(&address, request, millis(timeout)).await?)
    }

    async fn send(
        &self,
        target: Target<'_>,
        batch: Bytes,
        timeout: Duration,
    ) -> Result<RemotingCommand, NoAnswer> {
        let producer = self
            .producer
            .get_or_try_init(|| self.start_producer())
            .await
            .map_err(cannot_build)?;
        self.direct(target).await?;
        let Target {
            topic, broker, queue, ..
        } = target;
        let batch = MessageBatch {
            final_message: Message::builder().topic(topic).body(batch).build_unchecked(),
            messages: Vec::new(),
        };
        let to = MessageQueue::from_parts(topic, &**broker, queue as i32);
        let (sent, seen) = Box::pin(hook::watch(producer.send_to_queue_with_timeout(
            batch,
            to,
            millis(timeout),
        )))
        .await;
        if let Some(answer) = seen.answer {
            return Ok(answer);
        }
        let failed = sent.map_or_else(NoAnswer::from, |_| NoAnswer::unseen());
        let unsent = failed.unsent || !seen.left;
        Err(NoAnswer { unsent, ..failed })
    }

    async fn stop(&self) {
        if let Some(producer) = self.producer.get() {
            _ = timeout(FAREWELL, producer.clone().shutdown()).await;
        }
        let stop = self
            .runtime
            .shutdown_until(ShutdownDeadline::after(SHUTDOWN_TIMEOUT));
        if timeout(SHUTDOWN_TIMEOUT * 2, stop).await.is_err() {
            tracing::debug!("rocketmq client did not stop in time");
        }
        let idle = std::mem::take(&mut *self.idle.lock());
        for handle in idle {
            handle.shutdown_owned().await;
        }
    }
}

fn millis(timeout: Duration) -> u64 {
    timeout.as_millis() as u64
}

fn cannot_build(error: ClientError) -> NoAnswer {
    NoAnswer::unsent("the client cannot be built", Some(error.into_shared_error()))
}

/// A handle that is given back when dropped.
struct Handle<'a> {
    handle: Option<ClientInstanceHandle>,
    home: &'a Instance,
}

impl Deref for Handle<'_> {
    type Target = ClientInstanceHandle;

    fn deref(&self) -> &ClientInstanceHandle {
        self.handle.as_ref().expect("it is given back by dropping alone")
    }
}

impl Drop for Handle<'_> {
    fn drop(&mut self) {
        self.home.idle.lock().extend(self.handle.take());
    }
}
