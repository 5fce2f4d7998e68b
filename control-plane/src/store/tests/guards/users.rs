//! What the API writes for users.

use super::{Disturb, as_it_is, needs, spec};
use crate::{
    domain::stored,
    store::{
        Key,
        connectors::{ConnectorOutcome, ConnectorWrite, Request},
        offset_epochs::{EpochOutcome, NewEpoch},
        tests::{
            suite,
            support::Backend,
            world::{NAME, World, connector, delete, map, task, uid},
        },
    },
};

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
    offsets_are_altered_only_while_nothing_can_commit,
    a_users_write_replaces_only_what_the_user_saw,
    an_event_is_appended_only_to_a_connector_that_is_there,
);
