use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, TryStreamExt, future::BoxFuture, stream};
use gantry_bus::{BusError, BusErrorKind, Queue};
use gantry_connector::{ConnectorError, Domain, Flushed, SinkRecord, WriteReport};
use gantry_proto::{
    agent::v1::{ReadOffsetsResponse, TaskCommitResult},
    v1::error_policy::OnRecordError,
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    Thread,
    batch::{self, Batch},
    hook::{Order, Report},
    not_closed,
    queue::QueueState,
    reader::{Chunk, Fetched, Reader},
};
use crate::{
    backoff::Backoff,
    problem::{Cause, Failure},
    task::{
        Control, How, LAST_COMMIT, OUTSIDE, RunContext, RunEnd, RunEvent,
        budget::Budget,
        convert,
        dead_letter::{self, DeadLetters},
        hung,
        ledger::{Ledger, Verdict},
        trouble::{Spot, Tell, Troubles},
    },
};

/// The pipeline of one run.
pub(super) struct Pipeline {
    ctx: RunContext,
    thread: Thread,
    budget: Arc<Budget>,
    queues: Vec<QueueState>,
    names: Arc<[Queue]>,
    readers: JoinSet<()>,
    fetched: mpsc::Receiver<Fetched>,
    /// Read and not written.
    chunks: VecDeque<Chunk>,
    stage: Stage,
    /// What the stage waits for, if that is not the thread.
    working: Option<BoxFuture<'static, Worked>>,
    retries: Backoff,
    flush: FlushState,
    ledger: Ledger,
    committing: Option<BoxFuture<'static, TaskCommitResult>>,
    next_commit: Instant,
    commit_rests_until: Instant,
    mirror: Mirror,
    troubles: Troubles,
    ending: Option<Ending>,
    /// The start positions with the sink's first state are stored: only now may it write.
    based: bool,
}

/// What the thread is doing. It does one thing at a time.
enum Stage {
    Idle,
    /// Since then.
    Writing(Batch, Instant),
    /// Since then.
    Flushing(Instant),
    /// The batch is written again at that time.
    WriteAgain(Batch, Instant),
    /// Flushed again at that time.
    FlushAgain(Instant),
    /// The batch is being read again, to be written again.
    Fetching(Batch),
    /// Dead letters of the batch are being stored.
    Burying(Batch, Vec<usize>),
}

/// What is written and not flushed.
struct FlushState {
    bytes: usize,
    /// Since when.
    since: Option<Instant>,
}

/// What became of records that the sink rejected.
#[derive(Clone, Copy)]
enum Rejected {
    Skipped,
    DeadLettered,
}

enum Worked {
    Fetched(Result<Vec<SinkRecord>, BusError>),
    Buried(Result<(), BusError>),
}

struct Ending {
    how: How,
    deadline: Instant,
    /// What is written is still flushed.
    flush: bool,
}

/// Positions on their way to the broker's own consumer offsets.
struct Mirror {
    next: Instant,
    /// By index of the queue: stored, and not shown yet.
    wanted: BTreeMap<usize, u64>,
    running: Option<BoxFuture<'static, ()>>,
}

const MIRROR_INTERVAL: Duration = Duration::from_secs(5);

enum Wake {
    Told(Control),
    Report(Option<Report>),
    Worked(Worked),
    Fetched(Fetched),
    Committed(TaskCommitResult),
    Mirrored,
    Timer,
}

impl Pipeline {
    pub(super) fn new(
        ctx: RunContext,
        read: &ReadOffsetsResponse,
        queues: Vec<QueueState>,
        thread: Thread,
    ) -> Self {
        let budget = Arc::new(Budget::new(ctx.limits.task_memory));
        let (out, fetched) = mpsc::channel(queues.len().clamp(1, 64));
        let mut readers = JoinSet::new();
        for (index, q) in queues.iter().enumerate() {
            let reader = Reader {
                index,
                queue: q.queue.clone(),
                offset: q.written,
                bus: ctx.bus.clone(),
                budget: budget.clone(),
                out: out.clone(),
                wait: ctx.limits.pull_wait,
                jitter: ctx.jitter.clone(),
            };
            readers.spawn(reader.run());
        }
        let now = Instant::now();
        Self {
            names: queues.iter().map(|q| q.queue.clone()).collect(),
            readers,
            fetched,
            chunks: VecDeque::new(),
            stage: Stage::Idle,
            working: None,
            retries: Backoff::new(OUTSIDE, ctx.jitter.clone()),
            flush: FlushState {
                bytes: 0,
                since: None,
            },
            ledger: Ledger::new(ctx.key.clone(), ctx.fence, read),
            committing: None,
            next_commit: now,
            commit_rests_until: now,
            mirror: Mirror {
                next: now,
                wanted: BTreeMap::new(),
                running: None,
            },
            troubles: Troubles::default(),
            ending: None,
            based: false,
            queues,
            ctx,
            thread,
            budget,
        }
    }

    pub(super) async fn run(mut self) -> RunEnd {
        // The state of the sink as it is before the first write: a crash before the first commit then doubles nothing.
        self.order(Order::Flush);
        self.stage = Stage::Flushing(Instant::now());
        let how = loop {
            if !self.ctx.may_run() {
                break How::Dropped;
            }
            self.advance();
            self.commit();
            self.mirror();
            self.ctx.metrics.in_flight_bytes(self.budget.used());
            match self.troubles.tell(Instant::now()) {
                Some(Tell::Trouble(failure)) => self.ctx.tell(RunEvent::Trouble(failure)).await,
                Some(Tell::Recovered) => self.ctx.tell(RunEvent::Recovered).await,
                None => {}
            }
            if let Some(limit) = self.overdue() {
                return RunEnd {
                    how: How::Failed(limit),
                    leaked: Some(self.thread.gone),
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
        self.readers.abort_all();
        let Self { ctx, thread, .. } = self;
        let leaked = thread
            .close(Order::Close, ctx.limits.hooks.close, |r| not_closed(&ctx, r))
            .await;
        RunEnd { how, leaked }
    }

    /// Gives the thread something to do, if it has nothing.
    fn advance(&mut self) {
        let now = Instant::now();
        let flushing = self.ending.as_ref().is_none_or(|e| e.flush);
        match &self.stage {
            Stage::Idle if !self.based => {}
            Stage::Idle if flushing && self.flush_due(now) => {
                self.order(Order::Flush);
                self.stage = Stage::Flushing(now);
            }
            Stage::Idle if self.ending.is_none() && !self.chunks.is_empty() => {
                let limits = &self.ctx.limits;
                let (batch, records) =
                    batch::assemble(&mut self.chunks, limits.write_records, limits.write_bytes);
                self.write(batch, records);
            }
            Stage::FlushAgain(at) if *at <= now => {
                self.order(Order::Flush);
                self.stage = Stage::Flushing(now);
            }
            Stage::WriteAgain(batch, at) if *at <= now => {
                let fetch = batch::fetch(self.ctx.bus.clone(), self.names.clone(), batch.clone());
                self.working = Some(async move { Worked::Fetched(fetch.await) }.boxed());
                self.stage = Stage::Fetching(batch.clone());
            }
            _ => {}
        }
    }

    fn write(&mut self, batch: Batch, records: Vec<SinkRecord>) {
        if records.is_empty() {
            self.written(batch, &[], Rejected::Skipped);
        } else {
            self.order(Order::Write(records));
            self.stage = Stage::Writing(batch, Instant::now());
        }
    }

    /// Whether what is written has to be flushed now.
    fn flush_due(&self, now: Instant) -> bool {
        let Some(since) = self.flush.since else {
            return false;
        };
        self.ending.is_some()
            || self.flush.bytes >= self.ctx.limits.flush_bytes
            || since + self.ctx.limits.flush_interval <= now
    }

    fn order(&mut self, order: Order) {
        // The thread has room for two and is never given a second one before it has answered.
        let _ = self.thread.orders.try_send(order);
    }

    fn commit(&mut self) {
        if self.committing.is_some() || self.commit_due() > Instant::now() {
            return;
        }
        if let Some(request) = self.ledger.request() {
            let store = self.ctx.store.clone();
            self.committing = Some(async move { store.commit(request).await }.boxed());
            self.next_commit = Instant::now() + self.ctx.limits.commit_interval;
        }
    }

    fn commit_due(&self) -> Instant {
        match self.ending.is_some() || !self.based {
            true => self.commit_rests_until,
            false => self.next_commit.max(self.commit_rests_until),
        }
    }

    /// Shows committed positions to RocketMQ's own tools. Nothing depends on it.
    fn mirror(&mut self) {
        let (now, group) = (Instant::now(), &self.ctx.spec.consumer_group);
        if group.is_empty()
            || self.mirror.wanted.is_empty()
            || self.mirror.running.is_some()
            || self.mirror.next > now
        {
            return;
        }
        self.mirror.next = now + MIRROR_INTERVAL;
        let moved = std::mem::take(&mut self.mirror.wanted);
        let moved: Vec<_> = moved
            .into_iter()
            .map(|(at, offset)| (self.names[at].clone(), offset))
            .collect();
        let (bus, group) = (self.ctx.bus.clone(), group.clone());
        self.mirror.running = Some(
            async move {
                for (queue, offset) in moved {
                    if let Err(e) = bus.mirror_offset(&group, &queue, offset).await {
                        tracing::debug!(error = %e, "the position is not shown to RocketMQ's tools");
                    }
                }
            }
            .boxed(),
        );
    }

    /// The failure, if the thread takes too long.
    fn overdue(&self) -> Option<Failure> {
        let (hook, since) = match &self.stage {
            Stage::Writing(_, since) => ("write", *since),
            Stage::Flushing(since) => ("flush", *since),
            _ => return None,
        };
        let limit = self.ctx.limits.hooks.write;
        (since + limit <= Instant::now()).then(|| hung(hook, limit))
    }

    fn finished(&mut self) -> Option<How> {
        let busy = !matches!(self.stage, Stage::Idle);
        let clean = self.ledger.is_clean() && self.committing.is_none();
        let ending = self.ending.as_mut()?;
        let flushed = !busy && (self.flush.since.is_none() || !ending.flush);
        let over = ending.deadline <= Instant::now();
        // Past the deadline only a commit that may already be stored is waited for, and not for a failed run.
        let failed = matches!(ending.how, How::Failed(_));
        (flushed && clean || over && (clean || failed))
            .then(|| std::mem::replace(&mut ending.how, How::Drained))
    }

    async fn wake(&mut self) -> Wake {
        let limit = self.ctx.limits.hooks.write;
        let stage = match &self.stage {
            Stage::Writing(_, since) | Stage::Flushing(since) => Some(*since + limit),
            Stage::WriteAgain(_, at) | Stage::FlushAgain(at) => Some(*at),
            Stage::Idle if self.ending.is_none() => {
                self.flush.since.map(|s| s + self.ctx.limits.flush_interval)
            }
            _ => None,
        };
        let timers = [
            stage,
            self.troubles.due(),
            self.ending
                .as_ref()
                .map(|e| e.deadline)
                .filter(|at| *at > Instant::now()),
            (self.committing.is_none() && !self.ledger.is_clean()).then(|| self.commit_due()),
            (self.mirror.running.is_none() && !self.mirror.wanted.is_empty()).then_some(self.mirror.next),
        ];
        let timer = timers.into_iter().flatten().min();
        let timer = async {
            match timer {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let drained = self.ending.is_some();
        // Chunks are bounded by the budget, which readers wait for.
        tokio::select! {
            biased;
            told = self.ctx.control.wait_for(|c| *c == Control::Drop || *c == Control::Drain && !drained) => {
                Wake::Told(told.map_or(Control::Drop, |c| *c))
            }
            report = self.thread.reports.recv() => Wake::Report(report),
            Some(worked) = maybe(&mut self.working) => { self.working = None; Wake::Worked(worked) }
            Some(result) = maybe(&mut self.committing) => { self.committing = None; Wake::Committed(result) }
            Some(()) = maybe(&mut self.mirror.running) => { self.mirror.running = None; Wake::Mirrored }
            Some(fetched) = self.fetched.recv() => Wake::Fetched(fetched),
            () = timer => Wake::Timer,
        }
    }

    async fn handle(&mut self, wake: Wake) -> Result<(), How> {
        match wake {
            Wake::Told(Control::Drop) => return Err(How::Dropped),
            Wake::Told(_) => self.end(How::Drained, self.ctx.drain_timeout(), true),
            Wake::Report(report) => self.report(report)?,
            Wake::Worked(Worked::Fetched(result)) => self.fetched_again(result),
            Wake::Worked(Worked::Buried(result)) => self.buried(result),
            Wake::Fetched(fetched) => self.fetched(fetched),
            Wake::Committed(result) => self.committed(&result)?,
            Wake::Mirrored | Wake::Timer => {}
        }
        Ok(())
    }

    fn report(&mut self, report: Option<Report>) -> Result<(), How> {
        match report {
            Some(Report::Written(result)) => self.wrote(result),
            Some(Report::Flushed(result)) => self.flushed(result),
            Some(Report::CutOff) => return Err(How::Dropped),
            Some(report @ Report::NotClosed(_)) => not_closed(&self.ctx, report),
            Some(Report::Opened(_)) => {}
            None => {
                let failure = Failure::new(Cause::Task, "THREAD_ENDED", "the connector's thread ended");
                return Err(How::Failed(failure));
            }
        }
        Ok(())
    }

    fn wrote(&mut self, result: Result<WriteReport, ConnectorError>) {
        let Stage::Writing(batch, _) = std::mem::replace(&mut self.stage, Stage::Idle) else {
            return;
        };
        match result {
            Ok(report) => {
                self.troubles.worked(Spot::Write);
                self.retries.reset();
                self.judge(batch, report);
            }
            Err(e) if e.domain() == Domain::Environment => {
                self.troubles
                    .failed(Spot::Write, Failure::connector("write", &e), Instant::now());
                self.stage = Stage::WriteAgain(batch, Instant::now() + self.retries.fail());
            }
            Err(e) => self.fail(Failure::connector("write", &e)),
        }
    }

    /// Does with rejected records what the error policy says.
    fn judge(&mut self, batch: Batch, report: WriteReport) {
        let known = |(at, e): (usize, ConnectorError)| Some((*batch.records.get(at)?, at, e));
        let rejected: Vec<_> = report.rejected.into_iter().filter_map(known).collect();
        let Some(((index, offset), _, first)) = rejected.first() else {
            self.written(batch, &[], Rejected::Skipped);
            return;
        };
        let policy = self
            .ctx
            .spec
            .error_policy
            .as_ref()
            .map(|p| p.on_record_error())
            .unwrap_or_default();
        match policy {
            OnRecordError::Unspecified | OnRecordError::Fail => {
                let queue = &self.names[*index as usize];
                let message = format!("record at offset {offset} of queue {queue}: {}", first.chain());
                let failure = Failure::new(Cause::Record, "RECORD_REJECTED", message)
                    .fix("correct the data or the sink's configuration, or set error_policy to SKIP or DEAD_LETTER");
                self.fail(failure);
            }
            OnRecordError::Skip => {
                self.ctx.metrics.skipped(rejected.len() as u64);
                let skipped: Vec<_> = rejected.iter().map(|(_, at, _)| *at).collect();
                self.written(batch, &skipped, Rejected::Skipped);
            }
            OnRecordError::DeadLetter => {
                self.ctx.metrics.dead_lettered(rejected.len() as u64);
                let indices: Vec<_> = rejected.iter().map(|(_, at, _)| *at).collect();
                let letters = rejected.into_iter().map(|((index, offset), _, e)| {
                    let queue = self.names[index as usize].clone();
                    let cause = dead_letter::Cause {
                        error: self.ctx.scrubber.scrub(&e.chain()),
                        stage: "write",
                        connector: self.ctx.spec.connector.clone(),
                        task: self.ctx.key.task,
                        partition: queue.to_string(),
                        position: format!("offset={offset}"),
                    };
                    (queue, offset, cause)
                });
                let dead = DeadLetters {
                    bus: self.ctx.bus.clone(),
                    topic: self
                        .ctx
                        .spec
                        .error_policy
                        .as_ref()
                        .map(|p| p.dead_letter_topic.clone())
                        .unwrap_or_default(),
                    create_queues: self.ctx.spec.create_queues,
                    jitter: self.ctx.jitter.clone(),
                };
                self.working = Some(bury(dead, letters.collect()).map(Worked::Buried).boxed());
                self.stage = Stage::Burying(batch, indices);
            }
        }
    }

    fn buried(&mut self, result: Result<(), BusError>) {
        let Stage::Burying(batch, indices) = std::mem::replace(&mut self.stage, Stage::Idle) else {
            return;
        };
        match result {
            Ok(()) => {
                self.written(batch, &indices, Rejected::DeadLettered);
            }
            Err(e) => {
                let mut failure = Failure::bus(&e);
                failure.message = format!("the dead letter cannot be stored: {}", failure.message);
                self.fail(failure);
            }
        }
    }

    /// The sink has taken the batch, except these records, for which this was done instead.
    fn written(&mut self, batch: Batch, rejected: &[usize], instead: Rejected) {
        for run in &batch.runs {
            let q = &mut self.queues[run.index];
            q.dirty |= q.written != run.next;
            q.written = run.next;
            q.counts.r#in += run.count as u64;
            q.counts.out += run.count as u64;
        }
        for at in rejected {
            let counts = &mut self.queues[batch.records[*at].0 as usize].counts;
            counts.out -= 1;
            match instead {
                Rejected::Skipped => counts.skipped += 1,
                Rejected::DeadLettered => counts.dead_lettered += 1,
            }
        }
        self.budget.free(batch.weight);
        self.ctx
            .metrics
            .out((batch.records.len() - rejected.len()) as u64, batch.weight);
        self.ctx
            .metrics
            .lag(self.queues.iter().map(QueueState::lag).sum());
        self.flush.bytes += batch.weight;
        if self.queues.iter().any(|q| q.dirty) {
            self.flush.since.get_or_insert_with(Instant::now);
        }
    }

    fn flushed(&mut self, result: Result<Flushed, ConnectorError>) {
        self.stage = Stage::Idle;
        match result {
            Ok(flushed) => {
                self.troubles.worked(Spot::Write);
                self.retries.reset();
                for (index, state) in flushed.states {
                    if let Some(q) = self.queues.get_mut(index as usize) {
                        q.dirty |= q.state.as_ref() != Some(&state);
                        q.state = Some(state);
                    }
                }
                for q in self.queues.iter_mut().filter(|q| q.dirty) {
                    q.dirty = false;
                    self.ledger.put(q.fields.clone(), q.mark());
                }
                self.flush = FlushState {
                    bytes: 0,
                    since: None,
                };
                self.based |= self.ledger.is_clean();
            }
            Err(e) if e.domain() == Domain::Environment => {
                self.troubles
                    .failed(Spot::Write, Failure::connector("flush", &e), Instant::now());
                self.stage = Stage::FlushAgain(Instant::now() + self.retries.fail());
            }
            Err(e) => self.fail(Failure::connector("flush", &e)),
        }
    }

    fn fetched_again(&mut self, result: Result<Vec<SinkRecord>, BusError>) {
        let Stage::Fetching(mut batch) = std::mem::replace(&mut self.stage, Stage::Idle) else {
            return;
        };
        match result {
            Ok(records) => {
                batch.records = records.iter().map(|r| (r.partition, r.offset)).collect();
                self.write(batch, records);
            }
            Err(e) if e.kind() == BusErrorKind::OffsetOutOfRange => self.fail(Failure::bus(&e)),
            Err(e) => {
                tracing::debug!(error = %e, "the batch cannot be read again yet");
                self.stage = Stage::WriteAgain(batch, Instant::now() + self.retries.fail());
            }
        }
    }

    fn fetched(&mut self, fetched: Fetched) {
        if self.ending.is_some() {
            return;
        }
        match fetched {
            Fetched::Chunk(chunk) => {
                self.troubles.worked(Spot::Queue(chunk.index));
                let q = &mut self.queues[chunk.index];
                q.bounds = chunk.bounds;
                let bytes = chunk.messages.iter().map(|m| m.body.len()).sum();
                self.ctx.metrics.r#in(chunk.messages.len() as u64, bytes);
                if chunk.messages.is_empty() {
                    self.ctx
                        .metrics
                        .lag(self.queues.iter().map(QueueState::lag).sum());
                }
                let q = &self.queues[chunk.index];
                if !chunk.messages.is_empty() || chunk.next > q.written {
                    self.chunks.push_back(chunk);
                }
            }
            Fetched::Failed(index, e) => {
                self.troubles
                    .failed(Spot::Queue(index), Failure::bus(&e), Instant::now());
            }
            Fetched::Lost(_, e) if e.kind() == BusErrorKind::OffsetOutOfRange => {
                // The start decides what to do about it, with what is written committed before.
                self.end(How::Again, self.ctx.drain_timeout(), true);
            }
            Fetched::Lost(_, e) => self.fail(Failure::bus(&e)),
        }
    }

    fn committed(&mut self, result: &TaskCommitResult) -> Result<(), How> {
        match self.ledger.settle(result) {
            Verdict::Stored(told) => {
                self.based |= self.ledger.is_clean();
                for (fields, position) in told {
                    let at = self.queues.iter().position(|q| Arc::ptr_eq(&q.fields, &fields));
                    self.mirror.wanted.extend(at.zip(position.uint("offset")));
                }
                if self.ledger.has_more() {
                    self.next_commit = Instant::now();
                }
                self.ctx.metrics.committed(self.ctx.lease.clock().wall());
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

    /// Ends with that failure. What was written and not flushed is not committed; what was flushed is.
    fn fail(&mut self, failure: Failure) {
        self.end(How::Failed(failure), LAST_COMMIT, false);
    }

    /// Begins to finish: reads no more; what was read and not written is dropped.
    fn end(&mut self, how: How, within: Duration, flush: bool) {
        self.readers.abort_all();
        self.chunks.clear();
        if matches!(how, How::Failed(_)) {
            (self.stage, self.working) = (Stage::Idle, None);
        }
        let deadline = Instant::now() + within;
        match &mut self.ending {
            Some(ending) if matches!(ending.how, How::Failed(_)) => {}
            Some(ending) if matches!(how, How::Again) && matches!(ending.how, How::Drained) => {}
            ending => *ending = Some(Ending { how, deadline, flush }),
        }
    }
}

/// Stores dead letters of these records, many at a time.
async fn bury(dead: DeadLetters, letters: Vec<(Queue, u64, dead_letter::Cause)>) -> Result<(), BusError> {
    stream::iter(letters.into_iter().map(Ok::<_, BusError>))
        .try_for_each_concurrent(32, |(queue, offset, cause)| {
            let dead = dead.clone();
            async move {
                let mut backoff = Backoff::new(OUTSIDE, dead.jitter.clone());
                let message = loop {
                    match batch::fetch_one(&*dead.bus, &queue, offset).await {
                        Ok(message) => break message,
                        Err(e) if e.kind() == BusErrorKind::OffsetOutOfRange => return Err(e),
                        Err(_) => tokio::time::sleep(backoff.fail()).await,
                    }
                };
                let record = convert::to_record(message, 0);
                let value = convert::value_bytes(record.value);
                let letter = dead_letter::message(
                    &cause,
                    record.key.as_deref(),
                    record.tag.as_deref(),
                    value.as_ref(),
                );
                dead.store(
                    letter,
                    |e| tracing::warn!(error = %e, "a dead letter is not stored yet"),
                )
                .await
            }
        })
        .await
}

async fn maybe<T>(future: &mut Option<BoxFuture<'static, T>>) -> Option<T> {
    match future {
        Some(future) => Some(future.await),
        None => None,
    }
}
