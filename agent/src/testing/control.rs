//! A control plane that does what a test tells it, over in-memory connections.

use std::{
    collections::BTreeMap,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, Stream, StreamExt};
use gantry_proto::agent::v1::{
    AskAnswer, Assignment, AssignmentAck, CommitOffsetsRequest, CommitOffsetsResponse, Goodbye, HeartbeatAck,
    Hello, OpenSessionRequest, OpenSessionResponse, ReadOffsetsRequest, ReadOffsetsResponse, RunningTask,
    StatusAck, TaskAssignment, TaskStatus, TaskStatusAck, Welcome,
    agent_session_service_server::{AgentSessionService, AgentSessionServiceServer},
    open_session_request::Message as In,
    open_session_response::Message as Out,
};
use parking_lot::Mutex;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::store::MemoryStore;
use crate::{
    Dial,
    key::TaskKey,
    task::offsets::{OffsetStore, ReadError},
};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What it knows and does.
#[derive(Clone)]
pub(crate) struct Control(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) seen: Mutex<Seen>,
    /// Heartbeats are answered.
    pub(crate) answers: AtomicBool,
    /// Connections are accepted.
    pub(crate) accepts: AtomicBool,
    /// A full set is sent as soon as a session begins.
    pub(crate) assigns: AtomicBool,
    /// Whoever asks for the full set gets something that does not fit.
    pub(crate) misfits: AtomicBool,
    pub(crate) dials: AtomicUsize,
    pub(crate) store_id: Mutex<String>,
    pub(crate) refuse: Mutex<Option<Status>>,
    pub(crate) tasks: Mutex<Tasks>,
    /// To all sessions.
    push: broadcast::Sender<Out>,
}

#[derive(Default)]
pub(crate) struct Tasks {
    pub(crate) revision: i64,
    pub(crate) wanted: BTreeMap<(String, u32), TaskAssignment>,
}

/// What the agent has said.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) hellos: Vec<Hello>,
    pub(crate) inventories: Vec<Vec<RunningTask>>,
    pub(crate) statuses: Vec<TaskStatus>,
    pub(crate) acks: Vec<AssignmentAck>,
    pub(crate) goodbyes: Vec<Goodbye>,
    pub(crate) answers: Vec<AskAnswer>,
}

impl Control {
    pub(crate) fn new(store: Arc<MemoryStore>) -> Self {
        Self(Arc::new(Inner {
            store,
            seen: Mutex::default(),
            answers: AtomicBool::new(true),
            accepts: AtomicBool::new(true),
            assigns: AtomicBool::new(true),
            misfits: AtomicBool::new(false),
            dials: AtomicUsize::new(0),
            store_id: Mutex::new("store-1".into()),
            refuse: Mutex::default(),
            tasks: Mutex::new(Tasks {
                revision: 100,
                ..Default::default()
            }),
            push: broadcast::channel(64).0,
        }))
    }

    /// How agents reach it.
    pub(crate) fn dial(&self) -> Dial {
        let control = self.clone();
        Arc::new(move |_| {
            control.0.dials.fetch_add(1, Ordering::SeqCst);
            let control = control.clone();
            async move {
                if !control.0.accepts.load(Ordering::SeqCst) {
                    return Err(io::Error::from(io::ErrorKind::ConnectionRefused));
                }
                let (near, far) = tokio::io::duplex(1 << 20);
                let service = AgentSessionServiceServer::new(control);
                let incoming =
                    futures::stream::iter([Ok::<_, io::Error>(far)]).chain(futures::stream::pending());
                tokio::spawn(
                    tonic::transport::Server::builder()
                        .add_service(service)
                        .serve_with_incoming(incoming),
                );
                Ok(near)
            }
            .boxed()
        })
    }

    /// Wants this task, and says so to whoever is connected.
    pub(crate) fn want(&self, task: TaskAssignment) {
        self.tasks
            .lock()
            .wanted
            .insert((task.connector_uid.clone(), task.task), task);
        self.push_all();
    }

    /// Ends the right to a task.
    pub(crate) fn revoke(&self, uid: &str, task: u32) {
        self.tasks.lock().wanted.remove(&(uid.into(), task));
        self.push_all();
    }

    /// Sends something to all sessions.
    pub(crate) fn say(&self, message: Out) {
        let _ = self.0.push.send(message);
    }

    fn push_all(&self) {
        self.tasks.lock().revision += 1;
        self.say(self.full_set());
    }

    fn full_set(&self) -> Out {
        let t = self.tasks.lock();
        let tasks: Vec<_> = t.wanted.values().cloned().collect();
        let digest = gantry_proto::digest::of_assignments(&tasks);
        Out::Assignment(Assignment {
            revision: t.revision,
            tasks,
            last: true,
            digest,
            ..Default::default()
        })
    }

    fn answer_to_resync(&self) -> Out {
        match (self.misfits.load(Ordering::SeqCst), self.full_set()) {
            (true, Out::Assignment(full)) => Out::Assignment(Assignment { revision: 1, ..full }),
            (_, full) => full,
        }
    }

    /// The last status of a task.
    pub(crate) fn status(&self, task: u32) -> Option<TaskStatus> {
        self.seen
            .lock()
            .statuses
            .iter()
            .rfind(|s| s.task == task)
            .cloned()
    }

    async fn serve(
        self,
        mut from: Streaming<OpenSessionRequest>,
        to: mpsc::Sender<Result<OpenSessionResponse, Status>>,
    ) {
        let mut pushes = self.0.push.subscribe();
        let send = |message| {
            let to = to.clone();
            async move {
                to.send(Ok(OpenSessionResponse {
                    message: Some(message),
                }))
                .await
                .is_ok()
            }
        };
        let Ok(Some(OpenSessionRequest {
            message: Some(In::Hello(hello)),
        })) = from.message().await
        else {
            return;
        };
        let chunks = hello.inventory_chunks;
        self.seen.lock().hellos.push(hello);
        let mut inventory = Vec::new();
        for _ in 0..chunks {
            let Ok(Some(OpenSessionRequest {
                message: Some(In::Inventory(i)),
            })) = from.message().await
            else {
                return;
            };
            inventory.extend(i.tasks);
        }
        self.seen.lock().inventories.push(inventory);
        let refused = self.refuse.lock().clone();
        if let Some(status) = refused {
            let _ = to.send(Err(status)).await;
            return;
        }
        let welcome = Welcome {
            heartbeat_interval: Some(pbjson_types::Duration { seconds: 3, nanos: 0 }),
            lease: Some(pbjson_types::Duration { seconds: 9, nanos: 0 }),
            store_id: self.store_id.lock().clone(),
            replica: "r".into(),
            addresses: vec![],
        };
        send(Out::Welcome(welcome)).await;
        if self.assigns.load(Ordering::SeqCst) {
            send(self.full_set()).await;
        }
        loop {
            let message = tokio::select! {
                message = from.message() => message,
                push = pushes.recv() => {
                    let Ok(push) = push else { return };
                    send(push).await;
                    continue;
                }
            };
            match message.ok().flatten().and_then(|m| m.message) {
                Some(In::Heartbeat(h)) if self.answers.load(Ordering::SeqCst) => {
                    send(Out::HeartbeatAck(HeartbeatAck { sequence: h.sequence })).await;
                }
                Some(In::StatusReport(report)) => {
                    let ack = |s: &TaskStatus| TaskStatusAck {
                        task: Some(TaskKey::new(&s.connector_uid, s.task).to_ref()),
                        fence: s.fence,
                        sequence: s.sequence,
                        stored: true,
                        fenced: false,
                    };
                    let tasks = report.tasks.iter().map(ack).collect();
                    self.seen.lock().statuses.extend(report.tasks);
                    send(Out::StatusAck(StatusAck { tasks })).await;
                }
                Some(In::AssignmentAck(ack)) => {
                    let resync = ack.resync;
                    self.seen.lock().acks.push(ack);
                    if resync {
                        send(self.answer_to_resync()).await;
                    }
                }
                Some(In::AskAnswer(answer)) => self.seen.lock().answers.push(answer),
                Some(In::Goodbye(goodbye)) => {
                    self.seen.lock().goodbyes.push(goodbye);
                    return;
                }
                Some(_) => {}
                None => return,
            }
        }
    }
}

impl std::ops::Deref for Control {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

#[tonic::async_trait]
impl AgentSessionService for Control {
    type OpenSessionStream = Answers<OpenSessionResponse>;
    type CommitOffsetsStream = Answers<CommitOffsetsResponse>;

    async fn open_session(
        &self,
        request: Request<Streaming<OpenSessionRequest>>,
    ) -> Result<Response<Self::OpenSessionStream>, Status> {
        let (to, answers) = mpsc::channel(64);
        tokio::spawn(self.clone().serve(request.into_inner(), to));
        Ok(Response::new(ReceiverStream::new(answers).boxed()))
    }

    async fn commit_offsets(
        &self,
        request: Request<Streaming<CommitOffsetsRequest>>,
    ) -> Result<Response<Self::CommitOffsetsStream>, Status> {
        let store = self.store.clone();
        let answers = request.into_inner().then(move |request| {
            let store = store.clone();
            async move {
                let request = request?;
                let mut tasks = Vec::new();
                for commit in request.tasks {
                    tasks.push(store.commit(commit).await);
                }
                Ok(CommitOffsetsResponse {
                    id: request.id,
                    tasks,
                })
            }
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn read_offsets(
        &self,
        request: Request<ReadOffsetsRequest>,
    ) -> Result<Response<ReadOffsetsResponse>, Status> {
        let request = request.into_inner();
        let key = TaskKey::from(&request.task.unwrap_or_default());
        match self.store.read(&key, request.fence).await {
            Ok(read) => Ok(Response::new(read)),
            Err(ReadError::Fenced) => Err(Status::failed_precondition("FENCED")),
            Err(ReadError::Unavailable(_)) => Err(Status::unavailable("no store")),
        }
    }
}

/// Long enough for anything that is not going to happen to have happened.
pub(crate) async fn settle() {
    tokio::time::sleep(Duration::from_secs(2)).await;
}
