//! What goes on meanwhile: tasks that commit, a user who edits, keys that come and go.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use gantry_control_plane::{
    domain::{TaskId, Uid, stored},
    store::{
        Committer, CommitterSettings, Key, Store, StoreError, WallClock,
        connectors::{ConnectorOutcome, ConnectorWrite, Request},
        partition_key,
    },
};
use gantry_proto::{
    agent::v1::{PartitionCommit, TaskCommit, TaskCommitResult, task_commit_result::Outcome},
    v1::{Connector, RecordCounts, Value, value::Kind},
};
use tokio::{task::JoinHandle, time::interval};
use tokio_util::sync::CancellationToken;

use crate::{eventually, observer};

const AGENTS: u32 = 4;
const TASKS_OF_AN_AGENT: u32 = 25;
const CONNECTOR: &str = "orders";
/// Each part of the load does something this often.
const PACE: Duration = Duration::from_millis(20);

#[derive(Default)]
struct Counts {
    stored: AtomicU64,
    /// Commits that were answered with RETRY.
    retried: AtomicU64,
    edits: AtomicU64,
    pairs: AtomicU64,
    /// Writes that ended in an error.
    errors: AtomicU64,
}

/// Runs until [`finish`](Self::finish).
pub(crate) struct Load {
    store: Store,
    counts: Arc<Counts>,
    parts: Vec<JoinHandle<()>>,
    edits: JoinHandle<i64>,
    /// Ends the parts after what they are doing.
    stop: CancellationToken,
    /// Ends the committer.
    end: CancellationToken,
}

impl Load {
    pub(crate) async fn start(store: Store, seed: u64) -> Self {
        let (counts, stop, end) = (
            Arc::new(Counts::default()),
            CancellationToken::new(),
            CancellationToken::new(),
        );
        let time: WallClock = Arc::new(pbjson_types::Timestamp::default);
        let committer = Committer::spawn(store.clone(), time, CommitterSettings::default(), end.clone());
        let mut parts = Vec::new();
        for agent in 0..AGENTS {
            let tasks = Tasks::granted(&store, agent).await;
            let (committer, counts, stop) = (committer.clone(), counts.clone(), stop.clone());
            parts.push(tokio::spawn(tasks.commit(store.clone(), committer, counts, stop)));
        }
        let edits = tokio::spawn(edit(store.clone(), seed, counts.clone(), stop.clone()));
        parts.push(tokio::spawn(pairs(store.clone(), counts.clone(), stop.clone())));
        Self {
            store,
            counts,
            parts,
            edits,
            stop,
            end,
        }
    }

    pub(crate) fn stored(&self) -> u64 {
        self.counts.stored.load(Ordering::Relaxed)
    }

    /// Waits until so many more commits are stored.
    pub(crate) async fn advances(&self, commits: u64, when: &str) {
        let target = self.stored() + commits;
        eventually(&format!("{commits} commits {when}"), async || {
            self.stored() >= target
        })
        .await;
    }

    /// Ends it and looks at what is stored.
    pub(crate) async fn finish(self) -> impl fmt::Display {
        self.stop.cancel();
        for part in self.parts {
            part.await.expect("no part of the load has failed");
        }
        let acknowledged = self.edits.await.expect("no edit was lost");
        eventually("the last edit is there", async || {
            let read = self.store.read_connector(CONNECTOR).await;
            read.is_ok_and(|(now, _)| now.is_some_and(|c| c.generation >= acknowledged))
        })
        .await;
        self.end.cancel();
        let count = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let c = &self.counts;
        format!(
            "{} commits stored, {} tried again; {} edits; {} pairs written; {} errors",
            count(&c.stored),
            count(&c.retried),
            count(&c.edits),
            count(&c.pairs),
            count(&c.errors)
        )
    }
}

/// The tasks of an agent, and how far each is: its line, and the revision at which that was stored.
struct Tasks {
    fences: BTreeMap<u32, i64>,
    at: BTreeMap<u32, (i64, i64)>,
}

impl Tasks {
    async fn granted(store: &Store, agent: u32) -> Self {
        let mut tasks = Self {
            fences: BTreeMap::new(),
            at: BTreeMap::new(),
        };
        let first = agent * TASKS_OF_AN_AGENT;
        for n in first..first + TASKS_OF_AN_AGENT {
            let grant = stored::Grant {
                agent: format!("a{agent}"),
                ..stored::Grant::default()
            };
            let granted = store.guarded().put(&Key::Grant(task(n)), &grant).run().await;
            tasks
                .fences
                .insert(n, granted.expect("all members are there").revision);
            tasks.at.insert(n, (0, 0));
        }
        tasks
    }

    async fn commit(
        mut self,
        store: Store,
        committer: Committer,
        counts: Arc<Counts>,
        stop: CancellationToken,
    ) {
        let mut pace = interval(PACE);
        let mut unsettled = true;
        // What was answered with RETRY is settled before the end.
        while unsettled || !stop.is_cancelled() {
            pace.tick().await;
            let commits = self.fences.keys().map(|n| self.next(*n)).collect();
            unsettled = false;
            for result in committer.commit(commits).await {
                match result.outcome() {
                    Outcome::Stored => {
                        counts.stored.fetch_add(1, Ordering::Relaxed);
                        self.stored(&result);
                    }
                    Outcome::Retry => {
                        counts.retried.fetch_add(1, Ordering::Relaxed);
                        unsettled = true;
                    }
                    // Nobody else writes these records.
                    other => panic!("{other:?}: {result:?}"),
                }
            }
        }
        for (n, (line, revision)) in &self.at {
            let key = Key::Offset(uid(), 0, partition_key(&field("p", i64::from(*n))));
            let (record, _) = store.get::<stored::OffsetRecord>(&key).await.expect("a read");
            let record = record.expect("it was committed");
            assert_eq!(record.position, field("line", *line), "task {n}");
            assert_eq!(record.mod_revision, *revision, "task {n}: stored once");
        }
    }

    fn next(&self, n: u32) -> TaskCommit {
        let (line, revision) = self.at[&n];
        let partition = PartitionCommit {
            partition: field("p", i64::from(n)),
            position: field("line", line + 1),
            seen_revision: revision,
            counts: Some(RecordCounts {
                r#in: line.unsigned_abs() + 1,
                ..RecordCounts::default()
            }),
            ..PartitionCommit::default()
        };
        TaskCommit {
            connector_uid: uid().to_string(),
            task: n,
            fence: self.fences[&n],
            partitions: vec![partition],
            ..TaskCommit::default()
        }
    }

    fn stored(&mut self, result: &TaskCommitResult) {
        let n = result.task.as_ref().expect("a task").task;
        let (line, revision) = self.at.get_mut(&n).expect("one of these");
        assert!(result.revision > *revision, "task {n} went back");
        (*line, *revision) = (*line + 1, result.revision);
    }
}

/// A user who changes one connector again and again, each change a request of its own. Returns the last generation that was
/// acknowledged.
async fn edit(store: Store, seed: u64, counts: Arc<Counts>, stop: CancellationToken) -> i64 {
    let mut pace = interval(PACE);
    let mut acknowledged = 0;
    let (mut present, mut seen) = (None::<stored::Connector>, 0);
    while !stop.is_cancelled() {
        pace.tick().await;
        let edits = counts.edits.fetch_add(1, Ordering::Relaxed);
        let generation = present.as_ref().map_or(0, |c| c.generation) + 1;
        let definition = Connector {
            topic: format!("t{generation}"),
            ..Connector::default()
        };
        let value = stored::Connector {
            uid: uid().to_string(),
            definition: Some(definition.clone()),
            generation,
            revision: generation,
            ..stored::Connector::default()
        };
        let write = ConnectorWrite {
            name: CONNECTOR.into(),
            seen,
            value,
            revision: Some(stored::Revision {
                definition: Some(definition),
                ..stored::Revision::default()
            }),
            request: Some(Request {
                method: "UpdateConnector".into(),
                principal: "user".into(),
                id: format!("{seed}-{edits}").into(),
                hash: [0; 32],
            }),
        };
        let now = match store.write_connector(&write).await {
            Ok(ConnectorOutcome::Done { connector, .. }) => {
                acknowledged = generation;
                connector
            }
            Ok(ConnectorOutcome::Conflict(now)) => now,
            Ok(ConnectorOutcome::Reused) => panic!("the id is new"),
            Err(error) => {
                may_fail(&error);
                counts.errors.fetch_add(1, Ordering::Relaxed);
                match store.read_connector(CONNECTOR).await {
                    Ok((now, _)) => now,
                    Err(_) => continue,
                }
            }
        };
        let stored = now.as_ref().map_or(0, |c| c.generation);
        assert!(
            stored >= acknowledged,
            "{acknowledged} was acknowledged, {stored} is stored"
        );
        seen = now.as_ref().map_or(0, |c| c.mod_revision);
        present = now.map(|c| (*c.value).clone());
    }
    acknowledged
}

/// Writes and removes grant and want of tasks, the two always together.
async fn pairs(store: Store, counts: Arc<Counts>, stop: CancellationToken) {
    let mut pace = interval(PACE / 4);
    while !stop.is_cancelled() {
        pace.tick().await;
        let written = counts.pairs.fetch_add(1, Ordering::Relaxed);
        let task = task(observer::PAIRS + (written % 50) as u32);
        let (grant, want) = (Key::Grant(task.clone()), Key::Want(task));
        let txn = if written.is_multiple_of(11) {
            store.guarded().delete(&grant).delete(&want)
        } else {
            let (g, w) = (stored::Grant::default(), stored::Want::default());
            store.guarded().put(&grant, &g).put(&want, &w)
        };
        if let Err(error) = txn.run().await {
            may_fail(&error);
            counts.errors.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn may_fail(error: &StoreError) {
    assert!(error.is_temporary(), "{error:?}");
}

pub(crate) fn uid() -> Uid {
    Uid("0011223344556677".into())
}

fn task(n: u32) -> TaskId {
    TaskId { uid: uid(), n }
}

fn field(name: &str, n: i64) -> BTreeMap<String, Value> {
    let kind = Some(Kind::Int64Value(n));
    BTreeMap::from([(name.to_owned(), Value { kind })])
}
