mod routes;
mod stalls;

use std::{sync::atomic::Ordering, time::Duration};

use gantry_bus::{OutMessage, memory::Fault as BusFault};
use gantry_connector::{Domain, Fields};
use gantry_proto::v1::{OffsetOutOfRange, RecordCounts, StartFrom, error_policy::OnRecordError, start_from};
use tokio::time::sleep;

use crate::{
    problem::Cause,
    task::{Control, How, RunEvent},
    testing::{eventually, plugins::Fault, rig::Rig, store::CommitFault},
    wire,
};

fn rig(queues: u32) -> Rig {
    Rig::new(queues).sink(queues)
}

/// Puts so many messages into each queue.
fn fill(rig: &Rig, queues: u32, range: std::ops::Range<u64>) {
    for queue in 0..queues {
        for n in range.clone() {
            rig.bus.append(
                "t",
                queue,
                OutMessage {
                    body: format!("q{queue}-{n}").into(),
                    ..Default::default()
                },
            );
        }
    }
}

fn counts(rig: &Rig, queue: u32) -> RecordCounts {
    rig.store.counts(&wire::queue_fields(&rig.bus.queue("t", queue)))
}

fn exactly_once(rig: &Rig, count: usize) {
    let durable = rig.world.durable.lock();
    assert_eq!(durable.len(), count);
    assert!(
        durable.values().all(|v| v.len() == 1),
        "something was written twice"
    );
}

#[tokio::test(start_paused = true)]
async fn everything_is_written_once_committed_and_mirrored() {
    let rig = rig(3);
    fill(&rig, 3, 0..2_000);
    let run = rig.start_sink();
    eventually("all is committed", || {
        (0..3).all(|q| rig.offset(q) == Some(2_000))
    })
    .await;
    eventually("it is mirrored", || rig.bus.mirrored("g", "t", 2) == Some(2_000)).await;
    assert!(matches!(run.drain().await, How::Drained));
    exactly_once(&rig, 6_000);
    assert_eq!((counts(&rig, 1).r#in, counts(&rig, 1).out), (2_000, 2_000));
    assert_eq!(rig.world.closed.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn the_base_state_is_stored_before_the_first_write() {
    let rig = rig(1);
    fill(&rig, 1, 0..10);
    rig.store.fault(vec![CommitFault::Retry; 50]);
    let run = rig.start_sink();
    sleep(Duration::from_millis(500)).await;
    // Flushed once for the base; nothing may be written before that is stored.
    assert_eq!(
        (
            rig.world.flushed.load(Ordering::SeqCst),
            rig.world.durable.lock().len()
        ),
        (1, 0)
    );
    eventually("all is committed", || rig.offset(0) == Some(10)).await;
    run.drain().await;
    assert_eq!(rig.store.commits(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_point_writes_each_record_once() {
    let rig = rig(2);
    fill(&rig, 2, 0..3_000);
    let mut stage = 0;
    while (0..2).any(|q| rig.offset(q) != Some(3_000)) {
        let run = rig.start_sink();
        stage += 1;
        // Dropped at another point each time: nothing is flushed or committed after that.
        sleep(Duration::from_millis(stage * 37 % 2_500)).await;
        run.tell(Control::Drop);
        assert!(matches!(run.end().await.how, How::Dropped));
        assert!(stage < 500);
    }
    rig.start_sink().drain().await;
    exactly_once(&rig, 6_000);
    assert_eq!((counts(&rig, 0).r#in, counts(&rig, 0).out), (3_000, 3_000));
}

#[tokio::test(start_paused = true)]
async fn draining_flushes_and_commits_what_was_written() {
    let mut rig = rig(1);
    rig.limits.flush_interval = Duration::from_secs(1_000);
    fill(&rig, 1, 0..100);
    let run = rig.start_sink();
    eventually("the base is stored", || rig.offset(0) == Some(0)).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(rig.world.durable.lock().len(), 0);
    assert!(matches!(run.drain().await, How::Drained));
    assert_eq!((rig.offset(0), rig.world.durable.lock().len()), (Some(100), 100));
}

#[tokio::test(start_paused = true)]
async fn an_unavailable_destination_gets_the_same_batch_again() {
    let rig = rig(2);
    fill(&rig, 2, 0..50);
    rig.world
        .fault("write", vec![Fault::Fails(Domain::Environment); 12]);
    rig.world.fault(
        "flush",
        [
            Fault::Works,
            Fault::Fails(Domain::Environment),
            Fault::Fails(Domain::Environment),
        ],
    );
    let mut run = rig.start_sink();
    eventually("all is committed", || (0..2).all(|q| rig.offset(q) == Some(50))).await;
    let seen = run.seen();
    assert!(seen.iter().any(|e| matches!(e, RunEvent::Trouble(_))), "{seen:?}");
    assert!(seen.iter().any(|e| matches!(e, RunEvent::Recovered)), "{seen:?}");
    run.drain().await;
    exactly_once(&rig, 100);
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_is_away_is_waited_for() {
    let rig = rig(2);
    fill(&rig, 2, 0..10);
    let run = rig.start_sink();
    eventually("it is committed", || rig.offset(1) == Some(10)).await;
    let fault = rig.bus.fault(BusFault::unavailable());
    fill(&rig, 2, 10..20);
    sleep(Duration::from_secs(100)).await;
    assert!(fault.hits() < 400, "{} tries", fault.hits());
    fault.clear();
    eventually("all is committed", || (0..2).all(|q| rig.offset(q) == Some(20))).await;
    run.drain().await;
    exactly_once(&rig, 40);
}

#[tokio::test(start_paused = true)]
async fn rejected_records_follow_the_error_policy() {
    for policy in [OnRecordError::Skip, OnRecordError::DeadLetter] {
        let mut rig = rig(1);
        rig.policy(policy);
        fill(&rig, 1, 0..100);
        *rig.world.rejects.lock() = vec!["q0-7".into(), "q0-50".into()];
        let run = rig.start_sink();
        eventually("all is committed", || rig.offset(0) == Some(100)).await;
        run.drain().await;
        let dead = policy == OnRecordError::DeadLetter;
        let expect = RecordCounts {
            r#in: 100,
            out: 98,
            skipped: if dead { 0 } else { 2 },
            dead_lettered: if dead { 2 } else { 0 },
            filtered: 0,
        };
        assert_eq!(counts(&rig, 0), expect);
        assert_eq!(rig.bus.messages("dead", 0).len(), if dead { 2 } else { 0 });
        exactly_once(&rig, 98);
    }
    let rig = rig(1);
    fill(&rig, 1, 0..100);
    *rig.world.rejects.lock() = vec!["q0-7".into()];
    let end = rig.start_sink().end().await;
    let How::Failed(failure) = end.how else {
        panic!("{:?}", end.how)
    };
    assert_eq!(failure.cause, Cause::Record);
    assert!(
        failure.message.contains("offset 7 of queue t/memory/0"),
        "{}",
        failure.message
    );
    assert_eq!((rig.offset(0), rig.world.durable.lock().len()), (Some(0), 0));
}

#[tokio::test(start_paused = true)]
async fn the_start_is_resolved_once_and_committed_before_the_first_read() {
    let mut rig = rig(1);
    fill(&rig, 1, 0..30);
    let latest = start_from::Where::Position(start_from::Position::Latest as i32);
    rig.spec.start_from = Some(StartFrom {
        r#where: Some(latest),
    });
    let run = rig.start_sink();
    eventually("the start is stored", || rig.offset(0) == Some(30)).await;
    run.tell(Control::Drop);
    run.end().await;
    fill(&rig, 1, 30..40);
    let run = rig.start_sink();
    eventually("it is committed", || rig.offset(0) == Some(40)).await;
    run.drain().await;
    exactly_once(&rig, 10);
}

#[tokio::test(start_paused = true)]
async fn an_offset_below_the_queue_fails_or_jumps_and_is_counted() {
    let mut rig = rig(1);
    fill(&rig, 1, 0..100);
    let queue = wire::queue_fields(&rig.bus.queue("t", 0));
    rig.store.put(&queue, Fields::new().with("offset", 5u64));
    rig.bus.trim("t", 0, 25);
    let end = rig.start_sink().end().await;
    assert!(
        matches!(&end.how, How::Failed(f) if f.reason == "OFFSET_OUT_OF_RANGE" && f.message.contains("20 messages"))
    );
    rig.spec.on_offset_out_of_range = OffsetOutOfRange::Earliest as i32;
    let mut run = rig.start_sink();
    eventually("it is committed", || rig.offset(0) == Some(100)).await;
    assert!(run.seen().iter().any(
        |e| matches!(e, RunEvent::Gap(gap) if gap.amount == 20 && gap.why.message.starts_with("20 messages"))
    ));
    run.drain().await;
    assert_eq!((counts(&rig, 0).skipped, counts(&rig, 0).out), (20, 75));
}

#[tokio::test(start_paused = true)]
async fn commits_that_conflict_are_taken_over_or_start_it_over() {
    let rig = rig(1);
    rig.store
        .fault([CommitFault::AnswerLost, CommitFault::AnswerLost]);
    fill(&rig, 1, 0..10);
    let run = rig.start_sink();
    eventually("it is committed", || rig.offset(0) == Some(10)).await;
    sleep(Duration::from_secs(2)).await;
    let queue = wire::queue_fields(&rig.bus.queue("t", 0));
    rig.store.put(&queue, Fields::new().with("offset", 3u64));
    fill(&rig, 1, 10..11);
    assert!(matches!(run.end().await.how, How::Again));
    assert_eq!(rig.offset(0), Some(3));
}

#[tokio::test(start_paused = true)]
async fn fenced_it_writes_no_more() {
    let rig = rig(1);
    fill(&rig, 1, 0..10);
    let run = rig.start_sink();
    eventually("it is committed", || rig.offset(0) == Some(10)).await;
    rig.store.set_fence(2);
    fill(&rig, 1, 10..11);
    assert!(matches!(run.end().await.how, How::Fenced));
    assert_eq!(rig.offset(0), Some(10));
}

#[tokio::test(start_paused = true)]
async fn panics_and_hangs_of_each_hook_end_the_run() {
    for hook in ["open", "write", "flush"] {
        let rig = rig(1);
        fill(&rig, 1, 0..10);
        rig.world.fault(hook, [Fault::Panics]);
        let end = rig.start_sink().end().await;
        assert!(
            matches!(&end.how, How::Failed(f) if f.cause == Cause::Task && f.message.contains("panicked")),
            "{hook}"
        );
        assert!(end.leaked.is_none());

        let rig = self::rig(1);
        fill(&rig, 1, 0..10);
        rig.world.fault(hook, [Fault::Waits]);
        let end = rig.start_sink().end().await;
        assert!(
            matches!(&end.how, How::Failed(f) if f.reason == "HOOK_TIMED_OUT"),
            "{hook}: {:?}",
            end.how
        );
        // A call that is taken cannot be dropped.
        assert_eq!(end.leaked.is_some(), hook != "open", "{hook}");
    }
}

#[tokio::test]
async fn hooks_that_only_wait_are_dropped_when_their_time_is_over() {
    for hook in ["write", "flush", "close"] {
        let mut rig = rig(1);
        rig.inline = false;
        rig.limits.hooks.write = Duration::from_millis(50);
        rig.limits.hooks.close = Duration::from_millis(50);
        fill(&rig, 1, 0..10);
        rig.world.fault(hook, [Fault::Waits]);
        let run = rig.start_sink();
        let end = if hook == "close" {
            eventually("it is committed", || rig.offset(0) == Some(10)).await;
            run.tell(Control::Drain);
            run.end().await
        } else {
            run.end().await
        };
        let as_told = match &end.how {
            How::Drained => hook == "close",
            How::Failed(f) => f.reason == "HOOK_TIMED_OUT" && f.message.starts_with(hook),
            _ => false,
        };
        assert!(as_told, "{hook}: {:?}", end.how);
        assert!(end.leaked.is_none(), "{hook}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_after_the_lease_has_run_out() {
    let rig = rig(1);
    rig.lease.set_length(Duration::from_secs(9));
    let run = rig.start_sink();
    eventually("the base is stored", || rig.offset(0) == Some(0)).await;
    tokio::time::advance(Duration::from_secs(20)).await;
    fill(&rig, 1, 0..10);
    assert!(matches!(run.end().await.how, How::Dropped));
    assert_eq!(rig.world.durable.lock().len(), 0);
}

/// Whatever a connector does when it is let go of: it has ended as told.
async fn ends_as_told(inline: bool) {
    for (hook, fault) in [
        ("close", Fault::Panics),
        ("close", Fault::Fails(Domain::Task)),
        ("drop", Fault::Panics),
    ] {
        let mut rig = rig(1);
        rig.inline = inline;
        fill(&rig, 1, 0..10);
        rig.world.fault(hook, [fault]);
        let run = rig.start_sink();
        eventually("it is committed", || rig.offset(0) == Some(10)).await;
        run.tell(Control::Drain);
        let end = run.end().await;
        assert!(matches!(end.how, How::Drained), "{hook}: {:?}", end.how);
        assert!(end.leaked.is_none(), "{hook}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_connector_does_at_its_end_changes_nothing() {
    ends_as_told(true).await;
}

#[tokio::test]
async fn what_a_connector_does_at_the_end_of_its_thread_changes_nothing() {
    ends_as_told(false).await;
}
