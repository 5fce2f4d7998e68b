//! Hooks that fail, panic, hang, or do so when something of theirs is dropped.

use super::*;

#[tokio::test(start_paused = true)]
async fn errors_of_hooks_end_it_or_are_waited_for_by_their_domain() {
    for (hook, fault, cause) in [
        ("open", Fault::Fails(Domain::User), Cause::User),
        ("open", Fault::Fails(Domain::Environment), Cause::External),
        ("open", Fault::Panics, Cause::Task),
        ("poll", Fault::Fails(Domain::Task), Cause::Task),
        ("poll", Fault::Panics, Cause::Task),
    ] {
        let rig = Rig::new(1);
        rig.world.fault(hook, [fault]);
        let end = rig.start_source().end().await;
        assert!(
            matches!(&end.how, How::Failed(f) if f.cause == cause),
            "{hook}: {:?}",
            end.how
        );
        assert!(end.leaked.is_none());
        assert_eq!(rig.world.closed.load(Ordering::SeqCst), 1);
    }
    let rig = Rig::new(1);
    rig.world.fill(10);
    rig.world
        .fault("poll", vec![Fault::Fails(Domain::Environment); 5]);
    rig.world.fault("committed", [Fault::Panics]);
    let run = rig.start_source();
    eventually("it is committed", || rig.committed() == 10).await;
    rig.world.fill(10);
    eventually("it is committed", || rig.committed() == 20).await;
    assert!(matches!(run.drain().await, How::Drained));
}

#[tokio::test(start_paused = true)]
async fn hooks_that_wait_for_ever_are_given_up_or_dropped() {
    let rig = Rig::new(1);
    rig.world.fault("open", [Fault::Waits]);
    let end = rig.start_source().end().await;
    // It was given up, but let itself be dropped.
    assert!(end.leaked.is_none() && matches!(&end.how, How::Failed(f) if f.reason == "HOOK_TIMED_OUT"));

    let rig = Rig::new(1);
    rig.world.fault("poll", [Fault::Waits]);
    let run = rig.start_source();
    eventually("it polls", || rig.world.polled.load(Ordering::SeqCst) == 1).await;
    assert!(matches!(run.drain().await, How::Drained));

    let rig = Rig::new(1);
    rig.world.fault("close", [Fault::Waits]);
    let run = rig.start_source();
    eventually("it polls", || rig.world.polled.load(Ordering::SeqCst) > 0).await;
    run.tell(Control::Drain);
    let end = run.end().await;
    assert!(end.leaked.is_some() && matches!(end.how, How::Drained));
}

#[tokio::test]
async fn a_thread_that_blocks_harms_only_its_task() {
    let mut rig = Rig::new(1);
    rig.inline = false;
    rig.limits.hooks.close = Duration::from_millis(50);
    rig.spec.drain_timeout = Some(pbjson_types::Duration {
        seconds: 0,
        nanos: 50_000_000,
    });
    let barrier = std::sync::Arc::new(std::sync::Barrier::new(2));
    rig.world.fault("poll", [Fault::Blocks(barrier.clone())]);
    let run = rig.start_source();
    eventually("it polls", || rig.world.polled.load(Ordering::SeqCst) == 1).await;
    run.tell(Control::Drain);
    let mut end = run.end().await;
    let mut leaked = end.leaked.take().expect("the thread is stuck");
    assert_eq!(leaked.hook, Some("poll"));
    barrier.wait();
    leaked.gone.wait().await;
    assert_eq!(rig.world.closed.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_poll_that_keeps_its_thread_is_given_up_and_named() {
    let mut rig = Rig::new(1);
    rig.inline = false;
    rig.limits.stalled_after = Duration::from_millis(20);
    rig.limits.hooks.poll = Duration::from_millis(60);
    // What it was told waits behind it, and is not what takes so long.
    rig.limits.hooks.committed = Duration::from_millis(40);
    rig.world.fill(10);
    let barrier = std::sync::Arc::new(std::sync::Barrier::new(2));
    rig.world
        .fault("poll", [Fault::Works, Fault::Blocks(barrier.clone())]);
    let mut end = rig.start_source().end().await;
    assert!(
        matches!(&end.how, How::Failed(f) if f.reason == "HOOK_TIMED_OUT" && f.message.starts_with("poll did not return")),
        "{:?}",
        end.how
    );
    let mut leaked = end.leaked.take().expect("the thread is stuck");
    assert_eq!(leaked.hook, Some("poll"));
    barrier.wait();
    leaked.gone.wait().await;
}

/// Whatever a connector does when it is let go of: it has ended as told.
async fn ends_as_told(inline: bool) {
    for (hook, fault) in [
        ("close", Fault::Panics),
        ("close", Fault::Fails(Domain::Task)),
        ("drop", Fault::Panics),
    ] {
        let mut rig = Rig::new(1);
        rig.inline = inline;
        rig.world.fill(10);
        rig.world.fault(hook, [fault]);
        let run = rig.start_source();
        eventually("it is committed", || rig.committed() == 10).await;
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

#[tokio::test(start_paused = true)]
async fn a_panic_in_what_is_dropped_ends_the_run_with_its_cause() {
    let rig = Rig::new(1);
    rig.world.fill(10);
    // The second poll is dropped when the commit of what the first one returned is told.
    rig.world.fault("poll", [Fault::Works, Fault::PanicsWhenDropped]);
    let end = rig.start_source().end().await;
    assert!(
        matches!(&end.how, How::Failed(f) if f.cause == Cause::Task && f.message.contains("poll was dropped")),
        "{:?}",
        end.how
    );
    assert!(end.leaked.is_none());
    assert_eq!(rig.committed(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_hangs_while_it_is_told_is_given_up() {
    let rig = Rig::new(1);
    rig.world.fill(10);
    rig.world.fault("committed", [Fault::Waits]);
    let end = rig.start_source().end().await;
    assert!(
        matches!(&end.how, How::Failed(f) if f.reason == "HOOK_TIMED_OUT" && f.message.contains("committed")),
        "{:?}",
        end.how
    );
    assert!(end.leaked.is_some());

    // Told to end meanwhile it ends all the same, with everything committed.
    let rig = Rig::new(1);
    rig.world.fill(10);
    rig.world.fault("committed", [Fault::Waits]);
    let run = rig.start_source();
    eventually("it is told", || !rig.world.told.lock().is_empty()).await;
    run.tell(Control::Drain);
    let end = run.end().await;
    assert!(
        end.leaked.is_some() && matches!(end.how, How::Drained),
        "{:?}",
        end.how
    );
    assert_eq!(rig.committed(), 10);
}
