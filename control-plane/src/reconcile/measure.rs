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
            // An absence begins no earlier than the look that found it, and is sure only up to when the mirror was
            // fresh. The older `ahead` is the lower one, so a suspension in between never counts as time in which
            // sessions were looked for.
            let seen = millis(self.clock.now());
            let sure = millis(fresh_at.saturating_duration_since(self.start) + self.ahead);
            self.absence.observe(snapshot, seen, true);
            self.absence.fill(&mut facts, sure);
            facts.brake = self.brake.observe(snapshot, seen).cloned();
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        clock::TokioClock,
        domain::{TaskId, Uid, Versioned, stored},
        plan::Defaults,
    };

    const LEASE: Duration = Duration::from_secs(9);

    fn settings() -> Settings {
        Settings {
            lease: LEASE,
            defaults: Defaults::default(),
            max_moves: 1,
            debounce: Duration::ZERO,
            debounce_max: Duration::ZERO,
            concurrency: 1,
        }
    }

    /// A task is held by an instance that no session names.
    fn held() -> Snapshot {
        let grant = stored::Grant {
            agent: "a".into(),
            instance_uid: "a1".into(),
            ..Default::default()
        };
        let task = TaskId {
            uid: Uid("u".into()),
            n: 0,
        };
        let grant = Versioned {
            mod_revision: 1,
            create_revision: 1,
            value: Arc::new(grant),
        };
        Snapshot {
            grants: BTreeMap::from([(task, grant)]),
            ..Snapshot::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_absence_begins_when_it_is_seen_and_lasts_until_the_mirror_was_fresh() {
        let mut measure = Measure::new(Arc::new(TokioClock::default()));
        let absent = |measure: &mut Measure, stale: Duration| {
            let now = Instant::now();
            let connection = Connection {
                cuts: 0,
                since: Some(now - stale),
                fresh_at: Some(now - stale),
            };
            let facts = measure.facts(&held(), connection, &settings());
            facts.absent_ms.get("a1").copied()
        };
        tokio::time::advance(Duration::from_secs(60)).await;
        // The session may have gone at this very moment, however old the last comparison with the store is.
        let stale = Duration::from_millis(900);
        assert_eq!(absent(&mut measure, stale), Some(0));
        tokio::time::advance(LEASE).await;
        assert_eq!(absent(&mut measure, stale), Some(8_100));
        tokio::time::advance(stale).await;
        assert_eq!(absent(&mut measure, stale), Some(9_000));
    }
}
