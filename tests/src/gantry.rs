//! The command `gantry`, as its users run it.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::env;
use crate::process::Process;
use crate::work::WorkDir;

const START: Duration = Duration::from_secs(60);
const COMMAND: Duration = Duration::from_secs(90);

/// A long-running `gantry`: `dev`, `server` or `agent`.
///
/// None of the harness's own variables reach it: `GANTRY_` also begins the names of its settings.
#[derive(Debug)]
pub struct Gantry {
    process: Process,
    endpoint: String,
}

impl Gantry {
    /// Starts `gantry ARGS`, and waits until it prints `ready on http://...`.
    ///
    /// `name` is what logs call it. Give it `--listen 127.0.0.1:0`, and the address is in [`Gantry::endpoint`].
    pub async fn start<A: AsRef<std::ffi::OsStr>>(work: &WorkDir, name: &str, args: &[A]) -> Result<Self> {
        Self::ready(Self::spawn(work, name, args)?).await
    }

    /// Waits until a `gantry` that was spawned prints `ready on http://...`.
    pub async fn ready(process: Process) -> Result<Self> {
        let line = process
            .wait_for_line(START, "`ready on http...`", |line| endpoint(line).is_some())
            .await?;
        let endpoint = endpoint(&line).context("the line was chosen for its address")?;
        Ok(Self { process, endpoint })
    }

    /// Starts `gantry ARGS` and waits for nothing: for an agent, which serves no one and which the control plane lists
    /// once it is there, and for a start that is to fail.
    pub fn spawn<A: AsRef<std::ffi::OsStr>>(work: &WorkDir, name: &str, args: &[A]) -> Result<Process> {
        let mut command = command()?;
        command.args(args);
        Process::start(name, work.path(), command)
    }

    /// As [`Gantry::spawn`], with a standard error whose reader has gone.
    pub fn unheard<A: AsRef<std::ffi::OsStr>>(work: &WorkDir, name: &str, args: &[A]) -> Result<Process> {
        let mut command = Command::new("bash");
        for name in env::gantry_settings() {
            command.env_remove(name);
        }
        command
            .args(["-c", "exec \"$0\" \"$@\" 2> >(true)"])
            .arg(env::gantry()?)
            .args(args);
        Process::start(name, work.path(), command)
    }

    /// Where it serves users: `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The process, to be signalled or killed.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Runs a client command, `gantry ARGS --endpoint ...`, against it, whatever its exit code.
    pub async fn run<A: AsRef<std::ffi::OsStr>>(&self, args: &[A]) -> Result<Output> {
        run(args, &[("GANTRY_ENDPOINT", &self.endpoint)], Path::new(".")).await
    }
}

/// Runs `gantry ARGS` to its end in the directory `dir`, with these variables and no other that begins with `GANTRY_`.
pub async fn run<A: AsRef<std::ffi::OsStr>>(
    args: &[A],
    variables: &[(&str, &str)],
    dir: &Path,
) -> Result<Output> {
    let mut command = command()?;
    command
        .args(args)
        .envs(variables.iter().copied())
        .current_dir(dir)
        .stdin(Stdio::null());
    let mut command = tokio::process::Command::from(command);
    let output = command.kill_on_drop(true).output();
    tokio::time::timeout(COMMAND, output)
        .await
        .with_context(|| format!("`gantry` did not end within {COMMAND:?}: {:?}", command.as_std()))?
        .with_context(|| format!("starting {:?}", command.as_std()))
}

fn command() -> Result<Command> {
    let mut command = Command::new(env::gantry()?);
    for name in env::gantry_settings() {
        command.env_remove(name);
    }
    Ok(command)
}

/// The address in a line such as `ready on http://127.0.0.1:7420`, whatever the log format puts around it.
fn endpoint(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("ready on ")?;
    let end = rest
        .find(|c: char| c.is_whitespace() || matches!(c, '"' | ',' | '\u{1b}'))
        .unwrap_or(rest.len());
    let address = &rest[..end];
    address.starts_with("http").then(|| address.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_every_log_format() {
        let address = Some("http://127.0.0.1:7420".to_owned());
        assert_eq!(endpoint("ready on http://127.0.0.1:7420"), address);
        assert_eq!(
            endpoint("2026-11-21T10:00:00Z  INFO ready on http://127.0.0.1:7420 version=1"),
            address
        );
        assert_eq!(
            endpoint(r#"{"message":"ready on http://127.0.0.1:7420","level":"INFO"}"#),
            address
        );
        assert_eq!(endpoint("getting ready on time"), None);
    }
}
