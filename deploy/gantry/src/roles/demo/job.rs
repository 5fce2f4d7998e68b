use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use gantry_client::{
    Client,
    v1::{Connector, View, connector::State},
};
use gantry_proto::{Struct, StructValue, struct_value::Kind};
use tokio::time::{Instant, sleep};

use super::compare;
use crate::{
    failure::{Exit, Failure},
    render::{self, Style, out},
};

/// Nothing new arrived for so long: something is wrong.
const STUCK: Duration = Duration::from_secs(60);

/// A pair of connectors, and what must come out.
pub(super) struct Job {
    name: &'static str,
    title: String,
    sources: Vec<PathBuf>,
    results: Vec<PathBuf>,
    queues: u32,
    source_tasks: u32,
    sink_tasks: u32,
    sink_path: String,
    directory: PathBuf,
}

impl Job {
    /// One file over a one-queue topic: the result is identical.
    pub(super) fn one_file(source: &Path, target: &Path) -> Self {
        let result = target.join("one.txt");
        Self {
            name: "demo-one",
            title: "one file over one queue: the result must be identical, byte for byte".into(),
            sources: vec![source.into()],
            sink_path: result.display().to_string(),
            results: vec![result],
            queues: 1,
            source_tasks: 1,
            sink_tasks: 1,
            directory: target.into(),
        }
    }

    /// Many files over four queues: the result is equal as a multiset of lines.
    pub(super) fn many_files(sources: &[PathBuf], target: &Path, tasks: u32) -> Self {
        let directory = target.join("many");
        Self {
            name: "demo-many",
            title: format!(
                "{} files over four queues, {tasks} source tasks, 2 sink tasks: no line may be missing or doubled",
                sources.len()
            ),
            sources: sources.to_vec(),
            results: Vec::new(),
            queues: 4,
            source_tasks: tasks,
            sink_tasks: 2,
            sink_path: directory.join("{queue}.txt").display().to_string(),
            directory,
        }
    }

    fn byte_exact(&self) -> bool {
        !self.results.is_empty()
    }

    /// Creates the connectors, waits until everything has arrived, compares, and prints what moved.
    pub(super) async fn run(&self, client: &Client, live: bool, style: Style) -> Result<(), Failure> {
        let io = |e: std::io::Error| Failure::new(Exit::Refused, format!("cannot compare the result: {e}"));
        out(&self.title)?;
        std::fs::create_dir_all(&self.directory).map_err(io)?;
        let mut lines = 0;
        let mut bytes = 0;
        for source in &self.sources {
            let (n, length) = (
                compare::count_lines(source).map_err(io)?,
                std::fs::metadata(source).map_err(io)?.len(),
            );
            out(&format!("  {} ({n} lines, {length} bytes)", source.display()))?;
            lines += n;
            bytes += length;
        }
        let started = Instant::now();
        client.create(self.source(), false).await?;
        client.create(self.sink(), false).await?;
        self.arrived(client, lines, live).await?;
        let seconds = started.elapsed().as_secs_f64();
        let rows = client
            .list(&format!("name:\"{}\"", self.name), View::Basic)
            .await?;
        out(&render::connectors(style, &rows))?;
        self.compare(lines)?;
        out(&format!(
            "  {lines} lines, {:.1} MB in {seconds:.2} s: {:.0} lines/s, {:.1} MB/s, from create to the last line\n",
            bytes as f64 / 1e6,
            lines as f64 / seconds,
            bytes as f64 / 1e6 / seconds
        ))
    }

    /// Waits until the sink has durably committed as many records as there are lines.
    async fn arrived(&self, client: &Client, lines: u64, live: bool) -> Result<(), Failure> {
        let sink = format!("{}-out", self.name);
        let mut last = (0, Instant::now());
        loop {
            let offsets = client.offsets(&sink).await?;
            let done: u64 = offsets
                .partitions
                .iter()
                .filter_map(|p| p.counts)
                .map(|c| c.out)
                .sum();
            if live {
                eprint!("\r  {done} of {lines} lines ");
            }
            if done >= lines {
                if live {
                    eprint!("\r{:40}\r", "");
                }
                return Ok(());
            }
            if done > last.0 {
                last = (done, Instant::now());
            }
            self.well(client).await?;
            if last.1.elapsed() > STUCK {
                return Err(Failure::new(
                    Exit::Refused,
                    format!("{done} of {lines} lines arrived, then nothing moved"),
                )
                .at(self.state(client).await)
                .fix("run again with --log info and look at what is printed"));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn well(&self, client: &Client) -> Result<(), Failure> {
        for side in ["in", "out"] {
            let connector = client.get(&format!("{}-{side}", self.name)).await?;
            if connector.state() == State::Failed {
                let problem = connector.error.unwrap_or_default();
                return Err(Failure::new(
                    Exit::Refused,
                    format!("{} has failed: {}", connector.name, problem.message),
                )
                .fix(problem.fix));
            }
        }
        Ok(())
    }

    async fn state(&self, client: &Client) -> String {
        let mut parts = Vec::new();
        for side in ["in", "out"] {
            let name = format!("{}-{side}", self.name);
            let Ok(connector) = client.get(&name).await else {
                continue;
            };
            let cause = connector
                .plan_error
                .as_ref()
                .or(connector.error.as_ref())
                .map(|p| p.message.clone());
            parts.push(format!(
                "{name} is {}: {}",
                connector.state().as_str_name(),
                cause.unwrap_or_default()
            ));
        }
        parts.join("; ")
    }

    fn compare(&self, lines: u64) -> Result<(), Failure> {
        let io = |e: std::io::Error| Failure::new(Exit::Refused, format!("cannot compare the result: {e}"));
        if self.byte_exact() {
            let (source, result) = (&self.sources[0], &self.results[0]);
            return match compare::identical(source, result).map_err(io)? {
                Ok(bytes) => out(&format!("  identical: {bytes} bytes")),
                Err(at) => {
                    Err(
                        Failure::new(Exit::Refused, format!("the result differs from byte {at} on"))
                            .at(format!("{} and {}", source.display(), result.display())),
                    )
                }
            };
        }
        let results: Vec<PathBuf> = std::fs::read_dir(&self.directory)
            .map_err(io)?
            .flatten()
            .map(|e| e.path())
            .collect();
        let difference = compare::multiset(&self.sources, &results).map_err(io)?;
        if difference.missing + difference.extra > 0 {
            return Err(Failure::new(
                Exit::Refused,
                format!(
                    "of {lines} lines {} are missing and {} are extra",
                    difference.missing, difference.extra
                ),
            ));
        }
        out(&format!(
            "  equal as a multiset of {} lines in {} files: 0 missing, 0 extra",
            difference.lines,
            results.len()
        ))
    }

    fn source(&self) -> Connector {
        let paths = self
            .sources
            .iter()
            .map(|p| text(&p.display().to_string()))
            .collect();
        let list = StructValue {
            kind: Some(Kind::ListValue(pbjson_types::ListValue { values: paths })),
        };
        let follow = StructValue {
            kind: Some(Kind::BoolValue(false)),
        };
        self.connector(
            "in",
            "file-source",
            self.source_tasks,
            [("paths", list), ("follow", follow)],
        )
    }

    fn sink(&self) -> Connector {
        self.connector(
            "out",
            "file-sink",
            self.sink_tasks,
            [("path", text(&self.sink_path))],
        )
    }

    fn connector<const N: usize>(
        &self,
        side: &str,
        plugin: &str,
        tasks: u32,
        config: [(&str, StructValue); N],
    ) -> Connector {
        let fields: BTreeMap<String, StructValue> =
            config.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        Connector {
            name: format!("{}-{side}", self.name),
            plugin: plugin.into(),
            topic: self.name.into(),
            tasks_max: i32::try_from(tasks).unwrap_or(i32::MAX),
            topic_create: Some(gantry_client::v1::TopicCreate {
                queues: self.queues.cast_signed(),
            }),
            config: Some(Struct {
                fields: fields.into_iter().collect(),
            }),
            ..Connector::default()
        }
    }
}

fn text(value: &str) -> StructValue {
    StructValue {
        kind: Some(Kind::StringValue(value.to_owned())),
    }
}
