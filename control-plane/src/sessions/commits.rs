//! Commits and starting positions: translated for the store, whose guards decide.

use std::collections::BTreeMap;

use futures::{FutureExt, Stream, StreamExt, stream::FuturesUnordered};
use gantry_proto::{
    agent::v1::{
        CommitOffsetsRequest, CommitOffsetsResponse, ReadOffsetsRequest, ReadOffsetsResponse,
        TaskCommitResult, task_commit_result::Outcome,
    },
    error::{Reason, Refusal},
};
use tokio::{sync::mpsc, time::Instant};
use tonic::Status;

use super::{Sessions, handshake::store_refusal, status::task_of};
use crate::store::ReadOffsets;

/// Requests of one stream that are worked on at a time; more wait on the wire.
const IN_FLIGHT: usize = 64;
/// Tasks in one request.
const TASKS: usize = 60;

type Out = mpsc::Sender<Result<CommitOffsetsResponse, Status>>;

/// Serves one stream of commits to its end.
pub(super) async fn serve<S>(sessions: Sessions, mut input: S, out: Out)
where
    S: Stream<Item = Result<CommitOffsetsRequest, Status>> + Send + Unpin,
{
    let mut in_flight = FuturesUnordered::new();
    let mut open = true;
    while open || !in_flight.is_empty() {
        tokio::select! {
            biased;
            () = sessions.stop().cancelled() => {
                let refusal = Refusal::new(Reason::ShuttingDown, "the replica stops; dial another one");
                let _ = out.try_send(Err(refusal.into()));
                return;
            }
            Some(response) = in_flight.next(), if !in_flight.is_empty() => {
                if out.send(Ok(response)).await.is_err() {
                    return;
                }
            }
            request = input.next(), if open && in_flight.len() < IN_FLIGHT => match request {
                Some(Ok(request)) => in_flight.push(commit(&sessions, request).boxed()),
                Some(Err(_)) | None => open = false,
            },
        }
    }
}

async fn commit(sessions: &Sessions, request: CommitOffsetsRequest) -> CommitOffsetsResponse {
    let started = Instant::now();
    let metrics = sessions.metrics();
    let tasks = if request.tasks.len() > TASKS {
        let message = format!(
            "{} tasks in one request, at most {TASKS} are allowed",
            request.tasks.len()
        );
        let refused = |commit: &gantry_proto::agent::v1::TaskCommit| TaskCommitResult {
            task: Some(gantry_proto::agent::v1::TaskRef {
                connector_uid: commit.connector_uid.clone(),
                task: commit.task,
            }),
            fence: commit.fence,
            outcome: Outcome::Invalid.into(),
            message: message.clone(),
            ..TaskCommitResult::default()
        };
        request.tasks.iter().map(refused).collect()
    } else {
        sessions.committer().commit(request.tasks).await
    };
    let mut outcomes: BTreeMap<Outcome, usize> = BTreeMap::new();
    for task in &tasks {
        *outcomes.entry(task.outcome()).or_default() += 1;
        match task.outcome() {
            Outcome::Stored => drop(metrics.commits.inc()),
            Outcome::Fenced | Outcome::Conflict | Outcome::Invalid => drop(metrics.commits_refused.inc()),
            Outcome::Retry | Outcome::Unspecified => {}
        }
    }
    metrics.commit_seconds.observe(started.elapsed().as_secs_f64());
    tracing::trace!(
        agent = request.agent,
        instance = request.instance_uid,
        ?outcomes,
        "commits"
    );
    CommitOffsetsResponse {
        id: request.id,
        tasks,
    }
}

/// Where a task starts.
pub(super) async fn read(
    sessions: &Sessions,
    request: ReadOffsetsRequest,
) -> Result<ReadOffsetsResponse, Refusal> {
    let Some(task) = task_of(request.task.as_ref()) else {
        return Err(
            Refusal::new(Reason::InvalidField, "the task is not named").field("task", "must name a task")
        );
    };
    match sessions.store().read_offsets(&task, request.fence).await {
        Ok(ReadOffsets::Read {
            epoch,
            head_revision,
            offsets,
            ..
        }) => Ok(ReadOffsetsResponse {
            epoch,
            head_revision,
            offsets,
        }),
        Ok(ReadOffsets::Fenced) => Err(Refusal::new(
            Reason::Fenced,
            format!("the right to commit for task {task} has ended"),
        )),
        Err(error) => Err(store_refusal(&error)),
    }
}
