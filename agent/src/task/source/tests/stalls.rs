//! Input exists and nothing moves: each cause is told within ten seconds, and nothing while there is nothing to do.

use super::*;

#[tokio::test(start_paused = true)]
async fn idle_it_is_never_stalled() {
    for fault in [None, Some(Fault::Waits)] {
        let rig = Rig::new(2);
        rig.world.fill(10);
        let mut run = rig.start_source();
        eventually("it is committed", || rig.committed() == 10).await;
        // Also a source that waits for its upstream for as long as it likes.
        rig.world.fault("poll", fault.clone());
        sleep(Duration::from_secs(300)).await;
        if fault.is_none() {
            rig.world.fill(10);
            eventually("it is committed", || rig.committed() == 20).await;
        }
        let seen = run.seen();
        assert!(matches!(seen[..], [RunEvent::Opened]), "{seen:?}");
        run.drain().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_bus_refuses() {
    let rig = Rig::new(2);
    let mut run = rig.start_source();
    eventually("it polls", || rig.world.polled.load(Ordering::SeqCst) > 0).await;
    let fault = rig.bus.fault(BusFault::not_stored());
    rig.world.fill(100);
    let failure = run.stalls("BUS_REFUSES").await;
    assert!(
        failure.message.contains("100 records wait") && failure.message.contains("Send of topic t"),
        "{}",
        failure.message
    );
    fault.clear();
    run.recovers().await;
    eventually("all is committed", || rig.committed() == 100).await;
    run.drain().await;
}

#[tokio::test(start_paused = true)]
async fn the_bus_does_not_answer() {
    let rig = Rig::new(1);
    rig.bus.fault(BusFault::ack_delay(Duration::from_secs(60)));
    rig.world.fill(10);
    let mut run = rig.start_source();
    run.stalls("BUS_REFUSES").await;
    run.recovers().await;
    eventually("all is committed", || rig.committed() == 10).await;
    run.drain().await;
}

#[tokio::test(start_paused = true)]
async fn records_wait_for_their_order() {
    let mut rig = Rig::new(2);
    rig.limits.source_memory = 20_000;
    rig.limits.send_records = 10;
    let fault = rig.bus.fault(BusFault::not_stored().queue(1));
    rig.world.fill_with(5_000, |n| Some(format!("k{n}")));
    let mut run = rig.start_source();
    let failure = run.stalls("BLOCKED_BY_ORDER").await;
    assert!(
        failure.message.contains("queue t/memory/1") && failure.message.contains("injected fault"),
        "{}",
        failure.message
    );
    fault.clear();
    run.recovers().await;
    eventually("all is committed", || rig.committed() == 5_000).await;
    run.drain().await;
}

#[tokio::test(start_paused = true)]
async fn positions_are_not_stored() {
    let rig = Rig::new(1);
    let mut run = rig.start_source();
    eventually("it polls", || rig.world.polled.load(Ordering::SeqCst) > 0).await;
    rig.store.unavailable(true);
    rig.world.fill(10);
    run.stalls("NO_GRANT").await;
    rig.store.unavailable(false);
    run.recovers().await;
    assert_eq!(rig.committed(), 10);
    run.drain().await;
}

#[tokio::test(start_paused = true)]
async fn the_code_does_not_return() {
    let rig = Rig::new(1);
    rig.world.fill(10);
    rig.world.fault("committed", [Fault::Waits]);
    let mut run = rig.start_source();
    let failure = run.stalls("CODE_DOES_NOT_RETURN").await;
    assert!(
        failure.message.contains("committed has not returned"),
        "{}",
        failure.message
    );
    run.tell(Control::Drop);
    run.end().await;
}

#[tokio::test]
async fn code_that_holds_its_thread() {
    let mut rig = Rig::new(1);
    rig.inline = false;
    rig.limits.stalled_after = Duration::from_millis(100);
    let barrier = std::sync::Arc::new(std::sync::Barrier::new(2));
    rig.world.fault(
        "poll",
        [Fault::Works, Fault::Blocks(barrier.clone()), Fault::Waits],
    );
    let mut run = rig.start_source();
    let failure = run.stalls("CODE_DOES_NOT_RETURN").await;
    assert!(
        failure.message.contains("poll has not returned"),
        "{}",
        failure.message
    );
    // It goes on, and waits as it should.
    barrier.wait();
    run.recovers().await;
    run.drain().await;
}
