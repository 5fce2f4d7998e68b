use std::{
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering},
};

use tokio::sync::Notify;

/// Bytes of records that a task may hold. What is admitted last may exceed it, so that no record is too large to pass.
pub(crate) struct Budget {
    used: AtomicUsize,
    limit: usize,
    freed: Notify,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            used: AtomicUsize::new(0),
            limit: limit.max(1),
            freed: Notify::new(),
        }
    }

    /// Waits until something may be admitted.
    pub(crate) async fn ready(&self) {
        let mut freed = pin!(self.freed.notified());
        loop {
            freed.as_mut().enable();
            if self.used() < self.limit {
                return;
            }
            freed.as_mut().await;
            freed.set(self.freed.notified());
        }
    }

    pub(crate) fn add(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::SeqCst);
    }

    pub(crate) fn free(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::SeqCst);
        self.freed.notify_waiters();
    }

    /// Bytes held now.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_full_budget_admits_again_once_something_is_freed() {
        let budget = Arc::new(Budget::new(10));
        budget.ready().await;
        budget.add(25);
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move { budget.ready().await }
        });
        tokio::task::yield_now().await;
        budget.free(10);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        budget.free(10);
        waiting.await.unwrap();
        assert_eq!(budget.used(), 5);
    }
}
