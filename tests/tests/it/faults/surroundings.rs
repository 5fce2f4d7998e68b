//! What connectors stand on fails: disks, directories, files, topics, the broker's permission, etcd's quota. It is said what is
//! wrong and what to do, nothing is lost, and all goes on when the cause is gone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use etcd_client::{AlarmAction, AlarmOptions, AlarmType};
use gantry_client::v1::Problem;
use gantry_client::v1::connector::State;
use gantry_client::v1::problem::Domain;
use gantry_client::{Client, Error};
use gantry_tests::connectors::{bytes_read, definition, problem, reaches};
use gantry_tests::lines::{self, Tally, ascii};
use gantry_tests::wait::eventually;
use gantry_tests::{Cluster, Etcd, RocketMq, WorkDir, run};
use serde_json::json;

use super::LIMIT;

const TEST: Duration = Duration::from_secs(300);
const TOPIC: &str = "lines";

/// A file on its way through a topic into a file.
struct Way<'a> {
    rocketmq: RocketMq,
    cluster: Cluster<'a>,
    client: Client,
    input: PathBuf,
    output: PathBuf,
    total: u64,
}

impl<'a> Way<'a> {
    async fn start(work: &'a WorkDir) -> Result<Self> {
        Self::start_on(work, Etcd::start(work, "etcd").await?).await
    }

    async fn start_on(work: &'a WorkDir, etcd: Etcd) -> Result<Self> {
        let rocketmq = RocketMq::start(work, "rocketmq").await?;
        Self::start_with(work, etcd, rocketmq).await
    }

    async fn start_with(work: &'a WorkDir, etcd: Etcd, rocketmq: RocketMq) -> Result<Self> {
        rocketmq.create_topic(TOPIC, 1).await?;
        let stores = [etcd.endpoints().join(",")];
        let heartbeat = Duration::from_secs(3);
        let mut cluster = Cluster::replicated(work, &rocketmq.namesrv(), etcd, &stores, heartbeat).await?;
        cluster.start_agent("one").await?;
        let output = cluster.files().join("out");
        fs::create_dir(&output)?;
        Ok(Self {
            client: cluster.client()?,
            input: cluster.files().join("lines.txt"),
            output,
            rocketmq,
            cluster,
            total: 0,
        })
    }

    async fn create(&self) -> Result<()> {
        let config = json!({ "paths": [self.input] });
        let source = definition("lines-in", "file-source", TOPIC, &config, &json!({}))?;
        let config = json!({ "path": self.output.join("{queue}.txt") });
        let sink = definition("lines-out", "file-sink", TOPIC, &config, &json!({}))?;
        for connector in [source, sink] {
            let name = connector.name.clone();
            self.client.create(connector, false).await?;
            reaches(&self.client, &name, State::Running, LIMIT).await?;
        }
        Ok(())
    }

    fn feed(&mut self, lines: u64) -> Result<()> {
        lines::append(&self.input, self.total..self.total + lines, ascii)?;
        self.total += lines;
        Ok(())
    }

    fn tally(&self) -> Result<Tally> {
        lines::tally(&self.output, self.total, ascii)
    }

    /// Waits until every line is at the sink, and both connectors are well.
    async fn arrived(&self) -> Result<()> {
        eventually(
            LIMIT,
            &format!("{} lines are at the sink", self.total),
            async || {
                let there = self.tally()?.distinct() as u64;
                let connectors = [
                    self.client.get("lines-in").await?,
                    self.client.get("lines-out").await?,
                ];
                ensure!(there == self.total, "{there} are there; {connectors:?}");
                Ok(())
            },
        )
        .await?;
        self.tally()?.complete()?;
        for name in ["lines-in", "lines-out"] {
            reaches(&self.client, name, State::Running, LIMIT).await?;
        }
        Ok(())
    }

    /// Waits until it is said what is wrong outside; the connector has not given up.
    async fn complains(&self, name: &str, mention: &str) -> Result<Problem> {
        let said = problem(&self.client, name, mention, LIMIT).await?;
        ensure!(
            said.domain() == Domain::External && !said.fix.is_empty(),
            "{said:?} does not say who has to do what"
        );
        let state = self.client.get(name).await?.state();
        ensure!(state != State::Failed, "{name} has given up: {said:?}");
        Ok(said)
    }
}

/// A file system of its own, gone with the value.
struct Mounted(PathBuf);

impl Mounted {
    /// None: this user may not mount.
    fn tmpfs(path: &Path, size: &str) -> Result<Option<Self>> {
        fs::create_dir(path)?;
        let options = format!("size={size}");
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(path)
            .output()
            .context("calling `mount`")?;
        Ok(output.status.success().then(|| Self(path.to_owned())))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Processes that still have files open there keep them; the name is free at once.
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} is still mounted", self.0.display());
        }
    }
}

#[test]
fn a_full_disk_under_a_sink() {
    run(TEST, async |work| {
        let mut way = Way::start(work).await?;
        way.output = way.cluster.files().join("small");
        let Some(_mounted) = Mounted::tmpfs(&way.output, "2m")? else {
            println!("not shown: this user may not mount a tmpfs");
            return Ok(());
        };
        let filler = way.output.join(".filler");
        fs::write(&filler, vec![0; 1_700_000])?;
        way.feed(100)?;
        way.create().await?;
        way.feed(20_000)?;
        let said = way.complains("lines-out", "No space left").await?;
        ensure!(said.fix.contains("make room"), "{said:?}");
        fs::remove_file(&filler)?;
        eventually(LIMIT, "all lines are at the sink", async || {
            let there = way.tally()?.distinct() as u64;
            ensure!(there == way.total, "{there} of {} are there", way.total);
            Ok(())
        })
        .await?;
        way.tally()?.exact()
    });
}

#[test]
fn a_sinks_directory_and_a_sources_file_that_go() {
    run(TEST, async |work| {
        let mut way = Way::start(work).await?;
        way.feed(1_000)?;
        way.create().await?;
        way.arrived().await?;

        // The directory goes and comes back.
        let away = way.cluster.files().join("away");
        fs::rename(&way.output, &away)?;
        way.feed(1_000)?;
        way.complains("lines-out", &way.output.display().to_string())
            .await?;
        fs::rename(&away, &way.output)?;
        way.arrived().await?;
        way.tally()?.exact()?;

        // The file is removed while it is read, and another one takes its place.
        let before = bytes_read(&way.client, "lines-in").await?;
        way.feed(200_000)?;
        eventually(LIMIT, "some of it is read", async || {
            let now = bytes_read(&way.client, "lines-in").await?;
            ensure!(now > before, "{now}");
            Ok(())
        })
        .await?;
        fs::remove_file(&way.input)?;
        way.feed(1_000)?;
        way.arrived().await?;
        way.tally()?.exact()
    });
}

#[test]
#[ignore = "sends do not heed a queue's permission in the route yet, and this broker takes them all the same"]
fn a_broker_that_may_only_be_read() {
    run(TEST, async |work| {
        let mut way = Way::start(work).await?;
        way.feed(1_000)?;
        way.create().await?;
        way.arrived().await?;
        way.rocketmq.allow_writes(false).await?;
        way.feed(1_000)?;
        way.complains("lines-in", TOPIC).await?;
        way.rocketmq.allow_writes(true).await?;
        way.arrived().await
    });
}

#[test]
fn a_topic_that_is_deleted_and_made_anew() {
    run(TEST, async |work| {
        // The broker deletes no topic without the store for delayed messages, and must not make this one by itself.
        let settings = "timerWheelEnable=true\nmappedFileSizeTimerLog=1048576\nautoCreateTopicEnable=false\n";
        let rocketmq = RocketMq::start_with(work, "rocketmq", settings).await?;
        let mut way = Way::start_with(work, Etcd::start(work, "etcd").await?, rocketmq).await?;
        way.feed(1_000)?;
        way.create().await?;
        way.arrived().await?;
        way.rocketmq.delete_topic(TOPIC).await?;
        way.feed(500)?;
        way.complains("lines-in", TOPIC).await?;
        way.rocketmq.create_topic(TOPIC, 1).await?;

        // What was sent before is known to be written: the sink will not take other messages for it by itself.
        let said = problem(&way.client, "lines-out", "offset 1000", LIMIT).await?;
        ensure!(said.fix.contains("alter its offsets"), "{said:?}");
        reaches(&way.client, "lines-out", State::Failed, LIMIT).await?;
        way.client.stop("lines-out").await?;
        reaches(&way.client, "lines-out", State::Stopped, LIMIT).await?;
        way.client.reset_offsets("lines-out", Vec::new(), false).await?;
        way.client.resume("lines-out").await?;
        way.arrived().await
    });
}

#[test]
fn a_store_at_its_quota() {
    run(TEST, async |work| {
        const QUOTA: &str = "--quota-backend-bytes=16777216";
        let etcd = Etcd::cluster_with(work, "etcd", 1, &[QUOTA]).await?;
        let mut way = Way::start_on(work, etcd).await?;
        way.feed(1_000)?;
        way.create().await?;
        way.arrived().await?;
        let mut store = way.cluster.etcd.client().await?;
        let mut fillers = 0;
        while store
            .put(format!("/filler/{fillers}"), vec![0; 512 << 10], None)
            .await
            .is_ok()
        {
            fillers += 1;
            ensure!(fillers < 100, "the store takes more than its quota");
        }

        way.feed(1_000)?;
        let more = definition("more", "blackhole-sink", TOPIC, &json!({}), &json!({}))?;
        let refused = way.client.create(more.clone(), false).await;
        let Err(Error::Refused { code, message, .. }) = refused else {
            anyhow::bail!("a connector was created in a store that is full: {refused:?}");
        };
        ensure!(
            code == tonic::Code::ResourceExhausted && !message.is_empty(),
            "{code:?}: {message}"
        );

        // What an operator does.
        for filler in 0..fillers {
            store.delete(format!("/filler/{filler}"), None).await?;
        }
        let revision = store
            .get("none", None)
            .await?
            .header()
            .map_or(0, |h| h.revision());
        store.compact(revision, None).await?;
        store.defragment().await?;
        let raised = store.alarm(AlarmAction::Get, AlarmType::Nospace, None).await?;
        for alarm in raised.alarms() {
            let mut of = AlarmOptions::new();
            of.with_member(alarm.member_id());
            store
                .alarm(AlarmAction::Deactivate, AlarmType::Nospace, Some(of))
                .await?;
        }
        way.arrived().await?;
        eventually(LIMIT, "a connector can be created again", async || {
            way.client.create(more.clone(), false).await.map(drop)
        })
        .await
    });
}
