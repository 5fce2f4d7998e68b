//! Removes offsets that were kept of deleted connectors, when their time is over.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::Parts;
use crate::clock::timestamp;

/// How often it is looked for them.
const EVERY: Duration = Duration::from_secs(3600);

/// Sweeps while this replica leads.
pub(super) async fn sweep(parts: &Parts) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = timestamp(parts.clock.wall()).seconds;
        match parts.store.sweep_retained(now).await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(connectors = removed, "kept offsets have expired"),
            Err(error) => tracing::debug!(%error, "expired offsets could not be removed"),
        }
    }
}
