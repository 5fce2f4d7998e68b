//! Which push an agent gets next: the full set first, then deltas on what it acknowledged, one at a time. Pure.

use std::time::Duration;

use gantry_proto::{
    agent::v1::{Assignment, TaskAssignment, TaskRef},
    digest,
};
use prost::Message;
use tokio::time::Instant;

use super::{allowance::Allowance, desired::Tasks};
use crate::domain::TaskId;

/// Bytes of tasks in one chunk.
const CHUNK: usize = (1 << 20) - 4096;
/// Full sets that an agent may ask for in a row. One that can make nothing of them would go on for ever, at the speed of
/// the connection.
const FULL_SETS: u32 = 3;
/// One more is due after so long.
const FULL_SET_INTERVAL: Duration = Duration::from_secs(10);

/// What the agent has, as far as this session knows.
#[derive(Debug, Default)]
enum Base {
    /// Nothing, or nobody knows what: the full set comes next.
    #[default]
    Unknown,
    /// It acknowledged this.
    Acked { revision: i64, tasks: Tasks },
    /// This was sent; no answer yet. Newer state waits.
    Sent { revision: i64, tasks: Tasks },
}

/// Decides pushes of one session. Holds two numbers a task, however many changes there are.
#[derive(Debug)]
pub struct Pusher {
    base: Base,
    full_sets: Allowance,
}

/// A push to be made.
#[derive(Debug, PartialEq, Eq)]
pub struct Push {
    /// Revision it brings the agent to.
    pub revision: i64,
    /// 0: the full set.
    pub base_revision: i64,
    /// Tasks to send.
    pub changed: Vec<TaskId>,
    /// Tasks that are no longer the agent's. Only in deltas.
    pub removed: Vec<TaskId>,
}

impl Pusher {
    /// For a new session.
    pub fn new(now: Instant) -> Self {
        Self {
            base: Base::Unknown,
            full_sets: Allowance::new(FULL_SETS, FULL_SET_INTERVAL, now),
        }
    }

    /// When a push may be made; None: not before the last one is acknowledged.
    pub fn free_at(&self, now: Instant) -> Option<Instant> {
        match self.base {
            Base::Sent { .. } => None,
            Base::Unknown => Some(self.full_sets.free_at(now)),
            Base::Acked { .. } => Some(now),
        }
    }

    /// The push that is due, if any; it counts as sent.
    pub fn next(&mut self, revision: i64, desired: &Tasks, now: Instant) -> Option<Push> {
        if self.free_at(now).is_none_or(|at| at > now) {
            return None;
        }
        let push = match &self.base {
            Base::Sent { .. } => return None,
            Base::Unknown => {
                self.full_sets.take(now);
                Push {
                    revision,
                    base_revision: 0,
                    changed: desired.keys().cloned().collect(),
                    removed: Vec::new(),
                }
            }
            Base::Acked {
                revision: base,
                tasks,
            } => {
                if revision <= *base || tasks == desired {
                    return None;
                }
                let changed = desired.iter().filter(|(id, mark)| tasks.get(id) != Some(mark));
                let removed = tasks.keys().filter(|id| !desired.contains_key(id));
                Push {
                    revision,
                    base_revision: *base,
                    changed: changed.map(|(id, _)| id.clone()).collect(),
                    removed: removed.cloned().collect(),
                }
            }
        };
        self.base = Base::Sent {
            revision,
            tasks: desired.clone(),
        };
        Some(push)
    }

    /// Takes an acknowledgement. False: it answers no push that is waited for.
    pub fn acked(&mut self, revision: i64, resync: bool) -> bool {
        match std::mem::take(&mut self.base) {
            Base::Sent {
                revision: sent,
                tasks,
            } if sent == revision => {
                if !resync {
                    self.base = Base::Acked { revision, tasks };
                }
                true
            }
            // The agent asks for everything, whatever it believes to answer.
            _ if resync => true,
            other => {
                self.base = other;
                false
            }
        }
    }
}

/// Cuts a push into messages of at most 1 MiB, the last one with the digest of all.
pub fn chunks(push: &Push, tasks: impl IntoIterator<Item = TaskAssignment>) -> Vec<Assignment> {
    let mut chunk = Chunk::default();
    let mut chunks: Vec<Assignment> = Vec::new();
    for task in tasks {
        if !chunk.fits(task.encoded_len()) {
            chunks.push(std::mem::take(&mut chunk).message);
        }
        chunk.size += task.encoded_len() + 8;
        chunk.message.tasks.push(task);
    }
    for id in &push.removed {
        let task = task_ref(id);
        if !chunk.fits(task.encoded_len()) {
            chunks.push(std::mem::take(&mut chunk).message);
        }
        chunk.size += task.encoded_len() + 8;
        chunk.message.removed.push(task);
    }
    chunk.message.last = true;
    chunks.push(chunk.message);
    let digest = digest::of_assignments(chunks.iter().flat_map(|c| &c.tasks));
    if let Some(last) = chunks.last_mut() {
        last.digest = digest;
    }
    for (i, message) in chunks.iter_mut().enumerate() {
        message.revision = push.revision;
        message.base_revision = push.base_revision;
        message.chunk = i32::try_from(i).unwrap_or(i32::MAX);
    }
    chunks
}

#[derive(Default)]
struct Chunk {
    message: Assignment,
    size: usize,
}

impl Chunk {
    fn fits(&self, more: usize) -> bool {
        self.size == 0 || self.size + more + 8 <= CHUNK
    }
}

/// The task's name on the wire.
pub(super) fn task_ref(id: &TaskId) -> TaskRef {
    TaskRef {
        connector_uid: id.uid.to_string(),
        task: id.n,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{domain::Uid, sessions::desired::Mark};

    fn id(n: u32) -> TaskId {
        TaskId {
            uid: Uid("u".into()),
            n,
        }
    }

    fn set(marks: &[(u32, i64, i64)]) -> Tasks {
        marks
            .iter()
            .map(|&(n, fence, want)| (id(n), Mark { fence, want }))
            .collect()
    }

    fn pusher() -> Pusher {
        Pusher::new(Instant::now())
    }

    #[test]
    fn the_first_push_is_the_full_set_even_if_it_is_empty() {
        let push = pusher().next(9, &set(&[]), Instant::now()).unwrap();
        assert_eq!(
            push,
            Push {
                revision: 9,
                base_revision: 0,
                changed: vec![],
                removed: vec![]
            }
        );
    }

    #[test]
    fn one_push_at_a_time_and_newer_state_overwrites_in_place() {
        let (mut p, now) = (pusher(), Instant::now());
        assert!(p.next(9, &set(&[(0, 5, 5), (1, 6, 6)]), now).is_some());
        assert_eq!(p.next(10, &set(&[(0, 5, 10), (1, 6, 6)]), now), None);
        assert_eq!(p.next(12, &set(&[(0, 5, 12), (2, 11, 11)]), now), None);
        assert!(p.acked(9, false));
        let push = p.next(12, &set(&[(0, 5, 12), (2, 11, 11)]), now).unwrap();
        assert_eq!(
            (push.base_revision, push.changed, push.removed),
            (9, vec![id(0), id(2)], vec![id(1)])
        );
    }

    #[test]
    fn nothing_new_is_no_push_and_a_late_ack_is_ignored() {
        let (mut p, now) = (pusher(), Instant::now());
        p.next(9, &set(&[(0, 5, 5)]), now);
        assert!(!p.acked(8, false));
        assert_eq!(p.free_at(now), None, "still unacknowledged");
        assert!(p.acked(9, false));
        assert_eq!(p.next(15, &set(&[(0, 5, 5)]), now), None);
    }

    #[test]
    fn a_resync_brings_the_full_set_again() {
        let (mut p, now) = (pusher(), Instant::now());
        p.next(9, &set(&[(0, 5, 5)]), now);
        assert!(p.acked(9, true));
        assert_eq!(p.next(9, &set(&[(0, 5, 5)]), now).unwrap().base_revision, 0);
    }

    #[test]
    fn an_agent_that_takes_no_full_set_gets_only_one_in_a_while() {
        let (mut p, start) = (pusher(), Instant::now());
        let (mut now, mut sent) = (start, 0);
        while now < start + Duration::from_secs(600) {
            if p.next(9, &set(&[(0, 5, 5)]), now).is_some() {
                sent += 1;
                assert!(p.acked(9, true));
            }
            now = p.free_at(now).unwrap().max(now + Duration::from_millis(1));
        }
        assert_eq!(sent, 3 + 59);
        // What it can take again it gets at once.
        p.next(9, &set(&[]), now).unwrap();
        assert!(p.acked(9, false));
        assert!(p.next(10, &set(&[(0, 5, 5)]), now).is_some());
    }

    #[test]
    fn chunks_stay_below_a_mebibyte_and_the_last_one_has_the_digest_of_all() {
        let big = |n| TaskAssignment {
            task: n,
            spec_hash: "x".repeat(300_000),
            ..Default::default()
        };
        let push = Push {
            revision: 3,
            base_revision: 0,
            changed: vec![],
            removed: vec![id(9)],
        };
        let chunks = chunks(&push, (0..7).map(big));
        assert!(chunks.len() > 2);
        assert!(
            chunks
                .iter()
                .all(|c| c.encoded_len() <= 1 << 20 && c.revision == 3)
        );
        assert!(
            chunks
                .iter()
                .rev()
                .skip(1)
                .all(|c| !c.last && c.digest.is_empty())
        );
        let digest = digest::of_assignments(chunks.iter().flat_map(|c| &c.tasks));
        let last = chunks.last().unwrap();
        assert!(last.last);
        assert_eq!(last.digest, digest);
        assert_eq!(last.removed.len(), 1);
    }
}
