//! A topic that gets more queues while records move through it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use gantry_client::Client;
use gantry_client::v1::connector::State;
use gantry_tests::connectors::{bytes_read, definition, reaches, records_out, shown};
use gantry_tests::lines::{self, Tally, unicode};
use gantry_tests::wait::eventually;
use gantry_tests::{Cluster, RocketMq, WorkDir, run};
use serde_json::json;

const BEFORE: u32 = 4;
const AFTER: u32 = 8;
/// Lines that are added at a time.
const MORE: u64 = 500;
/// Agents look every 30 s at the queues that a topic has.
const SOON: Duration = Duration::from_secs(150);
const LIMIT: Duration = Duration::from_secs(420);

/// A file that grows, a topic, and a file for each of its queues.
struct Way<'a> {
    rocketmq: RocketMq,
    _cluster: Cluster<'a>,
    client: Client,
    input: PathBuf,
    output: PathBuf,
    total: u64,
    length: u64,
}

impl<'a> Way<'a> {
    async fn start(work: &'a WorkDir) -> Result<Self> {
        let rocketmq = RocketMq::start(work, "rocketmq").await?;
        rocketmq.create_topic("lines", BEFORE).await?;
        let mut cluster = Cluster::start(work, &rocketmq.namesrv()).await?;
        cluster.start_agent("one").await?;
        cluster.start_agent("two").await?;
        let client = cluster.client()?;
        let (input, output) = (cluster.files().join("lines.txt"), cluster.files().join("out"));
        std::fs::create_dir(&output)?;
        let length = lines::append(&input, 0..MORE, unicode)?;
        let config = json!({ "path": output.join("{queue}.txt").display().to_string() });
        let tasks = json!({ "tasks_max": 3 });
        let sink = definition("lines-out", "file-sink", "lines", &config, &tasks)?;
        client.create(sink, false).await?;
        let config = json!({ "paths": [input.display().to_string()] });
        let source = definition("lines-in", "file-source", "lines", &config, &json!({}))?;
        client.create(source, false).await?;
        Ok(Self {
            rocketmq,
            _cluster: cluster,
            client,
            input,
            output,
            total: MORE,
            length,
        })
    }

    fn more(&mut self) -> Result<()> {
        self.length = lines::append(&self.input, self.total..self.total + MORE, unicode)?;
        self.total += MORE;
        Ok(())
    }

    /// Each queue of the topic is read by exactly one task, every task runs, and each queue has had messages.
    async fn is_split_into(&self, queues: u32) -> Result<()> {
        let tasks = self.client.tasks("lines-out").await?;
        let read: Vec<u32> = tasks.iter().flat_map(|t| &t.queues).map(|q| q.id).collect();
        let distinct: BTreeSet<u32> = read.iter().copied().collect();
        ensure!(
            distinct == (0..queues).collect() && read.len() == distinct.len(),
            "queues {read:?} are read"
        );
        let sink = self.client.get("lines-out").await?;
        ensure!(
            sink.state() == State::Running && !sink.reconciling,
            "{}",
            shown(&sink)
        );
        for queue in 0..queues {
            let written = self.written(queue)?.len();
            ensure!(written > 0, "nothing of queue {queue} is written");
        }
        Ok(())
    }

    /// The lines in the sink's file of a queue.
    fn written(&self, queue: u32) -> Result<Vec<Vec<u8>>> {
        let end = format!("-{queue}.txt");
        let files = lines::read_dir(&self.output)?;
        let file = files.into_iter().find(|(name, _)| name.ends_with(&end));
        Ok(file.map(|(_, lines)| lines).unwrap_or_default())
    }
}

#[test]
fn a_topic_that_gets_more_queues_under_load_loses_nothing() {
    run(LIMIT, async |work| {
        let mut way = Way::start(work).await?;
        eventually(SOON, "all four queues are written", async || {
            way.more()?;
            way.is_split_into(BEFORE).await
        })
        .await?;

        way.rocketmq.create_topic("lines", AFTER).await?;
        eventually(SOON, "all eight queues are written", async || {
            way.more()?;
            way.is_split_into(AFTER).await
        })
        .await?;

        eventually(SOON, "everything has arrived", async || {
            let read = bytes_read(&way.client, "lines-in").await?;
            ensure!(read == way.length, "{read} of {} bytes are read", way.length);
            let mut sent = 0;
            for queue in 0..AFTER {
                sent += way.rocketmq.end_offset("lines", queue).await?;
            }
            let written = records_out(&way.client, "lines-out").await?;
            ensure!(sent == i64::try_from(written)?, "{written} of {sent} are written");
            Ok::<_, anyhow::Error>(())
        })
        .await?;
        for name in ["lines-in", "lines-out"] {
            reaches(&way.client, name, State::Running, SOON).await?;
        }
        // Whatever the tasks that were ended had begun: each file has exactly the messages of its queue.
        let mut all = Vec::new();
        for queue in 0..AFTER {
            let sent = way.rocketmq.read("lines", queue).await?;
            let sent: Vec<_> = sent.into_iter().map(|message| message.body).collect();
            let written = way.written(queue)?;
            ensure!(
                sent == written,
                "queue {queue} has {} messages and its file {} lines",
                sent.len(),
                written.len()
            );
            all.extend(written);
        }
        let tally = Tally::of(all.iter().map(Vec::as_slice), way.total, unicode);
        println!("{} lines, {} of them sent again", way.total, tally.repeated());
        tally.complete()
    });
}
