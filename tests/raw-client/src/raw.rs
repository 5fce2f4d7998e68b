//! Batches of 1000 to explicit queues, one in flight in each; classic pulls of 1024 messages, one in flight in each.
#![allow(
    deprecated,
    reason = "the classic pull consumer is the fastest way to read, and the only one by explicit offsets"
)]

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clap::Args;
use rocketmq_client_rust::{
    ClientRuntime, ClientRuntimeConfig, DefaultMQProducer, DefaultMQPullConsumer, TelemetryHandle,
};
use rocketmq_model::common::message::message_queue::MessageQueue;
use rocketmq_model::common::message::message_single::Message;
use rocketmq_runtime::RuntimeContext;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use gantry_raw_client::data::{Account, line};
use gantry_raw_client::usage;

const BATCH: u64 = 1000;
const PULL: i32 = 1024;
/// A broker's answer to what has waited for 200 ms, and how long it is left in peace then.
const SYSTEM_BUSY: i32 = 2;
const BUSY: Duration = Duration::from_millis(10);

#[derive(Debug, Args)]
pub(crate) struct Send {
    #[arg(long)]
    namesrv: String,
    #[arg(long)]
    topic: String,
    #[arg(long)]
    records: u64,
    /// Length of a body
    #[arg(long)]
    bytes: usize,
    /// NAME=LENGTH of a property that each message has
    #[arg(long = "property", value_parser = property)]
    properties: Vec<(String, usize)>,
}

#[derive(Debug, Args)]
pub(crate) struct Pull {
    #[arg(long)]
    namesrv: String,
    #[arg(long)]
    topic: String,
    #[arg(long)]
    records: u64,
    /// Length of a body
    #[arg(long)]
    bytes: usize,
    /// Whether each record is there once, and whole
    #[arg(long)]
    check: bool,
}

fn property(text: &str) -> Result<(String, usize)> {
    let (name, length) = text.split_once('=').context("NAME=LENGTH")?;
    Ok((name.to_owned(), length.parse()?))
}

/// What is needed to make a client; its tasks live as long.
struct Base {
    runtime: Arc<ClientRuntime>,
    _context: RuntimeContext,
}

fn base() -> Result<Base> {
    let context = RuntimeContext::try_from_current("gantry-raw-client")?;
    let config = ClientRuntimeConfig::default();
    let runtime = ClientRuntime::try_new(context.service_context("client"), config, TelemetryHandle::noop())?;
    Ok(Base {
        runtime,
        _context: context,
    })
}

/// Time and CPU from the first request to the last answer, and the most memory of the whole process.
fn took(records: u64, start: Instant, cpu_before: f64) -> Result<Value> {
    let seconds = start.elapsed().as_secs_f64();
    let process = std::process::id();
    Ok(json!({
        "records": records,
        "seconds": seconds,
        "cpu": usage::cpu(process)? - cpu_before,
        "peak": usage::memory(process)?.peak,
    }))
}

/// Sends so many messages. Their bodies are all the same: making them is not what is measured.
pub(crate) async fn send(args: Send) -> Result<Value> {
    let base = base()?;
    let mut producer = DefaultMQProducer::builder(base.runtime)
        .producer_group("gantry-raw-client")
        .name_server_addr(&*args.namesrv)
        .send_msg_timeout(10_000)
        .retry_times_when_send_failed(0)
        .build();
    producer.start().await.context("starting the producer")?;
    // The route is known before time counts.
    let queues = producer.fetch_publish_message_queues(&args.topic).await?;
    let count = queues.len() as u64;

    let mut body = Vec::new();
    line(0, args.bytes, &mut body);
    let (args, producer, body) = (Arc::new(args), Arc::new(producer), Bytes::from(body));
    let (start, cpu) = (Instant::now(), usage::cpu(std::process::id())?);
    let mut senders = JoinSet::new();
    for (place, queue) in (0..count).zip(queues) {
        let (args, producer, body) = (args.clone(), producer.clone(), body.clone());
        senders.spawn(async move {
            let mine = args.records * place / count..args.records * (place + 1) / count;
            let mut next = mine.start;
            while next < mine.end {
                let end = mine.end.min(next + BATCH);
                while !send_once(&args, &producer, &queue, next..end, &body).await? {
                    sleep(BUSY).await;
                }
                next = end;
            }
            anyhow::Ok(())
        });
    }
    while let Some(sender) = senders.join_next().await {
        sender??;
    }
    took(args.records, start, cpu)
}

/// Sends a batch. False: the broker had too much to do and has not looked at it.
async fn send_once(
    args: &Send,
    producer: &DefaultMQProducer,
    queue: &MessageQueue,
    numbers: Range<u64>,
    body: &Bytes,
) -> Result<bool> {
    let batch = numbers
        .map(|number| message(args, number, body))
        .collect::<Result<Vec<_>>>()?;
    match Box::pin(producer.send_batch_to_queue(batch, queue.clone())).await {
        Ok(_) => Ok(true),
        Err(error) if error.broker_response_code() == Some(SYSTEM_BUSY) => Ok(false),
        Err(error) => {
            let code = error.broker_response_code();
            Err(error).with_context(|| format!("sending to {queue}, answered with code {code:?}"))
        }
    }
}

fn message(args: &Send, number: u64, body: &Bytes) -> Result<Message> {
    let mut message = Message::builder().topic(&*args.topic).body(body.clone());
    for (name, length) in &args.properties {
        message = message.raw_property(&**name, format!("{number:0>length$}"))?;
    }
    Ok(message.build()?)
}

/// Pulls a whole topic.
pub(crate) async fn pull(args: Pull) -> Result<Value> {
    let base = base()?;
    let consumer = DefaultMQPullConsumer::builder(base.runtime)
        .consumer_group("gantry-raw-client")
        .name_server_addr(&*args.namesrv)
        .build()?;
    consumer.start().await.context("starting the consumer")?;
    let mut queues: Vec<(MessageQueue, i64)> = Vec::new();
    for queue in consumer.fetch_subscribe_message_queues(&args.topic).await? {
        let end = consumer.max_offset(&queue).await?;
        queues.push((queue, end));
    }

    let (args, consumer) = (Arc::new(args), Arc::new(consumer));
    let account = args.check.then(|| Account::new(args.records, args.bytes));
    let account = Arc::new(tokio::sync::Mutex::new(account));
    let (start, cpu) = (Instant::now(), usage::cpu(std::process::id())?);
    let count = Arc::new(AtomicU64::new(0));
    let mut readers = JoinSet::new();
    for (queue, end) in queues {
        let (args, consumer, account, count) =
            (args.clone(), consumer.clone(), account.clone(), count.clone());
        readers.spawn(async move {
            let mut offset = 0;
            while offset < end {
                let pulled = Box::pin(consumer.pull(&queue, "*", offset, PULL)).await?;
                let messages = pulled.msg_found_list().unwrap_or_default();
                ensure!(!messages.is_empty(), "{queue} has nothing at {offset} of {end}");
                offset = pulled.next_begin_offset() as i64;
                count.fetch_add(messages.len() as u64, Ordering::Relaxed);
                if args.check
                    && let Some(account) = account.lock().await.as_mut()
                {
                    for message in messages {
                        account.add(&message.body().unwrap_or_default())?;
                    }
                }
            }
            anyhow::Ok(())
        });
    }
    while let Some(reader) = readers.join_next().await {
        reader??;
    }
    let took = took(args.records, start, cpu)?;
    let count = count.load(Ordering::Relaxed);
    ensure!(
        count == args.records,
        "{count} messages were pulled, and {} sent",
        args.records
    );
    if let Some(account) = account.lock().await.as_ref() {
        account.close()?;
    }
    Ok(took)
}
