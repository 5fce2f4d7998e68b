mod hooks;
mod stalls;

use std::{collections::BTreeSet, sync::atomic::Ordering, time::Duration};

use gantry_bus::BusErrorKind;
use gantry_bus::memory::{Call, Fault as BusFault};
use gantry_connector::{Domain, Fields};
use gantry_proto::v1::error_policy::OnRecordError;
use tokio::time::sleep;

use crate::{
    problem::Cause,
    task::{Control, How, RunEvent},
    testing::{
        eventually,
        plugins::Fault,
        rig::{Rig, source_partition},
        store::CommitFault,
    },
};

fn numbers(values: &[String]) -> Vec<usize> {
    values.iter().map(|v| v[1..].parse().unwrap()).collect()
}

fn assert_all(rig: &Rig, count: usize) {
    let sent: BTreeSet<_> = numbers(&rig.sent("t")).into_iter().collect();
    assert_eq!(sent, (0..count).collect());
}

#[tokio::test(start_paused = true)]
async fn everything_is_sent_once_committed_and_told() {
    let rig = Rig::new(4);
    rig.world.fill(5_000);
    let run = rig.start_source();
    eventually("all is committed", || rig.committed() == 5_000).await;
    assert!(matches!(run.drain().await, How::Drained));
    assert_eq!(rig.sent("t").len(), 5_000);
    assert_all(&rig, 5_000);
    let counts = rig.store.counts(&source_partition());
    assert_eq!((counts.r#in, counts.out), (5_000, 5_000));
    assert_eq!(rig.world.told.lock().last(), Some(&5_000));
    assert_eq!(rig.world.closed.load(Ordering::SeqCst), 1);
    let ids: BTreeSet<_> = (0..4)
        .flat_map(|q| rig.bus.messages("t", q))
        .map(|m| m.properties[0].1.clone())
        .collect();
    assert_eq!(ids.len(), 5_000);
}

#[tokio::test(start_paused = true)]
async fn one_queue_keeps_the_order_of_the_source() {
    let rig = Rig::new(1);
    rig.world.fill(3_000);
    rig.bus.fault(BusFault::ack_delay(Duration::from_millis(50)));
    let run = rig.start_source();
    eventually("all is committed", || rig.committed() == 3_000).await;
    run.drain().await;
    assert_eq!(numbers(&rig.sent("t")), (0..3_000).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_may_double_but_never_loses_and_keeps_keys_in_order() {
    let rig = Rig::new(3);
    rig.world.fill_with(4_000, |n| Some(format!("k{}", n % 7)));
    rig.bus.fault(BusFault::answer_lost().chance(0.3, 1));
    rig.bus.fault(BusFault::not_stored().chance(0.3, 2));
    let run = rig.start_source();
    eventually("all is committed", || rig.committed() == 4_000).await;
    run.drain().await;
    assert_all(&rig, 4_000);
    for queue in 0..3 {
        // Of each key: after deleting every element that is not greater than what came before, all is left in order.
        let mut highest = [None; 7];
        let mut kept = 0;
        for m in rig.bus.messages("t", queue) {
            let n: usize = String::from_utf8_lossy(&m.body)[1..].parse().unwrap();
            if highest[n % 7] < Some(n) {
                assert!(highest[n % 7].is_none_or(|h| h + 7 == n), "a gap before {n}");
                highest[n % 7] = Some(n);
                kept += 1;
            }
        }
        assert_eq!(kept % 4_000, kept);
    }
}

#[tokio::test(start_paused = true)]
async fn an_unavailable_bus_is_waited_for_and_shown() {
    let rig = Rig::new(2);
    let mut run = rig.start_source();
    eventually("it is open", || rig.world.opened.load(Ordering::SeqCst) == 1).await;
    rig.bus
        .fault(BusFault::unavailable().lasting(Duration::from_secs(600)));
    rig.world.fill(1_000);
    sleep(Duration::from_secs(60)).await;
    let seen = run.seen();
    assert!(
        matches!(&seen[1], RunEvent::Trouble(f) if f.cause == Cause::External),
        "{seen:?}"
    );
    assert!(
        matches!(&seen[2], RunEvent::Stalled(f) if f.reason == "BUS_REFUSES"),
        "{seen:?}"
    );
    assert_eq!((rig.committed(), seen.len()), (0, 3));
    eventually("all is committed", || rig.committed() == 1_000).await;
    eventually("it says so", || {
        run.seen().iter().any(|e| matches!(e, RunEvent::Recovered))
    })
    .await;
    run.drain().await;
    assert_eq!(rig.sent("t").len(), 1_000);
}

#[tokio::test(start_paused = true)]
async fn memory_is_bounded_while_nothing_can_be_sent() {
    let mut rig = Rig::new(1);
    rig.limits.source_memory = 100_000;
    rig.world.fill(50_000);
    rig.bus.fault(BusFault::not_stored());
    let run = rig.start_source();
    sleep(Duration::from_secs(10)).await;
    // 500 records of some 405 bytes a poll: it stops after the first or second.
    let polled = rig.world.polled.load(Ordering::SeqCst);
    assert!(polled <= 4, "{polled}");
    rig.bus.heal();
    eventually("all is committed", || rig.committed() == 50_000).await;
    run.drain().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_record_fails_the_task_and_what_came_before_it_is_committed() {
    let rig = Rig::new(1);
    rig.world.fill(100);
    rig.bus.fault(BusFault::reject(|m| m.body == "r60"));
    let end = rig.start_source().end().await;
    let How::Failed(failure) = end.how else {
        panic!("{:?}", end.how)
    };
    assert_eq!(
        (failure.cause, failure.reason),
        (Cause::Record, "MESSAGE_REJECTED")
    );
    assert!(failure.message.contains("record=61"), "{}", failure.message);
    assert_eq!(rig.committed(), 60);
}

#[tokio::test(start_paused = true)]
async fn a_refused_record_is_skipped_and_counted() {
    let mut rig = Rig::new(2);
    rig.policy(OnRecordError::Skip);
    rig.world.fill(1_000);
    rig.bus
        .fault(BusFault::reject(|m| m.body == "r60" || m.body == "r999"));
    let run = rig.start_source();
    eventually("all is committed", || rig.committed() == 1_000).await;
    run.drain().await;
    let counts = rig.store.counts(&source_partition());
    assert_eq!((counts.r#in, counts.out, counts.skipped), (1_000, 998, 2));
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_cannot_be_stored_stops_the_commit() {
    let mut rig = Rig::new(1);
    rig.policy(OnRecordError::DeadLetter);
    rig.spec.max_record_bytes = 4;
    rig.world.fill(2_000);
    let fault = rig.bus.fault(BusFault::unavailable().topic("dead"));
    let mut run = rig.start_source();
    eventually("dead letters are tried", || fault.hits() > 20).await;
    // r1000 is the first of more than four bytes.
    eventually("what came before is committed", || rig.committed() == 1_000).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(rig.committed(), 1_000);
    assert!(run.seen().iter().any(|e| matches!(e, RunEvent::Trouble(_))));
    fault.clear();
    eventually("all is committed", || rig.committed() == 2_000).await;
    run.drain().await;
    let counts = rig.store.counts(&source_partition());
    assert_eq!((counts.out, counts.dead_lettered), (1_000, 1_000));
    let letters = rig.bus.messages("dead", 0);
    let stage = letters[0]
        .properties
        .iter()
        .find(|(n, _)| &**n == "gantry-stage")
        .map(|(_, v)| v.clone());
    assert_eq!((letters.len(), stage.as_deref()), (1_000, Some("size")));
}

#[tokio::test(start_paused = true)]
async fn lost_commit_answers_are_recognized() {
    let rig = Rig::new(2);
    rig.store.fault([
        CommitFault::AnswerLost,
        CommitFault::Retry,
        CommitFault::AnswerLost,
        CommitFault::AnswerLost,
    ]);
    let run = rig.start_source();
    for n in 1..=8 {
        rig.world.fill(100);
        eventually("it is committed", || rig.committed() == n * 100).await;
    }
    assert!(matches!(run.drain().await, How::Drained));
    assert_eq!(rig.world.opened.load(Ordering::SeqCst), 1);
    assert_eq!(rig.sent("t").len(), 800);
}

#[tokio::test(start_paused = true)]
async fn a_stranger_at_the_positions_makes_it_start_over() {
    let rig = Rig::new(1);
    rig.world.fill(100);
    let run = rig.start_source();
    eventually("it is committed", || rig.committed() == 100).await;
    rig.store
        .put(&source_partition(), Fields::new().with("record", 40u64));
    rig.world.fill(1);
    assert!(matches!(run.end().await.how, How::Again));
    assert_eq!(rig.committed(), 40);
    let again = rig.start_source();
    eventually("it is committed", || rig.committed() == 101).await;
    again.drain().await;
    assert_eq!(rig.sent("t").len(), 101 + 61);
}

#[tokio::test(start_paused = true)]
async fn a_fenced_commit_ends_it_without_another_word() {
    let rig = Rig::new(1);
    rig.world.fill(10);
    let run = rig.start_source();
    eventually("it is committed", || rig.committed() == 10).await;
    rig.store.set_fence(2);
    rig.world.fill(10);
    assert!(matches!(run.end().await.how, How::Fenced));
    assert_eq!(
        (rig.committed(), rig.world.closed.load(Ordering::SeqCst)),
        (10, 1)
    );
    assert!(matches!(rig.start_source().end().await.how, How::Fenced));
}

#[tokio::test(start_paused = true)]
async fn draining_waits_for_what_is_in_flight_and_commits_it() {
    let rig = Rig::new(2);
    rig.world.fill(3_000);
    rig.bus.fault(BusFault::ack_delay(Duration::from_secs(2)));
    let run = rig.start_source();
    eventually("something is in flight", || !rig.sent("t").is_empty()).await;
    assert!(matches!(run.drain().await, How::Drained));
    assert_eq!(rig.committed() as usize, rig.sent("t").len());
}

#[tokio::test(start_paused = true)]
async fn past_the_drain_timeout_what_is_in_flight_is_dropped_uncommitted() {
    let rig = Rig::new(1);
    rig.world.fill(100);
    rig.bus.fault(BusFault::not_stored());
    let run = rig.start_source();
    eventually("it was polled", || rig.world.polled.load(Ordering::SeqCst) > 0).await;
    let before = tokio::time::Instant::now();
    assert!(matches!(run.drain().await, How::Drained));
    assert!(before.elapsed() >= Duration::from_secs(10));
    assert_eq!((rig.committed(), rig.sent("t").len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_last_commit_is_repeated_until_the_store_takes_it() {
    let rig = Rig::new(1);
    let run = rig.start_source();
    eventually("it is open", || rig.world.opened.load(Ordering::SeqCst) == 1).await;
    rig.store.unavailable(true);
    rig.world.fill(50);
    eventually("it is sent", || rig.sent("t").len() == 50).await;
    run.tell(Control::Drain);
    sleep(Duration::from_secs(120)).await;
    rig.store.unavailable(false);
    assert!(matches!(run.end().await.how, How::Drained));
    assert_eq!(rig.committed(), 50);
}

#[tokio::test(start_paused = true)]
async fn dropped_means_at_once_and_without_commit() {
    let rig = Rig::new(1);
    rig.world.fill(50);
    rig.store.fault([CommitFault::Late(Duration::from_secs(1_000))]);
    let run = rig.start_source();
    eventually("it is sent", || rig.sent("t").len() == 50).await;
    run.tell(Control::Drop);
    assert!(matches!(run.end().await.how, How::Dropped));
    assert_eq!((rig.committed(), rig.world.closed.load(Ordering::SeqCst)), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_polled_after_the_lease_has_run_out() {
    let rig = Rig::new(1);
    rig.lease.set_length(Duration::from_secs(9));
    let run = rig.start_source();
    eventually("it is open", || rig.world.opened.load(Ordering::SeqCst) == 1).await;
    // A freeze: the clock jumps past the lease while nothing runs.
    tokio::time::advance(Duration::from_secs(20)).await;
    let polled = rig.world.polled.load(Ordering::SeqCst);
    assert!(matches!(run.end().await.how, How::Dropped));
    let after = rig.world.polled.load(Ordering::SeqCst);
    assert!(after <= polled + 1, "{polled} {after}");
}

#[tokio::test(start_paused = true)]
async fn a_missing_topic_is_waited_for_or_created_and_new_queues_start_it_anew() {
    let mut rig = Rig::new(1);
    rig.spec.topic = "later".into();
    let mut run = rig.start_source();
    eventually("it is shown", || {
        run.seen()
            .iter()
            .any(|e| matches!(e, RunEvent::Trouble(f) if f.reason == "TOPIC_MISSING"))
    })
    .await;
    rig.bus.create("later", 1);
    eventually("it is open", || rig.world.opened.load(Ordering::SeqCst) == 1).await;
    rig.bus.create("later", 3);
    rig.world.fill(10);
    assert!(matches!(run.end().await.how, How::Again));
    assert_eq!(rig.committed(), 10);

    let mut rig = Rig::new(1);
    (rig.spec.topic, rig.spec.create_queues) = ("new".into(), 2);
    let run = rig.start_source();
    eventually("it is open", || rig.world.opened.load(Ordering::SeqCst) == 1).await;
    assert!(matches!(run.drain().await, How::Drained));
}

#[tokio::test(start_paused = true)]
async fn refused_credentials_fail_it() {
    let rig = Rig::new(1);
    rig.world.fill(1);
    rig.bus.fault(BusFault::fails(Call::Send, BusErrorKind::Denied));
    let end = rig.start_source().end().await;
    assert!(
        matches!(&end.how, How::Failed(f) if f.cause == Cause::User),
        "{:?}",
        end.how
    );
}

#[tokio::test(start_paused = true)]
async fn a_wish_for_another_split_counts_for_as_long_as_it_is_repeated() {
    let rig = Rig::new(1);
    let mut run = rig.start_source();
    let wishes = |seen: Vec<RunEvent>| {
        let wishes = seen.into_iter().filter_map(|e| match e {
            RunEvent::ReplanWanted(wanted) => Some(wanted),
            _ => None,
        });
        wishes.collect::<Vec<_>>()
    };
    rig.world.replan.store(true, Ordering::SeqCst);
    sleep(Duration::from_secs(600)).await;
    assert_eq!(wishes(run.seen()), [true]);
    rig.world.replan.store(false, Ordering::SeqCst);
    sleep(Duration::from_secs(600)).await;
    assert_eq!(wishes(run.seen()), [false]);
    run.drain().await;
}

#[tokio::test(start_paused = true)]
async fn queues_that_are_gone_for_good_are_left() {
    let rig = Rig::new(4);
    rig.world.fill(100);
    let run = rig.start_source();
    eventually("it is committed", || rig.committed() == 100).await;
    rig.bus.delete("t");
    rig.bus.create("t", 3);
    // Keys, so that some are for the queue that is gone.
    rig.world.fill_with(1_000, |n| Some(format!("k{n}")));
    assert!(matches!(run.end().await.how, How::Again));
    let run = rig.start_source();
    eventually("the rest goes to the queues that are left", || {
        rig.committed() == 1_100
    })
    .await;
    run.drain().await;
    let sent: BTreeSet<_> = numbers(&rig.sent("t")).into_iter().collect();
    assert!((100..1_100).all(|n| sent.contains(&n)));
}
