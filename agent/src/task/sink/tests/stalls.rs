//! Input exists and nothing moves: each cause is told within ten seconds, and nothing while there is nothing to do.

use gantry_bus::{BusErrorKind, memory::Call};

use super::*;

fn told(run: &mut crate::testing::rig::Started) -> Vec<RunEvent> {
    let told = run.seen().into_iter();
    told.filter(|e| !matches!(e, RunEvent::Opened)).collect()
}

#[tokio::test(start_paused = true)]
async fn idle_it_is_never_stalled() {
    let rig = rig(2);
    fill(&rig, 2, 0..10);
    let mut run = rig.start_sink();
    eventually("it is committed", || (0..2).all(|q| rig.offset(q) == Some(10))).await;
    sleep(Duration::from_secs(3_600)).await;
    // What comes now has not waited for an hour.
    fill(&rig, 2, 10..20);
    eventually("it is committed", || (0..2).all(|q| rig.offset(q) == Some(20))).await;
    // A bus that is away while nothing is known to wait is trouble, and no more.
    let away = rig.bus.fault(BusFault::unavailable());
    sleep(Duration::from_secs(600)).await;
    away.clear();
    sleep(Duration::from_secs(600)).await;
    let told = told(&mut run);
    assert!(
        matches!(told[..], [RunEvent::Trouble(_), RunEvent::Recovered]),
        "{told:?}"
    );
    run.drain().await;
}

#[tokio::test(start_paused = true)]
async fn the_target_refuses() {
    let rig = rig(1);
    let mut run = rig.start_sink();
    eventually("the base is stored", || rig.offset(0) == Some(0)).await;
    rig.world
        .fault("write", vec![Fault::Fails(Domain::Environment); 10_000]);
    fill(&rig, 1, 0..5);
    let failure = run.stalls("TARGET_REFUSES").await;
    assert!(
        failure.message.contains("write was told to fail"),
        "{}",
        failure.message
    );
    assert_eq!(failure.cause, Cause::External);
    // That there is more and more of it changes nothing.
    for n in 5..20 {
        fill(&rig, 1, n..n + 1);
        sleep(Duration::from_secs(1)).await;
    }
    assert!(told(&mut run).is_empty());
    rig.world.faults.lock().clear();
    run.recovers().await;
    eventually("all is committed", || rig.offset(0) == Some(20)).await;
    run.drain().await;
}

#[tokio::test(start_paused = true)]
async fn a_trickle_of_input_does_not_hide_it() {
    let rig = rig(1);
    let mut run = rig.start_sink();
    eventually("the base is stored", || rig.offset(0) == Some(0)).await;
    rig.world
        .fault("write", vec![Fault::Fails(Domain::Environment); 10_000]);
    let bus = rig.bus.clone();
    let trickle = tokio::spawn(async move {
        loop {
            let message = OutMessage {
                body: "x".into(),
                ..Default::default()
            };
            bus.append("t", 0, message);
            sleep(Duration::from_secs(1)).await;
        }
    });
    run.stalls("TARGET_REFUSES").await;
    trickle.abort();
    run.tell(Control::Drop);
    run.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_code_does_not_return() {
    for (hook, faults) in [
        ("write", vec![Fault::Waits]),
        ("flush", vec![Fault::Works, Fault::Waits]),
        ("open", vec![Fault::Waits]),
    ] {
        let rig = rig(1);
        fill(&rig, 1, 0..3);
        rig.world.fault(hook, faults);
        let mut run = rig.start_sink();
        let failure = run.stalls("CODE_DOES_NOT_RETURN").await;
        let expected = format!("{hook} has not returned");
        assert!(failure.message.contains(&expected), "{}", failure.message);
        run.tell(Control::Drop);
        run.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_bus_refuses() {
    let rig = rig(1);
    fill(&rig, 1, 0..10);
    let run = rig.start_sink();
    eventually("it is committed", || rig.offset(0) == Some(10)).await;
    // It has said that there is more, and gives no more.
    rig.bus
        .fault(BusFault::fails(Call::Pull, BusErrorKind::Unavailable));
    run.tell(Control::Drop);
    run.end().await;
    fill(&rig, 1, 10..20);
    let mut run = rig.start_sink();
    let failure = run.stalls("BUS_REFUSES").await;
    assert!(
        failure.message.contains("10 records wait") && failure.message.contains("Pull of topic t queue 0"),
        "{}",
        failure.message
    );
    rig.bus.heal();
    run.recovers().await;
    eventually("all is committed", || rig.offset(0) == Some(20)).await;
    run.drain().await;
}

#[tokio::test(start_paused = true)]
async fn dead_letters_that_the_bus_refuses() {
    let mut rig = rig(1);
    rig.policy(OnRecordError::DeadLetter);
    fill(&rig, 1, 0..10);
    *rig.world.rejects.lock() = vec!["q0-7".into()];
    let fault = rig.bus.fault(BusFault::unavailable().topic("dead"));
    let mut run = rig.start_sink();
    run.stalls("BUS_REFUSES").await;
    fault.clear();
    run.recovers().await;
    eventually("all is committed", || rig.offset(0) == Some(10)).await;
    run.drain().await;
}

#[tokio::test(start_paused = true)]
async fn positions_are_not_stored() {
    let rig = rig(1);
    let mut run = rig.start_sink();
    eventually("the base is stored", || rig.offset(0) == Some(0)).await;
    rig.store.unavailable(true);
    fill(&rig, 1, 0..10);
    let failure = run.stalls("NO_GRANT").await;
    assert_eq!(failure.cause, Cause::System);
    rig.store.unavailable(false);
    run.recovers().await;
    assert_eq!(rig.offset(0), Some(10));
    run.drain().await;
}
