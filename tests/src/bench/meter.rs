//! Follows a number that grows to a known end.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use tokio::time::{Instant, sleep};

/// So long without anything new, and the run has failed.
const PATIENCE: Duration = Duration::from_secs(60);
const SHORTEST: Duration = Duration::from_millis(2);
const FIRST: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_millis(100);

/// How it grew.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Growth {
    /// When it was followed from.
    start: Instant,
    /// When something was seen first, and how much.
    first: (Instant, u64),
    /// When all was seen.
    end: (Instant, u64),
}

impl Growth {
    /// A second, between the first and the last look that saw something new; so the start is not part of it.
    pub(crate) fn rate(&self) -> f64 {
        let (first, end) = (self.first, self.end);
        if first.1 < end.1 {
            (end.1 - first.1) as f64 / (end.0 - first.0).as_secs_f64()
        } else {
            end.1 as f64 / self.whole().as_secs_f64()
        }
    }

    /// From where it was followed to the end.
    pub(crate) fn whole(&self) -> Duration {
        self.end.0 - self.start
    }

    /// Until something was seen.
    pub(crate) fn until_first(&self) -> Duration {
        self.first.0 - self.start
    }
}

/// Looks at `count` until it is `total`. More than that is an error.
///
/// Looking takes little: rarely in the middle, often at the end.
pub(crate) async fn follow(
    start: Instant,
    total: u64,
    mut count: impl AsyncFnMut() -> Result<u64>,
) -> Result<Growth> {
    let mut first: Option<(Instant, u64)> = None;
    let mut last = (Instant::now(), 0);
    loop {
        let seen = count().await?;
        let now = Instant::now();
        ensure!(seen <= total, "{seen} are there, and only {total} were sent");
        if seen > last.1 {
            last = (now, seen);
        } else if last.0 + PATIENCE < now {
            bail!("nothing has come for {PATIENCE:?} after {seen} of {total}");
        }
        let first = match first {
            None if seen == 0 => {
                sleep(FIRST).await;
                continue;
            }
            None => *first.insert(last),
            Some(first) => first,
        };
        if seen == total {
            return Ok(Growth {
                start,
                first,
                end: last,
            });
        }
        sleep(pause(now - start, seen, total)).await;
    }
}

/// A quarter of what the rest will take at the pace so far.
fn pause(elapsed: Duration, seen: u64, total: u64) -> Duration {
    let rest = (total - seen) as f64 / seen as f64;
    (elapsed.mul_f64(rest) / 4).clamp(SHORTEST, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_start_is_not_part_of_the_rate() {
        let start = Instant::now();
        let count = async || Ok((start.elapsed().as_millis() as u64).saturating_sub(500).min(1000));
        let growth = follow(start, 1000, count).await.unwrap();
        assert!((990.0..1010.0).contains(&growth.rate()), "{growth:?}");
        assert!(
            growth.whole() >= Duration::from_millis(1500)
                && growth.until_first() >= Duration::from_millis(500)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn too_many_and_too_few_are_errors() {
        let start = Instant::now();
        assert!(follow(start, 10, async || Ok(11)).await.is_err());
        assert!(follow(start, 10, async || Ok(9)).await.is_err());
        assert_eq!(follow(start, 10, async || Ok(10)).await.unwrap().end.1, 10);
    }
}
