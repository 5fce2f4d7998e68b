//! What tasks report beside their state: gaps, why they do not move, that their split no longer fits.

use gantry_bus::memory::Fault as BusFault;
use gantry_proto::{
    agent::v1::BrokerQueues,
    v1::{OffsetOutOfRange, problem},
};

use super::*;

#[tokio::test(start_paused = true)]
async fn what_was_jumped_over_is_reported_whatever_happens_next() {
    let h = House::new();
    for n in 0..30 {
        let message = OutMessage {
            body: n.to_string().into(),
            ..Default::default()
        };
        h.bus.append("t", 0, message);
    }
    let queue = wire::queue_fields(&h.bus.queue("t", 0));
    h.store.put(&queue, Fields::new().with("offset", 5u64));
    h.bus.trim("t", 0, 25);
    let agent = h.start().await;
    let mut sink = h.sink(1, Want::Run);
    sink.spec.get_or_insert_default().on_offset_out_of_range = OffsetOutOfRange::Earliest as i32;
    h.control.want(sink.clone());
    h.until_state(1, State::Running).await;
    let status = h.control.status(1).unwrap();
    let gap = &status.gaps[0];
    assert_eq!(
        (status.gaps.len(), gap.number, gap.amount, gap.unit.as_str()),
        (1, 1, 20, "messages")
    );
    assert_eq!(gap.problem, status.problem, "it is shown while nothing is worse");
    // It stays reported under this right, and is counted on.
    sink.want_revision = 2;
    sink.restart_nonce = "b".into();
    h.control.want(sink);
    eventually("it was restarted", || h.world.opened.load(Ordering::SeqCst) == 2).await;
    h.until_state(1, State::Running).await;
    settle().await;
    let status = h.control.status(1).unwrap();
    assert_eq!((status.gaps.len(), status.problem), (1, None));
    h.stop(agent).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_does_not_move_is_stalled_and_says_why() {
    let h = House::new();
    let agent = h.start().await;
    h.control.want(h.source(1, Want::Run));
    h.until_state(0, State::Running).await;
    let fault = h.bus.fault(BusFault::not_stored());
    h.world.fill(10);
    h.until_state(0, State::Stalled).await;
    let problem = h.control.status(0).unwrap().problem.unwrap();
    assert_eq!(
        (problem.domain(), problem.reason.as_str()),
        (problem::Domain::External, "BUS_REFUSES")
    );
    // Pausing it works as ever.
    h.control.want(h.source(2, Want::Pause));
    h.until_state(0, State::Paused).await;
    fault.clear();
    h.control.want(h.source(3, Want::Run));
    eventually("all is committed", || h.committed() == 10).await;
    h.until_state(0, State::Running).await;
    assert_eq!(h.control.status(0).unwrap().problem, None);
    h.stop(agent).await;
}

#[tokio::test(start_paused = true)]
async fn a_sink_asks_for_another_split_when_its_topic_has_more_queues() {
    let h = House::new();
    let agent = h.start().await;
    let mut sink = h.sink(1, Want::Run);
    let broker = h.bus.queue("t", 0).broker.to_string();
    sink.spec.get_or_insert_default().route = vec![BrokerQueues {
        topic: "t".into(),
        broker,
        queues: 2,
    }];
    h.control.want(sink);
    h.until_state(1, State::Running).await;
    h.bus.create("t", 4);
    let wants = || h.control.status(1).is_some_and(|s| s.replan_wanted);
    assert!(!wants());
    eventually("it says so", wants).await;
    assert_eq!(h.world.opened.load(Ordering::SeqCst), 1);
    h.stop(agent).await;
}
