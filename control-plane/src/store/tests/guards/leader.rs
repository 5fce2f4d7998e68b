//! What the leader writes.

use tokio_util::sync::CancellationToken;

use super::{Disturb, as_it_is, needs, spec, world};
use crate::{
    domain::stored,
    plan::{Action, Ended},
    store::{
        Key, LeaderStore, Mirror, NewPlan, Prefix, StoreError, Written,
        tests::{
            suite,
            support::Backend,
            world::{AGENT, NAME, World, connector, delete, grant, pointer, put, task, uid, want},
        },
    },
};

fn leads(world: &World) -> LeaderStore {
    let mirror = Mirror::spawn(world.store.clone(), CancellationToken::new());
    LeaderStore::new(world.store.clone(), mirror, world.term)
}

async fn applied(written: impl Future<Output = Result<Written, StoreError>>) -> bool {
    matches!(written.await.expect("etcd answers"), Written::Applied(_))
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

suite!(
    a_grant_is_rewritten_only_on_what_was_planned_on,
    a_want_is_rewritten_only_on_what_was_planned_on,
    a_right_is_ended_only_while_its_end_is_sure,
    a_task_is_removed_only_while_it_has_no_grant,
    a_plan_counts_only_for_the_spec_it_was_made_for,
    a_connector_is_removed_only_when_no_grant_is_left,
);
