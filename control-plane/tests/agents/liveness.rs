//! Who is gone, and when that is sure.

use std::time::Duration;

use gantry_proto::{agent::v1::task_commit_result::Outcome, v1::task::State};
use tokio::time::Instant;

use crate::support::{
    World,
    agent::pass,
    is_within,
    world::{LEASE, task},
};

#[tokio::test(start_paused = true)]
async fn a_silent_agents_task_moves_but_not_before_a_whole_lease() {
    let world = World::new(1).await;
    let a = world.agent("a", 0);
    let uid = world.create("orders", 1).await;
    world.tasks_are(&uid, 1, State::Running).await;
    let b = world.agent("b", 0);
    pass(2).await;
    let old = task(&uid, 0);
    let fence = world.fence(&old).await;
    a.freeze().await;
    let frozen = Instant::now();
    let heard = a.seen.lock().answered.unwrap();
    assert!(is_within(30, || !b.running().is_empty()).await);
    let moved = b.seen.lock().starts[0].1;
    assert!(
        moved >= heard + LEASE,
        "{:?} after it was last heard",
        moved - heard
    );
    assert!(
        moved <= frozen + LEASE + Duration::from_secs(2),
        "{:?}",
        moved - frozen
    );
    assert_eq!(a.commit(&old, fence, 5).await, Outcome::Fenced);
    let session = world.session("a").await.unwrap();
    assert!(session.silent);
    a.thaw().await;
    assert!(
        is_within(20, || a.seen.lock().replica.is_some()).await,
        "it comes back"
    );
    pass(5).await;
    assert!(a.running().is_empty());
    assert_eq!(b.running().len(), 1);
    assert!(!world.session("a").await.unwrap().silent);
}

#[tokio::test(start_paused = true)]
async fn a_broken_stream_means_nothing() {
    let world = World::new(1).await;
    let (a, b) = (world.agent("a", 0), world.agent("b", 0));
    let uid = world.create("orders", 2).await;
    world.tasks_are(&uid, 2, State::Running).await;
    for _ in 0..5 {
        a.redial(0).await;
        pass(4).await;
    }
    assert_eq!((a.running().len(), b.running().len()), (1, 1));
    assert_eq!(a.seen.lock().starts.len() + b.seen.lock().starts.len(), 2);
    assert_eq!(a.seen.lock().sessions, 6);
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_moves_tasks_at_once() {
    let world = World::new(1).await;
    let a = world.agent("a", 0);
    let uid = world.create("orders", 2).await;
    world.tasks_are(&uid, 2, State::Running).await;
    let b = world.agent("b", 0);
    pass(2).await;
    a.goodbye().await;
    assert!(is_within(2, || b.running().len() == 2).await);
    assert!(world.session("a").await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_new_start_on_the_same_machine_takes_over_at_once() {
    let world = World::new(1).await;
    let a = world.agent("a", 0);
    let uid = world.create("orders", 2).await;
    world.tasks_are(&uid, 2, State::Running).await;
    let again = a.restarted();
    assert!(is_within(3, || again.running().len() == 2).await);
    assert_eq!(world.session("a").await.unwrap().gone, [a.instance_uid()]);
}

#[tokio::test(start_paused = true)]
async fn a_killed_agent_is_gone_after_a_lease() {
    let world = World::new(2).await;
    let a = world.agent("a", 0);
    let uid = world.create("orders", 1).await;
    world.tasks_are(&uid, 1, State::Running).await;
    let b = world.agent("b", 1);
    pass(1).await;
    a.kill();
    let killed = Instant::now();
    assert!(is_within(30, || !b.running().is_empty()).await);
    let took = Instant::now() - killed;
    assert!(
        took >= LEASE - Duration::from_secs(3) && took <= LEASE + Duration::from_secs(2),
        "{took:?}"
    );
}
