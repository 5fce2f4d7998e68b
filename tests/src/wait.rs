//! Waiting for a state of affairs, with a bound.

use std::fmt::Display;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep, timeout_at};

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// As [`eventually`], but looks every few milliseconds: for what passes quickly.
pub async fn promptly<T, E: Display>(
    limit: Duration,
    what: &str,
    check: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T> {
    poll(limit, what, FIRST_PAUSE, check).await
}

/// Makes sure for `period` that `check` answers `Ok` at every look: that nothing happens.
pub async fn stays<E: Display>(
    period: Duration,
    what: &str,
    mut check: impl AsyncFnMut() -> Result<(), E>,
) -> Result<()> {
    let end = Instant::now() + period;
    while Instant::now() < end {
        if let Err(error) = check().await {
            bail!("it did not last for {period:?} that {what}: {error:#}");
        }
        sleep(LONGEST_PAUSE).await;
    }
    Ok(())
}

/// Asks `check` again and again until it answers `Ok`, at most for `limit`.
///
/// `what` is what is waited for: "the connector runs". `check` looks at a level ("how many are there?") and not at an
/// edge ("did one arrive?"), so that nothing is missed between two looks. Its `Err` says what it saw instead, and the
/// last one is part of the failure. A single look that hangs is cut off at the limit.
pub async fn eventually<T, E: Display>(
    limit: Duration,
    what: &str,
    check: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T> {
    poll(limit, what, LONGEST_PAUSE, check).await
}

async fn poll<T, E: Display>(
    limit: Duration,
    what: &str,
    longest_pause: Duration,
    mut check: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    let mut pause = FIRST_PAUSE;
    let mut seen = String::from("nothing: the first look took too long");
    loop {
        match timeout_at(deadline, check()).await {
            Ok(Ok(value)) => return Ok(value),
            // `:#` shows the causes of an `anyhow::Error`.
            Ok(Err(error)) => seen = format!("{error:#}"),
            Err(_) => bail!("waited {limit:?} in vain until {what}; seen before a look that hung: {seen}"),
        }
        if Instant::now() + pause >= deadline {
            bail!("waited {limit:?} in vain until {what}; last seen: {seen}");
        }
        sleep(pause).await;
        pause = (pause * 2).min(longest_pause);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn looks_again_until_it_is_so() {
        let mut looks = 0;
        let check = async || {
            looks += 1;
            if looks < 4 { Err("not yet") } else { Ok(looks) }
        };
        assert_eq!(
            eventually(LIMIT, "the fourth look comes", check).await.unwrap(),
            4
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_says_what_was_seen_last() {
        let mut looks = 0;
        let check = async || {
            looks += 1;
            Err::<(), _>(format!("look {looks}"))
        };
        let error = eventually(LIMIT, "it is never so", check)
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("waited 5s in vain until it is never so; last seen: look "),
            "{error}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_hangs_is_cut_off() {
        let check = async || std::future::pending::<Result<(), Infallible>>().await;
        let error = eventually(LIMIT, "a hanging look answers", check)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("the first look took too long"), "{error}");
    }
}
