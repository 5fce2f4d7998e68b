//! Plans that agents make.

use gantry_control_plane::{domain::stored, store::Key};
use gantry_proto::v1::task::State;

use crate::support::{World, agent::pass, is_within};

#[tokio::test(start_paused = true)]
async fn without_an_agent_a_connector_waits_and_says_why() {
    let world = World::new(1).await;
    let uid = world.create("orders", 2).await;
    pass(5).await;
    let pointer = world
        .get::<stored::PlanPointer>(Key::PlanPointer(uid.clone()))
        .await;
    assert!(pointer.is_none_or(|p| p.plan_generation == 0));
    assert!(!world.replica(0).reconciler().report().reasons.is_empty());
    let _agent = world.agent("a", 0);
    world.tasks_are(&uid, 2, State::Running).await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_does_not_answer_is_passed_over() {
    let world = World::new(1).await;
    let (a, b) = (world.agent("a", 0), world.agent("b", 0));
    a.script.lock().deaf = true;
    pass(1).await;
    let mut uids = Vec::new();
    for n in 0..4 {
        uids.push(world.create(&format!("orders{n}"), 1).await);
    }
    for uid in &uids {
        world.tasks_are(uid, 1, State::Running).await;
    }
    assert!(b.seen.lock().asks >= 1);
}

#[tokio::test(start_paused = true)]
async fn a_new_split_waits_until_the_old_tasks_have_ended() {
    let world = World::new(1).await;
    let a = world.agent("a", 0);
    let uid = world.create("orders", 2).await;
    world.tasks_are(&uid, 2, State::Running).await;
    world
        .change("orders", |c| {
            c.generation += 1;
            if let Some(definition) = &mut c.definition {
                definition.tasks_max = 3;
            }
        })
        .await;
    assert!(is_within(20, || a.running().len() == 3).await);
    world.tasks_are(&uid, 3, State::Running).await;
    let pointer = world
        .get::<stored::PlanPointer>(Key::PlanPointer(uid.clone()))
        .await
        .unwrap();
    assert_eq!((pointer.tasks, pointer.generation), (3, 2));
}
