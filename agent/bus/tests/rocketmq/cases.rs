use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::{StreamExt, stream};
use gantry_bus::{
    Bounds, Bus, BusErrorKind, InMessage, OutMessage, PullRequest, Queue, rocketmq::RocketmqBus,
};
use tokio::{task::JoinSet, time::Instant};

use crate::chain;

/// A topic of its own, and its queues.
pub(crate) async fn topic(bus: &RocketmqBus, queues: u32) -> (String, Vec<Queue>) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!(
        "case-{}-{}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::SeqCst)
    );
    bus.create_topic(&name, queues)
        .await
        .unwrap_or_else(|error| panic!("{}", chain(&error)));
    let route = bus.route(&name).await.unwrap();
    assert_eq!(route.len(), queues as usize);
    (name, route)
}

fn text(body: impl Into<String>) -> OutMessage {
    OutMessage {
        body: body.into().into(),
        ..OutMessage::default()
    }
}

fn pull_from(queue: &Queue, offset: u64, wait: Duration) -> PullRequest {
    PullRequest {
        queue: queue.clone(),
        offset,
        max_messages: 700,
        wait,
    }
}

/// The messages with these offsets. A broker takes a moment until what it acknowledged can be read.
pub(crate) async fn read(bus: &RocketmqBus, queue: &Queue, offsets: Range<u64>) -> Vec<InMessage> {
    let mut offset = offsets.start;
    let mut all = Vec::new();
    while offset < offsets.end {
        let pulled = bus
            .pull(pull_from(queue, offset, Duration::from_secs(5)))
            .await
            .unwrap();
        assert!(
            !pulled.messages.is_empty(),
            "{queue} ends at {offset} instead of {}",
            offsets.end
        );
        offset = pulled.next_offset;
        all.extend(pulled.messages);
    }
    assert!(
        all.iter().map(|message| message.offset).eq(offsets),
        "not contiguous"
    );
    all
}

#[allow(clippy::disallowed_methods, reason = "compared with what a broker stamps")]
fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

pub(crate) async fn a_topic_is_made_once_and_routed(bus: &Arc<RocketmqBus>) {
    let start = Instant::now();
    let (name, route) = topic(bus, 3).await;
    println!("topic made and routed in {:?}", start.elapsed());
    assert_eq!(route.iter().map(|queue| queue.id).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(route.iter().all(|queue| *queue.topic == *name));
    bus.create_topic(&name, 8).await.unwrap();
    assert_eq!(bus.route(&name).await.unwrap(), route);
    assert_eq!(
        bus.create_topic("not a name", 1).await.unwrap_err().kind(),
        BusErrorKind::Denied
    );
}

pub(crate) async fn batches_in_flight_to_four_queues_are_read_contiguously_from_anywhere(
    bus: &Arc<RocketmqBus>,
) {
    const BATCHES: usize = 20;
    const BATCH: usize = 250;
    let (_, queues) = topic(bus, 4).await;
    let sends = (0..BATCHES * 4).map(|number| {
        let queue = &queues[number % 4];
        async move {
            let batch = (0..BATCH).map(|at| text(format!("{number}-{at}"))).collect();
            (number, bus.send(queue, batch).await.unwrap())
        }
    });
    let sent: Vec<(usize, u64)> = stream::iter(sends).buffer_unordered(16).collect().await;
    for (id, queue) in queues.iter().enumerate() {
        let messages = read(bus, queue, 0..(BATCHES * BATCH) as u64).await;
        for (number, first) in sent.iter().filter(|(number, _)| number % 4 == id) {
            for at in 0..BATCH {
                assert_eq!(messages[*first as usize + at].body, format!("{number}-{at}"));
            }
        }
        for from in [1, 249, 250, 4_321, 4_999] {
            read(bus, queue, from..5_000).await;
        }
    }
}

pub(crate) async fn a_long_poll_wakes_with_the_message(bus: &Arc<RocketmqBus>) {
    let (_, queues) = topic(bus, 1).await;
    let queue = &queues[0];
    bus.send(queue, vec![text("first")]).await.unwrap();
    read(bus, queue, 0..1).await;
    let waiting = tokio::spawn({
        let (bus, request) = (bus.clone(), pull_from(queue, 1, Duration::from_secs(20)));
        async move { bus.pull(request).await }
    });
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(!waiting.is_finished());
    let sent = Instant::now();
    bus.send(queue, vec![text("second")]).await.unwrap();
    let pulled = waiting.await.unwrap().unwrap();
    println!("the long poll woke {:?} after the send began", sent.elapsed());
    assert!(sent.elapsed() < Duration::from_secs(2));
    assert_eq!(pulled.messages[0].body, "second");

    let at_once = Instant::now();
    let nothing = bus.pull(pull_from(queue, 2, Duration::ZERO)).await.unwrap();
    assert!(at_once.elapsed() < Duration::from_secs(1));
    assert_eq!(
        (nothing.messages.len(), nothing.next_offset, nothing.bounds),
        (0, 2, Bounds { min: 0, max: 2 })
    );
}

pub(crate) async fn a_thousand_long_polls_wait_together(bus: &Arc<RocketmqBus>) {
    let (_, queues) = topic(bus, 4).await;
    let mut polls = JoinSet::new();
    for number in 0..1000 {
        let (bus, request) = (
            bus.clone(),
            pull_from(&queues[number % 4], 0, Duration::from_secs(25)),
        );
        polls.spawn(async move { bus.pull(request).await });
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    if let Some(ended) = polls.try_join_next() {
        panic!("{:?}", ended.unwrap());
    }
    let sent = Instant::now();
    for queue in &queues {
        bus.send(queue, vec![text("at last")]).await.unwrap();
    }
    while let Some(pulled) = polls.join_next().await {
        assert_eq!(pulled.unwrap().unwrap().messages[0].body, "at last");
    }
    println!("a thousand long polls woke within {:?}", sent.elapsed());
    assert!(sent.elapsed() < Duration::from_secs(15));
}

pub(crate) async fn keys_tags_and_properties_come_back_as_they_went(bus: &Arc<RocketmqBus>) {
    let (_, queues) = topic(bus, 1).await;
    let property = |name: &str, value: &str| (name.into(), value.into());
    let sent = vec![
        OutMessage {
            key: Some("key-1 and another".into()),
            tag: Some("tag-1".into()),
            properties: vec![
                property("z", "1"),
                property("a", "ü=;,\n\u{3}\u{1f600}"),
                property("gantry-id", "u-1-2"),
            ],
            body: "body".into(),
        },
        OutMessage {
            properties: vec![property("gantry-value", "null")],
            body: vec![0].into(),
            ..OutMessage::default()
        },
        text("plain"),
    ];
    let before = now_ms();
    bus.send(&queues[0], sent.clone()).await.unwrap();
    bus.send(&queues[0], vec![sent[0].clone()]).await.unwrap();
    let read = read(bus, &queues[0], 0..4).await;
    for (sent, read) in sent.iter().chain([&sent[0]]).zip(&read) {
        assert_eq!(
            (&sent.key, &sent.tag, &sent.body),
            (&read.key, &read.tag, &read.body)
        );
        assert_eq!(sent.properties, read.properties);
        assert!((before - 1..=now_ms()).contains(&read.born_time_ms), "{read:?}");
        assert!((before - 1..=now_ms()).contains(&read.store_time_ms), "{read:?}");
    }
}

pub(crate) async fn bodies_of_any_size_come_back_identical(bus: &Arc<RocketmqBus>) {
    let (_, queues) = topic(bus, 1).await;
    let mut state = 7_u64;
    let mut noise = |bytes: usize| -> Vec<u8> {
        let byte = |_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u8
        };
        (0..bytes).map(byte).collect()
    };
    let mut bodies = vec![
        vec![b'x'; 1_000_000],
        noise(1_000_000),
        noise(4_000_000),
        vec![0; 5_000],
    ];
    for body in &bodies {
        bus.send(
            &queues[0],
            vec![OutMessage {
                body: body.clone().into(),
                ..OutMessage::default()
            }],
        )
        .await
        .unwrap();
    }
    let mixed = vec![vec![b'y'; 8_000], noise(8_000), vec![1], noise(300_000)];
    let batch = mixed
        .iter()
        .map(|body| OutMessage {
            body: body.clone().into(),
            ..OutMessage::default()
        })
        .collect();
    bus.send(&queues[0], batch).await.unwrap();
    bodies.extend(mixed);
    let back = read(bus, &queues[0], 0..bodies.len() as u64).await;
    assert!(
        back.iter()
            .map(|message| &message.body[..])
            .eq(bodies.iter().map(|body| &body[..]))
    );
    let many = vec![
        OutMessage {
            body: vec![1].into(),
            ..OutMessage::default()
        };
        bus.max_batch_bytes() / 65
    ];
    let first = bus
        .send(&queues[0], many.clone())
        .await
        .unwrap_or_else(|error| panic!("{}", chain(&error)));
    read(bus, &queues[0], first..first + many.len() as u64).await;
}

pub(crate) async fn bounds_and_times_lead_to_offsets(bus: &Arc<RocketmqBus>) {
    let (_, queues) = topic(bus, 2).await;
    let queue = &queues[1];
    assert_eq!(bus.bounds(queue).await.unwrap(), Bounds::default());
    assert_eq!(bus.offset_at(queue, now_ms()).await.unwrap(), 0);
    bus.send(queue, vec![text("a"), text("b")]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let between = now_ms();
    tokio::time::sleep(Duration::from_millis(300)).await;
    bus.send(queue, vec![text("c")]).await.unwrap();
    let stored = read(bus, queue, 0..3).await;
    assert_eq!(bus.bounds(queue).await.unwrap(), Bounds { min: 0, max: 3 });
    for (time, expected) in [
        (0, 0),
        (between, 2),
        (stored[2].store_time_ms, 2),
        (stored[2].store_time_ms + 1, 3),
        (now_ms() + 60_000, 3),
    ] {
        assert_eq!(bus.offset_at(queue, time).await.unwrap(), expected, "{time}");
    }
    let first = bus.offset_at(queue, stored[0].store_time_ms).await.unwrap();
    assert_eq!(first, 0);
}

pub(crate) async fn the_mirrored_offset_is_the_groups_offset(bus: &Arc<RocketmqBus>) {
    let (name, queues) = topic(bus, 2).await;
    let group = format!("gantry-{name}");
    bus.send(&queues[0], (0..10).map(|at| text(at.to_string())).collect())
        .await
        .unwrap();
    assert_eq!(bus.consumer_offset(&group, &queues[0]).await.unwrap(), None);
    for offset in [3, 5, 7] {
        bus.mirror_offset(&group, &queues[0], offset)
            .await
            .unwrap_or_else(|error| panic!("{}", chain(&error)));
        assert_eq!(
            bus.consumer_offset(&group, &queues[0]).await.unwrap(),
            Some(offset)
        );
    }
    bus.mirror_offset(&group, &queues[1], 0).await.unwrap();
}

pub(crate) async fn what_a_broker_would_refuse_is_named(bus: &Arc<RocketmqBus>) {
    let (_, queues) = topic(bus, 1).await;
    let refused = async |message: OutMessage| {
        let error = bus
            .send(&queues[0], vec![text("good"), message])
            .await
            .unwrap_err();
        assert_eq!(error.kind(), BusErrorKind::MessageRejected, "{error}");
        error.to_string()
    };
    let large = OutMessage {
        body: vec![1; 4 * 1024 * 1024].into(),
        ..OutMessage::default()
    };
    assert!(refused(large).await.contains("over the limit"));
    let reserved = OutMessage {
        properties: vec![("UNIQ_KEY".into(), "x".into())],
        ..text("x")
    };
    assert!(refused(reserved).await.contains("UNIQ_KEY"));
    assert!(refused(text("")).await.contains("empty"));
    assert_eq!(bus.bounds(&queues[0]).await.unwrap().max, 0);
}

pub(crate) async fn missing_topics_queues_and_offsets_are_told_apart(bus: &Arc<RocketmqBus>) {
    let (_, queues) = topic(bus, 2).await;
    let broker = queues[0].broker.clone();
    let nowhere = Queue {
        topic: "no-such-topic".into(),
        broker: broker.clone(),
        id: 0,
    };
    let beyond = Queue {
        id: 9,
        ..queues[0].clone()
    };
    let elsewhere = Queue {
        broker: "no-such-broker".into(),
        ..queues[0].clone()
    };
    for (queue, expected) in [
        (&nowhere, BusErrorKind::TopicMissing),
        (&beyond, BusErrorKind::QueueMissing),
        (&elsewhere, BusErrorKind::QueueMissing),
    ] {
        let errors = [
            bus.send(queue, vec![text("x")]).await.unwrap_err(),
            bus.pull(pull_from(queue, 0, Duration::ZERO)).await.unwrap_err(),
            bus.bounds(queue).await.unwrap_err(),
            bus.offset_at(queue, 0).await.unwrap_err(),
        ];
        for error in errors {
            println!("{}", chain(&error));
            assert_eq!(error.kind(), expected, "{error}");
        }
    }
    let error = bus.route("no-such-topic").await.unwrap_err();
    assert_eq!(error.kind(), BusErrorKind::TopicMissing);

    bus.send(&queues[0], vec![text("a"), text("b")]).await.unwrap();
    read(bus, &queues[0], 0..2).await;
    let error = bus
        .pull(pull_from(&queues[0], 12, Duration::from_secs(1)))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), BusErrorKind::OffsetOutOfRange, "{error}");
    assert!(error.to_string().contains("0 to 2"), "{error}");
}
