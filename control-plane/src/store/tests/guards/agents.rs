//! What replicas write for agents.

use gantry_proto::{agent::v1::task_commit_result::Outcome, v1::task::State};
use tokio_util::sync::CancellationToken;

use super::{Disturb, as_it_is, needs};
use crate::store::{
    Committer, CommitterSettings, Key, ReadOffsets,
    sessions::{Expected, SessionWrite, StatusOutcome, StatusWrite},
    tests::{
        suite,
        support::{Backend, wall_clock},
        world::{AGENT, World, commit, instance, map, session, status, task, uid},
    },
};

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

suite!(
    a_commit_is_stored_only_under_its_fence_on_what_was_seen,
    a_start_is_read_only_under_its_fence,
    a_status_is_stored_only_under_its_fence_on_the_last_one,
    a_hello_is_accepted_only_on_what_it_was_judged_by,
);
