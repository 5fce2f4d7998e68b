//! The commit stream: one per agent, apart from the session, so that a commit never waits behind a status.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures::StreamExt;
use gantry_proto::agent::v1::{
    CommitOffsetsRequest, CommitOffsetsResponse, ReadOffsetsRequest, ReadOffsetsResponse, TaskCommit,
    TaskCommitResult, task_commit_result::Outcome,
};
use prost::Message;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt;

use super::offsets::{OffsetStore, ReadError};
use crate::{
    backoff::{Backoff, Jitter, Pauses},
    key::TaskKey,
    lease::Lease,
    problem::{Cause, Failure},
    session::Link,
};

/// Most tasks in a request.
const TASKS: usize = 60;
/// Most partitions in a request: each is compared, and so are the fences.
const PARTITIONS: usize = 60;
/// Most bytes in a request.
const BYTES: usize = 900 << 10;
/// Commits that come within this time share a request.
const GATHER: Duration = Duration::from_millis(5);
/// Without an answer for so long the stream is given up.
const ANSWER: Duration = Duration::from_secs(10);
/// Pauses between tries of the stream, and of what was answered with RETRY.
const PAUSES: Pauses = Pauses {
    first: Duration::from_millis(100),
    longest: Duration::from_secs(2),
};

/// Where tasks commit to: a handle to the stream.
#[derive(Clone)]
pub(crate) struct CommitStream {
    entries: mpsc::Sender<Entry>,
    link: watch::Receiver<Option<Link>>,
}

struct Entry {
    commit: TaskCommit,
    answer: oneshot::Sender<TaskCommitResult>,
}

impl CommitStream {
    /// The handle, and what has to be run behind it.
    pub(crate) fn new(
        link: watch::Receiver<Option<Link>>,
        lease: Arc<Lease>,
        jitter: Jitter,
    ) -> (Self, Worker) {
        let (entries, incoming) = mpsc::channel(256);
        let worker = Worker {
            incoming,
            link: link.clone(),
            lease,
            jitter,
            waiting: VecDeque::new(),
            next_id: 0,
        };
        (Self { entries, link }, worker)
    }
}

#[async_trait]
impl OffsetStore for CommitStream {
    async fn read(&self, key: &TaskKey, fence: i64) -> Result<ReadOffsetsResponse, ReadError> {
        let unavailable =
            |what: String| ReadError::Unavailable(Failure::new(Cause::System, "STORE_UNAVAILABLE", what));
        let Some(mut link) = self.link.borrow().clone() else {
            return Err(unavailable("there is no session with the control plane".into()));
        };
        let request = ReadOffsetsRequest {
            agent: link.agent.to_string(),
            instance_uid: link.instance_uid.to_string(),
            task: Some(key.to_ref()),
            fence,
        };
        match timeout(ANSWER, link.client.read_offsets(request)).await {
            Ok(Ok(read)) => Ok(read.into_inner()),
            Ok(Err(status)) if is_fenced(&status) => Err(ReadError::Fenced),
            Ok(Err(status)) => Err(unavailable(format!("start positions: {}", status.message()))),
            Err(_) => Err(unavailable("start positions: no answer in time".into())),
        }
    }

    async fn commit(&self, commit: TaskCommit) -> TaskCommitResult {
        let (answer, answered) = oneshot::channel();
        let retry = TaskCommitResult {
            outcome: Outcome::Retry as i32,
            ..Default::default()
        };
        if self.entries.send(Entry { commit, answer }).await.is_err() {
            return retry;
        }
        answered.await.unwrap_or(retry)
    }
}

fn is_fenced(status: &Status) -> bool {
    status.code() == Code::FailedPrecondition
        && status
            .get_details_error_info()
            .is_none_or(|info| info.reason == "FENCED")
}

/// Owns the stream.
pub(crate) struct Worker {
    incoming: mpsc::Receiver<Entry>,
    link: watch::Receiver<Option<Link>>,
    lease: Arc<Lease>,
    jitter: Jitter,
    waiting: VecDeque<Entry>,
    next_id: u64,
}

/// Requests that are not answered.
type Unanswered = HashMap<u64, (Vec<Entry>, Instant)>;

impl Worker {
    /// Runs until all handles are gone.
    pub(crate) async fn run(mut self) {
        let mut backoff = Backoff::new(PAUSES, self.jitter.clone());
        loop {
            if self.waiting.is_empty() {
                match self.incoming.recv().await {
                    Some(entry) => self.waiting.push_back(entry),
                    None => return,
                }
            }
            let Ok(link) = self.link.wait_for(Option::is_some).await.map(|l| l.clone()) else {
                return;
            };
            let Some(link) = link else { continue };
            let mut unanswered = Unanswered::new();
            let began = Instant::now();
            match self.stream(link, &mut unanswered).await {
                Ok(()) => return,
                Err(status) => tracing::debug!(%status, "the commit stream ended"),
            }
            // What was sent may have been stored: it is sent again as it is, and the compares tell.
            let again = unanswered.into_values().flat_map(|(entries, _)| entries);
            self.waiting.extend(again);
            if began.elapsed() > ANSWER {
                backoff.reset();
            }
            sleep(backoff.fail()).await;
        }
    }

    /// One stream, until it breaks or another link comes (`Err`), or all handles are gone.
    async fn stream(&mut self, link: Link, unanswered: &mut Unanswered) -> Result<(), Status> {
        let (send, requests) = mpsc::channel(16);
        let mut client = link.client.clone();
        let opened =
            async move { timeout(ANSWER, client.commit_offsets(ReceiverStream::new(requests))).await };
        // The answer's headers may come only with the first answer.
        let mut opened = Box::pin(opened);
        let mut answers: Option<Streaming<CommitOffsetsResponse>> = None;
        loop {
            self.send(&link, &send, unanswered).await?;
            let oldest = unanswered.values().map(|(_, at)| *at + ANSWER).min();
            tokio::select! {
                entry = self.incoming.recv() => match entry {
                    Some(entry) => {
                        self.waiting.push_back(entry);
                        sleep(GATHER).await;
                        while let Ok(entry) = self.incoming.try_recv() {
                            self.waiting.push_back(entry);
                        }
                    }
                    None => return Ok(()),
                },
                result = &mut opened, if answers.is_none() => {
                    answers = Some(result.map_err(|_| Status::deadline_exceeded("no answer"))??.into_inner());
                }
                answer = next(&mut answers), if answers.is_some() => {
                    let answer = answer.ok_or_else(|| Status::unavailable("the stream was closed"))??;
                    self.answered(answer, unanswered).await;
                }
                // The lease may be open again.
                () = sleep(Duration::from_millis(250)), if !self.waiting.is_empty() => {}
                _ = self.link.changed() => return Err(Status::unavailable("another link")),
                () = at(oldest) => return Err(Status::deadline_exceeded("no answer in time")),
            }
        }
    }

    async fn send(
        &mut self,
        link: &Link,
        send: &mpsc::Sender<CommitOffsetsRequest>,
        unanswered: &mut Unanswered,
    ) -> Result<(), Status> {
        while !self.waiting.is_empty() && self.lease.is_open() {
            let entries = self.take();
            if entries.is_empty() {
                continue;
            }
            self.next_id += 1;
            let request = CommitOffsetsRequest {
                id: self.next_id,
                agent: link.agent.to_string(),
                instance_uid: link.instance_uid.to_string(),
                tasks: entries.iter().map(|e| e.commit.clone()).collect(),
            };
            unanswered.insert(self.next_id, (entries, Instant::now()));
            match timeout(ANSWER, send.send(request)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Status::unavailable("the stream was closed")),
                Err(_) => return Err(Status::deadline_exceeded("the stream takes nothing")),
            }
        }
        Ok(())
    }

    /// Commits for one request; those that nobody waits for any more are left out.
    fn take(&mut self) -> Vec<Entry> {
        let (mut entries, mut bytes, mut partitions) = (Vec::new(), 0, 0);
        while let Some(entry) = self.waiting.front() {
            if entry.answer.is_closed() {
                self.waiting.pop_front();
                continue;
            }
            bytes += entry.commit.encoded_len();
            partitions += entry.commit.partitions.len();
            let full = entries.len() == TASKS || bytes > BYTES || partitions > PARTITIONS;
            if full && !entries.is_empty() {
                break;
            }
            entries.extend(self.waiting.pop_front());
        }
        entries
    }

    async fn answered(&mut self, answer: CommitOffsetsResponse, unanswered: &mut Unanswered) {
        let Some((entries, _)) = unanswered.remove(&answer.id) else {
            return;
        };
        let mut results = answer.tasks.into_iter();
        for entry in entries {
            // An answer that is too short says nothing of the rest.
            let result = results.next().unwrap_or_default();
            // Whoever does not wait any more does not need it.
            let _ = entry.answer.send(result);
        }
    }
}

async fn next(
    answers: &mut Option<Streaming<CommitOffsetsResponse>>,
) -> Option<Result<CommitOffsetsResponse, Status>> {
    match answers {
        Some(answers) => answers.next().await,
        None => None,
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
