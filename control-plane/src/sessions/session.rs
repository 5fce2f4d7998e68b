//! One agent's session from its hello to its end: an event loop that owns everything about it. Nothing in it waits for
//! the store while a heartbeat waits for its answer.

use std::{collections::VecDeque, future::pending, time::Duration};

use futures::{FutureExt, Stream, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use gantry_proto::{
    agent::v1::{
        AskAnswer, AssignmentAck, HeartbeatAck, OpenSessionRequest, OpenSessionResponse, Reconnect,
        StatusAck, TaskStatus, open_session_request::Message as Request,
        open_session_response::Message as Response, task_ack,
    },
    error::{Reason, Refusal},
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};
use tonic::Status;
use tracing::Instrument;

use super::{
    Sessions,
    asks::Asks,
    desired, goodbye,
    handshake::{self, Accepted},
    outcome::{settle, status_ack, too_large},
    push::{self, Pusher},
    reports::{Outcome, Report, Reports},
    status::{refused_status, stored_status, task_id, task_of},
};
use crate::{
    clock::timestamp,
    domain::{TaskId, stored},
    store::{
        StoreError,
        codec::FORMAT,
        sessions::{MAX_STATUSES, StatusWrite},
    },
};

/// An agent that does not answer a push for so long is cut off.
const ACK_PATIENCE: Duration = Duration::from_secs(30);
/// Messages that may wait for an agent that does not read.
const BACKLOG: usize = 4096;
type Out = mpsc::Sender<Result<OpenSessionResponse, Status>>;

/// Serves one stream to its end.
pub(super) async fn serve<S>(sessions: Sessions, mut input: S, out: Out)
where
    S: Stream<Item = Result<OpenSessionRequest, Status>> + Send + Unpin,
{
    let opened = async {
        let Some((hello, inventory)) = handshake::read(&mut input).await? else {
            return Ok(None);
        };
        handshake::accept(&sessions, hello, inventory).await.map(Some)
    };
    let accepted = tokio::select! {
        biased;
        () = sessions.stop().cancelled() => Err(stopping()),
        accepted = opened => accepted,
    };
    match accepted {
        Ok(None) => {}
        Ok(Some(accepted)) => {
            let span = tracing::info_span!(
                "session",
                agent = &*accepted.agent,
                instance = &*accepted.instance_uid,
                replica = sessions.settings().replica,
            );
            run(sessions, accepted, input, out).instrument(span).await;
        }
        Err(refusal) => {
            sessions.metrics().hellos_refused.inc();
            tracing::info!(reason = refusal.reason().as_str(), "hello refused");
            let _ = out.send(Err(refusal.into())).await;
        }
    }
}

async fn run<S>(sessions: Sessions, accepted: Accepted, mut input: S, out: Out)
where
    S: Stream<Item = Result<OpenSessionRequest, Status>> + Send + Unpin,
{
    tracing::info!(revision = accepted.keys.session, "session accepted");
    sessions.metrics().sessions.inc();
    let (agent, serial) = (accepted.agent.clone(), accepted.serial);
    let ended = Session::new(sessions.clone(), accepted)
        .run(&mut input, &out)
        .await;
    sessions.registry().detach(&agent, serial);
    sessions.metrics().sessions.dec();
    match ended {
        Ok(()) => tracing::info!("session ended by the agent"),
        Err(refusal) => {
            tracing::info!(reason = refusal.reason().as_str(), "session closed");
            // A client that does not read must not keep this task.
            let _ = out.try_send(Err(refusal.into()));
        }
    }
}

/// What a job of a session has come to.
enum Done {
    Statuses(Vec<(TaskId, Report, Outcome)>),
    Answered {
        id: String,
        result: Result<i64, StoreError>,
    },
}

struct Session {
    sessions: Sessions,
    accepted: Accepted,
    pusher: Pusher,
    reports: Reports,
    asks: Asks,
    outbox: VecDeque<Response>,
    jobs: FuturesUnordered<BoxFuture<'static, Done>>,
    /// Something of the agent has changed in the mirror since it was last looked at.
    stale: bool,
    /// When the unacknowledged push was made.
    pushed_at: Instant,
    /// When the outbox last got shorter.
    moved_at: Instant,
    reconnect_at: Option<Instant>,
}

impl Session {
    fn new(sessions: Sessions, accepted: Accepted) -> Self {
        let now = Instant::now();
        let reconnect_at = max_age(&sessions, accepted.serial).map(|age| now + age);
        Self {
            sessions,
            accepted,
            pusher: Pusher::default(),
            reports: Reports::default(),
            asks: Asks::default(),
            outbox: VecDeque::new(),
            jobs: FuturesUnordered::new(),
            stale: true,
            pushed_at: now,
            moved_at: now,
            reconnect_at,
        }
    }

    async fn run<S>(mut self, input: &mut S, out: &Out) -> Result<(), Refusal>
    where
        S: Stream<Item = Result<OpenSessionRequest, Status>> + Send + Unpin,
    {
        let stop = self.sessions.stop().clone();
        let mut view = self.sessions.fanout().subscribe(&self.accepted.agent);
        self.outbox
            .push_back(Response::Welcome(handshake::welcome(&self.sessions)?));
        let inventory = std::mem::take(&mut self.accepted.inventory);
        inventory
            .into_iter()
            .filter_map(|task| task.status)
            .for_each(|status| self.report(status));
        loop {
            self.act()?;
            let wake = self.next_wake();
            tokio::select! {
                biased;
                closed = &mut self.accepted.closed => return Err(closed.unwrap_or_else(|_| stopping())),
                () = stop.cancelled() => {
                    let reconnect = Reconnect { reason: "the replica stops".to_owned() };
                    let _ = out.try_send(Ok(response(Response::Reconnect(reconnect))));
                    return Err(stopping());
                }
                permit = out.reserve(), if !self.outbox.is_empty() => {
                    let Ok(permit) = permit else { return Ok(()) };
                    if let Some(message) = self.outbox.pop_front() {
                        permit.send(Ok(response(message)));
                    }
                    self.moved_at = Instant::now();
                }
                message = input.next() => match message {
                    Some(Ok(OpenSessionRequest { message: Some(Request::Goodbye(named)) })) => {
                        let Self { sessions, accepted, .. } = self;
                        return goodbye::say(&sessions, &accepted, named).await;
                    }
                    Some(Ok(message)) => self.take(message)?,
                    Some(Err(_)) | None => return Ok(()),
                },
                Some(done) = self.jobs.next(), if !self.jobs.is_empty() => self.done(done),
                changed = view.changed() => match changed {
                    Ok(()) => self.stale = true,
                    Err(_) => return Err(stopping()),
                },
                () = wait(wake) => {}
            }
        }
    }

    /// Takes a message of the agent.
    fn take(&mut self, message: OpenSessionRequest) -> Result<(), Refusal> {
        let (agent, serial) = (&self.accepted.agent, self.accepted.serial);
        self.sessions.registry().heard(agent, serial, Instant::now());
        match message.message {
            Some(Request::Heartbeat(heartbeat)) => {
                if !self
                    .sessions
                    .registry()
                    .may_answer(agent, serial, self.sessions.lease())
                {
                    return Err(Refusal::new(
                        Reason::StoreUnavailable,
                        "this replica is cut off from the store; dial another one",
                    ));
                }
                let ack = HeartbeatAck {
                    sequence: heartbeat.sequence,
                };
                self.outbox.push_front(Response::HeartbeatAck(ack));
                // The welcome is the first message, whatever came before it was read.
                if matches!(self.outbox.get(1), Some(Response::Welcome(_))) {
                    self.outbox.swap(0, 1);
                }
            }
            Some(Request::AssignmentAck(ack)) => self.acked(ack),
            Some(Request::StatusReport(report)) => {
                report.tasks.into_iter().for_each(|status| self.report(status))
            }
            Some(Request::AskAnswer(answer)) => self.answered(answer),
            Some(Request::Hello(_) | Request::Inventory(_)) => {
                return Err(Refusal::new(
                    Reason::InvalidField,
                    "a session has one hello and one inventory",
                ));
            }
            Some(Request::Goodbye(_)) | None => {}
        }
        Ok(())
    }

    fn acked(&mut self, ack: AssignmentAck) {
        if self.pusher.acked(ack.revision, ack.resync) {
            self.stale = true;
        }
        for task in ack.tasks {
            if task.outcome() != task_ack::Outcome::Refused {
                continue;
            }
            let Some(id) = task_of(task.task.as_ref()) else {
                continue;
            };
            let hash = self
                .sessions
                .mirror()
                .read(|s| s.wants.get(&id).map(|w| w.spec_hash.clone()));
            let now = timestamp(self.sessions.clock().wall());
            tracing::info!(task = %id, fence = task.fence, "the agent refuses a task");
            let (agent, instance) = (&self.accepted.agent, &self.accepted.instance_uid);
            let status = refused_status(agent, instance, &hash.unwrap_or_default(), task, now);
            self.reports.push(
                id,
                Report {
                    status,
                    sequence: None,
                },
                Instant::now(),
            );
        }
    }

    /// Takes a reported state: stored already, or to be written.
    fn report(&mut self, reported: TaskStatus) {
        let sequence = reported.sequence;
        let Some(id) = task_id(&reported.connector_uid, reported.task) else {
            return;
        };
        let status = stored_status(&self.accepted.agent, &self.accepted.instance_uid, reported);
        let known = self.sessions.mirror().read(|s| {
            let fenced = s.revision >= status.fence
                && s.grants.get(&id).is_none_or(|g| g.mod_revision != status.fence);
            let mirrored = s.statuses.get(&id);
            !fenced && self.reports.known(&id, mirrored, s.revision).1 == Some(&status)
        });
        if known && !self.reports.is_busy(&id) {
            let ack = status_ack(
                &id,
                &Report {
                    status,
                    sequence: Some(sequence),
                },
                Outcome::Stored(0),
            );
            self.outbox.push_back(Response::StatusAck(StatusAck {
                tasks: ack.into_iter().collect(),
            }));
            return;
        }
        self.reports.push(
            id,
            Report {
                status,
                sequence: Some(sequence),
            },
            Instant::now(),
        );
    }

    fn answered(&mut self, answer: AskAnswer) {
        if !self.asks.answered(&answer.id) {
            return;
        }
        self.stale = true;
        let (store, agent, id) = (
            self.sessions.store().clone(),
            self.accepted.agent.clone(),
            answer.id.clone(),
        );
        self.jobs.push(
            async move {
                let record = stored::AnswerRecord {
                    format: FORMAT,
                    answer: Some(answer),
                };
                let result = match store.put_answer(&agent, &id, &record).await {
                    Err(error @ StoreError::TooLarge { .. }) => {
                        store.put_answer(&agent, &id, &too_large(&id, &error)).await
                    }
                    // Repeating it is harmless: the answer is the same.
                    Err(error) if error.is_temporary() => {
                        sleep(Duration::from_millis(200)).await;
                        store.put_answer(&agent, &id, &record).await
                    }
                    result => result,
                };
                Done::Answered { id, result }
            }
            .boxed(),
        );
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Answered { id, result } => {
                if let Err(error) = result {
                    tracing::warn!(ask = id, %error, "an answer could not be stored");
                }
            }
            Done::Statuses(written) => {
                let now = Instant::now();
                let mut acks = Vec::new();
                for (id, report, outcome) in written {
                    if matches!(outcome, Outcome::Stored(_)) {
                        self.sessions.metrics().statuses.inc();
                    }
                    self.reports.done(&id, outcome, now);
                    acks.extend(status_ack(&id, &report, outcome));
                }
                if !acks.is_empty() {
                    self.outbox
                        .push_back(Response::StatusAck(StatusAck { tasks: acks }));
                }
            }
        }
    }

    /// Does what is due.
    fn act(&mut self) -> Result<(), Refusal> {
        let now = Instant::now();
        if self.outbox.is_empty() {
            self.moved_at = now;
        }
        if self.outbox.len() > BACKLOG || now > self.moved_at + self.sessions.settings().lease {
            return Err(Refusal::new(
                Reason::Overloaded,
                "the agent does not read its messages",
            ));
        }
        if self.pusher.waiting() && now > self.pushed_at + ACK_PATIENCE {
            return Err(Refusal::new(
                Reason::Overloaded,
                "the agent does not acknowledge its assignments",
            ));
        }
        if self.reconnect_at.is_some_and(|at| now >= at) {
            self.reconnect_at = None;
            let reason = "the session has reached its age".to_owned();
            self.outbox.push_back(Response::Reconnect(Reconnect { reason }));
        }
        if self.stale && self.outbox.is_empty() {
            self.push(now);
        }
        self.ask(now);
        self.write_due(now);
        Ok(())
    }

    /// Pushes what is new, unless a push is still unacknowledged.
    fn push(&mut self, now: Instant) {
        if self.pusher.waiting() {
            return;
        }
        let (agent, instance) = (&*self.accepted.agent, &*self.accepted.instance_uid);
        let (revision, tasks) = self.sessions.fanout().desired(agent, instance);
        if revision < self.accepted.keys.session {
            return;
        }
        self.stale = false;
        self.reports.retain(|id| tasks.contains_key(id));
        let Some(push) = self.pusher.next(revision, &tasks) else {
            return;
        };
        let assignments: Vec<_> = self.sessions.mirror().read(|snapshot| {
            let present = desired::marks(snapshot, agent, instance, &push.changed);
            present
                .keys()
                .filter_map(|id| desired::assignment(snapshot, id))
                .collect()
        });
        let traces: Vec<_> = assignments
            .iter()
            .map(|a| &*a.traceparent)
            .filter(|t| !t.is_empty())
            .collect();
        tracing::debug!(
            revision,
            base = push.base_revision,
            changed = assignments.len(),
            removed = push.removed.len(),
            ?traces,
            "push"
        );
        self.sessions.metrics().pushes.inc();
        self.pushed_at = now;
        self.outbox.extend(
            push::chunks(&push, assignments)
                .into_iter()
                .map(Response::Assignment),
        );
    }

    fn ask(&mut self, now: Instant) {
        let (agent, instance) = (&self.accepted.agent, &self.accepted.instance_uid);
        let asks = &mut self.asks;
        let due = self.sessions.mirror().read(|snapshot| {
            let stored = snapshot
                .asks
                .range((agent.clone(), "".into())..)
                .take_while(|((a, _), _)| a == agent);
            asks.due(
                instance,
                stored.map(|((_, id), record)| (id, record.value.as_ref())),
                now,
            )
        });
        self.outbox.extend(due.into_iter().map(Response::Ask));
    }

    /// Starts to write the statuses that are due, with the revisions that they replace.
    fn write_due(&mut self, now: Instant) {
        let due = self.reports.due(now, MAX_STATUSES);
        if due.is_empty() {
            return;
        }
        let writes: Vec<StatusWrite> = self.sessions.mirror().read(|snapshot| {
            let write = |(id, report): &(TaskId, Report)| StatusWrite {
                task: id.clone(),
                fence: report.status.fence,
                seen: self
                    .reports
                    .known(id, snapshot.statuses.get(id), snapshot.revision)
                    .0,
                status: report.status.clone(),
            };
            due.iter().map(write).collect()
        });
        let sessions = self.sessions.clone();
        self.jobs.push(
            async move {
                let outcomes = sessions.store().write_statuses(&writes).await;
                let mut done = Vec::with_capacity(due.len());
                for ((id, report), outcome) in due.into_iter().zip(outcomes) {
                    done.push((id, report, settle(&sessions, outcome).await));
                }
                Done::Statuses(done)
            }
            .boxed(),
        );
    }

    fn next_wake(&self) -> Option<Instant> {
        let now = Instant::now();
        let stalled = (!self.outbox.is_empty()).then(|| self.moved_at + self.sessions.settings().lease);
        let unacked = self.pusher.waiting().then(|| self.pushed_at + ACK_PATIENCE);
        let after = |at: Option<Instant>| at.map(|at| at + Duration::from_millis(1));
        [
            self.reports.next_due(now),
            self.asks.next_due(now),
            self.reconnect_at,
            after(stalled),
            after(unacked),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

/// How old the session may get: spread by a quarter, so that agents that came together do not leave together.
fn max_age(sessions: &Sessions, serial: u64) -> Option<Duration> {
    let age = sessions.settings().max_age;
    let mut random = SmallRng::seed_from_u64(sessions.settings().seed ^ serial);
    (age > Duration::ZERO).then(|| age.mul_f64(0.75 + random.random::<f64>() / 2.0))
}

fn response(message: Response) -> OpenSessionResponse {
    OpenSessionResponse {
        message: Some(message),
    }
}

pub(super) fn stopping() -> Refusal {
    Refusal::new(Reason::ShuttingDown, "the replica stops; dial another one")
}

async fn wait(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => pending().await,
    }
}
