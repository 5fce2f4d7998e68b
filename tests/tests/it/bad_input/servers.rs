//! Servers, topics and files that are not there, or not allowed. Nothing is lost meanwhile, and all goes on when the cause is gone.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use gantry_client::Client;
use gantry_client::v1::connector::State;
use gantry_client::v1::problem::Domain;
use gantry_client::v1::{Connector, View};
use gantry_tests::connectors::{definition, problem, reaches, records_out};
use gantry_tests::lines::{self, ascii, tally};
use gantry_tests::wait::eventually;
use gantry_tests::{Cluster, Ports, RocketMq, run};
use serde_json::{Value, json};

use super::{SOON, TEST};

const LONG: Duration = Duration::from_secs(300);

fn source(path: &str, more: &Value) -> Result<Connector> {
    definition(
        "lines-in",
        "file-source",
        "lines",
        &json!({ "paths": [path] }),
        more,
    )
}

fn sink(output: &std::path::Path) -> Result<Connector> {
    let path = output.join("{queue}.txt").display().to_string();
    definition(
        "lines-out",
        "file-sink",
        "lines",
        &json!({ "path": path }),
        &json!({}),
    )
}

/// Waits until so many lines are at the sink, each once.
async fn arrived(client: &Client, output: &std::path::Path, total: u64) -> Result<()> {
    eventually(SOON, &format!("{total} lines are at the sink"), async || {
        let there = tally(output, total, ascii)?.distinct() as u64;
        let committed = records_out(client, "lines-out").await?;
        ensure!(
            there == total && committed >= total,
            "{there} are there, {committed} are committed"
        );
        Ok(())
    })
    .await?;
    tally(output, total, ascii)?.exact()
}

#[test]
fn topics_and_brokers() {
    run(LONG, async |work| {
        let mut rocketmq = RocketMq::start(work, "rocketmq").await?;
        let mut cluster = Cluster::start(work, &rocketmq.namesrv()).await?;
        cluster.start_agent("one").await?;
        let client = cluster.client()?;
        let (input, output) = (cluster.files().join("lines.txt"), cluster.files().join("out"));
        fs::create_dir(&output)?;
        lines::append(&input, 0..100, ascii)?;
        let input_text = input.display().to_string();

        // Nobody answers at the address that the connector names.
        let nobody = Ports::reserve(1)?;
        let wrong = json!({ "namesrv": nobody.address(0) });
        client.create(source(&input_text, &wrong)?, false).await?;
        let said = problem(&client, "lines-in", &nobody.address(0), SOON).await?;
        ensure!(
            said.domain() == Domain::External && !said.fix.is_empty(),
            "{said:?}"
        );
        ensure!(
            client.get("lines-in").await?.state() != State::Failed,
            "what may come back does not fail a connector"
        );
        let cli = cluster.cli();
        let described = cli.ok(&["connectors", "describe", "lines-in"]).await?;
        ensure!(described.contains(&nobody.address(0)), "{described}");

        // The right one, where the topic is missing.
        client
            .update(source(&input_text, &json!({}))?, &["namesrv"], false)
            .await?;
        let said = problem(&client, "lines-in", "lines", SOON).await?;
        ensure!(
            said.domain() == Domain::External && !said.fix.is_empty(),
            "{said:?}"
        );
        client.create(sink(&output)?, false).await?;
        let said = problem(&client, "lines-out", "lines", SOON).await?;
        ensure!(
            said.domain() == Domain::External && !said.fix.is_empty(),
            "{said:?}"
        );
        rocketmq.create_topic("lines", 2).await?;
        for name in ["lines-in", "lines-out"] {
            reaches(&client, name, State::Running, SOON).await?;
        }
        arrived(&client, &output, 100).await?;

        // The broker goes while it is used, and is not there when the agent starts.
        rocketmq.kill_broker()?;
        lines::append(&input, 100..200, ascii)?;
        let said = problem(&client, "lines-in", "127.0.0.1", SOON).await?;
        ensure!(said.domain() == Domain::External, "{said:?}");
        rocketmq.restart_broker().await?;
        eventually(SOON, "all lines are at the sink", async || {
            let there = tally(&output, 200, ascii)?.distinct();
            ensure!(there == 200, "{there} are there");
            Ok(())
        })
        .await?;
        cluster.stop_agent("one").await?;
        rocketmq.kill_broker()?;
        rocketmq.kill_namesrv()?;
        cluster.start_agent("one").await?;
        lines::append(&input, 200..300, ascii)?;
        for name in ["lines-in", "lines-out"] {
            // Before the agent is back the problem is that there is none.
            let said = problem(&client, name, "127.0.0.1", SOON).await?;
            ensure!(said.domain() == Domain::External, "{name}: {said:?}");
        }
        rocketmq.restart_namesrv().await?;
        rocketmq.restart_broker().await?;
        for name in ["lines-in", "lines-out"] {
            reaches(&client, name, State::Running, SOON).await?;
        }
        eventually(SOON, "all lines are at the sink", async || {
            let there = tally(&output, 300, ascii)?.distinct();
            ensure!(there == 300, "{there} are there");
            Ok(())
        })
        .await?;
        // A batch whose answer was lost with the broker may be there twice.
        tally(&output, 300, ascii)?.complete()
    });
}

#[test]
fn files_that_may_not_be_read() {
    run(TEST, async |work| {
        let rocketmq = RocketMq::start(work, "rocketmq").await?;
        rocketmq.create_topic("lines", 1).await?;
        let mut cluster = Cluster::start(work, &rocketmq.namesrv()).await?;
        cluster.start_agent("one").await?;
        let (client, cli) = (cluster.client()?, cluster.cli());

        // Outside of what the agent allows, also behind a link.
        let outside = work.dir("outside")?.canonicalize()?.join("lines.txt");
        lines::append(&outside, 0..10, ascii)?;
        let link = cluster.files().join("link.txt");
        std::os::unix::fs::symlink(&outside, &link)?;
        for path in [&outside, &link] {
            let set = format!("paths={}", path.display());
            let create = [
                "connectors",
                "create",
                "lines-in",
                "--plugin",
                "file-source",
                "--topic",
                "lines",
            ];
            let answer = cli
                .call(&[&create[..], &["--set", &set, "--wait", "--timeout", "30s"]].concat())
                .await?;
            let path = path.display().to_string();
            answer.refused(1, &[&path, "--allow-path"])?;
            let said = cli.ok(&["connectors", "describe", "lines-in"]).await?;
            ensure!(said.contains("FAILED") && said.contains("--allow-path"), "{said}");
            ensure!(
                rocketmq.end_offset("lines", 0).await? == 0,
                "lines of {path} were read"
            );
            cli.ok(&["connectors", "delete", "lines-in", "--wait"]).await?;
        }
        // A sink does not write there either.
        let target = work.path().canonicalize()?.join("outside-sink");
        client.create(sink(&target)?, false).await?;
        problem(&client, "lines-out", "outside-sink", SOON).await?;
        reaches(&client, "lines-out", State::Failed, SOON).await?;
        ensure!(!target.exists(), "the sink has made {}", target.display());
        client.delete("lines-out", false, false).await?;

        // A file that cannot be read is read once it can.
        let (unreadable, mend) = unreadable(cluster.files())?;
        let path = unreadable.display().to_string();
        client.create(source(&path, &json!({}))?, false).await?;
        let said = problem(&client, "lines-in", &path, SOON).await?;
        ensure!(!said.fix.is_empty(), "{said:?}");
        mend()?;
        reaches(&client, "lines-in", State::Running, SOON).await?;
        eventually(SOON, "the file is read", async || {
            let end = rocketmq.end_offset("lines", 0).await?;
            ensure!(end == 10, "{end} lines are");
            Ok(())
        })
        .await
    });
}

/// A path that cannot be read, and how it becomes a file of ten lines that can.
fn unreadable(files: &std::path::Path) -> Result<(PathBuf, impl FnOnce() -> Result<()>)> {
    let path = files.join("unreadable.txt");
    // No permission keeps root from a file: there it is a directory.
    let root = fs::metadata("/proc/self")?.uid() == 0;
    if root {
        fs::create_dir(&path)?;
    } else {
        lines::append(&path, 0..10, ascii)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000))?;
    }
    let of = path.clone();
    let mend = move || {
        if root {
            fs::remove_dir(&of)?;
            lines::append(&of, 0..10, ascii)?;
        } else {
            fs::set_permissions(&of, fs::Permissions::from_mode(0o644))?;
        }
        Ok(())
    };
    Ok((path, mend))
}

#[test]
fn etcd_that_is_not_there_yet() {
    run(TEST, async |work| {
        let nobody = Ports::reserve(1)?;
        let mut cluster = Cluster::start(work, &nobody.address(0)).await?;
        cluster.stop_server().await?;
        cluster.etcd.kill(0)?;

        let mut waiting = cluster.spawn_server()?;
        let endpoint = &cluster.etcd.endpoints()[0];
        let line = waiting
            .wait_for_line(SOON, "that etcd cannot be reached", |line| {
                line.contains("etcd cannot be reached")
            })
            .await?;
        ensure!(line.contains(endpoint.as_str()), "it does not say where: {line}");
        ensure!(
            !waiting.stdout()?.contains("ready on"),
            "it is ready without its store"
        );
        cluster.etcd.restart(0).await?;
        waiting
            .wait_for_line(SOON, "`ready on`", |line| line.contains("ready on "))
            .await?;
        let client = cluster.client()?;
        client.list("", View::Full).await?;
        cluster.start_agent("one").await?;

        // The store goes while it is used: what cannot be stored is not acknowledged, and the same call goes through later.
        cluster.etcd.kill(0)?;
        let quick = gantry_client::Options {
            retries: 0,
            call_timeout: Duration::from_secs(30),
            ..Default::default()
        };
        let quick = Client::connect_lazy(&cluster.endpoint(), quick)?;
        let wanted = source("/tmp/nothing", &json!({ "target_state": "TARGET_STATE_STOPPED" }))?;
        let answer = quick.create(wanted.clone(), false).await;
        let Err(error) = answer else {
            anyhow::bail!("acknowledged without a store")
        };
        println!("without etcd: {error}");
        cluster.etcd.restart(0).await?;
        eventually(SOON, "the connector can be created", async || {
            match client.create(wanted.clone(), false).await {
                Ok(_) => Ok(()),
                // The first call may have got through after it was given up: it was not acknowledged, and not denied either.
                Err(error) if client.get("lines-in").await.is_ok() => {
                    println!("{error}");
                    Ok(())
                }
                Err(error) => Err(error),
            }
        })
        .await?;
        waiting.terminate(SOON).await?;
        Ok(())
    });
}

#[test]
fn two_agents_of_one_name() {
    run(TEST, async |work| {
        let nobody = Ports::reserve(1)?;
        let mut cluster = Cluster::start(work, &nobody.address(0)).await?;
        cluster.start_agent("one").await?;
        let client = cluster.client()?;
        let first = client.agent("one").await?;
        let mut second = cluster.spawn_twin("one")?;
        let status = second.ended(SOON).await?;
        ensure!(
            !status.success(),
            "the second agent of the name ended with {status}"
        );
        let said = second.stderr()?;
        ensure!(said.contains("error: ") && said.contains("one"), "{said}");
        ensure!(
            client.agent("one").await?.instance_uid == first.instance_uid,
            "the first one was pushed out"
        );
        Ok(())
    });
}
