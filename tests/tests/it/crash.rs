//! An agent that is killed (-9) and restarted ten times while records are in flight.
//!
//! `GANTRY_TESTS_LONG=1` takes two million lines instead of 200,000.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use gantry_client::Client;
use gantry_client::v1::connector::State;
use gantry_tests::connectors::{bytes_read, definition, reaches, records_out};
use gantry_tests::lines::{self, Make, Tally, ascii, unicode};
use gantry_tests::wait::{eventually, promptly};
use gantry_tests::{Cluster, RocketMq, WorkDir, env, run};
use serde_json::json;

const KILLS: u32 = 10;
const QUEUES: u32 = 4;
/// How many lines are added when all have arrived before the tenth kill.
const MORE: u64 = 20_000;
const SOON: Duration = Duration::from_secs(90);
const AGENT: &str = "one";

fn size() -> (u64, Duration) {
    if env::long() {
        (2_000_000, Duration::from_secs(1800))
    } else {
        (200_000, Duration::from_secs(400))
    }
}

/// A file on its way through a topic into files.
struct Way<'a> {
    rocketmq: RocketMq,
    cluster: Cluster<'a>,
    client: Client,
    input: PathBuf,
    output: PathBuf,
    make: Make,
    total: u64,
    length: u64,
}

impl<'a> Way<'a> {
    async fn start(work: &'a WorkDir, make: Make, total: u64) -> Result<Self> {
        let rocketmq = RocketMq::start(work, "rocketmq").await?;
        rocketmq.create_topic("lines", QUEUES).await?;
        let mut cluster = Cluster::start(work, &rocketmq.namesrv()).await?;
        cluster.start_agent(AGENT).await?;
        let (input, output) = (cluster.files().join("lines.txt"), cluster.files().join("out"));
        std::fs::create_dir(&output)?;
        let length = lines::append(&input, 0..total, make)?;
        Ok(Self {
            rocketmq,
            client: cluster.client()?,
            cluster,
            input,
            output,
            make,
            total,
            length,
        })
    }

    async fn create_source(&self, key: &str) -> Result<()> {
        let config = json!({ "paths": [self.input.display().to_string()], "key": key });
        self.client
            .create(
                definition("lines-in", "file-source", "lines", &config, &json!({}))?,
                false,
            )
            .await?;
        Ok(())
    }

    async fn create_sink(&self) -> Result<()> {
        let config = json!({ "path": self.output.join("{queue}.txt").display().to_string() });
        let sink = definition(
            "lines-out",
            "file-sink",
            "lines",
            &config,
            &json!({ "tasks_max": 2 }),
        )?;
        self.client.create(sink, false).await?;
        Ok(())
    }

    /// How many messages the topic has.
    async fn messages(&self) -> Result<u64> {
        let mut total = 0;
        for queue in 0..QUEUES {
            total += self.rocketmq.end_offset("lines", queue).await?;
        }
        Ok(total.try_into()?)
    }

    /// The bodies of a queue's messages, in order.
    async fn bodies(&self, queue: u32) -> Result<Vec<Vec<u8>>> {
        Ok(self
            .rocketmq
            .read("lines", queue)
            .await?
            .into_iter()
            .map(|message| message.body)
            .collect())
    }

    /// The sink's file of a queue.
    fn written(&self, queue: u32) -> Result<Vec<Vec<u8>>> {
        let end = format!("-{queue}.txt");
        let files = lines::read_dir(&self.output)?;
        let file = files.into_iter().find(|(name, _)| name.ends_with(&end));
        Ok(file.map(|(_, lines)| lines).unwrap_or_default())
    }

    /// Waits until the source has committed the whole file and the sink all of the topic.
    async fn done(&self) -> Result<()> {
        eventually(SOON, "everything has arrived", async || {
            let read = bytes_read(&self.client, "lines-in").await?;
            ensure!(read == self.length, "{read} of {} bytes are read", self.length);
            let (sent, written) = (
                self.messages().await?,
                records_out(&self.client, "lines-out").await?,
            );
            ensure!(sent == written, "{written} of {sent} messages are written");
            Ok(())
        })
        .await?;
        for name in ["lines-in", "lines-out"] {
            reaches(&self.client, name, State::Running, SOON).await?;
        }
        Ok(())
    }

    /// How far the killed side has come: messages in the topic, or bytes in the sink's files.
    async fn moved(&self, side: Side) -> Result<u64> {
        match side {
            Side::Source => self.messages().await,
            Side::Sink => lines::size(&self.output),
        }
    }

    /// Nothing is left to be moved.
    async fn is_idle(&self, side: Side) -> Result<bool> {
        Ok(match side {
            Side::Source => bytes_read(&self.client, "lines-in").await? == self.length,
            Side::Sink => records_out(&self.client, "lines-out").await? == self.messages().await?,
        })
    }

    /// Adds lines to the file, and for the sink also to the topic, each once.
    async fn more(&mut self, side: Side) -> Result<()> {
        self.length = lines::append(&self.input, self.total..self.total + MORE, self.make)?;
        self.total += MORE;
        if side == Side::Sink {
            self.send_all().await
        } else {
            Ok(())
        }
    }

    /// Runs the source until the whole file is in the topic, and stops it.
    async fn send_all(&self) -> Result<()> {
        self.client.resume("lines-in").await?;
        eventually(SOON, "the whole file is in the topic", async || {
            let read = bytes_read(&self.client, "lines-in").await?;
            ensure!(read == self.length, "{read} of {} bytes are read", self.length);
            Ok(())
        })
        .await?;
        self.client.stop("lines-in").await?;
        reaches(&self.client, "lines-in", State::Stopped, SOON).await?;
        Ok(())
    }

    /// Kills the agent ten times while records move, each time after another number of them, and starts it again.
    async fn crash(&mut self, side: Side) -> Result<()> {
        let mut kills = 0;
        for attempt in 1..=5 * KILLS {
            let (before, committed_before) = (
                self.moved(side).await?,
                records_out(&self.client, "lines-in").await?,
            );
            if attempt > 1 {
                self.cluster.spawn_agent(AGENT)?;
            }
            let enough = before + rand::random_range(1..=if side == Side::Sink { 400_000 } else { 15_000 });
            while !self.has_moved(side, enough).await? {
                self.more(side).await?;
            }
            self.cluster.kill_agent(AGENT)?;

            let in_flight = match side {
                Side::Source => {
                    let sent = self.messages().await? - before;
                    let committed = records_out(&self.client, "lines-in").await? - committed_before;
                    println!("{sent} records sent since the start, {committed} of them committed");
                    sent.saturating_sub(committed)
                }
                Side::Sink => {
                    let (sent, committed) = (
                        self.messages().await?,
                        records_out(&self.client, "lines-out").await?,
                    );
                    println!("{committed} of {sent} records committed");
                    sent - committed
                }
            };
            kills += u32::from(in_flight > 0);
            println!("kill {kills} after {attempt} starts: {in_flight} records were in flight");
            if kills == KILLS {
                return self.cluster.start_agent(AGENT).await;
            }
        }
        bail!("only {kills} kills met records in flight")
    }

    /// Waits until so much has moved (true), or there is nothing left to move (false).
    async fn has_moved(&self, side: Side, enough: u64) -> Result<bool> {
        promptly(SOON, "records move", async || {
            let moved = self.moved(side).await?;
            if moved >= enough {
                return Ok(true);
            }
            ensure!(self.is_idle(side).await?, "{moved} of {enough} have moved");
            Ok(false)
        })
        .await
    }

    /// Every message is once in the file of its queue, whole and in order; nothing else is there.
    async fn sink_equals_topic(&self) -> Result<Vec<Vec<Vec<u8>>>> {
        let mut queues = Vec::new();
        for queue in 0..QUEUES {
            let (sent, written) = (self.bodies(queue).await?, self.written(queue)?);
            let same = sent.iter().zip(&written).take_while(|(a, b)| a == b).count();
            ensure!(
                sent == written,
                "queue {queue} has {} messages and its file {} lines; they differ from number {same} on",
                sent.len(),
                written.len()
            );
            queues.push(sent);
        }
        Ok(queues)
    }
}

/// What is to be seen while it moves records when the agent is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// The source, and the sink beside it.
    Source,
    /// The sink alone.
    Sink,
}

/// Source and sink run on the agent that is killed.
fn both_are_killed(make: Make, key: &'static str, total: u64, limit: Duration) {
    run(limit, async |work| {
        let mut way = Way::start(work, make, total).await?;
        way.create_sink().await?;
        way.create_source(key).await?;
        way.crash(Side::Source).await?;
        way.done().await?;

        let queues = way.sink_equals_topic().await?;
        let tally = Tally::of(queues.iter().flatten().map(Vec::as_slice), way.total, make);
        println!("{} lines, {} of them sent again", way.total, tally.repeated());
        tally.complete()?;
        // Whoever drops what is not beyond all before it has the file again, line by line.
        if key == "path" {
            let mut next = 0;
            for line in queues.iter().flatten() {
                let number = lines::number(line).context("a line without a number")?;
                ensure!(number <= next, "line {number} is where line {next} should be");
                next = next.max(number + 1);
            }
            ensure!(
                next == way.total,
                "the queue ends with line {next} of {}",
                way.total
            );
        }
        Ok(())
    });
}

#[test]
fn a_large_file_arrives_although_the_agent_is_killed() {
    let (total, limit) = size();
    both_are_killed(ascii, "none", total, limit);
}

#[test]
fn text_that_is_not_ascii_arrives_in_order_although_the_agent_is_killed() {
    let (total, limit) = size();
    both_are_killed(unicode, "path", total / 2, limit);
}

#[test]
fn a_sink_that_is_killed_writes_every_line_once() {
    let (total, limit) = size();
    run(limit, async |work| {
        let mut way = Way::start(work, unicode, total).await?;
        way.create_source("none").await?;
        way.send_all().await?;
        way.create_sink().await?;
        way.crash(Side::Sink).await?;
        eventually(SOON, "everything is written", async || {
            let (sent, written) = (
                way.messages().await?,
                records_out(&way.client, "lines-out").await?,
            );
            ensure!(
                sent == written && sent == way.total,
                "{written} of {sent} messages are written"
            );
            Ok(())
        })
        .await?;

        for queue in way.sink_equals_topic().await? {
            lines::ascending(queue.iter().map(Vec::as_slice))?;
        }
        lines::tally(&way.output, way.total, unicode)?.exact()
    });
}
