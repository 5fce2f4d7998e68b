//! What happens to tasks when the link is gone, and when they do not end.

use gantry_proto::agent::v1::Assignment;

use super::*;
use crate::Clock;

#[tokio::test(start_paused = true)]
async fn a_broken_session_restarts_nothing() {
    let h = House::new();
    let agent = h.start().await;
    h.control.want(h.source(1, Want::Run));
    h.until_state(0, State::Running).await;
    for n in 2..6 {
        h.control.say(Out::Reconnect(Reconnect {
            reason: "test".into(),
        }));
        eventually("another session", || h.control.seen.lock().inventories.len() == n).await;
        h.world.fill(100);
        eventually("it goes on", || h.committed() == (n as u64 - 1) * 100).await;
    }
    {
        let seen = h.control.seen.lock();
        let inventory = seen.inventories.last().unwrap();
        assert_eq!(
            (
                inventory.len(),
                inventory[0].fence,
                inventory[0].spec_hash.as_str()
            ),
            (1, 1, "h")
        );
        assert_eq!(
            seen.hellos.iter().map(|x| x.dial_counter).collect::<Vec<_>>(),
            [1, 2, 3, 4, 5]
        );
        assert!(seen.hellos[4].store_id == "store-1" && seen.hellos[4].revision > 100);
    }
    assert_eq!(h.world.opened.load(Ordering::SeqCst), 1);
    h.stop(agent).await;
}

#[tokio::test(start_paused = true)]
async fn cut_off_it_ends_its_tasks_at_two_thirds_of_the_lease_and_starts_none() {
    let h = House::new();
    let agent = h.start().await;
    h.control.want(h.source(1, Want::Run));
    h.until_state(0, State::Running).await;
    h.control.answers.store(false, Ordering::SeqCst);
    h.control.accepts.store(false, Ordering::SeqCst);
    let cut = tokio::time::Instant::now();
    eventually("it was closed", || h.world.closed.load(Ordering::SeqCst) == 1).await;
    // The last answered heartbeat may have been sent up to one interval before.
    assert!(
        (Duration::from_secs(3)..Duration::from_millis(6_300)).contains(&cut.elapsed()),
        "{:?}",
        cut.elapsed()
    );
    assert!(h.control.dials.load(Ordering::SeqCst) >= 3);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(h.world.opened.load(Ordering::SeqCst), 1);
    assert!(h.aborts.lock().is_empty());

    // Back again, but without the full set: nothing starts.
    h.control.assigns.store(false, Ordering::SeqCst);
    h.control.answers.store(true, Ordering::SeqCst);
    h.control.accepts.store(true, Ordering::SeqCst);
    let sessions = h.control.seen.lock().hellos.len();
    eventually("another session", || {
        h.control.seen.lock().hellos.len() > sessions
    })
    .await;
    sleep(Duration::from_secs(30)).await;
    assert_eq!(h.world.opened.load(Ordering::SeqCst), 1);
    h.control.want(h.source(1, Want::Run));
    eventually("it runs again", || h.world.opened.load(Ordering::SeqCst) == 2).await;
    h.stop(agent).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_outlives_the_lease_takes_the_process_with_it() {
    let h = House::new();
    h.world.fault("close", [Fault::Waits]);
    let agent = h.start().await;
    h.control.want(h.source(1, Want::Run));
    h.until_state(0, State::Running).await;
    h.control.answers.store(false, Ordering::SeqCst);
    eventually("it aborts", || !h.aborts.lock().is_empty()).await;
    assert!(h.aborts.lock()[0].contains("u-in/0"), "{:?}", h.aborts.lock());
    agent.abort();
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_hangs_takes_the_process_with_it_after_its_timeout() {
    let h = House::new();
    h.world.fault("close", [Fault::Waits]);
    let agent = h.start().await;
    h.control.want(h.source(1, Want::Run));
    h.until_state(0, State::Running).await;
    h.control.want(h.source(2, Want::Stop));
    sleep(Duration::from_secs(25)).await;
    assert!(h.aborts.lock().is_empty() && h.in_state(0, State::Stopping));
    eventually("it aborts", || !h.aborts.lock().is_empty()).await;
    assert!(
        h.aborts.lock()[0].contains("stop_timeout"),
        "{:?}",
        h.aborts.lock()
    );
    agent.abort();
}

#[tokio::test(start_paused = true)]
async fn what_takes_long_to_open_keeps_nothing_else_from_starting() {
    let h = House::new();
    h.world.fault("open", [Fault::Waits]);
    let mut config = h.config();
    config.limits.parallel_starts = 1;
    let agent = tokio::spawn(Agent::build(config).await.unwrap().run(h.shutdown.clone()));
    h.control.want(h.source(1, Want::Run));
    h.until_state(0, State::Starting).await;
    let since = tokio::time::Instant::now();
    h.control.want(h.sink(1, Want::Run));
    h.until_state(1, State::Running).await;
    assert!(since.elapsed() < Duration::from_secs(60) && h.in_state(0, State::Starting));
    h.stop(agent).await;
}

#[tokio::test(start_paused = true)]
async fn after_eight_threads_that_hang_the_process_ends() {
    let h = House::new();
    h.world.fault("open", vec![Fault::Fails(Domain::Task); 8]);
    h.world.fault("close", vec![Fault::Waits; 8]);
    let agent = h.start().await;
    for n in 0..8 {
        let mut task = h.source(1, Want::Run);
        task.task = n;
        h.control.want(task);
    }
    eventually("it aborts", || !h.aborts.lock().is_empty()).await;
    let hung = h.control.status(3).unwrap();
    assert_eq!(hung.state(), State::Pending);
    agent.abort();
}

#[tokio::test(start_paused = true)]
async fn a_freeze_longer_than_the_lease_ends_the_tasks_and_they_start_anew() {
    let h = House::new();
    h.world.fill(100);
    let agent = h.start().await;
    h.control.want(h.source(1, Want::Run));
    eventually("all is committed", || h.committed() == 100).await;
    tokio::time::advance(Duration::from_secs(100)).await;
    eventually("it was closed", || h.world.closed.load(Ordering::SeqCst) == 1).await;
    assert!(h.aborts.lock().is_empty());
    // Its replica never went away: the full set, which it asks for, lets it start.
    eventually("it runs again", || h.world.opened.load(Ordering::SeqCst) == 2).await;
    h.stop(agent).await;
}

/// The lease's clock, which counts the time that the machine was suspended; timers do not.
struct Suspended {
    clock: TokioClock,
    slept: Mutex<Duration>,
}

impl Clock for Suspended {
    fn now(&self) -> Duration {
        self.clock.now() + *self.slept.lock()
    }

    fn wall(&self) -> Duration {
        self.clock.wall() + *self.slept.lock()
    }
}

#[tokio::test(start_paused = true)]
async fn answered_again_in_the_same_session_it_asks_for_everything() {
    let h = House::new();
    h.world.fill(100);
    let clock = Arc::new(Suspended {
        clock: TokioClock::default(),
        slept: Mutex::default(),
    });
    let mut config = h.config();
    config.hooks.clock = clock.clone();
    let agent = tokio::spawn(Agent::build(config).await.unwrap().run(h.shutdown.clone()));
    h.control.want(h.source(1, Want::Run));
    eventually("all is committed", || h.committed() == 100).await;
    h.until_state(0, State::Running).await;
    for restarts in 1..4 {
        // Over two thirds of the lease, and within it.
        *clock.slept.lock() += Duration::from_secs(7);
        eventually("it was closed", || {
            h.world.closed.load(Ordering::SeqCst) == restarts
        })
        .await;
        eventually("it runs again", || {
            h.world.opened.load(Ordering::SeqCst) == restarts + 1
        })
        .await;
        h.until_state(0, State::Running).await;
    }
    h.world.fill(100);
    eventually("it moves", || h.committed() == 200).await;
    let resyncs = h.control.seen.lock().acks.iter().filter(|a| a.resync).count();
    assert_eq!((resyncs, h.control.seen.lock().hellos.len()), (3, 1));
    assert!(h.aborts.lock().is_empty());
    h.stop(agent).await;
}

#[tokio::test(start_paused = true)]
async fn what_never_fits_is_asked_for_again_later_and_later() {
    let h = House::new();
    let agent = h.start().await;
    h.control.want(h.source(1, Want::Run));
    h.until_state(0, State::Running).await;
    let resyncs = || h.control.seen.lock().acks.iter().filter(|a| a.resync).count();
    assert_eq!(resyncs(), 0);
    h.control.misfits.store(true, Ordering::SeqCst);
    h.control.say(Out::Assignment(Assignment {
        revision: 500,
        base_revision: 499,
        last: true,
        ..Default::default()
    }));
    sleep(Duration::from_secs(600)).await;
    // With pauses of up to five seconds: some hundreds, and not as many as the link can carry.
    assert!((100..1_000).contains(&resyncs()), "{}", resyncs());
    h.control.misfits.store(false, Ordering::SeqCst);
    let mut task = h.source(2, Want::Pause);
    task.restart_nonce = "a".into();
    h.control
        .tasks
        .lock()
        .wanted
        .insert((task.connector_uid.clone(), task.task), task);
    h.until_state(0, State::Paused).await;
    h.stop(agent).await;
}

#[tokio::test(start_paused = true)]
async fn another_store_ends_everything_without_a_commit() {
    let h = House::new();
    h.world.fill(10);
    let agent = h.start().await;
    let mut task = h.source(5, Want::Run);
    h.store.set_fence(50);
    task.fence = 50;
    h.control.want(task);
    eventually("all is committed", || h.committed() == 10).await;
    *h.control.store_id.lock() = "store-2".into();
    h.store.set_fence(3);
    h.store.put(
        &Fields::new().with("name", "fake"),
        Fields::new().with("record", 4u64),
    );
    {
        let mut tasks = h.control.tasks.lock();
        tasks.revision = 7;
        let mut task = h.source(3, Want::Run);
        task.fence = 3;
        tasks.wanted.insert(("u-in".into(), 0), task);
    }
    h.control.say(Out::Reconnect(Reconnect {
        reason: "restored".into(),
    }));
    eventually("it started over", || h.world.opened.load(Ordering::SeqCst) == 2).await;
    eventually("all is committed", || h.committed() == 10).await;
    assert_eq!(h.bus.messages("t", 0).len() + h.bus.messages("t", 1).len(), 16);
    h.stop(agent).await;
}

#[tokio::test(start_paused = true)]
async fn stopping_without_a_control_plane_ends_once_the_lease_is_over() {
    let h = House::new();
    let agent = h.start().await;
    h.control.want(h.source(1, Want::Run));
    h.until_state(0, State::Running).await;
    h.store.unavailable(true);
    h.world.fill(10);
    eventually("it is sent", || !h.bus.messages("t", 0).is_empty()).await;
    h.control.answers.store(false, Ordering::SeqCst);
    h.control.accepts.store(false, Ordering::SeqCst);
    h.bus.append(
        "t",
        0,
        OutMessage {
            body: "x".into(),
            ..Default::default()
        },
    );
    h.stop(agent).await;
    assert_eq!(h.committed(), 0);
    assert!(h.aborts.lock().is_empty());
}
