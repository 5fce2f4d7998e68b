//! The link to the control plane: finds a replica, says hello, keeps the lease, takes pushes, sends statuses.

pub(crate) mod asks;
mod dial;
mod hello;
mod push;
mod serve;
mod watchdog;

use std::{pin::Pin, sync::Arc, time::Duration};

use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use self::{asks::Asks, dial::attempt_times};
pub(crate) use self::{
    dial::{Client, Dialer},
    hello::Identity,
    push::Pushes,
    watchdog::watch_lease,
};
use crate::{
    AgentError,
    backoff::{Backoff, Jitter, Pauses},
    lease::Lease,
    metrics::Metrics,
    supervisor::{Supervisor, reports::Reports},
};

/// How long all tasks together may take to drain when the agent ends.
const DRAIN: Duration = Duration::from_secs(30);

/// The replica that serves the agent, for calls beside the session.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) client: Client,
    pub(crate) agent: Arc<str>,
    pub(crate) instance_uid: Arc<str>,
}

/// Holds a session for as long as the agent runs.
pub(crate) struct Session {
    pub(crate) identity: Identity,
    pub(crate) dialer: Dialer,
    pub(crate) lease: Arc<Lease>,
    pub(crate) supervisor: Supervisor,
    pub(crate) reports: Arc<Reports>,
    pub(crate) pushes: Pushes,
    pub(crate) asks: Asks,
    pub(crate) link: watch::Sender<Option<Link>>,
    pub(crate) metrics: Metrics,
    pub(crate) jitter: Jitter,
    /// Store that the agent last spoke with.
    pub(crate) store_id: String,
}

/// All tasks are being drained; resolves when nothing runs.
type Draining = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How a session ended.
enum Over {
    /// It broke, or was refused for now.
    Broken(Status),
    /// The control plane wants another one.
    Reconnect(String),
    /// Goodbye was said.
    Left,
}

impl Session {
    /// Runs until the agent has left.
    ///
    /// # Errors
    /// If the control plane refuses the agent for good.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) -> Result<(), AgentError> {
        let mut failures = Backoff::new(self.pauses(), self.jitter.clone());
        let mut draining: Option<Draining> = None;
        loop {
            let address = self.dialer.next_address();
            let mut greeted = false;
            let over = self
                .session(&address, &shutdown, &mut draining, &mut greeted)
                .await;
            self.metrics.connected(false);
            match over {
                Over::Left => return Ok(()),
                Over::Reconnect(reason) => {
                    tracing::info!(address, reason, "dialling again");
                    self.dialer.avoid(&address);
                }
                Over::Broken(status) if !greeted && status.code() == Code::AlreadyExists => {
                    return Err(AgentError::Refused {
                        name: self.identity.agent.to_string(),
                        message: status.message().to_owned(),
                    });
                }
                Over::Broken(status) => {
                    tracing::warn!(address, code = ?status.code(), "no session: {}", dial::why(&status, &address));
                }
            }
            if greeted {
                failures = Backoff::new(self.pauses(), self.jitter.clone());
            }
            let pause = failures.fail();
            tokio::select! {
                () = shutdown.cancelled(), if draining.is_none() => draining = Some(self.drain()),
                () = done(&mut draining) => {
                    tracing::info!("all tasks have ended; there is no session to say goodbye in");
                    return Ok(());
                }
                () = sleep(pause) => {}
            }
        }
    }

    fn pauses(&self) -> Pauses {
        let (_, longest) = attempt_times(self.lease.length(), self.lease.is_open());
        Pauses {
            first: Duration::from_millis(100).min(longest),
            longest,
        }
    }

    /// Begins to drain everything for good.
    fn drain(&self) -> Draining {
        tracing::info!("stopping: draining all tasks");
        let supervisor = self.supervisor.clone();
        Box::pin(async move {
            if tokio::time::timeout(DRAIN, supervisor.drain()).await.is_err() {
                tracing::warn!("some tasks have not drained in time");
            }
        })
    }
}

/// Resolves when everything is drained; never if nothing is being drained. Not to be asked again after that.
async fn done(draining: &mut Option<Draining>) {
    match draining {
        Some(draining) => draining.await,
        None => std::future::pending().await,
    }
}
