use super::{
    fault::Fault,
    suite,
    support::Backend,
    world::{NAME, World, connector, delete, map, put, task, uid},
};
use crate::{
    domain::{Uid, stored},
    store::{
        Key, LeaderStore, Mirror, Prefix, Store, StoreError, Written,
        connectors::{ConnectorOutcome, ConnectorWrite, Request},
        offset_epochs::{EpochOutcome, NewEpoch, is_kept},
        retained::{Adoption, KEPT_FOR_S},
    },
};

const DELETED: i64 = 1_700_000_000;

fn time(seconds: i64) -> Option<pbjson_types::Timestamp> {
    Some(pbjson_types::Timestamp { seconds, nanos: 0 })
}

fn record(n: i64, position: i64) -> stored::OffsetRecord {
    stored::OffsetRecord {
        partition: map("file", n),
        position: map("offset", position),
        sink_state: vec![3],
        ..Default::default()
    }
}

fn epoch(world: &World, head: Option<(stored::OffsetsHead, i64)>, count: i64, position: i64) -> NewEpoch {
    NewEpoch {
        connector: NAME.to_owned(),
        uid: uid(),
        spec: world.spec,
        head,
        records: (0..count).map(|n| record(n, position)).collect(),
        alteration: stored::Alteration::default(),
        request: None,
    }
}

async fn head(store: &Store) -> Option<(stored::OffsetsHead, i64)> {
    let listed = store.list_offsets(&uid()).await.expect("a read");
    listed.head.map(|head| ((*head.value).clone(), head.mod_revision))
}

async fn positions(store: &Store, uid: &Uid) -> Vec<stored::OffsetRecord> {
    let listed = store.list_offsets(uid).await.expect("a read").records;
    listed
        .into_iter()
        .map(|listed| (*listed.record.value).clone())
        .collect()
}

/// A stopped connector with offsets in epoch 1.
async fn stopped(store: &Store, partitions: i64) -> World {
    let world = World::new(store.clone()).await;
    delete(store, Key::Grant(task(0))).await;
    let outcome = store.flip_epoch(&epoch(&world, None, partitions, 5)).await;
    assert_eq!(outcome, Ok(EpochOutcome::Done { epoch: 1 }));
    world
}

/// The same, deleted, and its offsets kept.
async fn kept(store: &Store, partitions: i64) -> Adoption {
    let mut world = stopped(store, partitions).await;
    let mut value = stored::Connector {
        delete_time: time(DELETED),
        keep_offsets: true,
        ..connector()
    };
    value.definition.get_or_insert_default().plugin = "file-source".to_owned();
    world.spec = put(store, Key::Connector(NAME.into()), &value).await;
    let mirror = Mirror::spawn(store.clone(), Default::default());
    super::support::caught_up(&mirror, store).await;
    let leader = LeaderStore::new(store.clone(), mirror, world.term);
    let done = leader
        .finish_delete(NAME, &uid(), world.spec, true)
        .await
        .expect("etcd answers");
    assert!(matches!(done, Written::Applied(_)));
    let retained = store
        .read_retained(&uid())
        .await
        .expect("a read")
        .expect("they are kept");
    assert_eq!(
        (retained.plugin.as_str(), retained.delete_time),
        ("file-source", time(DELETED))
    );
    Adoption {
        from: uid(),
        seen: retained.mod_revision,
        plugin: retained.plugin.clone(),
    }
}

fn create(new: &str, request: Option<Request>) -> ConnectorWrite {
    ConnectorWrite {
        name: NAME.into(),
        seen: 0,
        value: stored::Connector {
            uid: new.to_owned(),
            create_time: time(DELETED + 60),
            ..connector()
        },
        revision: Some(stored::Revision {
            principal: "p".to_owned(),
            ..Default::default()
        }),
        request,
    }
}

fn is_done(outcome: &ConnectorOutcome) -> bool {
    matches!(outcome, ConnectorOutcome::Done { replayed: false, .. })
}

async fn what_is_kept_is_listed_and_taken_over_once(backend: Backend) {
    let store = backend.store("retained").await;
    let adoption = kept(&store, 250).await;
    let all = store.list_retained().await.expect("a read");
    assert_eq!(
        (all.len(), &all[0].0, all[0].1.connector.as_str()),
        (1, &uid(), NAME)
    );
    assert_eq!(store.count_offsets(&uid()).await, Ok(250));

    // Two at once: one of them has it.
    let request = |id: &str| Request {
        method: "CreateConnector".into(),
        principal: "p".into(),
        id: id.into(),
        hash: [1; 32],
    };
    let (a, b) = (create("a", Some(request("1"))), create("b", Some(request("2"))));
    let other = ConnectorWrite {
        name: "other".into(),
        ..b
    };
    let (first, second) = tokio::join!(
        store.create_adopting(&a, &adoption),
        store.create_adopting(&other, &adoption)
    );
    let (first, second) = (first.expect("etcd answers"), second.expect("etcd answers"));
    assert_ne!(is_done(&first), is_done(&second), "{first:?} {second:?}");
    let new = Uid(if is_done(&first) { "a" } else { "b" }.into());
    let taken = positions(&store, &new).await;
    assert_eq!(
        (taken.len(), &taken[0].position, &taken[0].sink_state),
        (250, &map("offset", 5), &vec![3])
    );
    let listed = store.list_offsets(&new).await.expect("a read");
    let history = listed.head.map(|head| head.history.clone()).unwrap_or_default();
    assert_eq!(
        (history[0].kind.as_str(), history[0].principal.as_str()),
        ("ADOPT", "p")
    );
    assert_eq!(
        store.list(&Prefix::Offsets(uid())).await.expect("a read").values,
        []
    );
    assert_eq!(store.list_retained().await, Ok(vec![]));

    // The same request again: it has had its effect.
    if is_done(&first) {
        let again = store.create_adopting(&a, &adoption).await.expect("etcd answers");
        assert!(
            matches!(again, ConnectorOutcome::Done { replayed: true, .. }),
            "{again:?}"
        );
    }
    // Copies that nobody came to do not stay.
    store
        .sweep_retained(DELETED + 60 + 3600)
        .await
        .expect("etcd answers");
    assert_eq!(store.list(&Prefix::Retained).await.expect("a read").values, []);
    assert_eq!(positions(&store, &new).await.len(), 250);
}

async fn what_is_kept_goes_after_thirty_days(backend: Backend) {
    let store = backend.store("retained").await;
    kept(&store, 3).await;
    assert_eq!(store.sweep_retained(DELETED + KEPT_FOR_S - 1).await, Ok(0));
    assert_eq!(store.count_offsets(&uid()).await, Ok(3));
    assert_eq!(store.sweep_retained(DELETED + KEPT_FOR_S).await, Ok(1));
    assert_eq!(
        store.list(&Prefix::Offsets(uid())).await.expect("a read").values,
        []
    );
    assert_eq!(store.list_retained().await, Ok(vec![]));
}

async fn a_taken_name_takes_nothing_over(backend: Backend) {
    let store = backend.store("retained").await;
    let adoption = kept(&store, 3).await;
    put(&store, Key::Connector(NAME.into()), &connector()).await;
    let outcome = store
        .create_adopting(&create("a", None), &adoption)
        .await
        .expect("etcd answers");
    assert!(
        matches!(outcome, ConnectorOutcome::Conflict(Some(_))),
        "{outcome:?}"
    );
    assert_eq!(store.count_offsets(&uid()).await, Ok(3));
    assert_eq!(positions(&store, &Uid("a".into())).await, []);
}

async fn ten_thousand_partitions_change_together(backend: Backend) {
    const MANY: i64 = 10_000;
    let (store, faults) = backend.disturbed("many").await;
    let world = stopped(&store, MANY).await;
    let before = positions(&store, &uid()).await;
    assert_eq!(before.len(), 10_000);

    // The replica dies in the middle, for all that the store knows: nothing of it counts.
    let new = epoch(&world, head(&store).await, MANY, 6);
    faults.after("Txn", 50, Fault::LoseRequest);
    let outcome = store.flip_epoch(&new).await;
    assert!(matches!(outcome, Err(StoreError::Unknown { .. })), "{outcome:?}");
    assert_eq!(
        store.list_epoch(&uid(), 2).await.expect("a read").len(),
        4_900,
        "half of it is there"
    );
    assert_eq!(positions(&store, &uid()).await, before);

    assert_eq!(
        store.flip_epoch(&new).await,
        Ok(EpochOutcome::Conflict),
        "its claim is known to nobody"
    );
    let new = epoch(&world, head(&store).await, MANY, 6);
    assert_eq!(store.flip_epoch(&new).await, Ok(EpochOutcome::Done { epoch: 2 }));
    let after = positions(&store, &uid()).await;
    assert_eq!(after.len(), 10_000);
    assert!(after.iter().all(|record| record.position == map("offset", 6)));
    assert_eq!(
        store.list_epoch(&uid(), 1).await.expect("a read"),
        before,
        "it can be undone"
    );
}

async fn of_two_alterations_at_once_one_is_refused_whole(backend: Backend) {
    const MANY: i64 = 2_000;
    let store = backend.store("two").await;
    let world = stopped(&store, MANY).await;
    let head = head(&store).await;
    let (six, seven) = (epoch(&world, head.clone(), MANY, 6), epoch(&world, head, MANY, 7));
    let outcomes = tokio::join!(store.flip_epoch(&six), store.flip_epoch(&seven));
    let won = match outcomes {
        (Ok(EpochOutcome::Done { epoch: 2 }), Ok(EpochOutcome::Conflict)) => 6,
        (Ok(EpochOutcome::Conflict), Ok(EpochOutcome::Done { epoch: 2 })) => 7,
        other => panic!("{other:?}"),
    };
    let after = positions(&store, &uid()).await;
    assert_eq!(after.len(), 2_000);
    assert!(after.iter().all(|record| record.position == map("offset", won)));
}

async fn the_last_three_epochs_can_be_gone_back_to(backend: Backend) {
    let store = backend.store("epochs").await;
    let world = stopped(&store, 2).await;
    for n in 2..=6 {
        let new = epoch(&world, head(&store).await, 2, n);
        assert_eq!(store.flip_epoch(&new).await, Ok(EpochOutcome::Done { epoch: n }));
    }
    for n in 0..=7 {
        let there = !store.list_epoch(&uid(), n).await.expect("a read").is_empty();
        assert_eq!(there, n == 6 || is_kept(6, n), "{n}");
    }
    assert_eq!(
        (is_kept(6, 3), is_kept(6, 2), is_kept(6, 6), is_kept(0, -1)),
        (true, false, false, false)
    );
}

suite!(
    what_is_kept_is_listed_and_taken_over_once,
    what_is_kept_goes_after_thirty_days,
    a_taken_name_takes_nothing_over,
    ten_thousand_partitions_change_together,
    of_two_alterations_at_once_one_is_refused_whole,
    the_last_three_epochs_can_be_gone_back_to,
);
