use std::collections::{BTreeMap, BTreeSet, VecDeque};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use gantry_proto::agent::v1::{PartitionCommit, TaskCommit, TaskCommitResult, task_commit_result::Outcome};
use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    batch::{Batch, MAX_BYTES, MAX_COMPARES, MAX_TASKS, Memory},
    judge::{invalid, result, retry},
    record_key, refusal, task_id,
};
use crate::{
    domain::{TaskId, Uid},
    store::{Key, Store, StoreError, WallClock},
};

/// How a committer works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitterSettings {
    /// Commits that may wait; whoever brings more waits with them.
    pub waiting: usize,
    /// Transactions at a time. What arrives meanwhile is made together.
    pub in_flight: usize,
}

impl Default for CommitterSettings {
    fn default() -> Self {
        Self {
            waiting: 4096,
            in_flight: 2,
        }
    }
}

/// Makes the commits of all agents that a replica serves, many in one transaction. Clones are handles to the
/// same.
#[derive(Debug, Clone)]
pub struct Committer {
    requests: mpsc::Sender<Request>,
}

#[derive(Debug)]
struct Request {
    commit: TaskCommit,
    answer: oneshot::Sender<TaskCommitResult>,
}

impl Committer {
    /// Starts a committer that ends when `stop` is cancelled: what is not answered by then gets RETRY.
    pub fn spawn(
        store: Store,
        clock: WallClock,
        settings: CommitterSettings,
        stop: CancellationToken,
    ) -> Self {
        let (requests, waiting) = mpsc::channel(settings.waiting.max(1));
        let actor = Actor {
            store,
            clock,
            settings,
            memory: Memory::default(),
        };
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = actor.run(waiting) => {}
            }
        });
        Self { requests }
    }

    /// Makes commits of one agent and returns their results in order, each durable. All of a task's
    /// partitions are stored or none; one task's failure is not another's.
    ///
    /// Dropping the future does not undo what was begun.
    pub async fn commit(&self, commits: Vec<TaskCommit>) -> Vec<TaskCommitResult> {
        let mut waiting = Vec::with_capacity(commits.len());
        for commit in commits {
            let (answer, result) = oneshot::channel();
            // What a lost answer is replaced by; small, unlike the commit.
            let head = head_of(&commit);
            // Closed: the answer is dropped, which shows below.
            let _ = self.requests.send(Request { commit, answer }).await;
            waiting.push((head, result));
        }
        let mut results = Vec::with_capacity(waiting.len());
        for (head, result) in waiting {
            let stopping = || StoreError::unknown("this replica stops");
            results.push(result.await.unwrap_or_else(|_| retry(&head, &stopping())));
        }
        results
    }
}

fn head_of(commit: &TaskCommit) -> TaskCommit {
    TaskCommit {
        connector_uid: commit.connector_uid.clone(),
        task: commit.task,
        fence: commit.fence,
        ..TaskCommit::default()
    }
}

struct Actor {
    store: Store,
    clock: WallClock,
    settings: CommitterSettings,
    memory: Memory,
}

/// A commit that waits, with what decides which others it can go with.
struct Waiting {
    request: Request,
    task: TaskId,
    /// Keys of its records.
    keys: Vec<Key>,
}

/// Requests of one transaction, with their results.
type Done = Vec<(Waiting, TaskCommitResult)>;

impl Actor {
    async fn run(&self, mut requests: mpsc::Receiver<Request>) {
        let mut waiting: VecDeque<Waiting> = VecDeque::new();
        // A task's commits are made one after the other: each rests on the one before.
        let mut busy: BTreeSet<TaskId> = BTreeSet::new();
        let mut in_flight: FuturesUnordered<BoxFuture<'_, Done>> = FuturesUnordered::new();
        let mut arrived = Vec::new();
        let mut open = true;
        while open || !in_flight.is_empty() {
            while in_flight.len() < self.settings.in_flight.max(1) {
                let batch = next_batch(&mut waiting, &busy);
                if batch.is_empty() {
                    break;
                }
                busy.extend(batch.iter().map(|waiting| waiting.task.clone()));
                in_flight.push(Box::pin(self.make(batch)));
            }
            let room = self.settings.waiting.saturating_sub(waiting.len());
            tokio::select! {
                biased;
                Some(done) = in_flight.next(), if !in_flight.is_empty() => {
                    for (made, result) in done {
                        busy.remove(&made.task);
                        // Whoever asked may have gone.
                        let _ = made.request.answer.send(result);
                    }
                }
                count = requests.recv_many(&mut arrived, room), if open && room > 0 => {
                    open = count > 0;
                    waiting.extend(arrived.drain(..).filter_map(take_in));
                }
            }
        }
    }

    async fn make(&self, batch: Vec<Waiting>) -> Done {
        let commits = batch
            .iter()
            .map(|waiting| waiting.request.commit.clone())
            .collect();
        let results = Batch {
            store: &self.store,
            memory: &self.memory,
            now: (self.clock)(),
        }
        .run(commits)
        .await;
        batch.into_iter().zip(results).collect()
    }
}

/// Prepares a request, or answers it if that can be done at once.
fn take_in(request: Request) -> Option<Waiting> {
    let commit = &request.commit;
    let answer = if let Some(message) = refusal(commit) {
        invalid(commit, message)
    } else if commit.fence <= 0 {
        // An expected revision of 0 means "no such key", which would let a commit without a right pass.
        result(commit, Outcome::Fenced)
    } else {
        let task = task_id(commit);
        let key = |partition: &PartitionCommit| record_key(&task.uid, commit.epoch, &partition.partition);
        let keys = commit.partitions.iter().map(key).collect();
        return Some(Waiting { request, task, keys });
    };
    // Whoever asked may have gone.
    let _ = request.answer.send(answer);
    None
}

/// Takes what goes into one transaction: different tasks, different keys, within the limits, in order of
/// arrival.
fn next_batch(waiting: &mut VecDeque<Waiting>, busy: &BTreeSet<TaskId>) -> Vec<Waiting> {
    let mut batch: Vec<Waiting> = Vec::new();
    let mut passed_over: VecDeque<Waiting> = VecDeque::new();
    let mut tasks: BTreeSet<TaskId> = BTreeSet::new();
    let mut written: BTreeSet<Key> = BTreeSet::new();
    let mut heads: BTreeMap<Uid, i64> = BTreeMap::new();
    let (mut compares, mut bytes) = (0, 0);
    while let Some(next) = waiting.pop_front() {
        let commit = &next.request.commit;
        let head = heads.get(&next.task.uid).copied();
        let clashes = busy.contains(&next.task)
            || tasks.contains(&next.task)
            || head.is_some_and(|head| head != commit.head_revision)
            || next.keys.iter().any(|key| written.contains(key));
        if clashes {
            // Later commits of the same task stay behind this one.
            tasks.insert(next.task.clone());
            passed_over.push_back(next);
            continue;
        }
        // One more for the fence, and one for the head unless it is compared already.
        let more = next.keys.len() + 1 + usize::from(head.is_none());
        let size = commit.encoded_len();
        let full = batch.len() == MAX_TASKS || compares + more > MAX_COMPARES || bytes + size > MAX_BYTES;
        if full && !batch.is_empty() {
            waiting.push_front(next);
            break;
        }
        compares += more;
        bytes += size;
        heads.insert(next.task.uid.clone(), commit.head_revision);
        written.extend(next.keys.iter().cloned());
        tasks.insert(next.task.clone());
        batch.push(next);
    }
    passed_over.append(waiting);
    *waiting = passed_over;
    batch
}
