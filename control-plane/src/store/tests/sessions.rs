use std::time::Duration;

use gantry_proto::v1::task::State;
use tokio::time::sleep;

use super::{
    fault::Fault,
    suite,
    support::Backend,
    world::{AGENT, World, grants, instance, put, session, status, task},
};
use crate::{
    domain::{Snapshot, stored},
    store::{
        Key, StoreError,
        sessions::{Expected, SessionWrite, StatusOutcome, StatusWrite, Stopped},
    },
};

fn written(write: Result<SessionWrite, StoreError>) -> Expected {
    match write {
        Ok(SessionWrite::Written(expected)) => expected,
        other => panic!("{other:?}"),
    }
}

async fn an_agent_is_accepted_marked_silent_moved_and_removed(backend: Backend) {
    let store = backend.store("sessions").await;
    let lease = async || {
        backend
            .client()
            .await
            .lease_grant(60, None)
            .await
            .expect("a lease")
            .id()
    };
    let (first, second) = (lease().await, lease().await);
    let none = store.read_agent(AGENT).await.expect("a read");
    assert_eq!(none.expected(), Expected::default());
    let accepted = written(
        store
            .write_session(AGENT, none.expected(), &instance(1), &session(1), first)
            .await,
    );
    let silent = stored::Session {
        silent: true,
        ..session(1)
    };
    let marked = written(
        store
            .write_session(AGENT, accepted, &instance(1), &silent, first)
            .await,
    );
    assert!(
        marked.instance > accepted.instance,
        "whoever judged by the instance finds out"
    );
    let moved = written(
        store
            .write_session(AGENT, marked, &instance(1), &session(1), second)
            .await,
    );
    assert_eq!(
        store.read_agent(AGENT).await.expect("a read").session_lease,
        second
    );
    backend
        .client()
        .await
        .lease_revoke(first)
        .await
        .expect("a revocation");
    assert_eq!(
        store.read_agent(AGENT).await.expect("a read").expected(),
        moved,
        "it hangs on the second lease"
    );
    // The lease ends: the session goes, the instance stays.
    backend
        .client()
        .await
        .lease_revoke(second)
        .await
        .expect("a revocation");
    let SessionWrite::Conflict(keys) = store
        .write_session(AGENT, moved, &instance(1), &session(1), lease().await)
        .await
        .expect("etcd answers")
    else {
        panic!("the session has gone")
    };
    assert_eq!(
        keys.expected(),
        Expected {
            instance: moved.instance,
            session: 0
        }
    );
    let again = store
        .write_session(AGENT, keys.expected(), &instance(1), &session(1), second)
        .await;
    assert_eq!(again, Err(StoreError::LeaseGone));
    let third = lease().await;
    let back = written(
        store
            .write_session(AGENT, keys.expected(), &instance(1), &session(1), third)
            .await,
    );
    let removed = written(store.remove_session(AGENT, back, &instance(1)).await);
    assert_eq!(removed.session, 0);
    let keys = store.read_agent(AGENT).await.expect("a read");
    assert_eq!((keys.expected(), keys.session), (removed, None));
}

async fn an_accepted_hello_whose_answer_is_lost_is_known_as_accepted(backend: Backend) {
    let (store, faults) = backend.disturbed("sessions").await;
    let lease = backend
        .client()
        .await
        .lease_grant(60, None)
        .await
        .expect("a lease")
        .id();
    faults.next("Txn", Fault::LoseAnswer);
    let accepted = written(
        store
            .write_session(AGENT, Expected::default(), &instance(1), &session(1), lease)
            .await,
    );
    assert_eq!(
        store.read_agent(AGENT).await.expect("a read").expected(),
        accepted
    );
    faults.next("Txn", Fault::LoseRequest);
    let next = written(
        store
            .write_session(AGENT, accepted, &instance(2), &session(2), lease)
            .await,
    );
    assert!(next.instance > accepted.instance);
    faults.next("Txn", Fault::Late(Duration::from_secs(1)));
    let last = written(
        store
            .write_session(AGENT, next, &instance(3), &session(3), lease)
            .await,
    );
    sleep(Duration::from_secs(2)).await;
    assert_eq!(
        store.read_agent(AGENT).await.expect("a read").expected(),
        last,
        "the late one changed nothing"
    );
    faults.next("Txn", Fault::LoseAnswer);
    let removed = written(store.remove_session(AGENT, last, &instance(3)).await);
    assert_eq!(store.read_agent(AGENT).await.expect("a read").expected(), removed);
    // Another hello was accepted in between, and its answer is not taken for ours.
    let other = written(
        store
            .write_session(AGENT, removed, &instance(9), &session(9), lease)
            .await,
    );
    let refused = store
        .write_session(AGENT, removed, &instance(4), &session(4), lease)
        .await;
    let Ok(SessionWrite::Conflict(keys)) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(keys.expected(), other);
}

async fn one_refused_status_takes_no_other_with_it(backend: Backend) {
    let (store, faults) = backend.disturbed("sessions").await;
    let fences = grants(&store, 130).await;
    let stored = put(&store, Key::Status(task(40)), &status(State::Running, 3)).await;
    let write = |n: u32, state| StatusWrite {
        task: task(n),
        fence: fences[usize::try_from(n).expect("small")],
        seen: 0,
        status: status(state, 1),
    };
    let mut writes: Vec<_> = (0..130).map(|n| write(n, State::Running)).collect();
    writes[7].fence -= 1;
    writes.push(StatusWrite {
        fence: 0,
        ..write(129, State::Failed)
    });
    writes.push(write(5, State::Failed));
    let before = faults.calls("Txn");
    let outcomes = store.write_statuses(&writes).await;
    for (n, outcome) in outcomes.iter().enumerate() {
        match n {
            7 | 130 => assert_eq!(*outcome, StatusOutcome::Fenced),
            40 => {
                assert!(
                    matches!(outcome, StatusOutcome::Conflict(Some(last)) if last.mod_revision == stored)
                );
            }
            131 => assert!(
                matches!(outcome, StatusOutcome::Retry(_)),
                "a task is named twice"
            ),
            _ => assert!(matches!(outcome, StatusOutcome::Stored(_)), "{n}: {outcome:?}"),
        }
    }
    let transactions = faults.calls("Txn") - before;
    assert!(transactions <= 5, "{transactions} transactions for 130 statuses");
    faults.next("Txn", Fault::LoseAnswer);
    let StatusOutcome::Stored(seen) = outcomes[0] else {
        panic!("it was stored")
    };
    let next = StatusWrite {
        seen,
        status: status(State::Failed, 2),
        ..writes[0].clone()
    };
    let outcomes = store.write_statuses(std::slice::from_ref(&next)).await;
    let (present, _) = store
        .get::<stored::Status>(&Key::Status(task(0)))
        .await
        .expect("a read");
    let present = present.expect("a status");
    assert_eq!(outcomes, [StatusOutcome::Stored(present.mod_revision)]);
    assert_eq!(present.state, i32::from(State::Failed));
}

async fn a_goodbye_ends_its_tasks_whatever_they_last_said(backend: Backend) {
    let store = backend.store("sessions").await;
    let fences = grants(&store, 3).await;
    put(
        &store,
        Key::Status(task(1)),
        &stored::Status {
            restart_nonce: "n".to_owned(),
            ..status(State::Running, 9)
        },
    )
    .await;
    let stopped: Vec<_> = (0..3)
        .map(|n| Stopped {
            task: task(n),
            fence: fences[usize::try_from(n).expect("small")] - i64::from(n == 2),
        })
        .collect();
    // The mirror has not seen the status of task 1 yet.
    let known = Snapshot::default().statuses;
    let outcomes = store
        .write_stopped(AGENT, "i1", Default::default(), &known, &stopped)
        .await;
    assert!(
        matches!(
            outcomes.as_slice(),
            [
                StatusOutcome::Stored(_),
                StatusOutcome::Stored(_),
                StatusOutcome::Fenced
            ]
        ),
        "{outcomes:?}"
    );
    let (present, _) = store
        .get::<stored::Status>(&Key::Status(task(1)))
        .await
        .expect("a read");
    let present = present.expect("a status");
    assert_eq!(
        (present.state, present.fence),
        (i32::from(State::Stopped), fences[1])
    );
    assert_eq!((present.restart_nonce.as_str(), present.want_revision), ("n", 0));
}

async fn questions_and_answers_go_by_themselves(backend: Backend) {
    let store = backend.store("sessions").await;
    store
        .put_ask(AGENT, "a1", &stored::AskRecord::default())
        .await
        .expect("a write");
    store
        .put_ask(AGENT, "a2", &stored::AskRecord::default())
        .await
        .expect("a write");
    store
        .put_answer(AGENT, "a1", &stored::AnswerRecord::default())
        .await
        .expect("a write");
    let there = async |key: Key| store.get_raw(&key).await.expect("a read").0.is_some();
    assert!(
        !there(Key::Ask(AGENT.into(), "a1".into())).await,
        "it is answered"
    );
    assert!(there(Key::Answer("a1".into())).await);
    if !backend.is_real() {
        sleep(Duration::from_secs(29)).await;
        assert!(there(Key::Ask(AGENT.into(), "a2".into())).await);
        sleep(Duration::from_secs(35)).await;
        assert!(!there(Key::Ask(AGENT.into(), "a2".into())).await && !there(Key::Answer("a1".into())).await);
    }
    let config = gantry_proto::agent::v1::Ask {
        namesrv: "x".repeat(300 << 10),
        ..Default::default()
    };
    let large = stored::AskRecord {
        ask: Some(config),
        ..Default::default()
    };
    let refused = store.put_ask(AGENT, "a3", &large).await;
    assert!(matches!(refused, Err(StoreError::TooLarge { .. })), "{refused:?}");
}

async fn plugins_are_stored_once_and_replicas_on_their_lease(backend: Backend) {
    let (store, faults) = backend.disturbed("sessions").await;
    let record = |hash: &str| stored::PluginRecord {
        plugin: Some(gantry_proto::v1::Plugin {
            name: "plugins/file-source".to_owned(),
            version: "1.0.0".to_owned(),
            ..Default::default()
        }),
        hash: hash.to_owned(),
        ..Default::default()
    };
    let mut snapshot = Snapshot::default();
    store
        .put_plugins(&snapshot, &[record("a")])
        .await
        .expect("a write");
    let key = Key::Plugin("file-source".into(), "1.0.0".into());
    let id = ("file-source".into(), "1.0.0".into());
    let (present, _) = store.get::<stored::PluginRecord>(&key).await.expect("a read");
    snapshot.plugins.insert(id, present.expect("a plugin"));
    let before = faults.calls("Txn");
    store
        .put_plugins(&snapshot, &[record("a")])
        .await
        .expect("nothing to write");
    assert_eq!(faults.calls("Txn"), before);
    store
        .put_plugins(&snapshot, &[record("b")])
        .await
        .expect("a write");
    let (present, _) = store.get::<stored::PluginRecord>(&key).await.expect("a read");
    assert_eq!(present.map(|present| present.hash.clone()), Some("b".to_owned()));
    let lease = backend
        .client()
        .await
        .lease_grant(60, None)
        .await
        .expect("a lease")
        .id();
    store
        .put_replica("r1", &stored::Replica::default(), lease)
        .await
        .expect("a write");
    let (replica, _) = store.get_raw(&Key::Replica("r1".into())).await.expect("a read");
    assert_eq!(replica.map(|replica| replica.lease), Some(lease));
}

async fn what_a_later_version_wrote_is_not_rewritten(backend: Backend) {
    let store = backend.store("sessions").await;
    let world = World::new(store.clone()).await;
    let later = |bytes: Vec<u8>| [bytes, vec![8, 2, 0xf8, 0x07, 1]].concat();
    let put_later = async |key: Key| {
        let raw = store.get_raw(&key).await.expect("a read").0.expect("a value");
        let outcome = store
            .guarded()
            .put_bytes(&key, later(raw.value), 0)
            .run()
            .await
            .expect("a write");
        outcome.revision
    };
    let seen = put_later(Key::Status(task(0))).await;
    let write = StatusWrite {
        task: task(0),
        fence: world.grant,
        seen: seen - 1,
        status: status(State::Failed, 0),
    };
    let outcomes = store.write_statuses(&[write]).await;
    assert!(
        matches!(
            &outcomes[0],
            StatusOutcome::Retry(StoreError::NewerFormat { format: 2, .. })
        ),
        "{outcomes:?}"
    );
    put_later(Key::Want(task(0))).await;
    let mirror = crate::store::Mirror::spawn(store.clone(), Default::default());
    super::support::caught_up(&mirror, &store).await;
    let leader = crate::store::LeaderStore::new(store.clone(), mirror.clone(), world.term);
    let guard = crate::plan::TaskGuard {
        want: mirror.read(|snapshot| snapshot.wants[&task(0)].mod_revision),
        ..world.guard()
    };
    let refused = leader.set_want(&task(0), &guard, &super::world::want("n2")).await;
    assert!(
        matches!(refused, Err(StoreError::NewerFormat { .. })),
        "{refused:?}"
    );
}

suite!(
    an_agent_is_accepted_marked_silent_moved_and_removed,
    an_accepted_hello_whose_answer_is_lost_is_known_as_accepted,
    one_refused_status_takes_no_other_with_it,
    a_goodbye_ends_its_tasks_whatever_they_last_said,
    questions_and_answers_go_by_themselves,
    plugins_are_stored_once_and_replicas_on_their_lease,
    what_a_later_version_wrote_is_not_rewritten,
);
