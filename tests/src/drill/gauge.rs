//! How long nothing arrived at the sinks.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::lines;

const LOOK: Duration = Duration::from_millis(20);

/// Looks at the sizes of directories until it is read.
#[derive(Debug)]
pub struct Gauge {
    stop: watch::Sender<bool>,
    work: JoinHandle<Result<Duration>>,
}

impl Gauge {
    /// Begins to look at these directories.
    pub fn start(directories: Vec<PathBuf>) -> Self {
        let (stop, mut stopped) = watch::channel(false);
        let work = tokio::spawn(async move {
            let sizes = || {
                directories
                    .iter()
                    .map(|dir| lines::size(dir))
                    .collect::<Result<Vec<u64>>>()
            };
            let mut ticks = interval(LOOK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut last = sizes()?;
            let mut since = vec![Instant::now(); last.len()];
            let mut longest = Duration::ZERO;
            loop {
                let done = tokio::select! {
                    _ = stopped.wait_for(|stop| *stop) => true,
                    _ = ticks.tick() => false,
                };
                for (n, size) in sizes()?.into_iter().enumerate() {
                    longest = longest.max(since[n].elapsed());
                    if size != last[n] {
                        (last[n], since[n]) = (size, Instant::now());
                    }
                }
                if done {
                    return Ok(longest);
                }
            }
        });
        Self { stop, work }
    }

    /// The longest time in which one of the directories did not grow.
    pub async fn read(self) -> Result<Duration> {
        self.stop.send_replace(true);
        self.work.await.context("the gauge has panicked")?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::stays;

    #[tokio::test]
    async fn the_longest_pause_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let gauge = Gauge::start(vec![dir.path().to_owned()]);
        let mut n = 0;
        let quiet = Duration::from_millis(600);
        stays(Duration::from_millis(200), "it grows", async || {
            n += 1;
            std::fs::write(dir.path().join(n.to_string()), "x")
        })
        .await
        .unwrap();
        stays(quiet, "it does not grow", async || anyhow::Ok(()))
            .await
            .unwrap();
        assert!(gauge.read().await.unwrap() >= quiet);
    }
}
