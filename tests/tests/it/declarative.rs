//! Definitions as text: their history, and files that say what shall be. The commands are those of docs/definitions.md.

mod apply;
mod grpc;
mod history;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gantry_client::Client;
use gantry_client::v1::Connector;
use gantry_tests::{Cli, Gantry, WorkDir};
use serde_json::{Value, json};

const TEST: Duration = Duration::from_secs(150);
const SOON: Duration = Duration::from_secs(45);

/// `gantry dev`, asked by command and by client.
struct Site<'a> {
    work: &'a WorkDir,
    dev: Gantry,
    client: Client,
    cli: Cli,
}

impl<'a> Site<'a> {
    async fn start(work: &'a WorkDir) -> Result<Self> {
        let data = work.dir("data")?.display().to_string();
        let args = ["dev", "--listen", "127.0.0.1:0", "--data-dir", &data];
        let dev = Gantry::start(work, "dev", &args).await?;
        let client = Client::connect(dev.endpoint()).await?;
        let cli = Cli::new(dev.endpoint(), work);
        Ok(Self {
            work,
            dev,
            client,
            cli,
        })
    }

    /// A source of files that nobody writes, as its definition file has it.
    fn source(&self, name: &str) -> Value {
        let pattern = self.work.path().join(name).join("*.log");
        json!({
            "name": name,
            "plugin": "file-source",
            "topic": "lines",
            "target_state": "STOPPED",
            "topic_create": { "queues": 1 },
            "config": { "paths": [pattern.display().to_string()] },
        })
    }

    async fn create(&self, definition: &Value) -> Result<Connector> {
        let file = self.work.path().join("definition.json");
        std::fs::write(&file, definition.to_string())?;
        let file = file.display().to_string();
        self.cli.ok(&["connectors", "create", "-f", &file]).await?;
        let name = definition["name"].as_str().context("a name")?;
        Ok(self.client.get(name).await?)
    }

    /// `gantry WORDS`, split at spaces.
    async fn gantry(&self, words: &str) -> Result<String> {
        let args: Vec<&str> = words.split(' ').collect();
        self.cli.ok(&args).await
    }

    /// `gantry WORDS -o json`.
    async fn json(&self, words: &str) -> Result<Value> {
        let text = self.gantry(&format!("{words} -o json")).await?;
        serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))
    }

    /// `gantry WORDS` ends with this exit code, and says why in three lines which contain all of `mentions`.
    async fn refused(&self, code: i32, words: &str, mentions: &[&str]) -> Result<()> {
        let args: Vec<&str> = words.split(' ').collect();
        self.cli.refused(code, &args, mentions).await?;
        Ok(())
    }

    /// Nothing of the connector was written since it was read.
    async fn unchanged(&self, before: &Connector) -> Result<()> {
        let now = self.client.get(&before.name).await?;
        ensure!(
            now.etag == before.etag && now.generation == before.generation,
            "{now:?} was written since {before:?}"
        );
        Ok(())
    }
}

/// The texts contain all of these parts.
fn contains(text: &str, parts: &[&str]) -> Result<()> {
    for part in parts {
        ensure!(text.contains(part), "{part:?} is not in\n{text}");
    }
    Ok(())
}
