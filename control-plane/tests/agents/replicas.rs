//! Replicas come, go and are cut off; tasks do not care.

use std::time::Duration;

use gantry_control_plane::reconcile::Role;
use gantry_proto::v1::{connector::TargetState, task::State};
use tokio::time::Instant;

use crate::support::{
    World,
    agent::pass,
    is_within,
    world::{LEASE, task},
};

#[tokio::test(start_paused = true)]
async fn an_agent_moves_between_replicas_without_restarting_a_task() {
    let world = World::new(2).await;
    let a = world.agent("a", 0);
    let uid = world.create("orders", 3).await;
    world.tasks_are(&uid, 3, State::Running).await;
    let fence = world.fence(&task(&uid, 0)).await;
    for turn in 1..6 {
        a.redial(turn % 2).await;
        pass(3).await;
        let replica = format!("replica-{}", turn % 2);
        assert_eq!(a.seen.lock().replica.as_deref(), Some(&*replica));
        assert_eq!(world.session("a").await.unwrap().replica, replica);
    }
    pass(20).await;
    assert_eq!(a.seen.lock().starts.len(), 3);
    assert_eq!(a.running().len(), 3);
    assert_eq!(world.fence(&task(&uid, 0)).await, fence);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_leader_resets_no_stream() {
    let mut world = World::new(3).await;
    let leader = world.leader().await;
    let other = (leader + 1) % 3;
    let (a, b) = (world.agent("a", other), world.agent("b", other));
    let uid = world.create("orders", 4).await;
    world.tasks_are(&uid, 4, State::Running).await;
    world.kill(leader).await;
    pass(1).await;
    let next = world.leader().await;
    assert_ne!(next, leader);
    world.want("orders", TargetState::Paused).await;
    world.tasks_are(&uid, 4, State::Paused).await;
    assert_eq!((a.seen.lock().sessions, b.seen.lock().sessions), (1, 1));
    assert_eq!(a.seen.lock().starts.len() + b.seen.lock().starts.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_is_cut_off_stops_answering_and_its_agents_go_elsewhere() {
    let world = World::new(2).await;
    let a = world.agent("a", 0);
    let uid = world.create("orders", 2).await;
    world.tasks_are(&uid, 2, State::Running).await;
    world.cuts[0].cut();
    let cut = Instant::now();
    assert!(is_within(20, || a.seen.lock().replica.as_deref() == Some("replica-1")).await);
    let took = Instant::now() - cut;
    assert!(took <= LEASE, "{took:?}");
    pass(2 * LEASE.as_secs()).await;
    assert_eq!(a.running().len(), 2);
    world.cuts[0].heal();
    pass(20).await;
    assert_eq!(a.running().len(), 2);
    let leaders = (0..2)
        .filter(|n| world.replica(*n).reconciler().role() != Role::Follower)
        .count();
    assert_eq!(leaders, 1);
}

#[tokio::test(start_paused = true)]
async fn open_sessions_are_taken_to_a_new_lease() {
    let world = World::new(2).await;
    let a = world.agent("a", 0);
    let uid = world.create("orders", 2).await;
    world.tasks_are(&uid, 2, State::Running).await;
    let fence = world.fence(&task(&uid, 0)).await;
    world.revoke(0).await;
    assert!(world.session("a").await.is_none());
    pass(4).await;
    assert_eq!(world.session("a").await.unwrap().replica, "replica-0");
    pass(20).await;
    assert_eq!(a.seen.lock().sessions, 1);
    assert_eq!(a.seen.lock().starts.len(), 2);
    assert_eq!(world.fence(&task(&uid, 0)).await, fence);
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_never_given_on_a_lease_that_may_have_ended() {
    let world = World::new(1).await;
    let a = world.agent("a", 0);
    assert!(is_within(5, || a.seen.lock().answered.is_some()).await);
    pass(4).await;
    world.cuts[0].cut();
    let cut = Instant::now();
    pass(30).await;
    let answered = a.seen.lock().answered.unwrap();
    assert!(
        answered <= cut + LEASE * 2 / 3,
        "{:?} after the cut",
        answered - cut
    );
    world.cuts[0].heal();
    assert!(is_within(20, || a.seen.lock().replica.is_some()).await);
}

#[tokio::test(start_paused = true)]
async fn restarting_every_replica_in_time_restarts_no_task() {
    let mut world = World::new(2).await;
    let (a, b) = (world.agent("a", 0), world.agent("b", 1));
    let uid = world.create("orders", 4).await;
    world.tasks_are(&uid, 4, State::Running).await;
    for number in 0..2 {
        world.stop(number).await;
    }
    pass(2).await;
    for number in 0..2 {
        world.start(number).await;
    }
    pass(30).await;
    assert_eq!(a.running().len() + b.running().len(), 4);
    assert_eq!(a.seen.lock().starts.len() + b.seen.lock().starts.len(), 4);
    assert!(a.seen.lock().reconnects > 0);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_dies_costs_no_restart() {
    let mut world = World::new(3).await;
    let agents: Vec<_> = (0..6).map(|n| world.agent(&format!("a{n}"), n)).collect();
    let uid = world.create("orders", 12).await;
    world.tasks_are(&uid, 12, State::Running).await;
    for number in 0..3 {
        world.kill(number).await;
        pass(25).await;
        world.start(number).await;
        pass(15).await;
    }
    world.leader().await;
    let starts: usize = agents.iter().map(|a| a.seen.lock().starts.len()).sum();
    let running: usize = agents.iter().map(|a| a.running().len()).sum();
    assert_eq!((starts, running), (12, 12));
}

#[tokio::test(start_paused = true)]
async fn the_same_commands_work_whoever_leads() {
    let mut world = World::new(2).await;
    let a = world.agent("a", 0);
    let uid = world.create("orders", 1).await;
    world.tasks_are(&uid, 1, State::Running).await;
    for _ in 0..3 {
        let leader = world.leader().await;
        world.stop(leader).await;
        world.want("orders", TargetState::Paused).await;
        world.tasks_are(&uid, 1, State::Paused).await;
        world.start(leader).await;
        world.want("orders", TargetState::Running).await;
        world.tasks_are(&uid, 1, State::Running).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(a.running().len(), 1);
}
