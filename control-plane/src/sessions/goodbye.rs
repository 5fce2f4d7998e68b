//! An agent that leaves on purpose.

use std::time::Duration;

use gantry_proto::{agent::v1::Goodbye, error::Refusal};
use tokio::time::sleep;

use super::{
    Sessions,
    handshake::{Accepted, store_refusal},
    session::stopping,
    status::task_of,
};
use crate::{
    clock::timestamp,
    store::{
        StoreError,
        sessions::{SessionWrite, StatusOutcome, Stopped},
    },
};

/// Tries to store a goodbye.
const GOODBYES: u32 = 4;

/// The agent leaves: its tasks have stopped, and their last commits are stored.
pub(super) async fn say(sessions: &Sessions, accepted: &Accepted, goodbye: Goodbye) -> Result<(), Refusal> {
    // From here on nothing is answered; if what follows fails, silence ends the session.
    sessions.registry().detach(&accepted.agent, accepted.serial);
    let stopped: Vec<Stopped> = goodbye
        .tasks
        .iter()
        .filter_map(|t| {
            Some(Stopped {
                task: task_of(t.task.as_ref())?,
                fence: t.fence,
            })
        })
        .collect();
    tracing::info!(tasks = stopped.len(), "goodbye");
    let mut tries = 0;
    loop {
        tries += 1;
        match leave(sessions, accepted, &stopped).await {
            Ok(()) => return Ok(()),
            Err(error) if tries < GOODBYES => tracing::debug!(%error, "the goodbye is tried again"),
            Err(error) => return Err(store_refusal(&error)),
        }
        sleep(Duration::from_millis(250)).await;
    }
}

async fn leave(sessions: &Sessions, accepted: &Accepted, stopped: &[Stopped]) -> Result<(), StoreError> {
    let (agent, serial, store) = (&*accepted.agent, accepted.serial, sessions.store());
    let statuses = sessions.mirror().read(|s| {
        stopped
            .iter()
            .filter_map(|t| Some((t.task.clone(), s.statuses.get(&t.task)?.clone())))
            .collect()
    });
    let now = timestamp(sessions.clock().wall());
    let outcomes = store
        .write_stopped(agent, &accepted.instance_uid, now, &statuses, stopped)
        .await;
    for outcome in outcomes {
        if let StatusOutcome::Retry(error) = outcome {
            return Err(error);
        }
    }
    let Some((keys, instance)) = sessions
        .registry()
        .with(agent, serial, |a| (a.keys, a.instance.clone()))
    else {
        return Ok(());
    };
    match store.remove_session(agent, keys, &instance).await? {
        SessionWrite::Written(_) | SessionWrite::Conflict(_) => {
            sessions.registry().forget(agent, serial, stopping);
            Ok(())
        }
    }
}
