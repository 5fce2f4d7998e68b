use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use gantry_connector::{
    ConnectorError, Domain, Env, Flushed, Headers, PathPolicy, Payload, Sink, SinkContext, SinkPartition,
    SinkPlugin, SinkRecord, WriteReport,
};
use serde_json::{Map, Value};

use super::super::FileSinkPlugin;

pub(super) fn plugin() -> Arc<dyn SinkPlugin> {
    Arc::new(FileSinkPlugin)
}

pub(super) fn map(value: Value) -> Map<String, Value> {
    let Value::Object(map) = value else {
        panic!("not an object")
    };
    map
}

pub(super) fn context(dir: &Path, config: Value, partitions: &[SinkPartition]) -> SinkContext {
    SinkContext {
        config: FileSinkPlugin.info().spec.check(&map(config)).unwrap(),
        partitions: partitions.to_vec(),
        total_partitions: partitions.len() as u32,
        task: 0,
        tasks: 1,
        env: Env {
            paths: PathPolicy::new([dir.to_owned()]),
        },
    }
}

pub(super) fn record(partition: u32, value: impl Into<Bytes>) -> SinkRecord {
    SinkRecord {
        partition,
        offset: 0,
        key: None,
        tag: None,
        value: Payload::Bytes(value.into()),
        headers: Headers::new(),
        timestamp_ms: 0,
    }
}

/// Tries again what failed for the environment, as Gantry does.
pub(super) struct Patient(pub(super) Box<dyn Sink>);

const TRIES: usize = 10_000;

#[async_trait]
impl Sink for Patient {
    async fn open(&mut self, context: SinkContext) -> Result<(), ConnectorError> {
        for _ in 0..TRIES {
            match self.0.open(context.clone()).await {
                Err(e) if e.domain() == Domain::Environment => {}
                other => return other,
            }
        }
        panic!("open never works")
    }

    async fn write(&mut self, batch: Vec<SinkRecord>) -> Result<WriteReport, ConnectorError> {
        for _ in 0..TRIES {
            match self.0.write(batch.clone()).await {
                Err(e) if e.domain() == Domain::Environment => {}
                other => return other,
            }
        }
        panic!("write never works")
    }

    async fn flush(&mut self) -> Result<Flushed, ConnectorError> {
        for _ in 0..TRIES {
            match self.0.flush().await {
                Err(e) if e.domain() == Domain::Environment => {}
                other => return other,
            }
        }
        panic!("flush never works")
    }

    async fn close(&mut self) -> Result<(), ConnectorError> {
        self.0.close().await
    }
}
