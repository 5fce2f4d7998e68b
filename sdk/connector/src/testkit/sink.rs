use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value as Json};

use super::{Rng, check_info};
use crate::{
    Config, Domain, Env, Fields, Headers, Payload, PluginInfo, Severity, Sink, SinkContext, SinkPartition,
    SinkPlugin, SinkRecord,
};

/// Largest state that Gantry stores.
const STATE_MAX: usize = 4096;

/// An outside system that a sink writes to.
pub trait SinkWorld {
    /// The plugin to check.
    fn plugin(&self) -> Arc<dyn SinkPlugin>;

    /// A task of the plugin, on this world.
    fn create(&self) -> Box<dyn Sink> {
        self.plugin().create()
    }

    /// Empties the outside system and says how to write to it.
    fn set_up(&mut self) -> (Map<String, Json>, Env);

    /// The sink was dropped without `close`; what the outside system may lose by that is lost.
    fn crash(&mut self) {}

    /// How the record looks in [`SinkWorld::contents`]; empty if it leaves nothing behind.
    fn rendered(&self, record: &SinkRecord) -> Vec<u8>;

    /// What the outside system has of a partition, in order.
    fn contents(&mut self, partition: &SinkPartition) -> Vec<u8>;

    /// Whether each record is there exactly once when states are handed back; else at least once.
    fn exactly_once(&self) -> bool;
}

/// Partitions as Gantry makes them: queues of one topic.
pub fn partitions(n: usize) -> Vec<SinkPartition> {
    let topic: Arc<str> = "orders".into();
    let each = (0..n).map(|i| SinkPartition {
        topic: topic.clone(),
        queue: format!("broker-a-{i}").into(),
        fields: Arc::new(
            Fields::new()
                .with("topic", "orders")
                .with("broker", "broker-a")
                .with("queue", i as u64),
        ),
        state: None,
    });
    each.collect()
}

/// Checks a sink against all that the contract of [`Sink`] says.
///
/// # Panics
/// When something is broken.
pub async fn check_sink(world: &mut dyn SinkWorld, seed: u64) {
    let info = world.plugin().info();
    check_info(&info);
    let (map, env) = world.set_up();
    let config = checked(&info, &map);
    let findings = world.plugin().validate(&config, &env).await;
    let errors: Vec<_> = findings
        .iter()
        .filter(|f| f.severity == Severity::Error)
        .collect();
    assert!(
        errors.is_empty(),
        "validate refuses a world that can be written: {errors:?}"
    );

    odd_values(world).await;
    altered_state(world).await;
    for round in 0..20 {
        crashes(world, seed.wrapping_add(round)).await;
    }
}

fn checked(info: &PluginInfo, map: &Map<String, Json>) -> Config {
    info.spec
        .check(map)
        .unwrap_or_else(|v| panic!("the world's configuration is refused: {v:?}"))
}

/// What Gantry knows of a sink task: for each partition the records, how many are committed, and the state.
struct Model {
    config: Config,
    env: Env,
    partitions: Vec<SinkPartition>,
    written: Vec<Vec<SinkRecord>>,
    committed: Vec<usize>,
}

impl Model {
    fn new(world: &mut dyn SinkWorld, partitions: Vec<SinkPartition>) -> Self {
        let (map, env) = world.set_up();
        let config = checked(&world.plugin().info(), &map);
        let n = partitions.len();
        Self {
            config,
            env,
            partitions,
            written: vec![vec![]; n],
            committed: vec![0; n],
        }
    }

    /// Opens a task and, as Gantry does, flushes and commits once before the first write.
    async fn open(&mut self, world: &dyn SinkWorld) -> Box<dyn Sink> {
        let mut sink = world.create();
        sink.open(self.context())
            .await
            .unwrap_or_else(|e| panic!("open failed: {}", e.chain()));
        let next = self.committed.clone();
        self.flush(&mut *sink, &next, true).await;
        sink
    }

    fn context(&self) -> SinkContext {
        SinkContext {
            config: self.config.clone(),
            partitions: self.partitions.clone(),
            total_partitions: self.partitions.len() as u32,
            task: 0,
            tasks: 1,
            env: self.env.clone(),
        }
    }

    async fn flush(&mut self, sink: &mut dyn Sink, next: &[usize], commit: bool) {
        let flushed = sink
            .flush()
            .await
            .unwrap_or_else(|e| panic!("flush failed: {}", e.chain()));
        for (i, state) in flushed.states {
            let partition = self
                .partitions
                .get_mut(i as usize)
                .expect("state of a partition that was not assigned");
            assert!(state.len() <= STATE_MAX, "state of {} bytes", state.len());
            if commit {
                partition.state = Some(state);
            }
        }
        if commit {
            self.committed.copy_from_slice(next);
        }
    }

    fn expect(&self, world: &mut dyn SinkWorld, how: &str) {
        for (partition, records) in self.partitions.iter().zip(&self.written) {
            let seen = world.contents(partition);
            let wanted: Vec<_> = records.iter().map(|r| world.rendered(r)).collect();
            if world.exactly_once() {
                let wanted = wanted.concat();
                let differ = seen.iter().zip(&wanted).position(|(s, w)| s != w);
                let at = differ.unwrap_or(seen.len().min(wanted.len()));
                assert!(
                    seen == wanted,
                    "{} {how}: {} bytes instead of {}, differing from byte {at}",
                    partition.queue,
                    seen.len(),
                    wanted.len()
                );
            } else {
                let mut rest = seen.as_slice();
                for (i, record) in wanted.iter().enumerate().filter(|(_, r)| !r.is_empty()) {
                    let found = rest.windows(record.len()).position(|w| w == record);
                    let found =
                        found.unwrap_or_else(|| panic!("{} {how}: record {i} is missing", partition.queue));
                    rest = &rest[found + record.len()..];
                }
            }
        }
    }
}

fn record(partition: usize, offset: u64, value: Payload) -> SinkRecord {
    SinkRecord {
        partition: partition as u32,
        offset,
        key: None,
        tag: None,
        value,
        headers: Headers::new(),
        timestamp_ms: 1_700_000_000_000,
    }
}

async fn write(sink: &mut dyn Sink, batch: Vec<SinkRecord>) {
    let n = batch.len();
    let report = sink
        .write(batch)
        .await
        .unwrap_or_else(|e| panic!("write failed: {}", e.chain()));
    let mut indexes: Vec<_> = report.rejected.iter().map(|(i, _)| *i).collect();
    indexes.sort_unstable();
    indexes.dedup();
    assert_eq!(indexes.len(), report.rejected.len(), "an index is rejected twice");
    assert!(
        indexes.iter().all(|i| *i < n),
        "an index beyond the batch is rejected"
    );
    for (i, e) in &report.rejected {
        assert_eq!(
            e.domain(),
            Domain::Record,
            "record {i} is rejected as {}",
            e.chain()
        );
    }
    assert!(
        report.rejected.is_empty(),
        "plain records are rejected: {:?}",
        report.rejected
    );
}

/// Empty batches, flushes without writes, null, empty, large and binary values.
async fn odd_values(world: &mut dyn SinkWorld) {
    let mut model = Model::new(world, partitions(2));
    let mut sink = model.open(world).await;
    write(&mut *sink, vec![]).await;
    model.flush(&mut *sink, &[0, 0], true).await;
    let values = [
        Payload::Null,
        Payload::Bytes(Bytes::new()),
        Payload::Bytes(Bytes::from_static(b"\xff\xfe\0\xc3")),
        Payload::Bytes(Bytes::from(vec![b'x'; 4_000_000])),
        Payload::Bytes(Bytes::from_static("é".as_bytes())),
    ];
    for (i, value) in values.into_iter().enumerate() {
        let record = record(i % 2, (i / 2) as u64, value);
        model.written[i % 2].push(record.clone());
        write(&mut *sink, vec![record]).await;
    }
    let next: Vec<_> = model.written.iter().map(Vec::len).collect();
    model.flush(&mut *sink, &next, true).await;
    model.expect(world, "after odd values");
    model.flush(&mut *sink, &next, true).await;
    sink.close().await.expect("close failed");
    model.expect(world, "after a second flush and close");

    let mut sink = model.open(world).await;
    sink.close().await.expect("close failed");
    drop(sink);
    world.crash();
    model.expect(world, "after it was opened and closed again");
}

/// A state that is not the sink's own is refused, not guessed at.
async fn altered_state(world: &mut dyn SinkWorld) {
    let mut model = Model::new(world, partitions(1));
    let mut sink = model.open(world).await;
    sink.close().await.expect("close failed");
    if model.partitions[0].state.is_none() {
        return;
    }
    for state in [&b""[..], b"\0", b"{}", b"nonsense", &[0xff; 4096]] {
        model.partitions[0].state = Some(Bytes::copy_from_slice(state));
        let mut sink = world.create();
        let Err(e) = sink.open(model.context()).await else {
            panic!("state {state:?} is accepted")
        };
        assert_ne!(e.domain(), Domain::Record, "a state is refused as {}", e.chain());
        sink.close().await.expect("close after a failed open failed");
    }
}

/// Writes, flushes, commits and crashes in any order; in the end everything is there.
async fn crashes(world: &mut dyn SinkWorld, seed: u64) {
    let mut rng = Rng::new(seed);
    let n = 1 + rng.below(3);
    let mut model = Model::new(world, partitions(n));
    for (p, records) in model.written.iter_mut().enumerate() {
        let all = (0..20 + rng.below(60)).map(|i| {
            let filler = "x".repeat(rng.below(200));
            record(p, i as u64, Payload::Bytes(format!("<{p}:{i}:{filler}>").into()))
        });
        *records = all.collect();
    }
    let mut sink = model.open(world).await;
    let mut next = model.committed.clone();
    for _ in 0..2000 {
        if model
            .committed
            .iter()
            .zip(&model.written)
            .all(|(c, w)| *c == w.len())
        {
            break;
        }
        match rng.below(10) {
            0..6 => {
                let mut batch = Vec::new();
                for (p, next) in next.iter_mut().enumerate() {
                    let end = (*next + rng.below(8)).min(model.written[p].len());
                    batch.extend_from_slice(&model.written[p][*next..end]);
                    *next = end;
                }
                write(&mut *sink, batch).await;
            }
            6 | 7 => model.flush(&mut *sink, &next, true).await,
            // Durable, but the crash comes before the commit.
            kind => {
                if kind == 8 {
                    model.flush(&mut *sink, &next, false).await;
                } else if rng.one_in(2) {
                    sink.close().await.expect("close failed");
                }
                drop(sink);
                world.crash();
                sink = model.open(world).await;
                next = model.committed.clone();
            }
        }
    }
    sink.close().await.expect("close failed");
    drop(sink);
    world.crash();
    model.expect(world, &format!("after crashes (seed {seed})"));
}
