//! The process behind an agent: dials, beats, does what it is told.

mod tasks;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use gantry_control_plane::{
    domain::{TaskId, Uid},
    sessions::service::AgentService,
};
use gantry_proto::{
    agent::v1::{
        AskAnswer, Assignment, Goodbye, Heartbeat, Hello, Inventory, LockIdentity, OpenSessionRequest,
        OpenSessionResponse, PlanTasksAnswer, PlannedTask, RunningTask, StatusReport, StoppedTask, TaskRef,
        TaskStatus, Welcome, ask, ask_answer::Answer, open_session_request::Message as Request,
        open_session_response::Message as Response,
    },
    digest,
    v1::task::State,
};
use parking_lot::Mutex;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Code, Status};

use super::{
    agent::{Held, Script, Seen},
    plugin,
    world::{LEASE, Services},
};

#[derive(Debug, Clone, Copy)]
pub(super) enum Command {
    Freeze,
    Thaw,
    Redial(usize),
    Goodbye,
    Fail,
}

pub(super) struct Process {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) lock: LockIdentity,
    pub(super) start: u64,
    pub(super) dial: u64,
    pub(super) services: Services,
    pub(super) next: usize,
    pub(super) seen: Arc<Mutex<Seen>>,
    pub(super) script: Arc<Mutex<Script>>,
    pub(super) orders: mpsc::Receiver<Command>,
    pub(super) revision: i64,
    /// Chunks of a push that is not complete yet.
    pub(super) chunks: Vec<Assignment>,
    pub(super) clock: i64,
}

type Sender = mpsc::Sender<Result<OpenSessionRequest, Status>>;

enum End {
    Dial,
    Exit,
}

impl Process {
    pub(super) async fn run(mut self) {
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
        for chunk in self.inventory() {
            self.send(&out, Request::Inventory(chunk)).await;
        }
        self.chunks.clear();
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
                        while let Some(answer) = answers.next().await {
                            if let Err(status) = answer {
                                self.seen.lock().exit = Some(status);
                            }
                        }
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
            inventory_chunks: self.script.lock().inventory_chunks.try_into().unwrap(),
            ..Hello::default()
        }
    }

    fn inventory(&self) -> Vec<Inventory> {
        let seen = self.seen.lock();
        let running = |(id, held): (&TaskId, &Held)| RunningTask {
            connector_uid: id.uid.to_string(),
            task: id.n,
            fence: held.fence,
            spec_hash: held.hash.clone(),
            status: Some(status_of(id, held, false)),
        };
        let tasks: Vec<_> = seen.tasks.iter().map(running).collect();
        let count = self.script.lock().inventory_chunks;
        let mut chunks = vec![Inventory::default(); count];
        for (n, task) in tasks.iter().enumerate() {
            chunks[n * count / tasks.len()].tasks.push(task.clone());
        }
        chunks[count - 1].digest = digest::of_inventory(&tasks);
        chunks
    }

    fn welcomed(&mut self, welcome: &Welcome) {
        assert_eq!(welcome.lease.unwrap().seconds, 9);
        let mut seen = self.seen.lock();
        if !seen.store_id.is_empty() && seen.store_id != welcome.store_id {
            // The store was restored: everything stops without a commit and starts over.
            seen.tasks.clear();
            self.revision = 0;
        }
        seen.sessions += 1;
        seen.welcomes.push(Instant::now());
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
                let padding = "x".repeat(self.script.lock().padding);
                let planned = || PlannedTask {
                    config: Some(
                        [("padding".to_owned(), padding.clone().into())]
                            .into_iter()
                            .collect(),
                    ),
                    ..PlannedTask::default()
                };
                let tasks = (0..question.tasks_max).map(|_| planned()).collect();
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

fn id(uid: &str, n: u32) -> TaskId {
    TaskId {
        uid: Uid(uid.into()),
        n,
    }
}

fn id_of(task: &TaskRef) -> TaskId {
    id(&task.connector_uid, task.task)
}
