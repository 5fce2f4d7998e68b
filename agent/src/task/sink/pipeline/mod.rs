//! The pipeline of a sink: one loop that waits for whatever comes next.

mod committing;
mod health;
mod reading;
mod routing;
mod writing;

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
    reader::{Chunk, Fetched, Reader, wait_for},
};
use crate::{
    backoff::Backoff,
    problem::{Cause, Failure},
    task::{
        Control, Gap, How, LAST_COMMIT, OUTSIDE, RunContext, RunEnd, RunEvent,
        budget::Budget,
        convert,
        dead_letter::{self, DeadLetters},
        hung,
        ledger::{Ledger, Verdict},
        stall::{Obstacle, Stall},
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
    letters: DeadLetters,
    letters_failing: mpsc::Receiver<Failure>,
    troubles: Troubles,
    stall: Stall,
    /// Grows with every write, flush and commit that is done, and with what is read while nothing else is to be done.
    moved: u64,
    /// What was jumped over and not told yet.
    gaps: Vec<Gap>,
    routing: Option<BoxFuture<'static, Routes>>,
    next_route: Instant,
    /// The split no longer fits.
    replan: bool,
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

/// What the name server said of each topic.
type Routes = Vec<Result<Vec<Queue>, BusError>>;

enum Wake {
    Told(Control),
    Report(Option<Report>),
    Worked(Worked),
    Fetched(Fetched),
    Committed(TaskCommitResult),
    Routed(Routes),
    Mirrored,
    NotBuried(Failure),
    Timer,
}

impl Pipeline {
    pub(super) fn new(
        ctx: RunContext,
        read: &ReadOffsetsResponse,
        queues: Vec<QueueState>,
        absent: Vec<Queue>,
        thread: Thread,
    ) -> Self {
        let budget = Arc::new(Budget::new(ctx.limits.sink_memory));
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
        for queue in absent {
            let backoff = Backoff::new(OUTSIDE, ctx.jitter.clone());
            readers.spawn(wait_for(queue, ctx.bus.clone(), out.clone(), backoff));
        }
        let now = Instant::now();
        let (letters, letters_failing) = DeadLetters::of(&ctx);
        Self {
            letters,
            letters_failing,
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
            stall: Stall::new(ctx.limits.stalled_after, now),
            moved: 0,
            gaps: Vec::new(),
            routing: None,
            // What changed while nobody ran is seen at once.
            next_route: now,
            replan: false,
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
            self.look_at_routes();
            self.ctx.metrics.in_flight_bytes(self.budget.used());
            self.tell_health().await;
            for gap in std::mem::take(&mut self.gaps) {
                self.ctx.gap(gap).await;
            }
            if let Some(limit) = self.overdue() {
                return RunEnd {
                    how: How::Failed(limit),
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
        self.readers.abort_all();
        let Self { ctx, thread, .. } = self;
        let leaked = thread
            .close(Order::Close, ctx.limits.hooks.close, |r| not_closed(&ctx, r))
            .await;
        RunEnd { how, leaked }
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
            self.stall.due(Instant::now()),
            (self.routing.is_none() && self.ending.is_none()).then_some(self.next_route),
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
            Some(routes) = maybe(&mut self.routing) => { self.routing = None; Wake::Routed(routes) }
            Some(()) = maybe(&mut self.mirror.running) => { self.mirror.running = None; Wake::Mirrored }
            Some(failure) = self.letters_failing.recv() => Wake::NotBuried(failure),
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
            Wake::Routed(routes) => self.routed(routes).await,
            Wake::NotBuried(failure) => self.troubles.failed(Spot::DeadLetter, failure, Instant::now()),
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

async fn maybe<T>(future: &mut Option<BoxFuture<'static, T>>) -> Option<T> {
    match future {
        Some(future) => Some(future.await),
        None => None,
    }
}
