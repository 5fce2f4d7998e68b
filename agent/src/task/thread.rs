//! Connector code runs on threads of its own, so that code that blocks or spins harms only its task.

use std::{any::Any, future::Future, io, panic::AssertUnwindSafe, sync::Arc, thread, time::Duration};

use futures::FutureExt;
use gantry_connector::ConnectorError;
use tokio::{
    runtime::{self, Runtime},
    sync::oneshot,
    time::timeout,
};
use tracing::Instrument;

/// Reserved for a thread; only what is touched counts.
const STACK: usize = 1 << 20;

/// Resolves when the thread has ended.
pub(crate) struct Gone {
    ended: oneshot::Receiver<()>,
    /// Drops the code.
    drops: Option<oneshot::Sender<()>>,
}

/// How long a thread whose code was dropped may take to end.
const DROPPED: Duration = Duration::from_secs(1);

impl Gone {
    /// Waits until the thread has ended.
    pub(crate) async fn wait(&mut self) {
        // It is never sent to, only dropped.
        let _ = (&mut self.ended).await;
    }

    /// Drops the code, which ends a thread that only waits. Gives back what tells the end if it does not: code that blocks
    /// cannot be dropped.
    pub(crate) async fn give_up(mut self) -> Option<Self> {
        if let Some(drops) = self.drops.take() {
            // It may have ended by now.
            let _ = drops.send(());
        }
        match timeout(DROPPED, self.wait()).await {
            Ok(()) => None,
            Err(_) => Some(self),
        }
    }
}

/// Where connector code runs.
#[derive(Clone)]
pub(crate) enum Place {
    /// On threads of its own. Timers and sockets of all of them are driven by one runtime, which is not that of heartbeats
    /// and commits; what a connector spawns runs there, too.
    Threads(Arc<Drivers>),
    /// On the present runtime. What is given up there is not dropped: it stands for code that blocks its thread.
    Inline,
}

/// The runtime behind the threads. Each thread keeps it alive.
pub(crate) struct Drivers(Option<Runtime>);

impl Drop for Drivers {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Whatever a connector spawned must not keep anybody.
            runtime.shutdown_background();
        }
    }
}

impl Place {
    /// Threads with a runtime of their own behind them.
    ///
    /// # Errors
    /// If the system gives no thread for it.
    pub(crate) fn threads() -> io::Result<Self> {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("connectors")
            .enable_all()
            .build()?;
        Ok(Self::Threads(Arc::new(Drivers(Some(runtime)))))
    }

    /// Runs the future, on a thread with that name if on a thread.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(crate) fn spawn(
        &self,
        name: String,
        code: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<Gone> {
        let (alive, ended) = oneshot::channel::<()>();
        let (drops, dropped) = oneshot::channel::<()>();
        let code = code.in_current_span();
        match self {
            Self::Inline => {
                tokio::spawn(async move {
                    let _alive = alive;
                    code.await;
                });
            }
            Self::Threads(drivers) => {
                let drivers = drivers.clone();
                thread::Builder::new()
                    .name(name)
                    .stack_size(STACK)
                    .spawn(move || {
                        let _alive = alive;
                        let unless_dropped = async move {
                            let dropped = async {
                                if dropped.await.is_err() {
                                    // Whoever could drop it is gone: it ends by itself.
                                    std::future::pending::<()>().await;
                                }
                            };
                            tokio::select! {
                                biased;
                                () = code => {}
                                () = dropped => {}
                            }
                        };
                        if let Some(runtime) = &drivers.0 {
                            runtime.handle().block_on(unless_dropped);
                        }
                    })?;
            }
        }
        let drops = Some(drops);
        Ok(Gone { ended, drops })
    }
}

/// Runs a hook; a panic in it becomes an error of domain `Task`.
pub(crate) async fn guard<T>(
    hook: &'static str,
    call: impl Future<Output = Result<T, ConnectorError>>,
) -> Result<T, ConnectorError> {
    match AssertUnwindSafe(call).catch_unwind().await {
        Ok(result) => result,
        Err(panic) => Err(ConnectorError::task(format!(
            "the connector panicked in {hook}: {}",
            panic_text(&*panic)
        ))),
    }
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thread_tells_when_it_is_gone_and_panics_become_errors() {
        let (tell, told) = oneshot::channel();
        let code = async move {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            let result = guard::<()>("poll", async { panic!("boom {}", 1) }).await;
            let _ = tell.send(result.unwrap_err().chain());
        };
        let place = Place::threads().unwrap();
        let mut gone = place.spawn("t".into(), code).unwrap();
        gone.wait().await;
        assert_eq!(told.await.unwrap(), "the connector panicked in poll: boom 1");
    }

    #[tokio::test]
    async fn what_is_given_up_is_dropped_unless_it_blocks() {
        let place = Place::threads().unwrap();
        let waits = place.spawn("waits".into(), std::future::pending()).unwrap();
        assert!(waits.give_up().await.is_none());
        let (go, blocked) = std::sync::mpsc::channel::<()>();
        let blocks = async move {
            // It is never sent to, only dropped.
            let _ = blocked.recv();
        };
        let blocks = place.spawn("blocks".into(), blocks).unwrap();
        let mut blocks = blocks.give_up().await.expect("it blocks");
        drop(go);
        blocks.wait().await;
    }
}
