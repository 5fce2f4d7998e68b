//! Brokers and name servers that go away and come back.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use gantry_bus::{Bus, BusError, BusErrorKind, OutMessage, PullRequest, Queue, rocketmq::RocketmqBus};
use gantry_embedded_rocketmq::{EmbeddedRocketmq, Options};
use tokio::{net::TcpStream, sync::watch, task::JoinSet, time::Instant};

use crate::{apache::Apache, bus, cases, chain, process::BrokerProcess};

const BATCH: u64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_server_that_is_down_at_first_is_named_and_found_when_it_comes() {
    let dir = tempfile::tempdir().unwrap();
    let once = EmbeddedRocketmq::start(dir.path(), Options::default())
        .await
        .unwrap();
    let address = once.namesrv_addr();
    once.stop().await;
    let bus = bus(&address);
    let start = Instant::now();
    let error = bus.create_topic("t", 1).await.unwrap_err();
    println!("{} after {:?}", chain(&error), start.elapsed());
    assert_eq!(error.kind(), BusErrorKind::Unavailable);
    assert!(error.to_string().contains(&address), "{error}");
    assert!(start.elapsed() < Duration::from_secs(3));
    let _again = EmbeddedRocketmq::start(dir.path(), Options::default())
        .await
        .unwrap();
    let back = Instant::now();
    bus.create_topic("t", 1)
        .await
        .unwrap_or_else(|error| panic!("{}", chain(&error)));
    println!("topic made {:?} after the name server was back", back.elapsed());
    assert!(back.elapsed() < Duration::from_secs(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_embedded_broker_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = BrokerProcess::start(dir.path());
    let (namesrv, broker) = (server.namesrv.clone(), server.broker.clone());
    let traffic = Traffic::start(bus(&namesrv)).await;
    traffic.run_for(Duration::from_secs(2)).await;
    server.kill();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let _restarted = BrokerProcess::start(dir.path());
    traffic.recovers(&broker, Duration::from_secs(3)).await;
    traffic.run_for(Duration::from_secs(1)).await;
    traffic.stop_and_verify().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_apache_rocketmq_is_killed() {
    let Some(mut apache) = Apache::start().await else {
        return;
    };
    let broker = format!("127.0.0.1:{}", apache.broker_port);
    let traffic = Traffic::start(bus(&apache.namesrv_addr())).await;
    traffic.run_for(Duration::from_secs(2)).await;
    apache.kill_broker();
    tokio::time::sleep(Duration::from_secs(3)).await;
    apache.start_broker();
    traffic.recovers(&broker, Duration::from_secs(30)).await;
    traffic.run_for(Duration::from_secs(1)).await;
    traffic.stop_and_verify().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outages_one_after_the_other_end_as_quickly() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = BrokerProcess::start(dir.path());
    let broker = server.broker.clone();
    let traffic = Traffic::start(bus(&server.namesrv)).await;
    for _ in 0..3 {
        traffic.run_for(Duration::from_millis(500)).await;
        server.kill();
        tokio::time::sleep(Duration::from_secs(2)).await;
        server = BrokerProcess::start(dir.path());
        traffic.recovers(&broker, Duration::from_secs(3)).await;
    }
    traffic.stop_and_verify().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_comes_back_at_another_address_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let first = EmbeddedRocketmq::start(dir.path(), Options::default())
        .await
        .unwrap();
    let bus = bus(&first.namesrv_addr());
    let (_, queues) = cases::topic(&bus, 1).await;
    let message = || {
        vec![OutMessage {
            body: "x".into(),
            ..OutMessage::default()
        }]
    };
    bus.send(&queues[0], message()).await.unwrap();
    let old_address = first.broker_addr();
    first.stop().await;
    let old_port = std::net::TcpListener::bind(&old_address).unwrap();
    let second = EmbeddedRocketmq::start(dir.path(), Options::default())
        .await
        .unwrap();
    assert_ne!(second.broker_addr(), old_address);
    drop(old_port);
    let start = Instant::now();
    while let Err(error) = bus.send(&queues[0], message()).await {
        println!("{}", chain(&error));
        assert!(start.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("found after {:?}", start.elapsed());
    cases::read(&bus, &queues[0], 0..2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutting_down_ends_long_polls_and_refuses_further_calls() {
    let dir = tempfile::tempdir().unwrap();
    let server = EmbeddedRocketmq::start(dir.path(), Options::default())
        .await
        .unwrap();
    let bus = bus(&server.namesrv_addr());
    let (name, queues) = cases::topic(&bus, 1).await;
    let request = PullRequest {
        queue: queues[0].clone(),
        offset: 0,
        max_messages: 1,
        wait: Duration::from_secs(20),
    };
    let waiting = tokio::spawn({
        let bus = bus.clone();
        async move { bus.pull(request).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let start = Instant::now();
    bus.shutdown().await;
    assert_eq!(
        waiting.await.unwrap().unwrap_err().kind(),
        BusErrorKind::Unavailable
    );
    println!("shut down in {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(3));
    assert!(
        bus.route(&name)
            .await
            .unwrap_err()
            .to_string()
            .contains("shut down")
    );
}

/// Three senders and one reader per queue, all the time.
struct Traffic {
    bus: Arc<RocketmqBus>,
    queues: Vec<Queue>,
    seen: Arc<Mutex<Seen>>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

#[derive(Default)]
struct Seen {
    /// Queue and offset of the first message of each batch that was acknowledged.
    acknowledged: HashMap<u64, (u32, u64)>,
    last_acknowledged: Option<Instant>,
    slowest_failure: Duration,
    /// Messages read by the long-polling readers, by queue.
    messages_read: HashMap<u32, u64>,
    last_read: Option<Instant>,
    failures: HashMap<String, u32>,
}

impl Seen {
    fn sent(&mut self, first: u64, queue: u32, offset: u64) {
        self.acknowledged.insert(first, (queue, offset));
        self.last_acknowledged = Some(Instant::now());
    }

    fn read(&mut self, queue: u32, messages: u64) {
        if messages > 0 {
            self.last_read = Some(Instant::now());
            *self.messages_read.entry(queue).or_default() += messages;
        }
    }

    fn failed(&mut self, error: &BusError, after: Duration) {
        assert_eq!(error.kind(), BusErrorKind::Unavailable, "{error}");
        self.slowest_failure = self.slowest_failure.max(after);
        *self.failures.entry(digest(&chain(error))).or_default() += 1;
    }
}

impl Traffic {
    async fn start(bus: Arc<RocketmqBus>) -> Self {
        let (_, queues) = cases::topic(&bus, 4).await;
        let (stop, stopped) = watch::channel(false);
        let mut traffic = Self {
            bus,
            queues,
            seen: Arc::default(),
            stop,
            tasks: JoinSet::new(),
        };
        for queue in traffic.queues.clone() {
            for part in 0..3 {
                let first = u64::from(queue.id) * 1_000_000_000 + part * 100_000_000;
                let (bus, seen, stopped) = (traffic.bus.clone(), traffic.seen.clone(), stopped.clone());
                traffic
                    .tasks
                    .spawn(send_all_the_time(bus, queue.clone(), first, seen, stopped));
            }
            traffic.tasks.spawn(read_all_the_time(
                traffic.bus.clone(),
                queue,
                traffic.seen.clone(),
                stopped.clone(),
            ));
        }
        traffic
    }

    async fn run_for(&self, time: Duration) {
        let before = self.seen.lock().unwrap().acknowledged.len();
        tokio::time::sleep(time).await;
        assert!(
            self.seen.lock().unwrap().acknowledged.len() > before,
            "nothing was sent"
        );
    }

    /// Waits for the broker's port, then for the first acknowledgement and the first message read after it.
    async fn recovers(&self, broker: &str, within: Duration) {
        while TcpStream::connect(broker).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let open = Instant::now();
        let after = |time: Option<Instant>| time.filter(|time| *time > open).map(|time| time - open);
        loop {
            let (sent, read) = {
                let seen = self.seen.lock().unwrap();
                (after(seen.last_acknowledged), after(seen.last_read))
            };
            if let (Some(sent), Some(read)) = (sent, read) {
                println!(
                    "port open, then first acknowledgement within {sent:?}, first message read within {read:?}"
                );
                return;
            }
            let failures = || format!("{:#?}", self.seen.lock().unwrap().failures);
            assert!(open.elapsed() < within, "{sent:?} {read:?} {}", failures());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn stop_and_verify(self) {
        let Self {
            bus,
            queues,
            seen,
            stop,
            mut tasks,
        } = self;
        stop.send_replace(true);
        while tasks.join_next().await.is_some() {}
        let seen = std::mem::take(&mut *seen.lock().unwrap());
        println!(
            "{} batches acknowledged, slowest failing send {:?}",
            seen.acknowledged.len(),
            seen.slowest_failure
        );
        for (failure, count) in &seen.failures {
            println!("  {count} x {failure}");
        }
        assert!(seen.slowest_failure < Duration::from_secs(3));
        let mut lost = 0;
        tokio::time::sleep(Duration::from_millis(500)).await;
        for queue in &queues {
            let end = bus.bounds(queue).await.unwrap().max;
            let messages = cases::read(&bus, queue, 0..end).await;
            let read = seen.messages_read.get(&queue.id).copied().unwrap_or_default();
            assert!(
                read <= messages.len() as u64 && read > 0,
                "{read} of {}",
                messages.len()
            );
            for (first, (_, offset)) in seen.acknowledged.iter().filter(|(_, (id, _))| *id == queue.id) {
                let stored = (0..BATCH).all(|at| {
                    let message = messages.get((offset + at) as usize);
                    message.is_some_and(|message| message.body == (first + at).to_string())
                });
                lost += u32::from(!stored);
            }
        }
        assert_eq!(lost, 0, "acknowledged batches are missing");
    }
}

async fn send_all_the_time(
    bus: Arc<RocketmqBus>,
    queue: Queue,
    mut next: u64,
    seen: Arc<Mutex<Seen>>,
    stopped: watch::Receiver<bool>,
) {
    while !*stopped.borrow() {
        let batch = (next..next + BATCH)
            .map(|number| OutMessage {
                body: number.to_string().into(),
                ..OutMessage::default()
            })
            .collect();
        let start = Instant::now();
        match bus.send(&queue, batch).await {
            Ok(offset) => {
                seen.lock().unwrap().sent(next, queue.id, offset);
                next += BATCH;
            }
            Err(error) => {
                seen.lock().unwrap().failed(&error, start.elapsed());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

async fn read_all_the_time(
    bus: Arc<RocketmqBus>,
    queue: Queue,
    seen: Arc<Mutex<Seen>>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut offset = 0;
    loop {
        let wait = Duration::from_secs(20);
        let pull = bus.pull(PullRequest {
            queue: queue.clone(),
            offset,
            max_messages: 1000,
            wait,
        });
        let pulled = tokio::select! {
            pulled = pull => pulled,
            _ = stopped.wait_for(|stopped| *stopped) => return,
        };
        match pulled {
            Ok(pulled) => {
                let offsets = pulled.messages.iter().map(|message| message.offset);
                assert!(
                    offsets.eq(offset..offset + pulled.messages.len() as u64),
                    "not contiguous"
                );
                seen.lock().unwrap().read(queue.id, pulled.messages.len() as u64);
                offset = pulled.next_offset;
            }
            Err(error) => {
                seen.lock().unwrap().failed(&error, Duration::ZERO);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// The text without what differs from call to call.
fn digest(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_ascii_digit() { '#' } else { c })
        .collect()
}
