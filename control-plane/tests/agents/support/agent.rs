//! An agent that keeps the protocol, and whose code is a script.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use gantry_control_plane::{
    domain::{TaskId, Uid},
    sessions::service::AgentService,
};
use gantry_proto::{
    agent::v1::{
        AskAnswer, Assignment, AssignmentAck, CommitOffsetsRequest, Goodbye, Heartbeat, Hello, Inventory,
        LockIdentity, OpenSessionRequest, OpenSessionResponse, PartitionCommit, PlanTasksAnswer, PlannedTask,
        ReadOffsetsRequest, RunningTask, StatusReport, StoppedTask, StoredOffset, TaskAck, TaskAssignment,
        TaskCommit, TaskRef, TaskStatus, ask, ask_answer::Answer, open_session_request::Message as Request,
        open_session_response::Message as Response, task_ack, task_assignment::Want,
        task_commit_result::Outcome,
    },
    google::rpc,
    v1::{Value, task::State, value::Kind},
};
use parking_lot::Mutex;
use prost::Message;
use sha2::{Digest, Sha256};
use tokio::{
    sync::mpsc,
    task::AbortHandle,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Code, Status};

use super::{plugin, world::Services};

const LEASE: Duration = Duration::from_secs(9);

/// A task that the agent holds.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) fence: i64,
    pub(crate) want_revision: i64,
    pub(crate) state: State,
    pub(crate) nonce: String,
    pub(crate) hash: String,
    pub(crate) traceparent: String,
    since: i64,
    sequence: u64,
    confirmed: bool,
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
    pub(crate) deltas: usize,
    pub(crate) fenced: usize,
    pub(crate) reconnects: usize,
    /// Why it exited.
    pub(crate) exit: Option<Status>,
    /// Last refusal of a hello.
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
}

#[derive(Debug, Clone, Copy)]
enum Command {
    Freeze,
    Thaw,
    Redial(usize),
    Goodbye,
    Fail,
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

struct Process {
    name: String,
    uid: String,
    lock: LockIdentity,
    start: u64,
    dial: u64,
    services: Services,
    next: usize,
    seen: Arc<Mutex<Seen>>,
    script: Arc<Mutex<Script>>,
    orders: mpsc::Receiver<Command>,
    revision: i64,
    clock: i64,
}

type Sender = mpsc::Sender<Result<OpenSessionRequest, Status>>;

enum End {
    Dial,
    Exit,
}

impl Process {
    async fn run(mut self) {
        loop {
            let service = {
                let services = self.services.lock();
                services[self.next % services.len()].clone()
            };
            if let Some(service) = service
                && matches!(self.session(service).await, End::Exit)
            {
                self.seen.lock().replica = None;
                return;
            }
            self.seen.lock().replica = None;
            self.next += 1;
            self.stop_when_cut_off();
            // Jitter of a kind: each dial waits for another time.
            let pause = Duration::from_millis(200 + 137 * (self.dial % 5));
            let until = Instant::now() + pause;
            tokio::select! {
                () = sleep_until(until) => {}
                Some(order) = self.orders.recv() => {
                    if let Command::Redial(replica) = order {
                        self.next = replica;
                    }
                }
            }
        }
    }

    async fn session(&mut self, service: AgentService) -> End {
        let (out, requests) = mpsc::channel(256);
        self.dial += 1;
        self.send(&out, Request::Hello(self.hello())).await;
        self.send(&out, Request::Inventory(self.inventory())).await;
        let mut answers = service.open_session(ReceiverStream::new(requests));
        let mut beats = interval(Duration::from_secs(3));
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sent: BTreeMap<u64, Instant> = BTreeMap::new();
        let mut sequence = 0;
        let mut repeat = interval(Duration::from_secs(1));
        let mut welcomed = false;
        loop {
            let cut_off = self.deadline();
            tokio::select! {
                biased;
                order = self.orders.recv() => match order {
                    None => return End::Exit,
                    Some(Command::Freeze) => {
                        if self.frozen().await {
                            return End::Dial;
                        }
                    }
                    Some(Command::Thaw) => {}
                    Some(Command::Redial(replica)) => {
                        self.next = replica + 1000 * self.services.lock().len() - 1;
                        return End::Dial;
                    }
                    Some(Command::Goodbye) => {
                        self.say_goodbye(&out).await;
                        while answers.next().await.is_some() {}
                        return End::Exit;
                    }
                    Some(Command::Fail) => {
                        let tasks: Vec<_> = self.seen.lock().tasks.keys().cloned().collect();
                        for id in tasks {
                            self.set(&id, State::Failed);
                            self.report(&out, &id, false).await;
                        }
                    }
                },
                answer = answers.next() => match answer {
                    Some(Ok(OpenSessionResponse { message: Some(message) })) => {
                        if let Response::Welcome(welcome) = &message {
                            welcomed = true;
                            self.welcomed(welcome);
                        }
                        if let Response::HeartbeatAck(ack) = &message {
                            let at = sent.remove(&ack.sequence).expect("it was sent");
                            self.seen.lock().answered = Some(at);
                        }
                        assert!(welcomed, "the welcome comes first");
                        if self.take(message, &out, &service).await {
                            return End::Dial;
                        }
                    }
                    Some(Ok(_)) => {}
                    Some(Err(status)) => {
                        self.seen.lock().refused = Some(status.clone());
                        if status.code() == Code::AlreadyExists {
                            self.seen.lock().exit = Some(status);
                            return End::Exit;
                        }
                        return End::Dial;
                    }
                    None => return End::Dial,
                },
                _ = beats.tick() => {
                    sequence += 1;
                    sent.insert(sequence, Instant::now());
                    self.send(&out, Request::Heartbeat(Heartbeat { sequence })).await;
                }
                _ = repeat.tick() => self.repeat(&out).await,
                () = sleep_until(cut_off) => {
                    if self.stop_when_cut_off() {
                        return End::Dial;
                    }
                }
            }
        }
    }

    /// Nothing of the process runs, its streams stay open. True: it was too long.
    async fn frozen(&mut self) -> bool {
        self.seen.lock().frozen = true;
        while let Some(order) = self.orders.recv().await {
            if matches!(order, Command::Thaw) {
                break;
            }
        }
        let stopped = self.stop_when_cut_off();
        self.seen.lock().frozen = false;
        stopped
    }

    fn deadline(&self) -> Instant {
        let answered = self.seen.lock().answered;
        answered.map_or(Instant::now() + Duration::from_secs(3600), |at| {
            let deadline = at + LEASE * 2 / 3;
            if deadline <= Instant::now() {
                Instant::now() + Duration::from_secs(1)
            } else {
                deadline
            }
        })
    }

    /// The rule for STOP-policy tasks. True: some were stopped, and are started again by the next session's full set.
    fn stop_when_cut_off(&mut self) -> bool {
        let mut seen = self.seen.lock();
        let answered = seen.answered;
        let mut stopped = false;
        if answered.is_some_and(|at| Instant::now() >= at + LEASE * 2 / 3) {
            for task in seen.tasks.values_mut().filter(|t| t.state != State::Pending) {
                task.state = State::Pending;
                stopped = true;
            }
        }
        stopped
    }

    fn hello(&self) -> Hello {
        Hello {
            agent: self.name.clone(),
            instance_uid: self.uid.clone(),
            lock: Some(self.lock.clone()),
            start_counter: self.start,
            dial_counter: self.dial,
            version: "0".into(),
            host: format!("host-{}", self.name),
            host_id: format!("id-{}", self.name),
            plugins: if self.script.lock().plugins {
                vec![plugin::plugin()]
            } else {
                Vec::new()
            },
            inventory_chunks: 1,
            ..Hello::default()
        }
    }

    fn inventory(&self) -> Inventory {
        let seen = self.seen.lock();
        let running = |(id, held): (&TaskId, &Held)| RunningTask {
            connector_uid: id.uid.to_string(),
            task: id.n,
            fence: held.fence,
            spec_hash: held.hash.clone(),
            status: Some(status_of(id, held, false)),
        };
        let tasks: Vec<_> = seen.tasks.iter().map(running).collect();
        let digest = Sha256::digest(tasks.iter().flat_map(Message::encode_to_vec).collect::<Vec<_>>());
        Inventory {
            tasks,
            digest: digest.to_vec(),
        }
    }

    fn welcomed(&self, welcome: &gantry_proto::agent::v1::Welcome) {
        assert_eq!(welcome.lease.unwrap().seconds, 9);
        let mut seen = self.seen.lock();
        seen.sessions += 1;
        seen.replica = Some(welcome.replica.clone());
        seen.store_id.clone_from(&welcome.store_id);
    }

    /// True: it has to dial again.
    async fn take(&mut self, message: Response, out: &Sender, service: &AgentService) -> bool {
        match message {
            Response::Assignment(push) => self.assigned(push, out, service).await,
            Response::StatusAck(acks) => {
                let mut seen = self.seen.lock();
                for ack in acks.tasks {
                    let id = id_of(ack.task.as_ref().unwrap());
                    if ack.fenced && seen.tasks.get(&id).is_some_and(|t| t.fence == ack.fence) {
                        seen.tasks.remove(&id);
                        seen.fenced += 1;
                    }
                }
            }
            Response::Ask(ask) => {
                self.seen.lock().asks += 1;
                let Some(ask::Question::PlanTasks(question)) = &ask.question else {
                    return false;
                };
                if self.script.lock().deaf {
                    return false;
                }
                let tasks = (0..question.tasks_max).map(|_| PlannedTask::default()).collect();
                let answer = Answer::PlanTasks(PlanTasksAnswer {
                    tasks,
                    total_queues: 0,
                });
                self.send(
                    out,
                    Request::AskAnswer(AskAnswer {
                        id: ask.id,
                        answer: Some(answer),
                    }),
                )
                .await;
            }
            Response::Reconnect(_) => {
                self.seen.lock().reconnects += 1;
                return true;
            }
            Response::Welcome(_) | Response::HeartbeatAck(_) => {}
        }
        false
    }

    async fn assigned(&mut self, push: Assignment, out: &Sender, service: &AgentService) {
        assert!(push.revision >= self.revision, "a push never goes back");
        assert!(push.last && push.chunk == 0, "these sets are small");
        let digest = Sha256::digest(
            push.tasks
                .iter()
                .flat_map(Message::encode_to_vec)
                .collect::<Vec<_>>(),
        );
        assert_eq!(push.digest, digest.to_vec());
        self.revision = push.revision;
        let full = push.base_revision == 0;
        {
            let mut seen = self.seen.lock();
            if full {
                seen.full_sets += 1;
                let named: Vec<_> = push.tasks.iter().map(|t| id(&t.connector_uid, t.task)).collect();
                seen.tasks.retain(|id, _| named.contains(id));
            } else {
                seen.deltas += 1;
            }
            for gone in &push.removed {
                seen.tasks.remove(&id_of(gone));
            }
        }
        let mut acks = Vec::new();
        for task in push.tasks {
            if self.script.lock().refuse {
                acks.push(refusal(&task));
                continue;
            }
            self.apply(task, out, service).await;
        }
        let ack = AssignmentAck {
            revision: push.revision,
            resync: false,
            tasks: acks,
        };
        self.send(out, Request::AssignmentAck(ack)).await;
    }

    async fn apply(&mut self, task: TaskAssignment, out: &Sender, service: &AgentService) {
        let id = id(&task.connector_uid, task.task);
        let present = self.seen.lock().tasks.get(&id).cloned();
        assert!(task.spec.is_some(), "the spec comes with the task");
        let runs_on = present.as_ref().is_some_and(|p| {
            p.fence == task.fence
                && p.state == State::Running
                && p.nonce == task.restart_nonce
                && p.hash == task.spec_hash
        });
        let held = Held {
            fence: task.fence,
            want_revision: task.want_revision,
            state: if runs_on { State::Running } else { State::Starting },
            nonce: task.restart_nonce.clone(),
            hash: task.spec_hash.clone(),
            traceparent: task.traceparent.clone(),
            since: present.as_ref().map_or(0, |p| p.since),
            sequence: 0,
            confirmed: false,
        };
        self.seen.lock().tasks.insert(id.clone(), held);
        let state = match task.want() {
            Want::Pause => State::Paused,
            Want::Stop => State::Stopped,
            _ => State::Running,
        };
        if state == State::Running && !runs_on {
            let read = service
                .read_offsets(ReadOffsetsRequest {
                    agent: self.name.clone(),
                    instance_uid: self.uid.clone(),
                    task: Some(TaskRef {
                        connector_uid: id.uid.to_string(),
                        task: id.n,
                    }),
                    fence: task.fence,
                })
                .await;
            match read {
                Ok(_) => self.seen.lock().starts.push((id.clone(), Instant::now())),
                Err(status) if status.code() == Code::FailedPrecondition => {
                    self.seen.lock().tasks.remove(&id);
                    return;
                }
                // Again with the next push, or the next session.
                Err(_) => return,
            }
        }
        if self.script.lock().stubborn && state != State::Running {
            return;
        }
        if !(runs_on && state == State::Running) {
            self.set(&id, state);
            self.report(out, &id, state != State::Running).await;
        }
    }

    fn set(&mut self, id: &TaskId, state: State) {
        self.clock += 1;
        if let Some(task) = self.seen.lock().tasks.get_mut(id) {
            task.state = state;
            task.since = self.clock;
            task.confirmed = state == State::Paused || state == State::Stopped;
        }
    }

    /// Confirmations are repeated until the grant is gone or the want has changed.
    async fn repeat(&mut self, out: &Sender) {
        let confirmed: Vec<_> = self
            .seen
            .lock()
            .tasks
            .iter()
            .filter(|(_, t)| t.confirmed)
            .map(|(id, _)| id.clone())
            .collect();
        for id in confirmed {
            self.report(out, &id, true).await;
        }
    }

    async fn report(&mut self, out: &Sender, id: &TaskId, confirm: bool) {
        let status = {
            let mut seen = self.seen.lock();
            let Some(task) = seen.tasks.get_mut(id) else {
                return;
            };
            task.sequence += 1;
            status_of(id, task, confirm)
        };
        self.send(out, Request::StatusReport(StatusReport { tasks: vec![status] }))
            .await;
    }

    async fn say_goodbye(&mut self, out: &Sender) {
        let tasks = {
            let mut seen = self.seen.lock();
            let tasks = std::mem::take(&mut seen.tasks);
            let stopped = |(id, held): (&TaskId, &Held)| StoppedTask {
                task: Some(TaskRef {
                    connector_uid: id.uid.to_string(),
                    task: id.n,
                }),
                fence: held.fence,
            };
            tasks.iter().map(stopped).collect()
        };
        self.send(out, Request::Goodbye(Goodbye { tasks })).await;
    }

    async fn send(&self, out: &Sender, message: Request) {
        let _ = out
            .send(Ok(OpenSessionRequest {
                message: Some(message),
            }))
            .await;
    }
}

/// Revision of the task's own record.
fn own(offsets: &[StoredOffset], task: &TaskId) -> i64 {
    let is_own = |o: &&StoredOffset| {
        o.partition.get("p").and_then(|v| v.kind.clone()) == Some(Kind::Int64Value(i64::from(task.n)))
    };
    offsets.iter().find(is_own).map_or(0, |o| o.revision)
}

fn status_of(id: &TaskId, held: &Held, confirm: bool) -> TaskStatus {
    TaskStatus {
        connector_uid: id.uid.to_string(),
        task: id.n,
        fence: held.fence,
        want_revision: if confirm { held.want_revision } else { 0 },
        state: held.state.into(),
        state_time: Some(pbjson_types::Timestamp {
            seconds: held.since,
            nanos: 0,
        }),
        restart_nonce: held.nonce.clone(),
        sequence: held.sequence,
        ..TaskStatus::default()
    }
}

fn refusal(task: &TaskAssignment) -> TaskAck {
    TaskAck {
        task: Some(TaskRef {
            connector_uid: task.connector_uid.clone(),
            task: task.task,
        }),
        fence: task.fence,
        outcome: task_ack::Outcome::Refused.into(),
        error: Some(rpc::Status {
            code: 9,
            message: "not here".into(),
            details: Vec::new(),
        }),
    }
}

fn id(uid: &str, n: u32) -> TaskId {
    TaskId {
        uid: Uid(uid.into()),
        n,
    }
}

fn id_of(task: &TaskRef) -> TaskId {
    id(&task.connector_uid, task.task)
}

/// Lets time pass.
pub(crate) async fn pass(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}
