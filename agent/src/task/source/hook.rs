//! The source's side of a task: a loop on the connector's thread.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt;
use gantry_connector::{ConnectorError, Domain, Fields, Polled, Source, SourceContext};
use tokio::{sync::mpsc, time::sleep};

use crate::{
    backoff::{Backoff, Jitter},
    lease::Lease,
    task::{
        OUTSIDE,
        budget::Budget,
        held::Held,
        thread::{guard, panic_text},
    },
};

/// Asked of one poll, in bytes.
const POLL_BYTES: usize = 128 << 10;

/// What the pipeline orders.
pub(super) enum Order {
    /// These positions are stored.
    Committed(Vec<(Arc<Fields>, Fields)>),
    /// Poll no more.
    Quiesce,
    /// Let go of everything and end.
    Close,
}

/// What the thread reports.
pub(super) enum Report {
    /// `open` returned.
    Opened,
    /// `poll` returned something.
    Polled(Polled),
    /// `poll` failed and is called again after a pause.
    Unavailable(ConnectorError),
    /// A hook failed for good; only `close` is called after it.
    Failed(&'static str, ConnectorError),
    /// `committed` returned; if it failed, nothing follows from that.
    Told(Result<(), ConnectorError>),
    /// It polls no more.
    Quiesced,
    /// The right to run has run out.
    CutOff,
    /// A hook failed and nothing follows from it.
    Ignored(&'static str, ConnectorError),
}

pub(super) struct Hook {
    pub(super) source: Box<dyn Source>,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) reports: mpsc::Sender<Report>,
    pub(super) budget: Arc<Budget>,
    pub(super) lease: Arc<Lease>,
    pub(super) jitter: Jitter,
    pub(super) held: Held,
}

enum Next {
    Order(Option<Order>),
    Polled(Result<Polled, ConnectorError>),
    Rested,
}

impl Hook {
    /// From `open` to `close`.
    pub(super) async fn run(self, context: SourceContext) {
        let reports = self.reports.clone();
        // Hooks are guarded one by one; what is left is code that runs when something of the connector is dropped.
        if let Err(panic) = AssertUnwindSafe(self.open_to_close(context)).catch_unwind().await {
            let what = format!("the connector panicked: {}", panic_text(&*panic));
            // As below.
            let _ = reports
                .send(Report::Failed("drop", ConnectorError::task(what)))
                .await;
        }
    }

    async fn open_to_close(mut self, context: SourceContext) {
        if self.open(context).await {
            self.serve().await;
        }
        if let Err(e) = guard("close", self.held.watch("close", self.source.close())).await {
            self.report(Report::Ignored("close", e)).await;
        }
    }

    /// Whether it is open.
    async fn open(&mut self, context: SourceContext) -> bool {
        let opened = tokio::select! {
            biased;
            opened = guard("open", self.held.watch("open", self.source.open(context))) => opened,
            () = closed(&mut self.orders) => return false,
        };
        match opened {
            Ok(()) => {
                self.report(Report::Opened).await;
                true
            }
            Err(e) => {
                self.report(Report::Failed("open", e)).await;
                closed(&mut self.orders).await;
                false
            }
        }
    }

    /// Polls and takes orders until it is told to close.
    async fn serve(&mut self) {
        let mut backoff = Backoff::new(OUTSIDE, self.jitter.clone());
        let mut polling = true;
        let mut rest = Duration::ZERO;
        loop {
            match self.next(polling, rest).await {
                Next::Order(None | Some(Order::Close)) => return,
                Next::Order(Some(Order::Quiesce)) => {
                    polling = false;
                    self.report(Report::Quiesced).await;
                }
                Next::Order(Some(Order::Committed(positions))) => {
                    let call = self.held.watch("committed", self.source.committed(&positions));
                    let told = guard("committed", call).await;
                    self.report(Report::Told(told)).await;
                }
                Next::Rested => rest = Duration::ZERO,
                Next::Polled(Ok(polled)) => {
                    backoff.reset();
                    let idle = polled.records.is_empty();
                    rest = polled.idle_for.filter(|_| idle).unwrap_or_default();
                    polling = !polled.end;
                    self.report(Report::Polled(polled)).await;
                }
                Next::Polled(Err(e)) if e.domain() == Domain::Environment => {
                    rest = backoff.fail();
                    self.report(Report::Unavailable(e)).await;
                }
                Next::Polled(Err(e)) => {
                    polling = false;
                    self.report(Report::Failed("poll", e)).await;
                }
            }
        }
    }

    async fn next(&mut self, polling: bool, rest: Duration) -> Next {
        let (source, held) = (&mut self.source, &self.held);
        let (budget, lease, reports) = (&self.budget, &self.lease, &self.reports);
        let poll = async {
            if !rest.is_zero() {
                sleep(rest).await;
                return Next::Rested;
            }
            budget.ready().await;
            if !lease.is_open() {
                let _ = reports.send(Report::CutOff).await;
                // Only an order can follow.
                std::future::pending::<()>().await;
            }
            Next::Polled(guard("poll", held.watch("poll", source.poll(POLL_BYTES))).await)
        };
        tokio::select! {
            biased;
            order = self.orders.recv() => Next::Order(order),
            next = poll, if polling => next,
        }
    }

    async fn report(&mut self, report: Report) {
        // The pipeline is gone only when nobody is interested any more; then the orders end too.
        let _ = self.reports.send(report).await;
    }
}

/// Resolves when it is to be closed.
async fn closed(orders: &mut mpsc::Receiver<Order>) {
    while let Some(order) = orders.recv().await {
        if matches!(order, Order::Close) {
            return;
        }
    }
}
