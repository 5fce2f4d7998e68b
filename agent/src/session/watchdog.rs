//! Ends tasks before somebody else may run them.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{
    lease::{Lease, Standing},
    supervisor::Supervisor,
};

/// Looks at the lease often: timers stand still while the machine is suspended, the lease does not.
const TICK: Duration = Duration::from_millis(100);

/// Watches the lease for as long as the agent runs.
pub(crate) async fn watch_lease(lease: Arc<Lease>, supervisor: Supervisor) {
    // The renewal that ran out, and since when that is known: the lease may have been open for less than a tick.
    let mut cut_off: Option<(Duration, Instant)> = None;
    let mut ended = false;
    let mut held = false;
    loop {
        sleep(TICK).await;
        match lease.standing() {
            Standing::Open => {
                if !held || cut_off.is_some() {
                    supervisor.settle().await;
                }
                (held, cut_off, ended) = (true, None, false);
            }
            standing => {
                let Some(renewed) = lease.renewed() else { continue };
                let since = match cut_off {
                    Some((of, since)) if of == renewed => since,
                    _ => {
                        tracing::warn!(
                            "no heartbeat was answered for two thirds of the lease: ending all tasks"
                        );
                        supervisor.cut_off().await;
                        ended = false;
                        cut_off.insert((renewed, Instant::now())).1
                    }
                };
                // After a freeze both are noticed at once: what was inside an operation still gets the last third to end.
                let had_time = since.elapsed() >= lease.length() / 3;
                if standing == Standing::Ended && had_time && !ended {
                    supervisor.lease_ended().await;
                    ended = true;
                }
            }
        }
    }
}
