//! Connector code runs on threads of its own, so that code that blocks or spins harms only its task.

use std::{any::Any, future::Future, io, panic::AssertUnwindSafe, thread};

use futures::FutureExt;
use gantry_connector::ConnectorError;
use tokio::sync::oneshot;
use tracing::Instrument;

/// Reserved for a thread; only what is touched counts.
const STACK: usize = 1 << 20;

/// Resolves when the thread has ended.
pub(crate) struct Gone(oneshot::Receiver<()>);

impl Gone {
    /// Waits until the thread has ended.
    pub(crate) async fn wait(&mut self) {
        // It is never sent to, only dropped.
        let _ = (&mut self.0).await;
    }
}

/// Runs the future on a thread with that name, or on the present runtime if `inline`.
///
/// # Errors
/// If the system gives no thread.
pub(crate) fn spawn(
    name: String,
    inline: bool,
    code: impl Future<Output = ()> + Send + 'static,
) -> io::Result<Gone> {
    let (alive, gone) = oneshot::channel::<()>();
    let code = code.in_current_span();
    if inline {
        tokio::spawn(async move {
            let _alive = alive;
            code.await;
        });
        return Ok(Gone(gone));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    thread::Builder::new()
        .name(name)
        .stack_size(STACK)
        .spawn(move || {
            let _alive = alive;
            runtime.block_on(code);
            // Whatever the connector spawned must not keep the thread.
            runtime.shutdown_background();
        })?;
    Ok(Gone(gone))
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
            let result = guard::<()>("poll", async { panic!("boom {}", 1) }).await;
            let _ = tell.send(result.unwrap_err().chain());
        };
        let mut gone = spawn("t".into(), false, code).unwrap();
        gone.wait().await;
        assert_eq!(told.await.unwrap(), "the connector panicked in poll: boom 1");
    }
}
