use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use gantry_bus::{BusError, BusErrorKind, Queue};
use gantry_connector::{Fields, Gap, Polled};
use gantry_proto::{
    agent::v1::{ReadOffsetsResponse, TaskCommitResult},
    v1::error_policy::OnRecordError,
};
use tokio::time::{Instant, sleep_until};

use super::{
    Thread,
    hook::{Order, Report},
    ignored,
    intake::Intake,
    outbox::Outbox,
};
use crate::{
    problem::{Cause, Failure},
    task::{
        Control, How, LAST_COMMIT, RunContext, RunEnd, RunEvent,
        acks::{Outcome, Ticket},
        budget::Budget,
        convert::{self, Outgoing},
        dead_letter::{self, DeadLetters},
        ledger::{Ledger, Mark, Told, Verdict},
        trouble::{Spot, Tell, Troubles},
    },
    wire,
};

/// The pipeline of one run.
pub(super) struct Pipeline {
    ctx: RunContext,
    thread: Thread,
    budget: Arc<Budget>,
    intake: Intake,
    outbox: Outbox<Ticket>,
    ledger: Ledger,
    letters: DeadLetters,
    sending: FuturesUnordered<BoxFuture<'static, (usize, Result<u64, BusError>)>>,
    burying: FuturesUnordered<BoxFuture<'static, (Ticket, usize, Result<(), BusError>)>>,
    committing: Option<BoxFuture<'static, TaskCommitResult>>,
    routing: Option<BoxFuture<'static, Result<Vec<Queue>, BusError>>>,
    next_commit: Instant,
    /// After an answer that helped nothing.
    commit_rests_until: Instant,
    next_route: Instant,
    troubles: Troubles,
    /// Stored positions that the source was not told yet.
    untold: Told,
    ending: Option<Ending>,
}

/// It is finishing.
struct Ending {
    how: How,
    /// What is in flight is waited for until then.
    deadline: Instant,
    /// The commit is waited for until then.
    give_up: Option<Instant>,
    quiesced: bool,
}

/// What woke the pipeline.
enum Wake {
    Report(Option<Report>),
    Sent(usize, Result<u64, BusError>),
    Buried(Ticket, usize, Result<(), BusError>),
    Committed(TaskCommitResult),
    Routed(Result<Vec<Queue>, BusError>),
    Told(Control),
    Timer,
}

impl Pipeline {
    pub(super) fn new(
        ctx: RunContext,
        read: &ReadOffsetsResponse,
        queues: Vec<Queue>,
        thread: Thread,
        budget: Arc<Budget>,
    ) -> Self {
        let counts = read.offsets.iter().map(|o| {
            (
                wire::fields_in(&o.partition),
                o.counts.clone().unwrap_or_default(),
            )
        });
        let now = Instant::now();
        Self {
            intake: Intake::new(ctx.key.uid.clone(), counts.collect(), ctx.max_record_bytes()),
            outbox: Outbox::new(
                queues,
                ctx.limits.send_records,
                ctx.bus.max_batch_bytes(),
                &ctx.jitter,
            ),
            ledger: Ledger::new(ctx.key.clone(), ctx.fence, read),
            letters: DeadLetters {
                bus: ctx.bus.clone(),
                topic: ctx
                    .spec
                    .error_policy
                    .as_ref()
                    .map(|p| p.dead_letter_topic.clone())
                    .unwrap_or_default(),
                create_queues: ctx.spec.create_queues,
                jitter: ctx.jitter.clone(),
            },
            sending: FuturesUnordered::new(),
            burying: FuturesUnordered::new(),
            committing: None,
            routing: None,
            next_commit: now,
            commit_rests_until: now,
            next_route: now + ctx.limits.route_interval,
            troubles: Troubles::default(),
            untold: Told::new(),
            ending: None,
            ctx,
            thread,
            budget,
        }
    }

    pub(super) async fn run(mut self) -> RunEnd {
        let how = loop {
            if !self.ctx.may_run() {
                break How::Dropped;
            }
            self.dispatch();
            self.commit();
            self.tell_source();
            self.look_at_route();
            self.ctx.metrics.in_flight_bytes(self.budget.used());
            self.tell_troubles().await;
            if let Some(how) = self.finished() {
                break how;
            }
            let wake = self.wake().await;
            if let Err(how) = self.handle(wake).await {
                break how;
            }
        };
        let Self { ctx, thread, .. } = self;
        let leaked = thread
            .close(Order::Close, ctx.limits.hooks.close, |r| ignored(&ctx, r))
            .await;
        RunEnd { how, leaked }
    }

    /// Sends to every queue that is free.
    fn dispatch(&mut self) {
        if self.ending.as_ref().is_some_and(|e| e.deadline <= Instant::now()) {
            return;
        }
        while let Some((lane, queue, batch)) = self.outbox.next(Instant::now()) {
            let intake = &self.intake;
            let message = |r: &Outgoing<Ticket>| {
                let (_, position, nth) = intake.acks.position(r.ticket)?;
                Some(convert::to_message(r, intake.prefix(r.ticket), position, nth))
            };
            let messages = batch.iter().filter_map(message).collect();
            let (bus, queue) = (self.ctx.bus.clone(), queue.clone());
            self.sending
                .push(async move { (lane, bus.send(&queue, messages).await) }.boxed());
        }
    }

    /// Commits what may be committed, if it is time.
    fn commit(&mut self) {
        if self.committing.is_some() || self.commit_due() > Instant::now() {
            return;
        }
        for ready in self.intake.acks.take_ready() {
            let mark = Mark {
                position: ready.position,
                counts: ready.counts,
                state: Bytes::new(),
            };
            self.ledger.put(ready.partition, mark);
        }
        if let Some(request) = self.ledger.request() {
            let store = self.ctx.store.clone();
            self.committing = Some(async move { store.commit(request).await }.boxed());
            self.next_commit = Instant::now() + self.ctx.limits.commit_interval;
        }
    }

    fn commit_due(&self) -> Instant {
        match self.ending {
            Some(_) => self.commit_rests_until,
            None => self.next_commit.max(self.commit_rests_until),
        }
    }

    /// Asks for the topic's route from time to time.
    fn look_at_route(&mut self) {
        let now = Instant::now();
        if self.routing.is_none() && self.next_route <= now && self.ending.is_none() {
            self.next_route = now + self.ctx.limits.route_interval;
            let (bus, topic) = (self.ctx.bus.clone(), self.ctx.spec.topic.clone());
            self.routing = Some(async move { bus.route(&topic).await }.boxed());
        }
    }

    /// Tells the source what is stored, if it has taken what it was told before.
    fn tell_source(&mut self) {
        // Room is left for the orders that end it.
        if !self.untold.is_empty() && self.thread.orders.capacity() > super::ORDERS - 1 {
            let _ = self
                .thread
                .orders
                .try_send(Order::Committed(std::mem::take(&mut self.untold)));
        }
    }

    async fn tell_troubles(&mut self) {
        match self.troubles.tell(Instant::now()) {
            Some(Tell::Trouble(failure)) => self.ctx.tell(RunEvent::Trouble(failure)).await,
            Some(Tell::Recovered) => self.ctx.tell(RunEvent::Recovered).await,
            None => {}
        }
    }

    /// Whether everything that is waited for has come.
    fn finished(&mut self) -> Option<How> {
        let now = Instant::now();
        let ending = self.ending.as_mut()?;
        let over = ending.deadline <= now;
        let flown = self.intake.acks.pending() == 0 && ending.quiesced;
        let committed = self.ledger.is_clean() && self.committing.is_none() && !self.intake.acks.has_ready();
        let given_up = ending.give_up.is_some_and(|at| at <= now);
        ((flown || over) && committed || given_up).then(|| std::mem::replace(&mut ending.how, How::Drained))
    }

    async fn wake(&mut self) -> Wake {
        let uncommitted =
            self.committing.is_none() && (self.intake.acks.has_ready() || !self.ledger.is_clean());
        let timers = [
            self.outbox.due(),
            self.troubles.due(),
            self.ending
                .as_ref()
                .map(|e| e.deadline)
                .filter(|at| *at > Instant::now()),
            self.ending.as_ref().and_then(|e| e.give_up),
            uncommitted.then_some(self.commit_due()),
            (self.routing.is_none() && self.ending.is_none()).then_some(self.next_route),
        ];
        let timer = timers.into_iter().flatten().min();
        let timer = async {
            match timer {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let drained = self.ending.is_some();
        tokio::select! {
            biased;
            told = self.ctx.control.wait_for(|c| *c == Control::Drop || *c == Control::Drain && !drained) => {
                Wake::Told(told.map_or(Control::Drop, |c| *c))
            }
            Some((lane, result)) = self.sending.next() => Wake::Sent(lane, result),
            Some((ticket, weight, result)) = self.burying.next() => Wake::Buried(ticket, weight, result),
            Some(result) = maybe(&mut self.committing) => { self.committing = None; Wake::Committed(result) }
            Some(result) = maybe(&mut self.routing) => { self.routing = None; Wake::Routed(result) }
            report = self.thread.reports.recv() => Wake::Report(report),
            () = timer => Wake::Timer,
        }
    }

    async fn handle(&mut self, wake: Wake) -> Result<(), How> {
        match wake {
            Wake::Told(Control::Drop) => return Err(How::Dropped),
            Wake::Told(_) => {
                let deadline = Instant::now() + self.ctx.drain_timeout();
                self.end(How::Drained, deadline, None).await;
            }
            Wake::Report(report) => self.report(report).await?,
            Wake::Sent(lane, Ok(_)) => {
                self.troubles.worked(Spot::Queue(lane));
                for record in self.outbox.sent(lane) {
                    self.ctx
                        .metrics
                        .out(1, record.value.as_ref().map_or(0, |v| v.len()));
                    self.done(record.ticket, record.weight, Outcome::Out);
                }
            }
            Wake::Sent(lane, Err(e)) => self.not_sent(lane, &e).await,
            Wake::Buried(ticket, weight, Ok(())) => {
                self.troubles.worked(Spot::DeadLetter);
                self.done(ticket, weight, Outcome::DeadLettered);
            }
            Wake::Buried(_, _, Err(e)) => {
                let mut failure = Failure::bus(&e);
                failure.message = format!("the dead letter cannot be stored: {}", failure.message);
                self.fail(failure).await;
            }
            Wake::Committed(result) => self.committed(result).await?,
            Wake::Routed(result) => self.routed(result).await,
            Wake::Timer => {}
        }
        Ok(())
    }

    async fn report(&mut self, report: Option<Report>) -> Result<(), How> {
        match report {
            Some(Report::Polled(polled)) => {
                self.troubles.worked(Spot::Poll);
                self.polled(polled).await;
            }
            Some(Report::Unavailable(e)) => {
                self.troubles
                    .failed(Spot::Poll, Failure::connector("poll", &e), Instant::now());
            }
            Some(Report::Failed(hook, e)) => self.fail(Failure::connector(hook, &e)).await,
            Some(Report::Quiesced) => {
                if let Some(ending) = &mut self.ending {
                    ending.quiesced = true;
                }
            }
            Some(Report::CutOff) => return Err(How::Dropped),
            Some(report @ Report::Ignored(..)) => ignored(&self.ctx, report),
            Some(Report::Opened) => {}
            None => {
                let failure = Failure::new(Cause::Task, "THREAD_ENDED", "the connector's thread ended");
                return Err(How::Failed(failure));
            }
        }
        Ok(())
    }

    async fn polled(&mut self, polled: Polled) {
        for Gap {
            partition,
            amount,
            unit,
            reason,
        } in polled.gaps
        {
            self.ctx.metrics.gap(amount, unit);
            let message =
                format!("{amount} {unit} of {partition} were lost before they could be read: {reason}");
            self.ctx
                .tell(RunEvent::Gap(Failure::new(
                    Cause::External,
                    "SOURCE_GAP",
                    message,
                )))
                .await;
        }
        if polled.replan_wanted {
            self.ctx.tell(RunEvent::ReplanWanted).await;
        }
        for record in polled.records {
            match self.intake.take(record) {
                Ok(record) => {
                    self.ctx
                        .metrics
                        .r#in(1, record.value.as_ref().map_or(0, |v| v.len()));
                    self.budget.add(record.weight);
                    self.outbox.push(record);
                }
                Err((record, size)) => {
                    self.ctx.metrics.r#in(1, size);
                    self.budget.add(record.weight);
                    let most = self.ctx.max_record_bytes();
                    let what = format!("a record of {size} bytes is over max_record_bytes ({most})");
                    self.impossible(record, "size", "RECORD_TOO_LARGE", what).await;
                }
            }
        }
    }

    async fn not_sent(&mut self, lane: usize, error: &BusError) {
        match error.kind() {
            BusErrorKind::MessageRejected => {
                if let Some(record) = self.outbox.refused(lane) {
                    self.impossible(record, "send", "MESSAGE_REJECTED", error.to_string())
                        .await;
                }
            }
            BusErrorKind::Denied => self.fail(Failure::bus(error)).await,
            BusErrorKind::QueueMissing => {
                self.outbox.failed(lane, Instant::now());
                self.troubles
                    .failed(Spot::Queue(lane), Failure::bus(error), Instant::now());
                self.next_route = self.next_route.min(Instant::now() + Duration::from_secs(1));
            }
            BusErrorKind::Unavailable | BusErrorKind::TopicMissing | BusErrorKind::OffsetOutOfRange => {
                self.outbox.failed(lane, Instant::now());
                self.troubles
                    .failed(Spot::Queue(lane), Failure::bus(error), Instant::now());
            }
        }
    }

    /// A record that can never pass: what the error policy says.
    async fn impossible(
        &mut self,
        record: Outgoing<Ticket>,
        stage: &'static str,
        reason: &'static str,
        error: String,
    ) {
        let Some((partition, position, _)) = self.intake.acks.position(record.ticket) else {
            return;
        };
        let (partition, position) = (partition.to_string(), position.to_string());
        let policy = self
            .ctx
            .spec
            .error_policy
            .as_ref()
            .map(|p| p.on_record_error())
            .unwrap_or_default();
        match policy {
            OnRecordError::Unspecified | OnRecordError::Fail => {
                let message = format!("record at {partition} before {position}: {error}");
                let failure = Failure::new(Cause::Record, reason, message)
                    .fix("correct the source, or set error_policy to SKIP or DEAD_LETTER");
                self.fail(failure).await;
            }
            OnRecordError::Skip => {
                self.ctx.metrics.skipped(1);
                self.done(record.ticket, record.weight, Outcome::Skipped);
            }
            OnRecordError::DeadLetter => {
                self.ctx.metrics.dead_lettered(1);
                let cause = dead_letter::Cause {
                    error: self.ctx.scrubber.scrub(&error),
                    stage,
                    connector: self.ctx.spec.connector.clone(),
                    task: self.ctx.key.task,
                    partition,
                    position,
                };
                let letter = dead_letter::message(
                    &cause,
                    record.key.as_deref(),
                    record.tag.as_deref(),
                    record.value.as_ref(),
                );
                let letters = self.letters.clone();
                let store = async move {
                    let failing =
                        |e: &BusError| tracing::warn!(error = %e, "a dead letter is not stored yet");
                    (record.ticket, record.weight, letters.store(letter, failing).await)
                };
                self.burying.push(store.boxed());
            }
        }
    }

    fn done(&mut self, ticket: Ticket, weight: usize, outcome: Outcome) {
        self.intake.acks.done(ticket, outcome);
        self.budget.free(weight);
    }

    async fn committed(&mut self, result: TaskCommitResult) -> Result<(), How> {
        match self.ledger.settle(&result) {
            Verdict::Stored(told) => {
                if self.ledger.has_more() {
                    self.next_commit = Instant::now();
                }
                self.ctx.metrics.committed(self.ctx.lease.clock().wall());
                let told_again = |p: &Arc<Fields>| told.iter().any(|(q, _)| q == p);
                self.untold.retain(|(p, _)| !told_again(p));
                self.untold.extend(told);
                if self.ending.is_some() {
                    // The last chance to tell it; it is ordered to close right after.
                    let _ = self
                        .thread
                        .orders
                        .try_send(Order::Committed(std::mem::take(&mut self.untold)));
                }
                Ok(())
            }
            Verdict::Again => {
                self.commit_rests_until = Instant::now() + Duration::from_millis(100);
                Ok(())
            }
            Verdict::Fenced => Err(How::Fenced),
            Verdict::StartOver => {
                tracing::warn!("somebody else moved the positions: starting over from the stored ones");
                Err(How::Again)
            }
            Verdict::Invalid(message) => {
                Err(How::Failed(Failure::new(Cause::User, "COMMIT_INVALID", message)))
            }
        }
    }

    async fn routed(&mut self, result: Result<Vec<Queue>, BusError>) {
        let Ok(queues) = result else { return };
        // Fewer queues may only mean that a broker is away for a while.
        if queues
            .iter()
            .any(|q| !self.outbox.queues().any(|known| known == q))
        {
            tracing::info!(queues = queues.len(), "the topic has other queues: starting anew");
            let deadline = Instant::now() + self.ctx.drain_timeout();
            self.end(How::Again, deadline, None).await;
        }
    }

    /// Ends with that failure after what is done has been committed.
    async fn fail(&mut self, failure: Failure) {
        let now = Instant::now();
        self.end(How::Failed(failure), now, Some(now + LAST_COMMIT)).await;
    }

    /// Begins to finish. A failure while it is finishing cuts it short.
    async fn end(&mut self, how: How, deadline: Instant, give_up: Option<Instant>) {
        match &mut self.ending {
            None => {
                self.ending = Some(Ending {
                    how,
                    deadline,
                    give_up,
                    quiesced: false,
                });
                // It has room: commits leave some.
                let _ = self.thread.orders.try_send(Order::Quiesce);
            }
            Some(ending) => {
                if matches!(how, How::Drained) && matches!(ending.how, How::Again) {
                    ending.how = how;
                } else if matches!(how, How::Failed(_)) && !matches!(ending.how, How::Failed(_)) {
                    *ending = Ending {
                        how,
                        deadline,
                        give_up,
                        quiesced: ending.quiesced,
                    };
                }
            }
        }
    }
}

/// The future's output, if there is a future; it must not be asked again after that.
async fn maybe<T>(future: &mut Option<BoxFuture<'static, T>>) -> Option<T> {
    match future {
        Some(future) => Some(future.await),
        None => None,
    }
}
