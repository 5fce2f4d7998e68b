//! Fakes for the tests of this crate.

pub(crate) mod control;
pub(crate) mod plugins;
pub(crate) mod rig;
pub(crate) mod store;

use std::time::Duration;

/// Waits until the condition holds: looks again and again, for a bounded time.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    for step in 0..20_000u64 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(step.min(50))).await;
    }
    panic!("never happened: {what}");
}
