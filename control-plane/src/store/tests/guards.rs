//! Every guard of the protocol's table is needed: with it a write that rests on something old is refused, without it
//! the same write passes.

use std::sync::atomic::{AtomicUsize, Ordering};

use gantry_proto::{agent::v1::task_commit_result::Outcome, v1::task::State};
use tokio_util::sync::CancellationToken;

use super::{
    suite,
    support::{Backend, wall_clock},
    world::{
        AGENT, NAME, World, commit, connector, delete, grant, instance, leader, map, pointer, put, session,
        status, task, uid, want,
    },
};
use crate::{
    domain::stored,
    plan::{Action, Ended},
    store::{
        Committer, CommitterSettings, Key, LeaderStore, Mirror, NewPlan, Prefix, ReadOffsets, StoreError,
        Written,
        connectors::{ConnectorOutcome, ConnectorWrite, Request},
        offset_epochs::{EpochOutcome, NewEpoch},
        sessions::{Expected, SessionWrite, StatusOutcome, StatusWrite},
    },
};

/// What changes behind the back of a writer.
enum Disturb {
    /// A key is written anew.
    Touch(Key),
    /// A key is removed and written anew.
    Recreate(Key),
    /// Another replica was elected.
    NewLeader,
    /// Another task of the connector gets a grant.
    GrantAppears,
    /// A key appears that was not there.
    Appears(Key),
}

impl Disturb {
    /// What the guard compares.
    fn target(&self) -> String {
        match self {
            Self::Touch(key) | Self::Recreate(key) | Self::Appears(key) => key.to_string(),
            Self::NewLeader => Key::Leader.to_string(),
            Self::GrantAppears => Prefix::Grants(uid()).to_string(),
        }
    }

    async fn happen(&self, world: &World) {
        let store = &world.store;
        match self {
            Self::Touch(key) => world.touch(key).await,
            Self::Recreate(key) => {
                let raw = store.get_raw(key).await.expect("a read").0.expect("a value");
                delete(store, key.clone()).await;
                assert!(
                    store
                        .guarded()
                        .put_bytes(key, raw.value, 0)
                        .run()
                        .await
                        .expect("a write")
                        .applied
                );
            }
            Self::NewLeader => {
                delete(store, Key::Leader).await;
                put(store, Key::Leader, &leader("b")).await;
            }
            Self::GrantAppears => {
                put(store, Key::Grant(task(7)), &grant("i9")).await;
            }
            Self::Appears(key @ Key::Request(..)) => {
                put(store, key.clone(), &stored::RequestRecord::default()).await;
            }
            Self::Appears(key) => {
                put(
                    store,
                    key.clone(),
                    &stored::OffsetsHead {
                        epoch: 1,
                        ..Default::default()
                    },
                )
                .await;
            }
        }
    }
}

static CLUSTERS: AtomicUsize = AtomicUsize::new(0);

async fn world(backend: &Backend, prepare: impl AsyncFn(&mut World)) -> World {
    let number = CLUSTERS.fetch_add(1, Ordering::Relaxed);
    let mut world = World::new(backend.store(&format!("guards-{number}")).await).await;
    prepare(&mut world).await;
    world
}

/// Shows of each guard that `act` passes undisturbed, is refused when its guard is broken, and would pass without it.
async fn needs(
    backend: &Backend,
    what: &str,
    guards: impl IntoIterator<Item = Disturb>,
    prepare: impl AsyncFn(&mut World),
    act: impl AsyncFn(&World) -> bool,
) {
    assert!(
        act(&world(backend, &prepare).await).await,
        "{what}: refused although nothing has changed"
    );
    for disturb in guards {
        let target = disturb.target();
        let guarded = world(backend, &prepare).await;
        disturb.happen(&guarded).await;
        assert!(!act(&guarded).await, "{what}: {target} is not compared");
        let unguarded = world(backend, &prepare).await;
        disturb.happen(&unguarded).await;
        unguarded.store.leave_out(&target);
        assert!(
            act(&unguarded).await,
            "{what}: {target} is refused by something else too, so this shows nothing"
        );
    }
}

fn leads(world: &World) -> LeaderStore {
    let mirror = Mirror::spawn(world.store.clone(), CancellationToken::new());
    LeaderStore::new(world.store.clone(), mirror, world.term)
}

async fn applied(written: impl Future<Output = Result<Written, StoreError>>) -> bool {
    matches!(written.await.expect("etcd answers"), Written::Applied(_))
}

async fn as_it_is(_: &mut World) {}

fn spec() -> Disturb {
    Disturb::Touch(Key::Connector(NAME.into()))
}

/// What every decision about a task rests on.
fn of_a_task() -> Vec<Disturb> {
    vec![
        Disturb::NewLeader,
        spec(),
        Disturb::Touch(Key::PlanPointer(uid())),
        Disturb::Touch(Key::Grant(task(0))),
        Disturb::Touch(Key::Want(task(0))),
    ]
}

async fn a_grant_is_rewritten_only_on_what_was_planned_on(backend: Backend) {
    let mut gone = of_a_task();
    gone.push(Disturb::Touch(Key::Instance(AGENT.into())));
    needs(&backend, "grant, holder gone", gone, as_it_is, async |world| {
        let guard = world.guard_gone();
        applied(leads(world).grant(&task(0), &guard, &grant("i2"), &want("n2"), Some(Ended::Absent))).await
    })
    .await;
    let mut confirmed = of_a_task();
    confirmed.push(Disturb::Touch(Key::Status(task(0))));
    needs(
        &backend,
        "grant, handed over",
        confirmed,
        as_it_is,
        async |world| {
            let guard = world.guard_confirmed();
            applied(leads(world).grant(
                &task(0),
                &guard,
                &grant("i2"),
                &want("n2"),
                Some(Ended::Confirmed),
            ))
            .await
        },
    )
    .await;
}

async fn a_want_is_rewritten_only_on_what_was_planned_on(backend: Backend) {
    needs(&backend, "want", of_a_task(), as_it_is, async |world| {
        applied(leads(world).set_want(&task(0), &world.guard(), &want("n2"))).await
    })
    .await;
}

async fn a_right_is_ended_only_while_its_end_is_sure(backend: Backend) {
    let mut gone = of_a_task();
    gone.push(Disturb::Touch(Key::Instance(AGENT.into())));
    needs(&backend, "end, holder gone", gone, as_it_is, async |world| {
        applied(leads(world).end_grant(&task(0), &world.guard_gone(), Ended::Silent)).await
    })
    .await;
    let mut confirmed = of_a_task();
    confirmed.push(Disturb::Touch(Key::Status(task(0))));
    needs(&backend, "end, confirmed", confirmed, as_it_is, async |world| {
        applied(leads(world).end_grant(&task(0), &world.guard_confirmed(), Ended::Confirmed)).await
    })
    .await;
    let world = world(&backend, as_it_is).await;
    for why in [
        Ended::Confirmed,
        Ended::Goodbye,
        Ended::Silent,
        Ended::Absent,
        Ended::Replaced,
        Ended::Refused,
    ] {
        let ended = leads(&world).end_grant(&task(0), &world.guard(), why).await;
        assert!(
            matches!(ended, Err(StoreError::Invalid { .. })),
            "{why:?} without comparing it"
        );
    }
}

async fn a_task_is_removed_only_while_it_has_no_grant(backend: Backend) {
    let no_grant = async |world: &mut World| {
        delete(&world.store, Key::Grant(task(0))).await;
        world.grant = 0;
    };
    let mut guards = of_a_task();
    guards.retain(|guard| guard.target() != Key::Grant(task(0)).to_string());
    needs(&backend, "remove task", guards, no_grant, async |world| {
        applied(leads(world).remove_task(&task(0), &world.guard())).await
    })
    .await;
    let world = world(&backend, no_grant).await;
    put(&world.store, Key::Grant(task(0)), &grant("i2")).await;
    assert!(!applied(leads(&world).remove_task(&task(0), &world.guard())).await);
}

async fn a_plan_counts_only_for_the_spec_it_was_made_for(backend: Backend) {
    let guards = || {
        [
            Disturb::NewLeader,
            spec(),
            Disturb::Touch(Key::PlanPointer(uid())),
        ]
    };
    needs(&backend, "pointer", guards(), as_it_is, async |world| {
        applied(leads(world).set_pointer(NAME, &uid(), world.spec, world.pointer, &pointer(1))).await
    })
    .await;
    needs(&backend, "plan", guards(), as_it_is, async |world| {
        let plan = NewPlan {
            connector: NAME.to_owned(),
            uid: uid(),
            spec: world.spec,
            pointer: world.pointer,
            plan_generation: 2,
            tasks: vec![stored::PlannedTask::default(); 250],
            value: pointer(2),
        };
        let stored = applied(leads(world).store_plan(&plan)).await;
        let tasks = world
            .store
            .list(&Prefix::Plan(uid(), 2))
            .await
            .expect("a read")
            .values
            .len();
        assert_eq!(tasks, if stored { 250 } else { 0 });
        stored
    })
    .await;
    needs(
        &backend,
        "remove plan",
        [Disturb::NewLeader, Disturb::Touch(Key::PlanPointer(uid()))],
        as_it_is,
        async |world| {
            let action = Action::RemovePlan {
                uid: uid(),
                pointer: world.pointer,
                plan_generation: 0,
            };
            applied(leads(world).apply(&action)).await
        },
    )
    .await;
}

async fn a_connector_is_removed_only_when_no_grant_is_left(backend: Backend) {
    let deleted = async |world: &mut World| {
        delete(&world.store, Key::Grant(task(0))).await;
        let value = stored::Connector {
            delete_time: Some(Default::default()),
            ..connector()
        };
        world.spec = put(&world.store, Key::Connector(NAME.into()), &value).await;
        put(
            &world.store,
            Key::Offset(uid(), 0, "00".into()),
            &stored::OffsetRecord::default(),
        )
        .await;
    };
    let guards = [Disturb::NewLeader, spec(), Disturb::GrantAppears];
    needs(&backend, "finish delete", guards, deleted, async |world| {
        let done = applied(leads(world).finish_delete(NAME, &uid(), world.spec, false)).await;
        let left = [
            world.revision(&Key::Connector(NAME.into())).await,
            world.revision(&Key::PlanPointer(uid())).await,
            world.revision(&Key::Want(task(0))).await,
            world.revision(&Key::Status(task(0))).await,
            world.revision(&Key::Offset(uid(), 0, "00".into())).await,
        ];
        assert_eq!(
            left.iter().all(|revision| *revision == 0),
            done,
            "all of it or nothing"
        );
        done
    })
    .await;
}

async fn a_commit_is_stored_only_under_its_fence_on_what_was_seen(backend: Backend) {
    let record = || Key::Offset(uid(), 0, crate::store::partition_key(&map("file", 0)));
    let committed = async |world: &mut World| {
        let committer = committer(world);
        let first = committer.commit(vec![commit(&task(0), world.grant, 1, 0)]).await;
        assert_eq!(first[0].outcome(), Outcome::Stored);
        world.status = first[0].revision;
    };
    let guards = [
        Disturb::Touch(Key::Grant(task(0))),
        Disturb::Touch(record()),
        Disturb::Appears(Key::OffsetsHead(uid())),
    ];
    needs(&backend, "commit", guards, committed, async |world| {
        let results = committer(world)
            .commit(vec![commit(&task(0), world.grant, 2, world.status)])
            .await;
        results[0].outcome() == Outcome::Stored
    })
    .await;
}

fn committer(world: &World) -> Committer {
    let (settings, stop) = (CommitterSettings::default(), CancellationToken::new());
    Committer::spawn(world.store.clone(), wall_clock(), settings, stop)
}

async fn a_start_is_read_only_under_its_fence(backend: Backend) {
    needs(
        &backend,
        "read",
        [Disturb::Touch(Key::Grant(task(0)))],
        as_it_is,
        async |world| {
            let read = world
                .store
                .read_offsets(&task(0), world.grant)
                .await
                .expect("etcd answers");
            matches!(read, ReadOffsets::Read { .. })
        },
    )
    .await;
}

async fn a_status_is_stored_only_under_its_fence_on_the_last_one(backend: Backend) {
    let guards = [
        Disturb::Touch(Key::Grant(task(0))),
        Disturb::Touch(Key::Status(task(0))),
    ];
    needs(&backend, "status", guards, as_it_is, async |world| {
        let (fence, seen) = (world.grant, world.status);
        let write = StatusWrite {
            task: task(0),
            fence,
            seen,
            status: status(State::Stopped, world.want),
        };
        let outcomes = world.store.write_statuses(&[write]).await;
        matches!(outcomes[0], StatusOutcome::Stored(_))
    })
    .await;
}

async fn a_hello_is_accepted_only_on_what_it_was_judged_by(backend: Backend) {
    let guards = || {
        [
            Disturb::Touch(Key::Session(AGENT.into())),
            Disturb::Touch(Key::Instance(AGENT.into())),
        ]
    };
    needs(&backend, "hello", guards(), as_it_is, async |world| {
        let expected = Expected {
            instance: world.instance,
            session: world.session,
        };
        let write = world
            .store
            .write_session(AGENT, expected, &instance(2), &session(2), 0)
            .await;
        matches!(write.expect("etcd answers"), SessionWrite::Written(_))
    })
    .await;
    needs(&backend, "remove session", guards(), as_it_is, async |world| {
        let expected = Expected {
            instance: world.instance,
            session: world.session,
        };
        let write = world
            .store
            .remove_session(AGENT, expected, &instance(2))
            .await
            .expect("etcd answers");
        matches!(write, SessionWrite::Written(_))
    })
    .await;
}

async fn offsets_are_altered_only_while_nothing_can_commit(backend: Backend) {
    let stopped = async |world: &mut World| delete(&world.store, Key::Grant(task(0))).await;
    let guards = [
        spec(),
        Disturb::GrantAppears,
        Disturb::Appears(Key::OffsetsHead(uid())),
    ];
    needs(&backend, "alter", guards, stopped, async |world| {
        let new = NewEpoch {
            connector: NAME.to_owned(),
            uid: uid(),
            spec: world.spec,
            head: None,
            records: (0..150)
                .map(|n| stored::OffsetRecord {
                    partition: map("file", n),
                    ..Default::default()
                })
                .collect(),
            alteration: stored::Alteration::default(),
            request: None,
        };
        let outcome = world.store.flip_epoch(&new).await.expect("etcd answers");
        outcome == (EpochOutcome::Done { epoch: 1 })
    })
    .await;
}

async fn a_users_write_replaces_only_what_the_user_saw(backend: Backend) {
    let request = Request {
        method: "Update".into(),
        principal: "p".into(),
        id: "1".into(),
        hash: [1; 32],
    };
    let guards = [spec(), Disturb::Appears(request.key())];
    needs(&backend, "update", guards, as_it_is, async |world| {
        let write = ConnectorWrite {
            name: NAME.into(),
            seen: world.spec,
            value: stored::Connector {
                generation: 2,
                ..connector()
            },
            revision: None,
            request: Some(request.clone()),
        };
        let outcome = world.store.write_connector(&write).await.expect("etcd answers");
        matches!(outcome, ConnectorOutcome::Done { replayed: false, .. })
    })
    .await;
}

async fn an_event_is_appended_only_to_a_connector_that_is_there(backend: Backend) {
    let connector = || Key::Connector(NAME.into());
    needs(
        &backend,
        "event",
        [Disturb::Recreate(connector())],
        as_it_is,
        async |world| {
            let event = gantry_proto::v1::Event::default();
            world
                .store
                .append_event(NAME, world.spec, &uid(), &event)
                .await
                .expect("etcd answers")
                .is_some()
        },
    )
    .await;
}

suite!(
    a_grant_is_rewritten_only_on_what_was_planned_on,
    a_want_is_rewritten_only_on_what_was_planned_on,
    a_right_is_ended_only_while_its_end_is_sure,
    a_task_is_removed_only_while_it_has_no_grant,
    a_plan_counts_only_for_the_spec_it_was_made_for,
    a_connector_is_removed_only_when_no_grant_is_left,
    a_commit_is_stored_only_under_its_fence_on_what_was_seen,
    a_start_is_read_only_under_its_fence,
    a_status_is_stored_only_under_its_fence_on_the_last_one,
    a_hello_is_accepted_only_on_what_it_was_judged_by,
    offsets_are_altered_only_while_nothing_can_commit,
    a_users_write_replaces_only_what_the_user_saw,
    an_event_is_appended_only_to_a_connector_that_is_there,
);
