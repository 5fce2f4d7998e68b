//! The pages of the documentation, done as they are written.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::env;
use crate::process::Process;
use crate::work::WorkDir;

const COMMAND: Duration = Duration::from_secs(90);
const START: Duration = Duration::from_secs(60);

/// A page whose blocks marked `sh` are done one after the other by the shell, in one directory.
///
/// A block that starts `gantry server`, `gantry agent` or `gantry dev` goes on running; the next one is done when that serves.
#[derive(Debug)]
pub struct Guide<'a> {
    work: &'a WorkDir,
    page: String,
    dir: PathBuf,
    path: String,
    variables: Vec<(String, String)>,
    running: Vec<Process>,
    answers: Vec<(String, String)>,
}

impl<'a> Guide<'a> {
    /// The page `docs/NAME`, with each of `other` in place of what the page has for it: addresses that are free here.
    pub fn open(work: &'a WorkDir, name: &str, other: &[(&str, &str)]) -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
        let mut page = fs::read_to_string(&root).with_context(|| format!("reading {}", root.display()))?;
        for (from, to) in other {
            ensure!(page.contains(from), "{name} does not mention {from}");
            page = page.replace(from, to);
        }
        let tools = work.dir("tools")?;
        symlink(env::gantry()?, tools.join("gantry"))?;
        symlink(env::tool(env::GRPCURL_BIN)?, tools.join("grpcurl"))?;
        Ok(Self {
            work,
            page,
            dir: work.dir("guide")?,
            path: env::search_path(&tools)?,
            variables: Vec::new(),
            running: Vec::new(),
            answers: Vec::new(),
        })
    }

    /// The directory that the blocks work in.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Sets a variable for all blocks.
    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// Does all blocks. Each has to succeed.
    pub async fn follow(&mut self) -> Result<()> {
        let blocks = blocks(&self.page);
        ensure!(!blocks.is_empty(), "the page has no block marked sh");
        for (number, block) in blocks.into_iter().enumerate() {
            let role = ["server", "agent", "dev"]
                .into_iter()
                .find(|role| block.starts_with(&format!("gantry {role} ")));
            match role {
                Some(role) => self.start(&format!("{role}-{number}"), role, &block).await?,
                None => {
                    let answer = self.run(&block).await?;
                    self.answers.push((block, answer));
                }
            }
        }
        Ok(())
    }

    /// What the one block that contains `mention` printed.
    pub fn answer(&self, mention: &str) -> Result<&str> {
        let mut found = self.answers.iter().filter(|(block, _)| block.contains(mention));
        let (_, answer) = found
            .next()
            .with_context(|| format!("no block mentions {mention:?}"))?;
        ensure!(found.next().is_none(), "several blocks mention {mention:?}");
        Ok(answer)
    }

    fn command(&self, script: &str) -> Command {
        let mut command = Command::new("sh");
        for name in env::gantry_settings() {
            command.env_remove(name);
        }
        command
            .args(["-euc", script])
            .current_dir(&self.dir)
            .env("PATH", &self.path)
            .envs(self.variables.iter().cloned())
            .stdin(Stdio::null());
        command
    }

    async fn start(&mut self, name: &str, role: &str, block: &str) -> Result<()> {
        let process = Process::start(name, self.work.path(), self.command(&format!("exec {block}")))?;
        let sign = if role == "agent" {
            "session opened"
        } else {
            "ready on http"
        };
        process
            .wait_for_line(START, sign, |line| line.contains(sign))
            .await?;
        self.running.push(process);
        Ok(())
    }

    async fn run(&self, block: &str) -> Result<String> {
        let mut command = tokio::process::Command::from(self.command(block));
        let output = command.kill_on_drop(true).output();
        let output = tokio::time::timeout(COMMAND, output)
            .await
            .with_context(|| format!("not done within {COMMAND:?}:\n{block}"))??;
        let (said, errors) = (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        );
        ensure!(output.status.success(), "this failed:\n{block}\n{said}{errors}");
        Ok(said + &errors)
    }
}

/// What stands between lines "```sh" and "```".
fn blocks(page: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut block: Option<String> = None;
    for line in page.lines() {
        match (&mut block, line) {
            (None, "```sh") => block = Some(String::new()),
            (Some(_), "```") => blocks.extend(block.take()),
            (Some(block), line) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, _) => {}
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_blocks_for_the_shell_are_done() {
        let page = "Text\n```sh\na \\\n  b\nc\n```\n```\nnot this\n```\n```sh\nd\n```\n";
        assert_eq!(blocks(page), ["a \\\n  b\nc\n", "d\n"]);
    }
}
