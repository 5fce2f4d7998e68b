use std::time::Duration;

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::thread::Gone;

/// A connector on its thread: takes orders, gives reports.
pub(crate) struct Hooked<O, R> {
    pub(crate) orders: mpsc::Sender<O>,
    pub(crate) reports: mpsc::Receiver<R>,
    pub(crate) gone: Gone,
}

impl<O, R> Hooked<O, R> {
    /// Orders it to close and waits until its thread has ended. Gives back what tells the end if it does not come in time.
    pub(crate) async fn close(mut self, order: O, limit: Duration, mut seen: impl FnMut(R)) -> Option<Gone> {
        let deadline = Instant::now() + limit;
        tokio::select! {
            // If its receiver is gone it is ending already.
            _ = self.orders.send(order) => {}
            _ = sleep_until(deadline) => return Some(self.gone),
        }
        loop {
            tokio::select! {
                biased;
                Some(report) = self.reports.recv() => seen(report),
                () = self.gone.wait() => return None,
                _ = sleep_until(deadline) => return Some(self.gone),
            }
        }
    }
}
