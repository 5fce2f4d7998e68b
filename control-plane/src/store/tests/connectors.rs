use std::{sync::Arc, time::Duration};

use gantry_proto::v1::{Connector, Event, connector::TargetState};
use tokio::time::sleep;

use super::{
    fault::Fault,
    suite,
    support::Backend,
    world::{NAME, World, connector, delete, map, put, task, uid},
};
use crate::{
    domain::stored,
    store::{
        Key, Prefix, QuotaLevel, Store, StoreError,
        connectors::{ConnectorOutcome, ConnectorWrite, MAX_REVISIONS, Request},
        offset_epochs::{EpochOutcome, NewEpoch},
    },
};

fn request(id: &str, hash: u8) -> Request {
    Request {
        method: "Update".into(),
        principal: "a/b".into(),
        id: id.into(),
        hash: [hash; 32],
    }
}

fn create(request: Option<Request>) -> ConnectorWrite {
    let definition = connector().definition;
    let revision = stored::Revision {
        definition,
        principal: "a/b".to_owned(),
        ..Default::default()
    };
    ConnectorWrite {
        name: NAME.into(),
        seen: 0,
        value: connector(),
        revision: Some(revision),
        request,
    }
}

async fn write(store: &Store, write: &ConnectorWrite) -> ConnectorOutcome {
    store.write_connector(write).await.expect("etcd answers")
}

/// Revision of the connector that was written, and whether it was by an earlier call.
fn done(outcome: ConnectorOutcome) -> (i64, bool) {
    match outcome {
        ConnectorOutcome::Done {
            connector: Some(connector),
            changed: true,
            replayed,
        } => (connector.mod_revision, replayed),
        other => panic!("{other:?}"),
    }
}

async fn the_same_request_has_its_effect_once(backend: Backend) {
    let store = backend.store("connectors").await;
    let first = create(Some(request("1", 1)));
    let (revision, replayed) = done(write(&store, &first).await);
    assert!(!replayed);
    assert_eq!(done(write(&store, &first).await), (revision, true));
    let update = ConnectorWrite {
        seen: revision,
        value: stored::Connector {
            generation: 2,
            ..connector()
        },
        revision: None,
        request: Some(request("2", 2)),
        ..first.clone()
    };
    let (updated, _) = done(write(&store, &update).await);
    // A replay is answered with the connector as it is now, and changes nothing.
    assert_eq!(done(write(&store, &first).await), (updated, true));
    assert!(
        store
            .replayed(&request("1", 1), NAME)
            .await
            .expect("a read")
            .is_some()
    );
    assert_eq!(store.replayed(&request("3", 1), NAME).await, Ok(None));
    let other = ConnectorWrite {
        request: Some(request("1", 9)),
        ..update
    };
    assert_eq!(write(&store, &other).await, ConnectorOutcome::Reused);
    let (present, _) = store.read_connector(NAME).await.expect("a read");
    assert_eq!(present.map(|present| present.mod_revision), Some(updated));
}

async fn a_lost_answer_is_resolved_by_reading(backend: Backend) {
    let (store, faults) = backend.disturbed("connectors").await;
    for (id, fault) in [
        (None, Fault::LoseAnswer),
        (Some("1"), Fault::LoseAnswer),
        (Some("2"), Fault::LoseRequest),
    ] {
        faults.next("Txn", fault);
        let (revision, _) = done(write(&store, &create(id.map(|id| request(id, 1)))).await);
        let (present, _) = store.read_connector(NAME).await.expect("a read");
        assert_eq!(
            present.map(|present| present.mod_revision),
            Some(revision),
            "{fault:?}"
        );
        delete(&store, Key::Connector(NAME.into())).await;
    }
    // A first try that arrives after the second one finds that it was carried out.
    let late = Duration::from_secs(1);
    faults.next("Txn", Fault::Late(late));
    let (created, _) = done(write(&store, &create(Some(request("3", 1)))).await);
    sleep(late * 2).await;
    let (present, _) = store.read_connector(NAME).await.expect("a read");
    assert_eq!(present.map(|present| present.mod_revision), Some(created));
}

async fn a_write_on_something_old_is_shown_what_is_there(backend: Backend) {
    let store = backend.store("connectors").await;
    let (revision, _) = done(write(&store, &create(None)).await);
    let again = ConnectorWrite {
        value: stored::Connector {
            generation: 5,
            ..connector()
        },
        ..create(None)
    };
    let ConnectorOutcome::Conflict(Some(present)) = write(&store, &again).await else {
        panic!("it exists")
    };
    assert_eq!(
        (present.mod_revision, present.create_revision),
        (revision, revision)
    );
    let stale = ConnectorWrite {
        seen: revision - 1,
        ..again.clone()
    };
    assert!(matches!(
        write(&store, &stale).await,
        ConnectorOutcome::Conflict(Some(_))
    ));
    let update = ConnectorWrite {
        seen: revision,
        ..again
    };
    let ConnectorOutcome::Done {
        connector: Some(updated),
        ..
    } = write(&store, &update).await
    else {
        panic!("nobody else writes")
    };
    assert_eq!(updated.create_revision, revision);
    delete(&store, Key::Connector(NAME.into())).await;
    assert_eq!(write(&store, &update).await, ConnectorOutcome::Conflict(None));
}

async fn revisions_are_kept_up_to_their_limits_without_the_target_state(backend: Backend) {
    let store = backend.store("connectors").await;
    let mut seen = 0;
    let mut revise = async |r: i64, padding: usize| {
        let definition = Connector {
            name: format!("connectors/{NAME}"),
            target_state: TargetState::Stopped.into(),
            topic: "x".repeat(padding),
            ..Default::default()
        };
        let revision = stored::Revision {
            definition: Some(definition.clone()),
            ..Default::default()
        };
        let value = stored::Connector {
            revision: r,
            definition: Some(definition),
            ..connector()
        };
        let update = ConnectorWrite {
            seen,
            value,
            revision: Some(revision),
            ..create(None)
        };
        seen = done(write(&store, &update).await).0;
    };
    for r in 1..=60 {
        revise(r, 0).await;
    }
    let kept = store.list_revisions(&uid()).await.expect("a read");
    assert_eq!(kept.len(), MAX_REVISIONS);
    assert_eq!(
        kept.keys().copied().collect::<Vec<_>>(),
        (11..=60).collect::<Vec<_>>()
    );
    let targets = kept.values().filter_map(|revision| revision.definition.as_ref());
    assert!(
        targets.clone().count() == MAX_REVISIONS
            && targets.clone().all(|definition| definition.target_state == 0)
    );
    for r in 61..=70 {
        revise(r, 200 << 10).await;
    }
    let kept = store.list_revisions(&uid()).await.expect("a read");
    assert_eq!(
        kept.keys().copied().collect::<Vec<_>>(),
        (66..=70).collect::<Vec<_>>()
    );
    let mut large = create(None);
    large.value.definition = Some(Connector {
        topic: "x".repeat(257 << 10),
        ..Default::default()
    });
    let refused = store.write_connector(&large).await;
    assert!(
        matches!(refused, Err(StoreError::TooLarge { limit: 262_144, .. })),
        "{refused:?}"
    );
}

async fn a_full_store_refuses_users_and_lets_connectors_run(backend: Backend) {
    let store = backend.store("connectors").await;
    let world = World::new(store.clone()).await;
    store.set_quota(QuotaLevel::Refuse);
    assert_eq!(
        store.write_connector(&create(None)).await,
        Err(StoreError::NoSpace)
    );
    let event = store
        .append_event(NAME, world.spec, &uid(), &Event::default())
        .await;
    assert_eq!(event, Err(StoreError::NoSpace));
    let (settings, stop) = Default::default();
    let committer =
        crate::store::Committer::spawn(store.clone(), super::support::wall_clock(), settings, stop);
    let results = committer
        .commit(vec![super::world::commit(&task(0), world.grant, 1, 0)])
        .await;
    assert!(results[0].revision > 0, "{results:?}");
}

async fn events_are_numbered_and_bounded(backend: Backend) {
    let store = backend.store("connectors").await;
    let world = World::new(store.clone()).await;
    for n in 1..=130 {
        let event = Event {
            r#type: format!("E{n}"),
            ..Default::default()
        };
        let sequence = store
            .append_event(NAME, world.spec, &uid(), &event)
            .await
            .expect("a write");
        assert_eq!(sequence, Some(n));
    }
    let (uid, event) = (uid(), Event::default());
    let append = || store.append_event(NAME, world.spec, &uid, &event);
    let two = tokio::join!(append(), append());
    assert!(two.0.is_ok() && two.1.is_ok() && two.0 != two.1, "{two:?}");
    let events = store.list_events(&uid).await.expect("a read");
    assert_eq!(
        events.iter().map(|event| event.sequence).collect::<Vec<_>>(),
        (33..=132).collect::<Vec<_>>()
    );
    assert_eq!(events[0].r#type, "E33");
}

async fn altered_offsets_count_at_once_or_not_at_all(backend: Backend) {
    let (store, faults) = backend.disturbed("connectors").await;
    let world = World::new(store.clone()).await;
    delete(&store, Key::Grant(task(0))).await;
    let record = |n| stored::OffsetRecord {
        partition: map("file", n),
        position: map("offset", n),
        ..Default::default()
    };
    let new = |head, count, id: &str| NewEpoch {
        connector: NAME.to_owned(),
        uid: uid(),
        spec: world.spec,
        head,
        records: (0..count).map(record).collect(),
        alteration: stored::Alteration {
            principal: "p".to_owned(),
            kind: "ALTER".to_owned(),
            ..Default::default()
        },
        request: Some(request(id, 1)),
    };
    // What an attempt left behind that died before its last transaction.
    put(&store, Key::Offset(uid(), 1, "left-over".into()), &record(99)).await;
    let outcome = store.flip_epoch(&new(None, 320, "1")).await;
    assert_eq!(outcome, Ok(EpochOutcome::Done { epoch: 1 }));
    let listed = store.list_offsets(&uid()).await.expect("a read");
    assert_eq!((listed.epoch(), listed.records.len()), (1, 320));
    assert_eq!(listed.head.as_ref().map(|head| head.history[0].epoch), Some(1));
    assert_eq!(
        store.flip_epoch(&new(None, 320, "1")).await,
        Ok(EpochOutcome::Replayed)
    );
    assert_eq!(
        store.flip_epoch(&new(None, 320, "2")).await,
        Ok(EpochOutcome::Conflict)
    );
    // A reset is an empty epoch; its answer is lost.
    let head = listed
        .head
        .as_ref()
        .map(|head| ((**head).clone(), head.mod_revision));
    faults.after("Txn", 1, Fault::LoseAnswer);
    let reset = NewEpoch {
        request: None,
        ..new(head, 0, "3")
    };
    assert_eq!(
        store.flip_epoch(&reset).await,
        Ok(EpochOutcome::Done { epoch: 2 })
    );
    let listed = store.list_offsets(&uid()).await.expect("a read");
    assert_eq!((listed.epoch(), listed.records.len()), (2, 0));
    let old = store.list(&Prefix::OffsetsEpoch(uid(), 1)).await.expect("a read");
    assert_eq!(old.values.len(), 320, "it can be undone");
}

async fn records_of_requests_share_a_lease(backend: Backend) {
    let store = backend.store("connectors").await;
    let mut leases = Vec::new();
    for n in 0..5 {
        let request = request(&n.to_string(), 1);
        let name: Arc<str> = format!("c-{n}").into();
        done(
            write(
                &store,
                &ConnectorWrite {
                    name,
                    ..create(Some(request.clone()))
                },
            )
            .await,
        );
        leases.push(
            store
                .get_raw(&request.key())
                .await
                .expect("a read")
                .0
                .map_or(0, |raw| raw.lease),
        );
    }
    leases.dedup();
    assert!(leases.len() == 1 && leases[0] != 0, "{leases:?}");
    // etcd forgot it: another is taken.
    backend
        .client()
        .await
        .lease_revoke(leases[0])
        .await
        .expect("a revocation");
    done(
        write(
            &store,
            &ConnectorWrite {
                name: "c-9".into(),
                ..create(Some(request("9", 1)))
            },
        )
        .await,
    );
    if !backend.is_real() {
        sleep(Duration::from_secs(3599)).await;
        assert!(
            store
                .replayed(&request("9", 1), "c-9")
                .await
                .expect("a read")
                .is_some(),
            "within an hour"
        );
        sleep(Duration::from_secs(3700)).await;
        assert_eq!(store.replayed(&request("9", 1), "c-9").await, Ok(None));
    }
}

suite!(
    the_same_request_has_its_effect_once,
    a_lost_answer_is_resolved_by_reading,
    a_write_on_something_old_is_shown_what_is_there,
    revisions_are_kept_up_to_their_limits_without_the_target_state,
    a_full_store_refuses_users_and_lets_connectors_run,
    events_are_numbered_and_bounded,
    altered_offsets_count_at_once_or_not_at_all,
    records_of_requests_share_a_lease,
);
