use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use gantry_client::{
    Client,
    v1::{Connector, ConnectorOffsets, View, connector::State},
};
use gantry_proto::{Struct, StructValue, struct_value::Kind};
use tokio::time::{Instant, sleep};

use super::compare::{self, Difference};
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
        self.compare()?;
        out(&format!(
            "  {lines} lines, {:.1} MB in {seconds:.2} s: {:.0} lines/s, {:.1} MB/s, from create to the last line\n",
            bytes as f64 / 1e6,
            lines as f64 / seconds,
            bytes as f64 / 1e6 / seconds
        ))
    }

    /// Waits until the source has been read to its end and the sink has nothing left to read.
    ///
    /// That the sink has committed as many records as there are lines does not suffice: a send that is not answered in
    /// time is repeated, and what then arrives twice is counted twice.
    async fn arrived(&self, client: &Client, lines: u64, live: bool) -> Result<(), Failure> {
        let (source, sink) = (format!("{}-in", self.name), format!("{}-out", self.name));
        let mut last = ((0, 0), Instant::now());
        loop {
            let sent = delivered(&client.offsets(&source).await?);
            let done = delivered(&client.offsets(&sink).await?);
            if live {
                progress(&format!("\r  {} of {lines} lines ", done.min(lines)));
            }
            if sent >= lines && done >= lines && none_left(&client.offsets_with(&sink, true, false).await?) {
                if live {
                    progress(&format!("\r{:40}\r", ""));
                }
                return Ok(());
            }
            if (sent, done) > last.0 {
                last = ((sent, done), Instant::now());
            }
            self.well(client).await?;
            if last.1.elapsed() > STUCK {
                return Err(Failure::new(
                    Exit::Refused,
                    format!("{sent} of {lines} lines were sent and {done} arrived, then nothing moved"),
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

    fn compare(&self) -> Result<(), Failure> {
        let io = |e: std::io::Error| Failure::new(Exit::Refused, format!("cannot compare the result: {e}"));
        let mut results = self.results.clone();
        if self.byte_exact() {
            if let Ok(bytes) = compare::identical(&self.sources[0], &results[0]).map_err(io)? {
                return out(&format!("  identical: {bytes} bytes"));
            }
        } else {
            for entry in std::fs::read_dir(&self.directory).map_err(io)? {
                results.push(entry.map_err(io)?.path());
            }
        }
        let difference = compare::multiset(&self.sources, &results).map_err(io)?;
        let said = judged(&difference, self.byte_exact(), results.len());
        match said {
            Ok(said) => out(&said),
            Err(failure) => Err(failure.at(self.directory.display().to_string())),
        }
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

/// Records up to the committed positions that were delivered.
fn delivered(offsets: &ConnectorOffsets) -> u64 {
    let counts = offsets.partitions.iter().filter_map(|p| p.counts);
    counts.map(|c| c.out).sum()
}

fn none_left(offsets: &ConnectorOffsets) -> bool {
    offsets.partitions.iter().all(|p| p.lag == Some(0))
}

/// What is said of a result that is not byte for byte the same; an error if a line is missing or was never sent.
fn judged(difference: &Difference, byte_exact: bool, files: usize) -> Result<String, Failure> {
    let Difference {
        lines,
        missing,
        doubled,
        foreign,
    } = *difference;
    if missing + foreign > 0 {
        return Err(Failure::new(
            Exit::Refused,
            format!(
                "of {lines} lines {missing} are missing, {doubled} came twice, {foreign} are not of the source"
            ),
        ));
    }
    if doubled > 0 {
        return Ok(format!(
            "  0 of {lines} lines missing, {doubled} came twice: this machine is so busy that sends were not answered in \
             time and were repeated (delivery is at least once)"
        ));
    }
    match byte_exact {
        true => Err(Failure::new(
            Exit::Refused,
            "all lines are there, but not in their order",
        )),
        false => Ok(format!(
            "  equal as a multiset of {lines} lines in {files} files: 0 missing, 0 extra"
        )),
    }
}

fn text(value: &str) -> StructValue {
    StructValue {
        kind: Some(Kind::StringValue(value.to_owned())),
    }
}

/// Nobody may look at it any more.
fn progress(text: &str) {
    use std::io::Write as _;
    let _ = std::io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(missing: u64, doubled: u64, foreign: u64, byte_exact: bool) -> Result<String, String> {
        let difference = Difference {
            lines: 9,
            missing,
            doubled,
            foreign,
        };
        judged(&difference, byte_exact, 2).map_err(|failure| failure.to_string())
    }

    #[test]
    fn only_what_is_lost_or_invented_is_a_failure() {
        assert!(said(0, 0, 0, false).unwrap().contains("0 missing, 0 extra"));
        assert!(said(0, 3, 0, false).unwrap().contains("3 came twice"));
        assert!(said(0, 3, 0, true).unwrap().contains("3 came twice"));
        assert!(said(1, 3, 0, false).unwrap_err().contains("1 are missing"));
        assert!(
            said(0, 0, 1, true)
                .unwrap_err()
                .contains("1 are not of the source")
        );
        assert!(said(0, 0, 0, true).unwrap_err().contains("not in their order"));
    }
}
