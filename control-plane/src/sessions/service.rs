//! The tonic service: translate, call.

use std::pin::Pin;

use futures::Stream;
use gantry_proto::agent::v1::{
    CommitOffsetsRequest, CommitOffsetsResponse, OpenSessionRequest, OpenSessionResponse, ReadOffsetsRequest,
    ReadOffsetsResponse,
    agent_session_service_server::{AgentSessionService, AgentSessionServiceServer},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Sessions, commits, session};

/// Messages that wait for a stream's other end.
const OUT: usize = 16;
/// Largest message of an agent: a chunk of 1 MiB and then some.
const MAX_MESSAGE: usize = 4 << 20;

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Serves agents.
#[derive(Clone)]
pub struct AgentService {
    sessions: Sessions,
}

impl AgentService {
    /// For these sessions.
    pub fn new(sessions: Sessions) -> Self {
        Self { sessions }
    }

    /// As a tonic server, with its limits.
    pub fn into_server(self) -> AgentSessionServiceServer<Self> {
        AgentSessionServiceServer::new(self)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    /// One session, over any streams.
    pub fn open_session(
        &self,
        input: impl Stream<Item = Result<OpenSessionRequest, Status>> + Send + Unpin + 'static,
    ) -> ReceiverStream<Result<OpenSessionResponse, Status>> {
        let (out, responses) = mpsc::channel(OUT);
        // A task of its own: what it has begun to write is finished even if the call is dropped.
        self.sessions
            .streams()
            .spawn(session::serve(self.sessions.clone(), input, out));
        ReceiverStream::new(responses)
    }

    /// One stream of commits, over any streams.
    pub fn commit_offsets(
        &self,
        input: impl Stream<Item = Result<CommitOffsetsRequest, Status>> + Send + Unpin + 'static,
    ) -> ReceiverStream<Result<CommitOffsetsResponse, Status>> {
        let (out, responses) = mpsc::channel(OUT);
        self.sessions
            .streams()
            .spawn(commits::serve(self.sessions.clone(), input, out));
        ReceiverStream::new(responses)
    }

    /// Where a task starts.
    ///
    /// # Errors
    /// FAILED_PRECONDITION FENCED, UNAVAILABLE, INVALID_ARGUMENT.
    pub async fn read_offsets(&self, request: ReadOffsetsRequest) -> Result<ReadOffsetsResponse, Status> {
        commits::read(&self.sessions, request).await.map_err(Status::from)
    }
}

#[tonic::async_trait]
impl AgentSessionService for AgentService {
    type OpenSessionStream = Responses<OpenSessionResponse>;
    type CommitOffsetsStream = Responses<CommitOffsetsResponse>;

    async fn open_session(
        &self,
        request: Request<Streaming<OpenSessionRequest>>,
    ) -> Result<Response<Self::OpenSessionStream>, Status> {
        Ok(Response::new(Box::pin(Self::open_session(
            self,
            request.into_inner(),
        ))))
    }

    async fn commit_offsets(
        &self,
        request: Request<Streaming<CommitOffsetsRequest>>,
    ) -> Result<Response<Self::CommitOffsetsStream>, Status> {
        Ok(Response::new(Box::pin(Self::commit_offsets(
            self,
            request.into_inner(),
        ))))
    }

    async fn read_offsets(
        &self,
        request: Request<ReadOffsetsRequest>,
    ) -> Result<Response<ReadOffsetsResponse>, Status> {
        Self::read_offsets(self, request.into_inner())
            .await
            .map(Response::new)
    }
}
