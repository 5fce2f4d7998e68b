//! What the leader measures itself: for how long nobody has named an instance, and how many agents were lost at once.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::Settings;
use crate::{
    clock::Clock,
    domain::Snapshot,
    plan::{Absence, Brake, Facts},
    store::Connection,
};

/// Measures from the election, or from the first successful read after a cut.
pub(super) struct Measure {
    clock: Arc<dyn Clock>,
    absence: Absence,
    brake: Brake,
    cuts: Option<u64>,
    start: Instant,
    /// By how much the clock that counts suspension was ahead of tokio's when it was last looked at.
    ahead: Duration,
}

impl Measure {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let start = Instant::now();
        let ahead = clock.now();
        Self {
            clock,
            absence: Absence::new(),
            brake: Brake::new(),
            cuts: None,
            start,
            ahead,
        }
    }

    /// What is known for a plan on `snapshot`, which was taken while the connection was `connection`.
    pub(super) fn facts(
        &mut self,
        snapshot: &Snapshot,
        connection: Connection,
        settings: &Settings,
    ) -> Facts {
        let mut facts = Facts {
            lease_ms: millis(settings.lease),
            max_moves: settings.max_moves,
            defaults: settings.defaults.clone(),
            ..Facts::default()
        };
        let cut = self
            .cuts
            .replace(connection.cuts)
            .is_some_and(|before| before != connection.cuts);
        if cut || connection.since.is_none() {
            self.absence.observe(snapshot, 0, false);
            self.brake = Brake::new();
        }
        if let Some(fresh_at) = connection.fresh_at {
            // Absence is sure only up to when the mirror was fresh. The older figure is the lower one, so a suspension
            // in between never counts as time in which sessions were looked for.
            let now = millis(fresh_at.saturating_duration_since(self.start) + self.ahead);
            self.absence.observe(snapshot, now, true);
            self.absence.fill(&mut facts, now);
            facts.brake = self.brake.observe(snapshot, now).cloned();
        }
        self.ahead = self.clock.now().saturating_sub(self.start.elapsed());
        facts
    }

    pub(super) fn release_brake(&mut self) -> bool {
        self.brake.release()
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
