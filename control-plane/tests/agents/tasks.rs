//! The life of a connector, seen from the agents and from the store.

use gantry_control_plane::{
    domain::stored,
    store::{Key, Prefix},
};
use gantry_proto::{
    agent::v1::task_commit_result::Outcome,
    v1::{connector::TargetState, task::State},
};

use crate::support::{World, agent::pass, is_within, world::task};

#[tokio::test(start_paused = true)]
async fn a_connector_lives_from_creation_to_deletion() {
    let world = World::new(1).await;
    let agent = world.agent("a", 0);
    let uid = world.create("orders", 2).await;
    world.tasks_are(&uid, 2, State::Running).await;
    assert_eq!(agent.running().len(), 2);
    let first = task(&uid, 0);
    let fence = world.fence(&first).await;
    assert_eq!(agent.seen.lock().tasks[&first].fence, fence);
    assert_eq!(agent.seen.lock().tasks[&first].traceparent, "00-trace-span-01");
    assert_eq!(agent.seen.lock().asks, 1);
    assert_eq!(agent.commit(&first, fence, 10).await, Outcome::Stored);

    world.want("orders", TargetState::Paused).await;
    world.tasks_are(&uid, 2, State::Paused).await;
    assert_eq!(world.fence(&first).await, fence, "a pause leaves the fence alone");
    let paused = world.status(&first).await.unwrap();
    let want = world
        .store
        .get::<stored::Want>(&Key::Want(first.clone()))
        .await
        .unwrap()
        .0
        .unwrap();
    assert_eq!(paused.want_revision, want.mod_revision);

    world.want("orders", TargetState::Running).await;
    world.tasks_are(&uid, 2, State::Running).await;
    assert_eq!(agent.commit(&first, fence, 20).await, Outcome::Stored);

    world.restart("orders", "again").await;
    assert!(
        is_within(10, || agent.starts_of(&first) == 3).await,
        "{:?}",
        agent.seen.lock().starts
    );

    world.want("orders", TargetState::Stopped).await;
    assert!(is_within(10, || agent.seen.lock().tasks.is_empty()).await);
    assert_eq!(world.fence(&first).await, 0);
    assert_eq!(agent.commit(&first, fence, 30).await, Outcome::Fenced);

    world.delete("orders").await;
    pass(5).await;
    assert!(!world.exists("orders").await);
    for prefix in [
        Prefix::Plans(uid.clone()),
        Prefix::Wants(uid.clone()),
        Prefix::Statuses(uid.clone()),
    ] {
        assert!(
            world.store.list(&prefix).await.unwrap().values.is_empty(),
            "{prefix:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn tasks_spread_over_the_agents() {
    let world = World::new(2).await;
    let (a, b) = (world.agent("a", 0), world.agent("b", 1));
    pass(1).await;
    let uid = world.create("orders", 4).await;
    world.tasks_are(&uid, 4, State::Running).await;
    assert_eq!((a.running().len(), b.running().len()), (2, 2));
    assert!(
        world
            .event_types(&uid)
            .await
            .iter()
            .filter(|t| *t == "TASK_PLACED")
            .count()
            == 4
    );
}

#[tokio::test(start_paused = true)]
async fn a_refused_task_goes_to_another_agent() {
    let world = World::new(1).await;
    let (a, b) = (world.agent("a", 0), world.agent("b", 0));
    a.script.lock().refuse = true;
    pass(1).await;
    let uid = world.create("orders", 2).await;
    world.tasks_are(&uid, 2, State::Running).await;
    assert_eq!((a.running().len(), b.running().len()), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_failed_task_is_told_as_an_event() {
    let world = World::new(1).await;
    let agent = world.agent("a", 0);
    let uid = world.create("orders", 1).await;
    world.tasks_are(&uid, 1, State::Running).await;
    agent.fail().await;
    world.tasks_are(&uid, 1, State::Failed).await;
    pass(1).await;
    assert!(world.event_types(&uid).await.contains(&"TASK_FAILED".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn changes_come_as_deltas_and_nothing_is_pushed_without_one() {
    let world = World::new(1).await;
    let agent = world.agent("a", 0);
    let uid = world.create("orders", 3).await;
    world.tasks_are(&uid, 3, State::Running).await;
    pass(20).await;
    let deltas = agent.seen.lock().deltas;
    pass(60).await;
    assert_eq!(agent.seen.lock().deltas, deltas);
    assert_eq!(agent.seen.lock().full_sets, 1);
    world.want("orders", TargetState::Paused).await;
    world.tasks_are(&uid, 3, State::Paused).await;
    assert!(agent.seen.lock().deltas > deltas);
    assert_eq!(agent.seen.lock().full_sets, 1);
}
