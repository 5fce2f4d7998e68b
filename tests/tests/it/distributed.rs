//! A server and two agents on a real etcd and the real broker: the quick start of RocketMQ Connect's documentation done with
//! Gantry, agents that end, and what RocketMQ's own tools see of it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gantry_client::Client;
use gantry_client::v1::connector::State;
use gantry_tests::connectors::{definition, holders, reaches, records_out};
use gantry_tests::lines::{self, ascii, tally};
use gantry_tests::wait::{eventually, stays};
use gantry_tests::{Cluster, RocketMq, WorkDir, run};
use serde_json::json;
use tokio::time::Instant;

const TEST: Duration = Duration::from_secs(240);
const SOON: Duration = Duration::from_secs(60);
const TOPIC: &str = "file-topic";
const QUEUES: u32 = 4;
/// So long nothing is heard of an agent before others get its tasks: three heartbeats.
const LEASE: Duration = Duration::from_secs(9);

/// Everything that runs, and the files at both ends.
struct Site<'a> {
    rocketmq: RocketMq,
    cluster: Cluster<'a>,
    client: Client,
    input: PathBuf,
    output: PathBuf,
}

impl<'a> Site<'a> {
    async fn start(work: &'a WorkDir) -> Result<Self> {
        let rocketmq = RocketMq::start(work, "rocketmq").await?;
        rocketmq.create_topic(TOPIC, QUEUES).await?;
        let mut cluster = Cluster::start(work, &rocketmq.namesrv()).await?;
        cluster.start_agent("one").await?;
        cluster.start_agent("two").await?;
        let (input, output) = (
            cluster.files().join("test-source-file.txt"),
            cluster.files().join("sink"),
        );
        std::fs::create_dir(&output)?;
        Ok(Self {
            rocketmq,
            client: cluster.client()?,
            cluster,
            input,
            output,
        })
    }

    /// Makes source and sink by flags, and waits until they run.
    async fn create(&self) -> Result<()> {
        let cli = self.cluster.cli();
        let (paths, path) = (
            format!("paths={}", self.input.display()),
            format!("path={}", self.output.join("{queue}.txt").display()),
        );
        for (name, plugin, set) in [("file-in", "file-source", paths), ("file-out", "file-sink", path)] {
            let flags = [
                "connectors",
                "create",
                name,
                "--plugin",
                plugin,
                "--topic",
                TOPIC,
                "--set",
                &set,
                "--wait",
            ];
            cli.ok(&flags).await?;
        }
        Ok(())
    }

    /// Waits until the sink has committed exactly these lines.
    async fn arrived(&self, total: u64) -> Result<()> {
        eventually(SOON, &format!("{total} lines are at the sink"), async || {
            let tally = tally(&self.output, total, ascii)?;
            ensure!(tally.distinct() as u64 == total, "{} are there", tally.distinct());
            let committed = records_out(&self.client, "file-out").await?;
            ensure!(committed >= total, "{committed} are committed");
            Ok(())
        })
        .await?;
        tally(&self.output, total, ascii)?.exact()
    }

    /// How many messages the topic has.
    async fn messages(&self) -> Result<i64> {
        let mut total = 0;
        for queue in 0..QUEUES {
            total += self.rocketmq.end_offset(TOPIC, queue).await?;
        }
        Ok(total)
    }
}

#[test]
fn the_quick_start_of_rocketmq_connect() {
    run(TEST, async |work| {
        let site = Site::start(work).await?;
        let cli = site.cluster.cli();
        lines::append(&site.input, 0..3, ascii)?;
        site.create().await?;
        site.arrived(3).await?;
        lines::append(&site.input, 3..10, ascii)?;
        site.arrived(10).await?;

        // A paused source sends nothing, a paused sink writes nothing.
        cli.ok(&["connectors", "pause", "file-in", "--wait"]).await?;
        reaches(&site.client, "file-in", State::Paused, SOON).await?;
        lines::append(&site.input, 10..20, ascii)?;
        stays(
            Duration::from_secs(2),
            "a paused source sends nothing",
            async || {
                let messages = site.messages().await?;
                ensure!(messages == 10, "the topic has {messages} messages");
                Ok(())
            },
        )
        .await?;
        cli.ok(&["connectors", "pause", "file-out", "--wait"]).await?;
        cli.ok(&["connectors", "resume", "file-in", "--wait"]).await?;
        eventually(SOON, "the topic has 20 messages", async || {
            let messages = site.messages().await?;
            ensure!(messages == 20, "it has {messages}");
            Ok(())
        })
        .await?;
        stays(
            Duration::from_secs(2),
            "a paused sink writes nothing",
            async || {
                let there = tally(&site.output, 20, ascii)?.distinct();
                ensure!(there == 10, "{there} lines are there");
                Ok(())
            },
        )
        .await?;
        cli.ok(&["connectors", "resume", "file-out", "--wait"]).await?;
        site.arrived(20).await?;

        // Stopped: no task exists, everything is kept.
        cli.ok(&["connectors", "stop", "file-in", "--wait"]).await?;
        reaches(&site.client, "file-in", State::Stopped, SOON).await?;
        let tasks = site.client.tasks("file-in").await?;
        ensure!(tasks.iter().all(|task| task.agent.is_empty()), "{tasks:?}");
        let listed = cli
            .ok(&["connectors", "list", "--filter", "state=RUNNING", "-o", "name"])
            .await?;
        ensure!(listed.trim() == "connectors/file-out", "{listed}");
        lines::append(&site.input, 20..30, ascii)?;
        cli.ok(&["connectors", "resume", "file-in", "--wait"]).await?;
        site.arrived(30).await?;
        cli.ok(&["connectors", "restart", "file-out", "--wait"]).await?;
        lines::append(&site.input, 30..40, ascii)?;
        site.arrived(40).await?;

        // What it says about itself.
        let said = cli.ok(&["connectors", "describe", "file-out"]).await?;
        for part in ["RUNNING", "file-sink", TOPIC, "broker-a", "Allowed now"] {
            ensure!(said.contains(part), "{part} is not in\n{said}");
        }

        // Only what does not run can be deleted; a new one of the same name starts from the beginning.
        cli.refused(1, &["connectors", "delete", "file-in"], &["file-in", "stop"])
            .await?;
        let before = site.client.get("file-in").await?;
        cli.ok(&["connectors", "stop", "file-in", "--wait"]).await?;
        cli.ok(&["connectors", "delete", "file-in", "--wait"]).await?;
        cli.refused(3, &["connectors", "get", "file-in"], &["file-in"])
            .await?;
        cli.ok(&["connectors", "delete", "file-out", "--force", "--wait"])
            .await?;
        let listed = cli.ok(&["connectors", "list", "-o", "name"]).await?;
        ensure!(listed.trim().is_empty(), "{listed}");
        site.create().await?;
        let after = site.client.get("file-in").await?;
        ensure!(after.uid != before.uid, "{before:?} and {after:?}");
        eventually(SOON, "the file is sent anew", async || {
            let messages = site.messages().await?;
            ensure!(messages == 80, "the topic has {messages} messages");
            Ok(())
        })
        .await
    });
}

#[test]
fn the_tasks_of_an_agent_that_ends_move_to_the_other() {
    run(TEST, async |work| {
        let mut site = Site::start(work).await?;
        lines::append(&site.input, 0..100, ascii)?;
        site.create().await?;
        site.arrived(100).await?;

        // In order: at once. Killed: after a lease.
        for (total, killed) in [(200, false), (300, true)] {
            let gone = holders(&site.client, "file-in", SOON).await?.remove(0);
            let other = if gone == "one" { "two" } else { "one" };
            let since = Instant::now();
            if killed {
                site.cluster.kill_agent(&gone)?;
            } else {
                let status = site.cluster.stop_agent(&gone).await?;
                ensure!(status.success(), "{gone} ended with {status}");
            }
            eventually(SOON, "the other agent has all tasks", async || {
                for name in ["file-in", "file-out"] {
                    let held = holders(&site.client, name, SOON).await?;
                    ensure!(held.iter().all(|agent| agent == other), "{name} is on {held:?}");
                    reaches(&site.client, name, State::Running, SOON).await?;
                }
                anyhow::Ok(())
            })
            .await?;
            let took = since.elapsed();
            println!("killed: {killed}, all tasks run on the other agent after {took:?}");
            let most = if killed { LEASE * 3 } else { LEASE };
            ensure!(took < most, "that took {took:?}");
            ensure!(
                !killed || took > LEASE / 2,
                "tasks of an agent that may still run were given away after {took:?}"
            );

            lines::append(&site.input, total - 100..total, ascii)?;
            site.arrived(total).await?;
            // The one that was killed is told from the new one of its name.
            site.cluster.start_agent(&gone).await?;
        }
        Ok(())
    });
}

#[test]
fn rocketmq_s_own_tools_see_messages_and_progress() {
    run(TEST, async |work| {
        let site = Site::start(work).await?;
        lines::append(&site.input, 0..50, lines::unicode)?;
        let path = site.input.display().to_string();
        let config = json!({ "paths": [path], "key": "path" });
        let source = definition("keyed-in", "file-source", TOPIC, &config, &json!({}))?;
        let created = site.client.create(source, false).await?;
        let sink = site.output.join("{queue}.txt").display().to_string();
        let sink = definition(
            "keyed-out",
            "file-sink",
            TOPIC,
            &json!({ "path": sink }),
            &json!({ "tasks_max": 2 }),
        )?;
        site.client.create(sink, false).await?;
        eventually(SOON, "the sink has committed 50 lines", async || {
            let committed = records_out(&site.client, "keyed-out").await?;
            ensure!(committed == 50, "{committed}");
            anyhow::Ok(())
        })
        .await?;

        // All lines of a file have one key, so they are in one queue, in order.
        let mut found = Vec::new();
        for queue in 0..QUEUES {
            let messages = site.rocketmq.read(TOPIC, queue).await?;
            found.extend(messages.into_iter().map(|message| (queue, message)));
        }
        ensure!(found.len() == 50, "{} messages", found.len());
        let queue = found[0].0;
        for (n, (of, message)) in found.iter().enumerate() {
            ensure!(
                *of == queue && message.body == lines::unicode(n as u64).as_bytes(),
                "{n}: {of} {message:?}"
            );
            ensure!(
                message.properties.get("KEYS") == Some(&path),
                "{:?}",
                message.properties
            );
            let id = message
                .properties
                .get("gantry-id")
                .context("a message without the property gantry-id")?;
            ensure!(
                id.starts_with(&created.uid),
                "{id} does not begin with {}",
                created.uid
            );
        }
        let mut ids: Vec<&String> = found
            .iter()
            .map(|(_, message)| &message.properties["gantry-id"])
            .collect();
        ids.sort();
        ids.dedup();
        ensure!(ids.len() == 50, "{} different ids", ids.len());

        eventually(SOON, "queryMsgByKey finds the messages", async || {
            let mut found = site.rocketmq.query_by_key(TOPIC, &path).await?;
            found.sort();
            let expected: Vec<(u32, i64)> = (0..50).map(|offset| (queue, offset)).collect();
            ensure!(found == expected, "found {found:?}");
            Ok(())
        })
        .await?;
        eventually(
            SOON,
            "consumerProgress shows what the sink has committed",
            async || {
                let progress = site.rocketmq.consumer_progress("gantry-keyed-out").await?;
                let own: Vec<_> = progress
                    .iter()
                    .filter(|row| row.topic == TOPIC && row.end > 0)
                    .collect();
                let done = own
                    .iter()
                    .all(|row| (row.queue, row.end, row.committed) == (queue, 50, 50));
                ensure!(!own.is_empty() && done, "{progress:?}");
                Ok(())
            },
        )
        .await?;

        // A paused sink falls behind, which the same tool shows as lag.
        site.client.pause("keyed-out").await?;
        reaches(&site.client, "keyed-out", State::Paused, SOON).await?;
        lines::append(&site.input, 50..70, lines::unicode)?;
        eventually(SOON, "consumerProgress shows a lag of 20", async || {
            let progress = site.rocketmq.consumer_progress("gantry-keyed-out").await?;
            let lag = progress.iter().any(|row| (row.end, row.committed) == (70, 50));
            ensure!(lag, "{progress:?}");
            Ok(())
        })
        .await
    });
}

#[test]
fn messages_of_other_clients_reach_the_sink() {
    run(TEST, async |work| {
        let site = Site::start(work).await?;
        // Written by a client that knows nothing of Gantry.
        for n in 0..20 {
            site.rocketmq
                .send(TOPIC, n % QUEUES, &format!("key-{n}"), ascii(n.into()).as_bytes())
                .await?;
        }
        let config = json!({ "path": site.output.join("{queue}.txt").display().to_string() });
        let sink = definition("foreign-out", "file-sink", TOPIC, &config, &json!({}))?;
        site.client.create(sink, false).await?;
        eventually(SOON, "the sink has committed 20 lines", async || {
            let committed = records_out(&site.client, "foreign-out").await?;
            ensure!(committed == 20, "{committed}");
            anyhow::Ok(())
        })
        .await?;
        tally(&site.output, 20, ascii)?.exact()
    });
}
