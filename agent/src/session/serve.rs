use std::{collections::VecDeque, time::Duration};

use futures::StreamExt;
use gantry_proto::agent::v1::{
    Ask, AskAnswer, Assignment, AssignmentAck, Goodbye, Heartbeat, OpenSessionRequest, OpenSessionResponse,
    StatusReport, Welcome, open_session_request::Message as Out, open_session_response::Message as In,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use tracing::Instrument;

use super::{Draining, Link, Over, Session, attempt_times, done, hello::inventory, push::Taken};
use crate::{
    backoff::{Backoff, Pauses},
    key::TaskKey,
    wire,
};

/// Messages that may wait to be sent.
const OUTGOING: usize = 64;
/// How long the control plane may take to close the session after a goodbye.
const FAREWELL: Duration = Duration::from_secs(2);

/// A session that stands.
struct Serving {
    to: mpsc::Sender<OpenSessionRequest>,
    from: Streaming<OpenSessionResponse>,
    interval: Duration,
    /// Heartbeats that are not answered: sequence, and when each was sent by the lease's clock.
    unanswered: VecDeque<(u64, Duration)>,
    sequence: u64,
    next_heartbeat: Instant,
    /// The session has broken if nothing is answered until then.
    patience: Option<Instant>,
    answers_in: mpsc::Sender<AskAnswer>,
    answers: mpsc::Receiver<AskAnswer>,
    /// Pauses before the full set is asked for again.
    resyncs: Backoff,
    /// The full set is asked for then.
    resync_at: Option<Instant>,
}

/// Pauses before the full set is asked for again: what does not fit once may not fit the next time either.
const RESYNC: Pauses = Pauses {
    first: Duration::from_millis(200),
    longest: Duration::from_secs(5),
};

impl Session {
    /// One session, from dialling to its end.
    pub(super) async fn session(
        &mut self,
        address: &str,
        shutdown: &CancellationToken,
        draining: &mut Option<Draining>,
        greeted: &mut bool,
    ) -> Over {
        let span = tracing::info_span!("session", agent = %self.identity.agent, address);
        // Boxed: it is large and lives long.
        Box::pin(
            self.open_and_serve(address, shutdown, draining, greeted)
                .instrument(span),
        )
        .await
    }

    async fn open_and_serve(
        &mut self,
        address: &str,
        shutdown: &CancellationToken,
        draining: &mut Option<Draining>,
        greeted: &mut bool,
    ) -> Over {
        let (within, _) = attempt_times(self.lease.length(), self.lease.is_open());
        // Before the first session there is nothing to drain.
        let idle = draining.is_none() && self.store_id.is_empty();
        let opened = tokio::select! {
            () = shutdown.cancelled(), if idle => return Over::Left,
            opened = timeout(within, self.open(address, within)) => opened,
        };
        match opened {
            Ok(Ok((serving, welcome))) => {
                *greeted = true;
                self.welcomed(serving, welcome, shutdown, draining).await
            }
            Ok(Err(status)) => Over::Broken(status),
            Err(_) => Over::Broken(Status::deadline_exceeded("no welcome in time")),
        }
    }

    /// Dials, says hello, and waits for the welcome.
    async fn open(&mut self, address: &str, within: Duration) -> Result<(Serving, (Welcome, Link)), Status> {
        let client = self.dialer.connect(address, within).await?;
        // From here to this session's full set nothing is started.
        self.supervisor.hold_starts().await;
        self.pushes.begin_session();
        let chunks = inventory(self.supervisor.inventory().await);
        let hello = self
            .identity
            .hello(&self.store_id, self.pushes.revision(), chunks.len());
        let (to, requests) = mpsc::channel(OUTGOING.max(chunks.len() + 1));
        let first = std::iter::once(Out::Hello(hello)).chain(chunks.into_iter().map(Out::Inventory));
        for message in first {
            send(&to, message)?;
        }
        let mut from = client
            .clone()
            .open_session(ReceiverStream::new(requests))
            .await?
            .into_inner();
        let welcome = match from.message().await?.and_then(|m| m.message) {
            Some(In::Welcome(welcome)) => welcome,
            Some(_) => return Err(Status::internal("the first message is no welcome")),
            None => return Err(Status::unavailable("the session was closed before the welcome")),
        };
        let (answers_in, answers) = mpsc::channel(16);
        let serving = Serving {
            to,
            from,
            interval: wire::duration_in(welcome.heartbeat_interval.as_ref(), Duration::from_secs(3)),
            unanswered: VecDeque::new(),
            sequence: 0,
            next_heartbeat: Instant::now(),
            patience: None,
            answers_in,
            answers,
            resyncs: Backoff::new(RESYNC, self.jitter.clone()),
            resync_at: None,
        };
        let link = Link {
            client,
            agent: self.identity.agent.clone(),
            instance_uid: self.identity.instance_uid.clone(),
        };
        Ok((serving, (welcome, link)))
    }

    async fn welcomed(
        &mut self,
        mut serving: Serving,
        (welcome, link): (Welcome, Link),
        shutdown: &CancellationToken,
        draining: &mut Option<Draining>,
    ) -> Over {
        tracing::info!(
            replica = welcome.replica,
            store = welcome.store_id,
            "session opened"
        );
        self.metrics.connected(true);
        self.dialer.learn(&welcome.addresses);
        self.lease
            .set_length(wire::duration_in(welcome.lease.as_ref(), serving.interval * 3));
        if self.store_id != welcome.store_id {
            if !self.store_id.is_empty() {
                tracing::warn!("the control plane has another store: ending all tasks without committing");
                self.supervisor.forget_all().await;
                self.pushes.forget();
            }
            self.store_id = welcome.store_id;
        }
        self.link.send_replace(Some(link));
        self.reports.send_all_again();
        loop {
            match self.step(&mut serving, shutdown, draining).await {
                Ok(None) => {}
                Ok(Some(over)) => return over,
                Err(status) => return Over::Broken(status),
            }
        }
    }

    /// Waits for one thing and does what follows from it.
    async fn step(
        &mut self,
        s: &mut Serving,
        shutdown: &CancellationToken,
        draining: &mut Option<Draining>,
    ) -> Result<Option<Over>, Status> {
        self.find_out_again(s);
        let (patience, resync) = (s.patience, s.resync_at);
        tokio::select! {
            biased;
            () = sleep_until(s.next_heartbeat) => self.heartbeat(s)?,
            message = s.from.next() => {
                let message = message.ok_or_else(|| Status::unavailable("the session was closed"))??;
                return self.message(s, message).await;
            }
            () = at(resync) => {
                s.resync_at = None;
                let revision = self.pushes.revision();
                tracing::info!(revision, "asking for the full set");
                let ack = AssignmentAck { revision, resync: true, tasks: Vec::new() };
                send(&s.to, Out::AssignmentAck(ack))?;
            }
            () = at(patience) => return Err(Status::deadline_exceeded("a heartbeat was not answered")),
            () = shutdown.cancelled(), if draining.is_none() => *draining = Some(self.drain()),
            () = done(draining) => {
                self.leave(s).await;
                return Ok(Some(Over::Left));
            }
            Some(answer) = s.answers.recv() => send(&s.to, Out::AskAnswer(answer))?,
            () = self.reports.wait() => {
                let tasks = self.reports.take_due(Instant::now());
                if !tasks.is_empty() {
                    send(&s.to, Out::StatusReport(StatusReport { tasks }))?;
                }
            }
        }
        Ok(None)
    }

    fn heartbeat(&mut self, s: &mut Serving) -> Result<(), Status> {
        s.sequence += 1;
        let now = self.lease.clock().now();
        s.unanswered.push_back((s.sequence, now));
        s.next_heartbeat = Instant::now() + s.interval;
        // Half an interval leaves time to find another replica.
        s.patience.get_or_insert(Instant::now() + s.interval / 2);
        send(&s.to, Out::Heartbeat(Heartbeat { sequence: s.sequence }))
    }

    async fn message(
        &mut self,
        s: &mut Serving,
        message: OpenSessionResponse,
    ) -> Result<Option<Over>, Status> {
        match message.message {
            Some(In::HeartbeatAck(ack)) => self.answered(s, ack.sequence).await,
            Some(In::Assignment(chunk)) => self.pushed(s, chunk).await?,
            Some(In::StatusAck(acks)) => {
                for ack in &acks.tasks {
                    if self.reports.acknowledged(ack)
                        && let Some(task) = &ack.task
                    {
                        self.supervisor.fenced(TaskKey::from(task), ack.fence).await;
                    }
                }
            }
            Some(In::Ask(ask)) => self.asked(s, ask),
            Some(In::Reconnect(reconnect)) => return Ok(Some(Over::Reconnect(reconnect.reason))),
            Some(In::Welcome(_)) => return Err(Status::internal("a second welcome")),
            // A message of a newer control plane that this version does not know.
            None => {}
        }
        Ok(None)
    }

    async fn answered(&mut self, s: &mut Serving, sequence: u64) {
        while let Some((first, sent)) = s.unanswered.front().copied() {
            if first > sequence {
                break;
            }
            s.unanswered.pop_front();
            if first == sequence {
                let was_open = self.lease.is_open();
                self.lease.renew(sent);
                if !was_open {
                    self.supervisor.settle().await;
                }
            }
        }
        s.patience = s.unanswered.front().map(|_| Instant::now() + s.interval / 2);
    }

    async fn pushed(&mut self, s: &mut Serving, chunk: Assignment) -> Result<(), Status> {
        match self.pushes.take(chunk) {
            Taken::Partly => Ok(()),
            Taken::Resync => {
                let pause = s.resyncs.fail();
                tracing::warn!(?pause, "a push does not fit: the full set is asked for");
                s.resync_at.get_or_insert(Instant::now() + pause);
                Ok(())
            }
            Taken::Whole(ack, wanted) => {
                tracing::debug!(revision = ack.revision, tasks = wanted.len(), "assignments taken");
                s.resyncs.reset();
                s.resync_at = None;
                self.supervisor.apply(wanted).await;
                send(&s.to, Out::AssignmentAck(ack))
            }
        }
    }

    /// Tasks were ended because no heartbeat was answered, and now one was, in the same session: only the full set says what
    /// may be started again, and nobody sends it unasked.
    fn find_out_again(&mut self, s: &mut Serving) {
        if self.pushes.is_based() && self.supervisor.is_held() && self.lease.is_open() {
            self.pushes.begin_session();
            s.resync_at.get_or_insert(Instant::now());
        }
    }

    fn asked(&mut self, s: &Serving, ask: Ask) {
        let (asks, answers, wall) = (self.asks.clone(), s.answers_in.clone(), self.lease.clock().wall());
        tokio::spawn(async move {
            let answer = asks.answer(ask, wall).await;
            // The session it was asked in may be over.
            let _ = answers.send(answer).await;
        });
    }

    /// Says goodbye and waits until it was heard.
    async fn leave(&mut self, s: &mut Serving) {
        let tasks = self.supervisor.stopped().await;
        tracing::info!(tasks = tasks.len(), "goodbye");
        if send(&s.to, Out::Goodbye(Goodbye { tasks })).is_err() {
            return;
        }
        let closed = async { while let Some(Ok(_)) = s.from.next().await {} };
        if timeout(FAREWELL, closed).await.is_err() {
            tracing::debug!("the control plane did not close the session");
        }
    }
}

/// Never waits: a session that takes nothing has broken.
fn send(to: &mpsc::Sender<OpenSessionRequest>, message: Out) -> Result<(), Status> {
    to.try_send(OpenSessionRequest {
        message: Some(message),
    })
    .map_err(|_| Status::unavailable("the session takes no more messages"))
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
