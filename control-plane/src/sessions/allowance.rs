//! Something that may happen a few times in a row, but in the long run only so often. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// So many at once, and one more for every interval.
#[derive(Debug, Clone)]
pub(super) struct Allowance {
    most: u32,
    every: Duration,
    saved: u32,
    /// When the last one was earned.
    earned: Instant,
}

impl Allowance {
    /// A full one.
    pub(super) fn new(most: u32, every: Duration, now: Instant) -> Self {
        Self {
            most,
            every,
            saved: most,
            earned: now,
        }
    }

    /// When the next one is free: `now`, or the moment at which it is earned.
    pub(super) fn free_at(&self, now: Instant) -> Instant {
        if self.saved > 0 {
            now
        } else {
            self.earned + self.every
        }
    }

    /// Uses one up.
    pub(super) fn take(&mut self, now: Instant) {
        while self.saved < self.most && now >= self.earned + self.every {
            self.saved += 1;
            self.earned += self.every;
        }
        if self.saved == self.most {
            self.earned = now;
        }
        self.saved = self.saved.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_at_once_then_one_an_interval_and_no_more_are_saved_than_at_first() {
        let (start, every) = (Instant::now(), Duration::from_secs(10));
        let mut allowance = Allowance::new(2, every, start);
        for _ in 0..2 {
            assert_eq!(allowance.free_at(start), start);
            allowance.take(start);
        }
        assert_eq!(allowance.free_at(start), start + every);
        allowance.take(start + every);
        assert_eq!(allowance.free_at(start + every), start + every * 2);
        let later = start + every * 100;
        for _ in 0..2 {
            assert!(allowance.free_at(later) <= later);
            allowance.take(later);
        }
        assert_eq!(allowance.free_at(later), later + every);
    }
}
