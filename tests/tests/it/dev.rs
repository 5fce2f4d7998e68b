//! `gantry dev`: everything in one process, and what is left of it after a restart.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gantry_client::Client;
use gantry_client::v1::connector::{State, TargetState};
use gantry_tests::connectors::{bytes_read, definition, reaches, records_out};
use gantry_tests::lines::{self, Tally, ascii, tally};
use gantry_tests::wait::{eventually, promptly};
use gantry_tests::{Cli, Gantry, WorkDir, run};
use serde_json::json;

const TEST: Duration = Duration::from_secs(240);
const SOON: Duration = Duration::from_secs(60);

/// A data directory, and what goes through it.
struct Site<'a> {
    work: &'a WorkDir,
    data: PathBuf,
    input: PathBuf,
    output: PathBuf,
}

impl<'a> Site<'a> {
    fn new(work: &'a WorkDir) -> Result<Self> {
        let base = work.path().canonicalize()?;
        let (data, input) = (
            base.join("data"),
            work.dir("in")?.canonicalize()?.join("lines.txt"),
        );
        Ok(Self {
            work,
            data,
            input,
            output: work.dir("out")?.canonicalize()?,
        })
    }

    async fn start(&self) -> Result<(Gantry, Client)> {
        let data = self.data.display().to_string();
        let args = ["dev", "--listen", "127.0.0.1:0", "--data-dir", &data];
        let dev = Gantry::start(self.work, "dev", &args).await?;
        let client = Client::connect(dev.endpoint()).await?;
        Ok((dev, client))
    }

    /// Makes the source by flags and the sink by a file.
    async fn create(&self, dev: &Gantry) -> Result<()> {
        let cli = Cli::new(dev.endpoint(), self.work);
        let paths = format!("paths={}", self.input.display());
        let source = [
            "connectors",
            "create",
            "lines-in",
            "--plugin",
            "file-source",
            "--topic",
            "lines",
        ];
        cli.ok(&[&source[..], &["--set", &paths, "--wait"]].concat())
            .await?;
        let file = self.work.path().join("lines-out.yaml");
        let path = self.output.join("{queue}.txt");
        let text = format!(
            "# a sink\nname: lines-out\nplugin: file-sink\ntopic: lines\ntasks_max: 2\ntarget_state: RUNNING\n\
             config:\n  path: \"{}\"\nlabels: {{team: tests}}\n",
            path.display()
        );
        std::fs::write(&file, text)?;
        cli.ok(&[
            "connectors",
            "create",
            "-f",
            &file.display().to_string(),
            "--wait",
        ])
        .await?;
        Ok(())
    }

    /// Waits until so many different lines are at the sink.
    async fn arrived(&self, total: u64) -> Result<Tally> {
        arrived(&self.output, total).await
    }
}

async fn arrived(output: &Path, total: u64) -> Result<Tally> {
    eventually(SOON, &format!("{total} lines are at the sink"), async || {
        let tally = tally(output, total, ascii)?;
        ensure!(tally.distinct() as u64 == total, "{} are there", tally.distinct());
        Ok(tally)
    })
    .await
}

/// Waits until both connectors have committed so many lines, which are so many bytes.
async fn committed(client: &Client, count: u64, length: u64) -> Result<()> {
    eventually(SOON, &format!("{count} lines are committed"), async || {
        let (byte, written) = (
            bytes_read(client, "lines-in").await?,
            records_out(client, "lines-out").await?,
        );
        ensure!(
            (byte, written) == (length, count),
            "{byte} bytes are read and {written} lines written"
        );
        Ok(())
    })
    .await
}

#[test]
fn a_file_is_followed_and_a_restart_changes_nothing() {
    run(TEST, async |work| {
        let site = Site::new(work)?;
        let (mut dev, client) = site.start().await?;
        lines::append(&site.input, 0..100, ascii)?;
        site.create(&dev).await?;
        site.arrived(100).await?.exact()?;
        let length = lines::append(&site.input, 100..200, ascii)?;
        site.arrived(200).await?.exact()?;

        // One that is paused stays so.
        let cli = Cli::new(dev.endpoint(), work);
        cli.ok(&["connectors", "pause", "lines-out", "--wait"]).await?;
        let before = [
            client.get("lines-in").await?,
            reaches(&client, "lines-out", State::Paused, SOON).await?,
        ];
        ensure!(
            before[1].labels.get("team").map(String::as_str) == Some("tests"),
            "{:?}",
            before[1].labels
        );

        let status = dev.process().terminate(SOON).await?;
        ensure!(
            status.success(),
            "it ended with {status}\n{}",
            dev.process().tail()
        );
        drop(dev);
        let (mut dev, client) = site.start().await?;

        for (name, before) in ["lines-in", "lines-out"].into_iter().zip(&before) {
            let after = client.get(name).await?;
            ensure!(
                after.uid == before.uid && after.etag == before.etag,
                "{name} was {before:?} and is {after:?}"
            );
            ensure!(
                after.config == before.config && after.generation == before.generation,
                "{before:?}, {after:?}"
            );
            ensure!(
                after.target_state() == before.target_state(),
                "{before:?}, {after:?}"
            );
        }
        // The last commits were made on the way out.
        ensure!(
            bytes_read(&client, "lines-in").await? == length,
            "the source has not committed what it had read"
        );
        reaches(&client, "lines-in", State::Running, SOON).await?;
        reaches(&client, "lines-out", State::Paused, SOON).await?;

        let length = lines::append(&site.input, 200..300, ascii)?;
        Cli::new(dev.endpoint(), work)
            .ok(&["connectors", "resume", "lines-out", "--wait"])
            .await?;
        site.arrived(300).await?;
        committed(&client, 300, length).await?;
        dev.process().terminate(SOON).await?;
        tally(&site.output, 300, ascii)?.exact()
    });
}

#[test]
fn kill_dash_nine_loses_and_doubles_nothing_that_was_committed() {
    run(TEST, async |work| {
        let site = Site::new(work)?;
        let (mut dev, client) = site.start().await?;
        lines::append(&site.input, 0..100, ascii)?;
        site.create(&dev).await?;
        site.arrived(100).await?.exact()?;
        let mut uid = client.get("lines-in").await?.uid;
        ensure!(!uid.is_empty(), "a connector has a uid");

        for round in 1..=3 {
            let total = 100 + round * 100;
            let length = lines::append(&site.input, total - 100..total, ascii)?;
            site.arrived(total).await?.exact()?;
            committed(&client_of(&dev).await?, total, length).await?;
            dev.process().kill()?;
            let (again, client) = site.start().await?;
            dev = again;
            let after = client.get("lines-in").await?;
            ensure!(after.uid == uid, "another connector: {after:?}");
            ensure!(after.target_state() == TargetState::Running, "{after:?}");
            uid = after.uid;
        }
        let length = lines::append(&site.input, 400..500, ascii)?;
        site.arrived(500).await?;
        committed(&client_of(&dev).await?, 500, length).await?;
        tally(&site.output, 500, ascii)?.exact()
    });
}

#[test]
fn kill_dash_nine_amid_records_loses_none() {
    const TOTAL: u64 = 60_000;
    run(TEST, async |work| {
        let site = Site::new(work)?;
        let (mut dev, _) = site.start().await?;
        lines::append(&site.input, 0..TOTAL / 2, ascii)?;
        site.create(&dev).await?;
        promptly(SOON, "the first lines are at the sink", async || {
            ensure!(lines::size(&site.output)? > 0, "nothing is there");
            Ok(())
        })
        .await?;
        dev.process().kill()?;
        let there = tally(&site.output, TOTAL, ascii)?.distinct();
        println!("killed with {there} of {} lines at the sink", TOTAL / 2);

        let (_dev, _) = site.start().await?;
        lines::append(&site.input, TOTAL / 2..TOTAL, ascii)?;
        let result = site.arrived(TOTAL).await?;
        // What the source had sent and not committed was sent again; that is all that may be there twice.
        println!("{} lines were sent again", result.repeated());
        result.complete()
    });
}

/// The agent gives itself up, and the process that it lives in begins anew.
#[test]
fn code_that_never_returns_is_stopped_and_the_rest_goes_on() {
    run(TEST, async |work| {
        let site = Site::new(work)?;
        let (mut dev, client) = site.start().await?;
        let (id, endpoint) = (dev.process().id(), dev.endpoint().to_owned());
        lines::append(&site.input, 0..100, ascii)?;
        site.create(&dev).await?;
        site.arrived(100).await?;
        let hangs = json!({ "hook": "poll", "does": "sleeps" });
        let hasty = json!({ "drain_timeout": "1s", "stop_timeout": "2s" });
        client
            .create(
                definition("stuck", "stubborn-source", "never", &hangs, &hasty)?,
                false,
            )
            .await?;
        reaches(&client, "stuck", State::Running, SOON).await?;

        client.stop("stuck").await?;
        let line = dev
            .process()
            .wait_for_line(SOON, "that it begins anew", |line| {
                line.contains("beginning anew")
            })
            .await?;
        ensure!(line.contains("stuck") || line.contains("stop_timeout"), "{line}");
        let client = promptly(SOON, "it serves again", async || client_at(&endpoint).await).await?;
        reaches(&client, "stuck", State::Stopped, SOON).await?;
        ensure!(
            dev.process().is_running() && dev.process().id() == id,
            "another process"
        );

        let length = lines::append(&site.input, 100..200, ascii)?;
        site.arrived(200).await?;
        committed(&client, 200, length).await?;
        // What had been sent and not committed may be there twice.
        let status = dev.process().terminate(SOON).await?;
        ensure!(status.success(), "it ended with {status}");
        tally(&site.output, 200, ascii)?.complete()
    });
}

/// As with `gantry dev 2>&1 | head`.
#[test]
fn it_stops_also_when_nobody_reads_what_it_says() {
    run(TEST, async |work| {
        let site = Site::new(work)?;
        let data = site.data.display().to_string();
        let args = ["dev", "--listen", "127.0.0.1:0", "--data-dir", &data];
        let mut dev = Gantry::ready(Gantry::unheard(work, "dev", &args)?).await?;
        lines::append(&site.input, 0..100, ascii)?;
        site.create(&dev).await?;
        site.arrived(100).await?;
        let status = dev.process().terminate(SOON).await?;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    });
}

#[test]
fn one_directory_belongs_to_one_process() {
    run(TEST, async |work| {
        let site = Site::new(work)?;
        let (dev, client) = site.start().await?;
        let data = site.data.display().to_string();
        let args = ["dev", "--listen", "127.0.0.1:0", "--data-dir", &data];
        gantry_tests::cli::call(&args, &[], work.path())
            .await?
            .refused(1, &[&data])?;
        // The first one goes on.
        client
            .list("", gantry_client::v1::View::Basic)
            .await
            .context(dev.endpoint().to_owned())?;
        Ok(())
    });
}

async fn client_at(endpoint: &str) -> Result<Client> {
    let client = Client::connect(endpoint).await?;
    client.list("", gantry_client::v1::View::Basic).await?;
    Ok(client)
}

async fn client_of(dev: &Gantry) -> Result<Client> {
    Ok(Client::connect(dev.endpoint()).await?)
}
