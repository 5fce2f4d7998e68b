//! Connectors that do what a test tells them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use gantry_connector::{
    Capabilities, ConfigSpec, ConnectorError, Domain, Fields, Flushed, Kind, Param, Payload, Plugin,
    PluginInfo, Polled, Sink, SinkContext, SinkPlugin, SinkRecord, Source, SourceContext, SourcePlugin,
    SourceRecord, WriteReport,
};
use parking_lot::Mutex;

/// The world that the fakes act on.
#[derive(Default)]
pub(crate) struct World {
    /// Records that the source has, by number from 0.
    pub(crate) records: Mutex<Vec<FakeRecord>>,
    /// Positions that the source was told.
    pub(crate) told: Mutex<Vec<u64>>,
    /// What the sink has written and flushed: by queue and offset.
    pub(crate) durable: Mutex<BTreeMap<(u32, u64), Vec<String>>>,
    /// States that the sink was opened with, one list per open.
    pub(crate) states: Mutex<Vec<Vec<Option<Bytes>>>>,
    /// What each hook does at its next calls, in order; after that it works.
    pub(crate) faults: Mutex<BTreeMap<&'static str, Vec<Fault>>>,
    /// Values that the sink rejects.
    pub(crate) rejects: Mutex<Vec<String>>,
    pub(crate) opened: AtomicUsize,
    pub(crate) closed: AtomicUsize,
    pub(crate) polled: AtomicUsize,
    pub(crate) flushed: AtomicUsize,
    /// The sink keeps nothing.
    pub(crate) discards: AtomicBool,
    /// The source wants its tasks to be split anew.
    pub(crate) replan: AtomicBool,
}

/// A record of the source.
#[derive(Clone)]
pub(crate) struct FakeRecord {
    pub(crate) key: Option<String>,
    pub(crate) value: Bytes,
}

/// What a hook does.
#[derive(Clone)]
pub(crate) enum Fault {
    Works,
    Fails(Domain),
    Panics,
    /// Never returns, but can be dropped.
    Waits,
    /// Never returns, and panics when it is dropped.
    PanicsWhenDropped,
    /// Blocks the thread until told.
    Blocks(Arc<std::sync::Barrier>),
}

impl World {
    pub(crate) fn fill(&self, count: usize) {
        self.fill_with(count, |_| None);
    }

    pub(crate) fn fill_with(&self, count: usize, key: impl Fn(usize) -> Option<String>) {
        let mut records = self.records.lock();
        let start = records.len();
        records.extend((start..start + count).map(|n| FakeRecord {
            key: key(n),
            value: format!("r{n}").into(),
        }));
    }

    pub(crate) fn fault(&self, hook: &'static str, faults: impl IntoIterator<Item = Fault>) {
        self.faults.lock().entry(hook).or_default().extend(faults);
    }

    fn next_fault(&self, hook: &'static str) -> Option<Fault> {
        let mut faults = self.faults.lock();
        faults
            .get_mut(hook)
            .filter(|f| !f.is_empty())
            .map(|f| f.remove(0))
    }

    /// What a connector does when it is dropped.
    fn strike_drop(&self) {
        if matches!(self.next_fault("drop"), Some(Fault::Panics)) {
            panic!("drop was told to panic");
        }
    }

    async fn strike(&self, hook: &'static str) -> Result<(), ConnectorError> {
        match self.next_fault(hook) {
            None | Some(Fault::Works) => Ok(()),
            Some(Fault::Fails(domain)) => {
                Err(ConnectorError::new(domain, format!("{hook} was told to fail")))
            }
            Some(Fault::Panics) => panic!("{hook} was told to panic"),
            Some(Fault::Waits) => std::future::pending().await,
            Some(Fault::PanicsWhenDropped) => {
                let _grenade = Grenade(hook);
                std::future::pending().await
            }
            Some(Fault::Blocks(until)) => {
                until.wait();
                Ok(())
            }
        }
    }
}

struct Grenade(&'static str);

impl Drop for Grenade {
    fn drop(&mut self) {
        panic!("{} was dropped", self.0);
    }
}

/// Both fakes on a world of their own.
pub(crate) fn all() -> Vec<Plugin> {
    on(&Arc::default())
}

/// Both fakes on this world.
pub(crate) fn on(world: &Arc<World>) -> Vec<Plugin> {
    vec![
        Plugin::Source(Arc::new(FakeSourcePlugin(world.clone()))),
        Plugin::Sink(Arc::new(FakeSinkPlugin(world.clone()))),
    ]
}

fn info(name: &'static str, kind: Kind) -> PluginInfo {
    PluginInfo {
        name,
        version: "1.0.0",
        kind,
        summary: "For tests.",
        description: "For tests.",
        spec: ConfigSpec::new().param(Param::string("password").doc("A secret.").secret()),
        capabilities: Capabilities::default(),
    }
}

struct FakeSourcePlugin(Arc<World>);

impl SourcePlugin for FakeSourcePlugin {
    fn info(&self) -> PluginInfo {
        info("fake-source", Kind::Source)
    }

    fn create(&self) -> Box<dyn Source> {
        Box::new(FakeSource {
            world: self.0.clone(),
            partition: Arc::new(Fields::new().with("name", "fake")),
            next: 0,
        })
    }
}

/// Reads the world's records; its position is the number of the next one.
struct FakeSource {
    world: Arc<World>,
    partition: Arc<Fields>,
    next: u64,
}

#[async_trait]
impl Source for FakeSource {
    async fn open(&mut self, context: SourceContext) -> Result<(), ConnectorError> {
        self.world.strike("open").await?;
        let left = context.positions.iter().find(|p| p.partition == *self.partition);
        self.next = left.and_then(|p| p.position.uint("record")).unwrap_or(0);
        self.world.opened.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn poll(&mut self, max_bytes: usize) -> Result<Polled, ConnectorError> {
        self.world.polled.fetch_add(1, Ordering::SeqCst);
        self.world.strike("poll").await?;
        let mut polled = Polled {
            idle_for: Some(Duration::from_millis(10)),
            replan_wanted: self.world.replan.load(Ordering::SeqCst),
            ..Polled::default()
        };
        let mut bytes = 0;
        let records = self.world.records.lock();
        while let Some(record) = records
            .get(self.next as usize)
            .filter(|_| bytes < max_bytes && polled.records.len() < 5_000)
        {
            bytes += record.value.len();
            self.next += 1;
            polled.records.push(SourceRecord {
                partition: self.partition.clone(),
                position: Fields::new().with("record", self.next),
                key: record.key.as_deref().map(Into::into),
                tag: None,
                value: Payload::Bytes(record.value.clone()),
                headers: Default::default(),
                timestamp_ms: None,
            });
        }
        Ok(polled)
    }

    async fn committed(&mut self, positions: &[(Arc<Fields>, Fields)]) -> Result<(), ConnectorError> {
        self.world
            .told
            .lock()
            .extend(positions.iter().filter_map(|(_, p)| p.uint("record")));
        self.world.strike("committed").await
    }

    async fn close(&mut self) -> Result<(), ConnectorError> {
        self.world.closed.fetch_add(1, Ordering::SeqCst);
        self.world.strike("close").await
    }
}

struct FakeSinkPlugin(Arc<World>);

impl SinkPlugin for FakeSinkPlugin {
    fn info(&self) -> PluginInfo {
        info("fake-sink", Kind::Sink)
    }

    fn create(&self) -> Box<dyn Sink> {
        Box::new(FakeSink {
            world: self.0.clone(),
            buffer: Vec::new(),
            flushed: BTreeMap::new(),
        })
    }
}

impl Drop for FakeSource {
    fn drop(&mut self) {
        self.world.strike_drop();
    }
}

impl Drop for FakeSink {
    fn drop(&mut self) {
        self.world.strike_drop();
    }
}

/// Keeps what it was given until it is flushed; its state is the offset after the last flushed record.
struct FakeSink {
    world: Arc<World>,
    buffer: Vec<(u32, u64, String)>,
    flushed: BTreeMap<u32, u64>,
}

#[async_trait]
impl Sink for FakeSink {
    async fn open(&mut self, context: SinkContext) -> Result<(), ConnectorError> {
        self.world.strike("open").await?;
        // Exactly once: what came after the committed state is taken back.
        let mut durable = self.world.durable.lock();
        for (partition, p) in (0..).zip(&context.partitions) {
            let state = p
                .state
                .as_ref()
                .and_then(|s| std::str::from_utf8(s).ok()?.parse::<u64>().ok())
                .unwrap_or(0);
            durable.retain(|(q, offset), _| *q != partition || *offset < state);
            self.flushed.insert(partition, state);
        }
        drop(durable);
        self.world
            .states
            .lock()
            .push(context.partitions.iter().map(|p| p.state.clone()).collect());
        self.world.opened.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn write(&mut self, batch: Vec<SinkRecord>) -> Result<WriteReport, ConnectorError> {
        self.world.strike("write").await?;
        let rejects = self.world.rejects.lock().clone();
        let mut report = WriteReport::default();
        if self.world.discards.load(Ordering::SeqCst) {
            return Ok(report);
        }
        for (at, record) in batch.into_iter().enumerate() {
            let value = match record.value {
                Payload::Bytes(b) => String::from_utf8_lossy(&b).into_owned(),
                other => format!("{other:?}"),
            };
            if rejects.contains(&value) {
                // Nothing keeps a connector from saying it twice.
                for _ in 0..2 {
                    let error = ConnectorError::record(format!("{value} is not liked"));
                    report.rejected.push((at, error));
                }
            } else {
                self.buffer.push((record.partition, record.offset, value));
            }
        }
        Ok(report)
    }

    async fn flush(&mut self) -> Result<Flushed, ConnectorError> {
        self.world.strike("flush").await?;
        let mut durable = self.world.durable.lock();
        for (partition, offset, value) in self.buffer.drain(..) {
            durable.entry((partition, offset)).or_default().push(value);
            self.flushed.insert(partition, offset + 1);
        }
        self.world.flushed.fetch_add(1, Ordering::SeqCst);
        let states = self
            .flushed
            .iter()
            .map(|(p, next)| (*p, Bytes::from(next.to_string())));
        Ok(Flushed {
            states: states.collect(),
        })
    }

    async fn close(&mut self) -> Result<(), ConnectorError> {
        self.world.closed.fetch_add(1, Ordering::SeqCst);
        self.world.strike("close").await
    }
}
