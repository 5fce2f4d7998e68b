//! Pauses between tries: doubling, with full jitter.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Where jitter comes from: seeded, so that a run can be repeated. Clones share it.
#[derive(Clone)]
pub(crate) struct Jitter(Arc<Mutex<StdRng>>);

impl Jitter {
    /// From this seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// Some time from zero up to `longest`.
    pub(crate) fn up_to(&self, longest: Duration) -> Duration {
        longest.mul_f64(self.0.lock().random::<f64>())
    }

    /// A random order of so many things.
    pub(crate) fn shuffle<T>(&self, things: &mut [T]) {
        let mut rng = self.0.lock();
        for i in (1..things.len()).rev() {
            things.swap(i, rng.random_range(0..=i));
        }
    }
}

/// First pause and longest pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pauses {
    /// Longest that the first pause can be.
    pub(crate) first: Duration,
    /// Longest that any pause can be.
    pub(crate) longest: Duration,
}

impl Pauses {
    /// The longest that the pause after so many failures in a row (from 1) can be.
    pub(crate) fn bound(&self, failures: u32) -> Duration {
        let factor = 1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.longest)
    }
}

/// Counts failures in a row and draws the pause after each.
pub(crate) struct Backoff {
    pauses: Pauses,
    jitter: Jitter,
    failures: u32,
}

impl Backoff {
    /// No failure yet.
    pub(crate) fn new(pauses: Pauses, jitter: Jitter) -> Self {
        Self {
            pauses,
            jitter,
            failures: 0,
        }
    }

    /// One more failure: how long to wait.
    pub(crate) fn fail(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.jitter.up_to(self.pauses.bound(self.failures))
    }

    /// It worked.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_double_up_to_the_longest() {
        let pauses = Pauses {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(60),
        };
        let bounds: Vec<_> = (1..=8).map(|n| pauses.bound(n).as_secs()).collect();
        assert_eq!(bounds, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pauses.bound(u32::MAX).as_secs(), 60);
    }

    #[test]
    fn the_same_seed_draws_the_same() {
        let pauses = Pauses {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(60),
        };
        let draw = |seed| {
            let mut backoff = Backoff::new(pauses, Jitter::new(seed));
            (0..20).map(|_| backoff.fail()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert!(draw(3).iter().all(|d| *d <= pauses.longest));
    }
}
