//! The suite itself: a good connector passes, and each sin is found.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Map, Value as Json};

use super::{SinkWorld, SourceWorld, check_sink, check_source};
use crate::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sin {
    None,
    LosesWhenDropped,
    ResumesOneTooEarly,
    ResumesOneTooLate,
    StartsSilentlyAtZero,
    StepsBack,
    Unordered,
    EndsTooEarly,
}

const N: u64 = 30;

fn info(kind: Kind) -> PluginInfo {
    PluginInfo {
        name: "counting",
        version: "1.0.0",
        kind,
        summary: "Counts",
        description: "Counts.",
        spec: ConfigSpec::new(),
        capabilities: Capabilities::default(),
    }
}

struct Counting(Sin);

struct CountingSource {
    sin: Sin,
    partition: Arc<Fields>,
    next: u64,
}

#[async_trait]
impl SourcePlugin for Counting {
    fn info(&self) -> PluginInfo {
        info(Kind::Source)
    }

    fn create(&self) -> Box<dyn Source> {
        let partition = Arc::new(Fields::new().with("counter", 0u64));
        Box::new(CountingSource {
            sin: self.0,
            partition,
            next: 0,
        })
    }
}

#[async_trait]
impl Source for CountingSource {
    async fn open(&mut self, context: SourceContext) -> Result<(), ConnectorError> {
        for start in context.positions {
            let known = start.partition == *self.partition;
            match start.position.uint("next").filter(|_| known) {
                Some(next) if self.sin == Sin::ResumesOneTooEarly => self.next = next - 1,
                Some(next) if self.sin == Sin::ResumesOneTooLate => self.next = next + 1,
                Some(next) => self.next = next,
                None if self.sin == Sin::StartsSilentlyAtZero => {}
                None => return Err(ConnectorError::user("alien")),
            }
        }
        Ok(())
    }

    async fn poll(&mut self, max_bytes: usize) -> Result<Polled, ConnectorError> {
        let first = self.next;
        let n = (max_bytes as u64 / 8).clamp(1, 7).min(N.saturating_sub(first));
        if self.sin == Sin::LosesWhenDropped {
            self.next = first + n;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.next = first + n;
        let mut records: Vec<_> = (first..first + n)
            .map(|i| SourceRecord {
                partition: self.partition.clone(),
                position: Fields::new().with("next", if self.sin == Sin::StepsBack { i % 10 } else { i + 1 }),
                key: None,
                tag: None,
                value: Payload::Bytes(i.to_string().into()),
                headers: Headers::new(),
                timestamp_ms: None,
            })
            .collect();
        if self.sin == Sin::Unordered {
            records.reverse();
        }
        let end = self.next >= N || (self.sin == Sin::EndsTooEarly && self.next > N / 2);
        Ok(Polled {
            records,
            end,
            ..Polled::default()
        })
    }
}

struct SourceOf(Sin);

impl SourceWorld for SourceOf {
    fn plugin(&self) -> Arc<dyn SourcePlugin> {
        Arc::new(Counting(self.0))
    }

    fn set_up(&mut self) -> (Map<String, Json>, Env) {
        (Map::new(), Env::default())
    }

    fn records(&self) -> usize {
        N as usize
    }
}

fn passes(check: impl Future<Output = ()>) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    catch_unwind(AssertUnwindSafe(|| runtime.block_on(check))).is_ok()
}

#[test]
fn a_good_source_passes_and_every_sin_of_a_source_is_found() {
    assert!(passes(check_source(&mut SourceOf(Sin::None), 1)));
    for sin in [
        Sin::LosesWhenDropped,
        Sin::ResumesOneTooEarly,
        Sin::ResumesOneTooLate,
        Sin::StartsSilentlyAtZero,
        Sin::StepsBack,
        Sin::Unordered,
        Sin::EndsTooEarly,
    ] {
        assert!(!passes(check_source(&mut SourceOf(sin), 1)), "{sin:?}");
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    IgnoresState,
    AcceptsAnyState,
    CountsWhatIsNotDurable,
    RejectsBeyondTheBatch,
    LosesEmptyValues,
    DoublesOnSecondFlush,
}

/// What each queue has: durable bytes.
type Store = Arc<Mutex<Vec<Vec<u8>>>>;

struct Keeping(Fault, Store);

struct KeepingSink {
    fault: Fault,
    store: Store,
    queues: Vec<usize>,
    buffers: Vec<Vec<u8>>,
}

#[async_trait]
impl SinkPlugin for Keeping {
    fn info(&self) -> PluginInfo {
        info(Kind::Sink)
    }

    fn create(&self) -> Box<dyn Sink> {
        Box::new(KeepingSink {
            fault: self.0,
            store: self.1.clone(),
            queues: vec![],
            buffers: vec![],
        })
    }
}

fn queue(partition: &SinkPartition) -> usize {
    partition.fields.uint("queue").unwrap() as usize
}

#[async_trait]
impl Sink for KeepingSink {
    async fn open(&mut self, context: SinkContext) -> Result<(), ConnectorError> {
        for p in &context.partitions {
            let text = p
                .state
                .as_ref()
                .map(|s| std::str::from_utf8(s).unwrap_or_default());
            let length = match text.map(str::parse::<usize>) {
                Some(Err(_)) if self.fault != Fault::AcceptsAnyState => {
                    return Err(ConnectorError::user("state"));
                }
                Some(Ok(length)) => length,
                _ => self.store.lock().unwrap()[queue(p)].len(),
            };
            if self.fault != Fault::IgnoresState {
                self.store.lock().unwrap()[queue(p)].truncate(length);
            }
            self.queues.push(queue(p));
            self.buffers.push(vec![]);
        }
        Ok(())
    }

    async fn write(&mut self, batch: Vec<SinkRecord>) -> Result<WriteReport, ConnectorError> {
        let mut report = WriteReport::default();
        for r in &batch {
            let Payload::Bytes(bytes) = &r.value else { continue };
            if bytes.is_empty() && self.fault == Fault::LosesEmptyValues {
                continue;
            }
            self.buffers[r.partition as usize].extend_from_slice(bytes);
            self.buffers[r.partition as usize].push(b'\n');
        }
        if self.fault == Fault::RejectsBeyondTheBatch {
            report.rejected.push((batch.len(), ConnectorError::record("x")));
        }
        Ok(report)
    }

    async fn flush(&mut self) -> Result<Flushed, ConnectorError> {
        let mut flushed = Flushed::default();
        let mut store = self.store.lock().unwrap();
        for (i, queue) in self.queues.iter().enumerate() {
            let promised = store[*queue].len() + self.buffers[i].len();
            if self.fault != Fault::CountsWhatIsNotDurable {
                store[*queue].extend_from_slice(&self.buffers[i]);
            }
            if self.fault != Fault::DoublesOnSecondFlush {
                self.buffers[i].clear();
            }
            flushed.states.push((i as u32, Bytes::from(promised.to_string())));
        }
        Ok(flushed)
    }
}

struct SinkOf(Fault, Store);

impl SinkWorld for SinkOf {
    fn plugin(&self) -> Arc<dyn SinkPlugin> {
        Arc::new(Keeping(self.0, self.1.clone()))
    }

    fn set_up(&mut self) -> (Map<String, Json>, Env) {
        *self.1.lock().unwrap() = vec![vec![]; 8];
        (Map::new(), Env::default())
    }

    fn rendered(&self, record: &SinkRecord) -> Vec<u8> {
        match &record.value {
            Payload::Bytes(bytes) => [bytes, &b"\n"[..]].concat(),
            _ => vec![],
        }
    }

    fn contents(&mut self, partition: &SinkPartition) -> Vec<u8> {
        self.1.lock().unwrap()[queue(partition)].clone()
    }

    fn exactly_once(&self) -> bool {
        true
    }
}

#[test]
fn a_good_sink_passes_and_every_fault_of_a_sink_is_found() {
    let check = |fault| passes(check_sink(&mut SinkOf(fault, Store::default()), 1));
    assert!(check(Fault::None));
    for fault in [
        Fault::IgnoresState,
        Fault::AcceptsAnyState,
        Fault::CountsWhatIsNotDurable,
        Fault::RejectsBeyondTheBatch,
        Fault::LosesEmptyValues,
        Fault::DoublesOnSecondFlush,
    ] {
        assert!(!check(fault), "{fault:?}");
    }
}
