use std::time::Duration;

use tokio::time::Instant;

use super::{Call, Fault, MemoryBus, MemoryBusFactory};
use crate::{Bounds, Bus, BusErrorKind, BusFactory, Endpoint, OutMessage, PullRequest};

fn message(body: &str) -> OutMessage {
    OutMessage {
        body: body.to_owned().into(),
        ..OutMessage::default()
    }
}

fn bodies(bus: &MemoryBus, queue: u32) -> Vec<String> {
    bus.messages("t", queue)
        .iter()
        .map(|m| String::from_utf8_lossy(&m.body).into_owned())
        .collect()
}

fn bus() -> MemoryBus {
    let bus = MemoryBus::starting_at(1_000_000);
    bus.create("t", 2);
    bus
}

fn pull(bus: &MemoryBus, offset: u64, wait: Duration) -> PullRequest {
    PullRequest {
        queue: bus.queue("t", 0),
        offset,
        max_messages: 2,
        wait,
    }
}

#[tokio::test(start_paused = true)]
async fn batches_get_offsets_without_a_gap_and_are_read_from_any_of_them() {
    let bus = bus();
    let queue = bus.route("t").await.unwrap()[0].clone();
    assert_eq!(
        bus.send(&queue, vec![message("a"), message("b")]).await.unwrap(),
        0
    );
    tokio::time::advance(Duration::from_millis(5)).await;
    assert_eq!(bus.send(&queue, vec![message("c")]).await.unwrap(), 2);
    let pulled = bus.pull(pull(&bus, 1, Duration::ZERO)).await.unwrap();
    assert_eq!(
        pulled.messages.iter().map(|m| m.offset).collect::<Vec<_>>(),
        [1, 2]
    );
    assert_eq!(
        (pulled.next_offset, pulled.bounds),
        (3, Bounds { min: 0, max: 3 })
    );
    assert_eq!(bus.offset_at(&queue, 1_000_001).await.unwrap(), 2);
    assert_eq!(bus.offset_at(&queue, 1_000_006).await.unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_ends_with_a_message_or_with_its_time() {
    let bus = bus();
    let start = Instant::now();
    let empty = bus.pull(pull(&bus, 0, Duration::from_secs(10))).await.unwrap();
    assert_eq!(
        (empty.messages.len(), empty.next_offset, start.elapsed()),
        (0, 0, Duration::from_secs(10))
    );

    let waiting = tokio::spawn({
        let bus = bus.clone();
        async move { bus.pull(pull(&bus, 0, Duration::from_secs(10))).await }
    });
    tokio::time::sleep(Duration::from_secs(3)).await;
    bus.append("t", 0, message("a"));
    assert_eq!(waiting.await.unwrap().unwrap().messages.len(), 1);
    assert_eq!(start.elapsed(), Duration::from_secs(13));
}

#[tokio::test(start_paused = true)]
async fn offsets_outside_of_the_bounds_and_missing_things_are_told_apart() {
    let bus = bus();
    bus.append("t", 0, message("a"));
    bus.append("t", 0, message("b"));
    bus.trim("t", 0, 1);
    let kind = |e: crate::BusError| e.kind();
    assert_eq!(
        bus.pull(pull(&bus, 0, Duration::ZERO))
            .await
            .map_err(kind)
            .unwrap_err(),
        BusErrorKind::OffsetOutOfRange
    );
    assert_eq!(
        bus.pull(pull(&bus, 3, Duration::ZERO))
            .await
            .map_err(kind)
            .unwrap_err(),
        BusErrorKind::OffsetOutOfRange
    );
    assert_eq!(
        bus.bounds(&bus.queue("t", 9)).await.map_err(kind).unwrap_err(),
        BusErrorKind::QueueMissing
    );
    assert_eq!(
        bus.route("u").await.map_err(kind).unwrap_err(),
        BusErrorKind::TopicMissing
    );
    assert_eq!(
        bus.create_topic("a b", 1).await.map_err(kind).unwrap_err(),
        BusErrorKind::Denied
    );
    bus.create_topic("t", 7).await.unwrap();
    assert_eq!(bus.route("t").await.unwrap().len(), 2);
    bus.create_topic("u", 3).await.unwrap();
    assert_eq!(bus.route("u").await.unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn unavailability_hits_every_call_and_wakes_long_polls_until_it_is_over() {
    let bus = bus();
    let waiting = tokio::spawn({
        let bus = bus.clone();
        async move { bus.pull(pull(&bus, 0, Duration::from_secs(100))).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let fault = bus.fault(Fault::unavailable().lasting(Duration::from_secs(5)));
    assert_eq!(
        waiting.await.unwrap().unwrap_err().kind(),
        BusErrorKind::Unavailable
    );
    assert_eq!(
        bus.route("t").await.unwrap_err().kind(),
        BusErrorKind::Unavailable
    );
    tokio::time::sleep(Duration::from_secs(5)).await;
    bus.route("t").await.unwrap();
    assert_eq!(fault.hits(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failed_send_may_have_stored_or_not_as_told() {
    let bus = bus();
    let queue = bus.queue("t", 0);
    bus.fault(Fault::not_stored().after(1).times(1));
    bus.fault(Fault::answer_lost().after(2).times(1));
    bus.send(&queue, vec![message("1")]).await.unwrap();
    assert_eq!(
        bus.send(&queue, vec![message("2")]).await.unwrap_err().kind(),
        BusErrorKind::Unavailable
    );
    assert_eq!(bodies(&bus, 0), ["1"]);
    bus.send(&queue, vec![message("3")]).await.unwrap();
    assert_eq!(
        bus.send(&queue, vec![message("4")]).await.unwrap_err().kind(),
        BusErrorKind::Unavailable
    );
    assert_eq!(bodies(&bus, 0), ["1", "3", "4"]);
}

#[tokio::test(start_paused = true)]
async fn faults_are_narrowed_to_topic_queue_and_message() {
    let bus = bus();
    bus.create("u", 1);
    let delay = bus.fault(Fault::ack_delay(Duration::from_secs(2)).topic("t").queue(1));
    let reject = bus.fault(Fault::reject(|m| m.body == "bad"));
    let start = Instant::now();
    bus.send(&bus.queue("u", 0), vec![message("a")]).await.unwrap();
    bus.send(&bus.queue("t", 0), vec![message("a")]).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
    bus.send(&bus.queue("t", 1), vec![message("a")]).await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(2));
    let refused = bus
        .send(&bus.queue("t", 0), vec![message("b"), message("bad")])
        .await
        .unwrap_err();
    assert_eq!(
        (refused.kind(), bodies(&bus, 0).len()),
        (BusErrorKind::MessageRejected, 1)
    );
    assert_eq!((delay.hits(), reject.hits()), (1, 1));
    bus.heal();
    bus.send(&bus.queue("t", 0), vec![message("bad")]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn chance_is_the_same_for_the_same_seed() {
    async fn run(seed: u64) -> Vec<bool> {
        let bus = bus();
        bus.fault(Fault::not_stored().chance(0.3, seed));
        let mut failed = Vec::new();
        for _ in 0..200 {
            failed.push(bus.send(&bus.queue("t", 0), vec![message("x")]).await.is_err());
        }
        failed
    }
    let first = run(7).await;
    assert_eq!(first, run(7).await);
    assert_ne!(first, run(8).await);
    let count = first.iter().filter(|f| **f).count();
    assert!((40..80).contains(&count), "{count}");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_send_may_have_been_stored() {
    let bus = bus();
    bus.fault(Fault::ack_delay(Duration::from_secs(60)));
    let queue = bus.queue("t", 0);
    let send = bus.send(&queue, vec![message("a")]);
    assert!(tokio::time::timeout(Duration::from_secs(1), send).await.is_err());
    assert_eq!(bodies(&bus, 0), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_topic_ends_long_polls_and_loses_its_mirrored_offsets() {
    let bus = bus();
    let queue = bus.queue("t", 0);
    bus.mirror_offset("g", &queue, 5).await.unwrap();
    assert_eq!(bus.mirrored("g", "t", 0), Some(5));
    let waiting = tokio::spawn({
        let bus = bus.clone();
        async move { bus.pull(pull(&bus, 0, Duration::from_secs(100))).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    bus.delete("t");
    assert_eq!(
        waiting.await.unwrap().unwrap_err().kind(),
        BusErrorKind::TopicMissing
    );
    assert_eq!(bus.mirrored("g", "t", 0), None);
}

#[tokio::test(start_paused = true)]
async fn named_calls_fail_as_told() {
    let bus = bus();
    bus.fault(Fault::fails(Call::Pull, BusErrorKind::Denied));
    assert_eq!(
        bus.pull(pull(&bus, 0, Duration::ZERO)).await.unwrap_err().kind(),
        BusErrorKind::Denied
    );
    bus.bounds(&bus.queue("t", 0)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_factory_gives_the_same_bus_for_the_same_endpoint() {
    let factory = MemoryBusFactory::new();
    let (a, b) = (
        Endpoint {
            namesrv: "a:1".into(),
        },
        Endpoint {
            namesrv: "b:1".into(),
        },
    );
    factory.bus(&a).create_topic("t", 1).await.unwrap();
    factory.memory(&a).route("t").await.unwrap();
    assert!(factory.memory(&b).route("t").await.is_err());
    let one = MemoryBusFactory::of(bus());
    one.bus(&a).route("t").await.unwrap();
    one.bus(&b).route("t").await.unwrap();
}
