//! Offsets as people alter them: before a first run, back, to a time, by file, and undone. The commands are those of docs/offsets.md.

mod grpc;
mod many;
mod retained;
mod sinks;
mod sources;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gantry_client::Client;
use gantry_client::v1::ConnectorOffsets;
use gantry_client::v1::connector::State;
use gantry_tests::connectors::{bytes_read, reaches};
use gantry_tests::lines::{self, ascii};
use gantry_tests::wait::{eventually, stays};
use gantry_tests::{Cli, Gantry, WorkDir};
use serde_json::{Value, json};

const TEST: Duration = Duration::from_secs(180);
const SOON: Duration = Duration::from_secs(60);
/// Long enough for records that should not come to come.
const QUIET: Duration = Duration::from_secs(2);

/// `gantry dev`, a file of ten lines, and a topic of one queue.
struct Site<'a> {
    work: &'a WorkDir,
    dev: Gantry,
    client: Client,
    cli: Cli,
    input: PathBuf,
    output: PathBuf,
}

impl<'a> Site<'a> {
    async fn start(work: &'a WorkDir) -> Result<Self> {
        Self::start_with(work, &[]).await
    }

    async fn start_with(work: &'a WorkDir, more: &[&str]) -> Result<Self> {
        let data = work.dir("data")?.display().to_string();
        let args = ["dev", "--listen", "127.0.0.1:0", "--data-dir", &data];
        let dev = Gantry::start(work, "dev", &[&args[..], more].concat()).await?;
        let client = Client::connect(dev.endpoint()).await?;
        let cli = Cli::new(dev.endpoint(), work);
        let site = Self {
            work,
            client,
            cli,
            dev,
            input: work.dir("in")?.canonicalize()?.join("lines.txt"),
            output: work.dir("out")?.canonicalize()?,
        };
        lines::append(&site.input, 0..10, ascii)?;
        Ok(site)
    }

    fn source(&self, name: &str, target: &str) -> Value {
        json!({
            "name": name,
            "plugin": "file-source",
            "topic": "lines",
            "target_state": target,
            "topic_create": { "queues": 1 },
            "config": { "paths": [self.input.display().to_string()] },
        })
    }

    fn sink(&self, name: &str, target: &str) -> Value {
        json!({
            "name": name,
            "plugin": "file-sink",
            "topic": "lines",
            "target_state": target,
            "topic_create": { "queues": 1 },
            "config": { "path": self.output.join("{queue}.txt").display().to_string() },
        })
    }

    /// `gantry connectors create -f FILE MORE`.
    async fn create(&self, definition: &Value, more: &[&str]) -> Result<()> {
        let file = self.work.path().join("definition.json");
        std::fs::write(&file, definition.to_string())?;
        let file = file.display().to_string();
        let args = ["connectors", "create", "-f", &file];
        self.cli.ok(&[&args[..], more].concat()).await?;
        Ok(())
    }

    /// `gantry connectors WORDS`, split at spaces.
    async fn connectors(&self, words: &str) -> Result<String> {
        let args: Vec<&str> = ["connectors"].into_iter().chain(words.split(' ')).collect();
        self.cli.ok(&args).await
    }

    /// `gantry connectors WORDS` is refused with exit code 1.
    async fn refused(&self, words: &str, mentions: &[&str]) -> Result<()> {
        let args: Vec<&str> = ["connectors"].into_iter().chain(words.split(' ')).collect();
        self.cli.refused(1, &args, mentions).await?;
        Ok(())
    }

    /// Appends lines, and waits until the source has committed them.
    async fn append(&self, source: &str, numbers: std::ops::Range<u64>) -> Result<()> {
        let length = lines::append(&self.input, numbers, ascii)?;
        self.read_to(source, length).await
    }

    /// Waits until the source has committed so many bytes.
    async fn read_to(&self, source: &str, length: u64) -> Result<()> {
        eventually(SOON, "the source has committed what is there", async || {
            let byte = bytes_read(&self.client, source).await?;
            ensure!(byte == length, "it is at byte {byte} of {length}");
            Ok(())
        })
        .await
    }

    /// Waits until exactly these lines are at the sink, and makes sure that no more come.
    async fn arrive(&self, numbers: impl IntoIterator<Item = u64>) -> Result<()> {
        let mut wanted: Vec<u64> = numbers.into_iter().collect();
        wanted.sort_unstable();
        let look = async || {
            let mut there = Vec::new();
            for (_, lines) in lines::read_dir(&self.output)? {
                for line in lines {
                    there.push(lines::number(&line).context("a line that is no line of these")?);
                }
            }
            there.sort_unstable();
            ensure!(there == wanted, "{there:?} are there, and should be {wanted:?}");
            anyhow::Ok(())
        };
        eventually(SOON, "exactly the lines that should are there", look).await?;
        stays(QUIET, "no more lines come", look).await
    }

    async fn stopped(&self, name: &str) -> Result<()> {
        reaches(&self.client, name, State::Stopped, SOON).await?;
        Ok(())
    }

    async fn offsets(&self, name: &str) -> Result<ConnectorOffsets> {
        Ok(self.client.offsets(name).await?)
    }
}

/// Length of the first lines of the file.
fn length_of(count: u64) -> u64 {
    (0..count).map(|n| ascii(n).len() as u64 + 1).sum()
}
