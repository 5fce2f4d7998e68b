//! Client commands, as people and scripts call them.

use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context, Result, ensure};

use crate::gantry;
use crate::work::WorkDir;

/// Calls `gantry` against one control plane.
#[derive(Debug, Clone)]
pub struct Cli {
    endpoint: String,
    dir: PathBuf,
}

/// How a command ended, and what it printed.
#[derive(Debug)]
pub struct Answer {
    /// The exit code; -1: a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    command: String,
}

impl Cli {
    /// Calls the control plane at `endpoint`, in the test's directory.
    pub fn new(endpoint: &str, work: &WorkDir) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            dir: work.path().to_owned(),
        }
    }

    /// Runs `gantry ARGS`, whatever its exit code.
    pub async fn call(&self, args: &[&str]) -> Result<Answer> {
        self.call_with(args, &[]).await
    }

    /// Runs `gantry ARGS` with more variables, whatever its exit code.
    pub async fn call_with(&self, args: &[&str], variables: &[(&str, &str)]) -> Result<Answer> {
        let mut all = vec![("GANTRY_ENDPOINT", self.endpoint.as_str())];
        all.extend(variables);
        call(args, &all, &self.dir).await
    }

    /// Runs a command that succeeds, and gives what it printed.
    pub async fn ok(&self, args: &[&str]) -> Result<String> {
        self.call(args).await?.succeeded()
    }

    /// Runs a command that is refused with this exit code, in three lines which contain all of `mentions`.
    pub async fn refused(&self, code: i32, args: &[&str], mentions: &[&str]) -> Result<Answer> {
        let answer = self.call(args).await?;
        answer.refused(code, mentions)?;
        Ok(answer)
    }
}

/// Runs `gantry ARGS` with these variables in the directory `dir`, whatever its exit code.
pub async fn call(args: &[&str], variables: &[(&str, &str)], dir: &Path) -> Result<Answer> {
    let Output {
        status,
        stdout,
        stderr,
    } = gantry::run(args, variables, dir).await?;
    Ok(Answer {
        code: status.code().unwrap_or(-1),
        stdout: String::from_utf8(stdout).context("what a command prints is UTF-8")?,
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
        command: format!("gantry {}", args.join(" ")),
    })
}

impl Answer {
    /// What it printed, if it succeeded.
    pub fn succeeded(self) -> Result<String> {
        ensure!(self.code == 0, "{}", self.shown());
        Ok(self.stdout)
    }

    /// It ended with this code, and said in three lines what is wrong, where, and what to do; these contain `mentions`.
    pub fn refused(&self, code: i32, mentions: &[&str]) -> Result<()> {
        ensure!(
            self.code == code,
            "exit code {code} was expected: {}",
            self.shown()
        );
        self.three_lines()?;
        for mention in mentions {
            ensure!(
                self.stderr.contains(mention),
                "it does not mention {mention:?}: {}",
                self.shown()
            );
        }
        Ok(())
    }

    /// The lines that begin with `at:`.
    pub fn places(&self) -> Vec<&str> {
        self.stderr
            .lines()
            .filter_map(|line| line.strip_prefix("   at: "))
            .collect()
    }

    /// The error is what is wrong, one or more places, and what to do, each on a line of its own, and the last that is printed.
    fn three_lines(&self) -> Result<()> {
        let lines: Vec<&str> = self.stderr.lines().collect();
        let begin = lines.iter().position(|line| line.starts_with("error: "));
        let begin = begin.with_context(|| format!("no line begins with `error: `: {}", self.shown()))?;
        let (last, places) = lines[begin + 1..]
            .split_last()
            .with_context(|| format!("an error of one line: {}", self.shown()))?;
        ensure!(
            !places.is_empty() && places.iter().all(|line| line.starts_with("   at: ")),
            "no line says where (`   at: `): {}",
            self.shown()
        );
        ensure!(
            last.starts_with("  fix: "),
            "no line says what to do (`  fix: `): {}",
            self.shown()
        );
        Ok(())
    }

    /// For failures.
    pub fn shown(&self) -> String {
        format!(
            "`{}` ended with {}\n{}{}",
            self.command, self.code, self.stdout, self.stderr
        )
    }
}
