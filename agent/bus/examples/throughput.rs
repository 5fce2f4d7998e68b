//! What the bus costs over RocketMQ's own client: batches of 1000 messages of 100 bytes, 4 in flight to 4 queues.
//!
//! `cargo run --release --workspace --example throughput -- NAMESRV [SECONDS]`

#![allow(
    deprecated,
    reason = "the classic pull consumer is what this bus is to be compared with"
)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use gantry_bus::{Bus, Endpoint, OutMessage, PullRequest, Queue, rocketmq::RocketmqBus};
use rocketmq_client_rust::{
    ClientRuntime, ClientRuntimeConfig, DefaultMQProducer, DefaultMQPullConsumer, TelemetryHandle,
};
use rocketmq_model::common::message::{message_queue::MessageQueue, message_single::Message};
use rocketmq_runtime::RuntimeContext;
use tokio::time::Instant;

type Anyhow<T> = Result<T, Box<dyn std::error::Error>>;

const BATCH: usize = 1000;
const BODY_BYTES: usize = 100;
const QUEUES: u32 = 4;

struct Raw {
    producer: DefaultMQProducer,
    consumer: DefaultMQPullConsumer,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Anyhow<()> {
    let mut arguments = std::env::args().skip(1);
    let namesrv = arguments.next().unwrap_or_else(|| "127.0.0.1:9876".into());
    let seconds = arguments.next().map_or(Ok(5.0), |text| text.parse())?;
    let duration = Duration::from_secs_f64(seconds);
    let context = RuntimeContext::from_current("throughput");
    let raw = connect_raw(&context, &namesrv).await?;
    let bus = Arc::new(RocketmqBus::new(&Endpoint { namesrv }));
    let body = Bytes::from(vec![b'x'; BODY_BYTES]);
    let mut ratios = [Vec::new(), Vec::new()];
    for round in 0..3 {
        let topic = format!("throughput-{}-{round}", std::process::id());
        bus.create_topic(&topic, QUEUES).await?;
        let queues = bus.route(&topic).await?;
        raw.consumer.fetch_subscribe_message_queues(&topic).await?;
        let raw_out = send_raw(&raw, &queues, &body, duration).await;
        let bus_out = send_bus(&bus, &queues, &body, duration).await;
        let indexed = settle(&bus, &queues).await?;
        println!("all can be read {indexed:?} after the last acknowledgement");
        let raw_in = pull_raw(&raw, &queues, duration).await;
        let bus_in = pull_bus(&bus, &queues, duration).await;
        println!(
            "send: raw {raw_out:>8.0}/s  bus {bus_out:>8.0}/s  ratio {:.2}",
            bus_out / raw_out
        );
        println!(
            "pull: raw {raw_in:>8.0}/s  bus {bus_in:>8.0}/s  ratio {:.2}",
            bus_in / raw_in
        );
        ratios[0].push(bus_out / raw_out);
        ratios[1].push(bus_in / raw_in);
    }
    for (what, mut ratios) in ["send", "pull"].into_iter().zip(ratios) {
        ratios.sort_by(f64::total_cmp);
        println!("{what}: median ratio {:.2}", ratios[ratios.len() / 2]);
    }
    Ok(())
}

/// Waits until the queues grow no more: brokers acknowledge before they index. Returns how long that took.
async fn settle(bus: &RocketmqBus, queues: &[Queue]) -> Anyhow<Duration> {
    let start = Instant::now();
    let (mut last, mut changed) = (0, start);
    while changed.elapsed() < Duration::from_millis(500) {
        let bounds = futures::future::try_join_all(queues.iter().map(|queue| bus.bounds(queue))).await?;
        let total: u64 = bounds.iter().map(|bounds| bounds.max).sum();
        if total != last {
            (last, changed) = (total, Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(changed - start)
}

async fn connect_raw(context: &RuntimeContext, namesrv: &str) -> Anyhow<Raw> {
    let config = ClientRuntimeConfig::default();
    let runtime = ClientRuntime::try_new(context.service_context("client"), config, TelemetryHandle::noop())?;
    let mut producer = DefaultMQProducer::builder(runtime.clone())
        .producer_group("throughput")
        .name_server_addr(namesrv)
        .send_msg_timeout(5000)
        .retry_times_when_send_failed(0)
        .build();
    producer.start().await?;
    let consumer = DefaultMQPullConsumer::builder(runtime)
        .consumer_group("throughput-pull")
        .name_server_addr(namesrv)
        .build()?;
    consumer.start().await?;
    Ok(Raw { producer, consumer })
}

/// Messages per second of as many tasks as there are queues, each calling `step` until the time is over or it says 0.
async fn rate<F: Future<Output = usize>>(
    queues: &[Queue],
    duration: Duration,
    step: impl Fn(Queue, u64) -> F + Copy,
) -> f64 {
    let (start, count) = (Instant::now(), AtomicU64::new(0));
    let tasks = queues.iter().map(|queue| {
        let count = &count;
        async move {
            let mut done = 0;
            while start.elapsed() < duration {
                let messages = step(queue.clone(), done).await as u64;
                if messages == 0 {
                    break;
                }
                done += messages;
                count.fetch_add(messages, Ordering::Relaxed);
            }
        }
    });
    futures::future::join_all(tasks).await;
    count.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64()
}

fn raw_queue(queue: &Queue) -> MessageQueue {
    MessageQueue::from_parts(&*queue.topic, &*queue.broker, queue.id as i32)
}

async fn send_raw(raw: &Raw, queues: &[Queue], body: &Bytes, duration: Duration) -> f64 {
    rate(queues, duration, |queue, _| async move {
        let message = || {
            Message::builder()
                .topic(&*queue.topic)
                .body(body.clone())
                .build_unchecked()
        };
        let batch: Vec<Message> = (0..BATCH).map(|_| message()).collect();
        raw.producer
            .send_batch_to_queue(batch, raw_queue(&queue))
            .await
            .map_or(0, |_| BATCH)
    })
    .await
}

async fn send_bus(bus: &RocketmqBus, queues: &[Queue], body: &Bytes, duration: Duration) -> f64 {
    rate(queues, duration, |queue, _| async move {
        let batch = vec![
            OutMessage {
                body: body.clone(),
                ..OutMessage::default()
            };
            BATCH
        ];
        bus.send(&queue, batch).await.map_or(0, |_| BATCH)
    })
    .await
}

async fn pull_raw(raw: &Raw, queues: &[Queue], duration: Duration) -> f64 {
    rate(queues, duration, |queue, offset| async move {
        let pulled = raw
            .consumer
            .pull(&raw_queue(&queue), "*", offset as i64, 1024)
            .await;
        pulled
            .ok()
            .and_then(|pulled| pulled.msg_found_list().map(|messages| messages.len()))
            .unwrap_or(0)
    })
    .await
}

async fn pull_bus(bus: &RocketmqBus, queues: &[Queue], duration: Duration) -> f64 {
    rate(queues, duration, |queue, offset| async move {
        let request = PullRequest {
            queue,
            offset,
            max_messages: 1024,
            wait: Duration::ZERO,
        };
        bus.pull(request).await.map_or(0, |pulled| pulled.messages.len())
    })
    .await
}
