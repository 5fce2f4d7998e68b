//! The sink's side of a task: a loop on the connector's thread that does one thing after another.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures::FutureExt;
use gantry_connector::{ConnectorError, Flushed, Sink, SinkContext, SinkRecord, WriteReport};
use tokio::sync::mpsc;

use crate::{
    lease::Lease,
    task::{
        held::Held,
        thread::{guard, panic_text},
    },
};

/// What the pipeline orders.
pub(super) enum Order {
    /// Take this batch.
    Write(Vec<SinkRecord>),
    /// Make everything durable.
    Flush,
    /// Let go of everything and end.
    Close,
}

/// What the thread reports; exactly one for each order but `Close`.
pub(super) enum Report {
    /// `open` returned.
    Opened(Result<(), ConnectorError>),
    /// `write` returned.
    Written(Result<WriteReport, ConnectorError>),
    /// `flush` returned.
    Flushed(Result<Flushed, ConnectorError>),
    /// The right to run has run out: nothing was done.
    CutOff,
    /// `close` failed.
    NotClosed(ConnectorError),
}

pub(super) struct Hook {
    pub(super) sink: Box<dyn Sink>,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) reports: mpsc::Sender<Report>,
    pub(super) lease: Arc<Lease>,
    pub(super) held: Held,
}

impl Hook {
    /// From `open` to `close`.
    pub(super) async fn run(self, context: SinkContext) {
        let reports = self.reports.clone();
        // Hooks are guarded one by one; what is left is code that runs when something of the connector is dropped.
        if let Err(panic) = AssertUnwindSafe(self.open_to_close(context)).catch_unwind().await {
            let what = format!(
                "the connector panicked while it was dropped: {}",
                panic_text(&*panic)
            );
            let _ = reports.send(Report::NotClosed(ConnectorError::task(what))).await;
        }
    }

    async fn open_to_close(mut self, context: SinkContext) {
        // An `open` that is pending when the task has to end is dropped: its time has run out.
        let opened = tokio::select! {
            biased;
            opened = guard("open", self.held.watch("open", self.sink.open(context))) => Some(opened),
            _ = self.orders.recv() => None,
        };
        if let Some(opened) = opened {
            let _ = self.reports.send(Report::Opened(opened)).await;
            self.serve().await;
        }
        if let Err(e) = guard("close", self.held.watch("close", self.sink.close())).await {
            let _ = self.reports.send(Report::NotClosed(e)).await;
        }
    }

    async fn serve(&mut self) {
        while let Some(order) = self.orders.recv().await {
            let report = match order {
                Order::Close => return,
                _ if !self.lease.is_open() => Report::CutOff,
                Order::Write(batch) => {
                    let call = self.held.watch("write", self.sink.write(batch));
                    Report::Written(guard("write", call).await)
                }
                Order::Flush => {
                    let call = self.held.watch("flush", self.sink.flush());
                    Report::Flushed(guard("flush", call).await)
                }
            };
            if self.reports.send(report).await.is_err() {
                return;
            }
        }
    }
}
