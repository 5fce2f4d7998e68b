use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use gantry_connector::{
    Config, ConnectorError, Env, Fields, Gap, PathPolicy, Payload, Polled, Source, SourceContext,
    SourcePlugin, SourceRecord, StartPosition,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::{super::eol, FileSourcePlugin};

/// A directory, a task that reads in it, and what has come out so far.
pub(super) struct Rig {
    pub(super) dir: TempDir,
    config: Value,
    source: Box<dyn Source>,
    pub(super) records: Vec<SourceRecord>,
    pub(super) gaps: Vec<Gap>,
    pub(super) ended: bool,
}

pub(super) fn checked(config: &Value, dir: &Path) -> Config {
    let mut map = config.as_object().unwrap().clone();
    for key in ["paths", "exclude"] {
        let Some(Value::Array(paths)) = map.get_mut(key) else {
            continue;
        };
        for path in paths.iter_mut().filter(|p| !p.as_str().unwrap().starts_with('/')) {
            *path = dir.join(path.as_str().unwrap()).to_str().unwrap().into();
        }
    }
    FileSourcePlugin.info().spec.check(&map).unwrap()
}

pub(super) fn env(dir: &Path) -> Env {
    Env {
        paths: PathPolicy::new([dir.to_owned()]),
    }
}

impl Rig {
    /// Nothing is open yet; paths without `/` in front are below the directory.
    pub(super) fn new(config: Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            dir,
            config,
            source: FileSourcePlugin.create(),
            records: vec![],
            gaps: vec![],
            ended: false,
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn append(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.path(name))
            .unwrap();
        file.write_all(bytes.as_ref()).unwrap();
    }

    pub(super) fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    pub(super) fn truncate(&self, name: &str) {
        OpenOptions::new()
            .write(true)
            .open(self.path(name))
            .unwrap()
            .set_len(0)
            .unwrap();
    }

    pub(super) async fn try_open(&mut self, positions: Vec<StartPosition>) -> Result<(), ConnectorError> {
        self.source = FileSourcePlugin.create();
        let config = checked(&self.config, self.dir.path());
        let env = env(self.dir.path());
        self.source
            .open(SourceContext {
                config,
                positions,
                task: 0,
                tasks: 1,
                env,
            })
            .await
    }

    pub(super) async fn open(&mut self) {
        self.try_open(vec![]).await.unwrap();
    }

    /// Crashes and starts again from the last record that came.
    pub(super) async fn restart(&mut self) {
        let positions = self.positions();
        self.try_open(positions).await.unwrap();
    }

    pub(super) fn positions(&self) -> Vec<StartPosition> {
        let mut positions: Vec<StartPosition> = Vec::new();
        for r in &self.records {
            positions.retain(|p| p.partition != *r.partition);
            positions.push(StartPosition {
                partition: (*r.partition).clone(),
                position: r.position.clone(),
            });
        }
        positions
    }

    pub(super) async fn poll(&mut self, max_bytes: usize) -> Result<Polled, ConnectorError> {
        self.source.poll(max_bytes).await
    }

    /// Polls and waits, as Gantry does, for so long.
    pub(super) async fn run(&mut self, time: Duration) {
        let deadline = tokio::time::Instant::now() + time;
        loop {
            let polled = self.source.poll(1 << 20).await.map_err(|e| e.chain()).unwrap();
            let empty = polled.records.is_empty();
            self.records.extend(polled.records);
            self.gaps.extend(polled.gaps);
            self.ended |= polled.end;
            if empty && (polled.end || tokio::time::Instant::now() >= deadline) {
                return;
            }
            if empty {
                tokio::time::sleep(polled.idle_for.unwrap_or_default()).await;
            }
        }
    }

    /// Long enough to see what has been written, too short for `idle_flush`.
    pub(super) async fn settle(&mut self) {
        self.run(Duration::from_millis(2500)).await;
    }

    /// The records since the last call, as text.
    pub(super) fn take(&mut self) -> Vec<String> {
        self.take_records().iter().map(text).collect()
    }

    pub(super) fn take_records(&mut self) -> Vec<SourceRecord> {
        std::mem::take(&mut self.records)
    }
}

pub(super) fn text(record: &SourceRecord) -> String {
    String::from_utf8_lossy(bytes(record)).into_owned()
}

pub(super) fn bytes(record: &SourceRecord) -> &[u8] {
    let Payload::Bytes(bytes) = &record.value else {
        panic!("not bytes")
    };
    bytes
}

/// The bytes that file-sink makes of the records.
pub(super) fn written(records: &[SourceRecord]) -> Vec<u8> {
    let mut all = Vec::new();
    for r in records {
        all.extend_from_slice(bytes(r));
        if r.headers.get(eol::HEADER) != Some(eol::NONE) {
            all.push(b'\n');
        }
    }
    all
}

pub(super) fn config(paths: &[&str]) -> Value {
    json!({"paths": paths})
}

pub(super) fn place(path: PathBuf, position: Fields) -> StartPosition {
    StartPosition {
        partition: super::super::position::partition(&path),
        position,
    }
}

pub(super) fn arc_plugin() -> Arc<dyn SourcePlugin> {
    Arc::new(FileSourcePlugin)
}
