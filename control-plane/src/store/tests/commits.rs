use std::time::Duration;

use gantry_proto::agent::v1::{TaskCommit, TaskCommitResult, task_commit_result::Outcome};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    fault::Fault,
    suite,
    support::{Backend, wall_clock},
    world::{World, commit, grant, grants, map, partition_commit, put, task, uid},
};
use crate::{
    domain::stored,
    store::{
        Committer, CommitterSettings, Key, MAX_PARTITIONS_PER_COMMIT, ReadOffsets, Store, partition_key,
    },
};

fn committer(store: &Store) -> Committer {
    Committer::spawn(
        store.clone(),
        wall_clock(),
        CommitterSettings::default(),
        CancellationToken::new(),
    )
}

fn outcomes(results: &[TaskCommitResult]) -> Vec<Outcome> {
    results.iter().map(TaskCommitResult::outcome).collect()
}

async fn position(store: &Store, n: u32) -> Option<(i64, i64)> {
    let key = Key::Offset(uid(), 0, partition_key(&map("file", i64::from(n))));
    let (record, _) = store.get::<stored::OffsetRecord>(&key).await.expect("a read");
    let record = record?;
    let at = (0..10_000)
        .find(|at| record.position == map("offset", *at))
        .expect("a position");
    Some((at, record.mod_revision))
}

async fn one_stale_fence_among_fifty_takes_no_other_with_it(backend: Backend) {
    let (store, faults) = backend.disturbed("commits").await;
    let mut fences = grants(&store, 50).await;
    fences[17] -= 1;
    let commits = fences
        .iter()
        .zip(0..)
        .map(|(fence, n)| commit(&task(n), *fence, 5, 0))
        .collect();
    let before = faults.calls("Txn");
    let results = committer(&store).commit(commits).await;
    for (n, result) in (0..).zip(&results) {
        let expected = if n == 17 { Outcome::Fenced } else { Outcome::Stored };
        assert_eq!(result.outcome(), expected, "task {n}: {}", result.message);
        assert_eq!(result.task.as_ref().map(|task| task.task), Some(n));
        let stored = (n != 17).then_some((5, result.revision));
        assert_eq!(position(&store, n).await, stored);
    }
    let transactions = faults.calls("Txn") - before;
    assert!(transactions <= 3, "{transactions} transactions for 50 tasks");
}

async fn many_agents_share_transactions(backend: Backend) {
    let (store, faults) = backend.disturbed("commits").await;
    let fences = grants(&store, 1000).await;
    let committer = committer(&store);
    let before = faults.calls("Txn");
    let agents: Vec<_> = (0..50_u32)
        .map(|agent| {
            let commits: Vec<TaskCommit> = (agent * 20..(agent + 1) * 20)
                .map(|n| commit(&task(n), fences[usize::try_from(n).expect("small")], 1, 0))
                .collect();
            let committer = committer.clone();
            tokio::spawn(async move { committer.commit(commits).await })
        })
        .collect();
    for agent in agents {
        let results = agent.await.expect("an agent");
        assert!(
            outcomes(&results)
                .iter()
                .all(|outcome| *outcome == Outcome::Stored)
        );
    }
    let transactions = faults.calls("Txn") - before;
    assert!(transactions <= 60, "{transactions} transactions for 1000 tasks");
}

async fn a_commit_whose_answer_is_lost_is_stored_once(backend: Backend) {
    let (store, faults) = backend.disturbed("commits").await;
    let fence = grants(&store, 1).await[0];
    let committer = committer(&store);
    faults.next("Txn", Fault::LoseAnswer);
    let first = committer.commit(vec![commit(&task(0), fence, 1, 0)]).await;
    assert_eq!(outcomes(&first), [Outcome::Stored]);
    assert_eq!(position(&store, 0).await, Some((1, first[0].revision)));
    // Its answer to the agent was lost as well, so the agent sends it again.
    let again = committer.commit(vec![commit(&task(0), fence, 1, 0)]).await;
    assert_eq!(
        (again[0].outcome(), again[0].revision),
        (Outcome::Stored, first[0].revision)
    );
    faults.next("Txn", Fault::LoseRequest);
    let second = committer
        .commit(vec![commit(&task(0), fence, 2, first[0].revision)])
        .await;
    assert_eq!(outcomes(&second), [Outcome::Stored]);
    assert_eq!(position(&store, 0).await, Some((2, second[0].revision)));
}

async fn a_commit_that_arrives_late_changes_nothing(backend: Backend) {
    let (store, faults) = backend.disturbed("commits").await;
    let fence = grants(&store, 1).await[0];
    let committer = committer(&store);
    let late = Duration::from_secs(1);
    faults.next("Txn", Fault::Late(late));
    let first = committer.commit(vec![commit(&task(0), fence, 1, 0)]).await;
    assert_eq!(outcomes(&first), [Outcome::Stored]);
    let second = committer
        .commit(vec![commit(&task(0), fence, 2, first[0].revision)])
        .await;
    assert_eq!(outcomes(&second), [Outcome::Stored]);
    sleep(late * 2).await;
    assert_eq!(position(&store, 0).await, Some((2, second[0].revision)));
}

async fn a_commit_that_arrives_after_its_task_was_given_away_is_refused(backend: Backend) {
    let store = backend.store("commits").await;
    let (old, faults) = backend.disturbed("commits").await;
    let fence = grants(&store, 1).await[0];
    let old = committer(&old);
    let first = old.commit(vec![commit(&task(0), fence, 1, 0)]).await;
    let late = Duration::from_secs(1);
    faults.next("Txn", Fault::LateAndLast(late));
    let sent = old.commit(vec![commit(&task(0), fence, 2, first[0].revision)]);
    let (sent, ()) = tokio::join!(sent, async {
        sleep(late / 2).await;
        put(&store, Key::Grant(task(0)), &grant("i2")).await;
    });
    assert_eq!(outcomes(&sent), [Outcome::Retry]);
    sleep(late * 2).await;
    assert_eq!(position(&store, 0).await, Some((1, first[0].revision)));
}

async fn a_commit_on_something_else_is_told_what_is_stored(backend: Backend) {
    let (store, _) = backend.disturbed("commits").await;
    let fences = grants(&store, 2).await;
    let committer = committer(&store);
    let first = committer.commit(vec![commit(&task(0), fences[0], 7, 0)]).await;
    let results = committer
        .commit(vec![
            commit(&task(0), fences[0], 9, 0),
            commit(&task(1), fences[1], 1, 0),
        ])
        .await;
    assert_eq!(outcomes(&results), [Outcome::Conflict, Outcome::Stored]);
    let stored = &results[0].stored;
    assert_eq!((stored.len(), stored[0].revision), (1, first[0].revision));
    assert_eq!(stored[0].position, map("offset", 7));
    assert_eq!(position(&store, 0).await, Some((7, first[0].revision)));
}

async fn all_partitions_of_a_task_are_stored_or_none(backend: Backend) {
    let (store, _) = backend.disturbed("commits").await;
    let fence = grants(&store, 1).await[0];
    let committer = committer(&store);
    let many = |count, position| TaskCommit {
        partitions: (0..count).map(|n| partition_commit(n, position, 0)).collect(),
        ..commit(&task(0), fence, 0, 0)
    };
    let most = i64::try_from(MAX_PARTITIONS_PER_COMMIT).expect("small");
    let mut results = committer.commit(vec![many(most, 1)]).await;
    assert_eq!(outcomes(&results), [Outcome::Stored]);
    // One partition was stored by an earlier run: none of the others moves.
    let mut mixed = many(3, 2);
    mixed.partitions[0].seen_revision = results[0].revision;
    mixed.partitions[1].seen_revision = results[0].revision;
    results = committer.commit(vec![mixed]).await;
    assert_eq!(outcomes(&results), [Outcome::Conflict]);
    assert_eq!(results[0].stored.len(), 3);
    assert!(
        results[0]
            .stored
            .iter()
            .all(|stored| stored.position == map("offset", 1))
    );
}

async fn what_is_too_large_is_refused_by_name(backend: Backend) {
    let (store, _) = backend.disturbed("commits").await;
    let fences = grants(&store, 5).await;
    let too_many = TaskCommit {
        partitions: (0..101).map(|n| partition_commit(n, 1, 0)).collect(),
        ..commit(&task(0), fences[0], 0, 0)
    };
    let mut sink_state = commit(&task(1), fences[1], 1, 0);
    sink_state.partitions[0].sink_state = vec![0; 4097];
    let mut position = commit(&task(2), fences[2], 1, 0);
    let text = gantry_proto::v1::value::Kind::StringValue("x".repeat(70_000));
    position.partitions[0]
        .position
        .insert("p".to_owned(), gantry_proto::v1::Value { kind: Some(text) });
    let wrong_epoch = TaskCommit {
        epoch: 3,
        ..commit(&task(3), fences[3], 1, 0)
    };
    let good = commit(&task(4), fences[4], 1, 0);
    let no_right = commit(&task(5), 0, 1, 0);
    let commits = vec![too_many, sink_state, position, wrong_epoch, good, no_right];
    let results = committer(&store).commit(commits).await;
    let invalid = Outcome::Invalid;
    assert_eq!(
        outcomes(&results),
        [
            invalid,
            invalid,
            invalid,
            invalid,
            Outcome::Stored,
            Outcome::Fenced
        ]
    );
    for (result, says) in results
        .iter()
        .zip(["101 partitions", "4097 bytes", "bytes, at most", "epoch 3"])
    {
        assert!(result.message.contains(says), "{}", result.message);
    }
}

async fn a_task_starts_from_all_partitions_of_the_present_epoch(backend: Backend) {
    let (store, _) = backend.disturbed("commits").await;
    let world = World::new(store.clone()).await;
    let ReadOffsets::Read {
        epoch: 0,
        head_revision: 0,
        offsets,
        ..
    } = store
        .read_offsets(&task(0), world.grant)
        .await
        .expect("etcd answers")
    else {
        panic!("the fence holds");
    };
    assert!(offsets.is_empty());
    let head = stored::OffsetsHead {
        epoch: 4,
        ..Default::default()
    };
    let head_revision = put(&store, Key::OffsetsHead(uid()), &head).await;
    let committer = committer(&store);
    for chunk in 0..12 {
        let partitions = (chunk * 100..(chunk + 1) * 100)
            .map(|n| partition_commit(n, 3, 0))
            .collect();
        let commit = TaskCommit {
            epoch: 4,
            head_revision,
            partitions,
            ..commit(&task(0), world.grant, 0, 0)
        };
        assert_eq!(outcomes(&committer.commit(vec![commit]).await), [Outcome::Stored]);
    }
    let read = store
        .read_offsets(&task(0), world.grant)
        .await
        .expect("etcd answers");
    let ReadOffsets::Read {
        epoch,
        head_revision: read_head,
        offsets,
        ..
    } = read
    else {
        panic!("the fence holds");
    };
    assert_eq!((epoch, read_head, offsets.len()), (4, head_revision, 1200));
    let listed = store.list_offsets(&uid()).await.expect("etcd answers");
    assert_eq!((listed.epoch(), listed.records.len()), (4, 1200));
    assert!(
        listed
            .records
            .iter()
            .all(|record| record.size > 0 && record.record.time.is_some())
    );
    assert_eq!(
        store.read_offsets(&task(0), world.grant - 1).await,
        Ok(ReadOffsets::Fenced)
    );
    assert_eq!(store.read_offsets(&task(1), 0).await, Ok(ReadOffsets::Fenced));
}

#[tokio::test(start_paused = true)]
async fn a_record_remembers_where_it_was_over_restarts_of_the_replica() {
    let backend = Backend::embedded();
    let store = backend.store("commits").await;
    let fence = grants(&store, 1).await[0];
    let clock = wall_clock();
    let mut seen = 0;
    for at in 1..40 {
        // A new replica each time, which has to read the record before it writes the next one.
        let settings = CommitterSettings::default();
        let committer = Committer::spawn(store.clone(), clock.clone(), settings, CancellationToken::new());
        let result = committer
            .commit(vec![commit(&task(0), fence, at, seen)])
            .await
            .remove(0);
        assert_eq!(result.outcome(), Outcome::Stored);
        seen = result.revision;
        sleep(Duration::from_secs(61)).await;
    }
    let listed = store.list_offsets(&uid()).await.expect("a read");
    let history = &listed.records[0].record.history;
    assert_eq!(history.len(), 10);
    assert_eq!(
        history.first().map(|past| past.position.clone()),
        Some(map("offset", 1))
    );
    assert_eq!(
        history.last().map(|past| past.position.clone()),
        Some(map("offset", 38))
    );
}

suite!(
    one_stale_fence_among_fifty_takes_no_other_with_it,
    many_agents_share_transactions,
    a_commit_whose_answer_is_lost_is_stored_once,
    a_commit_that_arrives_late_changes_nothing,
    a_commit_that_arrives_after_its_task_was_given_away_is_refused,
    a_commit_on_something_else_is_told_what_is_stored,
    all_partitions_of_a_task_are_stored_or_none,
    what_is_too_large_is_refused_by_name,
    a_task_starts_from_all_partitions_of_the_present_epoch,
);
