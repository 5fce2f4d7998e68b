//! etcd is restored from a backup while everything runs.

use gantry_proto::{
    agent::v1::task_commit_result::Outcome,
    v1::{task::State, value::Kind},
};

use crate::support::{World, agent::pass, is_within, world::task};

#[tokio::test(start_paused = true)]
async fn after_a_restore_everything_starts_over_from_what_the_backup_held() {
    let mut world = World::new(2).await;
    let (a, b) = (world.agent("a", 0), world.agent("b", 1));
    let uid = world.create("orders", 2).await;
    world.tasks_are(&uid, 2, State::Running).await;
    let first = task(&uid, 0);
    let holder = || if a.running().contains(&first) { &a } else { &b };
    let old = world.fence(&first).await;
    assert_eq!(holder().commit(&first, old, 10).await, Outcome::Stored);
    let backup = world.backup().await;

    // What happens after the backup is lost with the store.
    assert_eq!(holder().commit(&first, old, 20).await, Outcome::Stored);
    let later = world.create("later", 1).await;
    world.tasks_are(&later, 1, State::Running).await;
    let (before_a, before_b) = (a.seen.lock().starts.len(), b.seen.lock().starts.len());

    world.restore(&backup, "another-store").await;
    let renamed = || {
        [&a, &b]
            .iter()
            .all(|agent| agent.seen.lock().store_id == "another-store")
    };
    assert!(is_within(60, renamed).await);
    assert!(is_within(60, || a.running().len() + b.running().len() == 2).await);
    pass(20).await;

    let running = [a.running(), b.running()].concat();
    assert_eq!(running.len(), 2, "each runs once: {running:?}");
    assert!(running.iter().all(|t| t.uid == uid), "{running:?}");
    let starts = a.seen.lock().starts.len() + b.seen.lock().starts.len();
    assert!(starts - before_a - before_b >= 2, "they were started anew");
    assert!(!world.exists("later").await);

    let new = world.fence(&first).await;
    assert!(new > old, "{new} after {old}");
    assert_eq!(holder().commit(&first, old, 30).await, Outcome::Fenced);
    let offsets = world.store.list_offsets(&uid).await.unwrap();
    let line = offsets.records[0].record.position["line"].kind.clone();
    assert_eq!(line, Some(Kind::Int64Value(10)));
    assert_eq!(holder().commit(&first, new, 11).await, Outcome::Stored);

    // Users go on as before.
    let again = world.create("later", 1).await;
    world.tasks_are(&again, 1, State::Running).await;
}
