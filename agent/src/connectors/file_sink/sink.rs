use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use async_trait::async_trait;
use gantry_connector::{
    ConnectorError, Flushed, Payload, Sink, SinkContext, SinkPartition, SinkRecord, WriteReport,
};

use super::{
    super::eol,
    config::{NullAs, Settings},
    disk::Disk,
    errors,
    output::Output,
    state::{Mark, State},
    template,
};

/// Writes lines. See [`super::FileSinkPlugin`].
pub(super) struct FileSink {
    disk: Box<dyn Disk>,
    task: Option<Task>,
}

struct Task {
    settings: Settings,
    outputs: Vec<Output>,
    /// What the last flush returned, by output.
    told: Vec<Option<Mark>>,
    /// By output: where the record came from whose line has no newline yet.
    unended: Vec<Option<Box<str>>>,
    /// A sync has failed: nothing can be said any more of what is durable.
    broken: bool,
}

impl FileSink {
    pub(super) fn new(disk: impl Disk + 'static) -> Self {
        Self {
            disk: Box::new(disk),
            task: None,
        }
    }
}

#[async_trait]
impl Sink for FileSink {
    async fn open(&mut self, context: SinkContext) -> Result<(), ConnectorError> {
        self.task = None;
        self.task = Some(Task::open(&*self.disk, &context)?);
        Ok(())
    }

    async fn write(&mut self, batch: Vec<SinkRecord>) -> Result<WriteReport, ConnectorError> {
        let task = self.task.as_mut().ok_or_else(not_open)?;
        let result = task.write(&*self.disk, &batch);
        task.note(result)
    }

    async fn flush(&mut self) -> Result<Flushed, ConnectorError> {
        let task = self.task.as_mut().ok_or_else(not_open)?;
        let result = task.flush(&*self.disk);
        task.note(result)
    }

    async fn close(&mut self) -> Result<(), ConnectorError> {
        self.task = None;
        Ok(())
    }
}

fn not_open() -> ConnectorError {
    ConnectorError::task("file-sink is not open")
}

impl Task {
    fn open(disk: &dyn Disk, context: &SinkContext) -> Result<Self, ConnectorError> {
        let settings = Settings::read(&context.config)?;
        template::check(&settings.path, Some(context.total_partitions))?;
        let mut paths = BTreeMap::new();
        let mut outputs = Vec::with_capacity(context.partitions.len());
        let mut unended = Vec::with_capacity(context.partitions.len());
        for partition in &context.partitions {
            let path = template::render(&settings.path, partition)?;
            if let Some(other) = paths.insert(path.clone(), partition) {
                return Err(same_file(partition, other));
            }
            let path = context.env.paths.resolve(&path)?;
            create_dirs(disk, &settings.path, &path)?;
            let shown = path.to_string_lossy();
            let state = partition.state.as_deref().map(State::decode).transpose()?;
            let state = state.filter(|s| s.file == shown);
            unended.push(state.as_ref().and_then(|s| s.unended.clone()));
            let committed = state.map(|s| s.mark());
            outputs.push(Output::open(disk, path, committed, &settings)?);
        }
        let told = vec![None; outputs.len()];
        Ok(Self {
            settings,
            outputs,
            told,
            unended,
            broken: false,
        })
    }

    /// Remembers that a sync has failed.
    fn note<T>(&mut self, result: Result<T, ConnectorError>) -> Result<T, ConnectorError> {
        self.broken |= matches!(&result, Err(e) if e.domain() == gantry_connector::Domain::Task);
        result
    }

    fn check(&self) -> Result<(), ConnectorError> {
        if self.broken {
            return Err(ConnectorError::task(
                "the files must be opened again after what has failed",
            ));
        }
        Ok(())
    }

    fn write(&mut self, disk: &dyn Disk, batch: &[SinkRecord]) -> Result<WriteReport, ConnectorError> {
        self.check()?;
        for output in &mut self.outputs {
            output.finish_undo(disk, &self.settings)?;
        }
        let before: Vec<_> = self.outputs.iter().map(Output::mark).collect();
        let unended = self.unended.clone();
        let written = self.take(disk, batch);
        if written.is_err() {
            self.unended = unended;
            for (output, mark) in self.outputs.iter_mut().zip(before) {
                output.undo(disk, mark, &self.settings);
            }
        }
        written
    }

    fn take(&mut self, disk: &dyn Disk, batch: &[SinkRecord]) -> Result<WriteReport, ConnectorError> {
        let mut report = WriteReport::default();
        for (i, record) in batch.iter().enumerate() {
            let output = self.outputs.get_mut(record.partition as usize);
            let output =
                output.ok_or_else(|| ConnectorError::task("a record of a queue that was not assigned"))?;
            match line(record, self.settings.null_as) {
                Ok(Some(line)) => {
                    let unended = &mut self.unended[record.partition as usize];
                    // What came from elsewhere does not continue the unfinished line.
                    if unended
                        .as_deref()
                        .is_some_and(|origin| eol::origin(&record.headers) != Some(origin))
                    {
                        output.push(disk, b"", b"\n", &self.settings)?;
                    }
                    output.push(disk, line.bytes, line.end, &self.settings)?;
                    let origin = || eol::origin(&record.headers).unwrap_or_default().into();
                    *unended = line.end.is_empty().then(origin);
                }
                Ok(None) => {}
                Err(e) => report.rejected.push((i, e)),
            }
        }
        self.outputs.iter_mut().try_for_each(Output::write_out)?;
        Ok(report)
    }

    fn flush(&mut self, disk: &dyn Disk) -> Result<Flushed, ConnectorError> {
        self.check()?;
        for output in &mut self.outputs {
            output.flush(disk, &self.settings)?;
        }
        let dirs: BTreeSet<_> = self
            .outputs
            .iter()
            .filter(|o| o.names_changed())
            .map(Output::dir)
            .collect();
        for dir in dirs {
            disk.sync_dir(dir).map_err(|e| errors::sync(dir, e))?;
        }
        self.outputs.iter_mut().for_each(Output::names_synced);
        let mut flushed = Flushed::default();
        for (((i, output), told), unended) in (0..).zip(&self.outputs).zip(&mut self.told).zip(&self.unended)
        {
            if *told != Some(output.mark()) {
                flushed.states.push((
                    i,
                    State::new(&output.path().to_string_lossy(), output.mark(), unended.clone()).encode()?,
                ));
                *told = Some(output.mark());
            }
        }
        Ok(flushed)
    }
}

/// Creates the directories whose names depend on the queue; the one above them must be there.
fn create_dirs(disk: &dyn Disk, template: &Path, path: &Path) -> Result<(), ConnectorError> {
    let below = template.components().count() - 1 - template::base(template).components().count();
    let missing: Vec<_> = path.ancestors().skip(1).take(below).collect();
    for dir in missing.into_iter().rev() {
        disk.create_dir(dir).map_err(|e| errors::io("create", dir, e))?;
    }
    Ok(())
}

/// What a record leaves behind.
struct Line<'a> {
    bytes: &'a [u8],
    /// Its newline, or nothing.
    end: &'static [u8],
}

/// None: nothing is left behind.
fn line(record: &SinkRecord, null_as: NullAs) -> Result<Option<Line<'_>>, ConnectorError> {
    let bytes: &[u8] = match (&record.value, null_as) {
        (Payload::Bytes(bytes), _) => bytes,
        (Payload::Null, NullAs::Empty) => b"",
        (Payload::Null, NullAs::Skip) => return Ok(None),
        (Payload::Null, NullAs::Reject) => {
            return Err(ConnectorError::record("the record has no value").fix("set null_as to empty or skip"));
        }
        (Payload::Structured(_), _) => {
            return Err(
                ConnectorError::record("the value is structured, and a file takes bytes")
                    .fix("set a converter that makes bytes of it"),
            );
        }
    };
    let unended = record.headers.get(eol::HEADER) == Some(eol::NONE);
    Ok(Some(Line {
        bytes,
        end: if unended { b"" } else { b"\n" },
    }))
}

fn same_file(one: &SinkPartition, other: &SinkPartition) -> ConnectorError {
    ConnectorError::user(format!(
        "queue {} of topic {} and queue {} of topic {} lead to the same file",
        other.queue, other.topic, one.queue, one.topic
    ))
    .fix("add {topic} and {queue} to the path, so that each queue has a file of its own")
}
