//! What the stubborn connectors have in common: for tests only. One hook of theirs does not do what hooks do.

use std::{path::PathBuf, time::Duration};

use gantry_connector::{Config, ConfigSpec, ConnectorError, Finding, Param, Severity};

/// How often code that does not return looks whether it may.
const LOOK: Duration = Duration::from_millis(20);
/// Turns of a busy loop between two looks.
const TURNS: u32 = 100_000;

/// The parameters, where `hooks` are those that there are to choose from.
pub(super) fn spec<const N: usize>(hooks: [&str; N]) -> ConfigSpec {
    ConfigSpec::new()
        .param(
            Param::one_of("hook", hooks)
                .doc("The hook that does not do what hooks do.")
                .default("none"),
        )
        .param(
            Param::one_of("does", ["pends", "sleeps", "spins", "fails", "panics"])
                .doc("What it does instead: waits for ever, blocks its thread, keeps its thread busy, fails, or panics.")
                .default("pends"),
        )
        .param(Param::path("until").doc("As soon as there is a file of this name the hook does what hooks do."))
}

/// A hook, and what it does instead of its work.
#[derive(Clone, Debug, Default)]
pub(super) struct Stubborn {
    hook: String,
    does: Does,
    until: Option<PathBuf>,
}

/// What it does instead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Does {
    #[default]
    Pends,
    Sleeps,
    Spins,
    Fails,
    Panics,
}

impl Stubborn {
    pub(super) fn read(config: &Config) -> Result<Self, ConnectorError> {
        Ok(Self {
            hook: config.str("hook")?.to_owned(),
            does: match config.str("does")? {
                "sleeps" => Does::Sleeps,
                "spins" => Does::Spins,
                "fails" => Does::Fails,
                "panics" => Does::Panics,
                _ => Does::Pends,
            },
            until: config.opt_path("until")?,
        })
    }

    /// Called by each hook at its beginning: returns at once if it is not the one, or may go on.
    ///
    /// # Errors
    /// `Task`, if it shall fail.
    #[allow(
        clippy::disallowed_methods,
        reason = "that it blocks its thread is what it is for"
    )]
    pub(super) async fn reaches(&self, hook: &str) -> Result<(), ConnectorError> {
        if self.hook != hook {
            return Ok(());
        }
        match self.does {
            Does::Pends => {
                while !self.lets_go() {
                    tokio::time::sleep(LOOK).await;
                }
            }
            Does::Sleeps => {
                while !self.lets_go() {
                    std::thread::sleep(LOOK);
                }
            }
            Does::Spins => {
                while !self.lets_go() {
                    (0..TURNS).for_each(|_| std::hint::spin_loop());
                }
            }
            Does::Fails if !self.lets_go() => {
                return Err(
                    ConnectorError::task(format!("{hook} fails, as it is told")).fix("set hook to none")
                );
            }
            Does::Panics if !self.lets_go() => panic!("{hook} panics, as it is told"),
            Does::Fails | Does::Panics => {}
        }
        Ok(())
    }

    fn lets_go(&self) -> bool {
        self.until.as_ref().is_some_and(|path| path.exists())
    }
}

/// `validate` of both.
pub(super) async fn validate(config: &Config) -> Vec<Finding> {
    let looked = async { Stubborn::read(config)?.reaches("validate").await };
    let found = looked.await.err().map(|e| Finding {
        severity: Severity::Error,
        param: "hook".into(),
        message: e.chain(),
        fix: e.fix_text().unwrap_or_default().into(),
    });
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use gantry_connector::Domain;
    use serde_json::json;

    use super::*;

    fn stubborn(does: &str, until: &std::path::Path) -> Stubborn {
        let given = json!({ "hook": "poll", "does": does, "until": until });
        let spec = spec(["none", "poll"]);
        Stubborn::read(&spec.check(given.as_object().unwrap()).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn only_the_chosen_hook_is_stubborn_and_only_until_the_file_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let until = dir.path().join("go");
        for does in ["pends", "sleeps", "spins", "fails", "panics"] {
            stubborn(does, &until).reaches("open").await.unwrap();
        }
        assert!(stubborn("pends", &until).reaches("poll").now_or_never().is_none());
        let failed = stubborn("fails", &until).reaches("poll").await.unwrap_err();
        assert_eq!(failed.domain(), Domain::Task);
        let panics = async { stubborn("panics", &until).reaches("poll").await };
        let panic = std::panic::AssertUnwindSafe(panics).catch_unwind().await;
        assert!(panic.is_err());

        // Code on threads of its own lets go of them when the file appears.
        let threads = ["sleeps", "spins"].map(|does| {
            let stubborn = stubborn(does, &until);
            std::thread::spawn(move || {
                stubborn
                    .reaches("poll")
                    .now_or_never()
                    .expect("it holds its thread")
            })
        });
        let pending = stubborn("pends", &until);
        let mut pending = std::pin::pin!(pending.reaches("poll"));
        assert!(futures::poll!(pending.as_mut()).is_pending());
        assert!(threads.iter().all(|thread| !thread.is_finished()));
        std::fs::write(&until, "").unwrap();
        for thread in threads {
            thread.join().unwrap().unwrap();
        }
        pending.await.unwrap();
        for does in ["pends", "sleeps", "spins", "fails", "panics"] {
            stubborn(does, &until).reaches("poll").await.unwrap();
        }
    }
}
