//! A test's own directory, and how a test is run.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use tokio::time::timeout;

use crate::env;

const SHUTDOWN: Duration = Duration::from_secs(5);

/// Runs a test: gives it a directory and a runtime, and ends it after `limit`.
///
/// If the test fails, in whichever way, its directory stays, with the logs and the data of its servers, and the failure
/// says where it is. If it passes the directory goes.
#[track_caller]
pub fn run(limit: Duration, test: impl AsyncFnOnce(&WorkDir) -> Result<()>) {
    let work = WorkDir::new();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("starting the runtime of a test");
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async { timeout(limit, test(&work)).await })
    }));
    // Tasks that the test left behind must not outlive it, nor may one that blocks hold it up.
    runtime.shutdown_timeout(SHUTDOWN);
    // The directory is kept, and named, when a panic drops it.
    match outcome {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => panic!("{error:?}"),
        Ok(Err(_)) => panic!("the test was not done after {limit:?}"),
        Err(panic) => resume_unwind(panic),
    }
}

/// A directory of one test. It is kept if the test panics.
#[derive(Debug)]
pub struct WorkDir {
    path: PathBuf,
}

impl WorkDir {
    fn new() -> Self {
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("unnamed").replace("::", ".");
        let logs = env::logs();
        fs::create_dir_all(&logs).unwrap_or_else(|error| panic!("making {}: {error}", logs.display()));
        // One that an earlier run by hand has left behind stays.
        for attempt in 1.. {
            let path = if attempt == 1 {
                logs.join(&test)
            } else {
                logs.join(format!("{test}-{attempt}"))
            };
            match fs::create_dir(&path) {
                Ok(()) => return Self { path },
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => panic!("making {}: {error}", path.display()),
            }
        }
        unreachable!("the loop has no end")
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A directory in it, made if it is not there.
    pub fn dir(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("what the servers of this test wrote: {}", self.path.display());
        } else if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("{} could not be removed: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// The directory of a test that ends with `outcome`, after the end of it.
    fn directory_after(outcome: impl AsyncFnOnce() -> Result<()>) -> PathBuf {
        let path = Mutex::new(PathBuf::new());
        let _ = catch_unwind(AssertUnwindSafe(|| {
            run(Duration::from_millis(200), async |work| {
                *path.lock().unwrap() = work.path().to_owned();
                fs::write(work.dir("a")?.join("log"), "text")?;
                outcome().await
            });
        }));
        path.into_inner().unwrap()
    }

    #[test]
    fn the_directory_of_a_test_that_passes_goes() {
        assert!(!directory_after(async || Ok(())).exists());
    }

    #[test]
    fn the_directory_of_a_test_that_fails_stays() {
        let failures = [
            directory_after(async || anyhow::bail!("an error")),
            directory_after(async || panic!("a panic")),
            directory_after(async || std::future::pending().await),
        ];
        for path in failures {
            assert_eq!(fs::read_to_string(path.join("a/log")).unwrap(), "text");
            fs::remove_dir_all(path).unwrap();
        }
    }
}
