use prost::Message;

use super::{
    Expect, Guarded, Key, Mirror, Prefix, Store, StoreError,
    codec::{FORMAT, Stored, rewritable},
};
use crate::{
    domain::{TaskId, Uid, Versioned, stored},
    plan::{Action, Ended, Rev, TaskGuard},
};

/// Operations and bytes of one transaction of a plan's task configs. etcd takes 128 and 1.5 MiB.
const CHUNK_OPS: usize = 100;
const CHUNK_BYTES: usize = 1 << 20;
/// Largest task config in bytes.
const MAX_PLANNED_TASK: usize = 64 << 10;

/// What became of a guarded write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Written {
    /// Done, at this revision.
    Applied(i64),
    /// Something that the decision rested on has changed, or this replica no longer leads: decide anew.
    /// Nothing was written (of a plan: the pointer was not).
    Conflict,
}

/// A split that an agent has made, as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct NewPlan {
    /// Name of the connector.
    pub connector: String,
    /// Its uid.
    pub uid: Uid,
    /// mod_revision of its key, in the snapshot that was planned on.
    pub spec: Rev,
    /// mod_revision of the plan pointer, likewise.
    pub pointer: Rev,
    /// The plan's generation, for the keys of its tasks.
    pub plan_generation: i64,
    /// Its tasks in order of number.
    pub tasks: Vec<stored::PlannedTask>,
    /// The new value of the pointer.
    pub value: stored::PlanPointer,
}

/// The writes of a leader in one term, each with what the protocol's table of guards asks for.
///
/// Every function may return [`StoreError::Unknown`]: the write may have happened or may still. Plan again on
/// a snapshot that is at least as new as a read after the error; the guards make a late write harmless.
#[derive(Debug, Clone)]
pub struct LeaderStore {
    store: Store,
    mirror: Mirror,
    term: i64,
}

impl LeaderStore {
    /// For the term of a [`Leadership`](super::Leadership).
    pub fn new(store: Store, mirror: Mirror, term: i64) -> Self {
        Self { store, mirror, term }
    }

    /// The term.
    pub fn term(&self) -> i64 {
        self.term
    }

    /// Carries out any action but `PlanTasks`, which needs an agent's answer first: see
    /// [`store_plan`](Self::store_plan).
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for `PlanTasks`, and for a guard that does not say why a right has ended.
    pub async fn apply(&self, action: &Action) -> Result<Written, StoreError> {
        match action {
            Action::PlanTasks { .. } => Err(invalid("a split is an agent's to make")),
            Action::SetPointer {
                connector,
                uid,
                spec,
                pointer,
                value,
            } => self.set_pointer(connector, uid, *spec, *pointer, value).await,
            Action::Grant {
                task,
                guard,
                grant,
                want,
                ended,
            } => self.grant(task, guard, grant, want, *ended).await,
            Action::SetWant { task, guard, want } => self.set_want(task, guard, want).await,
            Action::EndGrant { task, guard, why } => self.end_grant(task, guard, *why).await,
            Action::RemoveTask { task, guard } => self.remove_task(task, guard).await,
            Action::RemovePlan {
                uid,
                pointer,
                plan_generation,
            } => self.remove_plan(uid, *pointer, *plan_generation).await,
            Action::FinishDelete {
                connector,
                uid,
                spec,
                keep_offsets,
            } => self.finish_delete(connector, uid, *spec, *keep_offsets).await,
        }
    }

    /// Stores a plan's tasks, in as many transactions as needed, and its pointer in the last one.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] if a task's config has more than 64 KiB: nothing was written.
    pub async fn store_plan(&self, plan: &NewPlan) -> Result<Written, StoreError> {
        let (uid, generation) = (&plan.uid, plan.plan_generation);
        for (n, task) in plan.tasks.iter().enumerate() {
            let size = task.encoded_len();
            if size > MAX_PLANNED_TASK {
                let what = format!("the config of task {n} in bytes");
                return Err(StoreError::TooLarge {
                    what,
                    size,
                    limit: MAX_PLANNED_TASK,
                });
            }
        }
        let guarded = || self.pointer_guarded(&plan.connector, uid, plan.spec, plan.pointer);
        // What an earlier try has left behind would outlive this plan's pointer only as garbage, but garbage
        // it is.
        let left_over = self.mirror.read(|snapshot| {
            let all = (uid.clone(), generation, 0)..=(uid.clone(), generation, u32::MAX);
            snapshot.plans.range(all).next().is_some()
        });
        if left_over {
            let removed = guarded()
                .delete_under(&Prefix::Plan(uid.clone(), generation))
                .run()
                .await?;
            if !removed.applied {
                return Ok(Written::Conflict);
            }
        }
        let mut txn = guarded();
        let (mut ops, mut bytes) = (0, 0);
        for (n, task) in (0..).zip(&plan.tasks) {
            let size = task.encoded_len();
            if ops == CHUNK_OPS || bytes + size > CHUNK_BYTES {
                if !txn.run().await?.applied {
                    return Ok(Written::Conflict);
                }
                txn = guarded();
                (ops, bytes) = (0, 0);
            }
            txn = txn.put(&Key::PlannedTask(uid.clone(), generation, n), task);
            ops += 1;
            bytes += size;
        }
        let key = Key::PlanPointer(uid.clone());
        self.run(self.rewrite(txn, &key, &plan.value, |snapshot| {
            snapshot.pointers.get(uid).cloned()
        }))
        .await
    }

    /// Writes a plan pointer without a new split.
    pub async fn set_pointer(
        &self,
        connector: &str,
        uid: &Uid,
        spec: Rev,
        pointer: Rev,
        value: &stored::PlanPointer,
    ) -> Result<Written, StoreError> {
        let txn = self.pointer_guarded(connector, uid, spec, pointer);
        let key = Key::PlanPointer(uid.clone());
        self.run(self.rewrite(txn, &key, value, |snapshot| snapshot.pointers.get(uid).cloned()))
            .await
    }

    /// Gives a right, and says what to do with it. `ended` is why the right that is rewritten has ended, if
    /// there is one; the guard has to compare it.
    pub async fn grant(
        &self,
        task: &TaskId,
        guard: &TaskGuard,
        grant: &stored::Grant,
        want: &stored::Want,
        ended: Option<Ended>,
    ) -> Result<Written, StoreError> {
        if (guard.grant != 0) != ended.is_some() || !ended.is_none_or(|why| compares(guard, why)) {
            return Err(invalid(
                "a right is rewritten without comparing why the last one has ended",
            ));
        }
        let key = Key::Grant(task.clone());
        let txn = self.rewrite(self.guarded(task, guard), &key, grant, |snapshot| {
            snapshot.grants.get(task).cloned()
        });
        let key = Key::Want(task.clone());
        self.run(self.rewrite(txn, &key, want, |snapshot| snapshot.wants.get(task).cloned()))
            .await
    }

    /// Changes what the holder should do. The fence stays.
    pub async fn set_want(
        &self,
        task: &TaskId,
        guard: &TaskGuard,
        want: &stored::Want,
    ) -> Result<Written, StoreError> {
        let key = Key::Want(task.clone());
        let txn = self.guarded(task, guard);
        self.run(self.rewrite(txn, &key, want, |snapshot| snapshot.wants.get(task).cloned()))
            .await
    }

    /// Ends a right. The want stays.
    pub async fn end_grant(
        &self,
        task: &TaskId,
        guard: &TaskGuard,
        why: Ended,
    ) -> Result<Written, StoreError> {
        if guard.grant == 0 || !compares(guard, why) {
            return Err(invalid("a right is ended without comparing why"));
        }
        self.run(self.guarded(task, guard).delete(&Key::Grant(task.clone())))
            .await
    }

    /// Removes want and status of a task that has no grant.
    pub async fn remove_task(&self, task: &TaskId, guard: &TaskGuard) -> Result<Written, StoreError> {
        if guard.grant != 0 {
            return Err(invalid("a task is removed while it has a grant"));
        }
        let txn = self.guarded(task, guard);
        self.run(
            txn.delete(&Key::Want(task.clone()))
                .delete(&Key::Status(task.clone())),
        )
        .await
    }

    /// Removes the task configs of a plan that nothing refers to.
    pub async fn remove_plan(&self, uid: &Uid, pointer: Rev, generation: i64) -> Result<Written, StoreError> {
        let expect = Expect::ModRevision(Key::PlanPointer(uid.clone()), pointer);
        self.run(
            self.leading()
                .expect(&expect)
                .delete_under(&Prefix::Plan(uid.clone(), generation)),
        )
        .await
    }

    /// Removes all that belongs to a connector whose deletion was asked for and whose tasks have all ended.
    pub async fn finish_delete(
        &self,
        connector: &str,
        uid: &Uid,
        spec: Rev,
        keep_offsets: bool,
    ) -> Result<Written, StoreError> {
        let key = Key::Connector(connector.into());
        let present = self
            .mirror
            .read(|snapshot| snapshot.connectors.get(connector).cloned());
        if let Some(present) = present.as_ref().filter(|present| present.mod_revision == spec)
            && (present.delete_time.is_none() || present.uid != *uid.0)
        {
            return Err(invalid("a connector is removed that nobody deleted"));
        }
        let mut txn = self
            .leading()
            .expect(&Expect::ModRevision(key.clone(), spec))
            .expect(&Expect::NoneUnder(Prefix::Grants(uid.clone())))
            .delete(&key);
        let parts = [
            Prefix::Plans(uid.clone()),
            Prefix::Wants(uid.clone()),
            Prefix::Statuses(uid.clone()),
            Prefix::Revisions(uid.clone()),
            Prefix::Events(uid.clone()),
        ];
        for part in &parts {
            txn = txn.delete_under(part);
        }
        if keep_offsets {
            let (plugin, delete_time) = present.map_or((String::new(), None), |present| {
                let plugin = present.definition.as_ref().map(|d| d.plugin.clone());
                (plugin.unwrap_or_default(), present.delete_time)
            });
            let retained = stored::RetainedOffsets {
                format: FORMAT,
                connector: connector.to_owned(),
                plugin,
                delete_time,
                copying: false,
            };
            txn = txn.put(&Key::Retained(uid.clone()), &retained);
        } else {
            txn = txn.delete_under(&Prefix::Offsets(uid.clone()));
        }
        self.run(txn).await
    }

    /// Raises the format that may be written to the highest that every live replica reads. Does nothing
    /// (`Conflict`) if that is no more than now.
    pub async fn raise_format(&self) -> Result<Written, StoreError> {
        let (present, all_read, replicas) = self.mirror.read(|snapshot| {
            let all_read = snapshot
                .replicas
                .values()
                .map(|replica| replica.reads)
                .min()
                .unwrap_or(0);
            (snapshot.format.clone(), all_read, snapshot.replicas.len())
        });
        let writes = all_read.min(FORMAT);
        if replicas == 0 || present.as_ref().is_some_and(|present| writes <= present.writes) {
            return Ok(Written::Conflict);
        }
        let revision = present.map_or(0, |present| present.mod_revision);
        let txn = self.leading().expect(&Expect::ModRevision(Key::Format, revision));
        let value = stored::ClusterFormat {
            format: FORMAT,
            writes,
        };
        self.run(self.rewrite(txn, &Key::Format, &value, |snapshot| snapshot.format.clone()))
            .await
    }

    fn leading(&self) -> Guarded {
        self.store
            .guarded()
            .expect(&Expect::CreateRevision(Key::Leader, self.term))
    }

    fn pointer_guarded(&self, connector: &str, uid: &Uid, spec: Rev, pointer: Rev) -> Guarded {
        self.leading()
            .expect(&Expect::ModRevision(Key::Connector(connector.into()), spec))
            .expect(&Expect::ModRevision(Key::PlanPointer(uid.clone()), pointer))
    }

    fn guarded(&self, task: &TaskId, guard: &TaskGuard) -> Guarded {
        let mut txn = self
            .pointer_guarded(&guard.connector, &task.uid, guard.spec, guard.pointer)
            .expect(&Expect::ModRevision(Key::Grant(task.clone()), guard.grant))
            .expect(&Expect::ModRevision(Key::Want(task.clone()), guard.want));
        if let Some((agent, revision)) = &guard.instance {
            txn = txn.expect(&Expect::ModRevision(
                Key::Instance(agent.as_str().into()),
                *revision,
            ));
        }
        if let Some(revision) = guard.status {
            txn = txn.expect(&Expect::ModRevision(Key::Status(task.clone()), revision));
        }
        txn
    }

    /// Adds a put, unless the key holds a format that this version does not know.
    fn rewrite<T: Stored + Clone>(
        &self,
        txn: Guarded,
        key: &Key,
        value: &T,
        present: impl FnOnce(&crate::domain::Snapshot) -> Option<Versioned<T>>,
    ) -> Guarded {
        let checked = self
            .mirror
            .read(present)
            .map_or(Ok(()), |present| rewritable(key, &*present.value));
        match checked {
            Ok(()) => txn.put(key, value),
            Err(error) => txn.fail(error),
        }
    }

    async fn run(&self, txn: Guarded) -> Result<Written, StoreError> {
        let outcome = txn.run().await?;
        Ok(if outcome.applied {
            Written::Applied(outcome.revision)
        } else {
            Written::Conflict
        })
    }
}

/// The guard compares what says that the right has ended.
fn compares(guard: &TaskGuard, why: Ended) -> bool {
    match why {
        Ended::Confirmed | Ended::Goodbye | Ended::Refused => guard.status.is_some(),
        Ended::Silent | Ended::Absent | Ended::Replaced => guard.instance.is_some(),
    }
}

fn invalid(message: &str) -> StoreError {
    StoreError::Invalid {
        message: message.to_owned(),
    }
}
