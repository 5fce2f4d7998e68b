use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use etcd_client::GetOptions;
use gantry_client::Client;
use gantry_client::v1::value::Kind;
use gantry_client::v1::{Connector, connector, task};
use gantry_tests::connectors::{bytes_read, definition, records_out, shown};
use gantry_tests::lines::{self, Tally, unicode};
use gantry_tests::wait::eventually;
use gantry_tests::{Cluster, RocketMq, WorkDir, run};
use serde_json::json;

use super::SOON;

const FILES: u64 = 6;
const QUEUES: u32 = 8;
/// Lines that are added to each file at a time.
const MORE: u64 = 40;
const TEST: Duration = Duration::from_secs(420);
const NAMES: [&str; 2] = ["lines-in", "lines-out"];

/// Files that grow, a topic, and a file for each of its queues.
struct Way<'a> {
    rocketmq: RocketMq,
    cluster: Cluster<'a>,
    client: Client,
    input: PathBuf,
    output: PathBuf,
    total: u64,
    /// Committed bytes and offsets, by connector and partition: they only grow.
    committed: BTreeMap<String, u64>,
}

impl<'a> Way<'a> {
    async fn start(work: &'a WorkDir) -> Result<Self> {
        let rocketmq = RocketMq::start(work, "rocketmq").await?;
        rocketmq.create_topic("lines", QUEUES).await?;
        let mut cluster = Cluster::start(work, &rocketmq.namesrv()).await?;
        cluster.start_agent("one").await?;
        cluster.start_agent("two").await?;
        let client = cluster.client()?;
        let (input, output) = (cluster.files().join("in"), cluster.files().join("out"));
        std::fs::create_dir(&input)?;
        std::fs::create_dir(&output)?;
        let mut way = Self {
            rocketmq,
            cluster,
            client,
            input,
            output,
            total: 0,
            committed: BTreeMap::new(),
        };
        way.more()?;
        // A stop that is cut off by its limit would send again what it had in flight.
        let patient = json!({ "drain_timeout": "60s", "stop_timeout": "120s" });
        let config = json!({ "path": way.output.join("{queue}.txt").display().to_string() });
        let sink = definition("lines-out", "file-sink", "lines", &config, &patient)?;
        way.client.create(sink, false).await?;
        let config = json!({ "paths": [way.input.join("*.txt").display().to_string()] });
        let source = definition("lines-in", "file-source", "lines", &config, &patient)?;
        way.client.create(source, false).await?;
        Ok(way)
    }

    /// Adds lines to every file.
    fn more(&mut self) -> Result<()> {
        for file in 0..FILES {
            let path = self.input.join(format!("{file}.txt"));
            lines::append(&path, self.total..self.total + MORE, unicode)?;
            self.total += MORE;
        }
        Ok(())
    }

    async fn tasks_max(&self, tasks_max: i32) -> Result<()> {
        for name in NAMES {
            let wanted = Connector {
                name: name.into(),
                tasks_max,
                ..Connector::default()
            };
            self.client.update(wanted, &["tasks_max"], false).await?;
        }
        Ok(())
    }

    /// What is committed has not gone back since the last look.
    async fn look_at_offsets(&mut self) -> Result<()> {
        for name in NAMES {
            for partition in self.client.offsets(name).await?.partitions {
                let value = |key: &str| match partition.position.get(key)?.kind {
                    Some(Kind::Uint64Value(n)) => Some(n),
                    Some(Kind::Int64Value(n)) => u64::try_from(n).ok(),
                    _ => None,
                };
                let Some(now) = value("byte").or_else(|| value("offset")) else {
                    continue;
                };
                let of = format!("{name} {:?}", partition.partition);
                let before = self.committed.insert(of.clone(), now).unwrap_or(0);
                assert!(before <= now, "{of} went back from {before} to {now}");
            }
        }
        Ok(())
    }

    /// There are exactly so many tasks, all run, each part of the work belongs to one of them, and nothing else is left.
    async fn has(&self, count: u32) -> Result<()> {
        for name in NAMES {
            let connector = self.client.get(name).await?;
            let counts = connector.task_counts.unwrap_or_default();
            let expected = i32::try_from(count)?;
            ensure!(
                connector.state() == connector::State::Running
                    && !connector.reconciling
                    && connector.observed_generation == connector.generation
                    && (counts.total, counts.running) == (expected, expected),
                "{}",
                shown(&connector)
            );
            let tasks = self.client.tasks(name).await?;
            let names: Vec<String> = tasks.iter().map(|t| t.name.clone()).collect();
            let exact: Vec<String> = (0..count)
                .map(|n| format!("connectors/{name}/tasks/{n}"))
                .collect();
            ensure!(names == exact, "{names:?}");
            for task in &tasks {
                ensure!(
                    task.state() == task::State::Running && !task.agent.is_empty() && task.fence > 0,
                    "{task:?}"
                );
            }
            let generations: BTreeSet<i64> = tasks.iter().map(|t| t.plan_generation).collect();
            ensure!(generations.len() == 1, "plans {generations:?} at once");
            if name == "lines-out" {
                let read: Vec<u32> = tasks.iter().flat_map(|t| &t.queues).map(|q| q.id).collect();
                let distinct: BTreeSet<u32> = read.iter().copied().collect();
                ensure!(
                    distinct == (0..QUEUES).collect() && read.len() == distinct.len(),
                    "queues {read:?} are read"
                );
            }
            self.no_orphan(&connector.uid, count).await?;
        }
        let (agents, _) = self.client.agents().await?;
        let held: i32 = agents.iter().map(|a| a.tasks).sum();
        ensure!(held == 2 * i32::try_from(count)?, "agents hold {held} tasks");
        Ok(())
    }

    /// The store has rights, wishes and statuses of exactly these tasks.
    async fn no_orphan(&self, uid: &str, count: u32) -> Result<()> {
        let mut etcd = self.cluster.etcd.client().await?;
        let all = GetOptions::new().with_prefix().with_keys_only();
        let found = etcd.get("/gantry/", Some(all)).await?;
        for what in ["grants", "wants", "statuses"] {
            let of = format!("/{what}/{uid}/");
            let mut numbers = BTreeSet::new();
            for kv in found.kvs() {
                if let Some((_, n)) = kv.key_str()?.split_once(&of) {
                    numbers.insert(n.parse::<u32>().context("a key that ends with no number")?);
                }
            }
            ensure!(numbers == (0..count).collect(), "{what} of tasks {numbers:?}");
        }
        Ok(())
    }

    async fn follows(&mut self, count: u32) -> Result<()> {
        eventually(
            SOON,
            &format!("there are exactly {count} tasks each"),
            async || {
                self.more()?;
                self.look_at_offsets().await?;
                self.has(count).await
            },
        )
        .await
    }

    /// Everything that was written has gone through, and in the order of each queue.
    async fn arrived(&mut self) -> Result<Tally> {
        let length = lines::size(&self.input)?;
        eventually(SOON, "everything has arrived", async || {
            self.look_at_offsets().await?;
            let read = bytes_read(&self.client, "lines-in").await?;
            ensure!(read == length, "{read} of {length} bytes are read");
            let mut sent = 0;
            for queue in 0..QUEUES {
                sent += self.rocketmq.end_offset("lines", queue).await?;
            }
            let written = records_out(&self.client, "lines-out").await?;
            ensure!(sent == i64::try_from(written)?, "{written} of {sent} are written");
            anyhow::Ok(())
        })
        .await?;
        let files: BTreeMap<String, Vec<Vec<u8>>> = lines::read_dir(&self.output)?.into_iter().collect();
        let mut all = Vec::new();
        for queue in 0..QUEUES {
            let sent = self.rocketmq.read("lines", queue).await?;
            let sent: Vec<_> = sent.into_iter().map(|message| message.body).collect();
            let end = format!("-{queue}.txt");
            let file = files.iter().find(|(name, _)| name.ends_with(&end));
            let written = file.map(|(_, lines)| lines.clone()).unwrap_or_default();
            ensure!(
                sent == written,
                "queue {queue} has {} messages and its file {} lines",
                sent.len(),
                written.len()
            );
            all.extend(written);
        }
        Ok(Tally::of(all.iter().map(Vec::as_slice), self.total, unicode))
    }
}

#[test]
fn tasks_follow_tasks_max_under_load() {
    run(TEST, async |work| {
        let mut way = Way::start(work).await?;
        way.follows(1).await?;
        way.tasks_max(5).await?;
        way.follows(5).await?;
        way.tasks_max(3).await?;
        way.follows(3).await?;
        let tally = way.arrived().await?;
        println!("{} lines, {} of them sent again", way.total, tally.repeated());
        // Every task was ended in order: it had committed what it had done.
        tally.exact()
    });
}
