//! What the control plane pushes: put together, checked, and turned into what is wanted. Pure.

use std::{collections::HashMap, sync::Arc};

use gantry_proto::{
    agent::v1::{Assignment, AssignmentAck, TaskAck, TaskAssignment, TaskRef, task_ack::Outcome},
    digest,
};

use crate::{
    key::TaskKey,
    supervisor::{Wanted, admit::Registry},
};

/// What is wanted, and what was seen on the way there.
pub(crate) struct Pushes {
    registry: Registry,
    wanted: Wanted,
    /// Highest revision seen of this store.
    revision: i64,
    /// Highest fence seen of each task of this store.
    fences: HashMap<TaskKey, i64>,
    /// A full set was taken in this session.
    based: bool,
    partial: Option<Partial>,
    /// The rest of a push that could not be taken is still to come.
    skipping: bool,
}

struct Partial {
    revision: i64,
    base: i64,
    next_chunk: i32,
    tasks: Vec<TaskAssignment>,
    removed: Vec<TaskRef>,
}

/// What a chunk led to.
pub(crate) enum Taken {
    /// More chunks follow.
    Partly,
    /// The push as a whole could not be taken; the full set is wanted.
    Resync,
    /// It was taken; this is wanted now.
    Whole(AssignmentAck, Wanted),
}

impl Pushes {
    pub(crate) fn new(registry: Registry) -> Self {
        Self {
            registry,
            wanted: Wanted::new(),
            revision: 0,
            fences: HashMap::new(),
            based: false,
            partial: None,
            skipping: false,
        }
    }

    /// Highest revision seen of this store.
    pub(crate) fn revision(&self) -> i64 {
        self.revision
    }

    /// A new session, or one that begins anew: it begins with a full set.
    pub(crate) fn begin_session(&mut self) {
        (self.based, self.partial, self.skipping) = (false, None, false);
    }

    /// Whether this session's full set was taken.
    pub(crate) fn is_based(&self) -> bool {
        self.based
    }

    /// Another store: nothing that was seen counts.
    pub(crate) fn forget(&mut self) {
        *self = Self::new(self.registry.clone());
    }

    /// Takes a chunk.
    pub(crate) fn take(&mut self, chunk: Assignment) -> Taken {
        let (last, digest) = (chunk.last, chunk.digest.clone());
        if chunk.chunk == 0 {
            self.skipping = false;
        } else if self.skipping {
            return Taken::Partly;
        }
        if !self.append(chunk) {
            (self.partial, self.skipping) = (None, true);
            return Taken::Resync;
        }
        if !last {
            return Taken::Partly;
        }
        match self.partial.take() {
            Some(push) if digest::of_assignments(&push.tasks) == digest => {
                let ack = self.whole(push);
                Taken::Whole(ack, self.wanted.clone())
            }
            _ => Taken::Resync,
        }
    }

    /// Whether the chunk fits what came before it.
    fn append(&mut self, chunk: Assignment) -> bool {
        if chunk.chunk == 0 {
            let follows = chunk.base_revision == 0 || self.based && chunk.base_revision == self.revision;
            if !follows || chunk.revision < self.revision {
                return false;
            }
            self.partial = Some(Partial {
                revision: chunk.revision,
                base: chunk.base_revision,
                next_chunk: 1,
                tasks: chunk.tasks,
                removed: chunk.removed,
            });
            return true;
        }
        match &mut self.partial {
            Some(p)
                if (p.revision, p.base, p.next_chunk)
                    == (chunk.revision, chunk.base_revision, chunk.chunk) =>
            {
                p.next_chunk += 1;
                p.tasks.extend(chunk.tasks);
                p.removed.extend(chunk.removed);
                true
            }
            _ => false,
        }
    }

    fn whole(&mut self, push: Partial) -> AssignmentAck {
        let before = std::mem::take(&mut self.wanted);
        if push.base != 0 {
            self.wanted.clone_from(&before);
        }
        for removed in &push.removed {
            self.wanted.remove(&TaskKey::from(removed));
        }
        let acks = push
            .tasks
            .iter()
            .filter_map(|task| self.one(task, &before))
            .collect();
        (self.revision, self.based) = (push.revision, true);
        AssignmentAck {
            revision: push.revision,
            resync: false,
            tasks: acks,
        }
    }

    /// Takes one task; the ack if it was not simply accepted. One bad task never blocks the others.
    fn one(&mut self, task: &TaskAssignment, before: &Wanted) -> Option<TaskAck> {
        let key = TaskKey::new(&task.connector_uid, task.task);
        let ack = |outcome: Outcome, error| {
            Some(TaskAck {
                task: Some(key.to_ref()),
                fence: task.fence,
                outcome: outcome as i32,
                error,
            })
        };
        let highest = self.fences.entry(key.clone()).or_insert(task.fence);
        if task.fence < *highest {
            return ack(Outcome::Stale, None);
        }
        *highest = task.fence;
        match self.registry.admit(task) {
            Ok(admitted) => {
                self.wanted.insert(key, Arc::new(admitted));
                None
            }
            Err(error) => {
                // Under the same right the task goes on as it was; the refusal is for what it should become.
                if let Some(held) = before.get(&key).filter(|t| t.terms.fence == task.fence) {
                    self.wanted.insert(key.clone(), held.clone());
                }
                ack(Outcome::Refused, Some(error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use gantry_proto::agent::v1::{TaskSpec, task_assignment::Want};

    use super::*;
    use crate::testing::plugins;

    fn task(number: u32, fence: i64, plugin: &str) -> TaskAssignment {
        TaskAssignment {
            connector_uid: "c".into(),
            task: number,
            fence,
            want_revision: fence,
            want: Want::Run as i32,
            spec: Some(TaskSpec {
                plugin: plugin.into(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn push(revision: i64, base_revision: i64, tasks: Vec<TaskAssignment>) -> Assignment {
        let digest = digest::of_assignments(&tasks);
        Assignment {
            revision,
            base_revision,
            tasks,
            last: true,
            digest,
            ..Default::default()
        }
    }

    fn pushes() -> Pushes {
        Pushes::new(Registry::new(plugins::all()))
    }

    fn numbers(taken: Taken) -> Vec<(u32, i64)> {
        match taken {
            Taken::Whole(_, wanted) => wanted.iter().map(|(k, t)| (k.task, t.terms.fence)).collect(),
            Taken::Resync => panic!("resync"),
            Taken::Partly => panic!("partly"),
        }
    }

    fn resyncs(taken: Taken) -> bool {
        matches!(taken, Taken::Resync)
    }

    #[test]
    fn deltas_build_on_the_full_set_and_gaps_ask_for_it_again() {
        let mut p = pushes();
        assert!(resyncs(p.take(push(5, 4, vec![]))), "no full set yet");
        assert_eq!(
            numbers(p.take(push(
                5,
                0,
                vec![task(0, 1, "fake-source"), task(1, 2, "fake-source")]
            ))),
            [(0, 1), (1, 2)]
        );
        let mut delta = push(7, 5, vec![task(2, 7, "fake-source")]);
        delta.removed = vec![TaskKey::new("c", 0).to_ref()];
        assert_eq!(numbers(p.take(delta)), [(1, 2), (2, 7)]);
        assert!(resyncs(p.take(push(9, 8, vec![]))), "a gap");
        assert!(resyncs(p.take(push(6, 0, vec![]))), "a lower revision");
        let mut wrong = push(9, 7, vec![task(3, 8, "fake-source")]);
        wrong.digest[0] ^= 1;
        assert!(resyncs(p.take(wrong)));
        p.begin_session();
        assert!(
            resyncs(p.take(push(9, 7, vec![]))),
            "a session begins with a full set"
        );
        assert_eq!(
            numbers(p.take(push(9, 0, vec![task(1, 2, "fake-source")]))),
            [(1, 2)]
        );
    }

    #[test]
    fn chunks_are_put_together_in_order() {
        let (mut p, tasks) = (pushes(), [task(0, 1, "fake-source"), task(1, 1, "fake-source")]);
        let chunk = |number, last, tasks: &[TaskAssignment], digest: &[TaskAssignment]| Assignment {
            revision: 3,
            chunk: number,
            last,
            tasks: tasks.to_vec(),
            digest: if last {
                digest::of_assignments(digest)
            } else {
                vec![]
            },
            ..Default::default()
        };
        assert!(matches!(p.take(chunk(0, false, &tasks[..1], &[])), Taken::Partly));
        assert_eq!(numbers(p.take(chunk(1, true, &tasks[1..], &tasks))).len(), 2);
        assert!(matches!(p.take(chunk(0, false, &tasks[..1], &[])), Taken::Partly));
        assert!(resyncs(p.take(chunk(2, true, &tasks[1..], &tasks))));
    }

    #[test]
    fn stale_and_impossible_tasks_are_named_and_block_nobody() {
        let mut p = pushes();
        numbers(p.take(push(5, 0, vec![task(0, 5, "fake-source")])));
        let Taken::Whole(ack, wanted) = p.take(push(
            6,
            0,
            vec![
                task(0, 4, "fake-source"),
                task(1, 6, "nothing"),
                task(2, 6, "fake-source"),
            ],
        )) else {
            panic!("not taken")
        };
        let outcomes: Vec<_> = ack
            .tasks
            .iter()
            .map(|t| (t.task.as_ref().map(|t| t.task), t.outcome()))
            .collect();
        assert_eq!(outcomes, [(Some(0), Outcome::Stale), (Some(1), Outcome::Refused)]);
        assert_eq!(wanted.keys().map(|k| k.task).collect::<Vec<_>>(), [2]);
        p.forget();
        assert_eq!(
            numbers(p.take(push(1, 0, vec![task(0, 1, "fake-source")]))),
            [(0, 1)]
        );
    }
}
