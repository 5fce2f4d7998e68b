//! Records on their way: a feeder, a source connector, a topic, a sink connector, and the account of it all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gantry_client::Client;
use gantry_control_plane::domain::{Uid, stored};
use gantry_control_plane::store::Key;
use gantry_proto::v1::task::State;
use serde_json::json;

use super::audit::{place, position};
use super::feed::{Feeder, Place};
use super::history::{Change, History, View};
use crate::RocketMq;
use crate::connectors::definition;
use crate::lines::{self, Make, Tally, ascii, unicode};
use crate::wait::eventually;

/// How records travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One file to one of several queues: their order is kept.
    Ordered,
    /// Several files to all queues, several tasks on both sides.
    Spread,
    /// From a source that deletes what it is told is committed.
    Destructive,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 3] = [Kind::Ordered, Kind::Spread, Kind::Destructive];

    fn name(self) -> &'static str {
        match self {
            Self::Ordered => "ordered",
            Self::Spread => "spread",
            Self::Destructive => "destructive",
        }
    }

    fn queues(self) -> u32 {
        match self {
            Self::Ordered | Self::Spread => 4,
            Self::Destructive => 1,
        }
    }

    fn make(self) -> Make {
        match self {
            Self::Ordered => unicode,
            Self::Spread | Self::Destructive => ascii,
        }
    }
}

/// A way from a source to a sink.
#[derive(Debug)]
pub struct Flow {
    kind: Kind,
    feeder: Feeder,
    output: PathBuf,
    source: Uid,
    sink: Uid,
}

/// How far a flow's source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Records that have been written to the source.
    pub written: u64,
    /// Records of them that are committed.
    pub committed: u64,
}

/// What became of a flow's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Account {
    /// Records that were written to the source; all are at the sink.
    pub written: u64,
    /// Records that are at the sink more than once, each time counted.
    pub repeated: u64,
    /// How often a number in the topic is lower than the one before it in the same queue, where all records share one.
    pub steps_back: u64,
}

impl Flow {
    /// Begins to write records, `rate` a second (a fourth of it, if they are a file each), and creates both connectors.
    pub async fn start(
        kind: Kind,
        rate: u32,
        files: &Path,
        rocketmq: &RocketMq,
        client: &Client,
        history: &History,
    ) -> Result<Self> {
        let name = kind.name();
        let (input, output) = (files.join(name), files.join(format!("{name}-out")));
        std::fs::create_dir_all(&input)?;
        std::fs::create_dir_all(&output)?;
        rocketmq.create_topic(name, kind.queues()).await?;
        let paths = |count| {
            (0..count)
                .map(|n| input.join(format!("{n}.txt")))
                .collect::<Vec<_>>()
        };
        let (place, plugin, config, tasks) = match kind {
            Kind::Ordered => {
                let paths = paths(1);
                let config = json!({ "paths": paths, "key": "path" });
                (Place::Files(paths), "file-source", config, 1)
            }
            Kind::Spread => {
                let config = json!({ "paths": [input.join("*.txt")] });
                (Place::Files(paths(3)), "file-source", config, 2)
            }
            Kind::Destructive => {
                let config = json!({ "directory": input });
                (Place::Directory(input), "destructive-source", config, 1)
            }
        };
        // Its directory is listed at every poll: what waits there slows it down.
        let rate = if kind == Kind::Destructive {
            rate.div_ceil(4)
        } else {
            rate
        };
        let feeder = Feeder::start(place, rate, kind.make())?;
        let (source, sink) = (format!("{name}-in"), format!("{name}-out"));
        let more = json!({ "tasks_max": tasks });
        client
            .create(definition(&source, plugin, name, &config, &more)?, false)
            .await?;
        let config = json!({ "path": output.join("{queue}.txt") });
        let more = json!({ "tasks_max": kind.queues().min(2) });
        client
            .create(definition(&sink, "file-sink", name, &config, &more)?, false)
            .await?;
        let limit = Duration::from_secs(30);
        let uids = history.wait(limit, "its connectors are in the store", |view| {
            Ok((view.uid(&source)?, view.uid(&sink)?))
        });
        let (source, sink) = uids.await?;
        Ok(Self {
            kind,
            feeder,
            output,
            source,
            sink,
        })
    }

    /// What it is called.
    pub fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// The feeder.
    pub fn feeder(&self) -> &Feeder {
        &self.feeder
    }

    /// The source and the sink connector.
    pub fn uids(&self) -> [&Uid; 2] {
        [&self.source, &self.sink]
    }

    /// Where the sink writes.
    pub fn output(&self) -> &Path {
        &self.output
    }

    /// How far the source is.
    pub fn standing(&self, view: &View) -> Result<Standing> {
        // First what is committed: what is written meanwhile was not committed then.
        let committed = self.committed(&view.offsets(&self.source)?)?;
        Ok(Standing {
            written: self.feeder.written().count(),
            committed,
        })
    }

    /// How often a task of the source has started anew, and how many records may have been sent again for it: all that had been
    /// written and were not committed.
    pub fn restarts(&self, changes: &[Change]) -> Result<(u64, u64)> {
        let (mut offsets, mut started) = (BTreeMap::new(), BTreeSet::new());
        let (mut restarts, mut again) = (0, 0);
        for change in changes {
            match &change.key {
                Key::Offset(uid, _, _) if *uid == self.source => {
                    let record = change.decoded::<stored::OffsetRecord>()?;
                    offsets.extend(record.map(|record| (change.key.clone(), record)));
                }
                Key::Status(id) if id.uid == self.source => {
                    let status = change.decoded::<stored::Status>()?;
                    let starts = status.is_some_and(|status| status.state() == State::Starting);
                    if starts && !started.insert(id.n) {
                        let written = self.feeder.written().count_at(change.at);
                        restarts += 1;
                        again += written.saturating_sub(self.committed(offsets.values())?);
                    }
                }
                _ => {}
            }
        }
        Ok((restarts, again))
    }

    fn committed<'r>(&self, offsets: impl IntoIterator<Item = &'r stored::OffsetRecord>) -> Result<u64> {
        let mut committed = 0;
        for record in offsets {
            if let (Some(place), Some(position)) = (place(record), position(record)) {
                committed += self.feeder.written().before(place, position)?;
            }
        }
        Ok(committed)
    }

    /// How many records the sink has committed.
    pub fn stored(&self, view: &View) -> Result<u64> {
        let offsets = view.offsets(&self.sink)?;
        Ok(offsets.iter().filter_map(position).sum())
    }

    /// Writes no more, waits until everything has arrived, and counts.
    pub async fn finish(
        &mut self,
        rocketmq: &RocketMq,
        history: &History,
        limit: Duration,
    ) -> Result<Account> {
        let name = self.name();
        let written = self.feeder.stop().await?;
        let what = format!("all {written} records of {name} are committed by their source");
        history
            .wait(limit, &what, |view| {
                let standing = self.standing(view)?;
                ensure!(
                    standing.committed == written,
                    "{} are; {:?}",
                    standing.committed,
                    view.held(&self.source)?
                );
                Ok(())
            })
            .await?;
        let what = format!("the whole topic of {name} is committed by the sink");
        eventually(limit, &what, async || {
            let mut sent = 0;
            for queue in 0..self.kind.queues() {
                sent += u64::try_from(rocketmq.end_offset(name, queue).await?)?;
            }
            let stored = self.stored(&history.view())?;
            let held = history.view().held(&self.sink)?;
            ensure!(stored == sent, "{stored} of {sent} messages are; {held:?}");
            Ok(())
        })
        .await?;
        let account = self.account(rocketmq, written).await;
        account.with_context(|| format!("the account of {name} does not come out"))
    }

    async fn account(&self, rocketmq: &RocketMq, written: u64) -> Result<Account> {
        let mut steps_back = 0;
        let mut used = BTreeSet::new();
        let mut arrived = Vec::new();
        for queue in 0..self.kind.queues() {
            let messages = rocketmq.read(self.name(), queue).await?;
            let sent: Vec<Vec<u8>> = messages.into_iter().map(|message| message.body).collect();
            let file = self.written_to(queue)?;
            let same = sent.iter().zip(&file).take_while(|(a, b)| a == b).count();
            ensure!(
                sent == file,
                "queue {queue} has {} messages and its file {} lines; they differ from number {same} on: {:?} and {:?}",
                sent.len(),
                file.len(),
                sent.get(same).map(|line| String::from_utf8_lossy(line)),
                file.get(same).map(|line| String::from_utf8_lossy(line))
            );
            if !sent.is_empty() {
                used.insert(queue);
            }
            if self.kind != Kind::Spread {
                steps_back += in_order(&sent)?;
            }
            arrived.extend(file);
        }
        ensure!(
            self.kind == Kind::Spread || used.len() <= 1,
            "one key was sent to the queues {used:?}"
        );
        let tally = Tally::of(arrived.iter().map(Vec::as_slice), written, self.kind.make());
        tally.complete()?;
        Ok(Account {
            written,
            repeated: tally.repeated(),
            steps_back,
        })
    }

    /// The sink's file of a queue.
    fn written_to(&self, queue: u32) -> Result<Vec<Vec<u8>>> {
        let end = format!("-{queue}.txt");
        let files = lines::read_dir(&self.output)?;
        let mut own = files.into_iter().filter(|(name, _)| name.ends_with(&end));
        let first = own.next().map(|(_, lines)| lines).unwrap_or_default();
        ensure!(own.next().is_none(), "queue {queue} has two files");
        Ok(first)
    }
}

/// After every element is deleted that is not greater than all before it, the whole sequence is left. Gives how often
/// a number is not greater than the one before it.
fn in_order(lines: &[Vec<u8>]) -> Result<u64> {
    let (mut next, mut last, mut steps_back) = (0, None, 0);
    for line in lines {
        let number = lines::number(line).context("a line without a number")?;
        ensure!(number <= next, "record {number} is where record {next} should be");
        next = next.max(number + 1);
        steps_back += u64::from(last.is_some_and(|last| number <= last));
        last = Some(number);
    }
    Ok(steps_back)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_keep_the_order_and_gaps_do_not() {
        let lines = |numbers: &[u64]| numbers.iter().map(|n| ascii(*n).into_bytes()).collect::<Vec<_>>();
        assert_eq!(in_order(&lines(&[0, 1, 2, 3])).unwrap(), 0);
        assert_eq!(in_order(&lines(&[0, 1, 2, 1, 2, 3, 0, 1, 4])).unwrap(), 2);
        assert!(in_order(&lines(&[0, 2, 1])).is_err());
        assert!(in_order(&lines(&[1, 2])).is_err());
        assert!(in_order(&[b"x".to_vec()]).is_err());
    }
}
