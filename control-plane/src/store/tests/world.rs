//! A small cluster: one leader, one connector, one task with a grant, its offsets and its agent.

use std::sync::Arc;

use gantry_proto::{
    agent::v1::{LockIdentity, PartitionCommit, TaskCommit, task_assignment},
    v1::{Connector, RecordCounts, Value, task::State, value::Kind},
};

use crate::{
    domain::{TaskId, Uid, stored},
    plan::TaskGuard,
    store::{Key, Partition, Store},
};

pub(crate) const NAME: &str = "orders";
pub(crate) const AGENT: &str = "agent-1";

pub(crate) fn uid() -> Uid {
    Uid("0011223344556677".into())
}

pub(crate) fn task(n: u32) -> TaskId {
    TaskId { uid: uid(), n }
}

/// The store's state, as revisions to compare.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) term: i64,
    pub(crate) spec: i64,
    pub(crate) pointer: i64,
    pub(crate) grant: i64,
    pub(crate) want: i64,
    pub(crate) status: i64,
    pub(crate) instance: i64,
    pub(crate) session: i64,
}

impl World {
    pub(crate) async fn new(store: Store) -> Self {
        let term = put(&store, Key::Leader, &leader("a")).await;
        let spec = put(&store, Key::Connector(NAME.into()), &connector()).await;
        let pointer = put(&store, Key::PlanPointer(uid()), &pointer(1)).await;
        let grant = put(&store, Key::Grant(task(0)), &grant("i1")).await;
        let want = put(&store, Key::Want(task(0)), &want("n1")).await;
        let status = put(&store, Key::Status(task(0)), &status(State::Running, 0)).await;
        let instance = put(&store, Key::Instance(AGENT.into()), &instance(1)).await;
        let session = put(&store, Key::Session(AGENT.into()), &session(1)).await;
        Self {
            store,
            term,
            spec,
            pointer,
            grant,
            want,
            status,
            instance,
            session,
        }
    }

    /// What rests on the present state of task 0.
    pub(crate) fn guard(&self) -> TaskGuard {
        TaskGuard {
            connector: NAME.to_owned(),
            spec: self.spec,
            pointer: self.pointer,
            grant: self.grant,
            want: self.want,
            instance: None,
            status: None,
        }
    }

    /// The same when its right has ended because the holder is gone.
    pub(crate) fn guard_gone(&self) -> TaskGuard {
        TaskGuard {
            instance: Some((AGENT.to_owned(), self.instance)),
            ..self.guard()
        }
    }

    /// The same when its right has ended because the holder confirmed.
    pub(crate) fn guard_confirmed(&self) -> TaskGuard {
        TaskGuard {
            status: Some(self.status),
            ..self.guard()
        }
    }

    /// Revision of the last write of a key; 0: there is none.
    pub(crate) async fn revision(&self, key: &Key) -> i64 {
        self.store
            .get_raw(key)
            .await
            .expect("a read")
            .0
            .map_or(0, |raw| raw.mod_revision)
    }

    /// Writes a key anew with what it holds.
    pub(crate) async fn touch(&self, key: &Key) {
        let raw = self.store.get_raw(key).await.expect("a read").0.expect("a value");
        let outcome = self
            .store
            .guarded()
            .put_bytes(key, raw.value, raw.lease)
            .run()
            .await
            .expect("a write");
        assert!(outcome.applied);
    }
}

/// Writes a key without any guard. Returns the revision.
pub(crate) async fn put<T: crate::store::codec::Stored + Clone>(store: &Store, key: Key, value: &T) -> i64 {
    store
        .guarded()
        .put(&key, value)
        .run()
        .await
        .expect("a write")
        .revision
}

pub(crate) async fn delete(store: &Store, key: Key) {
    assert!(store.guarded().delete(&key).run().await.expect("a write").applied);
}

pub(crate) fn leader(incarnation: &str) -> stored::Leader {
    stored::Leader {
        replica: "r1".to_owned(),
        incarnation: incarnation.to_owned(),
        ..Default::default()
    }
}

pub(crate) fn connector() -> stored::Connector {
    stored::Connector {
        uid: uid().to_string(),
        definition: Some(Connector {
            name: format!("connectors/{NAME}"),
            tasks_max: 1,
            ..Default::default()
        }),
        generation: 1,
        revision: 1,
        ..Default::default()
    }
}

pub(crate) fn pointer(plan_generation: i64) -> stored::PlanPointer {
    stored::PlanPointer {
        plan_generation,
        tasks: 1,
        generation: 1,
        ..Default::default()
    }
}

pub(crate) fn grant(instance_uid: &str) -> stored::Grant {
    stored::Grant {
        agent: AGENT.to_owned(),
        instance_uid: instance_uid.to_owned(),
        plan_generation: 1,
        ..Default::default()
    }
}

pub(crate) fn want(nonce: &str) -> stored::Want {
    stored::Want {
        want: task_assignment::Want::Run.into(),
        restart_nonce: nonce.to_owned(),
        plan_generation: 1,
        ..Default::default()
    }
}

pub(crate) fn status(state: State, want_revision: i64) -> stored::Status {
    stored::Status {
        agent: AGENT.to_owned(),
        want_revision,
        state: state.into(),
        ..Default::default()
    }
}

pub(crate) fn instance(dial_counter: u64) -> stored::Instance {
    stored::Instance {
        instance_uid: "i1".to_owned(),
        lock: Some(LockIdentity {
            boot_id: "boot".to_owned(),
            device: 1,
            inode: 2,
        }),
        start_counter: 1,
        dial_counter,
        ..Default::default()
    }
}

pub(crate) fn session(dial_counter: u64) -> stored::Session {
    stored::Session {
        instance_uid: "i1".to_owned(),
        replica: "r1".to_owned(),
        dial_counter,
        start_counter: 1,
        ..Default::default()
    }
}

pub(crate) fn value(number: i64) -> Value {
    Value {
        kind: Some(Kind::Int64Value(number)),
    }
}

pub(crate) fn map(name: &str, number: i64) -> Partition {
    [(name.to_owned(), value(number))].into()
}

/// A commit of one task with one partition, named after the task.
pub(crate) fn commit(task: &TaskId, fence: i64, position: i64, seen_revision: i64) -> TaskCommit {
    TaskCommit {
        connector_uid: task.uid.to_string(),
        task: task.n,
        fence,
        epoch: 0,
        head_revision: 0,
        partitions: vec![partition_commit(i64::from(task.n), position, seen_revision)],
    }
}

pub(crate) fn partition_commit(partition: i64, position: i64, seen_revision: i64) -> PartitionCommit {
    let done = u64::try_from(position).expect("a position");
    PartitionCommit {
        partition: map("file", partition),
        position: map("offset", position),
        sink_state: Vec::new(),
        counts: Some(RecordCounts {
            r#in: done,
            out: done,
            ..Default::default()
        }),
        seen_revision,
    }
}

/// Gives tasks 0 to `count` of the connector a grant each. Returns their fences.
pub(crate) async fn grants(store: &Store, count: u32) -> Vec<i64> {
    let mut fences = Vec::new();
    for n in 0..count {
        fences.push(put(store, Key::Grant(task(n)), &grant("i1")).await);
    }
    fences
}

/// Names for things that differ only by number.
pub(crate) fn name(prefix: &str, number: usize) -> Arc<str> {
    format!("{prefix}-{number}").into()
}
