//! The pipeline of a source: one loop that waits for whatever comes next.

mod committing;
mod health;
mod sending;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use gantry_bus::{BusError, BusErrorKind, Queue};
use gantry_connector::{Fields, Polled};
use gantry_proto::{
    agent::v1::{ReadOffsetsResponse, TaskCommitResult},
    v1::error_policy::OnRecordError,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{
    ORDERS, Thread,
    hook::{Order, Report},
    ignored,
    intake::Intake,
    outbox::Outbox,
};
use crate::{
    problem::{Cause, Failure},
    task::{
        Control, Gap, How, LAST_COMMIT, RunContext, RunEnd, RunEvent,
        acks::{Outcome, Ticket},
        budget::Budget,
        convert::{self, Outgoing},
        dead_letter::{self, DeadLetters},
        hung,
        ledger::{Ledger, Mark, Told, Verdict},
        stall::{Obstacle, Stall},
        trouble::{Spot, Tell, Troubles},
    },
    wire,
};

/// The pipeline of one run.
pub(super) struct Pipeline {
    ctx: RunContext,
    thread: Thread,
    /// The thread has ended by itself.
    thread_ended: bool,
    budget: Arc<Budget>,
    intake: Intake,
    outbox: Outbox<Ticket>,
    ledger: Ledger,
    letters: DeadLetters,
    letters_failing: mpsc::Receiver<Failure>,
    sending: FuturesUnordered<BoxFuture<'static, (usize, Result<u64, BusError>)>>,
    burying: FuturesUnordered<BoxFuture<'static, Buried>>,
    committing: Option<BoxFuture<'static, TaskCommitResult>>,
    routing: Option<BoxFuture<'static, Result<Vec<Queue>, BusError>>>,
    next_commit: Instant,
    /// After an answer that helped nothing.
    commit_rests_until: Instant,
    next_route: Instant,
    /// Queues that their broker denied to have.
    denied: BTreeSet<Queue>,
    troubles: Troubles,
    stall: Stall,
    /// Grows with every record that is done, every commit that is stored, and every hook that returns.
    moved: u64,
    /// Stored positions that the source was not told yet.
    untold: Told,
    /// It is being told some.
    telling: bool,
    /// It has asked for another split, which counts until then.
    replan_until: Option<Instant>,
    ending: Option<Ending>,
}

/// How long a source's word counts that its tasks should be split anew.
const REPLAN: Duration = Duration::from_secs(60);

/// It is finishing.
struct Ending {
    how: How,
    /// What is in flight is waited for until then.
    deadline: Instant,
    /// The commit is waited for until then.
    give_up: Option<Instant>,
    quiesced: bool,
}

/// A record, its weight, and what became of its dead letter.
type Buried = (Ticket, usize, Result<(), BusError>);

/// What woke the pipeline.
enum Wake {
    Report(Option<Report>),
    Sent(usize, Result<u64, BusError>),
    Buried(Ticket, usize, Result<(), BusError>),
    Committed(TaskCommitResult),
    Routed(Result<Vec<Queue>, BusError>),
    Told(Control),
    NotBuried(Failure),
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
        let counts = read
            .offsets
            .iter()
            .map(|o| (wire::fields_in(&o.partition), o.counts.unwrap_or_default()));
        let now = Instant::now();
        let (letters, letters_failing) = DeadLetters::of(&ctx);
        Self {
            intake: Intake::new(ctx.key.uid.clone(), counts.collect(), ctx.max_record_bytes()),
            outbox: Outbox::new(
                queues,
                ctx.limits.send_records,
                ctx.bus.max_batch_bytes(),
                &ctx.jitter,
            ),
            ledger: Ledger::new(ctx.key.clone(), ctx.fence, read),
            letters,
            letters_failing,
            sending: FuturesUnordered::new(),
            burying: FuturesUnordered::new(),
            committing: None,
            routing: None,
            next_commit: now,
            commit_rests_until: now,
            next_route: now + ctx.limits.route_interval,
            troubles: Troubles::default(),
            denied: BTreeSet::new(),
            stall: Stall::new(ctx.limits.stalled_after, now),
            moved: 0,
            untold: Told::new(),
            telling: false,
            replan_until: None,
            ending: None,
            ctx,
            thread,
            thread_ended: false,
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
            self.tell_health().await;
            self.tell_replan().await;
            if let Some(failure) = self.overdue() {
                return RunEnd {
                    how: How::Failed(failure),
                    leaked: self.thread.give_up().await,
                };
            }
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
        let over = self.ending.as_ref().is_some_and(|e| e.deadline <= Instant::now());
        let timers = [
            // After the deadline nothing is sent any more.
            (!over).then(|| self.outbox.due()).flatten(),
            self.troubles.due(),
            self.stall_due(),
            self.limited().map(|(_, _, due)| due),
            self.replan_until,
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
            Some(failure) = self.letters_failing.recv() => Wake::NotBuried(failure),
            report = self.thread.reports.recv(), if !self.thread_ended => Wake::Report(report),
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
            Wake::NotBuried(failure) => self.troubles.failed(Spot::DeadLetter, failure, Instant::now()),
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
            Some(Report::Told(told)) => {
                self.telling = false;
                self.moved += 1;
                if let Err(e) = told {
                    ignored(&self.ctx, Report::Ignored("committed", e));
                }
            }
            Some(Report::Quiesced) => {
                if let Some(ending) = &mut self.ending {
                    ending.quiesced = true;
                }
            }
            Some(Report::CutOff) => return Err(How::Dropped),
            Some(report @ Report::Ignored(..)) => ignored(&self.ctx, report),
            Some(Report::Opened) => {}
            None => {
                // What was done before is still committed, under the failure that ended the thread if it told one.
                self.thread_ended = true;
                let failure = Failure::new(Cause::Task, "THREAD_ENDED", "the connector's thread ended");
                self.fail(failure).await;
                if let Some(ending) = &mut self.ending {
                    ending.quiesced = true;
                }
            }
        }
        Ok(())
    }

    async fn polled(&mut self, polled: Polled) {
        for gap in polled.gaps {
            let (amount, unit) = (gap.amount, gap.unit);
            let lost = match amount {
                0 => "an unknown part".to_owned(),
                n => format!("{n} {unit}"),
            };
            let message = format!(
                "{lost} of {} went before it could be read: {}",
                gap.partition, gap.reason
            );
            let why = Failure::new(Cause::External, "SOURCE_GAP", message);
            self.ctx.gap(Gap { amount, unit, why }).await;
        }
        if polled.replan_wanted {
            if self.replan_until.is_none() {
                self.ctx.tell(RunEvent::ReplanWanted(true)).await;
            }
            self.replan_until = Some(Instant::now() + REPLAN);
        }
        // A position may be done only when all records of the poll are known that share it.
        let mut too_large = Vec::new();
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
                    too_large.push((record, size));
                }
            }
        }
        for (record, size) in too_large {
            let most = self.ctx.max_record_bytes();
            let what = format!("a record of {size} bytes is over max_record_bytes ({most})");
            self.impossible(record, "size", "RECORD_TOO_LARGE", what).await;
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
