//! One agent's session from its hello to its end: an event loop that owns everything about it. Nothing in it waits for
//! the store while a heartbeat waits for its answer.
//!
//! - here: the loop. `input`: what the agent says. `due`: what is sent and written, and when. [`patience`]: how long the
//!   agent may keep it waiting.

mod due;
mod input;
mod patience;

use std::{collections::VecDeque, future::pending, time::Duration};

use futures::{Stream, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use gantry_proto::{
    agent::v1::{
        OpenSessionRequest, OpenSessionResponse, Reconnect, open_session_request::Message as Request,
        open_session_response::Message as Response,
    },
    error::{Reason, Refusal},
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tonic::Status;
use tracing::{Instrument, Span};

use self::{due::Done, patience::Patience};
use super::{
    Sessions,
    asks::Asks,
    goodbye,
    handshake::{self, Accepted},
    push::Pusher,
    reports::Reports,
};

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

struct Session {
    sessions: Sessions,
    accepted: Accepted,
    pusher: Pusher,
    /// End when the push is acknowledged.
    push_spans: Vec<Span>,
    reports: Reports,
    asks: Asks,
    outbox: VecDeque<Response>,
    jobs: FuturesUnordered<BoxFuture<'static, Done>>,
    /// Something of the agent has changed in the mirror since it was last looked at.
    stale: bool,
    patience: Patience,
    /// When the agent is asked to dial again.
    reconnect_at: Option<Instant>,
}

impl Session {
    fn new(sessions: Sessions, accepted: Accepted) -> Self {
        let now = Instant::now();
        let reconnect_at = max_age(&sessions, accepted.serial).map(|age| now + age);
        let patience = Patience::new(sessions.settings().lease, now);
        Self {
            sessions,
            accepted,
            pusher: Pusher::new(now),
            push_spans: Vec::new(),
            reports: Reports::default(),
            asks: Asks::default(),
            outbox: VecDeque::new(),
            jobs: FuturesUnordered::new(),
            stale: true,
            patience,
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
                    self.patience.read(Instant::now());
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
