//! Queues that come, go, or are away.

use gantry_bus::{BusErrorKind, memory::Call};

use super::*;

#[tokio::test(start_paused = true)]
async fn more_queues_ask_for_another_split_and_nothing_ends() {
    let rig = rig(2);
    fill(&rig, 2, 0..10);
    let mut run = rig.start_sink();
    eventually("it is committed", || (0..2).all(|q| rig.offset(q) == Some(10))).await;
    sleep(Duration::from_secs(60)).await;
    let wanted = |seen: Vec<RunEvent>| {
        let wanted = seen.iter().filter_map(|e| match e {
            RunEvent::ReplanWanted(wanted) => Some(*wanted),
            _ => None,
        });
        wanted.collect::<Vec<_>>()
    };
    assert!(wanted(run.seen()).is_empty());
    rig.bus.create("t", 4);
    sleep(Duration::from_secs(100)).await;
    assert_eq!(wanted(run.seen()), [true], "it is said once");
    fill(&rig, 2, 10..20);
    eventually("it goes on", || (0..2).all(|q| rig.offset(q) == Some(20))).await;
    assert!(matches!(run.drain().await, How::Drained));

    // What changed while nobody ran is seen at the start.
    let mut run = rig.start_sink();
    eventually("it is seen", || wanted(run.seen()) == [true]).await;
    run.drain().await;
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_gone_from_its_broker_asks_for_another_split() {
    let rig = rig(2);
    let mut run = rig.start_sink();
    eventually("it is open", || rig.world.opened.load(Ordering::SeqCst) == 1).await;
    let gone = rig
        .bus
        .fault(BusFault::fails(Call::Pull, BusErrorKind::QueueMissing).queue(1));
    sleep(Duration::from_secs(100)).await;
    let wants = |e: &RunEvent| matches!(e, RunEvent::ReplanWanted(_));
    assert!(!run.seen().iter().any(wants), "the route has it");
    gone.clear();
    rig.bus.delete("t");
    rig.bus.create("t", 1);
    eventually("it says so", || {
        run.seen()
            .iter()
            .any(|e| matches!(e, RunEvent::ReplanWanted(true)))
    })
    .await;
    run.tell(Control::Drop);
    run.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_away_at_the_start_holds_up_no_other() {
    let rig = rig(3);
    fill(&rig, 3, 0..10);
    let away = rig.bus.fault(BusFault::unavailable().queue(1));
    let mut run = rig.start_sink();
    eventually("the others are read", || {
        rig.offset(0) == Some(10) && rig.offset(2) == Some(10)
    })
    .await;
    eventually("it is shown", || {
        run.seen()
            .iter()
            .any(|e| matches!(e, RunEvent::Trouble(f) if f.message.contains("t/memory/1 is not read")))
    })
    .await;
    assert_eq!(rig.offset(1), None);
    away.clear();
    assert!(matches!(run.end().await.how, How::Again));
    let run = rig.start_sink();
    eventually("all is read", || (0..3).all(|q| rig.offset(q) == Some(10))).await;
    run.drain().await;
    let durable = rig.world.durable.lock();
    assert!(durable.values().all(|v| v.len() == 1));
}
