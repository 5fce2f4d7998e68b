use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::time::Instant;

/// Which hook of a connector holds its thread, and since when. A hook that waits as it should (`.await`) holds none: only so
/// can code that blocks be told from code that has nothing to do.
#[derive(Clone, Default)]
pub(crate) struct Held(Arc<Mutex<State>>);

/// Hooks, and since when.
#[derive(Clone, Copy, Default)]
struct State {
    called: Option<(&'static str, Instant)>,
    holds: Option<(&'static str, Instant)>,
}

/// Notes the end, also of a panic.
struct Inside<'a>(&'a Held);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.0.lock().holds = None;
    }
}

/// Notes the end, also when it is dropped.
struct Called<'a>(&'a Held);

impl Drop for Called<'_> {
    fn drop(&mut self) {
        self.0.0.lock().called = None;
    }
}

impl Held {
    /// The hook that holds the thread now.
    pub(crate) fn since(&self) -> Option<(&'static str, Instant)> {
        self.0.lock().holds
    }

    /// The hook that was called and has not returned, whether it waits or holds the thread, and when it was called.
    pub(crate) fn called(&self) -> Option<(&'static str, Instant)> {
        self.0.lock().called
    }

    /// Runs a hook.
    pub(crate) async fn watch<T>(&self, hook: &'static str, call: impl Future<Output = T>) -> T {
        let mut call = pin!(call);
        self.0.lock().called = Some((hook, Instant::now()));
        let _called = Called(self);
        poll_fn(|context| {
            self.0.lock().holds = Some((hook, Instant::now()));
            let _inside = Inside(self);
            call.as_mut().poll(context)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::task::thread::guard;

    #[tokio::test(start_paused = true)]
    async fn a_hook_holds_its_thread_only_while_it_does_not_wait() {
        let held = Held::default();
        let inside = held.clone();
        let hook = held.watch("poll", async move {
            assert_eq!(inside.since().map(|(hook, _)| hook), Some("poll"));
            tokio::time::sleep(Duration::from_secs(3_600)).await;
        });
        let mut hook = pin!(hook);
        assert!(futures::poll!(hook.as_mut()).is_pending());
        assert_eq!(held.since(), None);
        assert_eq!(held.called().map(|(hook, _)| hook), Some("poll"));
        hook.await;
        let panics = guard::<()>("poll", held.watch("poll", async { panic!("boom") }));
        assert!(panics.await.is_err());
        assert_eq!(held.since(), None);
        assert_eq!(held.called(), None);
    }
}
