use std::time::Duration;

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{held::Held, thread::Gone};

/// A connector on its thread: takes orders, gives reports.
pub(crate) struct Hooked<O, R> {
    pub(crate) orders: mpsc::Sender<O>,
    pub(crate) reports: mpsc::Receiver<R>,
    pub(crate) gone: Gone,
    pub(crate) held: Held,
}

/// The thread of a connector that does not end.
pub(crate) struct Leaked {
    /// The hook that has not returned; None: something of the connector that is being dropped.
    pub(crate) hook: Option<&'static str>,
    /// Resolves when it has ended after all.
    pub(crate) gone: Gone,
}

impl<O, R> Hooked<O, R> {
    /// Orders it to close and waits until its thread has ended. Past the limit it is given up.
    pub(crate) async fn close(
        mut self,
        order: O,
        limit: Duration,
        mut seen: impl FnMut(R),
    ) -> Option<Leaked> {
        let deadline = Instant::now() + limit;
        tokio::select! {
            // If its receiver is gone it is ending already.
            _ = self.orders.send(order) => {}
            _ = sleep_until(deadline) => return self.give_up().await,
        }
        loop {
            tokio::select! {
                biased;
                Some(report) = self.reports.recv() => seen(report),
                () = self.gone.wait() => return None,
                _ = sleep_until(deadline) => return self.give_up().await,
            }
        }
    }

    /// Drops the hook that has not returned. Gives back the thread if it does not end, as of code that blocks.
    pub(crate) async fn give_up(self) -> Option<Leaked> {
        let gone = self.gone.give_up().await?;
        let hook = self.held.called().map(|(hook, _)| hook);
        Some(Leaked { hook, gone })
    }
}
