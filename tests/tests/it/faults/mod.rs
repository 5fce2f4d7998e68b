//! Servers, replicas and agents that die, freeze and come back under load. Times are printed, never asserted.
//!
//! `tests/run faults --seed N --rounds N` plays the schedule of a seed; `GANTRY_TESTS_LONG=1` takes as many rounds as a long run has.

mod agents;
mod broker;
mod mixed;
mod names;
mod replicas;
mod store;
mod surroundings;

use std::time::Duration;

use anyhow::{Result, ensure};
use gantry_tests::drill::Site;

/// For what has to wait for leases and back-off on a busy machine.
const LIMIT: Duration = Duration::from_secs(90);

/// Waits until an agent has a session, so that it can take tasks.
async fn has_session(site: &Site<'_>, agent: &str) -> Result<()> {
    let what = format!("the agent {agent} has a session");
    site.history
        .wait(LIMIT, &what, |view| {
            let session = view.session(agent)?;
            ensure!(
                session.is_some_and(|s| !s.silent),
                "it has none in which it is heard"
            );
            Ok(())
        })
        .await
}
