//! An agent that keeps the protocol, and whose code is a script.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use gantry_control_plane::domain::TaskId;
use gantry_proto::{
    agent::v1::{
        CommitOffsetsRequest, LockIdentity, PartitionCommit, ReadOffsetsRequest, StoredOffset, TaskCommit,
        TaskRef, task_commit_result::Outcome,
    },
    v1::{Value, task::State, value::Kind},
};
use parking_lot::Mutex;
use tokio::{
    sync::mpsc,
    task::AbortHandle,
    time::{Instant, sleep},
};
use tokio_stream::StreamExt;
use tonic::{Code, Status};

use super::{
    process::{Command, Process},
    world::Services,
};

/// A task that the agent holds.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) fence: i64,
    pub(crate) want_revision: i64,
    pub(crate) state: State,
    pub(crate) nonce: String,
    pub(crate) hash: String,
    pub(crate) traceparent: String,
    pub(super) since: i64,
    pub(super) sequence: u64,
    pub(super) confirmed: bool,
}

/// What can be seen of an agent from outside.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) tasks: BTreeMap<TaskId, Held>,
    /// Every start of a task, with when.
    pub(crate) starts: Vec<(TaskId, Instant)>,
    pub(crate) sessions: usize,
    /// Replica that serves it; None: no session.
    pub(crate) replica: Option<String>,
    pub(crate) store_id: String,
    pub(crate) answered: Option<Instant>,
    pub(crate) full_sets: usize,
    /// Most chunks that one push came in.
    pub(crate) chunks: usize,
    /// When it asked for the full set again.
    pub(crate) resyncs: Vec<Instant>,
    /// When each session was welcomed.
    pub(crate) welcomes: Vec<Instant>,
    pub(crate) deltas: usize,
    pub(crate) fenced: usize,
    pub(crate) reconnects: usize,
    /// Why it exited.
    pub(crate) exit: Option<Status>,
    /// Why the last stream ended: a hello was refused, or a session closed.
    pub(crate) refused: Option<Status>,
    pub(crate) asks: usize,
    pub(crate) frozen: bool,
}

/// What the script says.
#[derive(Clone)]
pub(crate) struct Script {
    /// Refuses every task.
    pub(crate) refuse: bool,
    /// Takes questions and never answers.
    pub(crate) deaf: bool,
    /// Never confirms.
    pub(crate) stubborn: bool,
    pub(crate) plugins: bool,
    /// Makes nothing of so many pushes.
    pub(crate) resyncs: u32,
    /// Takes pushes and never acknowledges one.
    pub(crate) mute: bool,
    /// Bytes in the configuration of each task that it plans.
    pub(crate) padding: usize,
    /// Messages in which it says what it runs.
    pub(crate) inventory_chunks: usize,
}

pub(crate) struct Agent {
    pub(crate) name: String,
    pub(crate) seen: Arc<Mutex<Seen>>,
    pub(crate) script: Arc<Mutex<Script>>,
    pub(crate) lock: LockIdentity,
    pub(crate) start_counter: u64,
    services: Services,
    commands: mpsc::Sender<Command>,
    handle: AbortHandle,
}

impl Agent {
    pub(crate) fn start(name: &str, services: Services, first: usize) -> Self {
        let lock = LockIdentity {
            boot_id: format!("boot-{name}"),
            device: 1,
            inode: 7,
        };
        Self::start_as(name, services, first, lock, 1)
    }

    pub(crate) fn start_as(
        name: &str,
        services: Services,
        first: usize,
        lock: LockIdentity,
        start: u64,
    ) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let script = Script {
            refuse: false,
            deaf: false,
            stubborn: false,
            plugins: true,
            resyncs: 0,
            mute: false,
            padding: 0,
            inventory_chunks: 1,
        };
        let script = Arc::new(Mutex::new(script));
        let (commands, orders) = mpsc::channel(16);
        let process = Process {
            name: name.to_owned(),
            uid: format!("{name}-{}-{start}", lock.inode),
            lock: lock.clone(),
            start,
            dial: 0,
            services: services.clone(),
            next: first,
            seen: seen.clone(),
            script: script.clone(),
            orders,
            revision: 0,
            chunks: Vec::new(),
            clock: 0,
        };
        let handle = tokio::spawn(process.run()).abort_handle();
        Self {
            name: name.to_owned(),
            seen,
            script,
            lock,
            start_counter: start,
            services,
            commands,
            handle,
        }
    }

    /// The same machine, a new process.
    pub(crate) fn restarted(&self) -> Self {
        self.kill();
        Self::start_as(
            &self.name,
            self.services.clone(),
            0,
            self.lock.clone(),
            self.start_counter + 1,
        )
    }

    /// As `kill -9`.
    pub(crate) fn kill(&self) {
        self.handle.abort();
        let mut seen = self.seen.lock();
        seen.tasks.clear();
        seen.replica = None;
        seen.frozen = false;
    }

    pub(crate) async fn freeze(&self) {
        self.commands.send(Command::Freeze).await.unwrap();
    }

    pub(crate) async fn thaw(&self) {
        self.commands.send(Command::Thaw).await.unwrap();
    }

    /// Drops its stream and dials that replica.
    pub(crate) async fn redial(&self, replica: usize) {
        self.commands.send(Command::Redial(replica)).await.unwrap();
    }

    pub(crate) async fn goodbye(&self) {
        self.commands.send(Command::Goodbye).await.unwrap();
    }

    /// All its tasks fail.
    pub(crate) async fn fail(&self) {
        self.commands.send(Command::Fail).await.unwrap();
    }

    pub(crate) fn running(&self) -> Vec<TaskId> {
        let seen = self.seen.lock();
        if seen.frozen {
            return Vec::new();
        }
        seen.tasks
            .iter()
            .filter(|(_, t)| t.state == State::Running)
            .map(|(id, _)| id.clone())
            .collect()
    }

    pub(crate) fn starts_of(&self, task: &TaskId) -> usize {
        self.seen
            .lock()
            .starts
            .iter()
            .filter(|(id, _)| id == task)
            .count()
    }

    pub(crate) fn instance_uid(&self) -> String {
        format!("{}-{}-{}", self.name, self.lock.inode, self.start_counter)
    }

    /// As [`commit`](Self::commit). None: the replica could not be asked.
    pub(crate) async fn try_commit(&self, task: &TaskId, fence: i64, line: i64) -> Option<Outcome> {
        let service = self.services.lock().iter().flatten().next().cloned()?;
        let read = service.read_offsets(self.read(task, fence)).await.ok()?;
        let at = own(&read.offsets, task);
        let stored = read.offsets.iter().filter(|o| o.revision == at).filter_map(|o| {
            match o.position.get("line")?.kind {
                Some(Kind::Int64Value(line)) => Some(line),
                _ => None,
            }
        });
        assert!(
            stored.max().is_none_or(|stored| stored <= line),
            "what is stored is ahead of what was acknowledged"
        );
        Some(self.commit(task, fence, line).await)
    }

    fn read(&self, task: &TaskId, fence: i64) -> ReadOffsetsRequest {
        ReadOffsetsRequest {
            agent: self.name.clone(),
            instance_uid: self.instance_uid(),
            task: Some(TaskRef {
                connector_uid: task.uid.to_string(),
                task: task.n,
            }),
            fence,
        }
    }

    /// Commits a position under a fence, over whichever replica is up.
    pub(crate) async fn commit(&self, task: &TaskId, fence: i64, line: i64) -> Outcome {
        let service = self
            .services
            .lock()
            .iter()
            .flatten()
            .next()
            .cloned()
            .expect("a replica is up");
        let fence_of_read = self
            .seen
            .lock()
            .tasks
            .get(task)
            .map_or(fence, |t| t.fence.max(fence));
        let read = service.read_offsets(self.read(task, fence_of_read)).await;
        let (epoch, head_revision, seen_revision) = match &read {
            Ok(read) => (read.epoch, read.head_revision, own(&read.offsets, task)),
            Err(status) => {
                assert!(
                    matches!(status.code(), Code::FailedPrecondition | Code::Unavailable),
                    "{status:?}"
                );
                (0, 0, 0)
            }
        };
        let field = |name: &str, value: i64| {
            BTreeMap::from([(
                name.to_owned(),
                Value {
                    kind: Some(Kind::Int64Value(value)),
                },
            )])
        };
        let partition = PartitionCommit {
            partition: field("p", i64::from(task.n)),
            position: field("line", line),
            seen_revision,
            ..PartitionCommit::default()
        };
        let commit = TaskCommit {
            connector_uid: task.uid.to_string(),
            task: task.n,
            fence,
            epoch,
            head_revision,
            partitions: vec![partition],
        };
        let request = CommitOffsetsRequest {
            id: 7,
            agent: self.name.clone(),
            instance_uid: self.instance_uid(),
            tasks: vec![commit],
        };
        let mut answers = service.commit_offsets(tokio_stream::iter([Ok(request)]));
        let answer = answers.next().await.expect("an answer").expect("no error");
        assert_eq!(answer.id, 7);
        answer.tasks[0].outcome()
    }
}

/// Revision of the task's own record.
fn own(offsets: &[StoredOffset], task: &TaskId) -> i64 {
    let is_own = |o: &&StoredOffset| {
        o.partition.get("p").and_then(|v| v.kind.clone()) == Some(Kind::Int64Value(i64::from(task.n)))
    };
    offsets.iter().find(is_own).map_or(0, |o| o.revision)
}

/// Lets time pass.
pub(crate) async fn pass(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}
